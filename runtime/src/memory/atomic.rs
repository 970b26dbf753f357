//! Locked read-modify-write accesses.
//!
//! Naturally aligned ones are atomic on the host. Others (split locks, and 16 bytes on a host
//! without a 16-byte compare-and-swap) are done in two steps: atomic for the virtual CPU that does
//! them, which is all that one CPU can see.

use super::{GuestMemory, MemFault, Scalar};
use metaphrase_ir::RmwOp;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::SeqCst};

/// A value that can be modified atomically: `u8` to `u64`.
pub trait Word: Scalar {
    /// Combines `value` into `*at`; the old value.
    ///
    /// # Safety
    /// `at` is valid for reads and writes and aligned to the size of the value.
    unsafe fn rmw(at: *mut Self, op: RmwOp, value: Self) -> Self;

    /// Compare and swap; the old value.
    ///
    /// # Safety
    /// As for [`Word::rmw`].
    unsafe fn cas(at: *mut Self, expected: Self, new: Self) -> Self;

    /// What `op` makes of `old`.
    fn combine(op: RmwOp, old: Self, value: Self) -> Self;
}

macro_rules! words {
    ($($ty:ident $atomic:ident;)*) => {$(
        impl Word for $ty {
            #[inline]
            unsafe fn rmw(at: *mut $ty, op: RmwOp, value: $ty) -> $ty {
                // SAFETY: the caller vouches for the pointer.
                let cell = unsafe { $atomic::from_ptr(at) };
                match op {
                    RmwOp::Add => cell.fetch_add(value, SeqCst),
                    RmwOp::Sub => cell.fetch_sub(value, SeqCst),
                    RmwOp::And => cell.fetch_and(value, SeqCst),
                    RmwOp::Or => cell.fetch_or(value, SeqCst),
                    RmwOp::Xor => cell.fetch_xor(value, SeqCst),
                    RmwOp::Xchg => cell.swap(value, SeqCst),
                }
            }

            #[inline]
            unsafe fn cas(at: *mut $ty, expected: $ty, new: $ty) -> $ty {
                // SAFETY: the caller vouches for the pointer.
                let cell = unsafe { $atomic::from_ptr(at) };
                match cell.compare_exchange(expected, new, SeqCst, SeqCst) {
                    Ok(old) | Err(old) => old,
                }
            }

            #[inline]
            fn combine(op: RmwOp, old: $ty, value: $ty) -> $ty {
                match op {
                    RmwOp::Add => old.wrapping_add(value),
                    RmwOp::Sub => old.wrapping_sub(value),
                    RmwOp::And => old & value,
                    RmwOp::Or => old | value,
                    RmwOp::Xor => old ^ value,
                    RmwOp::Xchg => value,
                }
            }
        }
    )*};
}

words! {
    u8 AtomicU8;
    u16 AtomicU16;
    u32 AtomicU32;
    u64 AtomicU64;
}

impl GuestMemory {
    /// Atomically combines `value` into memory; the old value.
    pub fn rmw<T: Word>(&self, op: RmwOp, addr: u64, value: T) -> Result<T, MemFault> {
        if let Some(paged) = self.paged() {
            return paged.rmw(op, addr, value);
        }
        self.check(addr, size_of::<T>() as u64, true)?;
        let at = self.host(addr).cast::<T>();
        if at.is_aligned() {
            // SAFETY: every byte is writable, and the pointer is aligned.
            return Ok(unsafe { T::rmw(at, op, value) });
        }
        // SAFETY: every byte is writable.
        unsafe {
            let old = at.read_unaligned();
            at.write_unaligned(T::combine(op, old, value));
            Ok(old)
        }
    }

    /// Atomically writes `new` if memory equals `expected`; the old value. The page must be
    /// writable in either case, as CMPXCHG demands.
    pub fn cas<T: Word + PartialEq>(&self, addr: u64, expected: T, new: T) -> Result<T, MemFault> {
        if let Some(paged) = self.paged() {
            return paged.cas(addr, expected, new);
        }
        self.check(addr, size_of::<T>() as u64, true)?;
        let at = self.host(addr).cast::<T>();
        if at.is_aligned() {
            // SAFETY: every byte is writable, and the pointer is aligned.
            return Ok(unsafe { T::cas(at, expected, new) });
        }
        // SAFETY: every byte is writable.
        unsafe {
            let old = at.read_unaligned();
            if old == expected {
                at.write_unaligned(new);
            }
            Ok(old)
        }
    }

    /// [`GuestMemory::cas`] of 16 bytes.
    pub fn cas128(&self, addr: u64, expected: u128, new: u128) -> Result<u128, MemFault> {
        if let Some(paged) = self.paged() {
            return paged.cas128(addr, expected, new);
        }
        self.check(addr, 16, true)?;
        // SAFETY: every byte is writable.
        Ok(unsafe { swap128(self.host(addr).cast(), expected, new) })
    }
}

/// Compare and swap of 16 bytes, atomic if it is aligned and the host can; the old value.
///
/// # Safety
/// `at` is valid for reads and writes.
pub(super) unsafe fn swap128(at: *mut u128, expected: u128, new: u128) -> u128 {
    #[cfg(target_arch = "x86_64")]
    if at.is_aligned() && std::arch::is_x86_feature_detected!("cmpxchg16b") {
        // SAFETY: the caller vouches for the pointer; it is aligned, and the host has the
        // instruction.
        return unsafe { cas128_x86(at, expected, new) };
    }
    // SAFETY: as above.
    unsafe {
        let old = at.read_unaligned();
        if old == expected {
            at.write_unaligned(new);
        }
        old
    }
}

/// CMPXCHG16B.
///
/// # Safety
/// `at` is valid and aligned, and the host has the instruction.
#[cfg(target_arch = "x86_64")]
unsafe fn cas128_x86(at: *mut u128, expected: u128, new: u128) -> u128 {
    let (mut low, mut high) = (expected as u64, (expected >> 64) as u64);
    // SAFETY: the caller vouches for the pointer and the instruction. RBX, which the compiler
    // keeps for itself, is put back.
    unsafe {
        std::arch::asm!(
            "xchg {new}, rbx",
            "lock cmpxchg16b [rdi]",
            "mov rbx, {new}",
            new = inout(reg) new as u64 => _,
            in("rdi") at,
            in("rcx") (new >> 64) as u64,
            inout("rax") low,
            inout("rdx") high,
            options(nostack),
        );
    }
    u128::from(high) << 64 | u128::from(low)
}
