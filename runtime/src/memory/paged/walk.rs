//! The walk through the guest's paging structures (SDM volume 3, chapter 4).
//!
//! Each entry that the walk passes gets its accessed bit; the last one only if the access is
//! allowed, together with the dirty bit if it writes. Both are set by compare-and-swap; if the
//! guest (another processor, a device) has changed the entry meanwhile, the walk starts again.

use super::tlb::{Class, Found};
use super::{Access, PAGE, PagingContext, PhysMemory};
use crate::system::{Fault, cr0, cr4, efer};

/// Physical addresses have that many bits.
pub const MAXPHYADDR: u32 = 40;

/// Bits of entries of paging structures (SDM volume 3, tables 4-4 to 4-20).
pub(super) mod entry {
    /// Present.
    pub const P: u64 = 1;
    /// Writable.
    pub const W: u64 = 1 << 1;
    /// For level 3 too.
    pub const U: u64 = 1 << 2;
    /// Accessed.
    pub const A: u64 = 1 << 5;
    /// Dirty.
    pub const D: u64 = 1 << 6;
    /// Maps a page although it is in an upper table.
    pub const PS: u64 = 1 << 7;
    /// Global.
    pub const G: u64 = 1 << 8;
    /// Not executable.
    pub const XD: u64 = 1 << 63;
}

/// Bits of a page-fault error code (SDM volume 3, 4.7).
mod code {
    pub const P: u32 = 1;
    pub const W: u32 = 1 << 1;
    pub const U: u32 = 1 << 2;
    pub const RSVD: u32 = 1 << 3;
    pub const ID: u32 = 1 << 4;
}

/// The address bits of a 64-bit entry.
const ADDRESS: u64 = (1 << MAXPHYADDR) - PAGE;
/// Address bits of a 64-bit entry that no physical address has.
const BEYOND: u64 = (1 << 52) - (1 << MAXPHYADDR);
/// Bits 62 to 52, which only PAE paging reserves.
const HIGH: u64 = (1 << 63) - (1 << 52);

/// Whether the address is canonical with 48 bits.
pub(super) fn is_canonical(linear: u64) -> bool {
    (linear as i64) << 16 >> 16 == linear as i64
}

/// A walk on behalf of an access.
pub(super) struct Walk<'a> {
    pub(super) phys: &'a PhysMemory,
    pub(super) context: &'a PagingContext,
    pub(super) linear: u64,
    pub(super) access: Access,
    pub(super) class: Class,
}

/// Another walk may succeed: an entry has changed.
struct Changed;

/// What the entries passed so far allow.
#[derive(Clone, Copy)]
struct Allowed {
    /// All bits that all entries have: W and U.
    all: u64,
    /// All bits that any entry has: XD.
    any: u64,
}

