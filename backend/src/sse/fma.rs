//! Fused multiplication and addition by the host's FMA3.

use super::soft::fma as portable;
use metaphrase_ir::FmaOp;

pub use portable::{Found, from_half, to_half};

/// What [`portable::fma`] finds with the masks of `mxcsr`.
pub fn fma_portably(op: FmaOp, x: u128, y: u128, z: u128, mxcsr: u32) -> Found {
    portable::fma(op, x, y, z, mxcsr)
}

/// x * y + z by the host, under its MXCSR of the moment, which is the guest's with every exception
/// masked; `None` if the host cannot.
#[cfg(target_arch = "x86_64")]
pub fn fma(op: FmaOp, x: u128, y: u128, z: u128) -> Option<u128> {
    use std::arch::x86_64::__m128i;
    if !std::arch::is_x86_feature_detected!("fma") {
        return None;
    }
    macro_rules! run {
        ($name:literal) => {{
            // SAFETY: vectors are 16 bytes without invalid values; the host has the instruction,
            // which changes its destination and MXCSR's flags.
            unsafe {
                let [x, y, z] = [x, y, z].map(|v| std::mem::transmute::<u128, __m128i>(v));
                let mut r = y;
                std::arch::asm!(
                    concat!($name, " {r}, {x}, {z}"),
                    r = inout(xmm_reg) r,
                    x = in(xmm_reg) x,
                    z = in(xmm_reg) z,
                    options(pure, nomem, nostack, preserves_flags)
                );
                std::mem::transmute::<__m128i, u128>(r)
            }
        }};
    }
    macro_rules! of_type {
        ($s:literal, $d:literal) => {
            if op.double { run!($d) } else { run!($s) }
        };
    }
    Some(match (op.negate, op.even, op.odd) {
        (false, false, false) => of_type!("vfmadd213ps", "vfmadd213pd"),
        (false, true, true) => of_type!("vfmsub213ps", "vfmsub213pd"),
        (true, false, false) => of_type!("vfnmadd213ps", "vfnmadd213pd"),
        (true, true, true) => of_type!("vfnmsub213ps", "vfnmsub213pd"),
        (false, true, false) => of_type!("vfmaddsub213ps", "vfmaddsub213pd"),
        (false, false, true) => of_type!("vfmsubadd213ps", "vfmsubadd213pd"),
        _ => return None,
    })
}

/// x * y + z by the host; `None`: it cannot.
#[cfg(not(target_arch = "x86_64"))]
pub fn fma(_op: FmaOp, _x: u128, _y: u128, _z: u128) -> Option<u128> {
    None
}
