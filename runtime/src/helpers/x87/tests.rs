//! Every x87 encoding against the host's FPU: a random state is loaded with FRSTOR, the
//! instruction runs natively, FNSAVE says what it did; the helper must do the same, bit for bit.

use super::super::Cx;
use super::stack::*;
use super::{portable, x87};
use crate::CpuModel;
use crate::env::Env;
use crate::memory::{GuestMemory, Window, page};
use crate::state::{CpuState, X87Reg};
use iced_x86::{Decoder, DecoderOptions};
use metaphrase_ir::{Cond, ExitReason, X87Op, flags};
use rustix::mm::{MapFlags, ProtFlags};

/// Where the operand lies in guest memory.
const OPERAND: u64 = 0x1_0040;
/// Its size: an FSAVE image and room around it.
const OPERAND_LEN: usize = 128;

/// Random states for each encoding.
const CASES: u32 = 1000;

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

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// An 80-bit value of any class.
    fn extended(&mut self) -> X87Reg {
        let sign = self.below(2) << 15;
        let top = 1 << 63;
        let (mantissa, exponent) = match self.below(16) {
            0 => (0, 0),
            1 => (top, 0x3fff),
            2 => (top, 0x7fff),
            3 => (0xc0 << 56 | self.next() >> 3, 0x7fff),
            4 => (top | self.next() >> 2 | 1, 0x7fff),
            5 => (self.next() >> 1, 0),
            6 => (self.next() >> 1, self.below(0x8000)),
            7 => (top | self.next(), self.below(0x8000)),
            8 => (top | self.below(64) << 56, 0x3fff + self.below(8)),
            9 => (top | self.next(), 0x3fff - 0x3ff + self.below(0x7ff)),
            10 => (top | self.next() << 11, 0x3fff - 20 + self.below(40)),
            11 => (top | self.next() << 40, 0x3fff - 0x80 + self.below(0x100)),
            12 => (
                top | self.next(),
                [0, 1, 0x7ffe, 0x3bff, 0x43ff][self.below(5) as usize],
            ),
            _ => (top | self.next(), 0x3fff - 4 + self.below(70)),
        };
        X87Reg {
            mantissa,
            exponent: exponent | sign,
        }
    }

    /// Bytes for a memory operand: often a float or integer of a telling value.
    fn operand(&mut self) -> [u8; OPERAND_LEN] {
        let mut out = [0; OPERAND_LEN];
        for chunk in out.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes());
        }
        let telling: u64 = match self.below(12) {
            0 => 0,
            1 => 1.0f64.to_bits(),
            2 => f64::INFINITY.to_bits(),
            3 => 0x7ff8 << 48 | self.next() >> 16,
            4 => 0x7ff0 << 48 | self.next() >> 16,
            5 => self.next() >> 13,
            6 => (self.next() as i32 as f64).to_bits(),
            7 => u64::from((self.next() as i16 as f32).to_bits()),
            8 => u64::from(
                [
                    0x7f80_0000u32,
                    0x7fc0_1234,
                    0xff80_0001,
                    0x8000_0001,
                    0x0000_1234,
                ][self.below(5) as usize],
            ),
            9 => self.below(1000),
            _ => return out,
        };
        out[..8].copy_from_slice(&telling.to_le_bytes());
        out
    }

    /// Ten bytes of packed decimal.
    fn decimal(&mut self) -> [u8; 10] {
        let mut out = [0; 10];
        for b in &mut out[..9] {
            *b = (self.below(10) << 4 | self.below(10)) as u8;
        }
        out[9] = (self.below(2) << 7) as u8;
        out
    }
}

/// The native side: a page of code.
struct Native(*mut u8);

