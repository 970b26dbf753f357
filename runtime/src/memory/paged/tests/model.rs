//! A slow, literal model of SDM volume 3, chapter 4, to hold the walk against. It shares no code
//! with it.

use std::collections::BTreeMap;

/// Physical memory: pages of RAM, and ones everywhere else.
#[derive(Clone, Default, Debug)]
pub struct Ram {
    pub pages: BTreeMap<u64, Vec<u8>>,
    /// Where entries were read.
    pub used: Vec<u64>,
}

impl Ram {
    pub fn read(&self, addr: u64, len: usize) -> u64 {
        let mut value = 0;
        for n in (0..len).rev() {
            let at = addr + n as u64;
            let byte = self
                .pages
                .get(&(at >> 12))
                .map_or(0xff, |p| p[at as usize & 0xfff]);
            value = value << 8 | u64::from(byte);
        }
        value
    }

    pub fn write(&mut self, addr: u64, len: usize, value: u64) {
        for n in 0..len {
            let at = addr + n as u64;
            if let Some(page) = self.pages.get_mut(&(at >> 12)) {
                page[at as usize & 0xfff] = (value >> (8 * n)) as u8;
            }
        }
    }
}

/// The kind of access (4.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Read,
    Write,
    Fetch,
}

/// Everything that the chapter makes translation depend on.
#[derive(Clone, Copy, Debug)]
pub struct Controls {
    pub paging: bool,
    pub wp: bool,
    pub pse: bool,
    pub pae: bool,
    pub pge: bool,
    pub smep: bool,
    pub smap: bool,
    pub nxe: bool,
    pub long: bool,
    pub a20: bool,
    /// MAXPHYADDR.
    pub width: u32,
    /// There are 1 GiB pages.
    pub gib: bool,
    pub cr3: u64,
    pub pdpte: [u64; 4],
    /// A user-mode access: by code at level 3, and not an implicit one.
    pub user: bool,
    /// RFLAGS.AC, for explicit accesses.
    pub ac: bool,
}

/// What comes of an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Physical { addr: u64, size: u64, global: bool },
    GeneralProtection,
    PageFault(u32),
}

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

fn bit(value: u64, n: u32) -> bool {
    value >> n & 1 == 1
}

/// The bits from `high` to `low`, where they are.
fn field(value: u64, high: u32, low: u32) -> u64 {
    let above = if high == 63 {
        0
    } else {
        u64::MAX << (high + 1)
    };
    value & !above & (u64::MAX << low)
}

struct Access<'a> {
    ram: &'a mut Ram,
    c: Controls,
    linear: u64,
    kind: Kind,
}

/// An entry that a walk has used.
struct Used {
    at: u64,
    len: usize,
    value: u64,
}

