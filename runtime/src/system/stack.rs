//! Stacks of transfers: pushes and pops that move no register until the transfer is certain.

use super::descriptor::{code, is_canonical, linear};
use super::segment::{self, RSP, SS};
use super::{Cx, Fault, SystemSegment, mode};
use crate::memory::paged::Rights;

/// A stack, with a stack pointer of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stack {
    /// SS.
    pub segment: SystemSegment,
    /// The stack pointer: as many bits as `bytes` says.
    pub sp: u64,
    /// RSP before any push or pop.
    whole: u64,
    /// The width of the stack pointer.
    bytes: u32,
    rights: Rights,
    /// The error code of #SS.
    error: u32,
}

/// The rights of accesses to a stack of level `cpl`.
fn rights(cx: &Cx, cpl: u8) -> Rights {
    if cpl == cx.sys().cpl {
        Rights::Current
    } else if cpl == 3 {
        Rights::User
    } else {
        Rights::Supervisor
    }
}

impl Stack {
    /// The current one.
    pub fn current(cx: &Cx) -> Stack {
        let s = cx.state();
        let segment = segment::get(cx, SS);
        let bytes = segment::stack_bytes(mode::is_long_code(s), segment.attr);
        Stack::new(cx, segment, s.gpr[RSP], bytes, s.sys.cpl, 0)
    }

    /// One of level `cpl`, outside 64-bit code. A fault names its selector.
    pub fn legacy(cx: &Cx, segment: SystemSegment, sp: u64, cpl: u8) -> Stack {
        let bytes = segment::stack_bytes(false, segment.attr);
        Stack::new(cx, segment, sp, bytes, cpl, code(segment.selector))
    }

    /// One of level `cpl` in 64-bit code.
    pub fn long(cx: &Cx, segment: SystemSegment, sp: u64, cpl: u8) -> Stack {
        Stack::new(cx, segment, sp, 8, cpl, 0)
    }

    fn new(cx: &Cx, segment: SystemSegment, sp: u64, bytes: u32, cpl: u8, error: u32) -> Stack {
        Stack {
            segment,
            sp: segment::merged(0, sp, bytes),
            whole: sp,
            bytes,
            rights: rights(cx, cpl),
            error,
        }
    }

    /// The stack pointer `n` bytes on.
    fn moved(&self, n: u64) -> u64 {
        segment::merged(0, self.sp.wrapping_add(n), self.bytes)
    }

    /// The linear address of `size` bytes at a stack pointer, if the segment holds them.
    fn at(&self, cx: &Cx, sp: u64, size: u64) -> Result<u64, Fault> {
        let fine = if self.bytes == 8 {
            is_canonical(sp) && is_canonical(sp.wrapping_add(size - 1))
        } else {
            segment::is_usable(&self.segment) && segment::in_limit(&self.segment, sp, size)
        };
        if !fine {
            return Err(Fault::ss(self.error));
        }
        let base = if self.bytes == 8 {
            0
        } else {
            self.segment.base
        };
        Ok(linear(cx, base, sp))
    }

    /// Whether `count` registers of `width` bytes can be pushed, as far as the segment goes.
    pub fn reserve(&self, cx: &Cx, count: u64, width: u8) -> Result<(), Fault> {
        let width = u64::from(width);
        for n in 1..=count {
            self.at(cx, self.moved((n * width).wrapping_neg()), width)?;
        }
        Ok(())
    }

    /// Pushes.
    pub fn push(&mut self, cx: &Cx, width: u8, value: u64) -> Result<(), Fault> {
        let size = u64::from(width);
        let sp = self.moved(size.wrapping_neg());
        let at = self.at(cx, sp, size)?;
        let memory = cx.paged();
        match width {
            2 => memory.write_as(self.rights, at, value as u16)?,
            4 => memory.write_as(self.rights, at, value as u32)?,
            _ => memory.write_as(self.rights, at, value)?,
        }
        self.sp = sp;
        Ok(())
    }

    /// Pops.
    pub fn pop(&mut self, cx: &Cx, width: u8) -> Result<u64, Fault> {
        let size = u64::from(width);
        let at = self.at(cx, self.sp, size)?;
        let memory = cx.paged();
        let value = match width {
            2 => memory.read_as::<u16>(self.rights, at)?.into(),
            4 => memory.read_as::<u32>(self.rights, at)?.into(),
            _ => memory.read_as::<u64>(self.rights, at)?,
        };
        self.sp = self.moved(size);
        Ok(value)
    }

    /// Releases `n` bytes.
    pub fn release(&mut self, n: u64) {
        self.sp = self.moved(n);
    }

    /// Leaves bits of RSP above a 16-bit stack pointer as they are now, as returns do.
    pub fn keeping_rsp(self, cx: &Cx) -> Stack {
        Stack {
            whole: cx.state().gpr[RSP],
            ..self
        }
    }

    /// Makes it the current stack. RSP only: SS is the transfer's to set.
    pub fn commit(&self, cx: &Cx) {
        cx.state().gpr[RSP] = segment::merged(self.whole, self.sp, self.bytes);
    }
}

/// SS and the stack pointer of an inner level out of the TSS (SDM volume 3, 5.8.5).
pub(super) fn inner(cx: &Cx, cpl: u8) -> Result<Stack, Fault> {
    let tr = cx.sys().tr;
    let level = u32::from(cpl);
    let big = tr.attr & 8 != 0;
    let (at, last) = if big {
        (4 + 8 * level, 5)
    } else {
        (2 + 4 * level, 3)
    };
    if at + last > tr.limit {
        return Err(Fault::ts(code(tr.selector)));
    }
    let memory = cx.paged();
    let at = linear(cx, tr.base, u64::from(at));
    let (sp, selector) = if big {
        let sp: u32 = memory.read_as(Rights::Supervisor, at)?;
        (
            u64::from(sp),
            memory.read_as(Rights::Supervisor, linear(cx, at, 4))?,
        )
    } else {
        let sp: u16 = memory.read_as(Rights::Supervisor, at)?;
        (
            u64::from(sp),
            memory.read_as(Rights::Supervisor, linear(cx, at, 2))?,
        )
    };
    let segment = segment::stack_segment(cx, selector, cpl, Fault::ts, false)?;
    Ok(Stack::legacy(cx, segment, sp, cpl))
}

/// A stack out of the 64-bit TSS: number `ist` of the interrupt stack table, or for 0 that of the
/// level (SDM volume 3, 8.7).
pub(super) fn inner_long(cx: &Cx, cpl: u8, ist: u8) -> Result<Stack, Fault> {
    let tr = cx.sys().tr;
    let at = match ist {
        0 => 4 + 8 * u32::from(cpl),
        n => 28 + 8 * u32::from(n),
    };
    if at + 7 > tr.limit {
        return Err(Fault::ts(code(tr.selector)));
    }
    let at = linear(cx, tr.base, u64::from(at));
    let rsp: u64 = cx.paged().read_as(Rights::Supervisor, at)?;
    if !is_canonical(rsp) {
        return Err(Fault::ss(0));
    }
    Ok(Stack::long(cx, segment::null_stack(cx, cpl), rsp, cpl))
}
