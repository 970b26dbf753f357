//! Our engines as the tests see them: the only module that knows the runtime's interface.

use super::case::*;
use metaphrase_ir::CodeSize;
use metaphrase_runtime::lockstep::Snapshot;
use metaphrase_runtime::memory::{Window, page};
pub use metaphrase_runtime::vcpu::Stop;
use metaphrase_runtime::{CpuModel, Env, GuestMemory, Options, Vcpu, options};

/// Which engine.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Kind {
    /// The interpreter.
    Interp,
    /// Blocks compiled before their first execution.
    Jit,
    /// Regions compiled before their first execution.
    Regions,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 3] = [Kind::Interp, Kind::Jit, Kind::Regions];
    /// Those that make a difference for a single instruction.
    pub const SINGLE: [Kind; 2] = [Kind::Interp, Kind::Jit];

    /// What it is called in reports.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Interp => "interp",
            Kind::Jit => "jit",
            Kind::Regions => "regions",
        }
    }

    /// Its options.
    pub fn options(self) -> Options {
        Options {
            engine: match self {
                Kind::Interp => options::Engine::Interp,
                _ => options::Engine::Jit,
            },
            background: false,
            eager_regions: self == Kind::Regions,
            arena_bytes: 16 << 20,
            ..Options::default()
        }
    }
}

/// An engine with the world of the cases in its memory.
pub struct Engine {
    /// The virtual CPU.
    pub vcpu: Vcpu,
    mode: Mode,
    pristine: Vec<u64>,
    before: Vec<u64>,
    placed: Option<(u64, Vec<u8>)>,
}

/// The segments as every case starts with them.
fn set_segments(vcpu: &mut Vcpu, mode: Mode) {
    vcpu.state.seg_base = mode.seg_bases();
    // What the host has in the selectors, so that PUSH ES and MOV AX, ES agree.
    vcpu.state.seg_sel = match mode {
        Mode::M16 => [0x17, 0x07, 0x1f, 0x0f, 0x27, 0x2f],
        Mode::M32 => [0x2b, 0x23, 0x2b, 0x2b, 0x27, 0x2f],
        Mode::M64 => [0x2b, 0x33, 0x2b, 0x2b, 0, 0],
    };
}

/// The instructions a case may take: REP and the INT3 behind it, with room.
const BUDGET: u64 = 100_000;

/// TOP in the x87 status word.
const TOP: u16 = 7 << 11;

impl Engine {
    /// An engine for code of one size.
    pub fn new(kind: Kind, mode: Mode) -> Engine {
        Engine::with_options(kind.options(), mode)
    }

    /// An engine with options of its own.
    pub fn with_options(options: Options, mode: Mode) -> Engine {
        let window = match mode {
            Mode::M64 => Window::Bits64,
            _ => Window::Bits32,
        };
        let memory = GuestMemory::new(window).expect("guest memory");
        let rw = page::READ | page::WRITE;
        memory.map_anon(DATA, DATA_LEN as u64, rw).expect("data");
        memory
            .map_anon(mode.engine_code(), CODE_LEN as u64, rw | page::EXEC)
            .expect("code");
        let pristine = pristine();
        let bytes: Vec<u8> = pristine.iter().flat_map(|w| w.to_le_bytes()).collect();
        memory.write_bytes(DATA, &bytes).expect("data is writable");
        memory
            .write_bytes(mode.engine_code(), &[0xcc; CODE_LEN])
            .expect("code is writable");
        memory
            .protect(DATA + DATA_RW as u64, 0x1000, page::READ)
            .expect("the read-only page");
        let guest_mode = metaphrase_frontend::Mode {
            code: match mode {
                Mode::M16 => CodeSize::Code16,
                Mode::M32 => CodeSize::Code32,
                Mode::M64 => CodeSize::Code64,
            },
            big_stack: mode != Mode::M16,
            flat: mode != Mode::M16,
            features: metaphrase_frontend::Features::MAX,
            unmasked: false,
            system: None,
        };
        let env = Env::new(memory, CpuModel::max());
        let mut vcpu = Vcpu::new(env, guest_mode, options).expect("a virtual CPU");
        set_segments(&mut vcpu, mode);
        Engine {
            vcpu,
            mode,
            before: pristine.clone(),
            pristine,
            placed: None,
        }
    }

    /// The data area as words.
    fn data(&mut self) -> &mut [u64] {
        let at = self.vcpu.env.memory.base().wrapping_add(DATA as usize);
        // SAFETY: the pages are mapped readable and writable for as long as the memory lives, and
        // no guest code runs while the slice is in use.
        unsafe { std::slice::from_raw_parts_mut(at.cast(), DATA_RW / 8) }
    }

    /// Puts an instruction into the code pages.
    fn place(&mut self, case: &Case) {
        if let Some((at, bytes)) = &self.placed
            && *at == case.at
            && bytes == case.bytes()
        {
            return;
        }
        let memory = &self.vcpu.env.memory;
        let base = self.mode.engine_code();
        if let Some((at, bytes)) = self.placed.take() {
            let fill = vec![0xcc; bytes.len().min(CODE_LEN - at as usize)];
            memory
                .write_bytes(base + at, &fill)
                .expect("code is writable");
        }
        let fits = case.bytes().len().min(CODE_LEN - case.at as usize);
        memory
            .write_bytes(base + case.at, &case.bytes()[..fits])
            .expect("code is writable");
        self.placed = Some((case.at, case.bytes().to_vec()));
        self.vcpu.drop_stale().expect("invalidation");
    }

