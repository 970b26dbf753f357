//! The soft TLB: what the latest walks have found, in the form that compiled code probes.
//!
//! A table is direct-mapped by the linear page number; there is one for each [`Class`] of rights,
//! so that an entry says by itself what may be done. A tag is the linear address of the page if
//! compiled code may access it so, [`TlbEntry::slow`] of it if the access is allowed but needs a
//! helper (devices, writes to ROM and to pages with translated code), and [`TlbEntry::none`]
//! otherwise. A probe is one comparison, with the page of the access's *last* byte, so that one
//! that runs into the next page fails too.
//!
//! An entry's page may be a part of a larger one of the guest's. The range that such entries lie
//! in is kept, and INVLPG looks through them if its page is in there.

use super::{PAGE, Place};
use metaphrase_backend::{TLB_ENTRIES, TlbEntry};
use std::cell::Cell;

/// A tag of the table for code that no page has.
const NONE: u64 = u64::MAX;

/// Whose rights a table is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Class {
    /// Level 3.
    User,
    /// A supervisor's; with SMAP, not for user pages.
    Supervisor,
    /// A supervisor's that may access user pages although SMAP is on: RFLAGS.AC is set.
    SupervisorAc,
}

const CLASSES: [Class; 3] = [Class::User, Class::Supervisor, Class::SupervisorAc];

/// Flags in the low bits of [`TlbEntry::phys`]; above them is the physical address of the page.
mod flag {
    /// Survives MOV to CR3.
    pub const GLOBAL: u64 = 1;
    /// Not memory.
    pub const IO: u64 = 2;
    /// Writes vanish.
    pub const ROM: u64 = 4;
    /// Where the logarithm of the guest's page size is, if more than 4 KiB; 5 bits.
    pub const SHIFT: u32 = 4;
}

/// What there is to know about a page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    /// Physical address of the 4 KiB page.
    pub(super) phys: u64,
    /// Writes are allowed too, and need no change of the guest's tables.
    pub(super) writable: bool,
    /// Survives MOV to CR3.
    pub(super) global: bool,
    /// Logarithm of the guest's page size.
    pub(super) shift: u8,
}

impl Found {
    fn flags(self) -> u64 {
        let large = if self.shift > 12 { self.shift } else { 0 };
        (u64::from(self.global) * flag::GLOBAL) | (u64::from(large) << flag::SHIFT)
    }
}

/// Whether a page that is part of a larger one with those flags is flushed with `linear`.
fn is_within(page: u64, flags: u64, linear: u64) -> bool {
    let shift = (flags >> flag::SHIFT & 31) as u32;
    shift != 0 && (page ^ linear) >> shift == 0
}

/// The physical page of an entry.
pub(super) fn phys(entry: &TlbEntry) -> u64 {
    entry.phys & !(PAGE - 1)
}

/// Where the linear page of an entry is.
pub(super) fn place(entry: &TlbEntry, page: u64) -> Place {
    let host = entry.addend.wrapping_add(page);
    let host = std::ptr::with_exposed_provenance_mut(host as usize);
    match entry.phys & (flag::IO | flag::ROM) {
        0 => Place::Ram(host),
        flag::ROM => Place::Rom(host),
        _ => Place::Io,
    }
}

/// Whether an entry allows the access to that linear page.
pub(super) fn allows(entry: &TlbEntry, page: u64, write: bool) -> bool {
    let tag = if write { entry.write } else { entry.read };
    tag == page || tag == TlbEntry::slow(page)
}

/// The linear page of an entry, which is in use; `index` is its place.
fn page(entry: &TlbEntry, index: usize) -> u64 {
    let here = (entry.read / PAGE) as usize % TLB_ENTRIES == index % TLB_ENTRIES;
    if here {
        entry.read
    } else {
        TlbEntry::slow(entry.read)
    }
}

/// An entry of the TLB of code fetches.
#[derive(Clone, Copy, Debug)]
struct CodeEntry {
    /// The linear page, bit 0 set for level 3; or [`NONE`].
    tag: u64,
    /// The physical page.
    phys: u64,
    /// As in [`TlbEntry::phys`].
    flags: u64,
}

const CODE_ENTRIES: usize = 256;

const NO_CODE: CodeEntry = CodeEntry {
    tag: NONE,
    phys: 0,
    flags: 0,
};

