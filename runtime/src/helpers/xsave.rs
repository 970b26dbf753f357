//! XSAVE, XSAVEOPT, XSAVEC, XRSTOR and XGETBV (SDM volume 1, chapter 13), for the components x87,
//! SSE and AVX.
//!
//! The image: 512 bytes as FXSAVE has them, a header of 64 bytes (XSTATE_BV, XCOMP_BV, zeros), and
//! the upper halves of the YMM registers. They come at the same place in a compacted image, since
//! no component lies before them.

use super::Cx;
use super::sse::{mxcsr, set_mxcsr};
use super::x87::{Parts, init, read_parts, write_parts};
use crate::memory::MemFault;
use metaphrase_ir::XsaveOp;

const GP: u8 = 13;

/// The x87 component.
pub const X87: u64 = 1;
/// XMM registers; with AVX also MXCSR.
pub const SSE: u64 = 2;
/// The upper halves of the YMM registers.
pub const AVX: u64 = 4;

/// Where the header is.
pub const HEADER: u64 = 512;
/// Where the upper halves are.
pub const UPPER: u64 = 576;

/// XCOMP_BV: the image is compacted.
const COMPACTED: u64 = 1 << 63;

/// The components that are turned on: in a Linux program, all that the CPU model has.
fn xcr0(cx: &Cx) -> u64 {
    let env = cx.env();
    if env.memory.paged().is_some() {
        cx.state().sys.xcr0
    } else {
        env.cpu.xcr0()
    }
}

/// The registers that the mode has.
fn registers(op: XsaveOp) -> usize {
    if op.long { 16 } else { 8 }
}

/// XINUSE: the components that are not as after reset.
fn in_use(cx: &Cx, registers: usize) -> u64 {
    let s = cx.state_with_x87();
    let f = &s.x87;
    let pointers = (f.ip, f.dp, f.opcode, f.cs, f.ds) != (0, 0, 0, 0, 0);
    let used = f.regs.iter().any(|r| (r.mantissa, r.exponent) != (0, 0));
    let x87 = f.control != 0x37f || f.status_word() != 0 || f.tags != 0 || used || pointers;
    let any = |regs: &[u128; 16]| regs[..registers].iter().any(|&v| v != 0);
    let bit = |is: bool, component| if is { component } else { 0 };
    bit(x87, X87) | bit(any(&s.xmm), SSE) | bit(any(&s.ymm_hi), AVX)
}

/// See [`metaphrase_ir::Helper::Xsave`].
pub fn xsave(cx: &Cx, descriptor: u32, [addr, mask, _]: [u64; 3]) -> u64 {
    cx.state_with_x87();
    if addr % 64 != 0 {
        cx.raise(GP, Some(0));
    } else if let Err(fault) = write(cx, XsaveOp::unpack(descriptor), addr, mask) {
        cx.fault(fault);
    }
    0
}

fn write(cx: &Cx, op: XsaveOp, addr: u64, mask: u64) -> Result<(), MemFault> {
    let (m, s) = (&cx.env().memory, cx.state());
    let wanted = mask & xcr0(cx);
    let at = |offset: u64| addr.wrapping_add(offset);
    let size = if wanted & AVX != 0 {
        UPPER + 256
    } else {
        UPPER
    };
    m.check(addr, size, true)?;
    m.check(at(HEADER), 8, false)?;
    let mut used = in_use(cx, registers(op));
    // Compacted images keep MXCSR with the SSE component.
    if op.compacted && mxcsr(cx) != 0x1f80 {
        used |= SSE;
    }
    let write = if op.compacted || op.optimized {
        wanted & used
    } else {
        wanted
    };
    let parts = Parts {
        x87: write & X87 != 0,
        mxcsr: if op.compacted {
            write & SSE != 0
        } else {
            wanted & (SSE | AVX) != 0
        },
        vectors: write & SSE != 0,
    };
    write_parts(
        cx,
        u32::from(op.rex_w) | u32::from(op.long) << 1,
        addr,
        parts,
    )?;
    if write & AVX != 0 {
        for (n, v) in s.ymm_hi[..registers(op)].iter().enumerate() {
            m.write(at(UPPER + 16 * n as u64), *v)?;
        }
    }
    if op.compacted {
        m.write(at(HEADER), wanted & used)?;
        m.write(at(HEADER + 8), wanted | COMPACTED)?;
    } else {
        let old: u64 = m.read(at(HEADER))?;
        m.write(at(HEADER), old & !wanted | used & wanted)?;
    }
    Ok(())
}

