//! Guest memory of a full system: linear addresses through paging to physical memory.
//!
//! - `phys.rs`: what is at a physical address.

mod phys;

pub use super::PAGE;
use super::{MemFault, Scalar, Word};
use crate::system::Fault;
use metaphrase_ir::RmwOp;
use std::cell::Cell;
use std::sync::Arc;

pub use phys::{CODE_GRAIN, PhysError, PhysMemory, Place};

/// What an access wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Read data.
    Read,
    /// Write data, or read and write it.
    Write,
    /// Fetch an instruction.
    Fetch,
}

/// With whose rights an access is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rights {
    /// The current privilege level's.
    Current,
    /// A supervisor's, whatever the current level: descriptor tables, task states, the stack of a
    /// more privileged level (SDM volume 3, 4.6).
    Supervisor,
    /// A user's: the stack of level 3.
    User,
}

/// What translation of linear addresses depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PagingContext {
    /// CR0.
    pub cr0: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// IA32_EFER.
    pub efer: u64,
    /// The current privilege level.
    pub cpl: u8,
    /// RFLAGS.AC, which SMAP looks at.
    pub ac: bool,
    /// A20 is open.
    pub a20: bool,
}

/// The linear address space of one virtual CPU.
#[derive(Debug)]
pub struct Paged {
    phys: Arc<PhysMemory>,
    context: Cell<PagingContext>,
    generation: Cell<u64>,
}

impl Paged {
    /// Paging off, over that memory.
    pub fn new(phys: Arc<PhysMemory>) -> Paged {
        Paged {
            phys,
            context: Cell::default(),
            generation: Cell::default(),
        }
    }

    /// The physical memory.
    pub fn phys(&self) -> &Arc<PhysMemory> {
        &self.phys
    }

    /// What translation depends on now.
    pub fn context(&self) -> PagingContext {
        self.context.get()
    }

    /// Another context; drops what the change makes stale (SDM volume 3, 4.10.4.1).
    pub fn set_context(&self, context: PagingContext) {
        let old = self.context.replace(context);
        let mapping = |c: PagingContext| (c.cr0, c.cr3, c.cr4, c.efer, c.a20);
        if mapping(old) != mapping(context) {
            self.remapped();
        }
    }

    /// A number that changes whenever a linear address may have come to mean another physical one,
    /// or another right: whoever remembers more than `Paged` does compares it. (A change of the
    /// privilege level alone is none.)
    pub fn generation(&self) -> u64 {
        self.generation.get()
    }

    fn remapped(&self) {
        self.generation.set(self.generation.get().wrapping_add(1));
    }

    /// Drops the translations of the page that holds `linear`, global ones too (INVLPG).
    pub fn flush_page(&self, _linear: u64) {
        self.remapped();
    }

    /// Drops translations: all, or all that are not global.
    pub fn flush(&self, _global: bool) {
        self.remapped();
    }

    /// The physical address, or the fault that the access gives. Sets accessed and dirty bits.
    pub fn translate(&self, linear: u64, _access: Access, _rights: Rights) -> Result<u64, Fault> {
        Ok(linear)
    }

    /// Notes that `len` bytes from physical address `addr` on, all on one page, were translated:
    /// writes to them are to be seen from now on.
    pub fn note_code(&self, addr: u64, len: u64) {
        self.phys.note_code(addr, len);
    }

    /// Why a data access of the current instruction was refused at `linear`: the guest's fault, or
    /// `None` if translated code was in the way of a write. `stack`: it went through SS.
    pub fn fault_of(&self, linear: u64, write: bool, stack: bool) -> Option<Fault> {
        let _ = (linear, write, stack);
        None
    }

    /// Reads with the current level's rights.
    pub fn read<T: Scalar>(&self, linear: u64) -> Result<T, MemFault> {
        let mut bytes = [0u8; 16];
        self.phys.read_bytes(linear, &mut bytes[..size_of::<T>()]);
        // SAFETY: a scalar has at most 16 bytes, and any bytes are one.
        Ok(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
    }

    /// Writes with the current level's rights.
    pub fn write<T: Scalar>(&self, linear: u64, value: T) -> Result<(), MemFault> {
        let mut bytes = [0u8; 16];
        // SAFETY: a scalar has at most 16 bytes.
        unsafe { bytes.as_mut_ptr().cast::<T>().write_unaligned(value) };
        self.phys.write_bytes(linear, &bytes[..size_of::<T>()]);
        Ok(())
    }

    /// See [`super::GuestMemory::rmw`].
    pub fn rmw<T: Word>(&self, op: RmwOp, linear: u64, value: T) -> Result<T, MemFault> {
        let old = self.read::<T>(linear)?;
        self.write(linear, T::combine(op, old, value))?;
        Ok(old)
    }

    /// See [`super::GuestMemory::cas`].
    pub fn cas<T: Word + PartialEq>(
        &self,
        linear: u64,
        expected: T,
        new: T,
    ) -> Result<T, MemFault> {
        let old = self.read::<T>(linear)?;
        self.write(linear, if old == expected { new } else { old })?;
        Ok(old)
    }

    /// See [`super::GuestMemory::cas128`].
    pub fn cas128(&self, linear: u64, expected: u128, new: u128) -> Result<u128, MemFault> {
        let old = self.read::<u128>(linear)?;
        self.write(linear, if old == expected { new } else { old })?;
        Ok(old)
    }

    /// Whether an access of `len` bytes is allowed, all of it.
    pub fn check(&self, linear: u64, len: u64, write: bool) -> Result<(), MemFault> {
        let _ = (linear, len, write);
        Ok(())
    }

    /// The host address of `len` bytes on one page, if that is plain memory that may be accessed
    /// so with the current level's rights, and holds no translated code if it is to be written.
    pub fn span(&self, linear: u64, len: u64, write: bool) -> Result<Option<*mut u8>, MemFault> {
        let _ = (linear, len, write);
        Ok(None)
    }

    /// Reads with those rights; for helpers, which raise the fault.
    pub fn read_as<T: Scalar>(&self, rights: Rights, linear: u64) -> Result<T, Fault> {
        let _ = rights;
        self.read(linear).map_err(|_| Fault::gp(0))
    }

    /// Writes with those rights; for helpers. Translated code in the way becomes dirty.
    pub fn write_as<T: Scalar>(&self, rights: Rights, linear: u64, value: T) -> Result<(), Fault> {
        let _ = rights;
        self.write(linear, value).map_err(|_| Fault::gp(0))
    }

    /// Fetches code bytes: as many as can be, up to the length of `out`. Fewer mean that the byte
    /// behind them cannot be fetched.
    pub fn fetch(&self, linear: u64, out: &mut [u8]) -> usize {
        self.phys.read_bytes(linear, out);
        out.len()
    }
}
