//! Page faults in the middle of transfers and of delivery, with whose rights each access is made,
//! and the virtual interrupts of virtual-8086 mode.

use super::*;
use crate::memory::paged::Rights;
use metaphrase_ir::sysflags;

const DIRECTORY: u64 = 0x2_0000;
const TABLE: u64 = 0x2_1000;
const PRESENT: u32 = 1;
const WRITABLE: u32 = 2;
const USER: u32 = 4;

/// A page that user code may use for its stack, one that it may not, and one that is not there.
const USER_PAGE: u64 = 0x8000;
const ABSENT: u64 = 0xb000;

impl Guest {
    /// In 32-bit protected mode with paging: everything one to one and the supervisor's, but for
    /// the two pages.
    fn paged() -> Guest {
        let mut g = Guest::protected();
        for n in 0..64 {
            g.map(n * PAGE, PRESENT | WRITABLE);
        }
        g.map(USER_PAGE, PRESENT | WRITABLE | USER);
        g.map(ABSENT, 0);
        g.put32(DIRECTORY, TABLE as u32 | PRESENT | WRITABLE | USER);
        g.state.sys.cr3 = DIRECTORY;
        g.state.sys.cr0 |= cr0::PG | cr0::WP;
        g.cx().changed();
        g
    }

    fn map(&self, page: u64, bits: u32) {
        self.put32(TABLE + page / PAGE * 4, page as u32 | bits);
    }

    /// A handler at level 0, whose stack ends at `stack`.
    fn handler(&self, vector: u8, stack: u64) {
        let at = IDT + 8 * u64::from(vector);
        self.put(at, gate(CODE0, 0x5000, present(14, 3), 0));
        self.put32(TSS + 4, stack as u32);
        self.put32(TSS + 8, DATA0.into());
    }
}

fn int(g: &mut Guest, vector: u8) -> Outcome {
    g.run(op(SystemKind::Int, 0, vector, 0), 0, 0)
}

#[test]
fn tables_and_inner_stacks_are_the_supervisors() {
    let mut g = Guest::paged();
    g.handler(0x30, 0x1_0000);
    g.level(3);
    g.state.gpr[4] = USER_PAGE + 0x800;
    int(&mut g, 0x30).unwrap();
    assert_eq!((g.state.sys.cpl, g.state.gpr[4]), (0, 0xffec));
}

#[test]
fn a_level_3_frame_is_written_with_its_own_rights() {
    let mut g = Guest::paged();
    g.level(3);
    // From the supervisor's page above, a push into the user's would be fine; not the reverse.
    g.state.gpr[4] = USER_PAGE + 4;
    let call = op(SystemKind::CallFar, 4, 0, 0);
    let fault = Fault::pf(USER_PAGE - 4, 7);
    assert_eq!(g.run(call, CODE3.into(), 0x100), Err(fault));
    g.state.gpr[4] = USER_PAGE + 8;
    g.run(call, CODE3.into(), 0x100).unwrap();
}

#[test]
fn a_fault_in_the_middle_leaves_the_registers_alone() {
    let mut g = Guest::paged();
    // The frame runs into the page that is not there: the harness compares the registers.
    g.handler(0x30, ABSENT + 0x1000 + 8);
    g.level(3);
    g.state.gpr[4] = USER_PAGE + 0x800;
    assert_eq!(int(&mut g, 0x30), Err(Fault::pf(ABSENT + 0xffc, 2)));
    g.level(0);
    g.state.gpr[4] = ABSENT - 8;
    g.put32(ABSENT - 8, 0x1000);
    g.put32(ABSENT - 4, CODE3.into());
    let absent = Err(Fault::pf(ABSENT, 0));
    assert_eq!(g.run(op(SystemKind::RetFar, 4, 0, 0), 0, 0), absent);
    assert_eq!(g.run(op(SystemKind::Iret, 4, 0, 0), 0, 0), absent);
    // A descriptor table that is not there.
    g.state.sys.gdtr.base = ABSENT;
    let load = op(SystemKind::LoadSegment, 2, 3, 0);
    assert_eq!(g.run(load, 8, 0), Err(Fault::pf(ABSENT + 8, 0)));
    let info = op(SystemKind::SegmentInfo, 4, 0, 0);
    assert_eq!(g.run(info, 8, 0), Err(Fault::pf(ABSENT + 8, 0)));
}

