//! Guest memory of a full system: linear addresses through paging to physical memory.
//!
//! - `phys.rs`: what is at a physical address; `shadow.rs`: where that changes.
//! - `walk.rs`: the guest's paging structures. `tlb.rs`: what walks have found.
//! - `access.rs`: reads, writes and fetches; `device.rs`: those of devices.
//! - `stats.rs`: counters.

mod access;
mod device;
mod phys;
mod shadow;
mod stats;
#[cfg(test)]
mod tests;
mod tlb;
mod walk;

pub use super::PAGE;
use crate::activity::{Doing, Note};
use crate::system::{Fault, cr0, cr4, efer};
use metaphrase_backend::{TLB_ENTRIES, TlbEntry};
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Instant;
use tlb::{Class, Found, Tlb};
use walk::Walk;

pub use phys::{CODE_GRAIN, PhysError, PhysMemory, Place};
pub use stats::TlbStats;
pub use walk::MAXPHYADDR;

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
    /// The page-directory-pointer-table entries, which PAE paging loads with CR3 (SDM volume 3,
    /// 4.4.1).
    pub pdpte: [u64; 4],
    /// IA32_EFER.
    pub efer: u64,
    /// The current privilege level.
    pub cpl: u8,
    /// RFLAGS.AC, which SMAP looks at.
    pub ac: bool,
    /// A20 is open.
    pub a20: bool,
    /// How many bits the CPU model's physical addresses have less than [`MAXPHYADDR`].
    pub missing_bits: u8,
    /// The CPU model has no 1 GiB pages: the bit that asks for one is reserved.
    pub no_gib_pages: bool,
}

/// The linear address space of one virtual CPU; only its thread uses it.
#[derive(Debug)]
pub struct Paged {
    phys: Arc<PhysMemory>,
    context: Cell<PagingContext>,
    generation: Cell<u64>,
    tlb: Tlb,
    /// What the CPU does now.
    pub doing: Note,
    /// Whose rights the current level has, and the table for it.
    class: Cell<Class>,
    table: Cell<*const TlbEntry>,
    /// The instruction that is executed runs alone, so that guest instructions may access devices.
    alone: Cell<bool>,
    /// A device was accessed.
    device_access: Cell<bool>,
    stats: RefCell<TlbStats>,
}

