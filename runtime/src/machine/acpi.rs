//! The ACPI tables of a machine that no firmware has set up (ACPI specification, chapter 5): what a
//! kernel needs to find the PCI bus, the power management registers, and how to switch off.
//!
//! The tables are few and fixed, so they are written out here, byte for byte.

use super::pc::PM_BASE;

/// The revision of RSDP and what it leads to: ACPI 2.0.
const REVISION: u8 = 2;
const HEADER: usize = 36;

/// Where the tables of a machine go.
pub(super) struct Image {
    /// The address that they are made for.
    pub(super) base: u64,
    /// All but the RSDP.
    pub(super) tables: Vec<u8>,
    /// The root pointer, which may be anywhere that a kernel looks.
    pub(super) rsdp: Vec<u8>,
}

/// Makes the sum of all bytes 0.
fn seal(bytes: &mut [u8], at: usize) {
    bytes[at] = 0;
    let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    bytes[at] = sum.wrapping_neg();
}

/// A table with its header.
fn table(signature: &[u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let mut t = signature.to_vec();
    t.extend(((HEADER + body.len()) as u32).to_le_bytes());
    t.extend([revision, 0]);
    t.extend(b"METAPHPC      ");
    t.extend(1u32.to_le_bytes());
    t.extend(b"META");
    t.extend(1u32.to_le_bytes());
    debug_assert_eq!(t.len(), HEADER);
    t.extend(body);
    seal(&mut t, 9);
    t
}

/// All tables, to be put at `base`.
pub(super) fn image(base: u64) -> Image {
    let mut tables = Vec::new();
    let mut place = |bytes: Vec<u8>| {
        tables.resize(tables.len().next_multiple_of(64), 0);
        let at = base + tables.len() as u64;
        tables.extend(bytes);
        at
    };
    let mut facs = vec![0; 64];
    facs[..4].copy_from_slice(b"FACS");
    facs[4] = 64;
    let facs = place(facs);
    let dsdt = place(table(b"DSDT", 1, &dsdt()));
    let fadt = place(table(b"FACP", 3, &fadt(facs, dsdt)));
    let rsdt = place(table(b"RSDT", 1, &(fadt as u32).to_le_bytes()));
    let xsdt = place(table(b"XSDT", 1, &fadt.to_le_bytes()));

    let mut rsdp = b"RSD PTR \0METAPH".to_vec();
    rsdp.push(REVISION);
    rsdp.extend((rsdt as u32).to_le_bytes());
    rsdp.extend(36u32.to_le_bytes());
    rsdp.extend(xsdt.to_le_bytes());
    rsdp.extend([0; 4]);
    seal(&mut rsdp[..20], 8);
    seal(&mut rsdp, 32);
    Image { base, tables, rsdp }
}

/// The fixed description table, without its header.
fn fadt(facs: u64, dsdt: u64) -> Vec<u8> {
    const LEN: usize = 244;
    /// WBINVD works, HLT is C1, no fixed sleep button, the reset register is there.
    const FLAGS: u32 = 1 | 1 << 2 | 1 << 5 | 1 << 10;
    /// There are devices on the ISA bus, among them the 8042; there is no VGA.
    const BOOT: u16 = 0b111;
    let pm = u32::from(PM_BASE);
    let mut t = vec![0; LEN - HEADER];
    // Offsets count from the header, as in the specification.
    let mut put = |at: usize, bytes: &[u8]| {
        t[at - HEADER..at - HEADER + bytes.len()].copy_from_slice(bytes);
    };
    put(36, &(facs as u32).to_le_bytes());
    put(40, &(dsdt as u32).to_le_bytes());
    // The system control interrupt. There is no SMI port: ACPI mode is always on.
    put(46, &[9, 0]);
    for (at, port) in [(56, pm), (64, pm + 4), (76, pm + 8), (80, pm + 12)] {
        put(at, &port.to_le_bytes());
    }
    // Lengths: events, control, -, timer, general-purpose events.
    put(88, &[4, 2, 0, 4, 4]);
    // No C2 and C3: latencies above what is allowed.
    put(96, &[0xff, 0x0f, 0xff, 0x0f]);
    put(108, &[0x32]);
    put(109, &BOOT.to_le_bytes());
    put(112, &FLAGS.to_le_bytes());
    // Reset: port CF9h, 8 bits, value 6.
    put(116, &[1, 8, 0, 1, 0xf9, 0x0c, 0, 0, 0, 0, 0, 0, 6]);
    put(132, &facs.to_le_bytes());
    put(140, &dsdt.to_le_bytes());
    t
}

/// An AML object with a package length (ACPI specification, 20.2.4) after its opcode.
fn packaged(opcode: &[u8], body: &[u8]) -> Vec<u8> {
    let mut out = opcode.to_vec();
    if body.len() + 1 < 64 {
        out.push(body.len() as u8 + 1);
    } else {
        let len = body.len() + 2;
        out.extend([0x40 | (len & 15) as u8, (len >> 4) as u8]);
    }
    out.extend(body);
    out
}

fn name(name: &[u8; 4], value: &[u8]) -> Vec<u8> {
    [&[0x08], &name[..], value].concat()
}

/// An address space descriptor of words: buses (2) or ports (1).
fn words(kind: u8, flags: u8, first: u16, last: u16) -> Vec<u8> {
    let mut out = vec![0x88, 13, 0, kind, 0x0c, flags];
    // All 1_0000h values would not fit; nobody has them.
    for word in [0, first, last, 0, (last - first).wrapping_add(1)] {
        out.extend(word.to_le_bytes());
    }
    out
}

/// An address space descriptor of memory.
fn memory(first: u32, last: u32) -> Vec<u8> {
    let mut out = vec![0x87, 23, 0, 0, 0x0c, 1];
    for dword in [0, first, last, 0, last - first + 1] {
        out.extend(dword.to_le_bytes());
    }
    out
}

/// The code of the differentiated description table: soft off, and the PCI bus.
fn dsdt() -> Vec<u8> {
    // Soft off is sleep type 0: a package of four zeros.
    let off = name(b"_S5_", &packaged(&[0x12], &[4, 0, 0, 0, 0]));
    let resources = [
        words(2, 0, 0, 0xff),
        // The configuration ports, which the bridge keeps.
        vec![0x47, 1, 0xf8, 0x0c, 0xf8, 0x0c, 1, 8],
        words(1, 3, 0, 0x0cf7),
        words(1, 3, 0x0d00, 0xffff),
        memory(0x000a_0000, 0x000b_ffff),
        memory(0xc000_0000, 0xfebf_ffff),
        vec![0x79, 0],
    ]
    .concat();
    let buffer = packaged(
        &[0x11],
        &[&[0x0a, resources.len() as u8], &resources[..]].concat(),
    );
    // PNP0A03, a PCI bus.
    let identity = name(b"_HID", &[0x0c, 0x41, 0xd0, 0x0a, 0x03]);
    let bus = [
        &b"PCI0"[..],
        &identity,
        &name(b"_UID", &[0]),
        &name(b"_CRS", &buffer),
    ]
    .concat();
    let bus = packaged(&[0x5b, 0x82], &bus);
    let scope = packaged(&[0x10], &[&b"_SB_"[..], &bus].concat());
    [off, scope].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    #[test]
    fn every_table_can_be_reached_and_adds_up() {
        let image = image(0x9_f000);
        assert_eq!(sum(&image.rsdp), 0);
        assert_eq!(sum(&image.rsdp[..20]), 0);
        let word = |bytes: &[u8], at: usize| {
            u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
        };
        let at = |address: u32| &image.tables[(u64::from(address) - image.base) as usize..];
        let checked = |address: u32, signature: &[u8]| {
            let table = at(address);
            let table = &table[..word(table, 4) as usize];
            assert_eq!(&table[..4], signature);
            assert_eq!(sum(table), 0, "{signature:?}");
            table.to_vec()
        };
        let rsdt = checked(word(&image.rsdp, 16), b"RSDT");
        let xsdt = checked(word(&image.rsdp, 24), b"XSDT");
        assert_eq!(word(&rsdt, 36), word(&xsdt, 36));
        let fadt = checked(word(&rsdt, 36), b"FACP");
        assert_eq!(fadt.len(), 244);
        checked(word(&fadt, 40), b"DSDT");
        assert_eq!(&at(word(&fadt, 36))[..4], b"FACS");
        assert!(image.tables.len() < 0xc00);
    }
}
