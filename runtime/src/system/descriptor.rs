//! Descriptors and the tables that hold them (SDM volume 3, 3.4.5, 3.5, 7.2).

use super::{Cx, Fault, SystemSegment, attr, efer};
use crate::memory::paged::Rights;

/// System descriptor types, with the S bit (0) above them (SDM volume 3, table 3-2).
pub(super) mod kind {
    /// 16-bit TSS, available.
    pub const TSS16: u32 = 1;
    /// LDT.
    pub const LDT: u32 = 2;
    /// 16-bit TSS, busy.
    pub const TSS16_BUSY: u32 = 3;
    /// 16-bit call gate.
    pub const CALL16: u32 = 4;
    /// Task gate.
    pub const TASK: u32 = 5;
    /// 16-bit interrupt gate.
    pub const INT16: u32 = 6;
    /// 16-bit trap gate.
    pub const TRAP16: u32 = 7;
    /// 32-bit TSS, available; in IA-32e mode the 64-bit one.
    pub const TSS32: u32 = 9;
    /// 32-bit TSS, busy; in IA-32e mode the 64-bit one.
    pub const TSS32_BUSY: u32 = 11;
    /// 32-bit call gate; in IA-32e mode the 64-bit one.
    pub const CALL32: u32 = 12;
    /// 32-bit interrupt gate; in IA-32e mode the 64-bit one.
    pub const INT32: u32 = 14;
    /// 32-bit trap gate; in IA-32e mode the 64-bit one.
    pub const TRAP32: u32 = 15;
    /// What tells a busy TSS from an available one.
    pub const BUSY: u32 = 2;
}

/// The error code that names a selector.
pub(super) const fn code(selector: u16) -> u32 {
    (selector & !3) as u32
}

/// Whether a selector is null, whatever its RPL.
pub(super) const fn is_null(selector: u16) -> bool {
    selector & !3 == 0
}

/// The requested privilege level.
pub(super) const fn rpl(selector: u16) -> u8 {
    (selector & 3) as u8
}

/// Whether the processor is in IA-32e mode.
pub(super) fn is_ia32e(cx: &Cx) -> bool {
    cx.sys().efer & efer::LMA != 0
}

/// Whether bits 47 to 63 are equal.
pub(super) const fn is_canonical(addr: u64) -> bool {
    (addr as i64) << 16 >> 16 == addr as i64
}

/// The linear address `offset` behind `base`: 32 bits wide outside IA-32e mode.
pub(super) fn linear(cx: &Cx, base: u64, offset: u64) -> u64 {
    let addr = base.wrapping_add(offset);
    if is_ia32e(cx) {
        addr
    } else {
        addr & 0xffff_ffff
    }
}

/// An eight-byte descriptor, or the lower half of a sixteen-byte one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Descriptor {
    /// The eight bytes.
    pub raw: u64,
    /// The selector that named it.
    pub selector: u16,
    /// Where it lies.
    at: u64,
    /// The bytes of the table from here on.
    left: u32,
}

impl Descriptor {
    /// The one that a selector names; `None` if it lies outside its table. The caller has dealt
    /// with null selectors.
    pub fn fetch(cx: &Cx, selector: u16) -> Result<Option<Descriptor>, Fault> {
        let sys = cx.sys();
        let (base, limit) = if selector & 4 == 0 {
            (sys.gdtr.base, u32::from(sys.gdtr.limit))
        } else if sys.ldtr.attr & attr::P != 0 {
            (sys.ldtr.base, sys.ldtr.limit)
        } else {
            return Ok(None);
        };
        let offset = u32::from(selector & !7);
        if offset + 7 > limit {
            return Ok(None);
        }
        let at = linear(cx, base, u64::from(offset));
        let raw = cx.paged().read_as(Rights::Supervisor, at)?;
        Ok(Some(Descriptor {
            raw,
            selector,
            at,
            left: (limit - offset).saturating_add(1),
        }))
    }

    /// The one that a selector names; `fault` with the selector if it lies outside its table.
    pub fn get(cx: &Cx, selector: u16, fault: fn(u32) -> Fault) -> Result<Descriptor, Fault> {
        Descriptor::fetch(cx, selector)?.ok_or(fault(code(selector)))
    }

