//! From an entry PC to a lifted region: which guest blocks belong to it, and the whole pipeline.
//!
//! A region starts as one guest block; with larger [`Limits`] it follows direct jumps and both
//! sides of conditional ones, nearest first. Calls, returns and indirect jumps end it.

use crate::lift::Lift;
use crate::lift::privileged::{self, Flow};
use crate::mode::Mode;
use crate::policy::SensitivePolicy;
use iced_x86::{
    Code, Decoder, DecoderError, DecoderOptions, FlowControl, Instruction, OpKind, Register,
};
use metaphrase_ir::{Block, Builder, GuestInsn, Region};
use std::collections::{HashMap, VecDeque};

/// The longest instruction in bytes (SDM volume 2, 2.3.11).
pub const MAX_INSN: usize = 15;

/// Where code bytes come from.
pub trait CodeSource {
    /// Copies the executable bytes at `pc` into `buf`; how many there are before the first byte
    /// that may not be fetched.
    fn fetch(&self, pc: u64, buf: &mut [u8]) -> usize;

    /// First and last PC of the page that `pc` is on, if what other pages hold can change under a
    /// translation. Then a region stays on its entry's page: code elsewhere is not fetched, but
    /// for the rest of an instruction at `pc` itself.
    fn page(&self, _pc: u64) -> Option<(u64, u64)> {
        None
    }
}

impl CodeSource for &[u8] {
    /// The slice is the memory from address 0 on.
    fn fetch(&self, pc: u64, buf: &mut [u8]) -> usize {
        let rest = usize::try_from(pc)
            .ok()
            .and_then(|pc| self.get(pc..))
            .unwrap_or(&[]);
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        n
    }
}

/// How large a region may grow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Guest blocks.
    pub blocks: usize,
    /// Guest instructions over all blocks.
    pub insns: usize,
}

impl Limits {
    /// One guest block: what tiers 0 and 1 translate.
    pub const BLOCK: Limits = Limits {
        blocks: 1,
        insns: 64,
    };
    /// One instruction, for emulating it alone.
    pub const SINGLE: Limits = Limits {
        blocks: 1,
        insns: 1,
    };
    /// A region for tier 2.
    pub const REGION: Limits = Limits {
        blocks: 24,
        insns: 256,
    };
}

/// Why nothing could be lifted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LiftError {
    /// The first instruction cannot be fetched: the guest takes a page fault for this address.
    #[error("instruction fetch fault at {addr:#x}")]
    Fetch {
        /// The first address that could not be fetched.
        addr: u64,
    },
}

/// A lifted region and what the block cache must know of it.
#[derive(Clone, Debug)]
pub struct Lifted {
    /// The region, before any pass.
    pub region: Region,
    /// The guest pages (PC / 4096) whose bytes it was made from, sorted.
    pub pages: Vec<u64>,
    /// Guest bytes translated.
    pub bytes: u32,
}

/// A decoded guest block.
struct GuestBlock {
    pc: u64,
    insns: Vec<Decoded>,
}

/// What a PC decodes to.
#[derive(Clone, Copy)]
enum Decoded {
    Insn(Instruction),
    /// Not an instruction: raises this vector.
    Bad {
        pc: u64,
        vector: u8,
        len: u8,
    },
}

impl Decoded {
    fn pc(&self) -> u64 {
        match self {
            Decoded::Insn(i) => i.ip(),
            Decoded::Bad { pc, .. } => *pc,
        }
    }

    fn next_pc(&self) -> u64 {
        match self {
            Decoded::Insn(i) => i.next_ip(),
            Decoded::Bad { pc, .. } => *pc,
        }
    }

    fn ends_block(&self, mode: Mode) -> bool {
        match self {
            // What may leave the region after itself ends its block too, so that the fuel of the
            // instructions behind it is not taken: REP strings, POPF, segment loads, RDTSC.
            Decoded::Insn(i) => {
                !matches!(i.flow_control(), FlowControl::Next)
                    || i.is_string_instruction() && (i.has_rep_prefix() || i.has_repne_prefix())
                    || crate::lift::system::ends_block(i)
                    || mode.system.is_some() && privileged::flow(i) != Flow::Next
            }
            Decoded::Bad { .. } => true,
        }
    }
}

