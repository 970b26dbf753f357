//! A guest small enough for the backend's tests: a state, a window of memory and a few helpers,
//! none of them the runtime's.

#![allow(dead_code, reason = "each test file uses a part")]

pub mod cases;

use metaphrase_backend::{
    Arena, CodeRef, CompiledRegion, Compiler, HelperFn, HelperTable, OptLevel, Options, Regalloc,
    StateLayout, TlbEntry, Watch, count_links, host_fault,
};
use metaphrase_ir::region::GuestInsn;
use metaphrase_ir::{Builder, CcOp, CodeSize, ExitReason, Helper, Reg, Region, flags};
use std::ffi::c_void;
use std::mem::offset_of;

pub const ENTRIES: usize = 256;
pub const WINDOW: usize = 1 << 20;
const GUARD: usize = 2 << 30;
/// The PC of the first region.
pub const PC: u64 = 0x5555_0000_1000;

#[repr(C, align(64))]
pub struct State {
    pub gpr: [u64; 16],
    pub segment: [u64; 16],
    pub df: u64,
    pub sysflags: u64,
    pub mxcsr: u64,
    pub rip: u64,
    pub fuel: i64,
    pub cc_op: u32,
    pub exit_reason: u32,
    pub cc: [u64; 3],
    pub exit_info: u64,
    pub fault_addr: u64,
    pub mem_base: u64,
    pub mem_limit: u64,
    pub jump_cache: *mut [u64; 2],
    pub host: [u64; 3],
    pub tlb: *mut TlbEntry,
    pub slow_access: u64,
    pub padding: u64,
    pub xmm: [u128; 16],
    pub ymm_hi: [u128; 16],
    pub helper_v: [u128; 4],
    pub others: [u64; 16],
}

pub fn layout() -> StateLayout {
    let mut reg_offsets = [0; Reg::COUNT];
    for (n, &reg) in Reg::ALL.iter().enumerate() {
        let (gpr, es, df, xmm) = (
            Reg::Rax as usize,
            Reg::EsBase as usize,
            Reg::Df as usize,
            Reg::Xmm0 as usize,
        );
        let others = Reg::Mm0 as usize;
        let at = if n >= others {
            match reg {
                Reg::Fuel => offset_of!(State, fuel),
                Reg::CcOp => offset_of!(State, cc_op),
                Reg::CcA => offset_of!(State, cc),
                Reg::CcB => offset_of!(State, cc) + 8,
                Reg::CcC => offset_of!(State, cc) + 16,
                _ => offset_of!(State, others) + (n - others) * 8,
            }
        } else if n >= xmm {
            offset_of!(State, xmm) + (n - xmm) * 16
        } else if n >= df {
            offset_of!(State, df) + (n - df) * 8
        } else if n >= es {
            offset_of!(State, segment) + (n - es) * 8
        } else {
            offset_of!(State, gpr) + (n - gpr) * 8
        };
        reg_offsets[reg as usize] = at as u32;
    }
    let cc = offset_of!(State, cc) as u32;
    let host = offset_of!(State, host) as u32;
    StateLayout {
        reg_offsets,
        rip: offset_of!(State, rip) as u32,
        fuel: offset_of!(State, fuel) as u32,
        cc_op: offset_of!(State, cc_op) as u32,
        cc_a: cc,
        cc_b: cc + 8,
        cc_c: cc + 16,
        exit_reason: offset_of!(State, exit_reason) as u32,
        exit_info: offset_of!(State, exit_info) as u32,
        fault_addr: offset_of!(State, fault_addr) as u32,
        mem_base: offset_of!(State, mem_base) as u32,
        mem_limit: offset_of!(State, mem_limit) as u32,
        jump_cache: offset_of!(State, jump_cache) as u32,
        jump_entries: ENTRIES as u32,
        host_sp: host,
        host_fp: host + 8,
        host_resume: host + 16,
        helper_v: offset_of!(State, helper_v) as u32,
        tlb: offset_of!(State, tlb) as u32,
        slow_access: offset_of!(State, slow_access) as u32,
        x87: Default::default(),
        x87_leave: None,
    }
}

unsafe extern "C" fn evaluate(state: *mut c_void, _: u64, _: u64, _: u64, _: u64) -> u64 {
    // SAFETY: compiled code passes the state that the test entered it with.
    let state = unsafe { &*state.cast::<State>() };
    flags::evaluate(CcOp(state.cc_op), state.cc[0], state.cc[1], state.cc[2])
}

/// Folds its arguments, so that a test sees each of them arrive.
unsafe extern "C" fn mix(_: *mut c_void, descriptor: u64, a: u64, b: u64, c: u64) -> u64 {
    [a, b, c]
        .iter()
        .fold(descriptor, |h, &x| h.wrapping_mul(1_000_003) ^ x)
}

/// Asks to leave for the reason in `a`; for `Jump` it goes to PC 0x1234.
unsafe extern "C" fn leave(state: *mut c_void, _: u64, a: u64, _: u64, _: u64) -> u64 {
    // SAFETY: as above.
    let state = unsafe { &mut *state.cast::<State>() };
    state.exit_reason = a as u32;
    state.exit_info = 77;
    if a == ExitReason::Jump as u64 {
        state.rip = 0x1234;
    }
    a + 1
}

pub fn mixed(descriptor: u64, args: [u64; 3]) -> u64 {
    args.iter()
        .fold(descriptor, |h, &x| h.wrapping_mul(1_000_003) ^ x)
}

