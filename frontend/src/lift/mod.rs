//! The lifter: what each instruction means, in IR.
//!
//! [`Lift`] holds what one guest block's lifting needs and the shared machinery: operands
//! ([`operand`]), addresses ([`address`]), the stack ([`stack`]) and transfers of control. Each
//! family of instructions is a module with a function `lift`, which says whether the instruction
//! is one of its own; a family's functions are named by mnemonic.
//!
//! Order inside an instruction: everything that can fault first, then registers, then flags.

pub mod address;
pub mod alu;
pub mod atomic;
pub mod avx;
pub mod bcd;
pub mod bits;
pub mod bmi;
pub mod control;
pub mod data;
pub mod gates;
pub mod mmx;
pub mod muldiv;
pub mod operand;
pub mod partial;
pub mod privileged;
pub mod shift;
pub mod sse;
pub mod stack;
pub mod stack_ops;
pub mod string;
pub mod system;
pub mod unary;
pub mod x87;

use crate::mode::Mode;
use crate::policy::{Policy, Sensitive, SensitivePolicy};
use iced_x86::{CodeSize as IcedCodeSize, Instruction, Mnemonic};
use metaphrase_ir::{Block, Builder, Type, Value};
use std::collections::HashMap;

/// The #DE vector.
pub const DE: u8 = 0;
/// The #DB vector.
pub const DB: u8 = 1;
/// The #BP vector.
pub const BP: u8 = 3;
/// The #OF vector.
pub const OF: u8 = 4;
/// The #BR vector.
pub const BR: u8 = 5;
/// The #UD vector.
pub const UD: u8 = 6;
/// The #NM vector.
pub const NM: u8 = 7;
/// The #SS vector.
pub const SS: u8 = 12;
/// The #GP vector.
pub const GP: u8 = 13;
/// The #AC vector.
pub const AC: u8 = 17;

/// The lifting of one guest block.
pub struct Lift<'a> {
    /// Where IR goes.
    pub ir: Builder<'a>,
    /// The mode.
    pub mode: Mode,
    /// The instruction.
    pub insn: Instruction,
    /// Set while the accessors of operands serve a VEX instruction.
    pub vex: Option<avx::Vex>,
    policy: &'a SensitivePolicy,
    targets: &'a HashMap<u64, Block>,
    took_trap: bool,
}

impl<'a> Lift<'a> {
    /// Goes on where `ir` stands. Jumps to `targets` stay inside the region.
    pub fn new(
        ir: Builder<'a>,
        mode: Mode,
        policy: &'a SensitivePolicy,
        targets: &'a HashMap<u64, Block>,
    ) -> Lift<'a> {
        Lift {
            ir,
            mode,
            insn: Instruction::default(),
            vex: None,
            policy,
            targets,
            took_trap: false,
        }
    }

    /// Lifts one instruction. What no family knows becomes #UD.
    pub fn instruction(&mut self, insn: &Instruction) {
        self.insn = *insn;
        debug_assert_ne!(insn.code_size(), IcedCodeSize::Unknown);
        let m = insn.mnemonic();
        let allowed = if self.mode.system.is_some() {
            self.mode.features.allow_in_system(insn)
        } else {
            self.mode.features.allow(insn)
        };
        let known = if allowed {
            gates::lift(self)
                || privileged::lift(self, m)
                || FAMILIES.iter().any(|family| family(self, m))
        } else {
            bits::lift_as_older(self, m)
        };
        if !known {
            self.ud();
        }
    }

    /// True once an instruction was left to the runtime by policy.
    pub fn took_trap_policy(&self) -> bool {
        self.took_trap
    }

    /// Asks the policy for the current instruction. For `trap` it emits the exit and returns
    /// `None`: the caller has nothing more to do.
    pub fn policy(&mut self, kind: Sensitive) -> Option<Policy> {
        let policy = self.policy.of(kind, self.insn.ip());
        if policy == Policy::Trap {
            self.took_trap = true;
            self.ir.exit_emulate();
            return None;
        }
        Some(policy)
    }

    /// #UD.
    pub fn ud(&mut self) {
        self.ir.exit_raise(UD);
    }

    /// A PC as an offset from the region's entry.
    pub fn offset(&self, pc: u64) -> i64 {
        pc.wrapping_sub(self.ir.region.pc) as i64
    }

    /// The PC of the next instruction.
    pub fn next_pc(&self) -> u64 {
        self.insn.next_ip() & self.mode.code.pc_mask()
    }

    /// The PC of the next instruction as an offset from the region's entry.
    pub fn next_offset(&self) -> i64 {
        self.offset(self.next_pc())
    }

    /// Ends the block with a jump to a known PC, inside the region if it is there.
    pub fn jump_to(&mut self, pc: u64) {
        match self.targets.get(&pc) {
            Some(&block) => self.ir.br(block, &[]),
            None => {
                let offset = self.offset(pc);
                self.ir.exit_jump(offset);
            }
        }
    }

    /// Ends the block: to `taken` if `c` is not 0, else to the next instruction.
    pub fn cond_jump(&mut self, c: Value, taken: u64) {
        let fall = self.next_pc();
        match (
            self.targets.get(&taken).copied(),
            self.targets.get(&fall).copied(),
        ) {
            (None, None) => {
                let (taken, fall) = (self.offset(taken), self.offset(fall));
                self.ir.exit_jumpif(c, taken, fall);
            }
            (then, other) => {
                let then_block = then.unwrap_or_else(|| self.ir.new_block());
                let other_block = other.unwrap_or_else(|| self.ir.new_block());
                self.ir.brif(c, (then_block, &[]), (other_block, &[]));
                for (known, block, pc) in [(then, then_block, taken), (other, other_block, fall)] {
                    if known.is_none() {
                        self.ir.switch_to(block);
                        self.jump_to(pc);
                    }
                }
            }
        }
    }

    /// A constant of an integer type.
    pub fn iconst(&mut self, ty: Type, value: u64) -> Value {
        self.ir.iconst(ty, value)
    }
}

/// A family's entry: lifts the current instruction if it is one of the family, and says so.
type Family = fn(&mut Lift<'_>, Mnemonic) -> bool;

/// The families, the most frequent first.
const FAMILIES: &[Family] = &[
    data::lift,
    alu::lift,
    control::lift,
    stack_ops::lift,
    unary::lift,
    shift::lift,
    muldiv::lift,
    bits::lift,
    bmi::lift,
    sse::lift,
    avx::lift,
    mmx::lift,
    string::lift,
    atomic::lift,
    system::lift,
    bcd::lift,
    x87::lift,
];
