//! REP string instructions (SDM volume 2, REP).
//!
//! A call does at most [`BUDGET`] elements and answers 1 if the instruction must be run again. The
//! registers always show exactly what has been done: a fault leaves them at the faulting element.
//! Flags are written once, by the last comparison, so a fault leaves them as they were before the
//! instruction, as the SDM says, however many calls it took to get there.

use super::Cx;
use crate::memory::{self, GuestMemory, MemFault, PAGE};
use crate::state::CpuState;
use crate::system::{Fault, segment_allows};
use metaphrase_ir::{CcOp, FlagKind, Reg, SegmentAccess, StringKind, StringOp, Type, sysflags};

/// Elements in one call.
const BUDGET: u64 = 16384;
/// The #AC vector.
const AC: u8 = 17;

/// Why an element could not be accessed.
enum Refused {
    /// By paging.
    Memory(MemFault),
    /// By its segment, or for its alignment.
    Fault(Fault),
}

impl From<MemFault> for Refused {
    fn from(fault: MemFault) -> Refused {
        Refused::Memory(fault)
    }
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Refused {
        Refused::Fault(fault)
    }
}

/// Where a run stands; offsets and count are cut to the address size.
struct Run<'m> {
    cx: &'m Cx,
    memory: &'m GuestMemory,
    op: StringOp,
    size: u64,
    /// The address size's bits.
    mask: u64,
    source: u64,
    dest: u64,
    count: u64,
    source_base: u64,
    dest_base: u64,
    /// What the offsets advance by.
    step: u64,
    /// How many elements this call does at most.
    budget: u64,
}

/// What a comparison ended with.
type Compared = Option<(u64, u64)>;

/// REP MOVS, STOS, LODS, CMPS, SCAS.
pub(super) fn rep_string(cx: &Cx, descriptor: u32, [base, _, _]: [u64; 3]) -> u64 {
    let op = StringOp::unpack(descriptor);
    let mask = match op.addr {
        2 => 0xffff,
        4 => 0xffff_ffff,
        _ => u64::MAX,
    };
    let size = u64::from(op.size);
    let s = cx.state();
    let start = s.gpr[Reg::Rcx as usize] & mask;
    // A trap comes after each iteration (SDM volume 3, 17.3.1.4).
    let traced = s.sysflags & sysflags::TF != 0 && cx.env().memory.paged().is_some();
    let mut run = Run {
        cx,
        memory: &cx.env().memory,
        op,
        size,
        mask,
        source: s.gpr[Reg::Rsi as usize] & mask,
        dest: s.gpr[Reg::Rdi as usize] & mask,
        count: start,
        source_base: base,
        dest_base: if op.long { 0 } else { s.seg_base[0] },
        step: (s.df as u64).wrapping_mul(size),
        budget: if traced { 1 } else { BUDGET },
    };
    if start == 0 || !matches!(size, 1 | 2 | 4 | 8) {
        return 0;
    }
    let outcome = match op.kind {
        StringKind::Movs => run.movs(),
        StringKind::Stos => run.stos(s.gpr[0]),
        StringKind::Lods => run.lods(&mut s.gpr[0]),
        StringKind::Cmps | StringKind::Scas => run.compare(s.gpr[0]),
    };
    if run.count != start {
        let uses_source = !matches!(op.kind, StringKind::Stos | StringKind::Scas);
        if uses_source {
            set_cut(s, Reg::Rsi, op.addr, run.source);
        }
        if op.kind != StringKind::Lods {
            set_cut(s, Reg::Rdi, op.addr, run.dest);
        }
        set_cut(s, Reg::Rcx, op.addr, run.count);
    }
    match outcome {
        Err(Refused::Memory(fault)) => {
            cx.fault(fault);
            0
        }
        Err(Refused::Fault(fault)) => {
            cx.raise(fault.vector, fault.error);
            0
        }
        Ok(Some((a, b))) => {
            let s = cx.state();
            s.cc_op = CcOp::new(FlagKind::Sub, Type::int(op.size)).0;
            (s.cc_a, s.cc_b) = (a, b);
            0
        }
        Ok(None) => u64::from(run.count != 0),
    }
}

/// Writes a register at the address size: 16 bits leave the rest alone, 32 bits clear it.
fn set_cut(s: &mut CpuState, reg: Reg, bytes: u32, value: u64) {
    let old = &mut s.gpr[reg as usize];
    *old = match bytes {
        2 => *old & !0xffff | value & 0xffff,
        4 => value & 0xffff_ffff,
        _ => value,
    };
}

