//! Vector operations of AVX2 that have no op of their own: permutations and shifts by lane, masked
//! moves, gathers.

use super::Cx;
use crate::memory::MemFault;
use crate::state::CpuState;
use metaphrase_ir::{GatherOp, MaskOp, VecOp};

fn lanes32(f: impl Fn(u32) -> u32) -> u128 {
    (0..4).fold(0, |v, n| v | u128::from(f(n)) << (32 * n))
}

fn lanes64(f: impl Fn(u32) -> u64) -> u128 {
    (0..2).fold(0, |v, n| v | u128::from(f(n)) << (64 * n))
}

fn dword(v: u128, n: u32) -> u32 {
    (v >> (32 * (n & 3))) as u32
}

fn quad(v: u128, n: u32) -> u64 {
    (v >> (64 * (n & 1))) as u64
}

/// The operation on `a` and `b`; `op` is one of AVX's.
pub fn operate(op: VecOp, a: u128, b: u128) -> u128 {
    match op {
        VecOp::Vpermilps => lanes32(|n| dword(a, dword(b, n))),
        VecOp::Vpermilpd => lanes64(|n| quad(a, quad(b, n) as u32 >> 1)),
        VecOp::Vpsllvd => lanes32(|n| dword(a, n).checked_shl(dword(b, n)).unwrap_or(0)),
        VecOp::Vpsrlvd => lanes32(|n| dword(a, n).checked_shr(dword(b, n)).unwrap_or(0)),
        VecOp::Vpsravd => lanes32(|n| ((dword(a, n) as i32) >> dword(b, n).min(31)) as u32),
        VecOp::Vpsllvq => lanes64(|n| match quad(b, n) {
            count if count < 64 => quad(a, n) << count,
            _ => 0,
        }),
        _ => lanes64(|n| match quad(b, n) {
            count if count < 64 => quad(a, n) >> count,
            _ => 0,
        }),
    }
}

/// See [`metaphrase_ir::Helper::PermuteDwords`].
pub fn permute_dwords(cx: &Cx, _descriptor: u32, _args: [u64; 3]) -> u64 {
    let v = &mut cx.state().helper_v;
    let [low, high, which, _] = *v;
    v[0] = lanes32(|n| {
        let from = dword(which, n);
        dword(if from & 4 == 0 { low } else { high }, from)
    });
    0
}

/// A YMM register as bytes.
type Vector = [u8; 32];

fn read_ymm(s: &CpuState, n: u8) -> Vector {
    let n = usize::from(n & 15);
    let mut v = [0; 32];
    v[..16].copy_from_slice(&s.xmm[n].to_le_bytes());
    v[16..].copy_from_slice(&s.ymm_hi[n].to_le_bytes());
    v
}

fn write_ymm(s: &mut CpuState, n: u8, v: &Vector) {
    let n = usize::from(n & 15);
    let half = |at: usize| {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&v[at..at + 16]);
        u128::from_le_bytes(bytes)
    };
    (s.xmm[n], s.ymm_hi[n]) = (half(0), half(16));
}

/// Lane `n` of `size` bytes, 4 or 8, zero-extended.
fn lane(v: &Vector, n: usize, size: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes[..size].copy_from_slice(&v[n * size..][..size]);
    u64::from_le_bytes(bytes)
}

fn set_lane(v: &mut Vector, n: usize, size: usize, value: u64) {
    v[n * size..][..size].copy_from_slice(&value.to_le_bytes()[..size]);
}

fn is_chosen(mask: &Vector, n: usize, size: usize) -> bool {
    mask[n * size + size - 1] >> 7 != 0
}

/// See [`metaphrase_ir::Helper::MaskMove`].
pub fn mask_move(cx: &Cx, descriptor: u32, [addr, ..]: [u64; 3]) -> u64 {
    let op = MaskOp::unpack(descriptor);
    let moved = if op.store {
        mask_store(cx, op, addr)
    } else {
        mask_load(cx, op, addr)
    };
    if let Err(fault) = moved {
        cx.fault(fault);
    }
    0
}

/// Element size, and the elements that the mask chooses with their addresses.
fn chosen(s: &CpuState, op: MaskOp, addr: u64) -> (usize, impl Iterator<Item = (usize, u64)>) {
    let size = if op.quads { 8 } else { 4 };
    let count = if op.wide { 32 } else { 16 } / size;
    let mask = read_ymm(s, op.mask);
    let elements = (0..count).filter(move |&n| is_chosen(&mask, n, size));
    let at = move |n: usize| (n, addr.wrapping_add((n * size) as u64));
    (size, elements.map(at))
}

fn mask_load(cx: &Cx, op: MaskOp, addr: u64) -> Result<(), MemFault> {
    let (size, elements) = chosen(cx.state(), op, addr);
    let mut v = [0; 32];
    for (n, at) in elements {
        cx.env().memory.read_bytes(at, &mut v[n * size..][..size])?;
    }
    write_ymm(cx.state(), op.data, &v);
    Ok(())
}

fn mask_store(cx: &Cx, op: MaskOp, addr: u64) -> Result<(), MemFault> {
    let m = &cx.env().memory;
    let (size, elements) = chosen(cx.state(), op, addr);
    for (_, at) in elements {
        m.check(at, size as u64, true)?;
    }
    let v = read_ymm(cx.state(), op.data);
    let (_, elements) = chosen(cx.state(), op, addr);
    for (n, at) in elements {
        if op.quads {
            m.write(at, lane(&v, n, 8))?;
        } else {
            m.write(at, lane(&v, n, 4) as u32)?;
        }
    }
    Ok(())
}

/// See [`metaphrase_ir::Helper::Gather`]. From the low element up; where one faults, those below
/// are in the destination and gone from the mask (SDM volume 2, VPGATHERDD).
pub fn gather(cx: &Cx, descriptor: u32, [base, segment, _]: [u64; 3]) -> u64 {
    let op = GatherOp::unpack(descriptor);
    let (size, index_size) = (
        if op.quads { 8 } else { 4 },
        if op.quad_index { 8 } else { 4 },
    );
    let count = usize::from(op.count.min(8))
        .min(32 / size)
        .min(32 / index_size);
    let index = read_ymm(cx.state(), op.index);
    let (mut to, mut mask) = (read_ymm(cx.state(), op.to), read_ymm(cx.state(), op.mask));
    for n in 0..count {
        if is_chosen(&mask, n, size) {
            let at = match lane(&index, n, index_size) {
                i if op.quad_index => i,
                i => i as i32 as u64,
            };
            let mut at = base.wrapping_add(at << op.scale);
            if op.short {
                at &= 0xffff_ffff;
            }
            at = at.wrapping_add(segment);
            if !op.long {
                at &= 0xffff_ffff;
            }
            let mut bytes = [0; 8];
            if let Err(fault) = cx.env().memory.read_bytes(at, &mut bytes[..size]) {
                write_ymm(cx.state(), op.to, &to);
                write_ymm(cx.state(), op.mask, &mask);
                cx.fault(fault);
                return 0;
            }
            set_lane(&mut to, n, size, u64::from_le_bytes(bytes));
        }
        set_lane(&mut mask, n, size, 0);
    }
    to[count * size..].fill(0);
    write_ymm(cx.state(), op.to, &to);
    write_ymm(cx.state(), op.mask, &[0; 32]);
    0
}
