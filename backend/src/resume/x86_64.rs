//! The check on x86-64 machine code.

use super::{Checked, Mapped, Resume};
use crate::lower::{self, Access};
use cranelift_codegen::CompiledCode;
use iced_x86::{
    Decoder, DecoderOptions, EncodingKind, FlowControl, Instruction, InstructionInfoFactory,
    Mnemonic, OpAccess, OpKind, Register, UsedMemory,
};
use metaphrase_ir::Value;

/// More instructions than any way from a cold block to the return has: several times the number of
/// guest registers.
const LONGEST: usize = 1000;

/// Checks a function.
pub(super) fn check(compiled: &CompiledCode, mapped: &[Mapped]) -> Checked {
    // The accesses, by ascending offset.
    let mut faults: Vec<(u32, u32)> = compiled
        .buffer
        .traps()
        .iter()
        .filter_map(|trap| match lower::trap_number(trap.code)? {
            (insn, Access::Mapped) => Some((trap.offset, insn)),
            _ => None,
        })
        .collect();
    faults.sort_unstable();
    let mut found: Vec<Option<Value>> = vec![None; faults.len()];
    let mut bad = vec![false; mapped.len()];
    let mut function = Function {
        code: compiled.buffer.data(),
        blocks: &compiled.bb_starts,
        info: InstructionInfoFactory::new(),
        exits: Vec::new(),
    };
    let mut result = Checked::default();
    for location in compiled.buffer.get_srclocs_sorted() {
        let Some(n) = lower::mapped_location(location.loc) else {
            continue;
        };
        let access = mapped[n];
        let Some((branch_end, cold)) = function.branch(location.start, location.end) else {
            // Not the end of the branch; what belongs to it will be missed below.
            continue;
        };
        let first = faults.partition_point(|f| f.0 < branch_end);
        let insn = u32::from(access.insn) % lower::TRAP_CODES;
        let path = function.path(branch_end, &faults[first..], insn);
        for (k, writes) in path.into_iter().enumerate() {
            let good = match function.reads(cold) {
                Some(reads) => !writes.disturb(reads),
                None => false,
            };
            found[first + k] = Some(access.op);
            if good {
                result.resumes.push(Resume {
                    at: faults[first + k].0,
                    to: cold,
                });
            } else {
                bad[n] = true;
            }
        }
    }
    // An access without a branch that leads to it.
    for ((_, insn), found) in faults.iter().zip(found) {
        if found.is_none() {
            let same = |m: &Mapped| u32::from(m.insn) % lower::TRAP_CODES == *insn;
            let known = mapped.iter().any(same);
            for (bad, access) in bad.iter_mut().zip(mapped) {
                *bad |= same(access) || !known;
            }
        }
    }
    let failed = mapped.iter().zip(bad).filter(|(_, bad)| *bad);
    result.failed = failed.map(|(access, _)| access.op).collect();
    result.resumes.sort_unstable_by_key(|r| r.at);
    result
}

/// A set of registers, whole ones: 16 general and 32 vector registers.
#[derive(Clone, Copy, Default, Debug)]
struct Registers {
    general: u16,
    vector: u32,
}

impl Registers {
    /// The set of one register; `None` for others than these.
    fn of(r: Register) -> Option<Registers> {
        let mut set = Registers::default();
        let full = r.full_register();
        if full.is_gpr64() {
            set.general = 1 << (full as u32 - Register::RAX as u32);
        } else if full.is_zmm() {
            set.vector = 1 << (full as u32 - Register::ZMM0 as u32);
        } else {
            return None;
        }
        Some(set)
    }

    fn add(&mut self, other: Registers) {
        self.general |= other.general;
        self.vector |= other.vector;
    }

    fn contains_any(self, other: Registers) -> bool {
        self.general & other.general != 0 || self.vector & other.vector != 0
    }
}

/// A piece of the stack, from the stack pointer on.
type Slot = (i64, i64);

