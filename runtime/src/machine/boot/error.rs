//! Why a kernel cannot be started.

use super::format::Unknown;

/// Why a kernel cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// It is in none of the formats.
    #[error("no kernel in a format that can be started: {0}")]
    Unknown(Unknown),
    /// It ends before something that it says it has.
    #[error("the kernel is truncated: {0} is not in the file")]
    Truncated(&'static str),
    /// Two things in it do not go together.
    #[error("the kernel is damaged: {0}")]
    Damaged(&'static str),
    /// Its compressed form is damaged.
    #[error("the kernel cannot be decompressed: {0}")]
    Gzip(#[source] std::io::Error),
    /// It is larger than RAM.
    #[error("decompressed, the kernel is larger than the {0} MiB of RAM")]
    GzipTooLarge(u64),
    /// It follows a protocol that is too old.
    #[error(
        "the kernel follows Linux boot protocol {major}.{minor:02}; 2.02 or later and a load address of 1 MiB are needed"
    )]
    TooOld {
        /// Major version.
        major: u8,
        /// Minor version.
        minor: u8,
    },
    /// It does not have that entry.
    #[error("the kernel has no {0} entry")]
    NoEntry(&'static str),
    /// It asks firmware for what it needs.
    #[error("the 16-bit entry of a kernel needs firmware: -bios with SeaBIOS, for example")]
    NeedsFirmware,
    /// Through firmware only a bzImage can be started.
    #[error(
        "through firmware only the 16-bit entry of a Linux kernel can be started: leave -bios out"
    )]
    NotThroughFirmware,
    /// It wants to be told what is not known here.
    #[error("the kernel's multiboot header asks for features {0:#x}, which are unknown")]
    Features(u32),
    /// A part of it does not lie in RAM.
    #[error(
        "{what}, {len:#x} bytes at {start:#x}, is outside of the {ram} MiB of RAM or in the way of firmware"
    )]
    OutsideRam {
        /// Which part.
        what: &'static str,
        /// Its address.
        start: u64,
        /// Its length.
        len: u64,
        /// RAM in MiB.
        ram: u64,
    },
    /// Two parts lie one on the other.
    #[error("{what}, {len:#x} bytes at {start:#x}, overlaps another part")]
    Overlap {
        /// Which part.
        what: &'static str,
        /// Its address.
        start: u64,
        /// Its length.
        len: u64,
    },
    /// RAM does not hold everything.
    #[error("no room for {what} of {len:#x} bytes: about {needed} MiB of RAM are needed")]
    NoRoom {
        /// What is too large.
        what: &'static str,
        /// Its length.
        len: u64,
        /// In MiB.
        needed: u64,
    },
    /// The command line is too long.
    #[error("this kernel's command line may have at most {0} bytes")]
    CommandLine(usize),
    /// The command line has a zero byte.
    #[error("a command line cannot contain a zero byte")]
    ZeroByte,
    /// There is more than it can be given.
    #[error("a kernel of this format takes one initial RAM disk, not {0} modules")]
    Modules(usize),
}
