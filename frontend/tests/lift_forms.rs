//! Every instruction form that iced knows lifts, without a panic, to a region that the verifier
//! accepts, in each code size and under each policy; the families of this crate are not #UD.

mod common;

use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Mnemonic};
use metaphrase_frontend::{Feature, Features, Limits, Mode, Policy, SensitivePolicy, lift_region};
use metaphrase_ir::{Effect, Effects, Helper, Inst, Op, Region, verify};

/// A SplitMix64 generator.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

const MODES: [Mode; 6] = [
    Mode::LONG,
    Mode::FLAT32,
    Mode::FLAT16,
    Mode {
        flat: false,
        ..Mode::FLAT32
    },
    Mode {
        flat: false,
        ..Mode::FLAT16
    },
    Mode {
        big_stack: true,
        ..Mode::FLAT16
    },
];

/// A whole system's modes, where everything that can be checked is, and where nothing need be.
const SYSTEM_MODES: [Mode; 10] = [
    common::REAL,
    common::V86,
    common::KERNEL32,
    common::USER32,
    common::KERNEL64,
    common::USER64,
    common::COMPAT,
    common::CHECKED32,
    common::CHECKED16,
    common::ALIGNED64,
];

const POLICIES: [Policy; 3] = [Policy::Trap, Policy::Callout, Policy::Inline];

/// Lifts the single instruction at the start of `bytes`, and verifies.
fn lift(bytes: &[u8], mode: Mode, policy: Policy) -> Region {
    let policy = SensitivePolicy {
        default: policy,
        ..SensitivePolicy::default()
    };
    let lifted = lift_region(0, mode, &bytes, Limits::SINGLE, &policy).expect("bytes are there");
    if let Err(errors) = verify::verify(&lifted.region) {
        panic!("{bytes:02x?} in {mode:?}: {errors}\n{}", errors.region);
    }
    lifted.region
}

/// True if the region raises #UD whatever the state is.
fn is_ud(region: &Region) -> bool {
    let last = region.inst(region.terminator(Region::ENTRY));
    last.op == Op::Raise && last.imm == 6
}

/// True if the call may raise an exception.
fn may_exit(inst: &Inst) -> bool {
    Helper::from_imm(inst.imm).effects().has(Effects::MAY_EXIT)
}

/// True if no path through the region writes a register or the flags before an op that can fault.
fn is_precise(region: &Region) -> bool {
    let mut written = vec![false; region.blocks.len()];
    let mut todo = vec![(Region::ENTRY, false)];
    let mut seen = vec![[false; 2]; region.blocks.len()];
    while let Some((block, dirty)) = todo.pop() {
        let n = block.0 as usize;
        if std::mem::replace(&mut seen[n][usize::from(dirty)], true) {
            continue;
        }
        written[n] |= dirty;
        for &v in &region.blocks[n].insts {
            match region.inst(v).op.info().effect {
                Effect::WriteState => written[n] = true,
                Effect::Load | Effect::Store | Effect::MayExit if written[n] => return false,
                Effect::Helper if written[n] && may_exit(region.inst(v)) => return false,
                _ => {}
            }
        }
        for (next, _) in region.successors(region.terminator(block)) {
            todo.push((next, written[n]));
        }
    }
    true
}

fn decode(bytes: &[u8], mode: Mode) -> Instruction {
    Decoder::with_ip(mode.code.bits(), bytes, 0, DecoderOptions::NONE).decode()
}

