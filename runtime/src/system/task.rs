//! Hardware task switches (SDM volume 3, chapter 7).
//!
//! Up to the point where the new task's state is loaded a fault is the old task's and nothing has
//! changed. From there on it is the new task's: it is given back as what the new task begins with.

use super::descriptor::{Descriptor, code, is_null, kind, linear, rpl};
use super::interrupt::deliver;
use super::segment::{self, CS, DS, ES, FS, GS, SS};
use super::stack::Stack;
use super::{Cx, Event, Fault, Source, SystemSegment, control, cr0, debug};
use crate::memory::paged::Rights;
use metaphrase_ir::sysflags;

/// What brings a task switch about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reason {
    Jump,
    Call,
    Return,
}

/// Where a TSS has what (SDM volume 3, figures 7-2 and 7-10).
struct Layout {
    /// The bytes of a field.
    width: u8,
    /// CR3, or nothing.
    cr3: Option<u64>,
    /// The instruction pointer; RFLAGS and the eight general registers follow.
    ip: u64,
    /// The selectors, in encoding order.
    selectors: u64,
    /// How many there are.
    segments: usize,
    /// LDTR.
    ldt: u64,
    /// The debug trap flag, or nothing.
    trap: Option<u64>,
    /// The least limit.
    limit: u32,
}

const TSS16: Layout = Layout {
    width: 2,
    cr3: None,
    ip: 0x0e,
    selectors: 0x22,
    segments: 4,
    ldt: 0x2a,
    trap: None,
    limit: 0x2b,
};

const TSS32: Layout = Layout {
    width: 4,
    cr3: Some(0x1c),
    ip: 0x20,
    selectors: 0x48,
    segments: 6,
    ldt: 0x60,
    trap: Some(0x64),
    limit: 0x67,
};

impl Layout {
    /// That of a TSS with those attributes.
    fn of(attributes: u32) -> &'static Layout {
        if attributes & 8 != 0 { &TSS32 } else { &TSS16 }
    }

    fn read(&self, cx: &Cx, base: u64, at: u64) -> Result<u64, Fault> {
        let (at, memory) = (linear(cx, base, at), cx.paged());
        Ok(match self.width {
            2 => memory.read_as::<u16>(Rights::Supervisor, at)?.into(),
            _ => memory.read_as::<u32>(Rights::Supervisor, at)?.into(),
        })
    }

    fn write(&self, cx: &Cx, base: u64, at: u64, value: u64) -> Result<(), Fault> {
        let (at, memory) = (linear(cx, base, at), cx.paged());
        match self.width {
            2 => memory.write_as(Rights::Supervisor, at, value as u16),
            _ => memory.write_as(Rights::Supervisor, at, value as u32),
        }
    }

    /// Where field `n` behind the instruction pointer is.
    fn register(&self, n: usize) -> u64 {
        self.ip + (n as u64 + 1) * u64::from(self.width)
    }

    fn selector(&self, n: usize) -> u64 {
        self.selectors + n as u64 * u64::from(self.width)
    }
}

/// What a new task is loaded with.
struct Image {
    cr3: Option<u64>,
    ip: u64,
    flags: u64,
    gpr: [u64; 8],
    selectors: [u16; 6],
    ldt: u16,
    trap: bool,
}

impl Image {
    fn read(cx: &Cx, layout: &Layout, base: u64) -> Result<Image, Fault> {
        let field = |at| layout.read(cx, base, at);
        let mut gpr = [0; 8];
        for (n, register) in gpr.iter_mut().enumerate() {
            *register = field(layout.register(n + 1))?;
        }
        let mut selectors = [0; 6];
        for (n, selector) in selectors.iter_mut().enumerate().take(layout.segments) {
            *selector = field(layout.selector(n))? as u16;
        }
        Ok(Image {
            cr3: layout.cr3.map(field).transpose()?,
            ip: field(layout.ip)?,
            flags: field(layout.register(0))?,
            gpr,
            selectors,
            ldt: field(layout.ldt)? as u16,
            trap: layout.trap.map(field).transpose()?.unwrap_or(0) & 1 != 0,
        })
    }
}

