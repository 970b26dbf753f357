//! System calls against guest memory, without an engine.

use crate::cpu_model::CpuModel;
use crate::env::Env;
use crate::memory::{GuestMemory, Window, page};
use crate::state::CpuState;
use crate::user::abi::Abi;
use crate::user::engine::Engine;
use crate::user::layout::Layout;
use crate::user::signal::Signals;
use crate::user::space::Space;
use crate::user::{Process, ProcessEnd};
use crate::vcpu::{Stop, VcpuError};
use metaphrase_ir::SyscallKind;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

const DATA: u64 = 0x2_0000;

/// An engine that executes nothing.
struct Idle {
    cpu: Box<CpuState>,
    env: Box<Env>,
}

impl Engine for Idle {
    fn run(&mut self) -> Result<Stop, VcpuError> {
        Ok(Stop::Budget)
    }

    fn parts(&mut self) -> (&mut CpuState, &mut Env) {
        (&mut self.cpu, &mut self.env)
    }

    fn drop_stale(&mut self) -> Result<(), VcpuError> {
        Ok(())
    }

    fn replace_memory(&mut self, memory: GuestMemory, _: Abi) -> Result<(), VcpuError> {
        self.env.memory = memory;
        Ok(())
    }

    fn before_fork(&mut self) -> Result<(), VcpuError> {
        Ok(())
    }

    fn after_fork_in_child(&mut self) -> Result<(), VcpuError> {
        Ok(())
    }

    fn attention(&self) -> Arc<AtomicBool> {
        Arc::default()
    }
}

struct Guest {
    process: Process,
    engine: Idle,
    abi: Abi,
}

impl Guest {
    fn new(abi: Abi) -> Guest {
        let window = match abi {
            Abi::X86_64 => Window::Bits64,
            Abi::I386 => Window::Bits32,
        };
        let memory = GuestMemory::new(window).unwrap();
        memory
            .map_anon(DATA, 0x1_0000, page::READ | page::WRITE)
            .unwrap();
        let mut space = Space::new(Layout::new(abi, memory.limit()));
        (space.brk_start, space.brk) = (0x40_0123, 0x40_0123);
        let env = Env::new(memory, CpuModel::max());
        let process = Process {
            abi,
            space,
            signals: Signals::fresh(),
            exe: "/bin/guest".into(),
            args: vec![b"guest".to_vec()],
            sysroot: None,
            reserved_fds: vec![1],
            cpu: CpuModel::max(),
            clear_child_tid: 0,
            robust_list: (0, 0),
            reported: HashSet::new(),
            vfork_parent: None,
            entry: None,
            env: None,
        };
        let cpu = CpuState::new();
        let engine = Idle { cpu, env };
        Guest {
            process,
            engine,
            abi,
        }
    }

    fn stop(&mut self, nr: u64, args: &[u64]) -> Option<ProcessEnd> {
        let (order, kind): (&[usize], _) = match self.abi {
            Abi::X86_64 => (&[7, 6, 2, 10, 8, 9], SyscallKind::Syscall),
            Abi::I386 => (&[3, 1, 2, 6, 7, 5], SyscallKind::Int80),
        };
        let gpr = &mut self.engine.cpu.gpr;
        gpr[0] = nr;
        for (n, &r) in order.iter().enumerate() {
            gpr[r] = args.get(n).copied().unwrap_or(0);
        }
        self.process
            .handle(&mut self.engine, Stop::Syscall(kind))
            .unwrap()
    }

    /// Makes a call and gives its answer, sign-extended.
    fn call(&mut self, nr: u64, args: &[u64]) -> i64 {
        assert_eq!(self.stop(nr, args), None);
        let value = self.engine.cpu.gpr[0];
        match self.abi {
            Abi::X86_64 => value as i64,
            Abi::I386 => {
                assert_eq!(value >> 32, 0, "EAX is zero-extended");
                i64::from(value as i32)
            }
        }
    }

    fn put(&mut self, at: u64, bytes: &[u8]) {
        self.engine.env.memory.write_bytes(at, bytes).unwrap();
    }

    fn word(&self, at: u64) -> u32 {
        self.engine.env.memory.read(at).unwrap()
    }
}

