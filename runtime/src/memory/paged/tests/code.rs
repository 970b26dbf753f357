//! When code that was found may have moved.

use super::super::{Paged, PagingContext, PhysMemory};
use crate::system::{cr0, cr4};
use std::sync::Arc;

const GLOBAL: u32 = 0x100;

/// 32-bit paging, page 1 global, the first 1024 pages mapped to themselves; page numbers from
/// 0x400 on are parts of a global large page.
fn memory() -> Paged {
    let mut phys = PhysMemory::new();
    phys.add_ram(0, 1 << 20).unwrap();
    phys.write_bytes(0x1000, &0x2007u32.to_le_bytes());
    phys.write_bytes(0x1004, &(0x0040_0087 | GLOBAL).to_le_bytes());
    for n in 0..1024u32 {
        let entry = (n << 12) | 7 | if n == 1 { GLOBAL } else { 0 };
        phys.write_bytes(0x2000 + 4 * u64::from(n), &entry.to_le_bytes());
    }
    let m = Paged::new(Arc::new(phys));
    m.set_context(PagingContext {
        cr0: cr0::PE | cr0::PG,
        cr3: 0x1000,
        cr4: cr4::PGE | cr4::PSE,
        a20: true,
        ..PagingContext::default()
    });
    m
}

/// Whether `f` says that code has moved.
fn moves(m: &Paged, f: impl FnOnce()) -> bool {
    let before = m.generation();
    f();
    m.generation() != before
}

#[test]
fn only_flushes_of_code_move_code() {
    let m = memory();
    let find = |page: u64| assert_eq!(m.translate_code(page << 12), Ok(page << 12));
    let local = || m.flush(false);
    find(1);
    m.read::<u32>(0x5000).unwrap();
    assert!(!moves(&m, local), "only global code was found");
    find(2);
    assert!(moves(&m, local));
    assert!(!moves(&m, local), "none was found since");
    find(2);
    find(2 + 256);
    assert!(
        moves(&m, || m.flush_page(0x2fff)),
        "thrown out of its place, not forgotten"
    );
    assert!(!moves(&m, || m.flush_page(0x5000)), "data");
    // A global page is known for longer than its entry lives.
    find(1 + 256);
    assert!(moves(&m, local));
    assert!(moves(&m, || m.flush_page(0x1000)));
    find(0x400);
    assert!(moves(&m, || m.flush_page(0x7f_f000)), "the same large page");
    assert!(moves(&m, || m.flush(true)));
    assert!(!moves(&m, || m.flush(true)));
}

#[test]
fn a_change_of_address_space_is_flushed_once() {
    let m = memory();
    m.read::<u32>(0x5000).unwrap();
    let before = m.stats().flushes_non_global;
    let mut context = m.context();
    context.cr3 = 0x3000;
    m.set_context(context);
    m.flush(false);
    assert_eq!(m.stats().flushes_non_global, before + 1);
}