impl Native {
    fn new() -> Native {
        let prot = ProtFlags::READ | ProtFlags::WRITE | ProtFlags::EXEC;
        // SAFETY: a new anonymous mapping goes where nothing else is.
        let p = unsafe {
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), 4096, prot, MapFlags::PRIVATE)
        };
        Native(p.expect("a page of code").cast())
    }

    /// Runs the instruction with RSI at `operand`: the FNSAVE image, RFLAGS and RAX afterwards.
    fn run(
        &self,
        insn: &[u8],
        before: &[u8; 108],
        operand: &mut [u8; OPERAND_LEN],
        rflags: u64,
    ) -> ([u8; 108], u64, u64) {
        // FRSTOR [RDI]; PUSH [RCX]; POPFQ; …; PUSHFQ; POP [RCX]; MOV [RCX+8], RAX; FNSAVE [RDX]
        let mut code = vec![0xdd, 0x27, 0xff, 0x31, 0x9d];
        code.extend_from_slice(insn);
        code.extend_from_slice(&[0x9c, 0x8f, 0x01, 0x48, 0x89, 0x41, 0x08, 0xdd, 0x32, 0xc3]);
        let mut after = [0u8; 108];
        let mut words = [rflags, 0];
        // SAFETY: the page is writable and executable; the code uses only the four pointers and
        // what the ABI lets it clobber, and FNSAVE leaves the FPU initialised.
        unsafe {
            std::ptr::copy_nonoverlapping(code.as_ptr(), self.0, code.len());
            let f: extern "sysv64" fn(*const u8, *mut u8, *mut u8, *mut u64) =
                std::mem::transmute(self.0);
            f(
                before.as_ptr(),
                operand.as_mut_ptr(),
                after.as_mut_ptr(),
                words.as_mut_ptr(),
            );
        }
        (after, words[0], words[1])
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, and nobody runs in it.
        let _ = unsafe { rustix::mm::munmap(self.0.cast(), 4096) };
    }
}

/// A random FSAVE image without a pending exception.
fn random_image(rng: &mut Rng) -> [u8; 108] {
    let mut image = [0u8; 108];
    let masks = if rng.below(3) != 0 {
        0x3f
    } else {
        rng.next() as u16 & 0x3f
    };
    let control = rng.next() as u16 & 0xf00 | masks | 0x40;
    // A reserved precision has no meaning.
    let control = if control & 0x300 == 0x100 {
        control ^ 0x200
    } else {
        control
    };
    let status = rng.next() as u16 & (0x7f00 | masks | SF);
    let empty = match rng.below(4) {
        0 => rng.next() as u8,
        1 => 0,
        // Free room above the stack, whatever TOP is.
        _ => {
            let top = u32::from(status >> 11 & 7);
            let free = if rng.below(2) == 0 { 0x80u8 } else { 0xe0 };
            free.rotate_left(top)
        }
    };
    let tags = (0..8).fold(0u16, |w, n| {
        if empty >> n & 1 != 0 {
            w | 3 << (2 * n)
        } else {
            w
        }
    });
    image[0..2].copy_from_slice(&control.to_le_bytes());
    image[4..6].copy_from_slice(&status.to_le_bytes());
    image[8..10].copy_from_slice(&tags.to_le_bytes());
    for i in 0..8 {
        let v = rng.extended();
        let at = 28 + 10 * i;
        image[at..at + 8].copy_from_slice(&v.mantissa.to_le_bytes());
        image[at + 8..at + 10].copy_from_slice(&(v.exponent as u16).to_le_bytes());
    }
    image
}

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

    /// FRSTOR from `at` (an opcode with a short form would do as well).
    fn restore(&mut self, image: &[u8; 108]) {
        self.env.memory.write_bytes(OPERAND + 0x200, image).unwrap();
        self.state.x87.control = 0x37f;
        self.state.x87.status = 0;
        self.call(RESTORE, OPERAND + 0x200);
    }

    fn save(&mut self) -> [u8; 108] {
        let mut image = [0; 108];
        self.call(SAVE, OPERAND + 0x200);
        self.env
            .memory
            .read_bytes(OPERAND + 0x200, &mut image)
            .unwrap();
        image
    }
}

const fn memory_op(escape: u8, reg: u8) -> X87Op {
    X87Op {
        escape,
        modrm: reg << 3 | 6,
        short: false,
        wait: false,
    }
}

const RESTORE: X87Op = memory_op(5, 4);
const SAVE: X87Op = memory_op(5, 6);
const FLDCW: X87Op = memory_op(1, 5);

