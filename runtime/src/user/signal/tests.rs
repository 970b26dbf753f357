//! Signal frames: what is pushed comes back; delivery by the rules.

use super::*;
use crate::cpu_model::CpuModel;
use crate::memory::{GuestMemory, Window, page};

const STACK: u64 = 0x10_0000;
const TRAMPOLINE: u64 = 0x5000;

fn setup(abi: Abi) -> (Box<CpuState>, Box<Env>, Signals) {
    let memory = GuestMemory::new(Window::Bits32).unwrap();
    memory
        .map_anon(STACK, 0x1_0000, page::READ | page::WRITE)
        .unwrap();
    let mut env = Env::new(memory, CpuModel::max());
    let mut cpu = CpuState::new();
    env.attach(&mut cpu);
    let count = if abi.is_64() { 16 } else { 8 };
    for n in 0..count {
        cpu.gpr[n] = 0x1000_0000 + n as u64;
    }
    cpu.gpr[4] = STACK + 0x8008;
    cpu.rip = 0x1234;
    cpu.set_rflags(0x0ed7);
    cpu.xmm[3] = 0xdead_beef << 64;
    cpu.ymm_hi[5] = 0xfeed << 100;
    cpu.x87.top = 6;
    cpu.x87.tags = 0xc0;
    cpu.x87.regs[6].mantissa = 1 << 63;
    cpu.x87.regs[6].exponent = 0xbfff;
    if abi.is_64() {
        cpu.seg_sel = [0, 0x33, 0x2b, 0, 0, 0];
        cpu.seg_base[4] = 0x7777;
    } else {
        cpu.seg_sel = [0x2b, 0x23, 0x2b, 0x2b, 0, 0x63];
        env.gdt[12] = Some(crate::env::UserSegment {
            base: 0x9000,
            data: true,
        });
        cpu.seg_base[5] = 0x9000;
    }
    (cpu, env, Signals::fresh())
}

struct Saved {
    gpr: [u64; 16],
    rip: u64,
    flags: u64,
    xmm: [u128; 16],
    ymm_hi: [u128; 16],
    x87: crate::state::X87State,
    sel: [u16; 6],
    base: [u64; 6],
}

fn save(cpu: &CpuState) -> Saved {
    Saved {
        gpr: cpu.gpr,
        rip: cpu.rip,
        flags: cpu.rflags(),
        xmm: cpu.xmm,
        ymm_hi: cpu.ymm_hi,
        x87: cpu.x87,
        sel: cpu.seg_sel,
        base: cpu.seg_base,
    }
}

fn same(cpu: &CpuState, s: &Saved) {
    assert_eq!(cpu.gpr, s.gpr);
    assert_eq!(cpu.rip, s.rip);
    assert_eq!(cpu.rflags(), s.flags);
    assert_eq!(cpu.xmm, s.xmm);
    assert_eq!(cpu.ymm_hi, s.ymm_hi);
    assert_eq!(cpu.x87, s.x87);
    assert_eq!(cpu.seg_sel, s.sel);
    assert_eq!(cpu.seg_base, s.base);
}

/// Makes the handler's work visible: everything it may clobber is clobbered.
fn clobber(cpu: &mut CpuState, count: usize) {
    let sp = cpu.gpr[4];
    cpu.gpr[..count].fill(0x55);
    cpu.gpr[4] = sp;
    cpu.set_rflags(0x202);
    cpu.xmm[..count].fill(0);
    cpu.ymm_hi[..count].fill(7);
    cpu.x87.top = 0;
    cpu.x87.tags = 0;
}

fn handler(flags: u64) -> GuestAction {
    GuestAction {
        handler: 0xf000,
        flags,
        restorer: 0xa000,
        mask: bit(libc::SIGUSR2),
    }
}

fn round_trip(abi: Abi, flags: u64) {
    let (mut cpu, env, mut signals) = setup(abi);
    signals.actions[libc::SIGSEGV as usize] = handler(flags);
    signals.trap = Trap {
        number: 14,
        error: 6,
        cr2: 0xabc,
    };
    let before = save(&cpu);
    let info = SigInfo::fault(libc::SIGSEGV, 2, 0xabc);
    let dead = signals.force(&mut cpu, &env, abi, TRAMPOLINE, &info);
    assert_eq!(dead, None);
    assert_eq!(cpu.rip, 0xf000);
    assert_eq!(cpu.rflags() & 0x500, 0, "DF and TF are clear");
    assert_eq!(signals.mask, bit(libc::SIGSEGV) | bit(libc::SIGUSR2));
    let sp = cpu.gpr[4];
    let rt = flags & SA_SIGINFO != 0 || abi.is_64();
    if abi.is_64() {
        assert_eq!(sp % 16, 8);
        assert_eq!(env.memory.read::<u64>(sp), Ok(0xa000));
        assert_eq!(cpu.gpr[7], 11);
        assert!(sp + 440 <= before.gpr[4] - 128, "the red zone is kept");
        assert_eq!(env.memory.read::<u64>(cpu.gpr[6] + 16), Ok(0xabc));
        // RIP and the trap number in the context.
        assert_eq!(env.memory.read::<u64>(cpu.gpr[2] + 168), Ok(0x1234));
        assert_eq!(env.memory.read::<u64>(cpu.gpr[2] + 200), Ok(14));
        // The extended state: uc_flags, the mark in front, the component, the mark behind.
        assert_eq!(env.memory.read::<u64>(cpu.gpr[2]), Ok(7));
        let fp = env.memory.read::<u64>(cpu.gpr[2] + 224).unwrap();
        assert_eq!(fp % 64, 0);
        assert_eq!(env.memory.read::<u32>(fp + 464), Ok(0x4650_5853));
        assert_eq!(
            env.memory.read::<u128>(fp + 576 + 5 * 16),
            Ok(0xfeed << 100)
        );
        assert_eq!(env.memory.read::<u32>(fp + 832), Ok(0x4650_5845));
    } else {
        assert_eq!((sp + 4) % 16, 0);
        let expected = match (flags & SA_RESTORER != 0, rt) {
            (true, _) => 0xa000,
            (false, true) => TRAMPOLINE as u32 + 16,
            (false, false) => TRAMPOLINE as u32,
        };
        assert_eq!(env.memory.read::<u32>(sp), Ok(expected));
        assert_eq!(env.memory.read::<u32>(sp + 4), Ok(11));
    }
    clobber(&mut cpu, if abi.is_64() { 16 } else { 8 });
    // The handler returns: the return address is popped, and the old trampoline pops the number.
    cpu.gpr[4] += match (abi.is_64(), rt) {
        (true, _) => 8,
        (false, true) => 4,
        (false, false) => 8,
    };
    signals.sigreturn(&mut cpu, &env, abi, rt).unwrap();
    same(&cpu, &before);
    assert_eq!(signals.mask, 0);
}