/// What the instructions between a branch and an access write.
#[derive(Clone, Default, Debug)]
struct Writes {
    registers: Registers,
    slots: Vec<Slot>,
    /// They do something that cannot be judged.
    unknown: bool,
}

/// What a cold block and what follows it read before they write it.
#[derive(Clone, Default, Debug)]
struct Reads {
    registers: Registers,
    slots: Vec<Slot>,
    /// The size of the frame that is given up in the end.
    frame: i64,
}

impl Writes {
    /// Whether the writes change what is read.
    fn disturb(&self, reads: &Reads) -> bool {
        let overlap = |a: &Slot, b: &Slot| a.0 < b.1 && b.0 < a.1;
        let outside = |s: &Slot| s.0 < 0 || s.1 > reads.frame;
        let slot = |s: &Slot| outside(s) || reads.slots.iter().any(|r| overlap(s, r));
        self.unknown || self.registers.contains_any(reads.registers) || self.slots.iter().any(slot)
    }
}

struct Function<'a> {
    code: &'a [u8],
    blocks: &'a [u32],
    info: InstructionInfoFactory,
    /// What was found about cold blocks: several accesses of one may ask.
    exits: Vec<(u32, Option<Reads>)>,
}

impl Function<'_> {
    fn decoder(&self, from: u32) -> Decoder<'_> {
        let code = &self.code[(from as usize).min(self.code.len())..];
        Decoder::with_ip(64, code, from.into(), DecoderOptions::NONE)
    }

    /// The end and the target of the conditional branch that ends the code from `start` to `end`.
    fn branch(&self, start: u32, end: u32) -> Option<(u32, u32)> {
        let mut decoder = self.decoder(start);
        let mut last = Instruction::default();
        while decoder.ip() < end.into() && decoder.can_decode() {
            decoder.decode_out(&mut last);
        }
        let conditional = last.flow_control() == FlowControl::ConditionalBranch;
        let target = u32::try_from(last.near_branch64()).ok()?;
        (conditional && decoder.ip() == end.into()).then_some((end, target))
    }

    /// Follows the code from `from` on to those of the next accesses that belong to guest
    /// instruction `insn`; what has been written before each.
    fn path(&mut self, from: u32, faults: &[(u32, u32)], insn: u32) -> Vec<Writes> {
        let mut found = Vec::new();
        let mut writes = Writes::default();
        let mut at = from;
        while let Some(&(offset, of)) = faults.get(found.len()) {
            if of != insn {
                break;
            }
            // All of it is one block: nothing jumps in between.
            let next = self.blocks.partition_point(|&b| b <= from);
            let first = next.checked_sub(1).map(|n| self.blocks[n]);
            if first.is_none() || self.blocks.get(next).is_some_and(|&b| b <= offset) {
                break;
            }
            let mut decoder = self.decoder(at);
            let mut straight = true;
            let mut seen = Vec::new();
            while straight && decoder.ip() < offset.into() && decoder.can_decode() {
                let insn = decoder.decode();
                straight = insn.flow_control() == FlowControl::Next && !insn.is_invalid();
                seen.push(insn);
            }
            if !straight || decoder.ip() != u64::from(offset) {
                break;
            }
            for insn in &seen {
                self.note_writes(insn, &mut writes);
            }
            found.push(writes.clone());
            at = offset;
        }
        found
    }

    fn note_writes(&mut self, insn: &Instruction, writes: &mut Writes) {
        let info = self.info.info(insn);
        for r in info.used_registers() {
            if is_write(r.access()) {
                match Registers::of(r.register()) {
                    Some(set) => writes.registers.add(set),
                    // RIP and the segments are not written.
                    None => writes.unknown |= !r.register().is_ip(),
                }
            }
        }
        for m in info.used_memory() {
            if is_write(m.access()) {
                match slot(m) {
                    Some(slot) => writes.slots.push(slot),
                    None => writes.unknown = true,
                }
            }
        }
        writes.unknown |= insn.is_stack_instruction();
    }

    /// What the code from `cold` to the return reads before it writes it; `None` if that cannot be
    /// said.
    fn reads(&mut self, cold: u32) -> Option<&Reads> {
        let n = match self.exits.iter().position(|(at, _)| *at == cold) {
            Some(n) => n,
            None => {
                let reads = self.follow(cold);
                self.exits.push((cold, reads));
                self.exits.len() - 1
            }
        };
        self.exits[n].1.as_ref()
    }

    fn follow(&mut self, cold: u32) -> Option<Reads> {
        let mut reads = Reads::default();
        let mut written = Registers::default();
        let mut flags_written = false;
        let mut at = cold;
        for _ in 0..LONGEST {
            let mut decoder = self.decoder(at);
            if !decoder.can_decode() {
                return None;
            }
            let insn = decoder.decode();
            at = u32::try_from(decoder.ip()).ok()?;
            match insn.flow_control() {
                FlowControl::Next if !insn.is_invalid() => {}
                FlowControl::UnconditionalBranch => {
                    at = u32::try_from(insn.near_branch64()).ok()?;
                    continue;
                }
                FlowControl::Return => return Some(reads),
                _ => return None,
            }
            if insn.rflags_read() != 0 && !flags_written {
                return None;
            }
            flags_written |= insn.rflags_modified() != 0;
            // The end of the frame: `add rsp, size`, then `mov rsp, rbp` and `pop rbp`.
            if insn.op0_register() == Register::RSP {
                match insn.mnemonic() {
                    Mnemonic::Add if reads.frame == 0 && is_immediate(insn.op1_kind()) => {
                        reads.frame = insn.immediate(1) as i64;
                    }
                    Mnemonic::Mov if insn.op1_register() == Register::RBP => {
                        reads.registers.add(Registers::of(Register::RBP)?);
                    }
                    _ => return None,
                }
                continue;
            }
            if insn.is_stack_instruction() {
                if insn.mnemonic() == Mnemonic::Pop {
                    continue;
                }
                return None;
            }
            let vex = insn.code().encoding() != EncodingKind::Legacy;
            let info = self.info.info(&insn);
            let mut now = Registers::default();
            for r in info.used_registers() {
                let Some(set) = Registers::of(r.register()) else {
                    if r.register().is_ip() {
                        continue;
                    }
                    return None;
                };
                if is_read(r.access()) && !written.contains_any(set) {
                    reads.registers.add(set);
                }
                // Only what is written as a whole is new.
                let whole = r.register().is_gpr64() || r.register().is_vector_register() && vex;
                if r.access() == OpAccess::Write && whole {
                    now.add(set);
                }
            }
            for m in info.used_memory() {
                if is_read(m.access()) && is_stack(m) {
                    reads.slots.push(slot(m)?);
                } else if is_read(m.access()) && m.base() == Register::RBP {
                    return None;
                }
            }
            written.add(now);
        }
        None
    }
}

fn is_immediate(kind: OpKind) -> bool {
    matches!(
        kind,
        OpKind::Immediate8to64 | OpKind::Immediate32to64 | OpKind::Immediate8 | OpKind::Immediate32
    )
}

fn is_write(access: OpAccess) -> bool {
    !matches!(
        access,
        OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess
    )
}

fn is_read(access: OpAccess) -> bool {
    !matches!(
        access,
        OpAccess::None | OpAccess::Write | OpAccess::CondWrite | OpAccess::NoMemAccess
    )
}

fn is_stack(m: &UsedMemory) -> bool {
    m.base() == Register::RSP
}

/// The piece of the stack that an instruction accesses.
fn slot(m: &UsedMemory) -> Option<Slot> {
    let size = m.memory_size().size() as i64;
    let start = m.displacement() as i64;
    (is_stack(m) && m.index() == Register::None && size > 0).then_some((start, start + size))
}