/// The encodings that exist: with RSI as base, registers, and the short images.
fn encodings() -> Vec<(Vec<u8>, X87Op)> {
    let mut all = Vec::new();
    for escape in 0..8u8 {
        let memory = (0..8u8).map(|reg| reg << 3 | 6);
        for modrm in memory.chain(0xc0..=0xff) {
            for short in [false, true] {
                let mut bytes = vec![0x66; usize::from(short)];
                bytes.extend([0xd8 | escape, modrm]);
                let op = X87Op {
                    escape,
                    modrm,
                    short,
                    wait: false,
                };
                let image =
                    op.is_memory() && matches!((escape, modrm >> 3), (1, 4 | 6) | (5, 4 | 6));
                let mut decoder = Decoder::new(64, &bytes, DecoderOptions::NONE);
                if !decoder.decode().is_invalid() && (!short || image) {
                    all.push((bytes, op));
                }
            }
        }
    }
    all
}

/// The condition that FCMOV takes.
fn fcmov_condition(op: X87Op) -> Option<Cond> {
    let base = [Cond::B, Cond::Z, Cond::Be, Cond::P];
    let n = usize::from(op.modrm >> 3 & 7);
    match op.escape {
        2 if n < 4 && !op.is_memory() => Some(base[n]),
        3 if n < 4 && !op.is_memory() => Some(base[n].invert()),
        _ => None,
    }
}

/// Instruction pointers, selectors and the opcode: what the two sides cannot have in common.
fn blank(image: &mut [u8], short: bool) {
    let from = if short { 6..14 } else { 12..28 };
    image[from].fill(0);
}

/// An FSAVE image for people: words, then the registers from ST(0).
fn show(image: &[u8; 108]) -> String {
    let word = |at: usize| u16::from_le_bytes([image[at], image[at + 1]]);
    let status = word(4);
    let mut out = format!(
        "cw {:04x} sw {:04x} (top {}) tags {:04x} st",
        word(0),
        status,
        status >> 11 & 7,
        word(8)
    );
    for i in 0..8 {
        let at = 28 + 10 * i;
        let mantissa = u64::from_le_bytes(std::array::from_fn(|n| image[at + n]));
        out += &format!(" {:04x}:{mantissa:016x}", word(at + 8));
    }
    out
}

