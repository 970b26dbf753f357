//! System-management mode: entry and RSM (SDM volume 3, chapter 32).
//!
//! The state-save area lies at the top of the 64 KiB from SMBASE on. A CPU with long mode has the
//! layout of the AMD64 manual (volume 2, 10.2.3), as the vendor that CPUID names has it; one
//! without has the P6's (SDM volume 3, table 32-1), whose reserved part holds what it does not
//! name. SMBASE relocation and auto-halt restart are there; I/O instruction restart is not, and
//! the revision does not claim it.

use super::segment::CS;
use super::{Activity, Cx, Fault, Outcome, Shadow, SystemSegment, attr, control, cr0, efer};
use super::{SystemState, segment};
use metaphrase_frontend::Features;
use metaphrase_ir::SystemOp;

/// Where the state-save area begins and how long it is, from SMBASE on.
const AREA: u64 = 0xfc00;
const AREA_LEN: usize = 0x400;

/// Revision: SMBASE can be moved.
const REVISION_P6: u64 = 0x2_0000;
const REVISION_AMD64: u64 = 0x2_0064;

/// The state-save area: reads or writes it, so that one walk over the fields serves both ways.
struct Area {
    bytes: [u8; AREA_LEN],
    load: bool,
}

impl Area {
    /// The field of `len` bytes at an offset from SMBASE.
    fn field(&mut self, at: u64, len: usize, value: &mut u64) {
        let at = (at - AREA) as usize;
        let bytes = &mut self.bytes[at..at + len];
        if self.load {
            *value = bytes.iter().rev().fold(0, |v, &b| v << 8 | u64::from(b));
        } else {
            bytes.copy_from_slice(&value.to_le_bytes()[..len]);
        }
    }

    /// A field of a type of its own.
    fn number<T: TryFrom<u64> + Copy>(&mut self, at: u64, len: usize, value: &mut T)
    where
        u64: From<T>,
    {
        let mut wide = u64::from(*value);
        self.field(at, len, &mut wide);
        if let Ok(narrow) = T::try_from(wide) {
            *value = narrow;
        }
    }

    fn flag(&mut self, at: u64, value: &mut bool) {
        let mut wide = u64::from(*value);
        self.field(at, 1, &mut wide);
        *value = wide & 1 != 0;
    }
}

/// Everything that is saved.
#[derive(Clone, Copy)]
struct Saved {
    gpr: [u64; 16],
    rip: u64,
    rflags: u64,
    segments: [SystemSegment; 6],
    halted: bool,
    revision: u64,
    sys: SystemState,
}

impl Saved {
    fn take(cx: &Cx) -> Saved {
        let segments = std::array::from_fn(|n| segment::get(cx, n));
        let s = cx.state();
        Saved {
            gpr: s.gpr,
            rip: s.rip,
            rflags: s.rflags(),
            segments,
            halted: s.sys.activity == Activity::Halted,
            revision: 0,
            sys: s.sys,
        }
    }
}

/// Attributes as twelve bits.
fn pack(attributes: u32) -> u64 {
    u64::from(attributes & 0xff | attributes >> 4 & 0xf00)
}

fn unpack(packed: u64) -> u32 {
    let packed = packed as u32;
    packed & 0xff | packed << 4 & 0xf000
}

