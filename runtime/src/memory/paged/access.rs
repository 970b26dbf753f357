//! Accesses of guest memory through paging.
//!
//! An access is cut at the page boundary it may cross into pieces, each of which is translated and
//! checked before any of them happens. What is not plain memory is split further, see `device.rs`.

use super::tlb::Class;
use super::{Access, Paged, Place, Rights};
use crate::memory::{MemFault, PAGE, Scalar, Word};
use crate::system::Fault;
use metaphrase_ir::RmwOp;

/// A part of an access: bytes of one page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    /// Its first linear address.
    pub(super) linear: u64,
    /// Its first physical address.
    pub(super) phys: u64,
    /// Where the page is.
    pub(super) place: Place,
    /// Length in bytes.
    pub(super) len: u64,
}

impl Piece {
    /// Where it is, if it is memory that may be accessed so. (Writes to ROM vanish.)
    fn host(&self, write: bool) -> Option<*mut u8> {
        let page = match self.place {
            Place::Ram(host) => host,
            Place::Rom(host) if !write => host,
            _ => return None,
        };
        Some(page.wrapping_add((self.phys % PAGE) as usize))
    }
}

/// Why a checked access cannot go on.
enum Refused {
    /// The guest's fault; the linear address that it is about.
    Guest(u64, Fault),
    /// The bytes at that linear address are translated code.
    Code(u64),
    /// They are a device, and the instruction does not run alone.
    Device(u64),
}

impl Refused {
    /// As the engines want to know it.
    fn mem_fault(&self, write: bool) -> MemFault {
        let (addr, code) = match *self {
            Refused::Guest(addr, _) => (addr, false),
            Refused::Code(addr) | Refused::Device(addr) => (addr, true),
        };
        MemFault { addr, write, code }
    }
}

impl Paged {
    /// The pieces of an access of at most a page. The second is empty if it crosses no boundary.
    fn pieces(
        &self,
        class: Class,
        linear: u64,
        len: u64,
        access: Access,
    ) -> Result<[Piece; 2], Refused> {
        let linear = self.cut(linear);
        let first = len.min(PAGE - linear % PAGE);
        let piece = |linear: u64, len| match self.resolve(class, linear, access) {
            Ok((phys, place)) => Ok(Piece {
                linear,
                phys,
                place,
                len,
            }),
            Err(fault) => Err(Refused::Guest(linear, fault)),
        };
        let one = piece(linear, first)?;
        let rest = len - first;
        let two = if rest > 0 {
            piece(self.cut(linear.wrapping_add(first)), rest)?
        } else {
            Piece { len: 0, ..one }
        };
        Ok([one, two])
    }

    /// [`Paged::pieces`] of a write by a guest instruction, which must not hit translated code.
    fn pieces_to_write(&self, linear: u64, len: u64) -> Result<[Piece; 2], Refused> {
        let pieces = self.pieces(self.class(), linear, len, Access::Write)?;
        for piece in &pieces {
            if piece.len > 0 && self.phys.has_code(piece.phys / PAGE) {
                // Of a long write, the place: only the code there goes.
                if let Some(hit) = self.phys.first_code(piece.phys, piece.len) {
                    return Err(Refused::Code(piece.linear + (hit - piece.phys)));
                }
                self.count(|s| s.writes_beside_code += 1);
            }
        }
        Ok(pieces)
    }

    /// Refuses an access of a guest instruction to a device unless the instruction runs alone: only
    /// then the time is known exactly, and what follows from the access can come right after it.
    fn permit(&self, pieces: [Piece; 2]) -> Result<[Piece; 2], Refused> {
        let reaches = |p: &&Piece| p.len > 0 && p.place == Place::Io && !self.is_passive(p.phys);
        match pieces.iter().find(reaches) {
            Some(piece) if !self.may_access_devices() => Err(Refused::Device(piece.linear)),
            _ => Ok(pieces),
        }
    }

    /// [`Paged::pieces`] of a read by a guest instruction.
    fn pieces_to_read(&self, linear: u64, len: u64) -> Result<[Piece; 2], Refused> {
        self.permit(self.pieces(self.class(), linear, len, Access::Read)?)
    }

    /// Reads pieces.
    fn fetch_pieces<T: Scalar>(&self, pieces: &[Piece; 2]) -> T {
        let mut bytes = [0u8; 16];
        let mut done = 0;
        for piece in pieces {
            let part = &mut bytes[done..done + piece.len as usize];
            match piece.host(false) {
                // SAFETY: `len` bytes from there on are on a mapped page; `part` is ours.
                Some(host) => unsafe {
                    std::ptr::copy_nonoverlapping(host, part.as_mut_ptr(), part.len());
                },
                None => self.read_io(piece.phys, part),
            }
            done += part.len();
        }
        // SAFETY: a scalar has at most 16 bytes, and every pattern of them is a value.
        unsafe { bytes.as_ptr().cast::<T>().read_unaligned() }
    }

