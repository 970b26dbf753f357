//! The form table: every `iced_x86::Code`, what kind of form it is, and random encodings of it.
//!
//! Encodings are made of bytes: the form's opcode behind random prefixes and in front of a random
//! ModRM, SIB, displacement and immediate. What the decoder does not read as the form is thrown
//! away. So every way to encode a form comes up, also those that no assembler would choose.

use super::case::*;
use super::rng::Rng;
use iced_x86::*;

/// What a form is to this test.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Class {
    /// Unprivileged integer instructions: all of them must work.
    Integer,
    /// MMX, SSE and their extensions.
    Sse,
    /// Depends on the operating system or on descriptor tables; tested with the runtime.
    System(&'static str),
    /// The result differs from run to run; tested for its shape.
    Varying,
    /// Not implemented, and CPUID does not advertise it.
    NotYet,
}

/// Instructions that depend on descriptors, privilege or the operating system.
fn system(code: Code) -> Option<&'static str> {
    use Mnemonic::*;
    let info = code.op_code();
    if info.is_privileged() {
        return Some("privileged");
    }
    let name = format!("{code:?}");
    if name.contains("m1616") || name.contains("m1632") || name.contains("m1664") {
        return Some("far transfer");
    }
    let to_segment = matches!(
        info.op0_kind(),
        OpCodeOperandKind::seg_reg
            | OpCodeOperandKind::es
            | OpCodeOperandKind::ss
            | OpCodeOperandKind::ds
            | OpCodeOperandKind::fs
            | OpCodeOperandKind::gs
    );
    if name.starts_with("Reservednop") && name.ends_with("0F0D") {
        return Some("vendors disagree");
    }
    match code.mnemonic() {
        In | Out | Insb | Insw | Insd | Outsb | Outsw | Outsd => Some("port I/O"),
        Cli | Sti => Some("interrupt flag"),
        Int | Int1 | Int3 | Into => Some("software interrupt"),
        Iret | Iretd | Iretq | Retf | Syscall | Sysret | Sysretq | Sysenter | Sysexit
        | Sysexitq => Some("far transfer"),
        Call | Jmp
            if matches!(
                info.op0_kind(),
                OpCodeOperandKind::farbr2_2 | OpCodeOperandKind::farbr4_2
            ) =>
        {
            Some("far transfer")
        }
        Lds | Les | Lss | Lfs | Lgs => Some("segment load"),
        Mov | Pop if to_segment => Some("segment load"),
        Sgdt | Sidt | Sldt | Str | Smsw | Lar | Lsl | Verr | Verw => Some("descriptor tables"),
        _ => None,
    }
}

/// What kind of form it is.
pub fn class(code: Code) -> Class {
    use CpuidFeature::*;
    let features = code.cpuid_features();
    let all = |set: &[CpuidFeature]| features.iter().all(|f| set.contains(f));
    const INTEGER: &[CpuidFeature] = &[
        INTEL8086,
        INTEL186,
        INTEL286,
        INTEL386,
        INTEL486,
        X64,
        CMOV,
        CX8,
        CMPXCHG16B,
        MOVBE,
        POPCNT,
        LZCNT,
        BMI1,
        BMI2,
        ADX,
        MULTIBYTENOP,
        PAUSE,
        PREFETCHW,
    ];
    const VECTOR: &[CpuidFeature] = &[
        MMX, SSE, SSE2, SSE3, SSSE3, SSE4_1, SSE4_2, X64, CLFSH, CLFLUSHOPT, AES, PCLMULQDQ, SHA,
        AVX, AVX2, FMA, F16C,
    ];
    const VARYING: &[CpuidFeature] = &[CPUID, TSC, RDTSCP];
    let integer = all(INTEGER);
    let varying = all(VARYING);
    if (integer || varying)
        && let Some(why) = system(code)
    {
        return Class::System(why);
    }
    const X87: &[CpuidFeature] = &[FPU, FPU287, FPU387, CMOV, SSE3];
    let x87 = features.contains(&FPU) && all(X87) || all(&[FPU287]) || all(&[FPU387]);
    if x87 {
        Class::System("x87: compared by tests/x87.rs")
    } else if all(&[XSAVE]) || all(&[XSAVEOPT]) || all(&[XSAVEC]) {
        match code.mnemonic() {
            Mnemonic::Xsetbv => Class::System("privileged"),
            Mnemonic::Xgetbv => Class::System("XCR0: compared by tests/xsave.rs"),
            _ => Class::System("state image: compared by tests/xsave.rs"),
        }
    } else if all(&[FXSR]) {
        Class::System("compared by tests/fxsave.rs")
    } else if integer {
        Class::Integer
    } else if varying {
        Class::Varying
    } else if all(VECTOR) {
        Class::Sse
    } else {
        Class::NotYet
    }
}

