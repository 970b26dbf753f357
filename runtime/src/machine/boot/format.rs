//! What a file is, by its content.

use super::bytes::{slice, u16_at, u32_at};
use super::elf::Elf;
use super::{multiboot, pvh};
use std::fmt;

/// The formats that can be started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// A Linux bzImage.
    Linux,
    /// A kernel with a Multiboot header.
    Multiboot,
    /// An ELF file with an entry for PVH.
    Pvh,
}

/// What a file that cannot be started seems to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unknown(pub &'static str);

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Whether it is compressed by gzip.
pub fn is_gzip(file: &[u8]) -> bool {
    file.starts_with(&[0x1f, 0x8b, 8])
}

impl Format {
    /// The format of a file that is not compressed.
    ///
    /// # Errors
    /// What the file seems to be instead.
    pub fn of(file: &[u8]) -> Result<Format, Unknown> {
        if slice(file, 0x202, 4) == Some(b"HdrS") && u16_at(file, 0x1fe) == Some(0xaa55) {
            return Ok(Format::Linux);
        }
        if multiboot::find(file).is_some() {
            return Ok(Format::Multiboot);
        }
        if Elf::is(file) {
            return match Elf::parse(file) {
                Ok(elf) if pvh::entry_note(&elf).is_some() => Ok(Format::Pvh),
                Ok(_) => Err(Unknown(
                    "an ELF file without a Multiboot header and without a PVH entry note",
                )),
                Err(_) => Err(Unknown(
                    "an ELF file that is damaged or for another processor",
                )),
            };
        }
        Err(Unknown(guess(file)))
    }
}

/// What is recognised by its first bytes.
const BEGINNINGS: [(&[u8], &str); 14] = [
    (
        b"\xfd7zXZ\0",
        "a file compressed by xz: decompress it first",
    ),
    (
        b"\x28\xb5\x2f\xfd",
        "a file compressed by zstd: decompress it first",
    ),
    (b"BZh", "a file compressed by bzip2: decompress it first"),
    (
        b"\x02\x21\x4c\x18",
        "a file compressed by lz4: decompress it first",
    ),
    (
        b"\x04\x22\x4d\x18",
        "a file compressed by lz4: decompress it first",
    ),
    (
        b"\x5d\0\0",
        "a file compressed by lzma: decompress it first",
    ),
    (b"\x27\x05\x19\x56", "an image for U-Boot"),
    (b"QFI\xfb", "a disk image (qcow2): -hda attaches it"),
    (b"070701", "an initial RAM disk: -initrd takes it"),
    (b"070702", "an initial RAM disk: -initrd takes it"),
    (b"PK\x03\x04", "a zip archive"),
    (b"!<arch>\n", "an archive (a library or a Debian package)"),
    (b"#!", "a script"),
    (b"MZ", "a program for DOS, Windows or EFI"),
];

fn guess(file: &[u8]) -> &'static str {
    if file.is_empty() {
        return "it is empty";
    }
    let begins = |(magic, _): &&(&[u8], &str)| file.starts_with(magic);
    if let Some((_, what)) = BEGINNINGS.iter().find(begins) {
        return what;
    }
    if slice(file, 0x8001, 5) == Some(b"CD001") {
        return "a CD image (ISO 9660): -cdrom takes it";
    }
    if u32_at(file, 0x38) == Some(u32::from_le_bytes(*b"ARM\x64")) {
        return "a Linux kernel for 64-bit ARM";
    }
    if u16_at(file, 0x1fe) == Some(0xaa55) {
        return "a boot sector or a disk image: -hda attaches it";
    }
    // The reset vector of firmware is a jump.
    let vector = file.len().checked_sub(16).and_then(|at| file.get(at));
    if file.len().is_multiple_of(0x1_0000) && matches!(vector, Some(0xe9..=0xeb)) {
        return "firmware: -bios takes it";
    }
    if file
        .iter()
        .take(512)
        .all(|b| matches!(b, 9 | 10 | 13 | 32..127))
    {
        return "text";
    }
    "nothing that is known here"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_started_is_named() {
        let named = |file: &[u8]| Format::of(file).map_err(|unknown| unknown.to_string());
        let mut rom = vec![0xff; 0x2_0000];
        rom[0x1_fff0] = 0xea;
        let mut sector = vec![0; 0x400];
        sector[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        let mut disc = vec![0; 0x9000];
        disc[0x8001..0x8006].copy_from_slice(b"CD001");
        for (file, what) in [
            (&b""[..], "empty"),
            (b"hello\n", "text"),
            (b"\xfd7zXZ\0 ...", "xz"),
            (b"\x28\xb5\x2f\xfd", "zstd"),
            (b"MZ\x90\0\x01", "EFI"),
            (b"\x7fELF\x02\x02", "ELF"),
            (&rom, "-bios"),
            (&sector, "-hda"),
            (&disc, "-cdrom"),
            (&[0; 64], "nothing that is known"),
        ] {
            let answer = named(file).expect_err("no kernel");
            assert!(answer.contains(what), "{answer:?} should say {what:?}");
        }
    }
}