#[test]
fn files_are_written_and_read_back() {
    for (abi, open, read, write, lseek, close, unlink) in [
        (Abi::X86_64, 2, 0, 1, 8, 3, 87),
        (Abi::I386, 5, 3, 4, 19, 6, 10),
    ] {
        let mut g = Guest::new(abi);
        let name = format!("metaphrase-call-{}-{abi:?}", std::process::id());
        let path = std::env::temp_dir().join(name);
        g.put(DATA, format!("{}\0", path.display()).as_bytes());
        g.put(DATA + 0x1000, b"hello");
        let fd = g.call(open, &[DATA, 0o102, 0o600]);
        assert!(fd > 2, "{fd}");
        let fd = fd as u64;
        assert_eq!(g.call(write, &[fd, DATA + 0x1000, 5]), 5);
        assert_eq!(g.call(lseek, &[fd, 1, 0]), 1);
        assert_eq!(g.call(read, &[fd, DATA + 0x2000, 100]), 4);
        assert_eq!(g.word(DATA + 0x2000), u32::from_le_bytes(*b"ello"));
        let bad = i64::from(-libc::EFAULT);
        assert_eq!(g.call(write, &[fd, 0x10, 5]), bad);
        // A buffer that becomes bad further on is transferred as far as it goes.
        assert_eq!(g.call(write, &[fd, DATA + 0x1_0000 - 3, 10]), 3);
        assert_eq!(g.call(close, &[fd]), 0);
        assert_eq!(g.call(unlink, &[DATA]), 0);
        assert_eq!(g.call(unlink, &[DATA]), i64::from(-libc::ENOENT));
    }
}

#[test]
fn our_own_descriptors_are_not_open() {
    let mut g = Guest::new(Abi::X86_64);
    let bad = i64::from(-libc::EBADF);
    assert_eq!(g.call(3, &[1]), bad);
    assert_eq!(g.call(33, &[0, 1]), bad);
    assert_eq!(g.call(72, &[1, 3]), bad);
}

#[test]
fn unknown_calls_answer_enosys() {
    let no = i64::from(-libc::ENOSYS);
    let mut g = Guest::new(Abi::X86_64);
    for nr in [9999, 0x4000_0000, u64::MAX, 101, 334] {
        assert_eq!(g.call(nr, &[]), no);
    }
    let mut g = Guest::new(Abi::I386);
    assert_eq!(g.call(17, &[]), no);
}

#[test]
fn the_heap_grows_and_shrinks() {
    for (abi, brk) in [(Abi::X86_64, 12), (Abi::I386, 45)] {
        let mut g = Guest::new(abi);
        assert_eq!(g.call(brk, &[0]), 0x40_0123);
        assert_eq!(g.call(brk, &[0x40_5000]), 0x40_5000);
        g.put(0x40_4ff0, b"x");
        assert_eq!(g.call(brk, &[0x40_1800]), 0x40_1800);
        assert!(g.engine.env.memory.read::<u8>(0x40_4ff0).is_err());
        assert_eq!(g.call(brk, &[0x1000]), 0x40_1800);
    }
}

#[test]
fn mappings_come_and_go() {
    for (abi, mmap, munmap, mprotect, mremap) in
        [(Abi::X86_64, 9, 11, 10, 25), (Abi::I386, 192, 91, 125, 163)]
    {
        let mut g = Guest::new(abi);
        let anon = [0, 0x2001, 3, 0x22, u64::from(u32::MAX), 0];
        let at = |v: i64| match abi {
            Abi::X86_64 => v as u64,
            Abi::I386 => u64::from(v as u32),
        };
        let first = at(g.call(mmap, &anon));
        assert_eq!(first, g.process.space.layout.mmap_top - 0x3000);
        g.put(first + 0x2ffc, b"abcd");
        assert_eq!(g.call(mprotect, &[first, 0x3000, 1]), 0);
        assert!(g.engine.env.memory.write::<u8>(first, 1).is_err());
        assert_eq!(g.call(mprotect, &[first, 0x3000, 3]), 0);
        let moved = at(g.call(mremap, &[first, 0x3000, 0x8000, 1]));
        assert_eq!(g.word(moved + 0x2ffc), u32::from_le_bytes(*b"abcd"));
        assert!(g.engine.env.memory.read::<u8>(first).is_err() || moved == first);
        assert_eq!(g.call(munmap, &[moved, 0x8000]), 0);
        assert!(g.engine.env.memory.read::<u8>(moved).is_err());
        let zero = [0, 0, 3, 0x22, 0, 0];
        assert_eq!(g.call(mmap, &zero), i64::from(-libc::EINVAL));
        let outside = [0, 1 << 31, 3, 0x22, 0, 0];
        if abi == Abi::I386 {
            assert_eq!(g.call(munmap, &[0x1001, 1]), i64::from(-libc::EINVAL));
            assert!(at(g.call(mmap, &outside)) != 0);
            assert_eq!(g.call(mmap, &outside), i64::from(-libc::ENOMEM));
        }
    }
}

