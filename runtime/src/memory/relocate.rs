//! Moving mappings and throwing contents away, for `mremap` and `madvise`.

use super::map::{MapError, host_prot};
use super::{GuestMemory, PAGE, page};
use rustix::io::Errno;
use rustix::mm::{MapFlags, MremapFlags, ProtFlags};

impl GuestMemory {
    /// Moves the mapping of `old` bytes at `from` to `to`, where it gets `new` bytes, replacing
    /// what is mapped there; the ranges must not overlap. All pages get the rights of the first.
    /// What is behind the pages (a file, shared memory) moves with them.
    pub fn relocate(&self, from: u64, old: u64, to: u64, new: u64) -> Result<(), MapError> {
        self.check_range(from, old)?;
        self.check_range(to, new)?;
        if from < to + new && to < from + old {
            return Err(MapError::BadRange);
        }
        if !self.all_mapped(from, old) {
            return Err(MapError::NotMapped);
        }
        let prot = self.flags(from) & (page::READ | page::WRITE | page::EXEC);
        // One host mapping moves only if its protection is uniform.
        self.host_protect(from, old, host_prot(prot))?;
        let flags = MremapFlags::MAYMOVE;
        // SAFETY: both ranges lie in the window, all of which belongs to this value, and do not
        // overlap.
        let moved = unsafe {
            rustix::mm::mremap_fixed(
                self.host(from).cast(),
                old as usize,
                new as usize,
                flags,
                self.host(to).cast(),
            )
        };
        if let Err(errno) = moved {
            self.protect(from, old, prot)?;
            return Err(MapError::Host(errno));
        }
        // The hole must stay ours.
        let hole = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
        // SAFETY: the range lies in the window and nothing is mapped there any more.
        unsafe {
            rustix::mm::mmap_anonymous(
                self.host(from).cast(),
                old as usize,
                ProtFlags::empty(),
                hole,
            )
        }
        .map_err(MapError::Host)?;
        self.set_flags(from, old, 0);
        self.set_flags(to, new, super::map::page_flags(prot));
        Ok(())
    }

    /// Throws away what mapped pages hold, as `madvise` with this advice does.
    pub fn discard(&self, addr: u64, len: u64, advice: i32) -> Result<(), MapError> {
        self.check_range(addr, len)?;
        if !self.all_mapped(addr, len) {
            return Err(MapError::NotMapped);
        }
        for n in addr / PAGE..(addr + len) / PAGE {
            if self.flags(n * PAGE) & page::CODE != 0 {
                self.release_code(n)?;
                self.note_dirty(n);
            }
        }
        // SAFETY: the range lies in the window and is mapped for the guest.
        if unsafe { libc::madvise(self.host(addr).cast(), len as usize, advice) } != 0 {
            let errno = std::io::Error::last_os_error().raw_os_error();
            return Err(MapError::Host(Errno::from_raw_os_error(
                errno.unwrap_or(libc::EINVAL),
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Window;

    #[test]
    fn contents_move_and_the_hole_faults() {
        let m = GuestMemory::new(Window::Bits32).unwrap();
        m.map_anon(0x10000, 0x2000, page::READ | page::WRITE)
            .unwrap();
        m.write::<u32>(0x11ffc, 77).unwrap();
        m.relocate(0x10000, 0x2000, 0x40000, 0x4000).unwrap();
        assert_eq!(m.read::<u32>(0x41ffc), Ok(77));
        assert_eq!(m.read::<u32>(0x43000), Ok(0));
        assert!(m.read::<u32>(0x10000).is_err());
        m.map_anon(0x10000, 0x2000, page::READ).unwrap();
        assert_eq!(m.read::<u32>(0x11ffc), Ok(0));
        assert!(m.relocate(0x40000, 0x4000, 0x41000, 0x4000).is_err());
    }

    #[test]
    fn discarded_memory_is_zero() {
        let m = GuestMemory::new(Window::Bits32).unwrap();
        m.map_anon(0x10000, 0x1000, page::READ | page::WRITE)
            .unwrap();
        m.write::<u32>(0x10000, 77).unwrap();
        m.discard(0x10000, 0x1000, libc::MADV_DONTNEED).unwrap();
        assert_eq!(m.read::<u32>(0x10000), Ok(0));
    }
}