#[test]
fn frames_of_x86_64_round_trip() {
    round_trip(Abi::X86_64, SA_RESTORER | SA_SIGINFO);
}

#[test]
fn frames_of_i386_round_trip() {
    round_trip(Abi::I386, 0);
    round_trip(Abi::I386, SA_RESTORER);
    round_trip(Abi::I386, SA_SIGINFO);
    round_trip(Abi::I386, SA_SIGINFO | SA_RESTORER);
}

#[test]
fn blocked_and_default_faults_are_deadly() {
    let (mut cpu, env, mut signals) = setup(Abi::X86_64);
    let info = SigInfo::fault(libc::SIGSEGV, 1, 0);
    let mut force =
        |signals: &mut Signals| signals.force(&mut cpu, &env, Abi::X86_64, TRAMPOLINE, &info);
    assert_eq!(force(&mut signals), Some(libc::SIGSEGV));
    signals.actions[libc::SIGSEGV as usize] = handler(SA_RESTORER);
    signals.mask = bit(libc::SIGSEGV);
    assert_eq!(force(&mut signals), Some(libc::SIGSEGV));
}

#[test]
fn the_alternate_stack_is_used_once() {
    let (mut cpu, env, mut signals) = setup(Abi::X86_64);
    signals.actions[libc::SIGSEGV as usize] = handler(SA_RESTORER | SA_ONSTACK | SA_NODEFER);
    signals.alt = AltStack {
        sp: STACK,
        flags: 0,
        size: 0x4000,
    };
    let info = SigInfo::fault(libc::SIGSEGV, 1, 0);
    for _ in 0..2 {
        let old = cpu.gpr[4];
        let dead = signals.force(&mut cpu, &env, Abi::X86_64, TRAMPOLINE, &info);
        assert_eq!(dead, None);
        assert!((STACK..STACK + 0x4000).contains(&cpu.gpr[4]));
        assert!(cpu.gpr[4] < old);
    }
    assert!(
        cpu.gpr[4] < STACK + 0x4000 - 2 * 900,
        "nested, not restarted"
    );
}

#[test]
fn no_room_for_a_frame_is_deadly() {
    let (mut cpu, env, mut signals) = setup(Abi::I386);
    signals.actions[libc::SIGSEGV as usize] = handler(0);
    cpu.gpr[4] = 0x100;
    let info = SigInfo::fault(libc::SIGSEGV, 1, 0);
    let dead = signals.force(&mut cpu, &env, Abi::I386, TRAMPOLINE, &info);
    assert_eq!(dead, Some(libc::SIGSEGV));
}

#[test]
fn an_interrupted_call_restarts_or_fails() {
    for (flags, mark, rip, value) in [
        (SA_RESTART, Errno::RESTART, 0x1232, 7u64),
        (0, Errno::RESTART, 0x1234, -4i64 as u64),
        (SA_RESTART, Errno::RESTART_NO_HANDLER, 0x1234, -4i64 as u64),
        (0, Errno::RESTART_ALWAYS, 0x1232, 7),
    ] {
        let (mut cpu, env, mut signals) = setup(Abi::X86_64);
        signals.actions[libc::SIGSEGV as usize] = handler(SA_RESTORER | flags);
        signals.raise(SigInfo::sent(libc::SIGSEGV, libc::SI_USER, 1, 2));
        let restart = Restart {
            mark,
            number: 7,
            rip: 0x1232,
        };
        let dead = signals.deliver(&mut cpu, &env, Abi::X86_64, TRAMPOLINE, Some(restart));
        assert_eq!(dead, None);
        cpu.gpr[4] += 8;
        signals
            .sigreturn(&mut cpu, &env, Abi::X86_64, true)
            .unwrap();
        assert_eq!((cpu.rip, cpu.gpr[0]), (rip, value));
    }
}
