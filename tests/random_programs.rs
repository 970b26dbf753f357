//! Random programs in lock step: the interpreter against each tier of compiled code, with loops,
//! calls, forward branches, stores into code that is about to run, faults in the middle of
//! blocks, and instructions that lie across pages. Programs of SSE arithmetic change MXCSR now and
//! then, and read its flags: whatever an optimiser drops or moves shows. Those of the x87 change its
//! control word, fill its stack, and mix with MMX, whose registers are the x87's.
//!
//! `METAPHRASE_PROGRAMS` sets how many programs in each code size and tier, `METAPHRASE_SEED` the
//! first one.

mod host;

use host::case::*;
use host::compare;
use host::engine::{Engine, Kind, Stop};
use host::forms::{self, Class, Encoding};
use host::rng::Rng;
use host::states::gpr_index;
use iced_x86::{
    Code, EncodingKind, FlowControl, InstructionInfoFactory, Mnemonic, OpAccess, Register,
};

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(default)
}

/// A program and the places where it goes on after a fault.
struct Program {
    at: u64,
    code: Vec<u8>,
    /// Offsets of instructions, in order.
    starts: Vec<u64>,
}

/// Registers that programs keep: stack, data pointer, loop counter.
const KEPT: [usize; 3] = [4, 3, 5];

/// A random instruction that leaves the kept registers alone and addresses memory through RBX
/// only, or, now and then, wherever it likes.
fn instruction(rng: &mut Rng, mode: Mode, codes: &[Code]) -> Encoding {
    let mut factory = InstructionInfoFactory::new();
    loop {
        let Some(encoding) = forms::encode(rng, mode, rng.clone().pick(codes)) else {
            rng.u64();
            continue;
        };
        rng.u64();
        let instr = &encoding.instr;
        let info = factory.info(instr);
        let wild = rng.one_in(40);
        let keeps = info.used_registers().iter().all(|r| {
            let written = !matches!(
                r.access(),
                OpAccess::Read | OpAccess::CondRead | OpAccess::None
            );
            !written || gpr_index(r.register()).is_none_or(|n| !KEPT.contains(&n))
        });
        let in_reach = info.used_memory().iter().all(|m| {
            m.base().full_register() == Register::RBX
                && m.index() == Register::None
                && m.displacement().wrapping_add(0x200) < 0x400
        });
        let bit_string = matches!(
            instr.mnemonic(),
            Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc
        );
        let division = matches!(instr.mnemonic(), Mnemonic::Div | Mnemonic::Idiv);
        if instr.flow_control() == FlowControl::Next
            && keeps
            && (in_reach && !bit_string && !division || wild)
        {
            return encoding;
        }
    }
}

/// Assembles a program piece by piece.
struct Assembler<'a> {
    rng: &'a mut Rng,
    mode: Mode,
    codes: &'a [Code],
    /// Change and read MXCSR now and then.
    float: bool,
    /// Change the x87 control word now and then, and empty and fill the stack.
    x87: bool,
    at: u64,
    code: Vec<u8>,
    starts: Vec<u64>,
}

