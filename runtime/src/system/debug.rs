//! Debug registers (SDM volume 3, 18.2), and what the dispatcher asks of them.
//!
//! Breakpoints on instructions are faults: the dispatcher looks for them before an instruction.
//! Breakpoints on data and ports are traps: what matched is collected in
//! [`SystemState::pending_debug`](super::SystemState) and becomes a #DB after the instruction.

use super::rights::privileged;
use super::state::cr4;
use super::{Cx, Fault, Outcome, mode};
use crate::state::CpuState;
use metaphrase_ir::{SystemOp, sysflags};

/// DR6.BD: a debug register was accessed under DR7.GD.
pub const BD: u32 = 1 << 13;
/// DR6.BS: single step.
pub const BS: u32 = 1 << 14;
/// DR6.BT: a task switch to a task whose TSS has the T flag.
pub const BT: u32 = 1 << 15;

/// DR7.GD: accesses to debug registers are #DB.
const GD: u64 = 1 << 13;

/// The bits of DR6 that are always 1, and those that can be written.
const DR6_ONES: u64 = 0xffff_0ff0;
const DR6_WRITABLE: u64 = 0xe00f;
/// The same of DR7.
const DR7_ONES: u64 = 0x400;
const DR7_WRITABLE: u64 = 0xffff_23ff;

/// #DB.
const DB: Fault = Fault::plain(1);

/// The index in `SystemState::dr`, with the checks that every access makes.
fn register(cx: &Cx, op: SystemOp) -> Result<usize, Fault> {
    let sys = cx.sys();
    let aliased = matches!(op.n, 4 | 5);
    if op.n > 7 || aliased && sys.cr4 & cr4::DE != 0 {
        return Err(Fault::UD);
    }
    privileged(cx)?;
    if sys.dr[7] & GD != 0 {
        sys.pending_debug = BD;
        return Err(DB);
    }
    Ok(usize::from(if aliased { op.n + 2 } else { op.n }))
}

/// See [`metaphrase_ir::SystemKind`].
pub(super) fn read_dr(cx: &Cx, op: SystemOp, _a: u64, _b: u64, _next: u64) -> Outcome {
    let n = register(cx, op)?;
    Ok(cx.sys().dr[n])
}

/// See [`metaphrase_ir::SystemKind`].
pub(super) fn write_dr(cx: &Cx, op: SystemOp, a: u64, _b: u64, _next: u64) -> Outcome {
    let n = register(cx, op)?;
    let a = if mode::is_long_code(cx.state()) {
        a
    } else {
        a & 0xffff_ffff
    };
    if n >= 6 && a >> 32 != 0 {
        return Err(Fault::gp(0));
    }
    cx.sys().dr[n] = match n {
        6 => a & DR6_WRITABLE | DR6_ONES,
        7 => a & DR7_WRITABLE | DR7_ONES,
        _ => a,
    };
    cx.changed();
    Ok(0)
}

/// What a breakpoint is for: the R/W field of DR7.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Instruction,
    Write,
    Port,
    Data,
}

/// An access that a breakpoint may match.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Watched {
    /// The first byte of an instruction.
    Instruction,
    /// A read of data.
    Read,
    /// A write of data.
    Write,
    /// An access to ports.
    Port,
}

/// The debug registers, for questions about breakpoints.
#[derive(Clone, Copy, Debug)]
pub struct Breakpoints<'a> {
    dr: &'a [u64; 8],
    extended: bool,
}

/// The breakpoints of a CPU.
pub fn breakpoints(state: &CpuState) -> Breakpoints<'_> {
    Breakpoints {
        dr: &state.sys.dr,
        extended: state.sys.cr4 & cr4::DE != 0,
    }
}

