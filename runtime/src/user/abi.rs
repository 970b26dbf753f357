//! The two Linux ABIs that a guest may use, error numbers, and packing of their structures.

use crate::memory::{GuestMemory, MapError, MemFault};

/// Which system call convention and which structure layouts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Abi {
    /// 64-bit programs.
    X86_64,
    /// 32-bit programs, and 64-bit code that uses INT 0x80.
    I386,
}

impl Abi {
    /// Whether pointers and longs have 64 bits.
    pub const fn is_64(self) -> bool {
        matches!(self, Abi::X86_64)
    }

    /// Size of a long and of a pointer.
    pub const fn word(self) -> u64 {
        if self.is_64() { 8 } else { 4 }
    }

    /// What `AT_PLATFORM` and `uname` say.
    pub const fn machine(self) -> &'static str {
        if self.is_64() { "x86_64" } else { "i686" }
    }
}

/// A Linux error number. The numbers are the same on all hosts that we run on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Errno(pub i32);

impl Errno {
    /// A signal interrupted the call; it starts again unless a handler without `SA_RESTART` runs.
    pub const RESTART: Errno = Errno(512);
    /// A signal came before the call did anything; it starts again behind whatever handler runs.
    pub const RESTART_ALWAYS: Errno = Errno(513);
    /// A signal interrupted the call; it starts again only if no handler runs.
    pub const RESTART_NO_HANDLER: Errno = Errno(514);

    /// The host's last error.
    pub fn last() -> Errno {
        Errno(
            std::io::Error::last_os_error()
                .raw_os_error()
                .unwrap_or(libc::EIO),
        )
    }

    /// Whether this is one of the marks for an interrupted call, which a guest never sees.
    pub const fn is_restart(self) -> bool {
        self.0 >= 512
    }
}

impl std::fmt::Display for Errno {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_restart() {
            f.write_str("interrupted")
        } else {
            write!(f, "{}", std::io::Error::from_raw_os_error(self.0))
        }
    }
}

impl From<MemFault> for Errno {
    fn from(_: MemFault) -> Errno {
        Errno(libc::EFAULT)
    }
}

impl From<MapError> for Errno {
    fn from(error: MapError) -> Errno {
        match error {
            MapError::BadRange => Errno(libc::EINVAL),
            MapError::NotMapped => Errno(libc::ENOMEM),
            MapError::Host(e) => Errno(e.raw_os_error()),
        }
    }
}

/// What a system call answers.
pub type SysResult = Result<u64, Errno>;

/// Turns the answer of a libc function into a result.
pub fn check(value: impl Into<i64>) -> SysResult {
    let value = value.into();
    if value == -1 {
        Err(Errno::last())
    } else {
        Ok(value as u64)
    }
}

/// Builds a guest structure, field by field.
#[derive(Debug)]
pub struct Pack {
    abi: Abi,
    /// The bytes so far.
    pub bytes: Vec<u8>,
}

impl Pack {
    /// An empty structure.
    pub fn new(abi: Abi) -> Pack {
        Pack {
            abi,
            bytes: Vec::with_capacity(160),
        }
    }

    /// A 16-bit field.
    pub fn u16(&mut self, v: u16) -> &mut Pack {
        self.raw(&v.to_le_bytes())
    }

    /// A 32-bit field.
    pub fn u32(&mut self, v: u32) -> &mut Pack {
        self.raw(&v.to_le_bytes())
    }

    /// A 64-bit field.
    pub fn u64(&mut self, v: u64) -> &mut Pack {
        self.raw(&v.to_le_bytes())
    }

    /// A long or pointer; i386 keeps the low half.
    pub fn word(&mut self, v: u64) -> &mut Pack {
        if self.abi.is_64() {
            self.u64(v)
        } else {
            self.u32(v as u32)
        }
    }

    /// Bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Pack {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Zeros up to offset `len`.
    pub fn pad_to(&mut self, len: usize) -> &mut Pack {
        if self.bytes.len() < len {
            self.bytes.resize(len, 0);
        }
        self
    }

    /// Writes the structure to guest memory.
    pub fn store(&self, memory: &GuestMemory, addr: u64) -> Result<(), Errno> {
        Ok(memory.write_bytes(addr, &self.bytes)?)
    }
}

/// Reads a guest structure, field by field.
#[derive(Debug)]
pub struct Unpack<'a> {
    abi: Abi,
    memory: &'a GuestMemory,
    at: u64,
}

impl<'a> Unpack<'a> {
    /// Starts at `addr`.
    pub fn new(abi: Abi, memory: &'a GuestMemory, addr: u64) -> Unpack<'a> {
        Unpack {
            abi,
            memory,
            at: addr,
        }
    }

    /// A 16-bit field.
    pub fn u16(&mut self) -> Result<u16, Errno> {
        let v = self.memory.read(self.at)?;
        self.at = self.at.wrapping_add(2);
        Ok(v)
    }

    /// A 32-bit field.
    pub fn u32(&mut self) -> Result<u32, Errno> {
        let v = self.memory.read(self.at)?;
        self.at = self.at.wrapping_add(4);
        Ok(v)
    }

    /// A signed 32-bit field.
    pub fn i32(&mut self) -> Result<i32, Errno> {
        Ok(self.u32()? as i32)
    }

    /// A 64-bit field.
    pub fn u64(&mut self) -> Result<u64, Errno> {
        let v = self.memory.read(self.at)?;
        self.at = self.at.wrapping_add(8);
        Ok(v)
    }

    /// An unsigned long or a pointer.
    pub fn word(&mut self) -> Result<u64, Errno> {
        if self.abi.is_64() {
            self.u64()
        } else {
            Ok(u64::from(self.u32()?))
        }
    }

    /// A signed long.
    pub fn long(&mut self) -> Result<i64, Errno> {
        if self.abi.is_64() {
            Ok(self.u64()? as i64)
        } else {
            Ok(i64::from(self.i32()?))
        }
    }

    /// Passes over bytes.
    pub fn skip(&mut self, n: u64) -> &mut Self {
        self.at = self.at.wrapping_add(n);
        self
    }
}