pub fn helpers() -> HelperTable {
    let table: Vec<HelperFn> = Helper::ALL
        .iter()
        .map(|h| match h {
            Helper::X87 => leave as HelperFn,
            _ => mix as HelperFn,
        })
        .collect();
    HelperTable {
        helpers: table.leak(),
        flags: evaluate,
        load: mix,
        store: mix,
        rmw: mix,
        cas: mix,
        x87: leave,
    }
}

/// Everything that is needed to run a region.
pub struct Machine {
    pub state: Box<State>,
    pub arena: Arena,
    pub compiler: Compiler,
    pub next_slot: u32,
    cache: Box<[[u64; 2]]>,
    window: *mut u8,
}

impl Machine {
    pub fn new() -> Machine {
        Machine::with(Options::default(), 1 << 20)
    }

    pub fn with(options: Options, arena: usize) -> Machine {
        let options = Options {
            verify_clif: true,
            ..options
        };
        Machine::unverified(options, arena)
    }

    pub fn bench(options: Options) -> Machine {
        let options = Options {
            verify_clif: false,
            ..options
        };
        Machine::unverified(options, 1 << 20)
    }

    fn unverified(options: Options, arena: usize) -> Machine {
        Machine::with_helpers(options, arena, helpers())
    }

    pub fn with_helpers(options: Options, arena: usize, helpers: HelperTable) -> Machine {
        host_fault::install().expect("the fault handler");
        host_fault::enter_thread().expect("the signal stack");
        // SAFETY: a fresh anonymous mapping; its middle is made accessible.
        let window = unsafe {
            let all = libc::mmap(
                std::ptr::null_mut(),
                2 * GUARD + WINDOW,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            );
            assert_ne!(all, libc::MAP_FAILED);
            let window = all.byte_add(GUARD);
            let access = libc::PROT_READ | libc::PROT_WRITE;
            assert_eq!(libc::mprotect(window, WINDOW, access), 0);
            window.cast::<u8>()
        };
        let arena = Arena::new(arena, &layout()).expect("the arena");
        let empty = [0x8000_0000_0000_dead, arena.miss_stub() as u64];
        let mut cache = vec![empty; ENTRIES].into_boxed_slice();
        // SAFETY: all fields are integers or raw pointers.
        let mut state: Box<State> = unsafe { Box::new_zeroed().assume_init() };
        state.mem_base = window as u64;
        state.mem_limit = WINDOW as u64;
        state.jump_cache = cache.as_mut_ptr();
        state.fuel = 1000;
        let options = Options {
            min_limit: WINDOW as u64,
            ..options
        };
        Machine {
            state,
            compiler: Compiler::new(layout(), helpers, options).expect("the compiler"),
            arena,
            next_slot: 100,
            cache,
            window,
        }
    }

    pub fn compile(&mut self, region: &Region) -> CompiledRegion {
        let slots = self.next_slot;
        self.next_slot += count_links(region);
        match self.compiler.compile(region, slots) {
            Ok(compiled) => compiled,
            Err(e) => panic!("{e}"),
        }
    }

    pub fn publish(&mut self, region: &Region) -> (CodeRef, CompiledRegion) {
        let compiled = self.compile(region);
        let code = self.arena.publish(&compiled).expect("room in the arena");
        (code, compiled)
    }

    /// Enters published code: the reason and the slot plus 1.
    pub fn enter(&mut self, code: CodeRef) -> (ExitReason, u32) {
        let state = (&raw mut *self.state).cast::<c_void>();
        // SAFETY: the state lives in this machine, has the layout that everything was made for,
        // and points to this machine's window and cache.
        let result = unsafe {
            let _watch = Watch::new(&self.arena, &layout(), state);
            self.arena.trampoline().enter(state, code.entry())
        };
        (ExitReason::from_u32(result as u32), (result >> 32) as u32)
    }

    pub fn run(&mut self, region: &Region) -> (ExitReason, u32) {
        let (code, _) = self.publish(region);
        let result = self.enter(code);
        self.arena.free(code);
        result
    }

    pub fn memory(&mut self) -> &mut [u8] {
        // SAFETY: the accessible part of the mapping, borrowed with the machine.
        unsafe { std::slice::from_raw_parts_mut(self.window, WINDOW) }
    }

    pub fn cache(&mut self) -> &mut [[u64; 2]] {
        &mut self.cache
    }

    pub fn protect(&mut self, start: usize, len: usize, access: i32) {
        // SAFETY: a part of this machine's own mapping.
        let result = unsafe { libc::mprotect(self.window.add(start).cast(), len, access) };
        assert_eq!(result, 0);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `with`; nothing borrows it any more.
        unsafe { libc::munmap(self.window.sub(GUARD).cast(), 2 * GUARD + WINDOW) };
    }
}

/// Runs a test with every optimisation level and register allocator.
pub fn each_option(mut test: impl FnMut(&mut Machine)) {
    for opt in [OptLevel::None, OptLevel::Speed] {
        for regalloc in [Regalloc::Backtracking, Regalloc::SinglePass] {
            let options = Options {
                opt,
                regalloc,
                ..Options::default()
            };
            test(&mut Machine::with(options, 1 << 20));
        }
    }
}

/// A region of one block with `insns` guest instructions of 4 bytes.
pub fn region_at(pc: u64, insns: u16, build: impl FnOnce(&mut Builder<'_>)) -> Region {
    let mut region = Region::new(pc, CodeSize::Code64);
    region.guest = (0..insns)
        .map(|n| GuestInsn {
            offset: i64::from(n) * 4,
            len: 4,
            fuel_left: insns - n,
        })
        .collect();
    build(&mut Builder::new(&mut region));
    region
}

pub fn region(insns: u16, build: impl FnOnce(&mut Builder<'_>)) -> Region {
    region_at(PC, insns, build)
}

/// A small generator of test inputs (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
}