#[test]
fn hostile_arguments_are_refused() {
    let mut g = Guest::new(Abi::X86_64);
    let huge = u64::MAX - 0xfff;
    for nr in 0..450 {
        // Leave out what ends, stops or changes this process, or may wait for ever.
        let own = [
            22, 23, 34, 35, 37, 38, 57, 58, 59, 60, 61, 62, 80, 81, 95, 105, 106, 109, 112, 113,
            114, 116, 117, 119, 122, 123, 128, 130, 141, 142, 143, 144, 145, 160, 161, 162, 200,
            230, 231, 234, 247, 270, 271, 281, 202, 7, 232, 157, 302, 306, 436, 3, 32, 33, 292,
            293, 72, 41, 53, 43, 288, 14, 13, 15, 219, 251, 77, 76, 18, 251, 40, 326, 275,
        ];
        if own.contains(&nr) {
            continue;
        }
        // None is an open descriptor, so that nothing of the host is changed through one: standard
        // input may be a device of its.
        for value in [huge, 1 << 63 | 1 << 31, 0x7fff_ffff_ffff_ffff, 0x7000_0008] {
            let _ = g.stop(nr, &[value; 6]);
            g.process.signals.saved_mask = None;
        }
    }
}

#[test]
fn structures_of_i386_have_their_sizes() {
    let mut g = Guest::new(Abi::I386);
    g.put(DATA, b"/dev/null\0");
    g.put(DATA + 0x100, &[0xcc; 256]);
    // stat64: 96 bytes.
    assert_eq!(g.call(195, &[DATA, DATA + 0x100]), 0);
    assert_ne!(g.word(DATA + 0x100 + 88), 0xcccc_cccc);
    assert_eq!(g.word(DATA + 0x100 + 96), 0xcccc_cccc);
    // clock_gettime: 8 bytes; clock_gettime64: 16.
    g.put(DATA + 0x100, &[0xcc; 64]);
    assert_eq!(g.call(265, &[0, DATA + 0x100]), 0);
    assert_eq!(g.word(DATA + 0x108), 0xcccc_cccc);
    assert_eq!(g.call(403, &[0, DATA + 0x100]), 0);
    assert_eq!(g.word(DATA + 0x10c), 0);
    assert_eq!(g.word(DATA + 0x110), 0xcccc_cccc);
    // uname: six fields of 65 bytes.
    assert_eq!(g.call(122, &[DATA + 0x1000]), 0);
    let mut machine = [0; 4];
    let at = DATA + 0x1000 + 4 * 65;
    g.engine.env.memory.read_bytes(at, &mut machine).unwrap();
    assert_eq!(&machine, b"i686");
}

#[test]
fn thread_areas_go_into_the_gdt() {
    let mut g = Guest::new(Abi::I386);
    let desc: Vec<u8> = [u32::MAX, 0xbeef_0000, 0xf_ffff, 0x51]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    g.put(DATA, &desc);
    assert_eq!(g.call(243, &[DATA]), 0);
    assert_eq!(g.word(DATA), 12);
    assert_eq!(g.engine.env.gdt[12].unwrap().base, 0xbeef_0000);
    g.put(DATA + 0x100, &12u32.to_le_bytes());
    assert_eq!(g.call(244, &[DATA + 0x100]), 0);
    assert_eq!(g.word(DATA + 0x104), 0xbeef_0000);
    g.put(DATA, &3u32.to_le_bytes());
    assert_eq!(g.call(243, &[DATA]), i64::from(-libc::EINVAL));
}

#[test]
fn exit_ends_the_process() {
    let mut g = Guest::new(Abi::X86_64);
    assert_eq!(g.stop(231, &[0x103]), Some(ProcessEnd::Exited(3)));
    let mut g = Guest::new(Abi::I386);
    assert_eq!(g.stop(1, &[7]), Some(ProcessEnd::Exited(7)));
}

#[test]
fn own_links_show_the_guest() {
    let mut g = Guest::new(Abi::X86_64);
    g.put(DATA, b"/proc/self/exe\0");
    assert_eq!(g.call(89, &[DATA, DATA + 0x100, 64]), 10);
    let mut name = [0; 10];
    let memory = &g.engine.env.memory;
    memory.read_bytes(DATA + 0x100, &mut name).unwrap();
    assert_eq!(&name, b"/bin/guest");
}

#[test]
fn int80_in_64_bit_code_uses_the_i386_table() {
    let mut g = Guest::new(Abi::X86_64);
    let gpr = &mut g.engine.cpu.gpr;
    gpr[0] = 0xffff_ffff_0000_0014;
    let stop = Stop::Syscall(SyscallKind::Int80);
    g.process.handle(&mut g.engine, stop).unwrap();
    assert_eq!(g.engine.cpu.gpr[0], u64::from(std::process::id()));
}
