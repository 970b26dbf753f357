//! Random states for an encoding: registers and flags full of corner values, with every memory
//! operand, implicit ones too, steered into the data pages.

use super::case::*;
use super::forms::*;
use super::rng::Rng;
use iced_x86::*;

/// Number of the general register that `reg` is or is part of.
pub fn gpr_index(reg: Register) -> Option<usize> {
    let full = reg.full_register();
    full.is_gpr64().then(|| full.number())
}

fn is_high_byte(reg: Register) -> bool {
    matches!(
        reg,
        Register::AH | Register::BH | Register::CH | Register::DH
    )
}

/// The value of a general register or a part of it.
pub fn read_gpr(gpr: &[u64; 16], reg: Register) -> u64 {
    let Some(n) = gpr_index(reg) else { return 0 };
    let value = if is_high_byte(reg) {
        gpr[n] >> 8
    } else {
        gpr[n]
    };
    value & size_mask(reg.size())
}

/// Writes a general register or a part of it, and nothing else of it.
pub fn write_gpr(gpr: &mut [u64; 16], reg: Register, value: u64) {
    let Some(n) = gpr_index(reg) else { return };
    let (mask, shift) = (size_mask(reg.size()), if is_high_byte(reg) { 8 } else { 0 });
    gpr[n] = gpr[n] & !(mask << shift) | (value & mask) << shift;
}

/// The bits of a value of some bytes.
pub fn size_mask(bytes: usize) -> u64 {
    u64::MAX >> (64 - 8 * bytes.clamp(1, 8))
}

/// The linear address of a memory operand.
pub fn linear(mode: Mode, gpr: &[u64; 16], m: &UsedMemory) -> u64 {
    let part = |reg: Register| read_gpr(gpr, reg);
    let base = match m.base() {
        Register::RIP | Register::EIP => 0,
        r => part(r),
    };
    let offset = base
        .wrapping_add(part(m.index()).wrapping_mul(u64::from(m.scale())))
        .wrapping_add(m.displacement());
    let offset = offset & size_mask(address_bytes(mode, m));
    offset.wrapping_add(segment_base(mode, m.segment())) & mode.gpr_mask()
}

fn address_bytes(mode: Mode, m: &UsedMemory) -> usize {
    match m.address_size() {
        CodeSize::Code16 => 2,
        CodeSize::Code32 => 4,
        CodeSize::Code64 => 8,
        CodeSize::Unknown => mode.bits() as usize / 8,
    }
}

/// Whether the instruction is one of MMX or may switch to it.
fn is_mmx(instr: &Instruction) -> bool {
    instr.mnemonic() == Mnemonic::Emms
        || (0..instr.code().op_code().op_count()).any(|n| {
            use OpCodeOperandKind::*;
            matches!(
                instr.code().op_code().op_kind(n),
                mm_reg | mm_rm | mm_or_mem
            )
        })
}

/// A random x87 state; now and then with a pending exception.
fn fpu(rng: &mut Rng) -> Fpu {
    let mut fpu = Fpu {
        mm: std::array::from_fn(|_| rng.lanes()),
        exponent: std::array::from_fn(|_| rng.corner() as u16),
        control: 0x37f,
        status: rng.u64() as u16 & 0x7800,
        tags: rng.u64() as u16 & 0xff,
    };
    if rng.one_in(12) {
        fpu.control &= !1;
        fpu.status |= 0x8081;
    }
    fpu
}

/// A random MXCSR: any rounding mode, DAZ, FTZ and flags; one in four unmasks exceptions.
pub fn mxcsr(rng: &mut Rng) -> u32 {
    let mut value = 0x1f80 | (rng.below(4) as u32) << 13 | rng.below(64) as u32;
    for bit in [1 << 6, 1 << 15] {
        if rng.one_in(4) {
            value |= bit;
        }
    }
    if rng.one_in(4) {
        value &= !((rng.u64() as u32) & 0x1f80);
    }
    value
}

/// Makes random states for one encoding.
pub struct Steering {
    encoding: Encoding,
    mode: Mode,
    memory: Vec<UsedMemory>,
}

impl Steering {
    /// Prepares an encoding.
    pub fn new(mode: Mode, encoding: &Encoding) -> Steering {
        let mut factory = InstructionInfoFactory::new();
        let info = factory.info(&encoding.instr);
        let lea = encoding.instr.mnemonic() == Mnemonic::Lea;
        Steering {
            encoding: encoding.clone(),
            mode,
            memory: if lea {
                Vec::new()
            } else {
                info.used_memory().to_vec()
            },
        }
    }