/// Runs what the new task begins with, if anything: a fault, or the trap of the TSS's T flag.
pub(super) fn begin(cx: &Cx, late: Option<Fault>) {
    if let Some(fault) = late {
        let source = Source::Exception;
        deliver(cx, Event { fault, source });
    }
}

/// The TSS that a task gate, or JMP and CALL, name: available and present.
fn available(cx: &Cx, selector: u16) -> Result<Descriptor, Fault> {
    if is_null(selector) || selector & 4 != 0 {
        return Err(Fault::gp(code(selector)));
    }
    let d = Descriptor::get(cx, selector, Fault::gp)?;
    match d.system() {
        Some(kind::TSS16 | kind::TSS32) => {}
        _ => return Err(Fault::gp(code(selector))),
    }
    if !d.is_present() {
        return Err(Fault::np(code(selector)));
    }
    Ok(d)
}

/// JMP and CALL to a TSS or through a task gate, which the caller has checked.
pub(super) fn by_transfer(cx: &Cx, selector: u16, call: bool) -> Result<Option<Fault>, Fault> {
    let d = available(cx, selector)?;
    let flags = cx.state().rflags();
    switch(cx, d, if call { Reason::Call } else { Reason::Jump }, flags)
}

/// An interrupt through a task gate. The error code goes to the new task's stack.
pub(super) fn by_interrupt(
    cx: &Cx,
    selector: u16,
    error: Option<u32>,
    flags: u64,
) -> Result<Option<Fault>, Fault> {
    let d = available(cx, selector)?;
    let layout = Layout::of(d.attr());
    let late = switch(cx, d, Reason::Call, flags)?;
    // A debug trap comes after the error code is pushed.
    let fault = late.filter(|fault| fault.error.is_some());
    if let (Some(error), None) = (error, fault) {
        let mut stack = Stack::current(cx);
        if let Err(fault) = stack.push(cx, layout.width, error.into()) {
            return Ok(Some(fault));
        }
        stack.commit(cx);
    }
    Ok(late)
}

/// IRET with NT set: back to the task that the link names.
pub(super) fn by_return(cx: &Cx) -> Result<Option<Fault>, Fault> {
    let at = linear(cx, cx.sys().tr.base, 0);
    let link: u16 = cx.paged().read_as(Rights::Supervisor, at)?;
    if is_null(link) || link & 4 != 0 {
        return Err(Fault::ts(code(link)));
    }
    let d = Descriptor::get(cx, link, Fault::ts)?;
    match d.system() {
        Some(kind::TSS16_BUSY | kind::TSS32_BUSY) => {}
        _ => return Err(Fault::ts(code(link))),
    }
    if !d.is_present() {
        return Err(Fault::np(code(link)));
    }
    let flags = cx.state().rflags() & !sysflags::NT;
    switch(cx, d, Reason::Return, flags)
}

/// Switches to the task whose TSS `d` names; `flags` is what the old one saves.
fn switch(cx: &Cx, mut d: Descriptor, reason: Reason, flags: u64) -> Result<Option<Fault>, Fault> {
    let old = cx.sys().tr;
    let (from, to) = (Layout::of(old.attr), Layout::of(d.attr()));
    if d.limit() < to.limit {
        return Err(Fault::ts(code(d.selector)));
    }
    let mut image = Image::read(cx, to, d.base())?;
    save(cx, from, old.base, flags)?;
    if reason == Reason::Call {
        let at = linear(cx, d.base(), 0);
        cx.paged().write_as(Rights::Supervisor, at, old.selector)?;
        image.flags |= sysflags::NT;
    } else if let Some(mut left) = Descriptor::fetch(cx, old.selector)? {
        left.set_type_bits(cx, 0, kind::BUSY)?;
    }
    if reason != Reason::Return {
        d.set_type_bits(cx, kind::BUSY, 0)?;
    }
    let sys = cx.sys();
    sys.tr = d.segment();
    sys.cr0 |= cr0::TS;
    // Local breakpoints are the old task's (SDM volume 3, 17.2.4).
    sys.dr[7] &= !0x155;
    let trap = image.trap;
    if let Err(fault) = load(cx, &image) {
        return Ok(Some(fault));
    }
    if trap {
        debug::report(cx.state(), debug::BT);
        return Ok(Some(Fault::plain(1)));
    }
    Ok(None)
}