impl Assembler<'_> {
    fn here(&self) -> u64 {
        self.at + self.code.len() as u64
    }

    fn emit(&mut self, bytes: &[u8]) {
        self.starts.push(self.here());
        self.code.extend_from_slice(bytes);
    }

    fn body(&mut self, count: u64) {
        for _ in 0..count {
            let encoding = instruction(self.rng, self.mode, self.codes);
            if self.float && self.rng.one_in(10) {
                self.control();
            }
            if self.x87 && self.rng.one_in(6) {
                self.fpu();
            }
            // RIP-relative operands were made for another place; RBX-relative ones do not care.
            self.emit(&encoding.bytes);
        }
    }

    /// STMXCSR, or LDMXCSR of any rounding mode; one in four unmasks exceptions.
    fn control(&mut self) {
        if self.rng.one_in(2) {
            // STMXCSR [RBX + 44h]
            self.emit(&[0x0f, 0xae, 0x5b, 0x44]);
            return;
        }
        let value = host::states::mxcsr(self.rng);
        // MOV dword [RBX + 40h], value; LDMXCSR [RBX + 40h]
        let mut bytes = vec![0xc7, 0x43, 0x40];
        bytes.extend_from_slice(&value.to_le_bytes());
        self.emit(&bytes);
        self.emit(&[0x0f, 0xae, 0x53, 0x40]);
    }

    /// FNINIT, and one in two times some constants; or FLDCW of any rounding and precision, mostly
    /// with all exceptions masked.
    fn fpu(&mut self) {
        if self.rng.one_in(3) {
            self.emit(&[0xdb, 0xe3]);
            if self.rng.one_in(2) {
                for _ in 0..1 + self.rng.below(8) {
                    let constant = 0xe8 + self.rng.below(7) as u8;
                    self.emit(&[0xd9, constant]);
                }
            }
            return;
        }
        let masks = match self.rng.below(6) {
            0 => self.rng.below(64) as u16,
            _ => 0x3f,
        };
        let control = (self.rng.below(16) as u16) << 8 | masks;
        let control = control.to_le_bytes();
        // MOV word [EBX + 48h], control; FLDCW [EBX + 48h]
        if self.mode == Mode::M16 {
            self.emit(&[0x67, 0xc7, 0x43, 0x48, control[0], control[1]]);
            self.emit(&[0x67, 0xd9, 0x6b, 0x48]);
        } else {
            self.emit(&[0x66, 0xc7, 0x43, 0x48, control[0], control[1]]);
            self.emit(&[0xd9, 0x6b, 0x48]);
        }
    }

    /// A near branch with a full displacement; where the displacement lies.
    fn branch(&mut self, opcode: &[u8], target: u64) -> usize {
        let size = if self.mode == Mode::M16 { 2 } else { 4 };
        let end = self.here() + opcode.len() as u64 + size;
        let mut bytes = opcode.to_vec();
        bytes.extend_from_slice(&target.wrapping_sub(end).to_le_bytes()[..size as usize]);
        self.emit(&bytes);
        self.code.len() - size as usize
    }

    /// Points a branch made before to here.
    fn land(&mut self, displacement: usize) {
        let size = if self.mode == Mode::M16 { 2 } else { 4 };
        let end = self.at + (displacement + size) as u64;
        let value = self.here().wrapping_sub(end).to_le_bytes();
        self.code[displacement..displacement + size].copy_from_slice(&value[..size]);
    }

    /// MOV [next instruction's immediate], AL; then some instructions; then MOV CL, immediate.
    fn self_modify(&mut self) {
        let between = self.rng.below(3);
        let start = self.code.len();
        let mut bytes = match self.mode {
            Mode::M16 => vec![0x67, 0x88, 0x05],
            _ => vec![0x88, 0x05],
        };
        let field = bytes.len();
        bytes.extend_from_slice(&[0; 4]);
        let end = self.here() + bytes.len() as u64;
        self.emit(&bytes);
        self.body(between);
        self.emit(&[0xb1, 0x77]);
        let target = self.here() - 1;
        let value = match self.mode {
            Mode::M64 => target.wrapping_sub(end),
            Mode::M32 => CODE + target,
            Mode::M16 => target.wrapping_sub(DS16_BASE),
        };
        let at = start + field;
        self.code[at..at + 4].copy_from_slice(&value.to_le_bytes()[..4]);
    }

    fn program(mut self) -> Program {
        for _ in 0..1 + self.rng.below(3) {
            self.body(3);
            // MOV EBP, count.
            let count = 1 + self.rng.below(6) as u8;
            if self.mode == Mode::M16 {
                self.emit(&[0xbd, count, 0]);
            } else {
                self.emit(&[0xbd, count, 0, 0, 0]);
            }
            let head = self.here();
            let n = 1 + self.rng.below(8);
            self.body(n);
            if self.rng.one_in(3) {
                self.self_modify();
            }
            if self.rng.one_in(2) {
                let condition = 0x80 | self.rng.below(16) as u8;
                let skip = self.branch(&[0x0f, condition], 0);
                let n = 1 + self.rng.below(4);
                self.body(n);
                self.land(skip);
            }
            if self.rng.one_in(2) {
                // A subroutine that lies in the way, and is jumped over.
                let over = self.branch(&[0xe9], 0);
                let sub = self.here();
                let n = 1 + self.rng.below(4);
                self.body(n);
                self.emit(&[0xc3]);
                self.land(over);
                self.branch(&[0xe8], sub);
            }
            let n = self.rng.below(4);
            self.body(n);
            // DEC EBP; JNZ head.
            self.emit(&[0xff, 0xcd]);
            self.branch(&[0x0f, 0x85], head);
        }
        Program {
            at: self.at,
            code: self.code,
            starts: self.starts,
        }
    }
}