#[test]
fn a_table_that_may_not_be_written_refuses_the_accessed_bit() {
    let mut g = Guest::paged();
    let data = attr::S | attr::RW;
    g.define(FREE, descriptor(0, 0xff, present(data, 0)));
    g.map(GDT, PRESENT);
    g.env.memory.paged().unwrap().flush(true);
    let load = op(SystemKind::LoadSegment, 2, 3, 0);
    let at = GDT + u64::from(FREE) + 5;
    assert_eq!(g.run(load, FREE.into(), 0), Err(Fault::pf(at, 3)));
    g.run(load, DATA0.into(), 0).unwrap();
}

#[test]
fn a_page_fault_that_cannot_be_delivered_is_a_double_fault() {
    let mut g = Guest::paged();
    g.handler(14, ABSENT + 0x800);
    g.level(3);
    let event = Event {
        fault: Fault::pf(0x1234_5000, 4),
        source: Source::Exception,
    };
    // The double fault's handler has the same stack.
    g.handler(8, ABSENT + 0x800);
    assert_eq!(interrupt::deliver(&g.cx(), event), Delivered::Shutdown);
    // CR2 is the last page fault's.
    assert_eq!(g.state.sys.cr2, ABSENT + 0x7fc);
    // A task gate gets it a stack of its own.
    let mut g = Guest::paged();
    g.handler(14, ABSENT + 0x800);
    g.define(FREE, descriptor(0x6000, 0x67, present(9, 0)));
    g.put(IDT + 8 * 8, gate(FREE, 0, present(5, 0), 0));
    g.put32(0x601c, DIRECTORY as u32);
    g.put32(0x6020, 0x5000);
    g.put32(0x6038, 0xa000);
    for n in 0..6 {
        let selector = if n == 1 { CODE0 } else { DATA0 };
        g.put32(0x6048 + 4 * n, selector.into());
    }
    g.level(3);
    g.state.gpr[4] = USER_PAGE;
    g.state.rip = 0x7777;
    assert_eq!(interrupt::deliver(&g.cx(), event), Delivered::Handler);
    assert_eq!(g.state.sys.tr.selector, FREE);
    assert_eq!((g.state.rip, g.state.gpr[4]), (0x5000, 0x9ffc));
    assert_eq!(g.get32(0x9ffc), 0);
    assert_eq!(g.get32(TSS + 0x20), 0x7777);
    assert_eq!(g.state.sys.activity, Activity::Running);
}

#[test]
fn a_page_fault_during_another_exception_comes_in_its_place() {
    let mut g = Guest::paged();
    // The gate of #GP is the last on a page that is not there, and that of #PF behind it.
    g.map(ABSENT - PAGE, 0);
    g.map(ABSENT, PRESENT | WRITABLE);
    g.cx().paged().flush(true);
    g.state.sys.idtr.base = ABSENT - 14 * 8;
    g.put(ABSENT, gate(CODE0, 0x5000, present(14, 0), 0));
    g.state.gpr[4] = 0x1_0000;
    g.state.rip = 0x7777;
    let event = Event {
        fault: Fault::gp(0x40),
        source: Source::Exception,
    };
    assert_eq!(interrupt::deliver(&g.cx(), event), Delivered::Handler);
    assert_eq!(g.state.sys.cr2, ABSENT - 8);
    assert_eq!(g.state.gpr[4], 0xfff0);
    assert_eq!((g.get32(0xfff0), g.get32(0xfff4)), (0, 0x7777));
}