/// See [`metaphrase_ir::Helper::Xrstor`].
pub fn xrstor(cx: &Cx, descriptor: u32, [addr, mask, _]: [u64; 3]) -> u64 {
    cx.state_with_x87();
    if addr % 64 != 0 {
        cx.raise(GP, Some(0));
    } else if let Err(fault) = read(cx, XsaveOp::unpack(descriptor), addr, mask) {
        cx.fault(fault);
    }
    0
}

fn read(cx: &Cx, op: XsaveOp, addr: u64, mask: u64) -> Result<(), MemFault> {
    let (m, s) = (&cx.env().memory, cx.state());
    let enabled = xcr0(cx);
    let wanted = mask & enabled;
    let at = |offset: u64| addr.wrapping_add(offset);
    m.check(addr, UPPER, false)?;
    let mut header = [0u64; 8];
    for (n, word) in header.iter_mut().enumerate() {
        *word = m.read(at(HEADER + 8 * n as u64))?;
    }
    let [present, layout, rest @ ..] = header;
    let compacted = layout & COMPACTED != 0;
    let bad = if compacted {
        let offers = op.offers_compaction;
        !offers
            || layout & !COMPACTED & !enabled != 0
            || present & !layout != 0
            || rest.iter().any(|&word| word != 0)
    } else {
        present & !enabled != 0 || layout != 0 || rest[0] != 0
    };
    if bad {
        cx.raise(GP, Some(0));
        return Ok(());
    }
    let (load, reset) = (wanted & present, wanted & !present);
    if load & AVX != 0 {
        m.check(at(UPPER), 256, false)?;
    }
    let parts = Parts {
        x87: load & X87 != 0,
        mxcsr: if compacted {
            load & SSE != 0
        } else {
            wanted & (SSE | AVX) != 0
        },
        vectors: load & SSE != 0,
    };
    let descriptor = u32::from(op.rex_w) | u32::from(op.long) << 1;
    if !read_parts(cx, descriptor, addr, parts)? {
        return Ok(());
    }
    let count = registers(op);
    if reset & X87 != 0 {
        init(&mut s.x87);
        s.x87.regs.fill(Default::default());
    }
    if reset & SSE != 0 {
        s.xmm[..count].fill(0);
        if compacted {
            set_mxcsr(cx, 0x1f80);
        }
    }
    if reset & AVX != 0 {
        s.ymm_hi[..count].fill(0);
    } else if load & AVX != 0 {
        for (n, v) in s.ymm_hi[..count].iter_mut().enumerate() {
            *v = m.read(at(UPPER + 16 * n as u64))?;
        }
    }
    Ok(())
}

/// See [`metaphrase_ir::Helper::Xgetbv`].
pub fn xgetbv(cx: &Cx, descriptor: u32, [number, ..]: [u64; 3]) -> u64 {
    let enabled = xcr0(cx);
    match number as u32 {
        0 => enabled,
        // MXCSR counts too here (SDM volume 1, 13.6).
        1 if descriptor & 1 != 0 => {
            let sse = if mxcsr(cx) == 0x1f80 { 0 } else { SSE };
            enabled & (in_use(cx, 16) | sse)
        }
        _ => {
            cx.raise(GP, Some(0));
            0
        }
    }
}
