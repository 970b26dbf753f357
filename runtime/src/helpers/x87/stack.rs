//! The register stack, the tags and the status word of the x87 FPU.

use crate::state::{X87Reg, X87State};

/// Status and control: invalid operation.
pub const IE: u16 = 1 << 0;
/// Denormal operand.
pub const DE: u16 = 1 << 1;
/// Division by zero.
pub const ZE: u16 = 1 << 2;
/// Overflow.
pub const OE: u16 = 1 << 3;
/// Underflow.
pub const UE: u16 = 1 << 4;
/// Precision.
pub const PE: u16 = 1 << 5;
/// All exception flags, and all mask bits of the control word.
pub const EXCEPTIONS: u16 = 0x3f;
/// The exceptions that are found before the operation: unmasked, they leave every operand alone.
pub const EARLY: u16 = IE | DE | ZE;
/// Status: stack fault.
pub const SF: u16 = 1 << 6;
/// Status: exception summary, an unmasked exception is pending.
pub const ES: u16 = 1 << 7;
/// Status: condition code 0.
pub const C0: u16 = 1 << 8;
/// Status: condition code 1.
pub const C1: u16 = 1 << 9;
/// Status: condition code 2.
pub const C2: u16 = 1 << 10;
/// Status: condition code 3.
pub const C3: u16 = 1 << 14;
/// Status: busy, a copy of ES.
pub const BUSY: u16 = 1 << 15;

impl X87Reg {
    /// The real indefinite: what a masked invalid operation gives.
    pub(super) const INDEFINITE: X87Reg = X87Reg {
        mantissa: 0xc000_0000_0000_0000,
        exponent: 0xffff,
    };
    /// +0.
    pub(super) const ZERO: X87Reg = X87Reg {
        mantissa: 0,
        exponent: 0,
    };
    /// +1.
    pub(super) const ONE: X87Reg = X87Reg {
        mantissa: 1 << 63,
        exponent: 0x3fff,
    };
}

impl X87State {
    /// The physical register that ST(`i`) is.
    #[inline(always)]
    fn physical(&self, i: u8) -> usize {
        usize::from(self.top.wrapping_add(u16::from(i)) & 7)
    }

    /// True if ST(`i`) is tagged empty.
    #[inline(always)]
    pub(super) fn is_empty(&self, i: u8) -> bool {
        self.tags & 1 << self.physical(i) == 0
    }

    /// The contents of ST(`i`), empty or not.
    #[inline(always)]
    pub(super) fn st(&self, i: u8) -> X87Reg {
        self.regs[self.physical(i)]
    }

    /// Writes ST(`i`), which is in use then.
    #[inline(always)]
    pub(super) fn set(&mut self, i: u8, value: X87Reg) {
        let n = self.physical(i);
        self.regs[n] = value;
        self.tags |= 1 << n;
    }

    /// Tags ST(`i`) empty.
    #[inline(always)]
    pub(super) fn free(&mut self, i: u8) {
        self.tags &= !(1 << self.physical(i));
    }

    /// Pushes a value; the caller has seen to it that there is room, or wants to overwrite.
    #[inline(always)]
    pub(super) fn push(&mut self, value: X87Reg) {
        self.top = self.top.wrapping_sub(1) & 7;
        self.set(0, value);
    }

    /// Pops.
    #[inline(always)]
    pub(super) fn pop(&mut self) {
        self.free(0);
        self.top = self.top.wrapping_add(1) & 7;
    }

    /// The status word with TOP.
    #[inline(always)]
    pub(in crate::helpers) fn status_word(&self) -> u16 {
        self.status | (self.top & 7) << 11
    }

    /// Sets the status word, TOP and all.
    pub(super) fn set_status_word(&mut self, word: u16) {
        self.status = word & !(7 << 11);
        self.top = word >> 11 & 7;
        self.summarize();
    }

    /// Sets the control word: bit 6 reads 1, the reserved bits read 0.
    pub(super) fn set_control(&mut self, word: u16) {
        self.control = word & 0x1f3f | 0x40;
        self.summarize();
    }

    /// Recomputes ES and B from flags and masks.
    #[inline(always)]
    pub(super) fn summarize(&mut self) {
        if self.status & !self.control & EXCEPTIONS != 0 {
            self.status |= ES | BUSY;
        } else {
            self.status &= !(ES | BUSY);
        }
    }

    /// Takes over an operation's flags and those of its condition codes that `defined` names.
    /// True if the operation must leave its operands alone: one of its exceptions `stops`, and
    /// that one is not masked. Then C1 is 0.
    #[inline(always)]
    pub(super) fn commit(&mut self, sw: u16, defined: u16, stops: u16) -> bool {
        if sw & EXCEPTIONS & !self.status == 0 && sw & stops == 0 {
            // Nothing new.
            self.status = self.status & !defined | sw & defined;
            return false;
        }
        let unmasked = sw & stops & !self.control & EXCEPTIONS;
        let sw = if unmasked & EARLY != 0 {
            sw & !(OE | UE | PE | C1)
        } else {
            sw
        };
        self.status = self.status & !defined | sw & (defined | EXCEPTIONS);
        self.summarize();
        unmasked != 0
    }

    /// Sets the condition codes that `which` names to `to`.
    #[inline(always)]
    pub(super) fn conditions(&mut self, which: u16, to: u16) {
        self.status = self.status & !which | to & which;
    }

    /// A stack overflow or underflow. True if invalid operations are masked, so that the
    /// instruction goes on with the indefinite value; if not, nothing else changes.
    #[cold]
    pub(super) fn stack_fault(&mut self, overflow: bool) -> bool {
        self.status |= IE | SF;
        self.conditions(C1, if overflow { C1 } else { 0 });
        self.summarize();
        self.control & IE != 0
    }
}