    /// Writes pieces.
    fn store_pieces<T: Scalar>(&self, pieces: &[Piece; 2], value: T) {
        let mut bytes = [0u8; 16];
        // SAFETY: a scalar has at most 16 bytes.
        unsafe { bytes.as_mut_ptr().cast::<T>().write_unaligned(value) };
        let mut done = 0;
        for piece in pieces {
            let part = &bytes[done..done + piece.len as usize];
            match piece.host(true) {
                // SAFETY: as in `fetch_pieces`, and writable.
                Some(host) => unsafe {
                    std::ptr::copy_nonoverlapping(part.as_ptr(), host, part.len());
                },
                None if self.phys.write_shadow(piece.phys, part) => {}
                None if piece.place == Place::Io => self.write_io(piece.phys, part),
                None => {}
            }
            done += part.len();
        }
    }

    /// Reads with the current level's rights.
    #[inline(always)]
    pub fn read<T: Scalar>(&self, linear: u64) -> Result<T, MemFault> {
        match self.hit(linear, size_of::<T>() as u64, false) {
            // SAFETY: the TLB says so: all of the value is on one page of memory.
            Some(host) => Ok(unsafe { host.cast::<T>().read_unaligned() }),
            None => self.read_slow(linear),
        }
    }

    #[cold]
    #[inline(never)]
    fn read_slow<T: Scalar>(&self, linear: u64) -> Result<T, MemFault> {
        let size = size_of::<T>() as u64;
        let pieces = self.pieces_to_read(linear, size);
        let pieces = pieces.map_err(|r| r.mem_fault(false))?;
        Ok(self.fetch_pieces(&pieces))
    }

    /// Reads what is to be written afterwards: with the right to write.
    #[inline(always)]
    pub fn read_update<T: Scalar>(&self, linear: u64) -> Result<T, MemFault> {
        match self.hit(linear, size_of::<T>() as u64, true) {
            // SAFETY: as in `read`.
            Some(host) => Ok(unsafe { host.cast::<T>().read_unaligned() }),
            None => self.read_update_slow(linear),
        }
    }

    #[cold]
    #[inline(never)]
    fn read_update_slow<T: Scalar>(&self, linear: u64) -> Result<T, MemFault> {
        let size = size_of::<T>() as u64;
        let pieces = self.pieces(self.class(), linear, size, Access::Write);
        let pieces = pieces.and_then(|pieces| self.permit(pieces));
        let pieces = pieces.map_err(|r| r.mem_fault(true))?;
        Ok(self.fetch_pieces(&pieces))
    }