fn program(seed: u64, mode: Mode, codes: &[Code], set: Set) -> Program {
    let mut rng = Rng::new(seed);
    // So that it lies across the two code pages.
    let at = 0x1000 - 1 - rng.below(0x200);
    Assembler {
        rng: &mut rng,
        mode,
        codes,
        float: set != Set::Integer,
        x87: set == Set::X87,
        at,
        code: Vec::new(),
        starts: Vec::new(),
    }
    .program()
}

fn disassembly(mode: Mode, program: &Program) -> String {
    let mut out = String::new();
    let end = program.at + program.code.len() as u64;
    for (i, &start) in program.starts.iter().enumerate() {
        let next = program.starts.get(i + 1).copied().unwrap_or(end);
        let bytes = &program.code[(start - program.at) as usize..(next - program.at) as usize];
        let instr = forms::decode(mode, start, bytes);
        out += &format!("  {:x}  {}\n", mode.ip(start), compare::text(&instr));
    }
    out
}

/// Runs one program in both engines; what differs first.
fn lock_step(
    mode: Mode,
    program: &Program,
    seed: u64,
    reference: &mut Engine,
    other: &mut Engine,
) -> Result<u64, String> {
    let mut rng = Rng::new(seed ^ 0x5747);
    let mut gpr: [u64; 16] = std::array::from_fn(|_| rng.corner());
    let base = |segment: usize| mode.seg_bases()[segment];
    gpr[3] = DATA + 0x1400 - base(3);
    gpr[4] = DATA + 0x3000 - base(2);
    let flags = rng.u64();
    let xmm: [u128; 16] =
        std::array::from_fn(|_| u128::from(rng.lanes()) << 64 | u128::from(rng.lanes()));
    let ymm_hi: [u128; 16] =
        std::array::from_fn(|_| u128::from(rng.lanes()) << 64 | u128::from(rng.lanes()));
    for engine in [&mut *reference, &mut *other] {
        engine.load(program.at, &program.code);
        engine.start(program.at, gpr, flags);
        engine.vcpu.state.xmm = xmm;
        engine.vcpu.state.ymm_hi = ymm_hi;
        engine.vcpu.state.mxcsr = 0x1f80;
        let fresh = metaphrase_runtime::CpuState::new();
        engine.vcpu.state.x87 = fresh.x87;
    }
    let mut steps = 0u64;
    let mut faults = 0;
    while steps < 20_000 && faults < 200 {
        let budget = 50 + rng.below(400);
        let stops = [reference.go(budget), other.go(budget)];
        let states = [reference.snapshot(), other.snapshot()];
        let differences = states[0].differences(&states[1]);
        if stops[0] != stops[1] || !differences.is_empty() {
            return Err(format!(
                "after {steps}+{budget} instructions: {:?} and {:?}, {differences:?}",
                stops[0], stops[1]
            ));
        }
        let images = [reference.memory_image(), other.memory_image()];
        if let Some(i) = (0..images[0].len()).find(|&i| images[0][i] != images[1][i]) {
            let at = match i.checked_sub(DATA_RW) {
                Some(i) => CODE + i as u64,
                None => DATA + i as u64,
            };
            return Err(format!(
                "after {steps}+{budget} instructions: [{at:#x}] is {:#x} and {:#x}",
                images[0][i], images[1][i]
            ));
        }
        steps += budget;
        match stops[0] {
            Stop::Budget | Stop::Attention => {}
            Stop::Exception(e) if e.vector == 3 => break,
            // Go on behind the instruction that failed.
            _ => {
                faults += 1;
                let rip = states[0].rip;
                let next = program
                    .starts
                    .iter()
                    .map(|&s| mode.ip(s))
                    .find(|&s| s > rip);
                let Some(next) = next else { break };
                for engine in [&mut *reference, &mut *other] {
                    engine.vcpu.state.rip = next;
                }
            }
        }
    }
    Ok(faults)
}

