//! Single steps and breakpoints: instructions that run alone, so that #DB comes where it should
//! (SDM volume 3, 18.2 and 18.3).

use super::system::CodeSegment;
use super::{Exception, Next, Stop, Vcpu, VcpuError};
use crate::state::CpuState;
use crate::system::Shadow;
use crate::system::debug::{Watched, breakpoints};
use iced_x86::{Decoder, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, Register};
use metaphrase_frontend::CodeSource;
use metaphrase_ir::sysflags;

/// The #DB vector.
const DB: u8 = 1;

impl Vcpu {
    /// Whether instructions have to run alone: RFLAGS.TF is set, or a breakpoint is.
    #[inline]
    pub(super) fn is_careful(&self) -> bool {
        self.state.sysflags & sysflags::TF != 0 || self.has_breakpoints()
    }

    #[inline]
    fn has_breakpoints(&self) -> bool {
        self.is_system() && self.state.sys.dr[7] & 0xff != 0
    }

    /// Runs one instruction. With TF set #DB comes after it, even if it clears TF (SDM volume 3,
    /// 18.3.1.4). Whatever sets TF or a breakpoint leaves its region through here. In a whole
    /// system INT n clears TF and traps no more, and a load of SS puts the trap off.
    pub(super) fn careful_step(&mut self) -> Result<Next, VcpuError> {
        let traced = self.state.sysflags & sysflags::TF != 0;
        let insn = self.instruction_here();
        let mut matched = 0;
        if self.has_breakpoints() {
            let resumed = self.state.sysflags & sysflags::RF != 0;
            let linear = CodeSegment::of(&self.state).linear(self.state.rip);
            let here = linear.map_or(0, |at| breakpoints(&self.state).instruction_at(at));
            if here != 0 && !resumed {
                self.state.sys.pending_debug = here;
                // The image that the handler returns to goes on over the breakpoint.
                self.state.sysflags |= sysflags::RF;
                return Ok(Next::Stop(Stop::Attention));
            }
            self.state.sysflags &= !sysflags::RF;
            matched = data_matches(&self.state, &insn);
        }
        let next = match self.single_step()? {
            // Done, and something else wants to be looked at too: after the trap.
            Next::Stop(Stop::Attention) => {
                self.state.sys.look = true;
                None
            }
            Next::Stop(stop) => return Ok(Next::Stop(stop)),
            next => Some(next),
        };
        self.state.sys.pending_debug |= matched;
        let interrupt = matches!(
            insn.mnemonic(),
            Mnemonic::Int | Mnemonic::Int1 | Mnemonic::Int3 | Mnemonic::Into
        );
        let put_off = self.is_system()
            && (interrupt && self.state.sysflags & sysflags::TF == 0
                || self.state.sys.shadow == Shadow::MovSs);
        if put_off || !traced {
            if matched != 0 && !put_off {
                return Ok(Next::Stop(Stop::Attention));
            }
            return match next {
                Some(next) => Ok(next),
                None => self.lookup_or_fault(),
            };
        }
        Ok(Next::Stop(Stop::Exception(Exception {
            vector: DB,
            error: None,
            addr: 0,
            bus: false,
        })))
    }

    /// The instruction at RIP.
    fn instruction_here(&self) -> Instruction {
        let mut bytes = [0; 15];
        let pc = self.state.rip;
        let n = self.code(pc).fetch(pc, &mut bytes);
        Decoder::with_ip(self.mode.code.bits(), &bytes[..n], pc, 0).decode()
    }

    pub(super) fn count_trap(&mut self) {
        let name = format!("{:?}", self.instruction_here().mnemonic()).to_lowercase();
        *self.stats.traps.entry(name).or_default() += 1;
    }
}

/// B0 to B3 for what the instruction is about to access. Of a repeated string instruction only the
/// next element is seen.
fn data_matches(s: &CpuState, insn: &Instruction) -> u32 {
    let watching = breakpoints(s);
    if !watching.any_data() {
        return 0;
    }
    let mut factory = InstructionInfoFactory::new();
    let mut hits = 0;
    for memory in factory.info(insn).used_memory() {
        let address = memory.virtual_address(0, |register, _, _| register_value(s, register));
        let size = memory.memory_size().size().max(1) as u64;
        let Some(first) = address else { continue };
        let writes = matches!(
            memory.access(),
            OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
        );
        let reads = matches!(
            memory.access(),
            OpAccess::Read | OpAccess::CondRead | OpAccess::ReadWrite | OpAccess::ReadCondWrite
        );
        if writes {
            hits |= watching.hits(Watched::Write, first, size);
        }
        if reads {
            hits |= watching.hits(Watched::Read, first, size);
        }
    }
    hits
}

/// The value of a general register, or the base of a segment register.
fn register_value(s: &CpuState, register: Register) -> Option<u64> {
    if register.is_segment_register() {
        return s.seg_base.get(register.number()).copied();
    }
    if !register.is_gpr() {
        return None;
    }
    let whole = s.gpr[register.full_register().number() & 15];
    Some(match register.size() {
        1 if matches!(
            register,
            Register::AH | Register::BH | Register::CH | Register::DH
        ) =>
        {
            whole >> 8 & 0xff
        }
        1 => whole & 0xff,
        2 => whole & 0xffff,
        4 => whole & 0xffff_ffff,
        _ => whole,
    })
}
