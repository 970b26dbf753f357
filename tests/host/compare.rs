//! Which parts of two outcomes must agree, and how a difference is shown.

use super::case::*;
use super::states::{read_gpr, size_mask};
use iced_x86::{Formatter, Instruction, Mnemonic, NasmFormatter, OpKind, Register, RflagsBits};

const CF: u64 = 1;
const AF: u64 = 0x10;
const OF: u64 = 0x800;

/// The names of the general registers.
pub const GPR: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];

/// The flags that the manual leaves undefined for this instruction with these operands. iced
/// knows them by form; shifts and rotates depend on the count.
pub fn undefined_flags(instr: &Instruction, gpr: &[u64; 16]) -> u64 {
    use Mnemonic::*;
    let bits = instr.rflags_undefined();
    let by_form = [
        (RflagsBits::OF, OF),
        (RflagsBits::SF, 0x80),
        (RflagsBits::ZF, 0x40),
        (RflagsBits::AF, AF),
        (RflagsBits::CF, CF),
        (RflagsBits::PF, 4),
    ]
    .into_iter()
    .filter(|(bit, _)| bits & bit != 0)
    .fold(0, |all, (_, flag)| all | flag);
    let size = match instr.op0_kind() {
        OpKind::Register => instr.op0_register().size(),
        _ => instr.memory_size().size(),
    } as u64
        * 8;
    let last = instr.op_count().saturating_sub(1);
    let count = match instr.try_op_kind(last) {
        Ok(OpKind::Register) if instr.op_register(last) == Register::CL => gpr[1] & 0xff,
        Ok(OpKind::Immediate8) => u64::from(instr.immediate8()),
        _ => 1,
    } & if size == 64 { 63 } else { 31 };
    match instr.mnemonic() {
        Shl | Shr | Sar | Sal | Rol | Ror | Rcl | Rcr | Shld | Shrd if count == 0 => 0,
        Rol | Ror | Rcl | Rcr => {
            if count == 1 {
                0
            } else {
                OF
            }
        }
        // A count beyond the operand leaves everything undefined (SDM volume 2, SHLD).
        Shld | Shrd if count > size => ARITH,
        Shl | Sal | Shr | Sar | Shld | Shrd => {
            let of = if count == 1 { 0 } else { OF };
            let cf = if count >= size && matches!(instr.mnemonic(), Shl | Sal | Shr) {
                CF
            } else {
                0
            };
            AF | of | cf
        }
        _ => by_form,
    }
}

/// Whether the instruction reads and writes its memory operand in two steps.
fn modifies_memory(instr: &Instruction) -> bool {
    use iced_x86::OpAccess;
    iced_x86::InstructionInfoFactory::new()
        .info(instr)
        .used_memory()
        .iter()
        .any(|m| matches!(m.access(), OpAccess::ReadWrite | OpAccess::ReadCondWrite))
}

/// Whether the destination itself is undefined: SHLD and SHRD of 16 bits by more than 16.
fn undefined_result(instr: &Instruction, gpr: &[u64; 16]) -> bool {
    matches!(instr.mnemonic(), Mnemonic::Shld | Mnemonic::Shrd)
        && undefined_flags(instr, gpr) == ARITH
}

/// What differs between the expected outcome and ours; empty if nothing does.
pub fn differences(
    case: &Case,
    instr: &Instruction,
    host: &Outcome,
    ours: &Outcome,
) -> Vec<String> {
    let mut out = Vec::new();
    let mut differ = |what: &str, a: u64, b: u64| {
        if a != b {
            out.push(format!("{what}: {a:#x}, ours {b:#x}"));
        }
    };
    // MXCSR bit 17 exists on some AMD processors only (misaligned exceptions off): not on ours.
    if host.trap == COMPLETED && host.mxcsr & 1 << 17 != 0 && case.mxcsr & 1 << 17 == 0 {
        differ("vector for a reserved bit of MXCSR", 13, ours.trap.into());
        return out;
    }
    if host.trap != ours.trap {
        out.push(format!(
            "outcome: {} at {:#x}, ours {} at {:#x}",
            trap_name(host.trap),
            host.rip,
            trap_name(ours.trap),
            ours.rip
        ));
        return out;
    }
    differ("rip", host.rip, ours.rip);
    if host.trap == 14 && modifies_memory(instr) {
        // The host asks for the right to write before it reads; we read first, so the fault is
        // that of the read, or lies on the operand's other page.
        differ(
            "faulting page, give or take one",
            1,
            u64::from((host.address >> 12).abs_diff(ours.address >> 12) <= 1),
        );
    } else if host.trap == 14 {
        differ("fault address", host.address, ours.address);
        differ(
            "error code (present, write)",
            host.error & 3,
            ours.error & 3,
        );
    } else if matches!(host.trap, 10..=13 | 17) {
        differ("error code", host.error, ours.error);
    }
    let loose = undefined_result(instr, &case.gpr);
    for (n, name) in GPR.iter().enumerate() {
        let mask = case.mode.gpr_mask();
        let written = instr.op0_kind() == OpKind::Register
            && loose
            && super::states::gpr_index(instr.op0_register()) == Some(n);
        // How many registers a POPA that faults has loaded differs by vendor; we load none.
        let partial = host.trap == 14
            && n != 4
            && matches!(instr.mnemonic(), Mnemonic::Popa | Mnemonic::Popad);
        if !written && !partial {
            differ(name, host.gpr[n] & mask, ours.gpr[n] & mask);
        }
    }
    let mut mask = FLAGS;
    if host.trap == COMPLETED {
        mask &= !undefined_flags(instr, &case.gpr);
    } else if instr.is_string_instruction() && (instr.has_rep_prefix() || instr.has_repne_prefix())
    {
        // A repeated comparison that faults puts the flags back (SDM volume 2, REP); AMD leaves
        // those of the last comparison. We do as the manual says.
        mask &= !ARITH;
    }
    differ("flags", host.rflags & mask, ours.rflags & mask);
    differ("mxcsr", host.mxcsr.into(), ours.mxcsr.into());
    differ(
        "x87 control",
        host.fpu.control.into(),
        ours.fpu.control.into(),
    );
    differ("x87 status", host.fpu.status.into(), ours.fpu.status.into());
    differ("x87 tags", host.fpu.tags.into(), ours.fpu.tags.into());
    for n in 0..8 {
        let name = format!("mm{n}");
        differ(&name, host.fpu.mm[n], ours.fpu.mm[n]);
        let (host, ours) = (host.fpu.exponent[n], ours.fpu.exponent[n]);
        differ(&format!("exponent of {name}"), host.into(), ours.into());
    }
    for n in 0..16 {
        if host.xmm[n] != ours.xmm[n] {
            out.push(format!(
                "xmm{n}: {:#x}, ours {:#x}",
                host.xmm[n], ours.xmm[n]
            ));
        }
    }
    for n in 0..16 {
        if host.ymm_hi[n] != ours.ymm_hi[n] {
            out.push(format!(
                "ymm{n}, upper half: {:#x}, ours {:#x}",
                host.ymm_hi[n], ours.ymm_hi[n]
            ));
        }
    }
    if !loose && (host.changed != ours.changed || host.writes() != ours.writes()) {
        out.push(format!(
            "memory: {}; ours: {}",
            writes_text(host),
            writes_text(ours)
        ));
    }
    out
}