impl Breakpoints<'_> {
    /// What breakpoint `n` is for, if it is enabled.
    fn kind(&self, n: usize) -> Option<Kind> {
        let control = self.dr[7];
        if control >> (2 * n) & 3 == 0 {
            return None;
        }
        match control >> (16 + 4 * n) & 3 {
            0 => Some(Kind::Instruction),
            1 => Some(Kind::Write),
            2 if self.extended => Some(Kind::Port),
            2 => None,
            _ => Some(Kind::Data),
        }
    }

    /// Whether any is enabled at all.
    pub fn any(&self) -> bool {
        self.dr[7] & 0xff != 0
    }

    /// Whether an instruction breakpoint is enabled.
    pub fn any_instruction(&self) -> bool {
        self.any() && (0..4).any(|n| self.kind(n) == Some(Kind::Instruction))
    }

    /// Whether a data breakpoint is enabled.
    pub fn any_data(&self) -> bool {
        let data = |kind| matches!(kind, Some(Kind::Write | Kind::Data));
        self.any() && (0..4).any(|n| data(self.kind(n)))
    }

    /// B0 to B3 of DR6 for an access of `len` bytes: linear addresses, or ports. What breakpoints
    /// cover is aligned to its length (SDM volume 3, 18.2.5).
    pub fn hits(&self, watched: Watched, first: u64, len: u64) -> u32 {
        if !self.any() {
            return 0;
        }
        let last = first.wrapping_add(len.saturating_sub(1));
        let mut hits = 0;
        for n in 0..4 {
            let fits = match self.kind(n) {
                Some(Kind::Instruction) => watched == Watched::Instruction,
                Some(Kind::Write) => watched == Watched::Write,
                Some(Kind::Data) => matches!(watched, Watched::Read | Watched::Write),
                Some(Kind::Port) => watched == Watched::Port,
                None => false,
            };
            let covered = match self.dr[7] >> (18 + 4 * n) & 3 {
                _ if watched == Watched::Instruction => 1,
                0 => 1,
                1 => 2,
                2 => 8,
                _ => 4,
            };
            let start = self.dr[n] & !(covered - 1);
            let end = start.wrapping_add(covered - 1);
            if fits && start <= last && end >= first {
                hits |= 1 << n;
            }
        }
        hits
    }

    /// B0 to B3 for the instruction at that linear address.
    pub fn instruction_at(&self, linear: u64) -> u32 {
        self.hits(Watched::Instruction, linear, 1)
    }
}

/// Makes DR6 say why a #DB comes, which the caller delivers next: matched breakpoints (B0 to B3),
/// [`BS`], [`BT`]. The bits of earlier ones stay, but those of breakpoints do not. Clears DR7.GD, as
/// entering the handler does (SDM volume 3, 18.2.4).
pub fn report(state: &mut CpuState, cause: u32) {
    let sys = &mut state.sys;
    sys.dr[6] = sys.dr[6] & !0xf | u64::from(cause);
    sys.dr[7] &= !GD;
}

/// The same for a #DB that an engine raised: DR7.GD, or the single step after an instruction, with
/// what the instruction's accesses have matched.
pub fn report_raised(state: &mut CpuState) {
    let pending = std::mem::take(&mut state.sys.pending_debug);
    let cause = if pending & BD != 0 {
        // A fault: its handler returns to the instruction (SDM volume 3, 18.3.1.1).
        state.sysflags |= sysflags::RF;
        BD
    } else {
        pending | BS
    };
    report(state, cause);
}

/// The same for what the last instruction's accesses have matched. False if that is nothing.
pub fn report_pending(state: &mut CpuState) -> bool {
    let pending = std::mem::take(&mut state.sys.pending_debug);
    if pending != 0 {
        report(state, pending);
    }
    pending != 0
}

/// Notes an access: a breakpoint on it becomes a #DB after the instruction.
pub(super) fn note(cx: &Cx, watched: Watched, first: u64, len: u64) {
    let hits = breakpoints(cx.state()).hits(watched, first, len);
    if hits != 0 {
        let sys = cx.sys();
        sys.pending_debug |= hits;
        sys.look = true;
    }
}