/// Every form that exists in a mode, in iced's order.
pub fn forms(mode: Mode) -> impl Iterator<Item = Code> {
    Code::values().filter(move |c| {
        let info = c.op_code();
        info.is_instruction() && info.is_available_in_mode(mode.bits())
    })
}

/// An encoding of a form.
#[derive(Clone, Debug)]
pub struct Encoding {
    /// The decoded instruction, at the address where cases run it. Without the LOCK prefix if
    /// that is not allowed.
    pub instr: Instruction,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Where in the code pages it is to lie.
    pub at: u64,
    /// True if it has a LOCK prefix that makes it #UD.
    pub bad_lock: bool,
}

/// Decodes at the address `CODE + at`.
pub fn decode(mode: Mode, at: u64, bytes: &[u8]) -> Instruction {
    Decoder::with_ip(mode.bits(), bytes, mode.ip(at), DecoderOptions::NONE).decode()
}

/// A random encoding of a form; `None` if the decoder never reads one as the form (old opcodes
/// that today's CPUs read otherwise, or AMD's reading of 66 before near branches).
pub fn encode(rng: &mut Rng, mode: Mode, code: Code) -> Option<Encoding> {
    (0..3000).find_map(|_| attempt(rng, mode, code))
}

fn attempt(rng: &mut Rng, mode: Mode, code: Code) -> Option<Encoding> {
    let info = code.op_code();
    let mut bytes = Vec::with_capacity(32);
    let near_branch = info.is_near_branch_like(code);
    // Vendors disagree on an operand-size prefix before a near branch in 64-bit code.
    let mut legacy: Vec<u8> = Vec::new();
    if rng.one_in(2) && !(near_branch && mode == Mode::M64) {
        legacy.push(0x66);
    }
    if rng.one_in(5) {
        legacy.push(0x67);
    }
    if rng.one_in(6) {
        let segs: &[u8] = match mode {
            Mode::M64 => &[0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65],
            // A store through CS would fault: segment rights are not in this world.
            _ => &[0x26, 0x36, 0x3e, 0x64, 0x65],
        };
        legacy.push(rng.pick(segs));
    }
    let mandatory = match info.mandatory_prefix() {
        MandatoryPrefix::P66 => Some(0x66),
        MandatoryPrefix::PF3 => Some(0xf3),
        MandatoryPrefix::PF2 => Some(0xf2),
        _ => None,
    };
    let vex = info.encoding() == EncodingKind::VEX;
    if info.encoding() != EncodingKind::Legacy && !vex {
        return None;
    }
    if !vex {
        if let Some(p) = mandatory {
            legacy.push(p);
        } else if info.can_use_rep_prefix() || info.can_use_repne_prefix() {
            match rng.below(4) {
                0 => {}
                1 => legacy.push(0xf2),
                _ => legacy.push(0xf3),
            }
        }
        if info.can_use_lock_prefix() && rng.one_in(2) {
            legacy.push(0xf0);
        }
    }
    for i in (1..legacy.len()).rev() {
        legacy.swap(i, rng.below(i as u64 + 1) as usize);
    }
    bytes.extend_from_slice(&legacy);
    let opcode = info.op_code();
    if vex {
        push_vex(rng, mode, info, mandatory, &mut bytes)?;
    } else {
        if mode == Mode::M64 && rng.below(4) != 0 {
            bytes.push(0x40 | rng.below(16) as u8);
        }
        match info.table() {
            OpCodeTableKind::Normal => {}
            OpCodeTableKind::T0F => bytes.push(0x0f),
            OpCodeTableKind::T0F38 => bytes.extend([0x0f, 0x38]),
            OpCodeTableKind::T0F3A => bytes.extend([0x0f, 0x3a]),
            _ => return None,
        }
    }
    let short_register = (0..info.op_count()).any(|i| {
        matches!(
            info.op_kind(i),
            OpCodeOperandKind::r8_opcode
                | OpCodeOperandKind::r16_opcode
                | OpCodeOperandKind::r32_opcode
                | OpCodeOperandKind::r64_opcode
        )
    });
    let op_bytes = opcode.to_be_bytes();
    bytes.extend_from_slice(&op_bytes[4 - info.op_code_len() as usize..]);
    if short_register {
        *bytes.last_mut()? |= rng.below(8) as u8;
    }
    let mut modrm = rng.u64() as u8;
    if rng.one_in(4) {
        modrm |= 0xc0;
    }
    if info.group_index() >= 0 {
        modrm = modrm & 0xc7 | (info.group_index() as u8) << 3;
    }
    if info.rm_group_index() >= 0 {
        modrm = modrm & 0xf8 | info.rm_group_index() as u8 | 0xc0;
    }
    bytes.push(modrm);
    for _ in 0..12 {
        bytes.push(rng.u64() as u8);
    }
    let at = CODE_AT;
    let instr = decode(mode, at, &bytes);
    if instr.code() != code {
        return None;
    }
    bytes.truncate(instr.len());
    fix_constants(rng, mode, at, &instr, &mut bytes);
    let mut instr = decode(mode, at, &bytes);
    if instr.code() != code || instr.len() != bytes.len() || unsteerable(&instr) {
        return None;
    }
    // Redundant prefixes, which must change nothing.
    let mut bad_lock = false;
    if rng.one_in(16) && bytes.len() < 14 && !instr.has_lock_prefix() {
        bytes.insert(0, 0xf0);
        bad_lock = true;
        let locked = decode(mode, at, &bytes);
        if locked.code() == code {
            (instr, bad_lock) = (locked, false);
        }
    }
    Some(Encoding {
        instr,
        bytes,
        at,
        bad_lock,
    })
}