fn writes_text(o: &Outcome) -> String {
    let mut text = format!("{} words changed", o.changed);
    for w in o.writes().iter().take(6) {
        text += &format!(", [{:#x}]={:#x}", DATA + w.offset, w.value);
    }
    text
}

/// The letters of the flags that are set.
pub fn flags_text(flags: u64) -> String {
    [
        (1, 'c'),
        (4, 'p'),
        (0x10, 'a'),
        (0x40, 'z'),
        (0x80, 's'),
        (0x800, 'o'),
        (0x400, 'd'),
    ]
    .into_iter()
    .map(|(bit, c)| if flags & bit != 0 { c } else { '-' })
    .collect()
}

/// The disassembly.
pub fn text(instr: &Instruction) -> String {
    let mut out = String::new();
    NasmFormatter::new().format(instr, &mut out);
    out
}

/// A case with everything needed to repeat it.
pub fn case_text(case: &Case, instr: &Instruction, host: &Outcome, ours: &Outcome) -> String {
    let bytes: Vec<String> = case.bytes().iter().map(|b| format!("{b:02x}")).collect();
    let mut out = format!(
        "    {}   ; {}-bit, {} at {:#x}\n",
        text(instr),
        case.mode.bits(),
        bytes.join(" "),
        case.ip()
    );
    let mask = case.mode.gpr_mask();
    let registers = if case.mode == Mode::M64 { 16 } else { 8 };
    for (n, name) in GPR.iter().enumerate().take(registers) {
        let (b, h, o) = (case.gpr[n] & mask, host.gpr[n] & mask, ours.gpr[n] & mask);
        // A register is worth a line if the instruction reads or changes it.
        if b != h || b != o || used(instr, n) {
            let mark = if h == o { ' ' } else { '!' };
            out += &format!(
                "   {mark}{:>5} {b:016x} -> host {h:016x}, ours {o:016x}\n",
                name
            );
        }
    }
    out += &format!(
        "    flags {} -> host {}, ours {} (undefined: {})\n",
        flags_text(case.rflags),
        flags_text(host.rflags),
        flags_text(ours.rflags),
        flags_text(undefined_flags(instr, &case.gpr)),
    );
    for p in case.pokes.iter().filter(|p| p.len != 0) {
        out += &format!(
            "    poked [{:#x}] = {:#x} ({})\n",
            DATA + u64::from(p.offset),
            p.value,
            p.len
        );
    }
    out
}

fn used(instr: &Instruction, n: usize) -> bool {
    let mut factory = iced_x86::InstructionInfoFactory::new();
    factory
        .info(instr)
        .used_registers()
        .iter()
        .any(|r| super::states::gpr_index(r.register()) == Some(n))
}

/// Whether a shape that differs from run to run is right: CPUID, RDTSC and RDTSCP.
pub fn shape_is_right(case: &Case, instr: &Instruction, ours: &Outcome) -> bool {
    let written: &[usize] = match instr.mnemonic() {
        Mnemonic::Cpuid => &[0, 3, 1, 2],
        Mnemonic::Rdtscp => &[0, 2, 1],
        _ => &[0, 2],
    };
    let mask = case.mode.gpr_mask();
    ours.trap == COMPLETED
        && ours.changed == 0
        && ours.rip == case.ip() + case.len
        && ours.rflags & FLAGS == case.rflags & FLAGS
        && (0..16).all(|n| {
            if written.contains(&n) {
                ours.gpr[n] <= size_mask(4)
            } else {
                ours.gpr[n] & mask == case.gpr[n] & mask
            }
        })
}

/// Reads a register of an outcome by its name's register.
pub fn register(outcome: &Outcome, reg: Register) -> u64 {
    read_gpr(&outcome.gpr, reg)
}
