//! The tables of a fixed layout (ACPI specification, 5.2): FADT, MADT, and that of the event timers
//! (HPET specification, 3.2.4). All without their headers.

use super::{BoardTables, HEADER, dsdt};
use crate::machine::pc::{HPET_BASE, PM_BASE};
use metaphrase_devices::{acpi_pm, apic, hpet};

/// The system control interrupt.
const SCI: u8 = 9;

/// Where in the FADT the addresses of the FACS and of the DSDT are, with their widths.
pub(super) const FACS_AT: [(usize, u8); 2] = [(36, 4), (132, 8)];
pub(super) const DSDT_AT: [(usize, u8); 2] = [(40, 4), (140, 8)];

/// The fixed description table.
pub(super) fn fadt(board: &BoardTables) -> Vec<u8> {
    const LEN: usize = 244;
    /// WBINVD works, HLT is C1, no fixed sleep button, the reset register is there. The power button
    /// is a fixed one; the timer has 24 bits.
    const FLAGS: u32 = 1 | 1 << 2 | 1 << 5 | 1 << 10;
    /// There are devices on the ISA bus, among them the 8042.
    const BOOT: u16 = 0b011;
    const NO_VGA: u16 = 0b100;
    let pm = u32::from(PM_BASE);
    let mut t = vec![0; LEN - HEADER];
    // Offsets count from the header, as in the specification.
    let mut put = |at: usize, bytes: &[u8]| {
        t[at - HEADER..at - HEADER + bytes.len()].copy_from_slice(bytes);
    };
    put(46, &[SCI, 0]);
    if board.firmware {
        // Without firmware ACPI mode is always on, and there is no port to ask for it.
        put(48, &u32::from(acpi_pm::APM_CONTROL).to_le_bytes());
        put(52, &[acpi_pm::ACPI_ENABLE, acpi_pm::ACPI_DISABLE]);
    }
    for (at, port) in [(56, pm), (64, pm + 4), (76, pm + 8), (80, pm + 12)] {
        put(at, &port.to_le_bytes());
    }
    // Lengths: events, control, -, timer, general-purpose events.
    put(88, &[4, 2, 0, 4, 4]);
    // No C2 and C3: latencies above what is allowed.
    put(96, &[0xff, 0x0f, 0xff, 0x0f]);
    // The real-time clock's register with the century.
    put(108, &[0x32]);
    let boot = if board.vga { BOOT } else { BOOT | NO_VGA };
    put(109, &boot.to_le_bytes());
    put(112, &FLAGS.to_le_bytes());
    // Reset: port CF9h, 8 bits, value 6.
    put(116, &[1, 8, 0, 1, 0xf9, 0x0c, 0, 0, 0, 0, 0, 0, 6]);
    t
}

/// The interrupt controllers: a local APIC, an I/O APIC, the requests of the ISA bus that are not
/// edges or lead elsewhere, and the NMI at local input 1.
pub(super) fn madt() -> Vec<u8> {
    /// There is a pair of 8259A too.
    const PC_COMPATIBLE: u32 = 1;
    /// Active high, level-triggered.
    const LEVEL: u16 = 0b1101;
    let mut t = (apic::LOCAL_BASE as u32).to_le_bytes().to_vec();
    t.extend(PC_COMPATIBLE.to_le_bytes());
    // Processor 0 with local APIC 0, enabled.
    t.extend([0, 8, 0, 0, 1, 0, 0, 0]);
    t.extend([1, 12, 0, 0]);
    t.extend((apic::IO_BASE as u32).to_le_bytes());
    t.extend([0; 4]);
    let mut request = |n: u8, input: u32, flags: u16| {
        t.extend([2, 10, 0, n]);
        t.extend(input.to_le_bytes());
        t.extend(flags.to_le_bytes());
    };
    request(0, 2, 0);
    let mut levels = vec![SCI.into()];
    levels.extend(dsdt::ROUTABLE);
    levels.sort_unstable();
    for n in levels {
        request(n as u8, n, LEVEL);
    }
    t.extend([4, 6, 0xff, 0, 0, 1]);
    t
}

/// The event timers.
pub(super) fn hpet() -> Vec<u8> {
    /// The shortest period, in ticks, that is kept without loss.
    const SHORTEST: u16 = 100;
    let mut t = (hpet::CAPABILITIES as u32).to_le_bytes().to_vec();
    // Memory, 64 bits.
    t.extend([0, 64, 0, 0]);
    t.extend(HPET_BASE.to_le_bytes());
    t.push(0);
    t.extend(SHORTEST.to_le_bytes());
    t.push(0);
    t
}
