//! Ports: IN, OUT, INS, OUTS, with IOPL and the I/O bitmap (SDM volume 1, 19.5).
//!
//! INS and OUTS with REP do a bounded number of elements a call; the registers always show what
//! has been done. What lies on one page of plain memory goes in one piece.

use super::debug::{self, Watched, breakpoints};
use super::segment::{self, ES, FS, SS};
use super::state::attr;
use super::{Cx, Fault, Outcome, mode};
use crate::memory::PAGE;
use crate::memory::paged::{Access, Rights};
use crate::state::CpuState;
use metaphrase_devices::{Bus, Width};
use metaphrase_frontend::Level;
use metaphrase_ir::{Reg, SegmentAccess, SystemOp, sysflags};
use std::sync::MutexGuard;

/// Elements of a REP in one call.
const BUDGET: u64 = 4096;

/// Where the task state segment of a 32-bit or 64-bit task has the offset of its I/O bitmap.
const MAP_BASE: u32 = 0x66;

/// #GP(0) unless the current level may access `size` ports from `port` on.
fn permit(cx: &Cx, port: u64, size: u64) -> Result<(), Fault> {
    /// The type of an available TSS with an I/O bitmap; bit 1 makes it busy.
    const TSS: u32 = 9;
    let s = cx.state();
    let level = mode::level(s);
    let iopl = (s.sysflags & sysflags::IOPL) >> 12;
    let free = match level {
        Level::Real => true,
        // Here IOPL is about CLI and its kin only.
        Level::V86 => false,
        _ => u64::from(level.cpl()) <= iopl,
    };
    if free {
        return Ok(());
    }
    let refused = Err(Fault::gp(0));
    let tr = s.sys.tr;
    let kind = tr.attr & (attr::P | attr::S | attr::TYPE) & !2;
    if kind != attr::P | TSS || tr.limit < MAP_BASE + 1 {
        return refused;
    }
    let word = |offset: u32| {
        let linear = tr.base.wrapping_add(offset.into());
        let long = matches!(level, Level::Long(_));
        let linear = if long { linear } else { linear & 0xffff_ffff };
        cx.paged().read_as::<u16>(Rights::Supervisor, linear)
    };
    // Two bytes are read whatever the port: both must lie in the segment.
    let at = u32::from(word(MAP_BASE)?) + (port / 8) as u32;
    if at + 1 > tr.limit {
        return refused;
    }
    let bits = u32::from(word(at)?) >> (port % 8);
    if bits & ((1 << size) - 1) != 0 {
        return refused;
    }
    Ok(())
}

fn width(size: u64) -> Width {
    match size {
        1 => Width::Byte,
        2 => Width::Word,
        _ => Width::Dword,
    }
}

/// The ports; #UD where there are none, which is no whole system.
fn ports(cx: &Cx) -> Result<MutexGuard<'_, Bus>, Fault> {
    let system = cx.env().system.as_ref().ok_or(Fault::UD)?;
    Ok(system.ports())
}

/// The operand size: 1, 2 or 4.
fn operand(op: SystemOp) -> u64 {
    match op.size {
        1 | 2 => op.size.into(),
        _ => 4,
    }
}

/// IN. The result is also in AL, AX or EAX.
pub(super) fn input(cx: &Cx, op: SystemOp, a: u64, _b: u64, _next: u64) -> Outcome {
    let (port, size) = (a & 0xffff, operand(op));
    permit(cx, port, size)?;
    let value = ports(cx)?.read(port, width(size));
    debug::note(cx, Watched::Port, port, size);
    let rax = &mut cx.state().gpr[Reg::Rax as usize];
    *rax = match size {
        1 => *rax & !0xff | value,
        2 => *rax & !0xffff | value,
        _ => value,
    };
    Ok(value)
}

/// OUT.
pub(super) fn output(cx: &Cx, op: SystemOp, a: u64, b: u64, _next: u64) -> Outcome {
    let (port, size) = (a & 0xffff, operand(op));
    permit(cx, port, size)?;
    let width = width(size);
    ports(cx)?.write(port, width, b & width.ones());
    debug::note(cx, Watched::Port, port, size);
    Ok(0)
}

/// A run of INS or OUTS. Offset and count are cut to the address size.
struct Run<'a> {
    cx: &'a Cx,
    out: bool,
    port: u64,
    size: u64,
    /// The segment of the memory operand, and its base.
    segment: u8,
    base: u64,
    /// 64-bit code.
    long: bool,
    /// The address size's bits.
    mask: u64,
    offset: u64,
    count: u64,
}

/// INS, OUTS.
pub(super) fn port_string(cx: &Cx, op: SystemOp, a: u64, _b: u64, _next: u64) -> Outcome {
    let s = cx.state();
    let mask = match op.m & 0xf {
        2 => 0xffff,
        4 => 0xffff_ffff,
        _ => u64::MAX,
    };
    let (repeats, out) = (op.m & 0x10 != 0, op.n == 1);
    let segment = if out { (op.m >> 5).min(5) } else { ES as u8 };
    let index = if out { Reg::Rsi } else { Reg::Rdi };
    let long = mode::is_long_code(s);
    let mut run = Run {
        cx,
        out,
        port: s.gpr[Reg::Rdx as usize] & 0xffff,
        size: operand(op),
        segment,
        base: if long && usize::from(segment) < FS {
            0
        } else {
            s.seg_base[usize::from(segment)]
        },
        long,
        mask,
        offset: s.gpr[index as usize] & mask,
        count: if repeats {
            s.gpr[Reg::Rcx as usize] & mask
        } else {
            1
        },
    };
    if run.count == 0 {
        return Ok(0);
    }
    permit(cx, run.port, run.size)?;
    // A single step ends every element.
    let limit = if s.sysflags & sysflags::TF != 0 {
        1
    } else {
        BUDGET
    };
    let start = run.count;
    let outcome = run.go(run.count.min(limit));
    if run.count != start {
        set_cut(s, index, mask, run.offset);
        if repeats {
            set_cut(s, Reg::Rcx, mask, run.count);
        }
    }
    outcome?;
    if run.count != 0 {
        s.rip = a;
    }
    Ok(0)
}