    /// Writes with the current level's rights.
    #[inline(always)]
    pub fn write<T: Scalar>(&self, linear: u64, value: T) -> Result<(), MemFault> {
        match self.hit(linear, size_of::<T>() as u64, true) {
            // SAFETY: as in `read`, and writable.
            Some(host) => unsafe { host.cast::<T>().write_unaligned(value) },
            None => self.write_slow(linear, value)?,
        }
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn write_slow<T: Scalar>(&self, linear: u64, value: T) -> Result<(), MemFault> {
        let pieces = self.pieces_to_write(linear, size_of::<T>() as u64);
        let pieces = pieces.and_then(|pieces| self.permit(pieces));
        let pieces = pieces.map_err(|r| r.mem_fault(true))?;
        self.store_pieces(&pieces, value);
        Ok(())
    }

    /// The pieces of a locked access, and its host address if it can be done atomically there.
    fn locked<T: Scalar>(&self, linear: u64) -> Result<([Piece; 2], Option<*mut T>), MemFault> {
        let size = size_of::<T>() as u64;
        let pieces = self.pieces_to_write(linear, size);
        let pieces = pieces.and_then(|pieces| self.permit(pieces));
        let pieces = pieces.map_err(|r| r.mem_fault(true))?;
        let host = pieces[0].host(true).map(|host| host.cast::<T>());
        let whole = pieces[0].len == size;
        Ok((pieces, host.filter(|h| whole && h.is_aligned())))
    }

    /// See [`crate::memory::GuestMemory::rmw`].
    pub fn rmw<T: Word>(&self, op: RmwOp, linear: u64, value: T) -> Result<T, MemFault> {
        let (pieces, host) = self.locked::<T>(linear)?;
        if let Some(host) = host {
            // SAFETY: mapped, writable, aligned.
            return Ok(unsafe { T::rmw(host, op, value) });
        }
        let old = self.fetch_pieces::<T>(&pieces);
        self.store_pieces(&pieces, T::combine(op, old, value));
        Ok(old)
    }

    /// See [`crate::memory::GuestMemory::cas`].
    pub fn cas<T: Word + PartialEq>(
        &self,
        linear: u64,
        expected: T,
        new: T,
    ) -> Result<T, MemFault> {
        let (pieces, host) = self.locked::<T>(linear)?;
        if let Some(host) = host {
            // SAFETY: mapped, writable, aligned.
            return Ok(unsafe { T::cas(host, expected, new) });
        }
        // The processor writes in either case (SDM volume 2, CMPXCHG).
        let old = self.fetch_pieces::<T>(&pieces);
        self.store_pieces(&pieces, if old == expected { new } else { old });
        Ok(old)
    }

    /// See [`crate::memory::GuestMemory::cas128`].
    pub fn cas128(&self, linear: u64, expected: u128, new: u128) -> Result<u128, MemFault> {
        let (pieces, host) = self.locked::<u128>(linear)?;
        if let Some(host) = host {
            // SAFETY: mapped, writable, aligned.
            return Ok(unsafe { super::super::atomic::swap128(host, expected, new) });
        }
        let old = self.fetch_pieces::<u128>(&pieces);
        self.store_pieces(&pieces, if old == expected { new } else { old });
        Ok(old)
    }

    /// Whether an access of `len` bytes is allowed, all of it.
    pub fn check(&self, linear: u64, len: u64, write: bool) -> Result<(), MemFault> {
        let mut done = 0;
        while done < len {
            let at = linear.wrapping_add(done);
            let part = (len - done).min(PAGE - at % PAGE);
            let pieces = if write {
                let pieces = self.pieces_to_write(at, part);
                pieces.and_then(|pieces| self.permit(pieces))
            } else {
                self.pieces_to_read(at, part)
            };
            pieces.map_err(|r| r.mem_fault(write))?;
            done += part;
        }
        Ok(())
    }

    /// The host address of `len` bytes on one page, if that is plain memory that may be accessed
    /// so with the current level's rights, and holds no translated code where it is to be written.
    pub fn span(&self, linear: u64, len: u64, write: bool) -> Result<Option<*mut u8>, MemFault> {
        if len == 0 || linear % PAGE + len > PAGE {
            return Ok(None);
        }
        let pieces = if write {
            self.pieces_to_write(linear, len)
        } else {
            self.pieces(self.class(), linear, len, Access::Read)
        };
        let [piece, _] = pieces.map_err(|r| r.mem_fault(write))?;
        Ok(piece.host(write))
    }

    /// Reads with those rights; for helpers, which raise the fault.
    pub fn read_as<T: Scalar>(&self, rights: Rights, linear: u64) -> Result<T, Fault> {
        let size = size_of::<T>() as u64;
        match self.pieces(self.class_of(rights), linear, size, Access::Read) {
            Ok(pieces) => Ok(self.fetch_pieces(&pieces)),
            Err(Refused::Guest(_, fault)) => Err(fault),
            Err(Refused::Code(_) | Refused::Device(_)) => {
                unreachable!("only guest instructions ask what is there")
            }
        }
    }

    /// Writes with those rights; for helpers. Translated code in the way becomes dirty.
    pub fn write_as<T: Scalar>(&self, rights: Rights, linear: u64, value: T) -> Result<(), Fault> {
        let size = size_of::<T>() as u64;
        match self.pieces(self.class_of(rights), linear, size, Access::Write) {
            Ok(pieces) => {
                for piece in &pieces {
                    if self.phys.hits_code(piece.phys, piece.len) {
                        self.phys.note_dirty(piece.phys);
                    }
                }
                self.store_pieces(&pieces, value);
                Ok(())
            }
            Err(Refused::Guest(_, fault)) => Err(fault),
            Err(Refused::Code(_) | Refused::Device(_)) => {
                unreachable!("only guest instructions ask what is there")
            }
        }
    }

    /// Why a data access of the current instruction at `linear` was refused. `None`: the guest may
    /// make it, but translated code is in the way, or it has to be alone. A `stack` access raises #SS where others raise
    /// #GP.
    pub fn fault_of(&self, linear: u64, write: bool, stack: bool) -> Option<Fault> {
        let access = if write { Access::Write } else { Access::Read };
        let fault = self.translate(linear, access, Rights::Current).err()?;
        Some(match fault.vector {
            13 if stack => Fault::ss(0),
            _ => fault,
        })
    }

    /// Fetches code bytes: as many as can be, up to the length of `out`. Fewer mean that the byte
    /// behind them cannot be fetched.
    pub fn fetch(&self, linear: u64, out: &mut [u8]) -> usize {
        let mut done = 0;
        while done < out.len() {
            let at = self.cut(linear.wrapping_add(done as u64));
            let Ok(phys) = self.translate_code(at) else {
                break;
            };
            let n = ((PAGE - at % PAGE) as usize).min(out.len() - done);
            self.phys.read_bytes(phys, &mut out[done..done + n]);
            done += n;
        }
        done
    }
}
