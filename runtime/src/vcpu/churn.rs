//! Writes to translated code of a whole system.
//!
//! Memory is watched in pieces of [`CODE_GRAIN`] bytes: a write beside the code on a page costs a
//! slow store and nothing else, and a write to it takes only the translations of the pieces that
//! it hits. A page whose code keeps changing is not watched any more: its instructions are
//! translated one at a time, for the interpreter alone, and their bytes are compared each time.

use super::{Next, Stop, Vcpu, VcpuError};
use crate::cache::{TransId, Translation};
use crate::memory::Paged;
use crate::memory::paged::{Access, CODE_GRAIN, PAGE, Rights};
use crate::system::Fault;
use hashbrown::HashMap;
use metaphrase_frontend::operand_is_in_stack;

/// Hits on a page's code after which it counts as changing.
const CHANGING: u32 = 50;

/// Instructions that a changing page is checked for before it is given another chance.
const PATIENCE: u32 = 200_000;

/// What is known of pages whose code was written to, by page number.
#[derive(Debug, Default)]
pub(super) struct Churn {
    hits: HashMap<u64, u32>,
    /// Pages that are checked, and how many checks are left.
    checked: HashMap<u64, u32>,
}

impl Churn {
    /// Counts a hit; true if the page is to be checked from now on.
    fn hit(&mut self, page: u64) -> bool {
        let hits = self.hits.entry(page).or_default();
        *hits += 1;
        if *hits < CHANGING {
            return false;
        }
        *hits = 0;
        self.checked.insert(page, PATIENCE);
        true
    }

    /// Whether a page is checked rather than watched.
    pub fn is_checked(&self, page: u64) -> bool {
        !self.checked.is_empty() && self.checked.contains_key(&page)
    }

    /// Counts a check; true if the page is to be watched again.
    fn check(&mut self, page: u64) -> bool {
        let Some(left) = self.checked.get_mut(&page) else {
            return true;
        };
        *left = left.saturating_sub(1);
        if *left > 0 {
            return false;
        }
        self.checked.remove(&page);
        true
    }
}

/// The physical bytes that a translation was made from: first and last address of each piece.
fn places(t: &Translation) -> impl Iterator<Item = (u64, u64)> + '_ {
    let (pc, address) = (t.key.pc, t.key.address);
    let end = t.page.map_or(u64::MAX, |(_, last)| last);
    t.bytes.iter().flat_map(move |&(from, to)| {
        let here = address.wrapping_add(from.wrapping_sub(pc));
        let first = (here, here + (to.min(end) - from));
        let rest = t.second.filter(|_| to > end);
        let second = rest.map(|(start, there)| (there, there + (to - start)));
        std::iter::once(first).chain(second)
    })
}

impl Vcpu {
    /// An access at RIP was refused: the guest's fault, or a write to translated code.
    pub(super) fn system_memory_fault(
        &mut self,
        addr: u64,
        write: bool,
        stack: bool,
    ) -> Result<Next, VcpuError> {
        let Some(paged) = self.env.memory.paged() else {
            return Ok(Next::Slice);
        };
        if let Some(mut fault) = paged.fault_of(addr, write, stack) {
            let pc = self.state.rip;
            if fault.vector == 13 && operand_is_in_stack(pc, self.mode, &self.code(pc)) {
                fault = Fault::ss(0);
            }
            return Ok(Next::Stop(Stop::Exception(fault.into())));
        }
        if paged.is_device(addr, write) {
            return self.single_step();
        }
        self.stats.smc_writes += 1;
        // The address is the access's first byte, or the first on its second page.
        let mut found = false;
        for at in [addr, addr.wrapping_add(CODE_GRAIN - 1)] {
            let phys = |paged: &Paged| paged.translate(at, Access::Read, Rights::Current).ok();
            if let Some(phys) = self.env.memory.paged().and_then(phys) {
                found |= self.invalidate_piece(phys);
            }
        }
        if !found {
            // A defect of ours; the guest must not make us try for ever.
            debug_assert!(false, "write at {addr:#x} refused for no reason");
            return Ok(Next::Stop(Stop::Exception(Fault::gp(0).into())));
        }
        self.single_step()
    }

    /// Drops the translations that were made from the piece of memory that holds a physical
    /// address. Whether the piece held code.
    fn invalidate_piece(&mut self, phys: u64) -> bool {
        let Some(paged) = self.env.memory.paged() else {
            return false;
        };
        if !paged.phys().hits_code(phys, 1) {
            return false;
        }
        let page = phys / PAGE;
        let first = phys & !(CODE_GRAIN - 1);
        let last = first + (CODE_GRAIN - 1);
        let whole = self.churn.hit(page);
        let (gone, kept): (Vec<TransId>, Vec<TransId>) =
            self.cache.on_page(page).into_iter().partition(|&id| {
                whole || places(self.cache.get(id)).any(|(a, b)| a <= last && first <= b)
            });
        self.stats.invalidated_pages += 1;
        self.stats.invalidated_translations += gone.len() as u64;
        for id in gone {
            self.drop_code(id);
            self.cache.remove(id);
        }
        if let Some(paged) = self.env.memory.paged() {
            paged.phys().forget_code(page);
            for id in kept {
                for (a, b) in places(self.cache.get(id)).filter(|(a, _)| a / PAGE == page) {
                    paged.note_code(a, b - a + 1);
                }
            }
        }
        true
    }

    /// Whether the translation, of a page that is checked, still is what memory holds.
    pub(super) fn is_current(&mut self, id: TransId) -> bool {
        let t = self.cache.get(id);
        let Some(code) = &t.checked else { return true };
        let page = t.key.address / PAGE;
        let mut bytes = [0; 16];
        let bytes = &mut bytes[..code.len().min(16)];
        let pc = t.key.pc;
        let n = metaphrase_frontend::CodeSource::fetch(&self.code(pc), pc, bytes);
        let same = self.cache.get(id).checked.as_deref() == Some(&bytes[..n]);
        let again = self.churn.check(page);
        same && !again
    }
}