/// Random encodings of a form: prefixes and operands vary, the opcode is iced's.
fn encodings(code: Code, mode: Mode, rng: &mut Rng) -> Vec<Vec<u8>> {
    use iced_x86::{MandatoryPrefix, OpCodeTableKind};
    let info = code.op_code();
    let mut found = Vec::new();
    if info.encoding() == iced_x86::EncodingKind::VEX {
        return vex_encodings(code, mode, rng);
    }
    for _ in 0..400 {
        let mut bytes = Vec::new();
        for prefix in [0x66u8, 0x67, 0xf0, 0xf2, 0xf3, 0x64, 0x2e] {
            if rng.next().is_multiple_of(4) {
                bytes.push(prefix);
            }
        }
        match info.mandatory_prefix() {
            MandatoryPrefix::P66 => bytes.push(0x66),
            MandatoryPrefix::PF3 => bytes.push(0xf3),
            MandatoryPrefix::PF2 => bytes.push(0xf2),
            _ => {}
        }
        if mode.is_64() && rng.next().is_multiple_of(2) {
            bytes.push(0x40 | (rng.next() as u8 & 15));
        }
        match info.table() {
            OpCodeTableKind::T0F => bytes.push(0x0f),
            OpCodeTableKind::T0F38 => bytes.extend([0x0f, 0x38]),
            OpCodeTableKind::T0F3A => bytes.extend([0x0f, 0x3a]),
            _ => {}
        }
        let opcode = info.op_code().to_be_bytes();
        bytes.extend_from_slice(&opcode[4 - info.op_code_len() as usize..]);
        if rng.next().is_multiple_of(4) {
            // Registers in the opcode's low bits.
            *bytes.last_mut().expect("an opcode") |= rng.next() as u8 & 7;
        }
        let mut modrm = rng.next() as u8;
        if info.group_index() >= 0 {
            modrm = modrm & 0xc7 | (info.group_index() as u8) << 3;
        }
        bytes.push(modrm);
        bytes.extend_from_slice(&rng.next().to_le_bytes());
        bytes.extend_from_slice(&rng.next().to_le_bytes());
        if decode(&bytes, mode).code() == code {
            found.push(bytes);
            if found.len() == 8 {
                break;
            }
        }
    }
    found
}

/// The same for forms with a three-byte VEX prefix.
fn vex_encodings(code: Code, mode: Mode, rng: &mut Rng) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for _ in 0..4000 {
        let mut bytes = vec![0xc4, rng.next() as u8 & 0xe0, rng.next() as u8 & 0xfb];
        bytes[1] |= match code.op_code().table() {
            iced_x86::OpCodeTableKind::T0F => 1,
            iced_x86::OpCodeTableKind::T0F38 => 2,
            _ => 3,
        };
        bytes.push(code.op_code().op_code() as u8);
        bytes.extend_from_slice(&rng.next().to_le_bytes());
        if decode(&bytes, mode).code() == code {
            found.push(bytes);
            if found.len() == 8 {
                break;
            }
        }
    }
    found
}

#[test]
fn every_form_lifts_and_verifies() {
    let mut rng = Rng(1);
    let mut lifted = 0;
    for code in Code::values() {
        let info = code.op_code();
        if !info.is_instruction() || info.encoding() != iced_x86::EncodingKind::Legacy {
            continue;
        }
        for mode in MODES.into_iter().chain(SYSTEM_MODES) {
            for bytes in encodings(code, mode, &mut rng) {
                for policy in POLICIES {
                    lift(&bytes, mode, policy);
                    lifted += 1;
                }
            }
        }
    }
    // Guards the generator itself: it must reach most of the table.
    assert!(lifted > 50_000, "{lifted}");
}

#[test]
fn random_bytes_lift_and_verify() {
    let mut rng = Rng(2);
    let modes: Vec<Mode> = MODES.into_iter().chain(SYSTEM_MODES).collect();
    for n in 0..300_000 {
        let mut bytes = [0u8; 16];
        bytes[..8].copy_from_slice(&rng.next().to_le_bytes());
        bytes[8..].copy_from_slice(&rng.next().to_le_bytes());
        lift(&bytes, modes[n % modes.len()], POLICIES[n % 3]);
    }
}