    /// A case with a random state; `None` if the operands could not be steered.
    pub fn case(&self, rng: &mut Rng) -> Option<Case> {
        (0..6).find_map(|_| self.attempt(rng))
    }

    fn attempt(&self, rng: &mut Rng) -> Option<Case> {
        let (mode, instr) = (self.mode, &self.encoding.instr);
        let mut case = Case::new(mode, &self.encoding.bytes);
        case.at = self.encoding.at;
        for value in &mut case.gpr {
            *value = rng.corner() & mode.gpr_mask();
        }
        for value in &mut case.xmm {
            *value = u128::from(rng.lanes()) << 64 | u128::from(rng.lanes());
        }
        if std::arch::is_x86_feature_detected!("avx") {
            for value in &mut case.ymm_hi {
                *value = u128::from(rng.lanes()) << 64 | u128::from(rng.lanes());
            }
        }
        if instr.is_vsib() {
            self.indices(rng, &mut case);
        }
        if is_mmx(instr) {
            case.fpu = fpu(rng);
        }
        case.mxcsr = mxcsr(rng);
        case.rflags = rng.u64() & (ARITH | DF);
        if rng.one_in(2) {
            case.rflags &= !DF;
        }
        let gpr = &mut case.gpr;
        self.interesting_values(rng, gpr);

        let mut used = [false; 16];
        let mut first = None;
        for m in &self.memory {
            let size = m.memory_size().size().max(1) as u64;
            let mut target = pick_target(rng, size);
            if size == 16 && rng.below(8) != 0 {
                target &= !15;
            }
            self.steer(rng, gpr, &mut used, m, target);
            first = first.or(Some(*m));
        }
        for m in &self.memory {
            let at = linear(mode, gpr, m);
            let low = mode == Mode::M32 && address_bytes(mode, m) == 2 && at < 0x1_0000;
            if !low && !(WINDOW - 0x1_0000..WINDOW + 0x3_0000).contains(&at) {
                return None;
            }
        }
        let mut pokes = 0;
        let mut poke = |case: &mut Case, at: u64, len: u64, value: u64| {
            let offset = at.wrapping_sub(DATA);
            if offset < DATA_RW as u64 - 8 && pokes < case.pokes.len() {
                case.pokes[pokes] = Poke {
                    offset: offset as u32,
                    len: len as u32,
                    value,
                };
                pokes += 1;
            }
        };
        if let Some(m) = first {
            let (at, size) = (
                linear(mode, &case.gpr, &m),
                m.memory_size().size().clamp(1, 8) as u64,
            );
            if rng.one_in(2) {
                let value = match rng.below(3) {
                    0 => case.gpr[0],
                    _ => rng.corner(),
                };
                poke(&mut case, at, size, value);
            }
            if rng.one_in(2) && m.memory_size().size() == 16 {
                let high = case.gpr[2];
                poke(&mut case, at.wrapping_add(8), 8, high);
            }
            if let Mnemonic::Popf | Mnemonic::Popfd | Mnemonic::Popfq = instr.mnemonic() {
                // Not TF: the single step would be the test's own end.
                let image = rng.u64() & !0x100;
                poke(&mut case, at, 8, image);
            }
        }
        self.branch_values(rng, &mut case, &mut poke);
        Some(case)
    }

    /// Indices of a gather that stay near its base.
    fn indices(&self, rng: &mut Rng, case: &mut Case) {
        let instr = &self.encoding.instr;
        let n = instr.memory_index().number() & 15;
        let mut near = || {
            let quad = rng.below(0x400).wrapping_sub(0x200);
            if instr.is_vsib64() {
                quad
            } else {
                let other = rng.below(0x400).wrapping_sub(0x200);
                quad & 0xffff_ffff | other << 32
            }
        };
        for half in [&mut case.xmm[n], &mut case.ymm_hi[n]] {
            *half = u128::from(near()) << 64 | u128::from(near());
        }
    }

