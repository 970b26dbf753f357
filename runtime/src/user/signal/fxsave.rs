//! The floating-point state in signal frames: the 512-byte FXSAVE image and, where the CPU has
//! XSAVE, the rest of its image. The last 48 bytes of the 512 then say what follows, and a mark
//! behind the image that it is whole.

use crate::cpu_model::CpuModel;
use crate::helpers::xsave::{AVX, HEADER, UPPER};
use crate::memory::{GuestMemory, MemFault};
use crate::state::{CpuState, X87Reg};

/// In the description: an extended image follows.
const MAGIC1: u32 = 0x4650_5853;
/// Behind the extended image.
const MAGIC2: u32 = 0x4650_5845;
/// Where the description is.
const DESCRIPTION: u64 = 464;

/// The bytes that the state takes.
pub fn size(model: &CpuModel) -> u64 {
    match model.xcr0() {
        0 => 512,
        _ => u64::from(model.xsave_size()) + 4,
    }
}

/// Whether there is an extended image.
pub fn is_extended(model: &CpuModel) -> bool {
    model.xcr0() != 0
}

/// The whole state; `before` is what comes before it and counts as a part (the old state of i386).
pub fn whole(cpu: &CpuState, model: &CpuModel, is_64: bool, before: u64) -> Vec<u8> {
    let mut out = image(cpu, is_64).to_vec();
    let xcr0 = model.xcr0();
    if xcr0 == 0 {
        return out;
    }
    let size = model.xsave_size();
    out.truncate(DESCRIPTION as usize);
    out.extend(MAGIC1.to_le_bytes());
    out.extend((size + 4 + before as u32).to_le_bytes());
    out.extend(xcr0.to_le_bytes());
    out.extend(size.to_le_bytes());
    out.resize(HEADER as usize, 0);
    out.extend(xcr0.to_le_bytes());
    out.resize(UPPER as usize, 0);
    if xcr0 & AVX != 0 {
        for n in 0..16 {
            let there = is_64 || n < 8;
            let v = if there { cpu.ymm_hi[n] } else { 0 };
            out.extend(v.to_le_bytes());
        }
    }
    out.extend(MAGIC2.to_le_bytes());
    out
}

/// Loads the state from a frame. Without a whole extended image the upper halves become zero.
pub fn load(
    cpu: &mut CpuState,
    model: &CpuModel,
    memory: &GuestMemory,
    at: u64,
    is_64: bool,
) -> Result<(), MemFault> {
    let mut legacy = [0; 512];
    memory.read_bytes(at, &mut legacy)?;
    restore(cpu, &legacy, is_64);
    if !is_extended(model) {
        return Ok(());
    }
    let word = |offset: u64| memory.read::<u32>(at.wrapping_add(offset));
    let size = word(DESCRIPTION + 16)?;
    let is_whole = word(DESCRIPTION)? == MAGIC1
        && (UPPER..=u64::from(model.xsave_size())).contains(&u64::from(size))
        && word(size.into())? == MAGIC2;
    let present = if is_whole {
        memory.read::<u64>(at.wrapping_add(HEADER))?
            & memory.read::<u64>(at.wrapping_add(DESCRIPTION + 8))?
    } else {
        0
    };
    let upper = present & AVX != 0 && u64::from(size) >= UPPER + 256;
    for n in 0..if is_64 { 16 } else { 8 } {
        cpu.ymm_hi[n] = if upper {
            memory.read(at.wrapping_add(UPPER + 16 * n as u64))?
        } else {
            0
        };
    }
    Ok(())
}

/// MXCSR bits that may be set.
const MXCSR_MASK: u32 = 0xffff;

/// The image of the FPU and SSE state.
pub fn image(cpu: &CpuState, is_64: bool) -> [u8; 512] {
    let mut out = [0u8; 512];
    let x = &cpu.x87;
    put(&mut out, 0, &x.control.to_le_bytes());
    put(&mut out, 2, &status(cpu).to_le_bytes());
    out[4] = x.tags;
    put(&mut out, 6, &x.opcode.to_le_bytes());
    if is_64 {
        put(&mut out, 8, &x.ip.to_le_bytes());
        put(&mut out, 16, &x.dp.to_le_bytes());
    } else {
        put(&mut out, 8, &(x.ip as u32).to_le_bytes());
        put(&mut out, 12, &x.cs.to_le_bytes());
        put(&mut out, 16, &(x.dp as u32).to_le_bytes());
        put(&mut out, 20, &x.ds.to_le_bytes());
    }
    put(&mut out, 24, &cpu.mxcsr.to_le_bytes());
    put(&mut out, 28, &MXCSR_MASK.to_le_bytes());
    for n in 0..8 {
        let reg = st(cpu, n);
        put(&mut out, 32 + 16 * n, &reg.mantissa.to_le_bytes());
        put(&mut out, 40 + 16 * n, &(reg.exponent as u16).to_le_bytes());
    }
    for n in 0..if is_64 { 16 } else { 8 } {
        put(&mut out, 160 + 16 * n, &cpu.xmm[n].to_le_bytes());
    }
    out
}