    /// The upper half of a sixteen-byte descriptor: #GP if it lies outside the table, or is not
    /// one (SDM volume 3, 3.5.2: its type field is 0, so that no selector can name it).
    pub fn upper(&self, cx: &Cx) -> Result<u64, Fault> {
        if self.left < 16 {
            return Err(Fault::gp(code(self.selector)));
        }
        let at = linear(cx, self.at, 8);
        let raw: u64 = cx.paged().read_as(Rights::Supervisor, at)?;
        if raw >> 40 & 0x1f != 0 {
            return Err(Fault::gp(code(self.selector)));
        }
        Ok(raw & 0xffff_ffff)
    }

    /// The attributes, as [`attr`] names them.
    pub const fn attr(&self) -> u32 {
        (self.raw >> 40) as u32 & 0xf0ff
    }

    /// The descriptor's privilege level.
    pub const fn dpl(&self) -> u8 {
        (self.attr() >> attr::DPL_SHIFT) as u8 & 3
    }

    /// Present.
    pub const fn is_present(&self) -> bool {
        self.attr() & attr::P != 0
    }

    /// The type of a system descriptor; `None` for code and data.
    pub const fn system(&self) -> Option<u32> {
        if self.attr() & attr::S != 0 {
            None
        } else {
            Some(self.attr() & attr::TYPE)
        }
    }

    /// A code segment.
    pub const fn is_code(&self) -> bool {
        self.has(attr::S | attr::CODE)
    }

    /// A conforming code segment.
    pub const fn is_conforming(&self) -> bool {
        self.has(attr::S | attr::CODE | attr::DC)
    }

    /// A writable data segment.
    pub const fn is_writable(&self) -> bool {
        self.has(attr::S | attr::RW) && !self.has(attr::CODE)
    }

    /// A data segment or a readable code segment.
    pub const fn is_readable(&self) -> bool {
        self.has(attr::S) && (!self.has(attr::CODE) || self.has(attr::RW))
    }

    /// Whether all those attributes are set.
    pub const fn has(&self, bits: u32) -> bool {
        self.attr() & bits == bits
    }

    /// The last valid offset.
    pub const fn limit(&self) -> u32 {
        let limit = (self.raw & 0xffff | self.raw >> 32 & 0xf_0000) as u32;
        if self.has(attr::G) {
            limit << 12 | 0xfff
        } else {
            limit
        }
    }

    /// Bits 0 to 31 of the base.
    pub const fn base(&self) -> u64 {
        self.raw >> 16 & 0xff_ffff | self.raw >> 56 << 24
    }

    /// What a segment register caches of it.
    pub const fn segment(&self) -> SystemSegment {
        SystemSegment {
            base: self.base(),
            limit: self.limit(),
            attr: self.attr(),
            selector: self.selector,
        }
    }

    /// Sets the accessed bit, in memory and here, if it is clear. The last thing that can fault.
    pub fn mark_accessed(&mut self, cx: &Cx) -> Result<(), Fault> {
        if self.has(attr::ACCESSED) {
            return Ok(());
        }
        self.set_type_bits(cx, attr::ACCESSED, 0)
    }

    /// Sets and clears bits of the type field, in memory and here. Only that byte is written, so
    /// that a neighbouring change by another processor is not undone.
    pub fn set_type_bits(&mut self, cx: &Cx, set: u32, clear: u32) -> Result<(), Fault> {
        let byte = self.attr() as u8 & !(clear as u8) | set as u8;
        let at = linear(cx, self.at, 5);
        cx.paged().write_as(Rights::Supervisor, at, byte)?;
        self.raw = self.raw & !(0xff << 40) | u64::from(byte) << 40;
        Ok(())
    }
}

/// A call, interrupt, trap or task gate (SDM volume 3, 5.8.3 and 6.11).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Gate {
    /// Its type.
    pub kind: u32,
    /// The code segment or TSS.
    pub selector: u16,
    /// The entry point.
    pub offset: u64,
    /// Call gate: how many parameters. 64-bit interrupt gate: the stack's number in the TSS.
    pub count: u8,
}

impl Gate {
    /// From its bytes; `upper` is 0 for an eight-byte one. 16-bit gates have 16-bit offsets.
    pub const fn new(raw: u64, upper: u64) -> Gate {
        let kind = (raw >> 40) as u32 & attr::TYPE;
        let high = if kind & 8 != 0 { raw >> 48 << 16 } else { 0 };
        Gate {
            kind,
            selector: (raw >> 16) as u16,
            offset: raw & 0xffff | high | upper << 32,
            count: (raw >> 32) as u8 & 0x1f,
        }
    }

    /// The bytes that it pushes a register with.
    pub const fn width(&self, ia32e: bool) -> u8 {
        if ia32e {
            8
        } else if self.kind & 8 != 0 {
            4
        } else {
            2
        }
    }
}