#[test]
fn every_encoding_does_what_the_host_does() {
    let native = Native::new();
    let mut guest = Guest::new();
    let mut rng = Rng(87);
    let mut failures = Vec::new();
    let encodings = encodings();
    // 9 groups of memory forms and the register forms: a guard for the generator.
    assert!(encodings.len() > 380, "{}", encodings.len());
    for (bytes, op) in encodings {
        let mut failed = 0;
        for _ in 0..CASES {
            let before = random_image(&mut rng);
            let mut operand = rng.operand();
            if (op.escape, op.modrm >> 3) == (7, 4) {
                operand[..10].copy_from_slice(&rng.decimal());
            }
            if op.is_memory() && matches!((op.escape, op.modrm >> 3), (1 | 5, 4)) {
                // FLDENV, FRSTOR.
                operand[..108].copy_from_slice(&random_image(&mut rng));
            }
            let rflags = rng.next() & flags::ARITH | 2;
            let mut expected_operand = operand;
            let (mut expected, expected_flags, expected_ax) =
                native.run(&bytes, &before, &mut expected_operand, rflags);

            guest.restore(&before);
            guest.env.memory.write_bytes(OPERAND, &operand).unwrap();
            let a = match fcmov_condition(op) {
                Some(cond) => u64::from(cond.holds(rflags)),
                None => OPERAND,
            };
            let result = guest.call(op, a);
            let mut got_flags = rflags & flags::ARITH;
            let to_flags =
                !op.is_memory() && matches!((op.escape, op.modrm >> 3 & 7), (3 | 7, 5 | 6));
            if to_flags {
                got_flags = result;
            }
            let reason = guest.state.exit_reason;
            assert_eq!(reason, ExitReason::None as u32, "{bytes:02x?}");
            let mut got = guest.save();
            let mut got_operand = [0; OPERAND_LEN];
            guest
                .env
                .memory
                .read_bytes(OPERAND, &mut got_operand)
                .unwrap();
            blank(&mut expected, false);
            blank(&mut got, false);
            if op.is_memory() && matches!((op.escape, op.modrm >> 3), (1 | 5, 6)) {
                blank(&mut expected_operand, op.short);
                blank(&mut got_operand, op.short);
            }
            let status_ax = (op.escape, op.modrm) == (7, 0xe0);
            let same = expected == got
                && expected_operand == got_operand
                && expected_flags & flags::ARITH == got_flags
                && (!status_ax || expected_ax as u16 == result as u16);
            if !same {
                failed += 1;
                if failed <= 3 {
                    failures.push(format!(
                        "{bytes:02x?}: before {}\n  host {} flags {:x}\n  ours {} flags {got_flags:x}",
                        show(&before),
                        show(&expected),
                        expected_flags & flags::ARITH,
                        show(&got),
                    ));
                    for n in 0..OPERAND_LEN {
                        if expected_operand[n] != got_operand[n] {
                            failures.push(format!(
                                "  operand+{n}: {:02x} host {:02x} ours {:02x}",
                                operand[n], expected_operand[n], got_operand[n]
                            ));
                        }
                    }
                }
            }
        }
        if failed > 0 {
            failures.push(format!("{bytes:02x?}: {failed} of {CASES} differ"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
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
    guest.call(FLDCW, OPERAND);
    let register = |escape, modrm| X87Op {
        escape,
        modrm,
        short: false,
        wait: false,
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
            short: false,
            wait: false,
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
fn fxsave_comes_back() {
    let mut guest = Guest::new();
    let mut rng = Rng(1);
    for _ in 0..100 {
        guest.restore(&random_image(&mut rng));
        for x in &mut guest.state.xmm {
            *x = u128::from(rng.next()) << 64 | u128::from(rng.next());
        }
        guest.state.mxcsr = rng.next() as u32 & 0xffff;
        let (x87, xmm, mxcsr) = (guest.state.x87, guest.state.xmm, guest.state.mxcsr);
        let state = &raw mut *guest.state;
        super::fxsave(&Cx { state }, 3, [0x1_0000, 0, 0]);
        guest.restore(&random_image(&mut rng));
        guest.state.xmm = [0; 16];
        guest.state.mxcsr = 0x1f80;
        super::fxrstor(&Cx { state }, 3, [0x1_0000, 0, 0]);
        assert_eq!(guest.state.exit_reason, 0);
        assert_eq!(guest.state.x87, x87);
        assert_eq!((guest.state.xmm, guest.state.mxcsr), (xmm, mxcsr));
    }
    let state = &raw mut *guest.state;
    super::fxsave(&Cx { state }, 3, [0x1_0008, 0, 0]);
    assert_eq!(
        guest.state.exit_info,
        metaphrase_ir::exit::exception_info(13, Some(0))
    );
}

#[test]
fn the_portable_operations_agree_within_their_precision() {
    use super::host_x86_64 as host;
    use super::ops::{Arith, Source};
    let reg = |v: f64| super::convert::from_f64(v.to_bits()).unwrap();
    let close = |a: X87Reg, b: X87Reg| {
        let (x, y) = (host::store_f64(0x37f, a).0, host::store_f64(0x37f, b).0);
        let (x, y) = (f64::from_bits(x), f64::from_bits(y));
        (x - y).abs() <= 1e-14 * x.abs()
    };
    let values = [1.0, -2.5, 3.75, 1e10, 1e-10, -0.1, 7.0];
    for x in values {
        for y in values {
            for op in [
                Arith::Add,
                Arith::Mul,
                Arith::Sub,
                Arith::SubR,
                Arith::Div,
                Arith::DivR,
            ] {
                let (a, _) = host::arith(op, 0x37f, reg(x), Source::F64(y.to_bits()));
                let (b, _) = portable::arith(op, 0x37f, reg(x), Source::F64(y.to_bits()));
                assert!(close(a, b), "{op:?} {x} {y}: {a:?} {b:?}");
            }
            let source = Source::F64(y.to_bits());
            assert_eq!(
                host::compare(0x37f, reg(x), source, false) & (C0 | C2 | C3),
                portable::compare(0x37f, reg(x), source, false)
            );
        }
        for control in [0x37f, 0x77f, 0xb7f, 0xf7f] {
            assert_eq!(
                host::store_int(control, reg(x), 8).0,
                portable::store_int(control, reg(x), 8).0,
                "{x}"
            );
        }
    }
    for n in 0..6 {
        assert_eq!(
            host::constant(n, 0x37f),
            portable::constant(n, 0x37f),
            "{n}"
        );
    }
}
