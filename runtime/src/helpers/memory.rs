//! Memory accesses of compiled code that the soft TLB does not have: done whole, through paging.
//!
//! They are called straight from compiled code, not through a table of counted helpers: see
//! [`metaphrase_backend::HelperTable`] for the arguments. Values are zero-extended.

use super::Cx;
use crate::memory::{GuestMemory, MemFault, Word};
use crate::state::CpuState;
use metaphrase_backend::TlbAccess;
use metaphrase_ir::RmwOp;
use std::ffi::c_void;

/// Runs an access; a refused one leaves the region.
fn access<T: Default>(
    state: *mut c_void,
    f: impl FnOnce(&mut CpuState, &GuestMemory) -> Result<T, MemFault>,
) -> T {
    let cx = Cx {
        state: state.cast(),
    };
    f(cx.state(), &cx.env().memory).unwrap_or_else(|fault| {
        cx.fault(fault);
        T::default()
    })
}

/// A load.
pub(super) unsafe extern "C" fn load(
    state: *mut c_void,
    descriptor: u64,
    addr: u64,
    _: u64,
    _: u64,
) -> u64 {
    let a = TlbAccess::unpack(descriptor);
    access(state, |s, m| {
        Ok(match (a.bytes, a.update) {
            (1, false) => m.read::<u8>(addr)?.into(),
            (2, false) => m.read::<u16>(addr)?.into(),
            (4, false) => m.read::<u32>(addr)?.into(),
            (8, false) => m.read::<u64>(addr)?,
            (1, true) => m.read_update::<u8>(addr)?.into(),
            (2, true) => m.read_update::<u16>(addr)?.into(),
            (4, true) => m.read_update::<u32>(addr)?.into(),
            (8, true) => m.read_update::<u64>(addr)?,
            (_, false) => {
                s.helper_v[0] = m.read(addr)?;
                0
            }
            (_, true) => {
                s.helper_v[0] = m.read_update(addr)?;
                0
            }
        })
    })
}

/// A store.
pub(super) unsafe extern "C" fn store(
    state: *mut c_void,
    descriptor: u64,
    addr: u64,
    value: u64,
    _: u64,
) -> u64 {
    access(state, |s, m| {
        match TlbAccess::unpack(descriptor).bytes {
            1 => m.write(addr, value as u8)?,
            2 => m.write(addr, value as u16)?,
            4 => m.write(addr, value as u32)?,
            8 => m.write(addr, value)?,
            _ => m.write(addr, s.helper_v[0])?,
        }
        Ok(0)
    })
}

/// A read-modify-write.
pub(super) unsafe extern "C" fn rmw(
    state: *mut c_void,
    descriptor: u64,
    addr: u64,
    value: u64,
    _: u64,
) -> u64 {
    fn of<T: Word + Into<u64>>(
        m: &GuestMemory,
        op: u8,
        addr: u64,
        value: T,
    ) -> Result<u64, MemFault> {
        Ok(m.rmw(RmwOp::from_imm(op.into()), addr, value)?.into())
    }
    let a = TlbAccess::unpack(descriptor);
    access(state, |_, m| match a.bytes {
        1 => of(m, a.op, addr, value as u8),
        2 => of(m, a.op, addr, value as u16),
        4 => of(m, a.op, addr, value as u32),
        _ => of(m, a.op, addr, value),
    })
}

/// A compare-and-swap.
pub(super) unsafe extern "C" fn cas(
    state: *mut c_void,
    descriptor: u64,
    addr: u64,
    expected: u64,
    new: u64,
) -> u64 {
    access(state, |s, m| {
        Ok(match TlbAccess::unpack(descriptor).bytes {
            1 => m.cas(addr, expected as u8, new as u8)?.into(),
            2 => m.cas(addr, expected as u16, new as u16)?.into(),
            4 => m.cas(addr, expected as u32, new as u32)?.into(),
            8 => m.cas(addr, expected, new)?,
            _ => {
                s.helper_v[0] = m.cas128(addr, s.helper_v[0], s.helper_v[1])?;
                0
            }
        })
    })
}
