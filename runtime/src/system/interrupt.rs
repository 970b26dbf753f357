//! Exceptions and interrupts: delivery through the IDT, and INT n (SDM volume 3, chapter 6;
//! volume 2, INT n).

use super::descriptor::{Descriptor, Gate, code, is_ia32e, is_null, kind, linear};
use super::segment::{self, CS, DS, ES, FS, GS, RSP, SS};
use super::stack::{self, Stack};
use super::{
    Activity, Cx, Delivered, Event, Fault, Outcome, Shadow, Source, attr, cr4, mode, task,
};
use crate::memory::paged::Rights;
use metaphrase_frontend::Level;
use metaphrase_ir::{SystemOp, sysflags};

const DB: u8 = 1;
const DF: u8 = 8;
const PF: u8 = 14;

/// RFLAGS.VIF, the virtual interrupt flag.
const VIF: u64 = 1 << 19;

/// The bit of an error code that says that an IDT entry is meant (SDM volume 3, 6.13).
const IDT_BIT: u32 = 2;

/// What delivery gives: nothing, the fault that kept it from happening, or (`Ok(Some)`) a fault
/// that the new task begins with, after a task switch that cannot be undone.
type Attempt = Result<Option<Fault>, Fault>;

/// Delivers an exception or interrupt: pushes the frame and goes to the handler, or ends in
/// another exception, a double fault or shutdown. RIP is the address to return to.
pub fn deliver(cx: &Cx, event: Event) -> Delivered {
    let mut event = event;
    note_address(cx, event);
    cx.sys().shadow = Shadow::None;
    cx.sys().monitor_armed = false;
    loop {
        let second = match attempt(cx, event) {
            Ok(None) => {
                cx.sys().activity = Activity::Running;
                return Delivered::Handler;
            }
            Ok(Some(fault)) | Err(fault) => fault,
        };
        let second = Event {
            fault: second,
            source: Source::Exception,
        };
        note_address(cx, second);
        match escalate(event, second) {
            Some(next) => event = next,
            None => {
                cx.sys().activity = Activity::Shutdown;
                return Delivered::Shutdown;
            }
        }
    }
}

/// A page fault's address is in CR2 even if it ends as a double fault.
fn note_address(cx: &Cx, event: Event) {
    if event.fault.vector == PF && event.source == Source::Exception {
        cx.sys().cr2 = event.fault.addr;
    }
}

/// What comes of a fault during delivery (SDM volume 3, table 6-5): that fault, a double fault, or
/// shutdown.
fn escalate(first: Event, second: Event) -> Option<Event> {
    #[derive(PartialEq)]
    enum Class {
        Benign,
        Contributory,
        Page,
        Double,
    }
    let class = |event: Event| match (event.source, event.fault.vector) {
        (Source::Exception, 0 | 10..=13 | 21) => Class::Contributory,
        (Source::Exception, PF | 20) => Class::Page,
        (Source::Exception, DF) => Class::Double,
        _ => Class::Benign,
    };
    let double = Event {
        fault: Fault::coded(DF, 0),
        source: Source::Exception,
    };
    match (class(first), class(second)) {
        (Class::Benign, _) | (_, Class::Benign) => Some(second),
        (Class::Double, _) => None,
        (Class::Contributory, Class::Page) => Some(second),
        _ => Some(double),
    }
}

/// Whether the event is an instruction's own doing: its faults then do not say "external".
fn is_software(source: Source) -> bool {
    matches!(source, Source::Software | Source::SoftwareException)
}

/// Delivers, or says why not.
fn attempt(cx: &Cx, event: Event) -> Attempt {
    let outcome = match mode::level(cx.state()) {
        Level::Real => through_vector(cx, event.fault.vector, image(cx, event)).map(|()| None),
        _ => through_table(cx, event),
    };
    // The EXT bit (SDM volume 3, 6.13).
    let external = |fault: Fault| match fault.vector {
        10..=13 if !is_software(event.source) => Fault {
            error: fault.error.map(|code| code | 1),
            ..fault
        },
        _ => fault,
    };
    outcome.map(|late| late.map(external)).map_err(external)
}

/// RFLAGS as it is saved. Exceptions of the fault class ask to be resumed without an instruction
/// breakpoint (SDM volume 3, 17.3.1.1).
fn image(cx: &Cx, event: Event) -> u64 {
    let flags = cx.state().rflags();
    match (event.source, event.fault.vector) {
        (Source::Exception, DB | 3 | 4 | DF | 18) => flags,
        (Source::Exception, _) => flags | sysflags::RF,
        (Source::External, _) => flags,
        _ => flags & !sysflags::RF,
    }
}

