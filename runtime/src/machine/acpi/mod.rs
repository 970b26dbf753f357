//! The ACPI tables (ACPI specification, chapter 5), by which a kernel finds what it cannot probe: the
//! interrupt controllers and how the PCI pins lead to them, the timers, power management.
//!
//! They are made for address 0, with a list of the words that are addresses and of the sums. Where
//! there is no firmware, [`Tables::placed`] moves them; firmware gets the list
//! ([`Tables::script`], `loader.rs`). `fixed.rs`: tables of a fixed layout; `dsdt.rs`: the one with
//! code, written with `aml.rs`.

mod aml;
mod dsdt;
mod fixed;
pub(super) mod loader;

use loader::Zone;

/// The revision of RSDP and what it leads to: ACPI 2.0.
const REVISION: u8 = 2;
const HEADER: usize = 36;
/// Where the checksum of a header is.
const SUM: usize = 9;

/// What the tables say that differs between machines.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BoardTables {
    /// There is a second serial port.
    pub second_serial: bool,
    /// There is a floppy drive.
    pub floppy: bool,
    /// There is a display adapter.
    pub vga: bool,
    /// Firmware passes the tables on; ACPI mode is off at first.
    pub firmware: bool,
}

/// Tables for address 0.
pub(super) struct Tables {
    /// All but the RSDP.
    pub(super) bytes: Vec<u8>,
    /// The root pointer, which may be anywhere that a kernel looks.
    pub(super) rsdp: Vec<u8>,
    /// Where in the tables, and how wide, the address of something in the tables is.
    pointers: Vec<(usize, u8)>,
    /// The same in the root pointer.
    root_pointers: Vec<(usize, u8)>,
    /// The tables by start and length.
    sums: Vec<(usize, usize)>,
}

/// Tables that are ready, and where they go.
pub(super) struct Image {
    /// The address that they are made for.
    pub(super) base: u64,
    /// All but the RSDP.
    pub(super) tables: Vec<u8>,
    /// The root pointer.
    pub(super) rsdp: Vec<u8>,
}

/// The sums of the root pointer: where the byte is, and how many bytes add up.
const ROOT_SUMS: [(usize, usize); 2] = [(8, 20), (32, 36)];

/// Makes the sum of all bytes 0.
fn seal(bytes: &mut [u8], at: usize) {
    bytes[at] = 0;
    let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    bytes[at] = sum.wrapping_neg();
}

/// Adds to a number.
fn add(bytes: &mut [u8], (at, size): (usize, u8), value: u64) {
    let place = &mut bytes[at..at + usize::from(size)];
    let old = place.iter().rev().fold(0u64, |v, b| v << 8 | u64::from(*b));
    let new = old.wrapping_add(value).to_le_bytes();
    place.copy_from_slice(&new[..place.len()]);
}

impl Tables {
    /// The tables of a board.
    pub(super) fn new(board: &BoardTables) -> Tables {
        let mut t = Tables {
            bytes: Vec::new(),
            rsdp: Vec::new(),
            pointers: Vec::new(),
            root_pointers: Vec::new(),
            sums: Vec::new(),
        };
        let mut facs = vec![0; 64];
        facs[..4].copy_from_slice(b"FACS");
        facs[4] = 64;
        let facs = t.place(&facs);
        let dsdt = t.table(b"DSDT", 2, &dsdt::code(board));
        let fadt = t.table(b"FACP", 3, &fixed::fadt(board));
        for (to, places) in [(facs, fixed::FACS_AT), (dsdt, fixed::DSDT_AT)] {
            for (at, size) in places {
                t.point(fadt + at, size, to);
            }
        }
        let madt = t.table(b"APIC", 1, &fixed::madt());
        let hpet = t.table(b"HPET", 1, &fixed::hpet());
        let all = [fadt, madt, hpet];
        let roots = [(b"RSDT", 4u8), (b"XSDT", 8)].map(|(signature, size)| {
            let start = t.table(signature, 1, &vec![0; all.len() * usize::from(size)]);
            for (n, to) in all.into_iter().enumerate() {
                t.point(start + HEADER + n * usize::from(size), size, to);
            }
            start
        });
        t.rsdp = b"RSD PTR \0METAPH".to_vec();
        t.rsdp.push(REVISION);
        t.rsdp.extend((roots[0] as u32).to_le_bytes());
        t.rsdp.extend(36u32.to_le_bytes());
        t.rsdp.extend((roots[1] as u64).to_le_bytes());
        t.rsdp.extend([0; 4]);
        t.root_pointers = vec![(16, 4), (24, 8)];
        t
    }

    fn place(&mut self, bytes: &[u8]) -> usize {
        self.bytes.resize(self.bytes.len().next_multiple_of(64), 0);
        let at = self.bytes.len();
        self.bytes.extend(bytes);
        at
    }