trait NearBranch {
    fn is_near_branch_like(&self, code: Code) -> bool;
}

impl NearBranch for OpCodeInfo {
    fn is_near_branch_like(&self, code: Code) -> bool {
        !matches!(
            code.flow_control(),
            FlowControl::Next | FlowControl::Exception | FlowControl::Interrupt
        ) || matches!(code.mnemonic(), Mnemonic::Call | Mnemonic::Ret)
    }
}

fn push_vex(
    rng: &mut Rng,
    mode: Mode,
    info: &OpCodeInfo,
    mandatory: Option<u8>,
    bytes: &mut Vec<u8>,
) -> Option<()> {
    // No 66, F2, F3, F0 or REX may stand before VEX.
    bytes.retain(|b| !matches!(b, 0x66 | 0xf0 | 0xf2 | 0xf3));
    let map = match info.table() {
        OpCodeTableKind::T0F => 1,
        OpCodeTableKind::T0F38 => 2,
        OpCodeTableKind::T0F3A => 3,
        _ => return None,
    };
    let pp = match mandatory {
        None => 0,
        Some(0x66) => 1,
        Some(0xf3) => 2,
        Some(_) => 3,
    };
    // R, X and B are inverted; outside 64-bit code R and X must be 1 (or it would be LES).
    let rxb = match mode {
        Mode::M64 => rng.below(8) as u8,
        _ => 7,
    };
    // AMD's CPUs refuse W in these outside 64-bit code, where the SDM has it ignored.
    let vendors_differ = matches!(info.mnemonic(), Mnemonic::Vpextrd | Mnemonic::Vpinsrd);
    let ignored = info.is_wig() || info.is_wig32() && mode != Mode::M64 && !vendors_differ;
    let w = if ignored {
        rng.below(2)
    } else {
        u64::from(info.w())
    } as u8;
    let vvvv = match mode {
        Mode::M64 => rng.below(16) as u8,
        _ => 8 | rng.below(8) as u8,
    };
    let vvvv = if rng.one_in(2) { 15 } else { vvvv };
    let l = if info.is_lig() {
        rng.below(2)
    } else {
        u64::from(info.l() != 0)
    } as u8;
    // The short prefix has R alone, inverted as in the long one, and no W.
    if map == 1 && w == 0 && rxb & 3 == 3 && rng.one_in(2) {
        bytes.extend([0xc5, rxb >> 2 << 7 | vvvv << 3 | l << 2 | pp]);
    } else {
        bytes.extend([0xc4, rxb << 5 | map, w << 7 | vvvv << 3 | l << 2 | pp]);
    }
    Some(())
}

