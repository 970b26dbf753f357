//! Modes of a full system, and lifting in them.
#![allow(dead_code)]

use metaphrase_frontend::{
    Features, Level, Limits, Mode, Policy, SensitivePolicy, SystemMode, lift_region,
};
use metaphrase_ir::{CodeSize, Helper, Inst, Op, Region, verify};

/// Flat segments, everything turned on, at that level.
pub const fn system(level: Level) -> SystemMode {
    SystemMode {
        level,
        unchecked: 0x3f,
        short: 0,
        based_at_zero: 0xf,
        em: false,
        ts: false,
        mp: false,
        osfxsr: true,
        avx: true,
        osxsave: true,
        fsgsbase: true,
        align: false,
    }
}

/// A mode with that code size at that level.
pub const fn mode(code: CodeSize, level: Level) -> Mode {
    let real = matches!(level, Level::Real | Level::V86);
    let mut system = system(level);
    if real {
        (system.unchecked, system.short, system.based_at_zero) = (0, 0x3f, 0);
    }
    Mode {
        code,
        big_stack: !matches!(code, CodeSize::Code16),
        flat: !real,
        features: Features::MAX,
        unmasked: false,
        system: Some(system),
    }
}

/// Real-address mode.
pub const REAL: Mode = mode(CodeSize::Code16, Level::Real);
/// Virtual-8086 mode.
pub const V86: Mode = mode(CodeSize::Code16, Level::V86);
/// 32-bit code at level 0.
pub const KERNEL32: Mode = mode(CodeSize::Code32, Level::Protected(0));
/// 32-bit code at level 3.
pub const USER32: Mode = mode(CodeSize::Code32, Level::Protected(3));
/// 64-bit code at level 0.
pub const KERNEL64: Mode = mode(CodeSize::Code64, Level::Long(0));
/// 64-bit code at level 3.
pub const USER64: Mode = mode(CodeSize::Code64, Level::Long(3));
/// Compatibility mode at level 3.
pub const COMPAT: Mode = mode(CodeSize::Code32, Level::Long(3));

/// Another system half of a mode.
pub fn with(mode: Mode, change: impl Fn(&mut SystemMode)) -> Mode {
    let mut system = mode.system.expect("a system mode");
    change(&mut system);
    Mode {
        system: Some(system),
        ..mode
    }
}

/// Lifts the single instruction at the start of `bytes`, and verifies.
pub fn lift(bytes: &[u8], mode: Mode, policy: Policy) -> Region {
    let policy = SensitivePolicy {
        default: policy,
        ..SensitivePolicy::default()
    };
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len() + 16, 0);
    let code: &[u8] = &padded;
    let lifted = lift_region(0, mode, &code, Limits::SINGLE, &policy).expect("bytes are there");
    if let Err(errors) = verify::verify(&lifted.region) {
        panic!("{bytes:02x?} in {mode:?}: {errors}\n{}", errors.region);
    }
    lifted.region
}

/// The instructions of a region.
pub fn insts(region: &Region) -> impl Iterator<Item = &Inst> {
    let insts = region.blocks.iter().flat_map(|b| &b.insts);
    insts.map(|&v| region.inst(v))
}

/// The descriptors of the calls of `helper`.
pub fn calls(region: &Region, helper: Helper) -> Vec<u32> {
    insts(region)
        .filter(|i| i.op == Op::Call && Helper::from_imm(i.imm) == helper)
        .map(|i| i.aux)
        .collect()
}

/// The vector that the region raises whatever the state is.
pub fn raised(region: &Region) -> Option<u8> {
    let last = region.inst(region.terminator(Region::ENTRY));
    (last.op == Op::Raise).then_some(last.imm as u8)
}

/// Another system half of a mode: what checks it asks for.
const fn checking(mode: Mode, align: bool) -> Mode {
    let Some(mut system) = mode.system else {
        return mode;
    };
    (system.unchecked, system.based_at_zero, system.align) = (0, 0, align);
    Mode {
        flat: false,
        system: Some(system),
        ..mode
    }
}

/// 32-bit user code whose every access is checked.
pub const CHECKED32: Mode = checking(USER32, true);
/// 16-bit protected code likewise.
pub const CHECKED16: Mode = checking(mode(CodeSize::Code16, Level::Protected(0)), false);
/// 64-bit user code with alignment checks.
pub const ALIGNED64: Mode = checking(USER64, true);