#[test]
fn a_task_brings_its_address_space() {
    const OTHER: u64 = 0x2_2000;
    let mut g = Guest::paged();
    // The same but for one page.
    for n in 0..64 {
        g.put32(OTHER + 0x1000 + 4 * n, (n * PAGE) as u32 | 3);
    }
    g.put32(OTHER + 0x1000 + 4 * (USER_PAGE / PAGE), 0xc003);
    g.put32(OTHER, (OTHER + 0x1000) as u32 | 3);
    g.define(FREE, descriptor(0x6000, 0x67, present(9, 0)));
    g.put32(0x601c, OTHER as u32);
    g.put32(0x6024, 2);
    for n in 0..6 {
        let selector = if n == 1 { CODE0 } else { DATA0 };
        g.put32(0x6048 + 4 * n, selector.into());
    }
    g.put32(0xc000, 0x1234_5678);
    g.run(op(SystemKind::JmpFar, 4, 0, 0), FREE.into(), 0)
        .unwrap();
    assert_eq!(g.state.sys.cr3, OTHER);
    let seen = g.cx().paged().read_as::<u32>(Rights::Current, USER_PAGE);
    assert_eq!(seen, Ok(0x1234_5678));
}

/// In virtual-8086 mode with the extensions and the redirection bitmap.
fn virtual_8086(iopl: u64) -> Guest {
    let mut g = Guest::protected();
    g.handler(0x30, 0x1_0000);
    g.state.sys.cr4 |= cr4::VME;
    g.state.sys.tr.limit = 0xff;
    g.put16(TSS + 0x66, 0x68 + 32);
    g.level(3);
    g.state.set_rflags(2 | sysflags::VM | iopl << 12);
    for n in 0..6 {
        segment::set(&g.cx(), n, segment::v86(0x800));
    }
    g.state.gpr[4] = 0x100;
    g.put32(4 * 0x30, 0x0900_0042);
    g.cx().changed();
    g
}

const VIF: u64 = 1 << 19;
const VIP: u64 = 1 << 20;

#[test]
fn redirected_interrupts_stay_in_virtual_8086_mode() {
    for (iopl, flags, shown, left) in [
        (3, 0x202, 0x3202, 0),
        // VIF is shown as IF, under an IOPL of 3, and goes.
        (0, VIF | 2, 0x3202, 0),
        (0, 0x202, 0x3002, 0x200),
    ] {
        let mut g = virtual_8086(iopl);
        g.state.sysflags |= flags;
        int(&mut g, 0x30).unwrap();
        assert_eq!((g.state.seg_base[1], g.state.rip), (0x9000, 0x42));
        assert_eq!((g.state.sys.cpl, g.state.gpr[4]), (3, 0xfa));
        assert_eq!(g.get16(0x80fe), shown, "IOPL {iopl}, {flags:#x}");
        assert_eq!(g.state.sysflags & (sysflags::IF | VIF), left);
        // And back.
        g.run(op(SystemKind::Iret, 2, 0, 0), 0, 0).unwrap();
        assert_eq!((g.state.seg_sel[1], g.state.rip), (0x800, NEXT));
        let shown = if iopl == 3 { sysflags::IF } else { VIF };
        let enabled = g.state.sysflags & shown != 0;
        assert_eq!(enabled, flags & (VIF | sysflags::IF) & shown != 0);
    }
}

#[test]
fn interrupts_that_are_not_redirected_need_iopl_3() {
    for (iopl, outcome) in [(0, Err(Fault::gp(0))), (3, Ok(0))] {
        let mut g = virtual_8086(iopl);
        g.put(TSS + 0x68 + 6, 1);
        assert_eq!(int(&mut g, 0x30), outcome, "IOPL {iopl}");
    }
}

#[test]
fn a_pending_virtual_interrupt_refuses_the_iret_that_enables_it() {
    let mut g = virtual_8086(0);
    let iret = op(SystemKind::Iret, 2, 0, 0);
    g.put16(0x8100 + 2, 0x800);
    g.state.sysflags |= VIP;
    g.put16(0x8100 + 4, 0x202);
    assert_eq!(g.run(iret, 0, 0), Err(Fault::gp(0)));
    g.put16(0x8100 + 4, 0x102);
    assert_eq!(g.run(iret, 0, 0), Err(Fault::gp(0)));
    g.put16(0x8100 + 4, 0x2);
    g.run(iret, 0, 0).unwrap();
    assert_eq!(
        g.run(op(SystemKind::Iret, 4, 0, 0), 0, 0),
        Err(Fault::gp(0))
    );
}
