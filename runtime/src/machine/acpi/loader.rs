//! How firmware gets tables that it did not make: files of the configuration device, and a list of
//! commands that say where to put them, which words in them are addresses, and what adds up to zero.
//! SeaBIOS and OVMF follow such lists.

/// A command has that many bytes.
const COMMAND: usize = 128;
/// A name of a file in a command, with the 0 behind it.
const NAME: usize = 56;

const ALLOCATE: u32 = 1;
const ADD_POINTER: u32 = 2;
const ADD_CHECKSUM: u32 = 3;

/// The file of the tables.
pub(in crate::machine) const TABLES: &str = "etc/acpi/tables";
/// The file of the root pointer.
pub(in crate::machine) const RSDP: &str = "etc/acpi/rsdp";
/// The file of the list.
pub(in crate::machine) const SCRIPT: &str = "etc/table-loader";

/// Where firmware is to put a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Zone {
    /// Anywhere below 4 GiB.
    High = 1,
    /// From F0000h to FFFFFh.
    Low = 2,
}

/// A file by name, cut or filled up.
fn file(name: &str) -> Vec<u8> {
    let mut out = name.as_bytes().to_vec();
    out.resize(NAME, 0);
    out
}

fn command(kind: u32, parts: &[&[u8]]) -> Vec<u8> {
    let mut out = [&kind.to_le_bytes()[..], &parts.concat()].concat();
    out.resize(COMMAND, 0);
    out
}

/// Put a file somewhere.
pub(super) fn allocate(name: &str, align: u32, zone: Zone) -> Vec<u8> {
    command(
        ALLOCATE,
        &[&file(name), &align.to_le_bytes(), &[zone as u8]],
    )
}

/// Add the address of one file to a number in another.
pub(super) fn add_pointer(inside: &str, to: &str, at: u32, size: u8) -> Vec<u8> {
    command(
        ADD_POINTER,
        &[&file(inside), &file(to), &at.to_le_bytes(), &[size]],
    )
}

/// Make the sum of some bytes zero, by the byte at `at`.
pub(super) fn add_checksum(name: &str, at: u32, start: u32, len: u32) -> Vec<u8> {
    let numbers = [at, start, len].map(u32::to_le_bytes).concat();
    command(ADD_CHECKSUM, &[&file(name), &numbers])
}
