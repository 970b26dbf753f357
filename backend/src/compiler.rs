//! From a region to host code.

use crate::code::{CompiledRegion, Fault, LinkSite};
use crate::error::{BackendError, CompileError};
use crate::isa;
use crate::layout::{HelperTable, StateLayout};
use crate::lower::{self, Access, Lowered, Scratch};
use crate::options::{MemoryModel, OptLevel, Options};
use crate::patch;
use crate::resume::{self, Checked, Mapped};
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{ExternalName, LibCall};
use cranelift_codegen::isa::OwnedTargetIsa;
use cranelift_codegen::{
    CompiledCode, Context, Final, FinalizedRelocTarget, MachSrcLoc, binemit::Reloc,
};
use cranelift_frontend::FunctionBuilderContext;
use metaphrase_ir::{Inst, Op, Region, Value, passes};
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Compiles regions, one at a time. It may live on a thread of its own; it keeps its working
/// memory from one region to the next.
pub struct Compiler {
    isa: OwnedTargetIsa,
    /// For regions with floating point: without Cranelift's mid-end, which does not know that
    /// arithmetic sets flags.
    float_isa: OwnedTargetIsa,
    layout: StateLayout,
    helpers: HelperTable,
    options: Options,
    work: Work,
}

/// How often a region is compiled with fewer and fewer state maps before it does without.
const ATTEMPTS: usize = 3;

/// What is thrown away after a failure.
struct Work {
    cx: Context,
    fcx: FunctionBuilderContext,
    scratch: Scratch,
}

impl Work {
    fn new() -> Work {
        Work {
            cx: Context::new(),
            fcx: FunctionBuilderContext::new(),
            scratch: Scratch::default(),
        }
    }
}

impl std::fmt::Debug for Compiler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Compiler({}, {:?})", self.isa.triple(), self.options)
    }
}

/// The number of direct exits of a region that can be linked: how many link slots its translation
/// takes.
pub fn count_links(region: &Region) -> u32 {
    let linkable = |target: i64| u32::from(region.is_linkable(region.pc_at(target)));
    let exits = |inst: &Inst| match inst.op {
        Op::Jump | Op::CallTo => linkable(inst.imm as i64),
        Op::JumpIf => linkable(inst.imm as i64) + linkable(i64::from(inst.aux as i32)),
        _ => 0,
    };
    region
        .block_ids()
        .filter_map(|b| region.blocks[b.0 as usize].insts.last())
        .map(|&v| exits(region.inst(v)))
        .sum()
}

impl Compiler {
    /// A compiler for the host.
    pub fn new(
        layout: StateLayout,
        helpers: HelperTable,
        options: Options,
    ) -> Result<Compiler, BackendError> {
        let plain = Options {
            opt: OptLevel::None,
            ..options.clone()
        };
        Ok(Compiler {
            isa: isa::host(&options)?,
            float_isa: isa::host(&plain)?,
            layout,
            helpers,
            options,
            work: Work::new(),
        })
    }

    /// The options in force.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Compiles a region. Its direct exits get the link slots from `slot_base` on, at most
    /// [`count_links`] of them.
    ///
    /// The code holds the region's PC: it serves at no other.
    pub fn compile(
        &mut self,
        region: &Region,
        slot_base: u32,
    ) -> Result<CompiledRegion, CompileError> {
        let result = catch_unwind(AssertUnwindSafe(|| self.compile_inner(region, slot_base)));
        let result = result.unwrap_or_else(|panic| {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            Err(CompileError::Panic(text.to_string()))
        });
        if result.is_err() {
            // Cranelift's contexts may be in any condition after an error.
            self.work = Work::new();
        }
        result
    }

    fn compile_inner(
        &mut self,
        region: &Region,
        slot_base: u32,
    ) -> Result<CompiledRegion, CompileError> {
        if region.state_maps.is_empty() {
            return Ok(self.compile_once(region, slot_base)?.0);
        }
        let mut without = HashSet::new();
        let faults = self.options.memory == MemoryModel::Window;
        if self.options.cold_maps && (resume::CAN_CHECK || !faults) {
            for _ in 0..ATTEMPTS {
                let mut partly = region.clone();
                passes::unmap(&mut partly, |v| without.contains(&v));
                let (compiled, failed) = self.compile_once(&partly, slot_base)?;
                if failed.is_empty() {
                    let spelled_out = without.len() as u32;
                    return Ok(CompiledRegion {
                        spelled_out,
                        ..compiled
                    });
                }
                without.extend(failed);
            }
        }
        let mut plain = region.clone();
        passes::unmap(&mut plain, |_| true);
        let (compiled, failed) = self.compile_once(&plain, slot_base)?;
        debug_assert!(failed.is_empty());
        Ok(CompiledRegion {
            spelled_out: u32::MAX,
            ..compiled
        })
    }