#[test]
fn string_stack_decimal_and_system_instructions_are_known() {
    use Mnemonic::*;
    let known = [
        Push, Pop, Pusha, Pushad, Popa, Popad, Enter, Leave, Pushf, Pushfd, Pushfq, Popf, Popfd,
        Popfq, Movsb, Movsw, Movsq, Stosb, Stosw, Stosd, Stosq, Lodsb, Lodsw, Lodsd, Lodsq, Cmpsb,
        Cmpsw, Cmpsq, Scasb, Scasw, Scasd, Scasq, Insb, Insw, Insd, Outsb, Outsw, Outsd, Aaa, Aas,
        Aam, Aad, Daa, Das, Xadd, Cmpxchg, Cmpxchg8b, Cmpxchg16b, Lahf, Sahf, Clc, Stc, Cmc, Cld,
        Std, Xlatb, Bound, Into, Int, Int1, Int3, Cpuid, Rdtsc, Rdtscp, Rdpid, Mfence, Lfence,
        Sfence, Clflush, Clflushopt, Movnti, Rdfsbase, Rdgsbase, Wrfsbase, Wrgsbase, Lds, Les, Lfs,
        Lgs, Lss, Sgdt, Sidt, Sldt, Str, Smsw, Lar, Lsl, Verr, Verw, Arpl, In, Out, Cli, Sti, Hlt,
        Lgdt, Lidt, Wrmsr, Rdmsr,
    ];
    let mut rng = Rng(3);
    for code in Code::values().filter(|c| known.contains(&c.mnemonic())) {
        for mode in MODES {
            for bytes in encodings(code, mode, &mut rng) {
                let region = lift(&bytes, mode, Policy::Callout);
                assert!(!is_ud(&region), "{code:?} {bytes:02x?} in {mode:?}");
            }
        }
    }
}

#[test]
fn integer_instructions_are_known() {
    use Mnemonic::*;
    let known = [
        Add,
        Adc,
        Sub,
        Sbb,
        Cmp,
        And,
        Or,
        Xor,
        Test,
        Lea,
        Movzx,
        Movsx,
        Movsxd,
        Xchg,
        Cbw,
        Cwde,
        Cdqe,
        Cwd,
        Cdq,
        Cqo,
        Cmovo,
        Cmovno,
        Cmovb,
        Cmovae,
        Cmove,
        Cmovne,
        Cmovbe,
        Cmova,
        Cmovs,
        Cmovns,
        Cmovp,
        Cmovnp,
        Cmovl,
        Cmovge,
        Cmovle,
        Cmovg,
        Seto,
        Setno,
        Setb,
        Setae,
        Sete,
        Setne,
        Setbe,
        Seta,
        Sets,
        Setns,
        Setp,
        Setnp,
        Setl,
        Setge,
        Setle,
        Setg,
        Nop,
        Reservednop,
        Endbr32,
        Endbr64,
        Pause,
        Prefetchnta,
        Prefetcht0,
        Prefetcht1,
        Prefetcht2,
        Prefetchw,
        Inc,
        Dec,
        Neg,
        Not,
        Shl,
        Sal,
        Shr,
        Sar,
        Rol,
        Ror,
        Rcl,
        Rcr,
        Shld,
        Shrd,
        Mul,
        Imul,
        Div,
        Idiv,
        Ret,
        Jo,
        Jno,
        Jb,
        Jae,
        Je,
        Jne,
        Jbe,
        Ja,
        Js,
        Jns,
        Jp,
        Jnp,
        Jl,
        Jge,
        Jle,
        Jg,
        Jcxz,
        Jecxz,
        Jrcxz,
        Loop,
        Loope,
        Loopne,
        Bt,
        Bts,
        Btr,
        Btc,
        Bsf,
        Bsr,
        Lzcnt,
        Tzcnt,
        Popcnt,
        Bswap,
        Movbe,
        Crc32,
        Andn,
        Blsi,
        Blsmsk,
        Blsr,
        Bzhi,
        Mulx,
        Pdep,
        Pext,
        Rorx,
        Sarx,
        Shlx,
        Shrx,
        Adcx,
        Adox,
    ];
    let some = [
        Code::Mov_rm8_r8,
        Code::Mov_r64_rm64,
        Code::Mov_EAX_moffs32,
        Code::Mov_RAX_moffs64,
        Code::Mov_moffs16_AX,
        Code::Mov_r64_imm64,
        Code::Mov_rm32_imm32,
        Code::Jmp_rel8_64,
        Code::Jmp_rel32_32,
        Code::Jmp_rel16,
        Code::Jmp_rm16,
        Code::Jmp_rm64,
        Code::Call_rel16,
        Code::Call_rel32_64,
        Code::Call_rm32,
        Code::VEX_Bextr_r32_rm32_r32,
        Code::VEX_Bextr_r64_rm64_r64,
    ];
    let mut rng = Rng(4);
    for code in Code::values() {
        let kind = code.op_code().encoding();
        let usual = matches!(
            kind,
            iced_x86::EncodingKind::Legacy | iced_x86::EncodingKind::VEX
        );
        // Shared mnemonics: VEX forms of AVX-512 masks do not occur in this list.
        if !usual || !(known.contains(&code.mnemonic()) || some.contains(&code)) {
            continue;
        }
        let mut reached = !code.op_code().is_instruction() || is_odd(code);
        for mode in MODES.into_iter().chain(SYSTEM_MODES) {
            for bytes in encodings(code, mode, &mut rng) {
                // VEX prefixes are something else there.
                let real = mode.system.is_some_and(|s| !s.level.is_protected());
                if real && kind == iced_x86::EncodingKind::VEX {
                    continue;
                }
                reached = true;
                let all = mode.with_features(Features(u64::MAX));
                let region = lift(&bytes, all, Policy::Callout);
                assert!(!is_ud(&region), "{code:?} {bytes:02x?} in {mode:?}");
                assert!(is_precise(&region), "{code:?} {bytes:02x?} in {mode:?}");
            }
        }
        assert!(reached, "no encoding of {code:?} was found");
    }
}