/// Decodes the instruction at `pc`; `Err` with the first address that cannot be fetched.
fn decode(pc: u64, mode: Mode, code: &dyn CodeSource) -> Result<Decoded, u64> {
    let mut buf = [0u8; MAX_INSN];
    let n = code.fetch(pc, &mut buf);
    let mut decoder = Decoder::with_ip(mode.code.bits(), &buf[..n], pc, DecoderOptions::NONE);
    let insn = decoder.decode();
    if insn.code() == Code::Pause && mode.is_64() && buf[insn.len() - 2] & 0xf1 == 0x41 {
        // iced-x86 reads F3 49 90 as PAUSE; CPUs, as XCHG R8, RAX with an F3 that means nothing.
        // Another prefix that means nothing makes it say so.
        for byte in &mut buf[..insn.len() - 2] {
            if *byte == 0xf3 {
                *byte = 0x3e;
            }
        }
        let mut decoder = Decoder::with_ip(mode.code.bits(), &buf[..n], pc, DecoderOptions::NONE);
        return Ok(Decoded::Insn(decoder.decode()));
    }
    if !insn.is_invalid() {
        return Ok(Decoded::Insn(insn));
    }
    match decoder.last_error() {
        DecoderError::NoMoreBytes if n < MAX_INSN => Err(pc.wrapping_add(n as u64)),
        // More than 15 bytes is #GP, not #UD (SDM volume 3, 6.15, interrupt 13).
        _ if decoder.position() >= MAX_INSN => Ok(Decoded::Bad {
            pc,
            vector: 13,
            len: MAX_INSN as u8,
        }),
        _ => Ok(Decoded::Bad {
            pc,
            vector: 6,
            len: decoder.position().max(1) as u8,
        }),
    }
}

/// Whether the memory operand of the instruction at `pc` is in the stack segment: what an engine
/// cannot tell of a refused access (an atomic one, or one of a helper) decides between #SS and #GP.
pub fn operand_is_in_stack(pc: u64, mode: Mode, code: &dyn CodeSource) -> bool {
    match decode(pc, mode, code) {
        Ok(Decoded::Insn(insn)) => {
            let memory = (0..insn.op_count()).any(|n| insn.op_kind(n) == OpKind::Memory);
            memory && insn.memory_segment() == Register::SS
        }
        _ => false,
    }
}

/// Lifts the region that starts at `pc`.
///
/// # Errors
/// If the first instruction cannot be fetched. A later one that cannot ends its block before it.
pub fn lift_region(
    pc: u64,
    mode: Mode,
    code: &dyn CodeSource,
    limits: Limits,
    policy: &SensitivePolicy,
) -> Result<Lifted, LiftError> {
    let blocks = discover(pc, mode, code, limits)?;
    let mut region = Region::new(pc, mode.code);
    region.page = code.page(pc);
    let mut targets: HashMap<u64, Block> = HashMap::new();
    if limits.blocks > 1 {
        // The entry block may not be a branch target, so a region that can loop starts behind it.
        let mut builder = Builder::new(&mut region);
        for block in &blocks {
            targets.insert(block.pc, builder.new_block());
        }
        builder.br(targets[&pc], &[]);
    }
    for block in &blocks {
        let mut builder = Builder::new(&mut region);
        if let Some(&target) = targets.get(&block.pc) {
            builder.switch_to(target);
        }
        lift_block(builder, block, mode, policy, &targets);
    }
    let mut pages = Vec::with_capacity(2);
    let mut bytes = 0;
    for decoded in blocks.iter().flat_map(|b| &b.insns) {
        let len = match decoded {
            Decoded::Insn(i) => i.len() as u64,
            Decoded::Bad { len, .. } => u64::from(*len),
        };
        bytes += len as u32;
        for page in [
            decoded.pc() >> 12,
            decoded.pc().wrapping_add(len.max(1) - 1) >> 12,
        ] {
            if !pages.contains(&page) {
                pages.push(page);
            }
        }
    }
    pages.sort_unstable();
    Ok(Lifted {
        region,
        pages,
        bytes,
    })
}

