//! The bookkeeping of an address space: what is mapped where and from which file, the heap's end,
//! and where the next mapping goes.

use super::layout::Layout;
use crate::memory::{GuestMemory, PAGE, page};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

/// A range of pages with one origin.
#[derive(Clone, Debug)]
struct Region {
    end: u64,
    name: Arc<str>,
    /// Offset in the file.
    offset: u64,
    shared: bool,
}

/// The bookkeeping of one address space.
#[derive(Debug)]
pub struct Space {
    /// The fixed places.
    pub layout: Layout,
    /// Where the heap begins.
    pub brk_start: u64,
    /// Where the heap ends; not page-aligned.
    pub brk: u64,
    regions: BTreeMap<u64, Region>,
    /// Everything between here and the layout's `mmap_top` was taken when last looked at.
    hint: u64,
}

/// Rounds up to a page; `None` at the very top.
pub fn page_up(n: u64) -> Option<u64> {
    Some(n.checked_add(PAGE - 1)? & !(PAGE - 1))
}

/// Rounds down to a page.
pub const fn page_down(n: u64) -> u64 {
    n & !(PAGE - 1)
}

impl Space {
    /// An empty one.
    pub fn new(layout: Layout) -> Space {
        Space {
            layout,
            brk_start: 0,
            brk: 0,
            regions: BTreeMap::new(),
            hint: layout.mmap_top,
        }
    }

    /// Notes that `len` bytes at `addr` were mapped.
    pub fn note(&mut self, addr: u64, len: u64, name: &str, offset: u64, shared: bool) {
        let end = addr + len;
        self.forget(addr, len);
        // The usual case of a growing heap or arena: extend the neighbour.
        if let Some((_, before)) = self.regions.range_mut(..addr).next_back()
            && before.end == addr
            && name.is_empty()
            && before.name.is_empty()
            && before.shared == shared
        {
            before.end = end;
            return;
        }
        let name = Arc::from(name);
        let region = Region {
            end,
            name,
            offset,
            shared,
        };
        self.regions.insert(addr, region);
    }

    /// Notes that `len` bytes at `addr` are no longer mapped.
    pub fn forget(&mut self, addr: u64, len: u64) {
        let end = addr + len;
        let mut touched: Vec<u64> = self.regions.range(addr..end).map(|(&s, _)| s).collect();
        if let Some((&start, region)) = self.regions.range(..addr).next_back()
            && region.end > addr
        {
            touched.push(start);
        }
        for start in touched {
            let Some(region) = self.regions.remove(&start) else {
                continue;
            };
            if start < addr {
                let head = Region {
                    end: addr,
                    ..region.clone()
                };
                self.regions.insert(start, head);
            }
            if region.end > end {
                let tail = Region {
                    offset: region.offset + (end - start),
                    ..region
                };
                self.regions.insert(end, tail);
            }
        }
        if addr <= self.layout.mmap_top {
            self.hint = self.hint.max(end.min(self.layout.mmap_top));
        }
    }

    /// Looks for `len` free bytes (a multiple of the page size), from the top down.
    pub fn find(&mut self, memory: &GuestMemory, len: u64) -> Option<u64> {
        let top = self.layout.mmap_top;
        let found = memory
            .find_free(len, self.layout.low, self.hint)
            .or_else(|| memory.find_free(len, self.layout.low, top))?;
        self.hint = self.hint.min(found + len);
        Some(found)
    }

    /// Whether `addr` lies in a region that is shared with other processes.
    pub fn is_shared(&self, addr: u64) -> bool {
        self.regions
            .range(..=addr)
            .next_back()
            .is_some_and(|(_, r)| r.end > addr && r.shared)
    }

    /// Name, file offset and sharing of what is mapped at `addr`.
    pub fn origin(&self, addr: u64) -> (Arc<str>, u64, bool) {
        match self.regions.range(..=addr).next_back() {
            Some((start, r)) if r.end > addr => {
                (r.name.clone(), r.offset + (addr - start), r.shared)
            }
            _ => (Arc::from(""), 0, false),
        }
    }

    /// The text of `/proc/self/maps`.
    pub fn maps(&self, memory: &GuestMemory) -> String {
        let mut text = String::new();
        for (&start, region) in &self.regions {
            let mut at = start;
            while at < region.end {
                let flags = memory.flags(at) & !page::CODE;
                let mut end = at + PAGE;
                while end < region.end && memory.flags(end) & !page::CODE == flags {
                    end += PAGE;
                }
                if flags & page::MAPPED != 0 {
                    let right = |bit, c| if flags & bit != 0 { c } else { '-' };
                    let file = region.name.starts_with('/');
                    let offset = if file {
                        region.offset + (at - start)
                    } else {
                        0
                    };
                    let _ = writeln!(
                        text,
                        "{at:08x}-{end:08x} {}{}{}{} {offset:08x} 00:00 {} {:>20}",
                        right(page::READ, 'r'),
                        right(page::WRITE, 'w'),
                        right(page::EXEC, 'x'),
                        if region.shared { 's' } else { 'p' },
                        u8::from(file),
                        region.name,
                    );
                }
                at = end;
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Window;
    use crate::user::abi::Abi;

    fn space() -> (GuestMemory, Space) {
        let memory = GuestMemory::new(Window::Bits32).unwrap();
        let space = Space::new(Layout::new(Abi::I386, memory.limit()));
        (memory, space)
    }

    #[test]
    fn forgetting_the_middle_leaves_both_ends() {
        let (memory, mut space) = space();
        memory.map_anon(0x10000, 0x5000, page::READ).unwrap();
        space.note(0x10000, 0x5000, "/lib/x", 0x2000, false);
        memory.unmap(0x12000, 0x1000).unwrap();
        space.forget(0x12000, 0x1000);
        let maps = space.maps(&memory);
        let lines: Vec<&str> = maps.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].starts_with("00010000-00012000 r--p 00002000"));
        assert!(lines[1].starts_with("00013000-00015000 r--p 00005000"));
        assert!(lines[1].ends_with("/lib/x"));
    }

    #[test]
    fn freed_space_is_found_again() {
        let (memory, mut space) = space();
        let take = |space: &mut Space, len| {
            let at = space.find(&memory, len).unwrap();
            memory.map_anon(at, len, page::READ).unwrap();
            space.note(at, len, "", 0, false);
            at
        };
        let first = take(&mut space, 0x3000);
        let second = take(&mut space, 0x1000);
        assert_eq!(first, space.layout.mmap_top - 0x3000);
        assert_eq!(second, first - 0x1000);
        memory.unmap(first, 0x3000).unwrap();
        space.forget(first, 0x3000);
        assert_eq!(take(&mut space, 0x2000), first + 0x1000);
    }
}