impl Run<'_> {
    fn linear(&self, base: u64, offset: u64) -> u64 {
        let sum = base.wrapping_add(offset);
        if self.op.long { sum } else { sum & 0xffff_ffff }
    }

    fn source_linear(&self) -> u64 {
        self.linear(self.source_base, self.source)
    }

    fn dest_linear(&self) -> u64 {
        self.linear(self.dest_base, self.dest)
    }

    fn read(&self, addr: u64) -> Result<u64, MemFault> {
        Ok(match self.size {
            1 => self.memory.read::<u8>(addr)?.into(),
            2 => self.memory.read::<u16>(addr)?.into(),
            4 => self.memory.read::<u32>(addr)?.into(),
            _ => self.memory.read::<u64>(addr)?,
        })
    }

    fn write(&self, addr: u64, value: u64) -> Result<(), MemFault> {
        match self.size {
            1 => self.memory.write(addr, value as u8),
            2 => self.memory.write(addr, value as u16),
            4 => self.memory.write(addr, value as u32),
            _ => self.memory.write(addr, value),
        }
    }

    /// Whether segment and alignment allow `len` bytes at the source or the destination.
    #[inline(always)]
    fn allow(&self, source: bool, len: u64, write: bool) -> Result<(), Fault> {
        if self.op.checked || self.op.aligned {
            return self.check(source, len, write);
        }
        Ok(())
    }

    #[cold]
    fn check(&self, source: bool, len: u64, write: bool) -> Result<(), Fault> {
        let (segment, offset, linear) = if source {
            (self.op.segment as u8, self.source, self.source_linear())
        } else {
            (0, self.dest, self.dest_linear())
        };
        if self.op.checked {
            let access = SegmentAccess {
                segment,
                size: len as u16,
                write,
                fetch: false,
            };
            segment_allows(self.cx, access, offset)?;
        }
        if self.op.aligned && linear % self.size != 0 {
            return Err(Fault::coded(AC, 0));
        }
        Ok(())
    }

    /// The element of the source.
    fn load_source(&self) -> Result<u64, Refused> {
        self.allow(true, self.size, false)?;
        Ok(self.read(self.source_linear())?)
    }

    /// The element of the destination.
    fn load_dest(&self) -> Result<u64, Refused> {
        self.allow(false, self.size, false)?;
        Ok(self.read(self.dest_linear())?)
    }

    /// Writes the element of the destination.
    fn store_dest(&self, value: u64) -> Result<(), Refused> {
        self.allow(false, self.size, true)?;
        Ok(self.write(self.dest_linear(), value)?)
    }

    /// Goes `n` elements on.
    fn advance(&mut self, n: u64) {
        let by = self.step.wrapping_mul(n);
        self.source = self.source.wrapping_add(by) & self.mask;
        self.dest = self.dest.wrapping_add(by) & self.mask;
        self.count -= n;
    }

    /// How many elements, going up, lie on the page of `linear` and below the wrap of `offset`.
    fn room(&self, linear: u64, offset: u64) -> u64 {
        if self.step != self.size {
            return 0;
        }
        let page = PAGE - linear % PAGE;
        let wrap = (self.mask - offset).saturating_add(1);
        page.min(wrap) / self.size
    }

    fn movs(&mut self) -> Result<Compared, Refused> {
        let mut left = self.count.min(self.budget);
        while left > 0 {
            let (from, to) = (self.source_linear(), self.dest_linear());
            let bulk = self
                .room(from, self.source)
                .min(self.room(to, self.dest))
                .min(left);
            let bytes = bulk * self.size;
            if bulk < 2
                || self.allow(true, bytes, false).is_err()
                || self.allow(false, bytes, true).is_err()
            {
                let value = self.load_source()?;
                self.store_dest(value)?;
                self.advance(1);
                left -= 1;
                continue;
            }
            let source = self.memory.span(from, bytes, false)?;
            let dest = self.memory.span(to, bytes, true)?;
            let (Some(source), Some(dest)) = (source, dest) else {
                // A device, or ROM.
                self.write(to, self.read(from)?)?;
                self.advance(1);
                left -= 1;
                continue;
            };
            // Compared where they really are: two linear pages may be one physical page.
            let ahead = (dest as usize).wrapping_sub(source as usize);
            if ahead != 0 && ahead < bytes as usize {
                // Elements read what earlier ones wrote.
                for n in 0..bulk {
                    let at = n * self.size;
                    self.write(to + at, self.read(from + at)?)?;
                }
            } else {
                // SAFETY: both spans are that long.
                unsafe { std::ptr::copy(source, dest, bytes as usize) };
            }
            self.advance(bulk);
            left -= bulk;
        }
        Ok(None)
    }

    fn stos(&mut self, value: u64) -> Result<Compared, Refused> {
        let mut left = self.count.min(self.budget);
        while left > 0 {
            let to = self.dest_linear();
            let bulk = self.room(to, self.dest).min(left);
            if bulk < 2 || self.allow(false, bulk * self.size, true).is_err() {
                self.store_dest(value)?;
                self.advance(1);
                left -= 1;
                continue;
            }
            let Some(dest) = self.memory.span(to, bulk * self.size, true)? else {
                self.write(to, value)?;
                self.advance(1);
                left -= 1;
                continue;
            };
            // SAFETY: the span is that long.
            unsafe { memory::fill(dest, self.size as usize, value, bulk) };
            self.advance(bulk);
            left -= bulk;
        }
        Ok(None)
    }

    fn lods(&mut self, rax: &mut u64) -> Result<Compared, Refused> {
        for _ in 0..self.count.min(self.budget) {
            let value = self.load_source()?;
            *rax = match self.size {
                1 => *rax & !0xff | value,
                2 => *rax & !0xffff | value,
                _ => value,
            };
            self.advance(1);
        }
        Ok(None)
    }

    /// CMPS and SCAS. `Some` once the instruction is complete.
    fn compare(&mut self, rax: u64) -> Result<Compared, Refused> {
        let accumulator = rax & Type::int(self.op.size).mask();
        for _ in 0..self.count.min(self.budget) {
            let a = match self.op.kind {
                StringKind::Cmps => self.load_source()?,
                _ => accumulator,
            };
            let b = self.load_dest()?;
            self.advance(1);
            if (a == b) == self.op.repne || self.count == 0 {
                return Ok(Some((a, b)));
            }
        }
        Ok(None)
    }
}
