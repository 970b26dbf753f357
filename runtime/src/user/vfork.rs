//! `vfork`: the parent waits until its child runs another program or is gone, and sees what the
//! child has written to the caller's stack frames.
//!
//! The child is a real process with a copy of the memory. What programs rely on is that an error
//! number, which the child leaves in a variable of the function that called `vfork` or
//! `posix_spawn`, is there when the parent goes on. So the child sends the part of the stack above
//! the stack pointer back; the parent has not touched it meanwhile.

use super::abi::{Errno, check};
use crate::memory::{GuestMemory, PAGE};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// How much of the stack above the stack pointer is sent back.
const WINDOW: u64 = 16 << 10;

/// What functions without a frame of their own use below the stack pointer.
const RED_ZONE: u64 = 128;

/// Our descriptors are this or higher, out of the guest's way.
const LOWEST_FD: i32 = 500;

/// The child's end.
#[derive(Debug)]
pub struct Parent {
    pipe: File,
    sp: u64,
}

/// The parent's end.
#[derive(Debug)]
pub struct Child {
    pipe: File,
    sp: u64,
}

/// Makes both ends, for a caller with that stack pointer.
pub fn line(sp: u64) -> Result<(Child, Parent), Errno> {
    let mut fds = [0; 2];
    // SAFETY: the array is ours.
    check(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) })?;
    // SAFETY: both descriptors are new, and nobody else owns them.
    let (read, write) = unsafe { (high(fds[0])?, high(fds[1])?) };
    let child = Child {
        pipe: read.into(),
        sp,
    };
    let parent = Parent {
        pipe: write.into(),
        sp,
    };
    Ok((child, parent))
}

/// Moves a descriptor to a high number.
///
/// # Safety
/// Nobody else owns it.
unsafe fn high(fd: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: as for the caller.
    let low = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: plain values; the result is new.
    unsafe {
        let fd = check(libc::fcntl(
            low.as_raw_fd(),
            libc::F_DUPFD_CLOEXEC,
            LOWEST_FD,
        ))?;
        Ok(OwnedFd::from_raw_fd(fd as i32))
    }
}

impl AsRawFd for Parent {
    fn as_raw_fd(&self) -> RawFd {
        self.pipe.as_raw_fd()
    }
}

impl Parent {
    /// Lets the parent go on.
    pub fn resume(mut self, memory: &GuestMemory) {
        let start = self.sp.wrapping_sub(RED_ZONE);
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < WINDOW {
            let at = start.wrapping_add(bytes.len() as u64);
            let old = bytes.len();
            bytes.resize(old + (PAGE - at % PAGE) as usize, 0);
            if memory.read_bytes(at, &mut bytes[old..]).is_err() {
                bytes.truncate(old);
                break;
            }
        }
        // A parent that is gone needs nothing any more.
        let _ = self.pipe.write_all(&bytes);
    }
}

impl Child {
    /// Waits for the child, and takes over what it has sent.
    pub fn wait(mut self, memory: &GuestMemory) {
        let mut bytes = Vec::new();
        loop {
            let mut part = [0; 4096];
            match self.pipe.read(&mut part) {
                Ok(0) => break,
                Ok(n) => bytes.extend_from_slice(&part[..n]),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        let _ = memory.write_bytes(self.sp.wrapping_sub(RED_ZONE), &bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Window, page};

    #[test]
    fn what_the_child_leaves_on_the_stack_arrives() {
        let memory = |value: u32| {
            let m = GuestMemory::new(Window::Bits32).unwrap();
            m.map_anon(0x10000, 0x3000, page::READ | page::WRITE)
                .unwrap();
            m.write(0x11010, value).unwrap();
            m.write(0x10010, value).unwrap();
            m
        };
        let (ours, theirs) = (memory(1), memory(2));
        let (child, parent) = line(0x11000).unwrap();
        parent.resume(&theirs);
        child.wait(&ours);
        assert_eq!(ours.read::<u32>(0x11010), Ok(2));
        assert_eq!(ours.read::<u32>(0x10010), Ok(1), "below the stack pointer");
    }
}
