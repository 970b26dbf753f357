//! All pairs of special values through every SSE operation on two registers, in every rounding
//! mode, with and without DAZ and FTZ, in each engine: results and MXCSR against the host's own
//! instruction. The operation runs in a guest loop, so that compiled regions are tested as well.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod host;

use host::case::{DATA, Mode};
use host::engine::{Engine, Kind, Stop};
use iced_x86::code_asm::*;
use iced_x86::{Code, EncodingKind, Instruction, OpCodeOperandKind, Register};
use metaphrase_backend::sse::{Control, Prepared};
use metaphrase_ir::{SseForm, SseOp};

/// Zeros, denormals, the borders of the normal numbers and of integers, halves, infinities, and
/// NaNs of both kinds; each with both signs.
fn special(double: bool) -> Vec<u64> {
    let (fraction, width, bias) = if double {
        (52u32, 64, 1023)
    } else {
        (23, 32, 127)
    };
    let infinity = (2 * bias + 1) << fraction;
    let one: u64 = bias << fraction;
    let mut all = vec![
        0,
        1,
        (1 << fraction) - 1,
        1 << fraction,
        (1 << fraction) + 1,
        infinity - 1,
        infinity,
        infinity + 1,
        infinity + 0x77,
        infinity | 1 << (fraction - 1),
        infinity | 1 << (fraction - 1) | 0x123,
        one - 1,
        one,
        one + 1,
        one | 1 << (fraction - 1),
        (one + (1 << fraction)) | (1 << (fraction - 2)),
        (bias / 2) << fraction | 5,
    ];
    for e in [-1i64, 31, 32, 63] {
        all.push((bias as i64 + e) as u64 * (1 << fraction) + 1);
    }
    let negative: Vec<u64> = all.iter().map(|x| x | 1 << (width - 1)).collect();
    all.extend(negative);
    all
}

/// Vector `n`: value `n` low, others above.
fn vector(list: &[u64], n: usize, double: bool) -> u128 {
    let (lanes, width) = if double { (2, 64) } else { (4, 32) };
    (0..lanes).fold(0, |v, i| {
        v | u128::from(list[(n + i * 5) % list.len()]) << (i * width)
    })
}

/// The form on two XMM registers.
fn code(op: SseOp) -> Option<Code> {
    use OpCodeOperandKind::{xmm_or_mem, xmm_reg};
    Code::values().find(|code| {
        let info = code.op_code();
        info.encoding() == EncodingKind::Legacy
            && info.is_instruction()
            && info.op0_kind() == xmm_reg
            && info.op1_kind() == xmm_or_mem
            && format!("{:?}", code.mnemonic()).eq_ignore_ascii_case(op.name())
    })
}

const FIRST: u64 = DATA;
const CONTROL: u64 = DATA + 0x100;
const SECOND: u64 = DATA + 0x200;
const RESULTS: u64 = DATA + 0x1000;
const AT: u64 = 0x100;

/// For each second operand: the result and MXCSR.
fn program(op: SseOp, imm: u8, count: usize) -> Vec<u8> {
    let code = code(op).expect("a form on two registers");
    let insn = match op.form() {
        SseForm::Plain => Instruction::with2(code, Register::XMM0, Register::XMM1),
        _ => Instruction::with3(code, Register::XMM0, Register::XMM1, u32::from(imm)),
    };
    let insn = insn.expect("the form's operands");
    let assemble = || -> Result<Vec<u8>, iced_x86::IcedError> {
        let mut a = CodeAssembler::new(64)?;
        let mut again = a.create_label();
        a.mov(ecx, count as u32)?;
        a.mov(esi, SECOND as u32)?;
        a.mov(edi, RESULTS as u32)?;
        a.set_label(&mut again)?;
        a.ldmxcsr(dword_ptr(CONTROL))?;
        a.movups(xmm0, xmmword_ptr(FIRST))?;
        a.movups(xmm1, xmmword_ptr(rsi))?;
        a.add_instruction(insn)?;
        a.movups(xmmword_ptr(rdi), xmm0)?;
        a.stmxcsr(dword_ptr(rdi + 16))?;
        a.add(rsi, 16)?;
        a.add(rdi, 32)?;
        a.dec(ecx)?;
        a.jne(again)?;
        a.int3()?;
        a.assemble(Mode::M64.ip(AT))
    };
    assemble().expect("assembles")
}

