//! The x87 helper's corner: pending exceptions, memory faults, FXSAVE.
//! All instructions are compared with the host's FPU in the workspace's `tests/x87.rs`.

use super::super::Cx;
use super::stack::*;
use super::x87;
use crate::CpuModel;
use crate::env::Env;
use crate::memory::{GuestMemory, Window, page};
use crate::state::{CpuState, X87Reg};
use metaphrase_ir::{ExitReason, X87Op};

/// Where the operand lies in guest memory.
const OPERAND: u64 = 0x1_0040;

/// The guest side.
struct Guest {
    env: Box<Env>,
    state: Box<CpuState>,
}

impl Guest {
    fn new() -> Guest {
        let memory = GuestMemory::new(Window::Bits32).expect("a window");
        let rights = page::READ | page::WRITE;
        memory.map_anon(0x1_0000, 0x1000, rights).expect("a page");
        let mut env = Env::new(memory, CpuModel::max());
        let mut state = CpuState::new();
        env.attach(&mut state);
        Guest { env, state }
    }

    fn call(&mut self, op: X87Op, a: u64) -> u64 {
        let state = &raw mut *self.state;
        x87(&Cx { state }, op.pack(), [a, 0x1234, 0])
    }
}

fn memory_op(escape: u8, reg: u8) -> X87Op {
    X87Op {
        escape,
        modrm: reg << 3 | 6,
        ..X87Op::default()
    }
}

#[test]
fn a_pending_exception_waits_for_the_next_waiting_instruction() {
    let mut guest = Guest::new();
    let write = |guest: &Guest, v: u16| {
        guest
            .env
            .memory
            .write_bytes(OPERAND, &v.to_le_bytes())
            .unwrap();
    };
    // Division by zero unmasked: FLDCW, FLD1, FLDZ, FDIVP.
    write(&guest, 0x37b);
    guest.call(memory_op(1, 5), OPERAND);
    let register = |escape, modrm| X87Op {
        escape,
        modrm,
        ..X87Op::default()
    };
    guest.call(register(1, 0xe8), 0);
    guest.call(register(1, 0xee), 0);
    guest.call(register(6, 0xf9), 0);
    assert_eq!(guest.state.exit_reason, 0);
    let status = guest.call(register(7, 0xe0), 0) as u16;
    assert_eq!(status & (ES | BUSY | ZE), ES | BUSY | ZE);
    assert_eq!(guest.state.exit_reason, 0, "FNSTSW does not wait");
    for waiting in [
        register(1, 0xe8),
        memory_op(0, 0),
        X87Op {
            wait: true,
            ..register(0, 0)
        },
    ] {
        guest.call(waiting, OPERAND);
        assert_eq!(guest.state.exit_reason, ExitReason::Exception as u32);
        assert_eq!(guest.state.exit_info, 16);
        guest.state.exit_reason = 0;
    }
    guest.call(register(3, 0xe2), 0);
    guest.call(register(1, 0xe8), 0);
    assert_eq!(guest.state.exit_reason, 0, "FNCLEX cleared it");
}

#[test]
fn a_fault_changes_nothing() {
    let mut guest = Guest::new();
    guest.call(
        X87Op {
            escape: 1,
            modrm: 0xeb,
            ..X87Op::default()
        },
        0,
    );
    let before = guest.state.x87;
    // FSTP m32, m64, m80, FISTP m16, FLD m64 at the end of the page.
    for op in [(1, 3), (5, 3), (3, 7), (7, 3), (5, 0)] {
        guest.call(memory_op(op.0, op.1), 0x1_0fff);
        assert_eq!(guest.state.exit_reason, ExitReason::Memory as u32);
        assert_eq!(guest.state.fault_addr, 0x1_1000);
        guest.state.exit_reason = 0;
        assert_eq!(guest.state.x87, before, "{op:?}");
    }
}

#[test]
fn the_operand_pointer_is_an_offset() {
    let mut guest = Guest::new();
    (guest.state.seg_base[4], guest.state.seg_sel[4]) = (0x1_0000, 0x33);
    // FLD dword FS:[0x40], then FLD dword [linear address], FS as it is.
    let fld = X87Op {
        segment: 4,
        based: true,
        ..memory_op(1, 0)
    };
    guest.call(fld, OPERAND);
    assert_eq!((guest.state.x87.dp, guest.state.x87.ds), (0x40, 0x33));
    assert_eq!(guest.state.x87.opcode, 0x106);
    guest.call(
        X87Op {
            segment: 3,
            based: false,
            ..fld
        },
        OPERAND,
    );
    assert_eq!((guest.state.x87.dp, guest.state.x87.ds), (OPERAND, 0));
}

#[test]
fn fxsave_comes_back() {
    let mut guest = Guest::new();
    let random = |n: u64| (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17);
    for n in 0..16 {
        guest.state.xmm[n as usize] = u128::from(random(n)) << 64 | u128::from(random(n + 99));
    }
    for n in 0..8 {
        guest.state.x87.regs[n as usize] = X87Reg {
            mantissa: random(n + 7),
            exponent: random(n) & 0xffff,
        };
    }
    guest.state.mxcsr = 0x9fc1;
    let f = &mut guest.state.x87;
    f.set_control(0xb40);
    f.set_status_word(0x7a20);
    (f.tags, f.opcode, f.ip, f.dp) = (0x5a, 0x123, 0x1122_3344_5566, 0x7788_99aa_bbcc);
    let (x87, xmm, mxcsr) = (guest.state.x87, guest.state.xmm, guest.state.mxcsr);
    let state = &raw mut *guest.state;
    let control = metaphrase_backend::sse::Control::enter(mxcsr);
    super::fxsave(&Cx { state }, 3, [0x1_0000, 0, 0]);
    super::image::init(&mut guest.state.x87);
    guest.state.xmm = [0; 16];
    guest.state.mxcsr = 0x1f80;
    guest.state.x87.regs = [X87Reg::ONE; 8];
    super::fxrstor(&Cx { state }, 3, [0x1_0000, 0, 0]);
    control.leave(&mut guest.state.mxcsr);
    assert_eq!(guest.state.exit_reason, 0);
    assert_eq!(guest.state.x87, x87);
    assert_eq!((guest.state.xmm, guest.state.mxcsr), (xmm, mxcsr));
    super::fxsave(&Cx { state }, 3, [0x1_0008, 0, 0]);
    assert_eq!(
        guest.state.exit_info,
        metaphrase_ir::exit::exception_info(13, Some(0))
    );
}