/// All tables of a virtual CPU.
#[derive(Debug)]
pub(super) struct Tlb {
    /// One table after the other.
    entries: Box<[Cell<TlbEntry>]>,
    /// A bit for each entry that may be in use, so that a flush costs what was filled.
    used: Box<[Cell<u64>]>,
    code: Box<[Cell<CodeEntry>]>,
    /// The first and last linear address of larger pages that entries are parts of.
    large: Cell<(u64, u64)>,
    /// The pages that code was found on since they were flushed: global ones and others.
    code_pages: [PageSet; 2],
    /// Whether anything was filled in since the last flush.
    filled: Cell<bool>,
}

/// A set of pages that may have more members than were put in.
struct PageSet(Box<[Cell<u64>]>);

impl std::fmt::Debug for PageSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PageSet")
    }
}

impl PageSet {
    const BITS: u64 = 8192;

    fn new() -> PageSet {
        PageSet(vec![Cell::new(0); PageSet::BITS as usize / 64].into())
    }

    fn bit(&self, linear: u64) -> (&Cell<u64>, u64) {
        let n = linear / PAGE;
        let n = (n ^ (n >> 13)) % PageSet::BITS;
        (&self.0[n as usize / 64], 1 << (n % 64))
    }

    fn insert(&self, linear: u64) {
        let (word, bit) = self.bit(linear);
        word.set(word.get() | bit);
    }

    fn contains(&self, linear: u64) -> bool {
        let (word, bit) = self.bit(linear);
        word.get() & bit != 0
    }

    /// Empties it. Whether there was anything.
    fn clear(&self) -> bool {
        self.0
            .iter()
            .fold(false, |any, word| any | (word.take() != 0))
    }
}

/// The place of a page in its table.
#[inline(always)]
fn index(linear: u64) -> usize {
    (linear / PAGE) as usize % TLB_ENTRIES
}

/// Nothing, at that place of all tables.
fn empty(at: usize) -> TlbEntry {
    TlbEntry::empty(at % TLB_ENTRIES)
}

const NO_LARGE: (u64, u64) = (u64::MAX, 0);

impl Tlb {
    pub(super) fn new() -> Tlb {
        let total = CLASSES.len() * TLB_ENTRIES;
        Tlb {
            entries: (0..total).map(|n| Cell::new(empty(n))).collect(),
            used: vec![Cell::new(0); total / 64].into_boxed_slice(),
            code: vec![Cell::new(NO_CODE); CODE_ENTRIES].into_boxed_slice(),
            large: Cell::new(NO_LARGE),
            code_pages: [PageSet::new(), PageSet::new()],
            filled: Cell::new(false),
        }
    }

    /// The table for that class.
    pub(super) fn table(&self, class: Class) -> *const TlbEntry {
        self.entries[class as usize * TLB_ENTRIES..].as_ptr().cast()
    }

    fn at(&self, class: Class, linear: u64) -> usize {
        class as usize * TLB_ENTRIES + index(linear)
    }

    /// The entry that would hold the page of `linear`.
    #[inline]
    pub(super) fn entry(&self, class: Class, linear: u64) -> TlbEntry {
        self.entries[self.at(class, linear)].get()
    }

    /// Fills an entry. Where the page is, and whether translated code is on it, are the caller's
    /// to find out.
    pub(super) fn fill(
        &self,
        class: Class,
        page: u64,
        found: Found,
        place: Place,
        code: bool,
    ) -> TlbEntry {
        let (kind, host) = match place {
            Place::Ram(host) => (0, host),
            Place::Rom(host) => (flag::ROM, host),
            Place::Io => (flag::IO, std::ptr::null_mut()),
        };
        let tag = |slow: bool| if slow { TlbEntry::slow(page) } else { page };
        let entry = TlbEntry {
            read: tag(kind == flag::IO),
            write: match found.writable {
                true => tag(kind != 0 || code),
                false => TlbEntry::none(index(page)),
            },
            addend: (host.expose_provenance() as u64).wrapping_sub(page),
            phys: found.phys | found.flags() | kind,
        };
        let at = self.at(class, page);
        self.entries[at].set(entry);
        self.filled.set(true);
        let used = &self.used[at / 64];
        used.set(used.get() | 1 << (at % 64));
        self.note_large(page, found.shift);
        entry
    }