    /// Runs one case.
    pub fn run(&mut self, case: &Case) -> Outcome {
        assert_eq!(case.mode, self.mode);
        self.place(case);
        let touched: Vec<usize> = case
            .pokes
            .iter()
            .flat_map(|p| [p.offset as usize / 8, (p.offset as usize).div_ceil(8)])
            .filter(|&i| i < DATA_RW / 8)
            .collect();
        for p in case.pokes {
            let value = p.value.to_le_bytes();
            for (i, byte) in value.iter().enumerate().take(p.len as usize) {
                let at = p.offset as usize + i;
                let (word, shift) = (at / 8, at % 8 * 8);
                let kept = self.before[word] & !(0xff << shift);
                self.before[word] = kept | u64::from(*byte) << shift;
                self.data()[word] = self.before[word];
            }
        }
        set_segments(&mut self.vcpu, self.mode);
        let state = &mut self.vcpu.state;
        state.gpr = case.gpr.map(|r| r & case.mode.gpr_mask());
        state.set_rflags(case.rflags & (ARITH | DF) | 0x202);
        state.xmm = case.xmm;
        state.ymm_hi = case.ymm_hi;
        state.mxcsr = case.mxcsr;
        let fpu = &mut state.x87;
        for (n, reg) in fpu.regs.iter_mut().enumerate() {
            reg.mantissa = case.fpu.mm[n];
            reg.exponent = case.fpu.exponent[n].into();
        }
        fpu.control = case.fpu.control;
        fpu.status = case.fpu.status & !TOP;
        fpu.top = case.fpu.top() as u16;
        fpu.tags = case.fpu.tags as u8;
        state.rip = case.ip();
        let stop = self.vcpu.run(BUDGET).expect("the engine runs");
        let mut out = Outcome::EMPTY;
        let state = &self.vcpu.state;
        out.gpr = state.gpr;
        out.rflags = state.rflags() & FLAGS;
        out.fpu = Fpu {
            mm: state.x87.regs.map(|r| r.mantissa),
            exponent: state.x87.regs.map(|r| r.exponent as u16),
            control: state.x87.control,
            status: state.x87.status & !TOP | state.x87.top << 11 & TOP,
            tags: state.x87.tags.into(),
        };
        (out.xmm, out.ymm_hi) = (state.xmm, state.ymm_hi);
        (out.mxcsr, out.rip) = (state.mxcsr, state.rip);
        match stop {
            Stop::Exception(e) => {
                let error = e.error.unwrap_or(0);
                if e.vector == 3 {
                    (out.rip, out.trap) = (state.rip.wrapping_sub(1), COMPLETED);
                } else if e.vector == 14 && error & 0x10 != 0 && state.rip != case.ip() {
                    out.trap = COMPLETED;
                } else {
                    out.trap = e.vector.into();
                    (out.error, out.address) = (error.into(), e.addr);
                }
            }
            Stop::Budget => out.trap = HANG,
            Stop::Attention | Stop::Syscall(_) | Stop::Halt => out.trap = 0x200,
        }
        let before = std::mem::take(&mut self.before);
        out.record_writes(&before[..DATA_RW / 8], self.data());
        self.before = before;
        // Back to the pristine data.
        if out.changed as usize > MAX_WRITES {
            let pristine = std::mem::take(&mut self.pristine);
            self.data().copy_from_slice(&pristine[..DATA_RW / 8]);
            self.pristine = pristine;
        }
        for i in out
            .writes()
            .iter()
            .map(|w| w.offset as usize / 8)
            .chain(touched)
        {
            let old = self.pristine[i];
            self.data()[i] = old;
            self.before[i] = old;
        }
        out
    }
}

/// Running whole programs rather than cases.
impl Engine {
    /// Fills the code pages with INT3 and puts a program there.
    pub fn load(&mut self, at: u64, code: &[u8]) {
        let base = self.mode.engine_code();
        let memory = &self.vcpu.env.memory;
        memory
            .write_bytes(base, &[0xcc; CODE_LEN])
            .and_then(|()| memory.write_bytes(base + at, code))
            .expect("code is writable");
        self.placed = None;
        self.vcpu.drop_stale().expect("invalidation");
    }

    /// Sets registers and flags, and the data area to what cases start from.
    pub fn start(&mut self, at: u64, gpr: [u64; 16], rflags: u64) {
        let mode = self.mode;
        let pristine = std::mem::take(&mut self.pristine);
        self.data().copy_from_slice(&pristine[..DATA_RW / 8]);
        self.pristine = pristine;
        set_segments(&mut self.vcpu, mode);
        let state = &mut self.vcpu.state;
        state.gpr = gpr.map(|r| r & mode.gpr_mask());
        state.set_rflags(rflags & (ARITH | DF) | 0x202);
        state.rip = mode.ip(at);
    }

    /// Runs at most `budget` instructions.
    pub fn go(&mut self, budget: u64) -> Stop {
        self.vcpu.run(budget).expect("the engine runs")
    }

    /// The architectural state.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            fuel: 0,
            ..Snapshot::of(&self.vcpu.state)
        }
    }

    /// What the data pages and the code pages hold.
    pub fn memory_image(&self) -> Vec<u8> {
        let mut image = vec![0; DATA_RW + CODE_LEN];
        let memory = &self.vcpu.env.memory;
        memory
            .read_bytes(DATA, &mut image[..DATA_RW])
            .and_then(|()| memory.read_bytes(self.mode.engine_code(), &mut image[DATA_RW..]))
            .expect("the pages are there");
        image
    }
}
