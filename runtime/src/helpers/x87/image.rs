//! The images of the FPU in memory: FSTENV, FLDENV, FSAVE, FRSTOR, FXSAVE, FXRSTOR; FINIT.
//!
//! Environments have four formats, by operand size and mode (SDM volume 1, 8.1.10); FXSAVE's image
//! is in 10.5.1.

use super::memory::{read_extended, write_extended};
use super::stack::EXCEPTIONS;
use super::{Cx, X87Reg, X87State};
use crate::helpers::sse::{MXCSR_MASK, mxcsr, set_mxcsr};
use crate::memory::{GuestMemory, MemFault};

/// The #GP vector.
const GP: u8 = 13;

/// FNINIT. Registers keep their contents, but all are empty.
pub fn init(f: &mut X87State) {
    f.set_control(0x37f);
    f.set_status_word(0);
    f.tags = 0;
    (f.opcode, f.cs, f.ds) = (0, 0, 0);
    (f.ip, f.dp) = (0, 0);
}

/// How an environment is written.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// 16-bit operand size.
    pub short: bool,
    /// Real-address or virtual-8086 mode: linear pointers rather than selectors and offsets.
    pub linear: bool,
}

impl Format {
    /// The size of the image.
    fn size(self) -> u64 {
        if self.short { 14 } else { 28 }
    }
}

/// The full tag word: 0 valid, 1 zero, 2 special, 3 empty for each physical register.
fn tag_word(f: &X87State) -> u16 {
    let mut word = 0;
    for (n, r) in f.regs.iter().enumerate() {
        let tag = if f.tags & 1 << n == 0 {
            3
        } else {
            match (r.exponent & 0x7fff, r.mantissa) {
                (0, 0) => 1,
                (0 | 0x7fff, _) => 2,
                (_, m) if m >> 63 == 0 => 2,
                _ => 0,
            }
        };
        word |= tag << (2 * n);
    }
    word
}

/// Sets the tags from a full tag word: only empty or not counts.
fn set_tag_word(f: &mut X87State, word: u16) {
    f.tags = 0;
    for n in 0..8 {
        if word >> (2 * n) & 3 != 3 {
            f.tags |= 1 << n;
        }
    }
}

/// The seven words of an environment image.
fn environment(f: &X87State, format: Format) -> [u32; 7] {
    const ONES: u32 = 0xffff_0000;
    if format.linear {
        let linear =
            |selector: u16, offset: u64| (u32::from(selector) << 4).wrapping_add(offset as u32);
        let (ip, dp) = (linear(f.cs, f.ip), linear(f.ds, f.dp));
        return [
            u32::from(f.control) | ONES,
            u32::from(f.status_word()) | ONES,
            u32::from(tag_word(f)) | ONES,
            ip & 0xffff | ONES,
            ip >> 16 << 12 | u32::from(f.opcode & 0x7ff),
            dp & 0xffff | ONES,
            dp >> 16 << 12,
        ];
    }
    [
        u32::from(f.control) | ONES,
        u32::from(f.status_word()) | ONES,
        u32::from(tag_word(f)) | ONES,
        f.ip as u32,
        u32::from(f.cs) | u32::from(f.opcode & 0x7ff) << 16,
        f.dp as u32,
        u32::from(f.ds) | ONES,
    ]
}

/// Writes the environment.
fn write_environment(
    f: &X87State,
    m: &GuestMemory,
    addr: u64,
    format: Format,
) -> Result<(), MemFault> {
    for (n, word) in environment(f, format).into_iter().enumerate() {
        let n = n as u64;
        if format.short {
            m.write(addr.wrapping_add(2 * n), word as u16)?;
        } else {
            m.write(addr.wrapping_add(4 * n), word)?;
        }
    }
    Ok(())
}

/// FNSTENV: the environment to memory; then all exceptions are masked.
pub fn store_environment(
    f: &mut X87State,
    m: &GuestMemory,
    addr: u64,
    format: Format,
) -> Result<(), MemFault> {
    m.check(addr, format.size(), true)?;
    write_environment(f, m, addr, format)?;
    f.set_control(f.control | EXCEPTIONS);
    Ok(())
}