    fn note_large(&self, page: u64, shift: u8) {
        if shift > 12 {
            let size = 1u64 << shift;
            let (low, high) = self.large.get();
            let first = page & !(size - 1);
            self.large
                .set((low.min(first), high.max(first | (size - 1))));
        }
    }

    /// Lets compiled code write to the page of an entry again: no translated code is on it.
    pub(super) fn allow_writes(&self, class: Class, page: u64) {
        let cell = &self.entries[self.at(class, page)];
        let entry = cell.get();
        if entry.write == TlbEntry::slow(page) && entry.phys & (flag::IO | flag::ROM) == 0 {
            cell.set(TlbEntry {
                write: page,
                ..entry
            });
        }
    }

    /// The physical address of code, if it is known.
    #[inline(always)]
    pub(super) fn find_code(&self, linear: u64, user: bool) -> Option<u64> {
        let entry = self.code[(linear / PAGE) as usize % CODE_ENTRIES].get();
        let tag = linear & !(PAGE - 1) | u64::from(user);
        (entry.tag == tag).then_some(entry.phys | (linear % PAGE))
    }

    /// Fills an entry for code.
    pub(super) fn fill_code(&self, linear: u64, user: bool, found: Found) {
        let page = linear & !(PAGE - 1);
        self.code[(linear / PAGE) as usize % CODE_ENTRIES].set(CodeEntry {
            tag: page | u64::from(user),
            phys: found.phys,
            flags: found.flags(),
        });
        self.filled.set(true);
        self.code_pages[usize::from(found.global)].insert(page);
        self.note_large(page, found.shift);
    }

    /// Changes every entry in use, given with its page; `None` empties it.
    fn sweep(&self, change: impl Fn(TlbEntry, u64) -> Option<TlbEntry>) {
        for (n, used) in self.used.iter().enumerate() {
            let (mut left, mut keep) = (used.get(), 0);
            while left != 0 {
                let bit = left.trailing_zeros();
                left &= left - 1;
                let at = n * 64 + bit as usize;
                let cell = &self.entries[at];
                let new = change(cell.get(), page(&cell.get(), at));
                keep |= u64::from(new.is_some()) << bit;
                cell.set(new.unwrap_or(empty(at)));
            }
            used.set(keep);
        }
    }

    /// Empties everything, or all that is not global. `None` if there was nothing to do; else
    /// whether code was found on any page that is flushed.
    pub(super) fn flush(&self, global: bool) -> Option<bool> {
        let filled = self.filled.take();
        if !global && !filled {
            return None;
        }
        self.sweep(|e, _| (!global && e.phys & flag::GLOBAL != 0).then_some(e));
        for cell in &self.code {
            if global || cell.get().flags & flag::GLOBAL == 0 {
                cell.set(NO_CODE);
            }
        }
        let mut code = self.code_pages[0].clear();
        if global {
            self.large.set(NO_LARGE);
            code |= self.code_pages[1].clear();
        }
        Some(code)
    }

    /// Drops the page of `linear`. Whether entries had to be looked through for parts of the same
    /// larger page, and whether code may have been found on what is flushed.
    pub(super) fn flush_page(&self, linear: u64) -> (bool, bool) {
        let page = linear & !(PAGE - 1);
        for class in CLASSES {
            let at = self.at(class, linear);
            let cell = &self.entries[at];
            if allows(&cell.get(), page, false) {
                cell.set(empty(at));
                let used = &self.used[at / 64];
                used.set(used.get() & !(1 << (at % 64)));
            }
        }
        let code = &self.code[(linear / PAGE) as usize % CODE_ENTRIES];
        if code.get().tag & !1 == page {
            code.set(NO_CODE);
        }
        let (low, high) = self.large.get();
        if !(low..=high).contains(&linear) {
            let code = self.code_pages.iter().any(|set| set.contains(linear));
            return (false, code);
        }
        self.sweep(|e, page| (!is_within(page, e.phys, linear)).then_some(e));
        for cell in &self.code {
            let e = cell.get();
            if e.tag != NONE && is_within(e.tag & !1, e.flags, linear) {
                cell.set(NO_CODE);
            }
        }
        (true, true)
    }

    /// Compiled code may no longer write to that physical page.
    pub(super) fn forbid_writes(&self, phys: u64) {
        self.sweep(|e, page| {
            let hit = self::phys(&e) == phys && e.write == page;
            Some(TlbEntry {
                write: if hit { TlbEntry::slow(page) } else { e.write },
                ..e
            })
        });
    }
}