/// Loads the state from an image. Bits of MXCSR that do not exist are dropped.
pub fn restore(cpu: &mut CpuState, image: &[u8; 512], is_64: bool) {
    let u16_at = |at: usize| u16::from_le_bytes([image[at], image[at + 1]]);
    let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
    let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
    let status = u16_at(2);
    let x = &mut cpu.x87;
    x.control = u16_at(0);
    x.status = status & !0x3800;
    x.top = status >> 11 & 7;
    x.tags = image[4];
    x.opcode = u16_at(6) & 0x7ff;
    if is_64 {
        x.ip = u64_at(8);
        x.dp = u64_at(16);
    } else {
        x.ip = u64::from(u32_at(8));
        x.cs = u16_at(12);
        x.dp = u64::from(u32_at(16));
        x.ds = u16_at(20);
    }
    for n in 0..8 {
        let reg = X87Reg {
            mantissa: u64_at(32 + 16 * n),
            exponent: u64::from(u16_at(40 + 16 * n)),
        };
        x.regs[(usize::from(x.top) + n) & 7] = reg;
    }
    cpu.mxcsr = u32_at(24) & MXCSR_MASK;
    for n in 0..if is_64 { 16 } else { 8 } {
        let at = 160 + 16 * n;
        cpu.xmm[n] = u128::from(u64_at(at)) | u128::from(u64_at(at + 8)) << 64;
    }
}

/// The status word with TOP.
pub fn status(cpu: &CpuState) -> u16 {
    cpu.x87.status & !0x3800 | (cpu.x87.top & 7) << 11
}

/// ST(n).
pub fn st(cpu: &CpuState, n: usize) -> X87Reg {
    cpu.x87.regs[(usize::from(cpu.x87.top) + n) & 7]
}

/// The full tag word: two bits a physical register.
pub fn full_tags(cpu: &CpuState) -> u16 {
    let mut word = 0;
    for n in 0..8 {
        let tag = if cpu.x87.tags >> n & 1 == 0 {
            3
        } else {
            let reg = cpu.x87.regs[n];
            match (reg.exponent & 0x7fff, reg.mantissa) {
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

fn put(out: &mut [u8; 512], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_round_trips() {
        let mut a = CpuState::new();
        a.x87.top = 5;
        a.x87.tags = 0b1110_0000;
        a.x87.status = 0x4100;
        a.x87.ip = 0x1122_3344_5566;
        for n in 0..8 {
            a.x87.regs[n] = X87Reg {
                mantissa: 1 << 63 | n as u64,
                exponent: 0x4000 + n as u64,
            };
        }
        for n in 0..16 {
            a.xmm[n] = (n as u128) << 100 | 77;
        }
        a.mxcsr = 0x5f80;
        let bytes = image(&a, true);
        assert_eq!(u16::from_le_bytes([bytes[2], bytes[3]]), 0x4100 | 5 << 11);
        // ST(0) is physical register 5.
        assert_eq!(bytes[32], 5);
        let mut b = CpuState::new();
        restore(&mut b, &bytes, true);
        assert_eq!(a.x87, b.x87);
        assert_eq!(a.xmm, b.xmm);
        assert_eq!(a.mxcsr, b.mxcsr);
    }

    #[test]
    fn full_tags_classify() {
        let mut cpu = CpuState::new();
        cpu.x87.tags = 0b111;
        cpu.x87.regs[0] = X87Reg {
            mantissa: 1 << 63,
            exponent: 0x3fff,
        };
        cpu.x87.regs[2] = X87Reg {
            mantissa: 1 << 63,
            exponent: 0x7fff,
        };
        assert_eq!(full_tags(&cpu), 0xffe4);
    }
}
