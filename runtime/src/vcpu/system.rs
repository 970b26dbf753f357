//! What the dispatcher does differently for a whole system: code is found by physical address,
//! modes change while it runs, and mappings too.

use super::{Exception, Vcpu};
use crate::cache::{Key, TransId};
use crate::memory::paged::{Access, PAGE, Paged, Rights};
use crate::state::{CpuState, JUMP_ENTRIES, JumpEntry};
use crate::system::{Fault, mode};
use metaphrase_frontend::{CodeSource, Lifted, Mode};

/// Modes whose jump caches are kept.
const KEPT_MODES: usize = 16;

/// CS in the encoding order.
const CS: usize = 1;

/// The code segment as it is now, for fetching.
#[derive(Clone, Copy, Debug)]
pub(super) struct CodeSegment {
    base: u64,
    /// Last valid offset.
    limit: u64,
    /// 64-bit code: no base, no limit.
    long: bool,
}

impl CodeSegment {
    pub fn of(s: &CpuState) -> CodeSegment {
        CodeSegment {
            base: s.seg_base[CS],
            limit: u64::from(s.sys.seg_limit[CS]),
            long: mode::is_long_code(s),
        }
    }

    /// The linear address of an instruction pointer.
    pub fn linear(self, pc: u64) -> Result<u64, Fault> {
        if self.long {
            let canonical = (pc as i64) << 16 >> 16 == pc as i64;
            return if canonical { Ok(pc) } else { Err(Fault::gp(0)) };
        }
        if pc > self.limit {
            return Err(Fault::gp(0));
        }
        Ok(self.base.wrapping_add(pc) & 0xffff_ffff)
    }
}

/// Code bytes of a whole system, for one region: its entry's page, and what an instruction at the
/// entry needs of the next.
pub(super) struct SystemCode<'a> {
    paged: &'a Paged,
    segment: CodeSegment,
    entry: u64,
}

impl SystemCode<'_> {
    /// Bytes from `pc` to the end of its page and of the segment.
    fn room(&self, pc: u64, linear: u64) -> u64 {
        let page = PAGE - linear % PAGE;
        if self.segment.long {
            page
        } else {
            page.min((self.segment.limit - pc).saturating_add(1))
        }
    }
}

impl CodeSource for SystemCode<'_> {
    fn fetch(&self, pc: u64, buf: &mut [u8]) -> usize {
        let inside = self
            .page(self.entry)
            .is_some_and(|(a, b)| (a..=b).contains(&pc));
        if !inside {
            return 0;
        }
        let Ok(linear) = self.segment.linear(pc) else {
            return 0;
        };
        let mut done = (self.room(pc, linear) as usize).min(buf.len());
        done = self.paged.fetch(linear, &mut buf[..done]);
        let at = pc.wrapping_add(done as u64);
        if pc == self.entry
            && done < buf.len()
            && linear.wrapping_add(done as u64).is_multiple_of(PAGE)
            && let Ok(next) = self.segment.linear(at)
        {
            let more = (self.room(at, next) as usize).min(buf.len() - done);
            done += self.paged.fetch(next, &mut buf[done..done + more]);
        }
        done
    }

    fn page(&self, pc: u64) -> Option<(u64, u64)> {
        let linear = match self.segment.linear(pc) {
            Ok(linear) => linear,
            Err(_) => return Some((pc, pc)),
        };
        let first = pc.saturating_sub(linear % PAGE);
        let last = pc.saturating_add(PAGE - 1 - linear % PAGE);
        Some((first, last))
    }
}

impl Vcpu {
    /// Whether it is a whole system's CPU rather than a Linux program's.
    #[inline]
    pub(super) fn is_system(&self) -> bool {
        self.env.memory.paged().is_some()
    }

    /// The next instruction runs alone: it may access devices, which see its time.
    pub(super) fn begin_alone(&self) {
        let Some(paged) = self.env.memory.paged() else {
            return;
        };
        paged.set_alone(true);
        if let Some(system) = &self.env.system {
            system.clock.follow(self.instructions() + 1);
        }
    }

    /// It is done. A device that it has accessed may ask for an interrupt, or have something to do
    /// at another time.
    pub(super) fn end_alone(&mut self) {
        let Some(paged) = self.env.memory.paged() else {
            return;
        };
        paged.set_alone(false);
        if paged.take_device_access() {
            self.state.sys.look = true;
        }
    }

    /// Whether the code at `pc` is on a page that keeps changing: see `churn.rs`.
    pub(super) fn is_checked(&self, pc: u64) -> bool {
        self.is_system()
            && self
                .code_address(pc)
                .is_ok_and(|at| self.churn.is_checked(at / PAGE))
    }