/// Forms that the default decoder never gives: 16-bit near branches of AMD's 64-bit code, and
/// reserved NOPs that have got a meaning since.
fn is_odd(code: Code) -> bool {
    let info = code.op_code();
    info.intel_decoder64() != info.amd_decoder64()
        || info.decoder_option() != iced_x86::DecoderOptions::NONE
        || code.mnemonic() == Mnemonic::Reservednop
}

#[test]
fn the_policies_differ_in_mechanism() {
    // POPFQ.
    let ops = |policy| -> Vec<Op> {
        let region = lift(&[0x9d], Mode::LONG, policy);
        region
            .blocks
            .iter()
            .flat_map(|b| b.insts.iter().map(|&v| region.inst(v).op))
            .collect()
    };
    assert!(ops(Policy::Trap).contains(&Op::Emulate));
    assert!(!ops(Policy::Trap).contains(&Op::Load));
    assert!(ops(Policy::Inline).contains(&Op::SetFlags));
    assert!(!ops(Policy::Callout).contains(&Op::SetFlags));
}

/// Each feature's instructions are known with it, and raise #UD without it.
#[test]
fn a_feature_that_is_off_is_undefined() {
    let mut rng = Rng(7);
    let mut seen = Features::NONE;
    for code in Code::values() {
        let needs: Vec<Feature> = code
            .cpuid_features()
            .iter()
            .filter_map(|&mark| Feature::of(mark))
            .filter(|&f| Features::MAX.offers(f) && f != Feature::Lm)
            .collect();
        // NOPs, and BSR and BSF, on CPUs without the feature.
        let older = matches!(
            code.mnemonic(),
            Mnemonic::Lzcnt
                | Mnemonic::Tzcnt
                | Mnemonic::Prefetchnta
                | Mnemonic::Prefetcht0
                | Mnemonic::Prefetcht1
                | Mnemonic::Prefetcht2
        );
        for feature in needs {
            let set = Features(1 << feature as u32);
            for whole in [Mode::LONG, Mode::FLAT32] {
                let without = whole.with_features(Features::MAX.without(set));
                for bytes in encodings(code, whole, &mut rng) {
                    let region = lift(&bytes, without, Policy::Callout);
                    assert_eq!(is_ud(&region), !older, "{code:?} {bytes:02x?} {feature:?}");
                    if !is_ud(&lift(&bytes, whole, Policy::Callout)) {
                        seen = seen.and(set);
                    }
                }
            }
        }
    }
    // Without instructions of their own, or with some that the table of forms does not mark.
    let unmarked = Features::LAHF_LM
        .and(Features::NX)
        .and(Features::LM)
        .and(Features::XGETBV1);
    assert_eq!(seen.and(unmarked), Features::MAX);
    let without = Mode::LONG.with_features(Features::MAX.without(Features::LAHF_LM));
    assert!(is_ud(&lift(&[0x9f], without, Policy::Callout)));
    assert!(!is_ud(&lift(
        &[0x9f],
        without.with_features(Features::MAX),
        Policy::Callout
    )));
}
