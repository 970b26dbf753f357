//! Lock step: every block is run twice from the same state, by the interpreter on unoptimised IR
//! and by compiled code, and both outcomes are compared. The compiled one counts and goes on.

use crate::cache::TransId;
use crate::interp::{self, Program};
use crate::memory::SavedPage;
use crate::options::Options;
use crate::state::CpuState;
use crate::vcpu::{Next, Stop, Vcpu, VcpuError};
use metaphrase_ir::{ExitReason, Reg};
use std::fmt;

/// Instructions that a region may run in one step: several times what a region may ask for.
const STEP_FUEL: u64 = 0x1_0000;

/// The architectural state, for comparing and for going back.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// RAX to R15.
    pub gpr: [u64; 16],
    /// RIP.
    pub rip: u64,
    /// RFLAGS, whole.
    pub rflags: u64,
    /// Fuel left.
    pub fuel: i64,
    /// Segment bases.
    pub seg_base: [u64; 6],
    /// Segment selectors.
    pub seg_sel: [u16; 6],
    /// MXCSR.
    pub mxcsr: u32,
    /// XMM0 to XMM15.
    pub xmm: [u128; 16],
    /// The upper halves of YMM0 to YMM15.
    pub ymm_hi: [u128; 16],
    /// The x87 FPU.
    pub x87: crate::state::X87State,
}

impl Snapshot {
    /// The state as it is.
    pub fn of(state: &CpuState) -> Snapshot {
        Snapshot {
            gpr: state.gpr,
            rip: state.rip,
            rflags: state.rflags(),
            fuel: state.fuel,
            seg_base: state.seg_base,
            seg_sel: state.seg_sel,
            mxcsr: state.mxcsr,
            xmm: state.xmm,
            ymm_hi: state.ymm_hi,
            x87: state.x87,
        }
    }

    /// Makes the state like this.
    pub fn restore(&self, state: &mut CpuState) {
        state.gpr = self.gpr;
        state.rip = self.rip;
        state.set_rflags(self.rflags);
        state.fuel = self.fuel;
        state.seg_base = self.seg_base;
        state.seg_sel = self.seg_sel;
        state.mxcsr = self.mxcsr;
        state.xmm = self.xmm;
        state.ymm_hi = self.ymm_hi;
        state.x87 = self.x87;
    }

    /// The names and both values of what differs.
    pub fn differences(&self, other: &Snapshot) -> Vec<(String, String, String)> {
        let mut out = Vec::new();
        let mut check = |name: String, a: u128, b: u128| {
            if a != b {
                out.push((name, format!("{a:#x}"), format!("{b:#x}")));
            }
        };
        for n in 0..16 {
            check(
                Reg::gpr(n).to_string(),
                self.gpr[n].into(),
                other.gpr[n].into(),
            );
        }
        check("rip".into(), self.rip.into(), other.rip.into());
        check("rflags".into(), self.rflags.into(), other.rflags.into());
        check(
            "fuel".into(),
            self.fuel as u64 as u128,
            other.fuel as u64 as u128,
        );
        for n in 0..6 {
            let reg = |first: Reg| Reg::ALL[first as usize + n].to_string();
            check(
                reg(Reg::EsBase),
                self.seg_base[n].into(),
                other.seg_base[n].into(),
            );
            check(
                reg(Reg::Es),
                self.seg_sel[n].into(),
                other.seg_sel[n].into(),
            );
        }
        check("mxcsr".into(), self.mxcsr.into(), other.mxcsr.into());
        for n in 0..16 {
            check(Reg::xmm(n).to_string(), self.xmm[n], other.xmm[n]);
            check(Reg::ymm_hi(n).to_string(), self.ymm_hi[n], other.ymm_hi[n]);
        }
        if self.x87 != other.x87 {
            out.push((
                "x87".into(),
                format!("{:x?}", self.x87),
                format!("{:x?}", other.x87),
            ));
        }
        out
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for n in 0..16 {
            let end = if n % 4 == 3 { "\n" } else { "  " };
            write!(f, "{:>3} {:016x}{end}", Reg::gpr(n).name(), self.gpr[n])?;
        }
        write!(
            f,
            "rip {:016x}  rflags {:08x}  fuel {}",
            self.rip, self.rflags, self.fuel
        )
    }
}

/// How one engine left the block.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Why.
    pub reason: ExitReason,
    /// Details, where the reason has any.
    pub info: u64,
    /// The state then.
    pub state: Snapshot,
}

/// The engines disagree.
#[derive(Clone, Debug)]
pub struct Mismatch {
    /// Blocks that agreed before.
    pub blocks: u64,
    /// Where the block starts.
    pub pc: u64,
    /// The state before it.
    pub before: Snapshot,
    /// What the interpreter made of it.
    pub interpreted: Outcome,
    /// What compiled code made of it.
    pub compiled: Outcome,
    /// Guest bytes that differ: address, interpreted, compiled (the first 16).
    pub memory: Vec<(u64, u8, u8)>,
    /// Host address and bytes of the compiled code.
    pub host: (u64, Vec<u8>),
}

/// Why a lock-step run ended.
#[derive(Debug)]
pub enum LockstepStop {
    /// As without lock step.
    Stop(Stop),
    /// The engines disagree.
    Mismatch(Box<Mismatch>),
}

/// A lock-step run over a virtual CPU.
#[derive(Debug, Default)]
pub struct Lockstep {
    /// Blocks compared so far.
    pub blocks: u64,
}