    /// The code of a region at `pc`.
    pub(super) fn code(&self, pc: u64) -> Code<'_> {
        match self.env.memory.paged() {
            None => Code::Program(&self.env.memory),
            Some(paged) => Code::System(SystemCode {
                paged,
                segment: CodeSegment::of(&self.state),
                entry: pc,
            }),
        }
    }

    /// The physical address of the code at `pc`.
    pub(super) fn code_address(&self, pc: u64) -> Result<u64, Fault> {
        let Some(paged) = self.env.memory.paged() else {
            return Ok(pc);
        };
        let linear = CodeSegment::of(&self.state).linear(pc)?;
        paged.translate(linear, Access::Fetch, Rights::Current)
    }

    /// Makes the mode key and the jump cache follow what changed in the registers and in paging.
    #[inline]
    pub(super) fn follow_system(&mut self, unmasked: bool) {
        let generation = self.env.memory.paged().map_or(0, Paged::generation);
        if generation != self.mapping {
            self.mapping = generation;
            self.clear_jump_cache();
        }
        if unmasked != self.mode.unmasked || self.state.sys.mode_changed {
            self.state.sys.mode_changed = false;
            let mode = mode::mode(&self.state, self.env.cpu.features());
            if mode != self.mode {
                self.switch_mode(mode);
            }
        }
    }

    /// Goes on with the translations of another mode. The jump cache is keyed by PC alone, so
    /// each mode has its own.
    fn switch_mode(&mut self, mode: Mode) {
        let old = std::mem::replace(&mut self.mode, mode);
        let miss = self.miss_stub();
        let next = match self.parked.iter().position(|(m, _)| *m == mode) {
            Some(n) => self.parked.swap_remove(n).1,
            None => {
                if self.parked.len() >= KEPT_MODES {
                    self.parked.remove(0);
                }
                vec![JumpEntry::empty(miss); JUMP_ENTRIES].into_boxed_slice()
            }
        };
        let old_cache = std::mem::replace(&mut self.jump_cache, next);
        self.parked.push((old, old_cache));
        self.state.jump_cache = self.jump_cache.as_mut_ptr();
    }

    /// The translation for `pc`, if there is one and the code is still where it was.
    pub(super) fn find_system(&mut self, pc: u64) -> Result<Option<TransId>, Fault> {
        let address = self.code_address(pc)?;
        let key = Key {
            address,
            pc,
            mode: self.mode,
        };
        let Some(id) = self.cache.find(key) else {
            return Ok(None);
        };
        let t = self.cache.get(id);
        if t.second.is_none() && t.checked.is_none() {
            return Ok(Some(id));
        }
        // If it ends on another page, that must still be the same.
        let second = match t.second {
            Some((at, second)) => self.code_address(at)? == second,
            None => true,
        };
        if second && self.is_current(id) {
            return Ok(Some(id));
        }
        self.drop_code(id);
        self.cache.remove(id);
        Ok(None)
    }

    /// Makes what the lifter says of pages physical, notes that they hold code, and gives the PC
    /// and physical address at which the code enters a second page.
    pub(super) fn settle(&mut self, lifted: &mut Lifted) -> Option<(u64, u64)> {
        let paged = self.env.memory.paged()?;
        let pc = lifted.region.pc;
        let address = self.code_address(pc).ok()?;
        let bytes = crate::cache::guest_bytes(&lifted.region);
        let (_, last) = lifted.region.page?;
        let mut second = None;
        lifted.pages = vec![address / PAGE];
        if self.churn.is_checked(address / PAGE) {
            return None;
        }
        for (from, to) in bytes {
            let here = to.min(last);
            let at = address.wrapping_add(from.wrapping_sub(pc));
            paged.note_code(at, here - from + 1);
            if to > last {
                let segment = CodeSegment::of(&self.state);
                let there = segment
                    .linear(last + 1)
                    .and_then(|l| paged.translate(l, Access::Fetch, Rights::Current));
                if let Ok(there) = there {
                    paged.note_code(there, to - last);
                    lifted.pages.push(there / PAGE);
                    second = Some((last + 1, there));
                }
            }
        }
        lifted.pages.sort_unstable();
        lifted.pages.dedup();
        second
    }
}

/// Where code bytes come from.
pub(super) enum Code<'a> {
    /// A Linux program's memory.
    Program(&'a crate::memory::GuestMemory),
    /// A whole system's.
    System(SystemCode<'a>),
}

impl CodeSource for Code<'_> {
    fn fetch(&self, pc: u64, buf: &mut [u8]) -> usize {
        match self {
            Code::Program(memory) => memory.fetch(pc, buf),
            Code::System(code) => code.fetch(pc, buf),
        }
    }

    fn page(&self, pc: u64) -> Option<(u64, u64)> {
        match self {
            Code::Program(_) => None,
            Code::System(code) => code.page(pc),
        }
    }
}

impl From<Fault> for Exception {
    fn from(fault: Fault) -> Exception {
        Exception {
            vector: fault.vector,
            error: fault.error,
            addr: fault.addr,
            bus: false,
        }
    }
}