/// Real mode (SDM volume 3, 20.1.4): the table holds far pointers.
fn through_vector(cx: &Cx, vector: u8, flags: u64) -> Result<(), Fault> {
    let idtr = cx.sys().idtr;
    let at = u64::from(vector) * 4;
    if at + 3 > u64::from(idtr.limit) {
        return Err(Fault::gp(u32::from(vector) * 8 + IDT_BIT));
    }
    let entry = cx
        .paged()
        .read_as(Rights::Supervisor, linear(cx, idtr.base, at))?;
    let cs = |cx: &Cx, selector| segment::real(cx, CS, selector);
    enter_vector(cx, entry, flags, cs)?;
    cx.state().sysflags &= !sysflags::IF;
    Ok(())
}

/// Pushes what a real-mode interrupt pushes and goes to a far pointer.
fn enter_vector(
    cx: &Cx,
    entry: u32,
    flags: u64,
    cs: fn(&Cx, u16) -> super::SystemSegment,
) -> Result<(), Fault> {
    let mut stack = Stack::current(cx);
    stack.reserve(cx, 3, 2)?;
    let target = cs(cx, (entry >> 16) as u16);
    let ip = u64::from(entry & 0xffff);
    segment::check_target(cx, &target, ip)?;
    stack.push(cx, 2, flags)?;
    stack.push(cx, 2, cx.state().seg_sel[CS].into())?;
    stack.push(cx, 2, cx.state().rip)?;
    segment::set(cx, CS, target);
    stack.commit(cx);
    let s = cx.state();
    s.rip = ip;
    s.sysflags &= !(sysflags::TF | sysflags::AC | sysflags::RF);
    cx.changed();
    Ok(())
}

/// Protected, virtual-8086 and IA-32e mode: the table holds gates.
fn through_table(cx: &Cx, event: Event) -> Attempt {
    let vector = u32::from(event.fault.vector);
    let refused = vector * 8 + IDT_BIT;
    let idtr = cx.sys().idtr;
    let ia32e = is_ia32e(cx);
    let size = if ia32e { 16 } else { 8 };
    let at = u64::from(vector) * size;
    if at + size - 1 > u64::from(idtr.limit) {
        return Err(Fault::gp(refused));
    }
    let memory = cx.paged();
    let at = linear(cx, idtr.base, at);
    let raw: u64 = memory.read_as(Rights::Supervisor, at)?;
    let upper: u32 = match ia32e {
        true => memory.read_as(Rights::Supervisor, linear(cx, at, 8))?,
        false => 0,
    };
    let attributes = (raw >> 40) as u32;
    let gate = Gate::new(raw, upper.into());
    let known = match gate.kind {
        kind::INT32 | kind::TRAP32 => true,
        kind::TASK | kind::INT16 | kind::TRAP16 => !ia32e,
        _ => false,
    };
    if !known || attributes & attr::S != 0 {
        return Err(Fault::gp(refused));
    }
    let dpl = (attributes >> attr::DPL_SHIFT) as u8 & 3;
    if is_software(event.source) && dpl < cx.sys().cpl {
        return Err(Fault::gp(refused));
    }
    if attributes & attr::P == 0 {
        return Err(Fault::np(refused));
    }
    if gate.kind == kind::TASK {
        let flags = image(cx, event);
        return task::by_interrupt(cx, gate.selector, event.fault.error, flags);
    }
    through_gate(cx, event, gate).map(|()| None)
}

