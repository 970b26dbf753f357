//! The differentiated description table: the PCI bus with its interrupts, the devices of the ISA
//! bus, the event timers, and soft off.

use super::BoardTables;
use super::aml::*;
use crate::machine::pc::HPET_BASE;

/// Where a guest finds the registers of the interrupt router.
const ROUTER: &str = "\\_SB_.PCI0.ISA_";
/// In a register of it: the input leads nowhere.
const OFF: u64 = 0x80;
/// What the inputs may lead to.
pub(super) const ROUTABLE: [u32; 3] = [5, 10, 11];

/// The code of the table.
pub(super) fn code(board: &BoardTables) -> Aml {
    // 0: the guest uses the 8259A; 1: the APICs. The router leads to the same numbers of both.
    let model = terms([
        name("PICF", int(0)),
        method("_PIC", 1, false, store(arg(0), path("PICF"))),
    ]);
    // Soft off is sleep type 0.
    let off = name("_S5_", package(&[int(0), int(0), int(0), int(0)]));
    let system = terms([
        processor(),
        device("PCI0", terms([pci_bus(), isa_bus(board)])),
        terms((0..4).map(link)),
        event_timers(),
    ]);
    terms([model, off, scope("\\_SB_", system)])
}

fn processor() -> Aml {
    device(
        "CPU0",
        terms([name("_HID", text("ACPI0007")), name("_UID", int(0))]),
    )
}

fn pci_bus() -> Aml {
    let resources = resources(&[
        word_space(2, 0, 0, 0xff),
        // The configuration ports, which the bridge keeps.
        ports(0x0cf8, 8),
        word_space(1, 3, 0, 0x0cf7),
        word_space(1, 3, 0x0d00, 0xffff),
        memory_space(0x000a_0000, 0x000b_ffff),
        memory_space(0xc000_0000, 0xfebf_ffff),
    ]);
    terms([
        name("_HID", eisa("PNP0A03")),
        name("_UID", int(0)),
        name("_CRS", resources),
        name("_PRT", routes()),
    ])
}

fn link_name(input: u64) -> &'static str {
    ["LNKA", "LNKB", "LNKC", "LNKD"][(input & 3) as usize]
}

/// Which input of the router each pin of each slot leads to: those of a slot are shifted by one
/// against those of the slot before, and slot 1 is straight.
fn routes() -> Aml {
    let pins = (0..32u64).flat_map(|slot| (0..4).map(move |pin| (slot, pin)));
    let entries: Vec<Aml> = pins
        .map(|(slot, pin)| {
            let link = path(link_name(slot + 3 + pin));
            package(&[int(slot << 16 | 0xffff), int(pin), link, int(0)])
        })
        .collect();
    package(&entries)
}

/// The device that stands for an input of the router.
fn link(input: u64) -> Aml {
    let register = path(&format!("{ROUTER}.PRQ{input}"));
    let register = || register.clone();
    let is_off = || and(register(), int(OFF));
    let status = terms([when(is_off(), give(int(0x9))), give(int(0xb))]);
    let current = terms([
        store(resources(&[interrupts(&[0])]), local(0)),
        dword_field(local(0), 5, "IRQW"),
        when(not(is_off()), store(register(), path("IRQW"))),
        give(local(0)),
    ]);
    let set = terms([
        dword_field(arg(0), 5, "IRQW"),
        store(path("IRQW"), register()),
    ]);
    device(
        link_name(input),
        terms([
            name("_HID", eisa("PNP0C0F")),
            name("_UID", int(input + 1)),
            name("_PRS", resources(&[interrupts(&ROUTABLE)])),
            method("_STA", 0, false, status),
            method("_DIS", 0, false, or(register(), int(OFF), register())),
            method("_CRS", 0, true, current),
            method("_SRS", 1, true, set),
        ]),
    )
}

/// The ISA bridge with its router, and what is on the bus.
fn isa_bus(board: &BoardTables) -> Aml {
    let fields: Vec<String> = (0..4).map(|n| format!("PRQ{n}")).collect();
    let chip = |at, id, used: &[Aml]| {
        device(
            at,
            terms([name("_HID", eisa(id)), name("_CRS", resources(used))]),
        )
    };
    let serial = |at, unit, used: &[Aml]| {
        device(
            at,
            terms([
                name("_HID", eisa("PNP0501")),
                name("_UID", int(unit)),
                name("_CRS", resources(used)),
            ]),
        )
    };
    let mut all = vec![
        name("_ADR", int(0x1_0000)),
        pci_region("PIRQ", 0x60, 4),
        byte_field("PIRQ", &fields),
        chip(
            "PIC_",
            "PNP0000",
            &[ports(0x20, 2), ports(0xa0, 2), ports(0x4d0, 2), irq(2)],
        ),
        chip("TIMR", "PNP0100", &[ports(0x40, 4), irq(0)]),
        chip(
            "DMAC",
            "PNP0200",
            &[ports(0, 16), ports(0x81, 15), ports(0xc0, 32), dma(4)],
        ),
        chip("SPKR", "PNP0800", &[ports(0x61, 1)]),
        chip("RTC_", "PNP0B00", &[ports(0x70, 2), irq(8)]),
        chip("FPU_", "PNP0C04", &[ports(0xf0, 2), irq(13)]),
        chip("KBD_", "PNP0303", &[ports(0x60, 1), ports(0x64, 1), irq(1)]),
        chip("MOU_", "PNP0F13", &[irq(12)]),
        serial("COM1", 1, &[ports(0x3f8, 8), irq(4)]),
    ];
    if board.second_serial {
        all.push(serial("COM2", 2, &[ports(0x2f8, 8), irq(3)]));
    }
    if board.floppy {
        let used = [ports(0x3f2, 4), ports(0x3f7, 1), irq(6), dma(2)];
        all.push(chip("FDC0", "PNP0700", &used));
    }
    device("ISA_", terms(all))
}

fn event_timers() -> Aml {
    let used = resources(&[fixed_memory(HPET_BASE as u32, 0x400)]);
    device(
        "HPET",
        terms([
            name("_HID", eisa("PNP0103")),
            name("_UID", int(0)),
            name("_CRS", used),
        ]),
    )
}