impl Access<'_> {
    /// The address lines, with A20 masked off if the gate is closed.
    fn lines(&self, addr: u64) -> u64 {
        if self.c.a20 { addr } else { addr & !MIB }
    }

    fn entry(&mut self, at: u64, len: usize) -> Used {
        let at = self.lines(at);
        self.ram.used.push(at);
        Used {
            at,
            len,
            value: self.ram.read(at, len),
        }
    }

    /// 4.7, with P and RSVD given.
    fn page_fault(&self, p: bool, rsvd: bool) -> Outcome {
        let mut code = 0;
        if p {
            code += 1;
        }
        if self.kind == Kind::Write {
            code += 2;
        }
        if self.c.user {
            code += 4;
        }
        if rsvd {
            code += 8;
        }
        if self.kind == Kind::Fetch && (self.c.smep || self.c.pae && self.c.nxe) {
            code += 16;
        }
        Outcome::PageFault(code)
    }

    /// 4.8: an entry that was used becomes accessed.
    fn accessed(&mut self, used: &Used) {
        self.ram.write(used.at, used.len, used.value | 1 << 5);
    }

    /// 4.6.1: access rights by the entries that map the address.
    fn allowed(&self, used: &[Used]) -> bool {
        let user_address = used.iter().all(|e| bit(e.value, 2));
        let writable = used.iter().all(|e| bit(e.value, 1));
        let not_executable = self.c.nxe && used.iter().any(|e| e.len == 8 && bit(e.value, 63));
        let c = &self.c;
        match (c.user, self.kind) {
            (false, Kind::Read) if user_address => !c.smap || c.ac,
            (false, Kind::Read) => true,
            (false, Kind::Write) => {
                let right = !c.wp || writable;
                if user_address {
                    right && (!c.smap || c.ac)
                } else {
                    right
                }
            }
            (false, Kind::Fetch) if user_address => !c.smep && !not_executable,
            (false, Kind::Fetch) => !not_executable,
            (true, Kind::Read) => user_address,
            (true, Kind::Write) => user_address && writable,
            (true, Kind::Fetch) => user_address && !not_executable,
        }
    }

    /// The end of a walk: the last of `used` maps a page of `size` bytes at `base`.
    fn finish(&mut self, used: &[Used], base: u64, size: u64) -> Outcome {
        if !self.allowed(used) {
            return self.page_fault(true, false);
        }
        let last = used.last().unwrap();
        let mut value = last.value | 1 << 5;
        if self.kind == Kind::Write {
            value |= 1 << 6;
        }
        self.ram.write(last.at, last.len, value);
        Outcome::Physical {
            addr: self.lines(base + self.linear % size),
            size,
            global: self.c.pge && bit(last.value, 8),
        }
    }

    /// 4.3.
    fn paging_32(&mut self) -> Outcome {
        let at = field(self.c.cr3, 31, 12) + 4 * (self.linear >> 22);
        let pde = self.entry(at, 4);
        if !bit(pde.value, 0) {
            return self.page_fault(false, false);
        }
        if self.c.pse && bit(pde.value, 7) {
            // Table 4-4: from bit 13 on the bits of the address from 32 on that there are; those
            // above them, to bit 21, are reserved.
            if (13..22).any(|n| bit(pde.value, n) && n + 19 >= self.c.width) {
                return self.page_fault(true, true);
            }
            let base = field(pde.value, 31, 22) | field(pde.value, 20, 13) << 19;
            return self.finish(&[pde], base, 4 * MIB);
        }
        self.accessed(&pde);
        let at = field(pde.value, 31, 12) + 4 * (self.linear >> 12 & 0x3ff);
        let pte = self.entry(at, 4);
        if !bit(pte.value, 0) {
            return self.page_fault(false, false);
        }
        let base = field(pte.value, 31, 12);
        self.finish(&[pde, pte], base, 4096)
    }

    /// Reserved bits common to 8-byte entries.
    fn bad_8(&self, value: u64) -> bool {
        let beyond = if self.c.long {
            field(value, 51, self.c.width)
        } else {
            field(value, 62, self.c.width)
        };
        beyond != 0 || bit(value, 63) && !self.c.nxe
    }

    /// The directory and the table of PAE and 4-level paging; `above` are the entries before.
    fn directory(&mut self, mut above: Vec<Used>, table: u64) -> Outcome {
        let pde = self.entry(table + 8 * (self.linear >> 21 & 0x1ff), 8);
        if !bit(pde.value, 0) {
            return self.page_fault(false, false);
        }
        if self.bad_8(pde.value) || bit(pde.value, 7) && field(pde.value, 20, 13) != 0 {
            return self.page_fault(true, true);
        }
        if bit(pde.value, 7) {
            let base = field(pde.value, 39, 21);
            above.push(pde);
            return self.finish(&above, base, 2 * MIB);
        }
        self.accessed(&pde);
        let at = field(pde.value, 39, 12) + 8 * (self.linear >> 12 & 0x1ff);
        above.push(pde);
        let pte = self.entry(at, 8);
        if !bit(pte.value, 0) {
            return self.page_fault(false, false);
        }
        if self.bad_8(pte.value) {
            return self.page_fault(true, true);
        }
        let base = field(pte.value, 39, 12);
        above.push(pte);
        self.finish(&above, base, 4096)
    }

    /// 4.4.
    fn paging_pae(&mut self) -> Outcome {
        let pdpte = self.c.pdpte[(self.linear >> 30) as usize];
        if !bit(pdpte, 0) {
            return self.page_fault(false, false);
        }
        self.directory(Vec::new(), field(pdpte, 39, 12))
    }

    /// 4.5.
    fn paging_4(&mut self) -> Outcome {
        let at = field(self.c.cr3, 39, 12) + 8 * (self.linear >> 39 & 0x1ff);
        let pml4e = self.entry(at, 8);
        if !bit(pml4e.value, 0) {
            return self.page_fault(false, false);
        }
        if self.bad_8(pml4e.value) || bit(pml4e.value, 7) {
            return self.page_fault(true, true);
        }
        self.accessed(&pml4e);
        let at = field(pml4e.value, 39, 12) + 8 * (self.linear >> 30 & 0x1ff);
        let pdpte = self.entry(at, 8);
        if !bit(pdpte.value, 0) {
            return self.page_fault(false, false);
        }
        let gigabyte = bit(pdpte.value, 7);
        let bad_page = gigabyte && (!self.c.gib || field(pdpte.value, 29, 13) != 0);
        if self.bad_8(pdpte.value) || bad_page {
            return self.page_fault(true, true);
        }
        if gigabyte {
            let base = field(pdpte.value, 39, 30);
            return self.finish(&[pml4e, pdpte], base, GIB);
        }
        self.accessed(&pdpte);
        let table = field(pdpte.value, 39, 12);
        self.directory(vec![pml4e, pdpte], table)
    }
}

/// Translates, setting accessed and dirty bits in `ram`.
pub fn translate(ram: &mut Ram, c: Controls, linear: u64, kind: Kind) -> Outcome {
    if c.long {
        let top = linear >> 47;
        if top != 0 && top != 0x1_ffff {
            return Outcome::GeneralProtection;
        }
    }
    let mut access = Access {
        ram,
        c,
        linear: if c.long { linear } else { linear & 0xffff_ffff },
        kind,
    };
    match (c.paging, c.pae, c.long) {
        (false, ..) => Outcome::Physical {
            addr: access.lines(access.linear),
            size: 4096,
            global: false,
        },
        (true, false, _) => access.paging_32(),
        (true, true, false) => access.paging_pae(),
        (true, true, true) => access.paging_4(),
    }
}