/// An interrupt or trap gate.
fn through_gate(cx: &Cx, event: Event, gate: Gate) -> Result<(), Fault> {
    let ia32e = is_ia32e(cx);
    let v86 = cx.state().sysflags & sysflags::VM != 0;
    let cpl = cx.sys().cpl;
    let rsp = cx.state().gpr[RSP];
    if is_null(gate.selector) {
        return Err(Fault::gp(0));
    }
    let mut d = Descriptor::get(cx, gate.selector, Fault::gp)?;
    let long_code = d.has(attr::L) && !d.has(attr::DB);
    if !d.is_code() || d.dpl() > cpl || ia32e && !long_code {
        return Err(Fault::gp(code(gate.selector)));
    }
    if !d.is_present() {
        return Err(Fault::np(code(gate.selector)));
    }
    let new_cpl = if d.is_conforming() { cpl } else { d.dpl() };
    if v86 && new_cpl != 0 {
        return Err(Fault::gp(code(gate.selector)));
    }
    let inner = new_cpl < cpl;
    let mut stack = if ia32e {
        // Aligned whatever the level (SDM volume 3, 6.14.2).
        let mut stack = match (gate.count & 7, inner) {
            (0, false) => Stack::long(cx, segment::get(cx, SS), rsp, cpl),
            (ist, _) => stack::inner_long(cx, new_cpl, ist)?,
        };
        stack.sp &= !15;
        stack
    } else if inner {
        stack::inner(cx, new_cpl)?
    } else {
        Stack::current(cx)
    };
    let width = gate.width(ia32e);
    let outer_frame = ia32e || inner;
    let error = event.fault.error;
    let count = 3 + u64::from(error.is_some()) + if outer_frame { 2 } else { 0 };
    stack.reserve(cx, count + if v86 { 4 } else { 0 }, width)?;
    let target = segment::code_segment(cx, &mut d, new_cpl)?;
    segment::check_target(cx, &target, gate.offset)?;
    let mut push = |value| stack.push(cx, width, value);
    if v86 {
        for n in [GS, FS, DS, ES] {
            push(cx.state().seg_sel[n].into())?;
        }
    }
    if outer_frame {
        push(cx.state().seg_sel[SS].into())?;
        push(rsp)?;
    }
    push(image(cx, event))?;
    push(cx.state().seg_sel[CS].into())?;
    push(cx.state().rip)?;
    if let Some(error) = error {
        push(error.into())?;
    }
    if v86 {
        for n in [GS, FS, DS, ES] {
            segment::set(cx, n, segment::null(cx, n, 0));
        }
    }
    segment::set(cx, CS, target);
    if inner {
        segment::set(cx, SS, stack.segment);
    }
    stack.commit(cx);
    let s = cx.state();
    s.rip = gate.offset;
    s.sys.cpl = new_cpl;
    s.sysflags &= !(sysflags::TF | sysflags::NT | sysflags::RF | sysflags::VM);
    if matches!(gate.kind, kind::INT16 | kind::INT32) {
        s.sysflags &= !sysflags::IF;
    }
    cx.changed();
    Ok(())
}

/// INT n, INT3, INTO, INT1.
pub(super) fn int(cx: &Cx, op: SystemOp, _a: u64, _b: u64, _next: u64) -> Outcome {
    let source = match op.m {
        0 => Source::Software,
        1 => Source::SoftwareException,
        _ => Source::Privileged,
    };
    if source == Source::Software && mode::level(cx.state()) == Level::V86 {
        if cx.sys().cr4 & cr4::VME != 0 && is_redirected(cx, op.n)? {
            redirect(cx, op.n)?;
            return Ok(0);
        }
        if cx.state().sysflags & sysflags::IOPL != sysflags::IOPL {
            return Err(Fault::gp(0));
        }
    }
    let event = Event {
        fault: Fault::plain(op.n),
        source,
    };
    let late = attempt(cx, event)?;
    task::begin(cx, late);
    Ok(0)
}

/// Whether the redirection bitmap, below the I/O bitmap in the TSS, sends INT n to the program
/// in virtual-8086 mode itself (SDM volume 3, 20.3.3).
fn is_redirected(cx: &Cx, vector: u8) -> Result<bool, Fault> {
    const MAP_BASE: u64 = 0x66;
    let tr = cx.sys().tr;
    let limit = u64::from(tr.limit);
    if tr.attr & 8 == 0 || limit < MAP_BASE + 1 {
        return Ok(false);
    }
    let memory = cx.paged();
    let io: u16 = memory.read_as(Rights::Supervisor, linear(cx, tr.base, MAP_BASE))?;
    let Some(map) = u64::from(io).checked_sub(32) else {
        return Ok(false);
    };
    let at = map + u64::from(vector / 8);
    if at > limit {
        return Ok(false);
    }
    let byte: u8 = memory.read_as(Rights::Supervisor, linear(cx, tr.base, at))?;
    Ok(byte >> (vector % 8) & 1 == 0)
}

/// INT n to the program in virtual-8086 mode itself: methods 5 and 6 (SDM volume 3, 20.3.3).
fn redirect(cx: &Cx, vector: u8) -> Result<(), Fault> {
    let at = u64::from(vector) * 4;
    let entry = cx.paged().read_as(Rights::Current, at)?;
    let flags = cx.state().rflags() & !sysflags::RF;
    let cs = |_: &Cx, selector| segment::v86(selector);
    if flags & sysflags::IOPL == sysflags::IOPL {
        enter_vector(cx, entry, flags, cs)?;
        cx.state().sysflags &= !sysflags::IF;
    } else {
        // VIF takes the place of IF, and IOPL looks like 3.
        let virtual_if = if flags & VIF != 0 { sysflags::IF } else { 0 };
        let shown = flags & !sysflags::IF | virtual_if | sysflags::IOPL;
        enter_vector(cx, entry, shown, cs)?;
        cx.state().sysflags &= !VIF;
    }
    Ok(())
}