    /// Operand values that make an instruction do something worth seeing.
    fn interesting_values(&self, rng: &mut Rng, gpr: &mut [u64; 16]) {
        use Mnemonic::*;
        let instr = &self.encoding.instr;
        match instr.mnemonic() {
            // Mostly quotients that fit.
            Div if rng.below(4) != 0 => gpr[2] = rng.below(3),
            Idiv if rng.below(4) != 0 => {
                gpr[2] = if gpr[0] >> (instr.op0_register().size() * 8).min(63) & 1 == 1 {
                    self.mode.gpr_mask()
                } else {
                    0
                };
            }
            Cmpxchg | Cmpxchg8b | Cmpxchg16b if rng.one_in(2) => gpr[0] = gpr[3],
            Loop | Loope | Loopne | Jcxz | Jecxz | Jrcxz if rng.one_in(2) => {
                gpr[1] = rng.below(3);
            }
            Bt | Bts | Btr | Btc
                if instr.op1_kind() == OpKind::Register && instr.op0_kind() == OpKind::Memory =>
            {
                let bit = rng.below(0x6000).wrapping_sub(0x3000);
                write_gpr(gpr, instr.op1_register(), bit);
            }
            // A count for shifts and rotates.
            _ if rng.one_in(2) => gpr[1] = gpr[1] & !0xff | rng.below(256),
            _ => {}
        }
        let repeated = instr.has_rep_prefix() || instr.has_repne_prefix();
        if repeated && instr.is_string_instruction() {
            let width = self
                .memory
                .first()
                .map_or(8, |m| address_bytes(self.mode, m));
            let count = if rng.one_in(8) { 0 } else { rng.below(12) };
            gpr[1] = gpr[1] & !size_mask(width) | count;
        }
    }

    /// Sets base and index so that the operand lies at `target`.
    fn steer(
        &self,
        rng: &mut Rng,
        gpr: &mut [u64; 16],
        used: &mut [bool; 16],
        m: &UsedMemory,
        target: u64,
    ) {
        let mode = self.mode;
        let (base, index) = (gpr_index(m.base()), gpr_index(m.index()));
        let mut offset = target.wrapping_sub(segment_base(mode, m.segment()));
        offset = offset.wrapping_sub(m.displacement());
        match (base, index) {
            (Some(b), Some(i)) if b == i && used[b] => {}
            (Some(b), Some(i)) if b == i => {
                let k = u64::from(m.scale()) + 1;
                let mask = size_mask(m.base().size());
                write_gpr(gpr, m.base(), (offset & mask) / k);
            }
            (Some(b), Some(i)) => {
                let settled = used[i] || m.index().size() == 1;
                if !settled && rng.below(4) != 0 {
                    write_gpr(gpr, m.index(), rng.below(64).wrapping_sub(32));
                }
                let scaled = read_gpr(gpr, m.index()).wrapping_mul(u64::from(m.scale()));
                if !used[b] {
                    write_gpr(gpr, m.base(), offset.wrapping_sub(scaled));
                }
                used[i] = true;
            }
            (Some(b), None) if !used[b] => write_gpr(gpr, m.base(), offset),
            (None, Some(i)) if !used[i] => {
                let mask = size_mask(m.index().size());
                write_gpr(
                    gpr,
                    m.index(),
                    (offset & mask) / u64::from(m.scale().max(1)),
                );
            }
            _ => {}
        }
        for n in [base, index].into_iter().flatten() {
            used[n] = true;
        }
    }

    /// Targets of indirect branches and returns.
    fn branch_values(
        &self,
        rng: &mut Rng,
        case: &mut Case,
        poke: &mut dyn FnMut(&mut Case, u64, u64, u64),
    ) {
        let (mode, instr) = (self.mode, &self.encoding.instr);
        let target = branch_target(rng, mode, case.at, case.len, false);
        match instr.flow_control() {
            FlowControl::Return => {
                let sp = Register::RSP;
                let width = if mode == Mode::M16 { 0xffff } else { u64::MAX };
                let at = (read_gpr(&case.gpr, sp) & width)
                    .wrapping_add(segment_base(mode, Register::SS));
                poke(case, at, 8, target);
            }
            FlowControl::IndirectBranch | FlowControl::IndirectCall => {
                if instr.op0_kind() == OpKind::Register {
                    write_gpr(&mut case.gpr, instr.op0_register(), target);
                } else if let Some(m) = self.memory.first() {
                    let at = linear(mode, &case.gpr, m);
                    poke(case, at, 8, target);
                }
            }
            _ => {}
        }
    }
}