/// Whether a form is SSE without MMX or addresses of its own.
fn is_float(code: Code) -> bool {
    let mnemonic = code.mnemonic();
    let masked = matches!(
        mnemonic,
        Mnemonic::Maskmovdqu | Mnemonic::Vmaskmovdqu | Mnemonic::Ldmxcsr | Mnemonic::Vldmxcsr
    );
    forms::class(code) == Class::Sse && !is_mmx(code) && !masked && mnemonic != Mnemonic::Emms
}

/// Whether a form names an MMX register.
fn is_mmx(code: Code) -> bool {
    let info = code.op_code();
    (0..info.op_count()).any(|n| {
        use iced_x86::OpCodeOperandKind::*;
        matches!(info.op_kind(n), mm_reg | mm_rm | mm_or_mem)
    })
}

/// What programs are made of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Set {
    Integer,
    /// SSE.
    Float,
    /// The x87, and what shares its registers, among some SSE.
    X87,
    /// AVX and what comes with it, among SSE that keeps the upper halves.
    Avx,
}

impl Set {
    fn has(self, rng: &mut Rng, code: Code) -> bool {
        let vex = code.encoding() == EncodingKind::VEX;
        match self {
            Set::Integer => forms::class(code) == Class::Integer,
            Set::Float => is_float(code) && !vex,
            Set::X87 => match forms::class(code) {
                Class::System(why) if why.starts_with("x87") => {
                    let rare = matches!(
                        code.mnemonic(),
                        Mnemonic::Fldcw | Mnemonic::Fldenv | Mnemonic::Frstor
                    );
                    !rare || rng.one_in(4)
                }
                Class::System(_) => code.mnemonic() == Mnemonic::Fxsave,
                Class::Sse => !vex && (is_mmx(code) || rng.one_in(20)),
                Class::Integer => rng.one_in(20),
                _ => false,
            },
            Set::Avx => is_float(code) && (vex || rng.one_in(8)),
        }
    }
}

fn compare_tier(kind: Kind, mode: Mode, set: Set) {
    let mut chooser = Rng::new(3);
    let codes: Vec<Code> = forms::forms(mode)
        .filter(|&c| set.has(&mut chooser, c))
        .filter(|c| forms::encode(&mut Rng::new(1), mode, *c).is_some())
        .collect();
    let mut reference = Engine::new(Kind::Interp, mode);
    let mut other = Engine::new(kind, mode);
    let first = setting("METAPHRASE_SEED", 1);
    let mut faults = 0;
    for seed in first..first + setting("METAPHRASE_PROGRAMS", 100) {
        let program = program(seed << 8 | u64::from(mode.bits()), mode, &codes, set);
        match lock_step(mode, &program, seed, &mut reference, &mut other) {
            Ok(n) => faults += n,
            Err(text) => panic!(
                "seed {seed}, {}-bit code, interp and {}: {text}\n{}",
                mode.bits(),
                kind.name(),
                disassembly(mode, &program)
            ),
        }
    }
    println!("{}-bit {}: {faults} faults", mode.bits(), kind.name());
    assert!(
        faults > 0 || first != 1,
        "no program ever faults: that is not what is meant"
    );
}

macro_rules! tiers {
    ($($name:ident $kind:ident $mode:ident $set:ident;)*) => {
        $(#[test] fn $name() { compare_tier(Kind::$kind, Mode::$mode, Set::$set); })*
    };
}

tiers! {
    blocks_16 Jit M16 Integer;
    blocks_32 Jit M32 Integer;
    blocks_64 Jit M64 Integer;
    regions_16 Regions M16 Integer;
    regions_32 Regions M32 Integer;
    regions_64 Regions M64 Integer;
    float_blocks_32 Jit M32 Float;
    float_blocks_64 Jit M64 Float;
    float_regions_32 Regions M32 Float;
    float_regions_64 Regions M64 Float;
    x87_blocks_16 Jit M16 X87;
    x87_blocks_32 Jit M32 X87;
    x87_blocks_64 Jit M64 X87;
    x87_regions_32 Regions M32 X87;
    x87_regions_64 Regions M64 X87;
    avx_blocks_32 Jit M32 Avx;
    avx_blocks_64 Jit M64 Avx;
    avx_regions_32 Regions M32 Avx;
    avx_regions_64 Regions M64 Avx;
}