/// Writes a register at the address size: 16 bits leave the rest alone, 32 bits clear it.
fn set_cut(s: &mut CpuState, reg: Reg, mask: u64, value: u64) {
    let old = &mut s.gpr[reg as usize];
    *old = match mask {
        0xffff => *old & !0xffff | value,
        _ => value,
    };
}

impl Run<'_> {
    /// Does up to `left` elements; fewer if a breakpoint is met.
    fn go(&mut self, mut left: u64) -> Result<(), Fault> {
        while left > 0 {
            let done = match self.piece(left) {
                Some((host, elements)) => {
                    self.transfer(host, elements)?;
                    elements
                }
                None => {
                    self.element()?;
                    1
                }
            };
            self.advance(done);
            left -= done;
            if self.cx.sys().pending_debug != 0 {
                break;
            }
        }
        Ok(())
    }

    fn advance(&mut self, elements: u64) {
        let step = (self.cx.state().df as u64).wrapping_mul(self.size);
        let by = step.wrapping_mul(elements);
        self.offset = self.offset.wrapping_add(by) & self.mask;
        self.count -= elements;
    }

    fn linear(&self) -> u64 {
        let sum = self.base.wrapping_add(self.offset);
        if self.long { sum } else { sum & 0xffff_ffff }
    }

    /// The access of that many bytes.
    fn access(&self, bytes: u64) -> SegmentAccess {
        SegmentAccess {
            segment: self.segment,
            size: bytes as u16,
            write: !self.out,
            ..SegmentAccess::unpack(0)
        }
    }

    /// What can go at once, going up: elements in one page of plain memory. `None` where only a
    /// single element will show what happens.
    fn piece(&self, left: u64) -> Option<(*mut u8, u64)> {
        let s = self.cx.state();
        if s.df < 0 || breakpoints(s).any() {
            return None;
        }
        let linear = self.linear();
        let page = PAGE - linear % PAGE;
        let wrap = (self.mask - self.offset).saturating_add(1);
        let elements = (page.min(wrap) / self.size).min(left);
        let bytes = elements * self.size;
        if elements < 2 || segment::check(self.cx, self.access(bytes), self.offset).is_err() {
            return None;
        }
        let host = self.cx.paged().span(linear, bytes, !self.out).ok()??;
        Some((host, elements))
    }

    /// Between the port and `elements` of memory.
    fn transfer(&self, host: *mut u8, elements: u64) -> Result<(), Fault> {
        let mut ports = ports(self.cx)?;
        let width = width(self.size);
        // Through a buffer: the device may itself write to this memory.
        let mut buffer = [0; PAGE as usize];
        let bytes = &mut buffer[..(elements * self.size) as usize];
        if self.out {
            // SAFETY: `piece` found all elements in memory that may be read, on one page.
            unsafe { std::ptr::copy_nonoverlapping(host, bytes.as_mut_ptr(), bytes.len()) };
            ports.write_many(self.port, width, bytes);
        } else {
            ports.read_many(self.port, width, bytes);
            // SAFETY: `piece` found all elements in memory that may be written, on one page.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), host, bytes.len()) };
        }
        Ok(())
    }

    /// One element, with all that can happen to it.
    fn element(&self) -> Result<(), Fault> {
        let (cx, linear) = (self.cx, self.linear());
        segment::check(cx, self.access(self.size), self.offset)?;
        let width = width(self.size);
        if self.out {
            let value = self.load(linear).map_err(|f| self.through_segment(f))?;
            ports(cx)?.write(self.port, width, value);
            debug::note(cx, Watched::Read, linear, self.size);
        } else {
            // Memory first: a port that was read cannot be unread.
            let last = linear.wrapping_add(self.size - 1);
            let last = if self.long { last } else { last & 0xffff_ffff };
            cx.paged()
                .translate(linear, Access::Write, Rights::Current)?;
            if last / PAGE != linear / PAGE {
                let second = last & !(PAGE - 1);
                cx.paged()
                    .translate(second, Access::Write, Rights::Current)?;
            }
            let value = ports(cx)?.read(self.port, width);
            self.store(linear, value)?;
            debug::note(cx, Watched::Write, linear, self.size);
        }
        debug::note(cx, Watched::Port, self.port, self.size);
        Ok(())
    }

    /// What is #GP through other segments is #SS through SS.
    fn through_segment(&self, fault: Fault) -> Fault {
        if fault.vector == 13 && usize::from(self.segment) == SS {
            Fault::ss(0)
        } else {
            fault
        }
    }

    fn load(&self, linear: u64) -> Outcome {
        let paged = self.cx.paged();
        let rights = Rights::Current;
        Ok(match self.size {
            1 => paged.read_as::<u8>(rights, linear)?.into(),
            2 => paged.read_as::<u16>(rights, linear)?.into(),
            _ => paged.read_as::<u32>(rights, linear)?.into(),
        })
    }

    fn store(&self, linear: u64, value: u64) -> Result<(), Fault> {
        let paged = self.cx.paged();
        let rights = Rights::Current;
        match self.size {
            1 => paged.write_as(rights, linear, value as u8),
            2 => paged.write_as(rights, linear, value as u16),
            _ => paged.write_as(rights, linear, value as u32),
        }
    }
}