/// FLDENV.
pub fn load_environment(
    f: &mut X87State,
    m: &GuestMemory,
    addr: u64,
    format: Format,
) -> Result<(), MemFault> {
    m.check(addr, format.size(), false)?;
    let mut words = [0u32; 7];
    for (n, word) in words.iter_mut().enumerate() {
        let n = n as u64;
        *word = if format.short {
            u32::from(m.read::<u16>(addr.wrapping_add(2 * n))?)
        } else {
            m.read(addr.wrapping_add(4 * n))?
        };
    }
    f.control = 0x37f;
    f.set_status_word(words[1] as u16);
    f.set_control(words[0] as u16);
    set_tag_word(f, words[2] as u16);
    if format.linear {
        let linear = |low: u32, high: u32| u64::from(low & 0xffff | (high >> 12 & 0xffff) << 16);
        (f.ip, f.cs) = (linear(words[3], words[4]), 0);
        (f.dp, f.ds) = (linear(words[5], words[6]), 0);
        f.opcode = words[4] as u16 & 0x7ff;
        return Ok(());
    }
    f.ip = u64::from(words[3]);
    f.cs = words[4] as u16;
    // A short image has none, which clears it.
    f.opcode = (words[4] >> 16) as u16 & 0x7ff;
    f.dp = u64::from(words[5]);
    f.ds = words[6] as u16;
    Ok(())
}

/// FNSAVE: the environment and the registers in stack order; then FNINIT.
pub fn save(f: &mut X87State, m: &GuestMemory, addr: u64, format: Format) -> Result<(), MemFault> {
    let size = format.size();
    m.check(addr, size + 80, true)?;
    write_environment(f, m, addr, format)?;
    for i in 0..8u8 {
        write_extended(m, addr.wrapping_add(size + 10 * u64::from(i)), f.st(i))?;
    }
    init(f);
    Ok(())
}

/// FRSTOR.
pub fn restore(
    f: &mut X87State,
    m: &GuestMemory,
    addr: u64,
    format: Format,
) -> Result<(), MemFault> {
    let size = format.size();
    m.check(addr, size + 80, false)?;
    load_environment(f, m, addr, format)?;
    let tags = f.tags;
    for i in 0..8u8 {
        let v = read_extended(m, addr.wrapping_add(size + 10 * u64::from(i)))?;
        f.set(i, v);
    }
    f.tags = tags;
    Ok(())
}

/// FXSAVE to `addr`. Descriptor: bit 0 with REX.W, bit 1 in 64-bit code.
pub fn fxsave(cx: &Cx, descriptor: u32, [addr, ..]: [u64; 3]) -> u64 {
    cx.state_with_x87();
    if addr % 16 != 0 {
        cx.raise(GP, Some(0));
    } else if let Err(fault) = write_fx(cx, descriptor, addr) {
        cx.fault(fault);
    }
    0
}

/// FXRSTOR from `addr`; descriptor as for FXSAVE.
pub fn fxrstor(cx: &Cx, descriptor: u32, [addr, ..]: [u64; 3]) -> u64 {
    cx.state_with_x87();
    if addr % 16 != 0 {
        cx.raise(GP, Some(0));
    } else if let Err(fault) = read_fx(cx, descriptor, addr) {
        cx.fault(fault);
    }
    0
}

/// The number of XMM registers in an image.
fn vectors(descriptor: u32) -> usize {
    if descriptor & 2 != 0 { 16 } else { 8 }
}

/// Which parts of an image are written or read.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    /// The x87 state.
    pub x87: bool,
    /// MXCSR.
    pub mxcsr: bool,
    /// The XMM registers.
    pub vectors: bool,
}

impl Parts {
    /// Everything.
    pub const ALL: Parts = Parts {
        x87: true,
        mxcsr: true,
        vectors: true,
    };
}