/// The layout of the AMD64 manual.
fn walk_amd64(area: &mut Area, saved: &mut Saved) {
    let full = |area: &mut Area, at: u64, segment: &mut SystemSegment| {
        let mut attributes = pack(segment.attr);
        area.number(at, 2, &mut segment.selector);
        area.field(at + 2, 2, &mut attributes);
        area.number(at + 4, 4, &mut segment.limit);
        area.field(at + 8, 8, &mut segment.base);
        segment.attr = unpack(attributes);
    };
    for (n, segment) in saved.segments.iter_mut().enumerate() {
        full(area, 0xfe00 + 16 * n as u64, segment);
    }
    let sys = &mut saved.sys;
    full(area, 0xfe70, &mut sys.ldtr);
    full(area, 0xfe90, &mut sys.tr);
    for (at, table) in [(0xfe60, &mut sys.gdtr), (0xfe80, &mut sys.idtr)] {
        area.number(at + 4, 2, &mut table.limit);
        area.field(at + 8, 8, &mut table.base);
    }
    area.flag(0xfec9, &mut saved.halted);
    area.flag(0xfeca, &mut sys.nmi_blocked);
    area.number(0xfecb, 1, &mut sys.cpl);
    area.field(0xfed0, 8, &mut sys.efer);
    area.field(0xfefc, 4, &mut saved.revision);
    area.number(0xff00, 4, &mut sys.smbase);
    area.field(0xff48, 8, &mut sys.cr4);
    area.field(0xff50, 8, &mut sys.cr3);
    area.field(0xff58, 8, &mut sys.cr0);
    area.field(0xff60, 8, &mut sys.dr[7]);
    area.field(0xff68, 8, &mut sys.dr[6]);
    area.field(0xff70, 8, &mut saved.rflags);
    area.field(0xff78, 8, &mut saved.rip);
    // R15 first, RAX last, and RDI before RSP as encoded.
    for (n, register) in saved.gpr.iter_mut().enumerate() {
        area.field(0xfff8 - 8 * n as u64, 8, register);
    }
}

/// The layout of the P6.
fn walk_p6(area: &mut Area, saved: &mut Saved) {
    let sys = &mut saved.sys;
    area.field(0xfffc, 4, &mut sys.cr0);
    area.field(0xfff8, 4, &mut sys.cr3);
    area.field(0xfff4, 4, &mut saved.rflags);
    area.field(0xfff0, 4, &mut saved.rip);
    for (n, register) in saved.gpr.iter_mut().enumerate().take(8) {
        area.field(0xffd0 + 4 * n as u64, 4, register);
    }
    area.field(0xffcc, 4, &mut sys.dr[6]);
    area.field(0xffc8, 4, &mut sys.dr[7]);
    area.number(0xffc4, 2, &mut sys.tr.selector);
    area.number(0xffc0, 2, &mut sys.ldtr.selector);
    for (n, segment) in saved.segments.iter_mut().enumerate() {
        area.number(0xffa8 + 4 * n as u64, 2, &mut segment.selector);
    }
    area.flag(0xff02, &mut saved.halted);
    area.field(0xfefc, 4, &mut saved.revision);
    area.number(0xfef8, 4, &mut sys.smbase);
    // The reserved part.
    let hidden = |area: &mut Area, at: u64, segment: &mut SystemSegment| {
        area.field(at, 4, &mut segment.base);
        area.number(at + 4, 4, &mut segment.limit);
        area.number(at + 8, 4, &mut segment.attr);
    };
    for (n, segment) in saved.segments.iter_mut().enumerate() {
        hidden(area, 0xff04 + 12 * n as u64, segment);
    }
    hidden(area, 0xff4c, &mut sys.ldtr);
    hidden(area, 0xff58, &mut sys.tr);
    for (at, table) in [(0xff64, &mut sys.gdtr), (0xff6c, &mut sys.idtr)] {
        area.field(at, 4, &mut table.base);
        area.number(at + 4, 2, &mut table.limit);
    }
    area.field(0xff74, 4, &mut sys.cr4);
    area.flag(0xff78, &mut sys.nmi_blocked);
    area.number(0xff79, 1, &mut sys.cpl);
}

fn walk(cx: &Cx, area: &mut Area, saved: &mut Saved) {
    if cx.env().cpu.features().has(Features::LM) {
        saved.revision = REVISION_AMD64;
        walk_amd64(area, saved);
    } else {
        saved.revision = REVISION_P6;
        walk_p6(area, saved);
    }
}

/// Where the area is: physical.
fn area_at(cx: &Cx) -> u64 {
    u64::from(cx.sys().smbase).wrapping_add(AREA)
}