/// Finds the guest blocks of the region, the entry's first.
fn discover(
    entry: u64,
    mode: Mode,
    code: &dyn CodeSource,
    limits: Limits,
) -> Result<Vec<GuestBlock>, LiftError> {
    let mut blocks: Vec<GuestBlock> = Vec::new();
    let mut queue = VecDeque::from([entry]);
    let mut budget = limits.insns;
    while let Some(pc) = queue.pop_front() {
        if blocks.len() >= limits.blocks || budget == 0 || blocks.iter().any(|b| b.pc == pc) {
            continue;
        }
        let mut insns = Vec::with_capacity(16);
        let mut at = pc;
        while insns.len() < budget.min(Limits::BLOCK.insns) {
            if at != pc && blocks.iter().any(|b| b.pc == at) {
                break;
            }
            match decode(at, mode, code) {
                Ok(decoded) => {
                    insns.push(decoded);
                    at = decoded.next_pc() & mode.code.pc_mask();
                    if decoded.ends_block(mode) {
                        break;
                    }
                }
                Err(addr) if insns.is_empty() && blocks.is_empty() => {
                    return Err(LiftError::Fetch { addr });
                }
                Err(_) => break,
            }
        }
        if insns.is_empty() {
            continue;
        }
        // A target inside an earlier block splits that block: its tail is this block.
        for earlier in &mut blocks {
            if let Some(n) = earlier.insns.iter().position(|d| d.pc() == pc) {
                budget += earlier.insns.len() - n;
                earlier.insns.truncate(n);
            }
        }
        budget = budget.saturating_sub(insns.len());
        if let Some(Decoded::Insn(last)) = insns.last() {
            let target = near_target(last);
            let leaves = mode.system.is_some() && privileged::flow(last) == Flow::Leaves;
            let (branch, fall) = match last.flow_control() {
                _ if leaves => (None, None),
                FlowControl::UnconditionalBranch => (target, None),
                FlowControl::ConditionalBranch => (target, Some(at)),
                FlowControl::Next => (None, Some(at)),
                _ => (None, None),
            };
            let reachable = |pc: &u64| !mode.is_64() || is_near(entry, *pc);
            queue.extend([branch, fall].into_iter().flatten().filter(reachable));
        }
        blocks.push(GuestBlock { pc, insns });
    }
    Ok(blocks)
}

/// The target of a direct near branch.
fn near_target(insn: &Instruction) -> Option<u64> {
    matches!(
        insn.op0_kind(),
        OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64
    )
    .then(|| insn.near_branch_target())
}

/// Whether every PC offset in a block at `pc` fits 32 bits, as fall-through and return PCs must.
/// (Outside 64-bit code PCs are taken modulo 2^32, and every offset does.)
fn is_near(entry: u64, pc: u64) -> bool {
    (pc.wrapping_sub(entry) as i64).unsigned_abs() < 1 << 30
}

/// Lifts one guest block at the builder's place.
fn lift_block<'a>(
    mut builder: Builder<'a>,
    block: &GuestBlock,
    mode: Mode,
    policy: &'a SensitivePolicy,
    targets: &'a HashMap<u64, Block>,
) {
    let first = builder.region.guest.len();
    let entry_pc = builder.region.pc;
    for (n, decoded) in block.insns.iter().enumerate() {
        builder.region.guest.push(GuestInsn {
            offset: decoded.pc().wrapping_sub(entry_pc) as i64,
            len: match decoded {
                Decoded::Insn(i) => i.len() as u8,
                Decoded::Bad { .. } => 0,
            },
            fuel_left: (block.insns.len() - n) as u16,
        });
    }
    builder.set_insn(first as u16);
    let fuel = builder.fuel(block.insns.len() as u64);
    let mut cx = Lift::new(builder, mode, policy, targets);
    for (n, decoded) in block.insns.iter().enumerate() {
        cx.ir.set_insn((first + n) as u16);
        match decoded {
            Decoded::Insn(insn) => cx.instruction(insn),
            Decoded::Bad { vector, .. } => cx.ir.exit_raise(*vector),
        }
        // The runtime charges an instruction that it emulates itself.
        let paid = if cx.took_trap_policy() { n } else { n + 1 };
        if cx.ir.is_terminated() {
            if paid < block.insns.len() {
                uncharge(&mut cx.ir, fuel, first, paid);
            }
            break;
        }
    }
    if !cx.ir.is_terminated() {
        let last = block.insns.last().expect("a block has an instruction");
        cx.jump_to(last.next_pc() & mode.code.pc_mask());
    }
}