    /// Adds a table with its header.
    fn table(&mut self, signature: &[u8; 4], revision: u8, body: &[u8]) -> usize {
        let len = HEADER + body.len();
        let mut t = signature.to_vec();
        t.extend((len as u32).to_le_bytes());
        t.extend([revision, 0]);
        t.extend(b"METAPHPC      ");
        t.extend(1u32.to_le_bytes());
        t.extend(b"META");
        t.extend(1u32.to_le_bytes());
        debug_assert_eq!(t.len(), HEADER);
        t.extend(body);
        let at = self.place(&t);
        self.sums.push((at, len));
        at
    }

    /// Notes that what is at `at` is an address: that of `to`.
    fn point(&mut self, at: usize, size: u8, to: usize) {
        add(&mut self.bytes, (at, size), to as u64);
        self.pointers.push((at, size));
    }

    /// Moves them.
    pub(super) fn placed(mut self, base: u64) -> Image {
        for at in self.pointers {
            add(&mut self.bytes, at, base);
        }
        for at in self.root_pointers {
            add(&mut self.rsdp, at, base);
        }
        for (start, len) in self.sums {
            seal(&mut self.bytes[start..start + len], SUM);
        }
        for (at, len) in ROOT_SUMS {
            seal(&mut self.rsdp[..len], at);
        }
        Image {
            base,
            tables: self.bytes,
            rsdp: self.rsdp,
        }
    }

    /// What firmware has to do with them.
    pub(super) fn script(&self) -> Vec<u8> {
        use loader::{RSDP, TABLES};
        let mut out = loader::allocate(RSDP, 16, Zone::Low);
        out.extend(loader::allocate(TABLES, 64, Zone::High));
        for (at, size) in &self.pointers {
            out.extend(loader::add_pointer(TABLES, TABLES, *at as u32, *size));
        }
        for (at, size) in &self.root_pointers {
            out.extend(loader::add_pointer(RSDP, TABLES, *at as u32, *size));
        }
        for (start, len) in &self.sums {
            let (start, len) = (*start as u32, *len as u32);
            out.extend(loader::add_checksum(TABLES, start + SUM as u32, start, len));
        }
        for (at, len) in ROOT_SUMS {
            out.extend(loader::add_checksum(RSDP, at as u32, 0, len as u32));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    fn word(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
    }

    fn check(image: &Image) {
        assert_eq!(sum(&image.rsdp), 0);
        assert_eq!(sum(&image.rsdp[..20]), 0);
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
        for (n, signature) in [b"FACP", b"APIC", b"HPET"].into_iter().enumerate() {
            let table = word(&rsdt, HEADER + 4 * n);
            assert_eq!(table, word(&xsdt, HEADER + 8 * n));
            checked(table, signature);
        }
        let fadt = checked(word(&rsdt, 36), b"FACP");
        assert_eq!(fadt.len(), 244);
        for at in [40, 140] {
            checked(word(&fadt, at), b"DSDT");
        }
        for offset in [36, 132] {
            assert_eq!(&at(word(&fadt, offset))[..4], b"FACS");
        }
    }

    fn full() -> BoardTables {
        BoardTables {
            second_serial: true,
            floppy: true,
            vga: true,
            firmware: true,
        }
    }

    #[test]
    fn every_table_can_be_reached_and_adds_up() {
        for board in [BoardTables::default(), full()] {
            let image = Tables::new(&board).placed(0x9_8000);
            assert!(image.tables.len() < 0x3c00);
            check(&image);
        }
    }

    #[test]
    fn firmware_that_follows_the_list_gets_the_same() {
        const BASE: u64 = 0x7ffe_0000;
        let tables = Tables::new(&full());
        let script = tables.script();
        let mut files = [
            (loader::TABLES, tables.bytes.clone(), BASE),
            (loader::RSDP, tables.rsdp.clone(), 0xf_0000),
        ];
        let name = |bytes: &[u8]| {
            let end = bytes.iter().position(|b| *b == 0).expect("an end");
            String::from_utf8(bytes[..end].to_vec()).expect("a name")
        };
        let find = |files: &[(&str, Vec<u8>, u64); 2], wanted: &str| {
            files.iter().position(|f| f.0 == wanted).expect("a file")
        };
        let mut allocated = 0;
        assert_eq!(script.len() % 128, 0);
        for command in script.chunks(128) {
            let n = find(&files, &name(&command[4..60]));
            match word(command, 0) {
                1 => {
                    assert!(word(command, 60).is_power_of_two());
                    allocated += 1;
                }
                2 => {
                    let to = files[find(&files, &name(&command[60..116]))].2;
                    let at = word(command, 116) as usize;
                    add(&mut files[n].1, (at, command[120]), to);
                }
                3 => {
                    let [at, start, len] = [60, 64, 68].map(|at| word(command, at) as usize);
                    seal(&mut files[n].1[start..start + len], at - start);
                }
                other => panic!("command {other}"),
            }
        }
        assert_eq!(allocated, 2);
        let image = tables.placed(BASE);
        assert_eq!(files[0].1, image.tables);
        assert_eq!(files[1].1, image.rsdp);
        check(&image);
    }
}