/// Saves the old task's registers.
fn save(cx: &Cx, layout: &Layout, base: u64, flags: u64) -> Result<(), Fault> {
    let (rip, gpr, selectors) = {
        let s = cx.state();
        (s.rip, s.gpr, s.seg_sel)
    };
    layout.write(cx, base, layout.ip, rip)?;
    layout.write(cx, base, layout.register(0), flags)?;
    for (n, register) in gpr.iter().enumerate().take(8) {
        layout.write(cx, base, layout.register(n + 1), *register)?;
    }
    for (n, selector) in selectors.iter().enumerate().take(layout.segments) {
        // The upper halves of the 32-bit TSS's fields are not the processor's.
        let at = linear(cx, base, layout.selector(n));
        cx.paged().write_as(Rights::Supervisor, at, *selector)?;
    }
    Ok(())
}

/// Loads the new task's registers. All selectors are there before the first descriptor is looked
/// at; a segment whose turn does not come is unusable.
fn load(cx: &Cx, image: &Image) -> Result<(), Fault> {
    let v86 = image.flags & sysflags::VM != 0;
    {
        let s = cx.state();
        if let Some(cr3) = image.cr3
            && s.sys.cr0 & cr0::PG != 0
        {
            s.sys.cr3 = cr3;
        }
        s.rip = image.ip;
        s.set_rflags(image.flags & FLAGS);
        s.gpr[..8].copy_from_slice(&image.gpr);
        s.sys.cpl = if v86 { 3 } else { rpl(image.selectors[CS]) };
        s.sys.ldtr = SystemSegment {
            selector: image.ldt,
            ..SystemSegment::default()
        };
        s.sys.look = true;
    }
    for (n, &selector) in image.selectors.iter().enumerate() {
        let segment = if v86 {
            segment::v86(selector)
        } else {
            segment::null(cx, n, selector)
        };
        segment::set(cx, n, segment);
    }
    let sys = cx.sys();
    let pae = control::uses_pae(sys.cr0, sys.cr4, sys.efer);
    if pae && image.cr3.is_some() {
        sys.pdpte = control::load_pdptes(cx, sys.cr3)?;
    }
    cx.changed();
    load_ldt(cx, image.ldt)?;
    if !v86 {
        load_segments(cx, &image.selectors)?;
    }
    segment::check_target(cx, &segment::get(cx, CS), image.ip)
}

/// The flags that there are.
const FLAGS: u64 = 0x3f_7fd5;

fn load_ldt(cx: &Cx, selector: u16) -> Result<(), Fault> {
    if is_null(selector) {
        return Ok(());
    }
    let refused = Fault::ts(code(selector));
    if selector & 4 != 0 {
        return Err(refused);
    }
    let d = Descriptor::get(cx, selector, Fault::ts)?;
    if d.system() != Some(kind::LDT) || !d.is_present() {
        return Err(refused);
    }
    cx.sys().ldtr = d.segment();
    Ok(())
}

fn load_segments(cx: &Cx, selectors: &[u16; 6]) -> Result<(), Fault> {
    let selector = selectors[CS];
    let cpl = rpl(selector);
    if is_null(selector) {
        return Err(Fault::ts(0));
    }
    let mut d = Descriptor::get(cx, selector, Fault::ts)?;
    let level = if d.is_conforming() {
        d.dpl() <= cpl
    } else {
        d.dpl() == cpl
    };
    if !d.is_code() || !level {
        return Err(Fault::ts(code(selector)));
    }
    if !d.is_present() {
        return Err(Fault::np(code(selector)));
    }
    let cs = segment::code_segment(cx, &mut d, cpl)?;
    segment::set(cx, CS, cs);
    let ss = segment::stack_segment(cx, selectors[SS], cpl, Fault::ts, false)?;
    segment::set(cx, SS, ss);
    for n in [ES, DS, FS, GS] {
        let loaded = segment::data_segment(cx, n, selectors[n], Fault::ts)?;
        segment::set(cx, n, loaded);
    }
    cx.changed();
    Ok(())
}