/// Corrects the fuel of a block that was found to end after the first `n` of its instructions.
fn uncharge(ir: &mut Builder<'_>, fuel: metaphrase_ir::Value, first: usize, n: usize) {
    ir.region.inst_mut(fuel).imm = n as u64;
    for (i, guest) in ir.region.guest[first..].iter_mut().enumerate() {
        guest.fuel_left = n.saturating_sub(i) as u16;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metaphrase_ir::Op;

    fn ops(lifted: &Lifted) -> Vec<Op> {
        let r = &lifted.region;
        r.blocks
            .iter()
            .flat_map(|b| &b.insts)
            .map(|&v| r.inst(v).op)
            .collect()
    }

    #[test]
    fn a_block_is_paid_for_and_ends_with_its_jump() {
        // add rax, rbx; jmp $-3
        let code: &[u8] = &[0x48, 0x01, 0xd8, 0xeb, 0xfb];
        let lifted = lift_region(
            0,
            Mode::LONG,
            &code,
            Limits::BLOCK,
            &SensitivePolicy::default(),
        )
        .unwrap();
        let ops = ops(&lifted);
        assert_eq!(ops[0], Op::Fuel);
        assert_eq!(lifted.region.inst(lifted.region.blocks[0].insts[0]).imm, 2);
        assert_eq!(lifted.region.guest[1].fuel_left, 1);
        assert_eq!(lifted.pages, [0]);
    }

    #[test]
    fn a_fetch_fault_at_the_start_is_an_error_and_later_ends_the_block() {
        let code: &[u8] = &[0x90, 0x48];
        let policy = SensitivePolicy::default();
        let at = |pc| lift_region(pc, Mode::LONG, &code, Limits::BLOCK, &policy);
        assert_eq!(at(1).unwrap_err(), LiftError::Fetch { addr: 2 });
        assert_eq!(at(0).unwrap().region.guest.len(), 1);
    }

    /// Code on pages of 16 bytes; the byte at its PC is all that is fetched of a PC on another
    /// page than the entry's, but for the rest of an instruction at the entry.
    struct Pages(Vec<u8>, u64);

    impl CodeSource for Pages {
        fn fetch(&self, pc: u64, buf: &mut [u8]) -> usize {
            let end = if pc == self.1 {
                self.0.len() as u64
            } else if pc / 16 == self.1 / 16 {
                (pc / 16 + 1) * 16
            } else {
                0
            };
            let bytes = self.0.get(pc as usize..end as usize).unwrap_or(&[]);
            let n = bytes.len().min(buf.len());
            buf[..n].copy_from_slice(&bytes[..n]);
            n
        }

        fn page(&self, pc: u64) -> Option<(u64, u64)> {
            Some((pc / 16 * 16, pc / 16 * 16 + 15))
        }
    }

    fn on_pages(code: &[u8], pc: u64, limits: Limits) -> Lifted {
        let pages = Pages(code.to_vec(), pc);
        lift_region(
            pc,
            Mode::FLAT32,
            &pages,
            limits,
            &SensitivePolicy::default(),
        )
        .unwrap()
    }

    #[test]
    fn a_region_stays_on_its_page() {
        // NOPs over three pages.
        let lifted = on_pages(&[0x90; 48], 3, Limits::BLOCK);
        assert_eq!(lifted.region.guest.len(), 13);
        assert_eq!(lifted.region.page, Some((0, 15)));
        let last = lifted.region.terminator(Region::ENTRY);
        assert_eq!(lifted.region.inst(last).op, Op::Jump);
        assert!(!lifted.region.is_linkable(16) && lifted.region.is_linkable(3));
        // JMP to the next page is no block of the region, however large it may be.
        let mut code = [0x90; 48];
        code[..2].copy_from_slice(&[0xeb, 0x1e]);
        let lifted = on_pages(&code, 0, Limits::REGION);
        assert_eq!(lifted.region.guest.len(), 1);
    }

    #[test]
    fn an_instruction_that_crosses_the_page_is_a_region_of_its_own() {
        // At 14: MOV EAX, imm32; NOPs before and behind it.
        let mut code = [0x90; 48];
        code[14] = 0xb8;
        let before = on_pages(&code, 10, Limits::BLOCK);
        assert_eq!(before.region.guest.len(), 4);
        let lifted = on_pages(&code, 14, Limits::REGION);
        assert_eq!(lifted.region.guest.len(), 1);
        assert_eq!(lifted.region.guest[0].len, 5);
        assert_eq!(lifted.bytes, 5);
    }

    #[test]
    fn operands_in_the_stack_segment_are_known() {
        let is = |code: &[u8]| operand_is_in_stack(0, Mode::LONG, &code);
        assert!(is(&[0xf0, 0x48, 0x01, 0x45, 0])); // LOCK ADD [RBP], RAX
        assert!(is(&[0x48, 0x01, 0x04, 0x24])); // ADD [RSP], RAX
        assert!(!is(&[0x48, 0x01, 0x03])); // ADD [RBX], RAX
        assert!(!is(&[0x65, 0x48, 0x01, 0x45, 0])); // ADD GS:[RBP], RAX
        assert!(!is(&[0x48, 0x01, 0xe5])); // ADD RBP, RSP
    }

    #[test]
    fn fifteen_prefixes_are_a_general_protection_fault() {
        let code: &[u8] = &[0x66; 20];
        let lifted = lift_region(
            0,
            Mode::LONG,
            &code,
            Limits::BLOCK,
            &SensitivePolicy::default(),
        )
        .unwrap();
        let last = lifted.region.terminator(Region::ENTRY);
        assert_eq!(
            (lifted.region.inst(last).op, lifted.region.inst(last).imm),
            (Op::Raise, 13)
        );
    }
}