/// Enters system-management mode for an SMI. The caller has seen to it that it is not in it
/// already; RIP is the address to return to.
pub fn enter(cx: &Cx) {
    let phys = cx.paged().phys();
    let at = area_at(cx);
    let mut area = Area {
        bytes: [0; AREA_LEN],
        load: true,
    };
    phys.read_bytes(at, &mut area.bytes);
    area.load = false;
    walk(cx, &mut area, &mut Saved::take(cx));
    phys.write_bytes(at, &area.bytes);

    let smbase = cx.sys().smbase;
    let data = SystemSegment {
        base: 0,
        limit: u32::MAX,
        attr: attr::P | attr::S | attr::RW | attr::ACCESSED | attr::G,
        selector: 0,
    };
    for n in 0..6 {
        segment::set(cx, n, data);
    }
    let code = SystemSegment {
        base: smbase.into(),
        selector: (smbase >> 4) as u16,
        attr: data.attr | attr::CODE,
        ..data
    };
    segment::set(cx, CS, code);
    let s = cx.state();
    s.set_rflags(2);
    s.rip = 0x8000;
    let sys = &mut s.sys;
    sys.cr0 &= !(cr0::PE | cr0::EM | cr0::TS | cr0::PG);
    sys.cr4 = 0;
    sys.efer = 0;
    sys.dr[7] = 0x400;
    sys.cpl = 0;
    sys.smm = true;
    sys.nmi_blocked = true;
    sys.shadow = Shadow::None;
    sys.activity = Activity::Running;
    cx.paged().flush(true);
    cx.changed();
}

/// RSM.
pub(super) fn rsm(cx: &Cx, _op: SystemOp, _a: u64, _b: u64, _next: u64) -> Outcome {
    if !cx.sys().smm {
        return Err(Fault::UD);
    }
    let mut area = Area {
        bytes: [0; AREA_LEN],
        load: true,
    };
    cx.paged().phys().read_bytes(area_at(cx), &mut area.bytes);
    let mut saved = Saved::take(cx);
    walk(cx, &mut area, &mut saved);
    cx.sys().look = true;
    if !is_valid(cx, &saved) {
        cx.sys().activity = Activity::Shutdown;
        return Ok(0);
    }
    let sys = &mut saved.sys;
    sys.smm = false;
    sys.shadow = Shadow::None;
    sys.look = true;
    sys.activity = if saved.halted {
        Activity::Halted
    } else {
        Activity::Running
    };
    sys.cpl &= 3;
    for (n, segment) in saved.segments.iter().enumerate() {
        segment::set(cx, n, *segment);
    }
    let s = cx.state();
    s.gpr = saved.gpr;
    s.rip = saved.rip;
    s.set_rflags(saved.rflags & 0x3f_7fd5);
    let (seg_limit, seg_attr) = (s.sys.seg_limit, s.sys.seg_attr);
    s.sys = SystemState {
        seg_limit,
        seg_attr,
        ..saved.sys
    };
    let sys = cx.sys();
    if control::uses_pae(sys.cr0, sys.cr4, sys.efer) {
        match control::load_pdptes(cx, sys.cr3) {
            Ok(entries) => cx.sys().pdpte = entries,
            Err(_) => cx.sys().activity = Activity::Shutdown,
        }
    }
    cx.paged().flush(true);
    cx.changed();
    Ok(0)
}

/// What does not hold shuts the processor down (SDM volume 3, 32.3.1): impossible control
/// registers.
fn is_valid(cx: &Cx, saved: &Saved) -> bool {
    const EFER_BITS: u64 = efer::SCE | efer::LME | efer::LMA | efer::NXE;
    let sys = &saved.sys;
    let has = |bit| sys.cr0 & bit != 0;
    let long = sys.efer & efer::LMA != 0;
    let reserved = sys.cr0 >> 32 | sys.cr4 & !control::cr4_bits(cx) | sys.efer & !EFER_BITS;
    let contradictory = has(cr0::PG) && !has(cr0::PE) || has(cr0::NW) && !has(cr0::CD);
    let long_fits =
        has(cr0::PG) && sys.efer & efer::LME != 0 && cx.env().cpu.features().has(Features::LM);
    reserved == 0 && !contradictory && (!long || long_fits)
}