impl Walk<'_> {
    /// The page, or the fault.
    pub(super) fn run(&self) -> Result<Found, Fault> {
        let cx = self.context;
        if cx.efer & efer::LMA != 0 && !is_canonical(self.linear) {
            return Err(Fault::gp(0));
        }
        if cx.cr0 & cr0::PG == 0 {
            return Ok(Found {
                phys: self.gate(self.linear & !(PAGE - 1)),
                writable: true,
                global: false,
                shift: 12,
            });
        }
        loop {
            let attempt = if cx.cr4 & cr4::PAE == 0 {
                self.narrow()
            } else {
                self.wide()
            };
            if let Ok(outcome) = attempt {
                return outcome;
            }
        }
    }

    /// The A20 gate.
    fn gate(&self, phys: u64) -> u64 {
        if self.context.a20 {
            phys
        } else {
            phys & !(1 << 20)
        }
    }

    /// The width of the CPU model's physical addresses.
    fn width(&self) -> u32 {
        MAXPHYADDR - u32::from(self.context.missing_bits).min(8)
    }

    fn has(&self, cr4: u64) -> bool {
        self.context.cr4 & cr4 != 0
    }

    /// Entries of 64 bits: PAE and 4-level paging.
    fn wide(&self) -> Result<Result<Found, Fault>, Changed> {
        let cx = self.context;
        let long = cx.efer & efer::LMA != 0;
        let mut allowed = Allowed {
            all: u64::MAX,
            any: 0,
        };
        let (mut table, mut shift) = if long {
            (cx.cr3 & ADDRESS, 39)
        } else {
            // The processor holds the four entries of the first table itself (4.4.1); it has
            // checked their reserved bits when it loaded them.
            let first = cx.pdpte[(self.linear >> 30 & 3) as usize];
            if first & entry::P == 0 {
                return Ok(Err(self.fault(0)));
            }
            (first & ADDRESS, 21)
        };
        loop {
            let at = self.gate(table | (self.linear >> shift & 0x1ff) << 3);
            let found = self.phys.entry64(at);
            if found & entry::P == 0 {
                return Ok(Err(self.fault(0)));
            }
            if found & self.reserved(found, shift, long) != 0 {
                return Ok(Err(self.fault(code::P | code::RSVD)));
            }
            allowed.all &= found;
            allowed.any |= found;
            if shift == 12 || found & entry::PS != 0 {
                let swap = |new| self.phys.swap64(at, found, new);
                let base = found & ADDRESS & !((1 << shift) - 1);
                return self.leaf(found, base, shift, allowed, swap);
            }
            self.mark(found, entry::A, |new| self.phys.swap64(at, found, new))?;
            table = found & ADDRESS;
            shift -= 9;
        }
    }

    /// The bits of a 64-bit entry that must be 0.
    fn reserved(&self, found: u64, shift: u32, long: bool) -> u64 {
        let mut reserved = BEYOND | ((1 << MAXPHYADDR) - (1 << self.width()));
        if !long {
            reserved |= HIGH;
        }
        if self.context.efer & efer::NXE == 0 {
            reserved |= entry::XD;
        }
        if shift == 39 || shift == 30 && self.context.no_gib_pages {
            reserved |= entry::PS;
        } else if shift > 12 && found & entry::PS != 0 {
            // Between the PAT bit and the address.
            reserved |= (1 << shift) - (1 << 13);
        }
        reserved
    }

    /// Entries of 32 bits (4.3).
    fn narrow(&self) -> Result<Result<Found, Fault>, Changed> {
        let directory = self.context.cr3 & 0xffff_f000;
        let at = self.gate(directory | (self.linear >> 22 & 0x3ff) << 2);
        let upper = self.phys.entry32(at);
        let found = u64::from(upper);
        if found & entry::P == 0 {
            return Ok(Err(self.fault(0)));
        }
        let mut allowed = Allowed { all: found, any: 0 };
        if found & entry::PS != 0 && self.has(cr4::PSE) {
            // PSE-36: bits 20 to 13 are bits 39 to 32 of the address; those that it does not have
            // are reserved, as is bit 21.
            if found & ((1 << 22) - (1 << (self.width() - 19))) != 0 {
                return Ok(Err(self.fault(code::P | code::RSVD)));
            }
            let base = found & 0xffc0_0000 | (found >> 13 & 0xff) << 32;
            let swap = |new| self.phys.swap32(at, upper, new as u32);
            return self.leaf(found, base, 22, allowed, swap);
        }
        self.mark(found, entry::A, |new| {
            self.phys.swap32(at, upper, new as u32)
        })?;
        let at = self.gate(found & 0xffff_f000 | (self.linear >> 12 & 0x3ff) << 2);
        let lower = self.phys.entry32(at);
        let found = u64::from(lower);
        if found & entry::P == 0 {
            return Ok(Err(self.fault(0)));
        }
        allowed.all &= found;
        let swap = |new| self.phys.swap32(at, lower, new as u32);
        self.leaf(found, found & 0xffff_f000, 12, allowed, swap)
    }

    /// The entry that maps the page.
    fn leaf(
        &self,
        found: u64,
        base: u64,
        shift: u32,
        allowed: Allowed,
        swap: impl Fn(u64) -> bool,
    ) -> Result<Result<Found, Fault>, Changed> {
        if !self.permits(self.access, allowed) {
            return Ok(Err(self.fault(code::P)));
        }
        let wanted = match self.access {
            Access::Write => entry::A | entry::D,
            Access::Read | Access::Fetch => entry::A,
        };
        self.mark(found, wanted, swap)?;
        let dirty = (found | wanted) & entry::D != 0;
        let offset = self.linear & ((1 << shift) - 1) & !(PAGE - 1);
        Ok(Ok(Found {
            phys: self.gate(base | offset),
            writable: dirty && self.permits(Access::Write, allowed),
            global: found & entry::G != 0 && self.has(cr4::PGE),
            shift: shift as u8,
        }))
    }

    /// Sets bits in an entry.
    fn mark(&self, found: u64, bits: u64, swap: impl Fn(u64) -> bool) -> Result<(), Changed> {
        if found & bits == bits || swap(found | bits) {
            Ok(())
        } else {
            Err(Changed)
        }
    }

    /// SDM volume 3, 4.6.1.
    fn permits(&self, access: Access, allowed: Allowed) -> bool {
        let user_page = allowed.all & entry::U != 0;
        let writable = allowed.all & entry::W != 0;
        let executable = allowed.any & entry::XD == 0;
        if self.class == Class::User {
            return user_page
                && match access {
                    Access::Read => true,
                    Access::Write => writable,
                    Access::Fetch => executable,
                };
        }
        let open = !user_page || !self.has(cr4::SMAP) || self.class == Class::SupervisorAc;
        match access {
            Access::Read => open,
            Access::Write => open && (writable || self.context.cr0 & cr0::WP == 0),
            Access::Fetch => executable && !(user_page && self.has(cr4::SMEP)),
        }
    }

    /// #PF with the bits that the access itself gives.
    fn fault(&self, mut bits: u32) -> Fault {
        if self.access == Access::Write {
            bits |= code::W;
        }
        if self.class == Class::User {
            bits |= code::U;
        }
        let nx = self.has(cr4::PAE) && self.context.efer & efer::NXE != 0;
        if self.access == Access::Fetch && (nx || self.has(cr4::SMEP)) {
            bits |= code::ID;
        }
        Fault::pf(self.linear, bits)
    }
}