/// Writes the image; its last 96 bytes and the vectors that the mode does not have stay.
fn write_fx(cx: &Cx, descriptor: u32, addr: u64) -> Result<(), MemFault> {
    cx.env().memory.check(addr, 512, true)?;
    write_parts(cx, descriptor, addr, Parts::ALL)
}

/// Writes parts of the image.
pub fn write_parts(cx: &Cx, descriptor: u32, addr: u64, parts: Parts) -> Result<(), MemFault> {
    let (m, s) = (&cx.env().memory, cx.state());
    let at = |offset: u64| addr.wrapping_add(offset);
    if parts.x87 {
        let f = &s.x87;
        let header = u64::from(f.control)
            | u64::from(f.status_word()) << 16
            | u64::from(f.tags) << 32
            | u64::from(f.opcode & 0x7ff) << 48;
        let (mut ip, mut dp) = (f.ip, f.dp);
        if descriptor & 1 == 0 {
            ip = ip & 0xffff_ffff | u64::from(f.cs) << 32;
            dp = dp & 0xffff_ffff | u64::from(f.ds) << 32;
        }
        m.write(addr, header)?;
        m.write(at(8), ip)?;
        m.write(at(16), dp)?;
        for i in 0..8u8 {
            let r = f.st(i);
            let v = u128::from(r.mantissa) | u128::from(r.exponent as u16) << 64;
            m.write(at(32 + 16 * u64::from(i)), v)?;
        }
    }
    if parts.mxcsr {
        let mx = u64::from(mxcsr(cx)) | u64::from(MXCSR_MASK) << 32;
        m.write(at(24), mx)?;
    }
    if parts.vectors {
        for n in 0..vectors(descriptor) {
            m.write(at(160 + 16 * n as u64), s.xmm[n])?;
        }
    }
    Ok(())
}

/// Reads the image; #GP for bits that MXCSR does not have.
fn read_fx(cx: &Cx, descriptor: u32, addr: u64) -> Result<(), MemFault> {
    cx.env().memory.check(addr, 512, false)?;
    read_parts(cx, descriptor, addr, Parts::ALL).map(|_| ())
}

/// Reads parts of an image that can be read; false if it raised #GP for bits that MXCSR does not
/// have, and changed nothing.
pub fn read_parts(cx: &Cx, descriptor: u32, addr: u64, parts: Parts) -> Result<bool, MemFault> {
    let (m, s) = (&cx.env().memory, cx.state());
    let at = |offset: u64| addr.wrapping_add(offset);
    let new_mxcsr: u32 = m.read(at(24))?;
    if parts.mxcsr && new_mxcsr & !MXCSR_MASK != 0 {
        cx.raise(GP, Some(0));
        return Ok(false);
    }
    if parts.x87 {
        let low: u128 = m.read(addr)?;
        let dp: u64 = m.read(at(16))?;
        let f = &mut s.x87;
        f.control = 0x37f;
        f.set_status_word((low >> 16) as u16);
        f.set_control(low as u16);
        f.opcode = (low >> 48) as u16 & 0x7ff;
        (f.ip, f.dp) = ((low >> 64) as u64, dp);
        if descriptor & 1 == 0 {
            (f.cs, f.ds) = ((f.ip >> 32) as u16, (f.dp >> 32) as u16);
            (f.ip, f.dp) = (f.ip & 0xffff_ffff, f.dp & 0xffff_ffff);
        }
        for i in 0..8u8 {
            let v: u128 = m.read(at(32 + 16 * u64::from(i)))?;
            f.set(
                i,
                X87Reg {
                    mantissa: v as u64,
                    exponent: (v >> 64) as u64 & 0xffff,
                },
            );
        }
        f.tags = (low >> 32) as u8;
    }
    if parts.vectors {
        for n in 0..vectors(descriptor) {
            s.xmm[n] = m.read(at(160 + 16 * n as u64))?;
        }
    }
    if parts.mxcsr {
        set_mxcsr(cx, new_mxcsr);
    }
    Ok(true)
}