/// Makes absolute and RIP-relative operands, displacements and branch targets fall where cases
/// can look at them, and immediates corner-heavy.
fn fix_constants(rng: &mut Rng, mode: Mode, at: u64, instr: &Instruction, bytes: &mut [u8]) {
    let mut decoder = Decoder::with_ip(mode.bits(), bytes, mode.ip(at), DecoderOptions::NONE);
    let _ = decoder.decode();
    let offsets = decoder.get_constant_offsets(instr);
    let put = |bytes: &mut [u8], at: usize, len: usize, value: u64| {
        bytes[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
    };
    let len = bytes.len();
    if let Some(size) = branch_size(instr) {
        let target = branch_target(rng, mode, at, len as u64, size == 1);
        put(
            bytes,
            len - size,
            size,
            target.wrapping_sub(mode.ip(at + len as u64)),
        );
    } else if offsets.has_immediate() && rng.below(3) != 0 {
        let value = if instr.mnemonic() == Mnemonic::Enter {
            rng.below(64)
        } else {
            rng.corner()
        };
        put(
            bytes,
            offsets.immediate_offset(),
            offsets.immediate_size(),
            value,
        );
    }
    if offsets.has_displacement() {
        let (at, size) = (offsets.displacement_offset(), offsets.displacement_size());
        let (base, index) = (instr.memory_base(), instr.memory_index());
        let absolute =
            base == Register::None && (index == Register::None || index.is_vector_register());
        if absolute || instr.is_ip_rel_memory_operand() {
            let segment = segment_base(mode, instr.memory_segment());
            let mut offset = pick_target(rng, 16).wrapping_sub(segment);
            if instr.is_ip_rel_memory_operand() {
                offset = offset.wrapping_sub(instr.next_ip());
            }
            put(bytes, at, size, offset);
        } else if size > 1 && rng.below(4) != 0 {
            put(bytes, at, size, rng.below(0x400).wrapping_sub(0x200));
        }
    }
}

/// Bytes of a relative branch's displacement.
fn branch_size(instr: &Instruction) -> Option<usize> {
    use OpCodeOperandKind as K;
    match instr.code().op_code().op0_kind() {
        K::br16_1 | K::br32_1 | K::br64_1 => Some(1),
        K::br16_2 | K::xbegin_2 | K::brdisp_2 => Some(2),
        K::br32_4 | K::br64_4 | K::xbegin_4 | K::brdisp_4 => Some(4),
        _ => None,
    }
}

/// A place to branch to at which nothing can run: INT3 in the code pages but not in the
/// instruction itself, or an address where nothing is mapped.
pub fn branch_target(rng: &mut Rng, mode: Mode, at: u64, len: u64, short: bool) -> u64 {
    let near = if rng.one_in(2) {
        mode.ip(at + len + rng.below(120))
    } else {
        mode.ip(at - 1 - rng.below(100))
    };
    if short || rng.one_in(3) {
        return near;
    }
    match mode {
        // Not beyond 64 KiB, where a real CS ends.
        Mode::M16 => rng.pick(&[0x2000, 0x7fff, 0x8000, 0xfffe]),
        Mode::M32 | Mode::M64 => rng.pick(&[
            CODE - 0x1000,
            CODE + CODE_LEN as u64,
            CODE + 0x1234_5678,
            0x1_0000,
            0x7fff_f000,
        ]),
    }
}

/// The base of a segment register.
pub fn segment_base(mode: Mode, segment: Register) -> u64 {
    let bases = mode.seg_bases();
    match segment {
        Register::ES => bases[0],
        Register::CS => bases[1],
        Register::SS => bases[2],
        Register::DS => bases[3],
        Register::FS => bases[4],
        Register::GS => bases[5],
        _ => 0,
    }
}

/// A linear address to point an operand of `size` bytes at: anywhere in the data pages, often
/// across a page boundary, now and then where it faults.
pub fn pick_target(rng: &mut Rng, size: u64) -> u64 {
    let (rw_end, end) = (DATA + DATA_RW as u64, DATA + DATA_LEN as u64);
    let across = rng.below(size + 8).wrapping_sub(size);
    match rng.below(40) {
        0 => rw_end.wrapping_add(across),
        1 => end.wrapping_add(across),
        2 => DATA.wrapping_add(across),
        3..6 => (DATA + 0x1000 * (1 + rng.below(3))).wrapping_add(across),
        6..16 => DATA + 0x1000 + (rng.below(0x2000) & !15),
        _ => DATA + 0x1000 + rng.below(0x2000),
    }
}

/// Encodings whose operands cannot be kept inside the data pages.
fn unsteerable(instr: &Instruction) -> bool {
    let bit_string = matches!(
        instr.mnemonic(),
        Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc
    ) && instr.op0_kind() == OpKind::Memory
        && instr.op1_kind() == OpKind::Register;
    // A target in the stack pointer is a stack in the code.
    let stack_target = instr.flow_control() == FlowControl::IndirectCall
        && instr.op0_kind() == OpKind::Register
        && instr.op0_register().full_register() == Register::RSP;
    // The bit index is a register that also makes the address.
    stack_target
        || bit_string && {
            let bit = instr.op1_register().full_register();
            bit == instr.memory_base().full_register()
                || bit == instr.memory_index().full_register()
        }
}