/// The options that lock step needs: compiled code for every block, both engines over the same
/// blocks, nothing chained, and the interpreter on IR that no pass has touched.
pub fn options(mut base: Options, tier: u8) -> Options {
    base.engine = crate::options::Engine::Jit;
    base.background = false;
    base.chain = false;
    base.jump_cache = false;
    base.regions = false;
    base.reference = true;
    if tier == 2 {
        base.block_limits = base.region_limits;
        base.tier1 = base.tier2.clone();
    }
    base
}

impl Lockstep {
    /// Starts watching the guest's memory. The CPU must have been made with [`options`].
    pub fn new(vcpu: &Vcpu) -> Lockstep {
        vcpu.env.memory.watch_writes(true);
        Lockstep::default()
    }

    /// Runs until the layer above is needed or the engines disagree. `budget` counts blocks.
    pub fn run(&mut self, vcpu: &mut Vcpu, budget: u64) -> Result<LockstepStop, VcpuError> {
        let _watch = vcpu.watch()?;
        for _ in 0..budget {
            vcpu.refuel(STEP_FUEL);
            let id = match vcpu.lookup_or_fault()? {
                Next::Go(id) => id,
                Next::Slice => continue,
                Next::Stop(stop) => return Ok(LockstepStop::Stop(stop)),
            };
            let reason = match self.step(vcpu, id)? {
                Ok(reason) => reason,
                Err(mismatch) => return Ok(LockstepStop::Mismatch(mismatch)),
            };
            if let Next::Stop(stop) = vcpu.leave(reason)? {
                return Ok(LockstepStop::Stop(stop));
            }
        }
        Ok(LockstepStop::Stop(Stop::Budget))
    }

    /// Runs one block in both engines.
    fn step(
        &mut self,
        vcpu: &mut Vcpu,
        id: TransId,
    ) -> Result<Result<ExitReason, Box<Mismatch>>, VcpuError> {
        if vcpu.cache.get(id).code.is_none() {
            vcpu.request(id, 1)?;
        }
        let before = Snapshot::of(&vcpu.state);
        let t = vcpu.cache.get(id);
        let (Some(program), Some(code)) = (&t.program, &t.code) else {
            // What only one engine can run cannot be compared: the interpreter runs it singly.
            return Ok(Ok(ExitReason::Emulate));
        };
        let (pc, placed) = (t.pc, code.code);
        vcpu.env.memory.take_saved();
        let mut interpreted = interpret(program, &mut vcpu.state);
        let saved = vcpu.env.memory.take_saved();
        let mut written = swap_pages(vcpu, saved);
        before.restore(&mut vcpu.state);
        let (reason, _) = vcpu.enter(placed.entry());
        let compiled = outcome(reason, &vcpu.state);
        let unused = compiled.state.fuel;
        let again = reason == ExitReason::Fuel && unused > interpreted.state.fuel;
        if again {
            // Compiled code asks for fuel for several blocks at once. With that much less, the
            // interpreter must leave at the same place.
            written = swap_pages(vcpu, written.into_iter().map(|(page, _)| page));
            before.restore(&mut vcpu.state);
            vcpu.state.fuel -= unused;
            let Some(program) = &vcpu.cache.get(id).program else {
                return Ok(Ok(ExitReason::Emulate));
            };
            interpreted = interpret(program, &mut vcpu.state);
            interpreted.state.fuel += unused;
            compiled.state.restore(&mut vcpu.state);
        }
        let mut memory = Vec::new();
        for (page, interpreted) in &written {
            let mut now = vec![0; interpreted.len()];
            if vcpu
                .env
                .memory
                .read_bytes(page.number << 12, &mut now)
                .is_err()
            {
                continue;
            }
            let differing = interpreted
                .iter()
                .zip(&now)
                .enumerate()
                .filter(|(_, (a, b))| a != b);
            memory.extend(differing.map(|(n, (&a, &b))| ((page.number << 12) + n as u64, a, b)));
        }
        if interpreted == compiled && memory.is_empty() {
            self.blocks += 1;
            return Ok(Ok(reason));
        }
        if again {
            // It was the compiled code's memory that was set aside.
            memory.iter_mut().for_each(|(_, a, b)| std::mem::swap(a, b));
        }
        memory.truncate(16);
        let bytes = vcpu
            .jit
            .as_ref()
            .and_then(|jit| jit.arena.as_ref())
            .map_or_else(Vec::new, |arena| arena.bytes(placed).to_vec());
        Ok(Err(Box::new(Mismatch {
            blocks: self.blocks,
            pc,
            before,
            interpreted,
            compiled,
            memory,
            host: (placed.entry() as u64, bytes),
        })))
    }
}

/// Runs a program on a CPU's state, which is attached to its environment.
fn interpret(program: &Program, state: &mut CpuState) -> Outcome {
    let state = std::ptr::from_mut(state);
    // SAFETY: the state is the CPU's, attached to its environment, and nothing else borrows it.
    let exit = unsafe { interp::run(program, state) };
    // SAFETY: as above; the run is over.
    outcome(exit.reason, unsafe { &*state })
}

/// Puts the saved bytes back; with each page the bytes that were there.
fn swap_pages(
    vcpu: &Vcpu,
    saved: impl IntoIterator<Item = SavedPage>,
) -> Vec<(SavedPage, Box<[u8]>)> {
    let pages = saved.into_iter();
    let restore = |page: SavedPage| vcpu.env.memory.restore_page(&page).map(|now| (page, now));
    pages.filter_map(restore).collect()
}

/// What can be compared of an exit.
fn outcome(reason: ExitReason, state: &CpuState) -> Outcome {
    let info = match reason {
        ExitReason::Exception | ExitReason::Syscall | ExitReason::Memory => state.exit_info,
        _ => 0,
    };
    Outcome {
        reason,
        info,
        state: Snapshot::of(state),
    }
}