    /// Compiles a region with the state maps that it has; also which of those cannot be used.
    fn compile_once(
        &mut self,
        region: &Region,
        slot_base: u32,
    ) -> Result<(CompiledRegion, Vec<Value>), CompileError> {
        #[cfg(target_arch = "x86_64")]
        let (with_x87, accesses) = match self.options.x87 {
            true => lower::x87::accesses(region),
            false => Default::default(),
        };
        #[cfg(target_arch = "x86_64")]
        let region = with_x87.as_ref().unwrap_or(region);
        let work = &mut self.work;
        work.cx.clear();
        work.cx.set_disasm(self.options.keep_vcode);
        let float = lower::float::has_float(region);
        let isa = if float { &self.float_isa } else { &self.isa };
        let unit = lower::Unit {
            region,
            float,
            isa: &**isa,
            layout: &self.layout,
            helpers: &self.helpers,
            options: &self.options,
            slot_base,
            #[cfg(target_arch = "x86_64")]
            x87: &accesses,
        };
        let lowered = lower::lower(&unit, &mut work.cx.func, &mut work.fcx, &mut work.scratch)?;
        let clif = (self.options.keep_clif).then(|| work.cx.func.display().to_string());
        work.cx
            .compile(&**isa, &mut ControlPlane::default())
            .map_err(|e| CompileError::Codegen(format!("{:?}", e.inner)))?;
        let compiled = work
            .cx
            .compiled_code()
            .ok_or_else(|| CompileError::Codegen("no code".to_string()))?;
        let mut code = compiled.buffer.data().to_vec();
        let links = resolve(compiled, &work.cx, &lowered, slot_base, &mut code)?;
        let mapped: Vec<Mapped> = lowered
            .mapped
            .iter()
            .map(|&op| Mapped {
                op,
                insn: region.inst(op).insn,
            })
            .collect();
        let checked = if mapped.is_empty() {
            Checked::default()
        } else {
            resume::check(compiled, &mapped)
        };
        let result = CompiledRegion {
            links,
            faults: faults(compiled, region),
            resumes: checked.resumes,
            spelled_out: 0,
            clif,
            vcode: compiled.vcode.clone(),
            code,
        };
        Ok((result, checked.failed))
    }
}

/// Turns relocations into link sites; calls of library functions get their address at once.
fn resolve(
    compiled: &CompiledCode,
    cx: &Context,
    lowered: &Lowered,
    slot_base: u32,
    code: &mut [u8],
) -> Result<Vec<LinkSite>, CompileError> {
    let mut links = Vec::with_capacity(lowered.targets.len());
    for reloc in compiled.buffer.relocs() {
        match &reloc.target {
            FinalizedRelocTarget::ExternalName(ExternalName::User(name))
                if patch::is_jump_reloc(reloc.kind) =>
            {
                let index = cx.func.params.user_named_funcs()[*name].index;
                links.push(LinkSite {
                    offset: reloc.offset,
                    slot: slot_base + index,
                    target: lowered.targets[index as usize],
                });
            }
            FinalizedRelocTarget::ExternalName(ExternalName::LibCall(call))
                if reloc.kind == Reloc::Abs8 =>
            {
                let address = libcall(*call)
                    .ok_or_else(|| CompileError::Unsupported(format!("library function {call}")))?;
                let at = reloc.offset as usize;
                let bytes = (address as i64 + reloc.addend).to_le_bytes();
                code[at..at + 8].copy_from_slice(&bytes);
            }
            other => {
                return Err(CompileError::Unsupported(format!(
                    "relocation {:?} against {other:?}",
                    reloc.kind
                )));
            }
        }
    }
    links.sort_by_key(|l| l.slot);
    Ok(links)
}

/// The functions that Cranelift calls where the host lacks an instruction (x86-64 before SSE4.1).
fn libcall(call: LibCall) -> Option<usize> {
    extern "C" fn round32(x: f32) -> f32 {
        x.round_ties_even()
    }
    extern "C" fn round64(x: f64) -> f64 {
        x.round_ties_even()
    }
    match call {
        LibCall::NearestF32 => Some(round32 as *const () as usize),
        LibCall::NearestF64 => Some(round64 as *const () as usize),
        _ => None,
    }
}

/// Which guest instruction each trapping host instruction belongs to.
///
/// Cranelift may fold a load into a later instruction, whose source location is then that of the
/// later guest instruction. The trap code is the load's own, and holds its guest instruction
/// modulo [`lower::TRAP_CODES`]; the source location settles the rest. It need not be exact:
/// what the optimiser makes anew has no location, so the nearest one may be of a guest
/// instruction before or behind.
fn faults(compiled: &CompiledCode, region: &Region) -> Vec<Fault> {
    let locations = compiled.buffer.get_srclocs_sorted();
    let mut faults = Vec::with_capacity(compiled.buffer.traps().len());
    for trap in compiled.buffer.traps() {
        let Some((code, access)) = lower::trap_number(trap.code) else {
            continue;
        };
        if access == Access::Mapped {
            // It goes on in its cold block, which knows all.
            continue;
        }
        let write = access == Access::Write;
        // The location that covers the instruction, or the nearest one before it.
        let n = locations.partition_point(|l| l.start <= trap.offset);
        let of_guest =
            |l: &&MachSrcLoc<Final>| !l.loc.is_default() && lower::mapped_location(l.loc).is_none();
        let Some(location) = locations[..n].iter().rfind(of_guest) else {
            continue;
        };
        let found = i64::from(location.loc.bits());
        let nearest = (i64::from(code)..region.guest.len() as i64)
            .step_by(lower::TRAP_CODES as usize)
            .min_by_key(|insn| (insn - found).abs());
        if let Some(insn) = nearest.and_then(|n| u16::try_from(n).ok()) {
            faults.push(Fault {
                offset: trap.offset,
                insn,
                write,
            });
        }
    }
    // One host instruction may read and write (`add [mem], reg`): then it is a write.
    faults.sort_unstable_by_key(|f| (f.offset, !f.write));
    faults.dedup_by_key(|f| f.offset);
    faults
}