/// Runs one operation in one engine on all pairs.
fn pairs(engine: &mut Engine, name: &str, op: SseOp, imm: u8) {
    let name_of = op.name();
    // What the source holds: conversions name it first.
    let double = match name_of.strip_prefix("cvt") {
        Some(rest) => rest.starts_with("sd") || rest.starts_with("pd") || rest.starts_with("tpd"),
        None => name_of.ends_with('d'),
    };
    let list = special(double);
    let vectors: Vec<u128> = (0..list.len()).map(|n| vector(&list, n, double)).collect();
    engine.load(AT, &program(op, imm, vectors.len()));
    engine.start(AT, [0; 16], 0);
    let second: Vec<u8> = vectors.iter().flat_map(|v| v.to_le_bytes()).collect();
    let write = |engine: &Engine, at: u64, bytes: &[u8]| {
        engine
            .vcpu
            .env
            .memory
            .write_bytes(at, bytes)
            .expect("data is writable");
    };
    write(engine, SECOND, &second);
    let prepared = Prepared::new(op, imm);
    let mut results = vec![0; vectors.len() * 32];
    for mode in 0..16u32 {
        let before = 0x1f80 | (mode & 3) << 13 | (mode >> 2 & 1) << 6 | (mode >> 3) << 15;
        write(engine, CONTROL, &before.to_le_bytes());
        for &a in &vectors {
            write(engine, FIRST, &a.to_le_bytes());
            engine.vcpu.state.rip = Mode::M64.ip(AT);
            let stop = engine.go(1_000_000);
            assert!(
                matches!(stop, Stop::Exception(e) if e.vector == 3),
                "{op:?}: {stop:?}"
            );
            let memory = &engine.vcpu.env.memory;
            memory
                .read_bytes(RESULTS, &mut results)
                .expect("data is readable");
            for (&b, got) in vectors.iter().zip(results.chunks(32)) {
                let mut mxcsr = before;
                let control = Control::enter(mxcsr);
                let want = prepared.run(a, b, &mut mxcsr);
                control.leave(&mut mxcsr);
                let result = u128::from_le_bytes(got[..16].try_into().expect("16 bytes"));
                let after = u32::from_le_bytes(got[16..20].try_into().expect("4 bytes"));
                assert!(
                    (result, after) == (want, mxcsr),
                    "{name}: {op:?} {imm:#x} of {a:#034x}, {b:#034x} with {before:#06x}:\n\
                     host {want:#034x} {mxcsr:#06x}\nours {result:#034x} {after:#06x}"
                );
            }
        }
    }
}

fn every_operation(kind: Kind) {
    let mut engine = Engine::new(kind, Mode::M64);
    let mut operations = 0;
    for &op in SseOp::ALL {
        if code(op).is_none() || matches!(op.form(), SseForm::Flags) {
            continue;
        }
        let imms: &[u8] = match op.form() {
            SseForm::Imm(8) => &[0, 1, 2, 3, 4, 5, 6, 7],
            SseForm::Imm(16) => &[0, 1, 2, 3, 4, 8, 12],
            SseForm::Imm(_) => &[0xf1, 0x73, 0xff],
            _ => &[0],
        };
        for &imm in imms {
            pairs(&mut engine, kind.name(), op, imm);
            operations += 1;
        }
    }
    assert!(operations > 90, "only {operations} operations");
}

#[test]
fn interpreter() {
    every_operation(Kind::Interp);
}

#[test]
fn blocks() {
    every_operation(Kind::Jit);
}

#[test]
fn regions() {
    every_operation(Kind::Regions);
}