impl Paged {
    /// Paging off, over that memory.
    pub fn new(phys: Arc<PhysMemory>) -> Paged {
        let tlb = Tlb::new();
        Paged {
            phys,
            context: Cell::new(PagingContext {
                a20: true,
                ..PagingContext::default()
            }),
            generation: Cell::default(),
            class: Cell::new(Class::Supervisor),
            table: Cell::new(tlb.table(Class::Supervisor)),
            tlb,
            doing: Note::default(),
            alone: Cell::default(),
            device_access: Cell::default(),
            stats: RefCell::default(),
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

    /// The table of the soft TLB for the current level, which compiled code probes. To be asked
    /// again after each [`Paged::set_context`].
    pub fn table(&self) -> *mut std::ffi::c_void {
        self.table.get().cast_mut().cast()
    }

    /// The counters.
    pub fn stats(&self) -> TlbStats {
        *self.stats.borrow()
    }

    fn count(&self, f: impl FnOnce(&mut TlbStats)) {
        f(&mut self.stats.borrow_mut());
    }

    /// Another context; drops what the change makes stale (SDM volume 3, 4.10.4.1). MOV to CR3
    /// flushes even if it changes nothing: that takes [`Paged::flush`].
    pub fn set_context(&self, context: PagingContext) {
        let old = self.context.replace(context);
        let class = if context.cpl == 3 {
            Class::User
        } else if context.ac && context.cr4 & cr4::SMAP != 0 {
            Class::SupervisorAc
        } else {
            Class::Supervisor
        };
        self.class.set(class);
        self.table.set(self.tlb.table(class));
        const CR0: u64 = cr0::PG | cr0::WP;
        const CR4: u64 = cr4::PSE | cr4::PAE | cr4::PGE | cr4::PCIDE | cr4::SMEP | cr4::SMAP;
        const EFER: u64 = efer::NXE | efer::LMA;
        let rules = |c: PagingContext| (c.cr0 & CR0, c.cr4 & CR4, c.efer & EFER, c.a20);
        if rules(old) != rules(context) {
            self.flush(true);
        } else if (old.cr3, old.pdpte) != (context.cr3, context.pdpte) {
            self.flush(false);
        }
    }

    /// A number that changes whenever code that was found at a linear address may have come to be
    /// elsewhere, or to have other rights: whoever remembers where code is compares it. (A change
    /// of the privilege level alone is none.)
    pub fn generation(&self) -> u64 {
        self.generation.get()
    }

    /// Code has moved, if so it is.
    fn remapped(&self, code: bool) {
        let step = u64::from(code);
        self.generation
            .set(self.generation.get().wrapping_add(step));
    }

    /// Drops the translations of the page that holds `linear`, global ones too (INVLPG).
    pub fn flush_page(&self, linear: u64) {
        let (large, code) = self.tlb.flush_page(self.cut(linear));
        self.count(|s| {
            s.flushes_page += 1;
            s.flushes_large += u64::from(large);
        });
        self.remapped(code);
    }

    /// Drops translations: all, or (`global` false) all that are not global.
    pub fn flush(&self, global: bool) {
        let Some(code) = self.tlb.flush(global) else {
            return;
        };
        self.count(|s| {
            if global {
                s.flushes += 1;
            } else {
                s.flushes_non_global += 1;
            }
        });
        self.remapped(code);
    }

    /// Notes that `len` bytes from physical address `addr` on, all on one page, were translated:
    /// writes there are noticed from now on.
    pub fn note_code(&self, addr: u64, len: u64) {
        if self.phys.note_code(addr, len) {
            self.tlb.forbid_writes(addr & !(PAGE - 1));
        }
    }

    /// Outside long mode linear addresses have 32 bits.
    #[inline]
    fn cut(&self, linear: u64) -> u64 {
        if self.context.get().efer & efer::LMA != 0 {
            linear
        } else {
            linear & 0xffff_ffff
        }
    }

    #[inline]
    fn class(&self) -> Class {
        self.class.get()
    }

    fn class_of(&self, rights: Rights) -> Class {
        match rights {
            Rights::Current => self.class(),
            Rights::Supervisor => Class::Supervisor,
            Rights::User => Class::User,
        }
    }

    /// The host address of an access, if the soft TLB has it.
    #[inline(always)]
    fn hit(&self, linear: u64, size: u64, write: bool) -> Option<*mut u8> {
        let index = (linear / PAGE) as usize % TLB_ENTRIES;
        // SAFETY: the table has that many entries and lives as long as `self`; nobody writes to it
        // during the call.
        let entry = unsafe { &*self.table.get().add(index) };
        let last = linear.wrapping_add(size - 1) & !(PAGE - 1);
        let tag = if write { entry.write } else { entry.read };
        let host = linear.wrapping_add(entry.addend);
        (tag == last).then(|| std::ptr::with_exposed_provenance_mut(host as usize))
    }

    /// Where a data access to one page goes: through the TLB, or by a walk that fills it.
    fn resolve(&self, class: Class, linear: u64, access: Access) -> Result<(u64, Place), Fault> {
        let page = linear & !(PAGE - 1);
        let write = access == Access::Write;
        let mut entry = self.tlb.entry(class, page);
        if !tlb::allows(&entry, page, write) {
            entry = self.miss(class, linear, access)?;
        } else if write && !self.phys.has_code(tlb::phys(&entry) / PAGE) {
            self.tlb.allow_writes(class, page);
        }
        Ok((
            tlb::phys(&entry) | (linear % PAGE),
            tlb::place(&entry, page),
        ))
    }

    /// Fills an entry, or finds the fault.
    fn miss(&self, class: Class, linear: u64, access: Access) -> Result<TlbEntry, Fault> {
        let _doing = self.doing.during(Doing::Memory);
        const SAMPLE: u64 = 64;
        let sampled = self.stats.borrow().misses.is_multiple_of(SAMPLE);
        let begun = sampled.then(Instant::now);
        self.count(|s| s.misses += 1);
        let outcome = self.walk(class, linear, access).map(|found| {
            let place = self.phys.place(found.phys);
            let code = self.phys.has_code(found.phys / PAGE);
            let page = linear & !(PAGE - 1);
            self.tlb.fill(class, page, found, place, code)
        });
        if let Some(begun) = begun {
            let ns = begun.elapsed().as_nanos() as u64;
            self.count(|s| s.miss_ns = s.miss_ns.wrapping_add(ns.wrapping_mul(SAMPLE)));
        }
        outcome
    }

    fn walk(&self, class: Class, linear: u64, access: Access) -> Result<Found, Fault> {
        let context = self.context.get();
        let found = Walk {
            phys: &self.phys,
            context: &context,
            linear,
            access,
            class,
        }
        .run();
        self.count(|s| {
            s.walks += u64::from(context.cr0 & cr0::PG != 0);
            s.faults += u64::from(found.is_err());
        });
        found
    }

    /// The physical address, or the fault that the access gives. Sets accessed and dirty bits.
    pub fn translate(&self, linear: u64, access: Access, rights: Rights) -> Result<u64, Fault> {
        let linear = self.cut(linear);
        let class = self.class_of(rights);
        if access == Access::Fetch {
            return self.fetch_address(linear, class == Class::User);
        }
        self.resolve(class, linear, access).map(|(phys, _)| phys)
    }

    /// The physical address of code at `linear`, with the current level's rights.
    #[inline]
    pub fn translate_code(&self, linear: u64) -> Result<u64, Fault> {
        self.fetch_address(linear, self.class() == Class::User)
    }

    #[inline]
    fn fetch_address(&self, linear: u64, user: bool) -> Result<u64, Fault> {
        match self.tlb.find_code(linear, user) {
            Some(phys) => Ok(phys),
            None => self.code_miss(linear, user),
        }
    }

    #[cold]
    fn code_miss(&self, linear: u64, user: bool) -> Result<u64, Fault> {
        self.count(|s| s.code_misses += 1);
        let class = if user { Class::User } else { Class::Supervisor };
        let found = self.walk(class, linear, Access::Fetch)?;
        self.tlb.fill_code(linear, user, found);
        Ok(found.phys | (linear % PAGE))
    }
}
