//! Pages that show RAM, ROM or a device, as the board switches them.

use crate::memory::Paged;
use crate::memory::paged::PhysMemory;
use std::sync::Arc;

const SEGMENT: u64 = 0xf_0000;

fn memory() -> (Paged, Arc<PhysMemory>) {
    let mut phys = PhysMemory::new();
    phys.add_low_ram(2 << 20).unwrap();
    phys.add_rom((1 << 32) - 0x1_0000, &[0xc3; 0x1_0000])
        .unwrap();
    phys.show_rom((1 << 32) - 0x1_0000, SEGMENT, 0x1_0000);
    let phys = Arc::new(phys);
    let m = Paged::new(phys.clone());
    m.set_alone(true);
    (m, phys)
}

fn follow(m: &Paged) {
    if m.phys().take_remapped() {
        m.flush(true);
    }
}

#[test]
fn reads_and_writes_go_where_the_bridge_sends_them() {
    let (m, phys) = memory();
    let at = SEGMENT + 0x1230;
    // ROM: writes vanish.
    assert_eq!(m.read::<u8>(at), Ok(0xc3));
    assert_eq!(m.write::<u8>(at, 1), Ok(()));
    assert_eq!(m.read::<u8>(at), Ok(0xc3));
    // Writes to RAM, reads from ROM: how a ROM is copied onto itself.
    phys.set_shadow(SEGMENT, 0x1_0000, false, true);
    follow(&m);
    assert_eq!(m.write::<u8>(at, 2), Ok(()));
    assert_eq!(m.read::<u8>(at), Ok(0xc3));
    phys.write_bytes(at + 1, &[3]);
    // RAM, then RAM that is protected.
    phys.set_shadow(SEGMENT, 0x1_0000, true, true);
    follow(&m);
    assert_eq!(m.read::<u16>(at), Ok(0x0302));
    assert_eq!(m.write::<u8>(at, 4), Ok(()));
    phys.set_shadow(SEGMENT, 0x1_0000, true, false);
    follow(&m);
    assert_eq!(m.write::<u8>(at, 5), Ok(()));
    assert_eq!(m.read::<u16>(at), Ok(0x0304));
    // The same again changes nothing.
    phys.set_shadow(SEGMENT, 0x1_0000, true, false);
    assert!(!phys.take_remapped());
    phys.set_shadow(SEGMENT, 0x1_0000, false, false);
    follow(&m);
    assert_eq!(m.read::<u8>(at), Ok(0xc3));
    // No ROM and no device: ones.
    assert_eq!(m.read::<u8>(0xc_0000), Ok(0xff));
}

#[test]
fn code_on_a_switched_page_must_be_translated_anew() {
    let (m, phys) = memory();
    m.note_code(SEGMENT + 0x100, 16);
    phys.set_shadow(SEGMENT, 0x1000, true, true);
    assert_eq!(phys.take_dirty(), [SEGMENT / 0x1000]);
    phys.set_shadow(SEGMENT + 0x1000, 0x1000, true, true);
    assert!(!phys.has_dirty());
    // Where nothing is, no code is noted.
    m.note_code(0xa_0000, 16);
    assert!(!phys.has_code(0xa0));
}

#[test]
fn all_ram_counts_in_the_hash_whatever_shows() {
    use std::hash::{DefaultHasher, Hasher};
    let (_, phys) = memory();
    let hash = || {
        let mut hasher = DefaultHasher::new();
        phys.hash_ram(&mut hasher);
        hasher.finish()
    };
    let empty = hash();
    phys.set_shadow(0xa_0000, 0x2_0000, true, true);
    phys.write_bytes(0xa_8000, &[1]);
    let filled = hash();
    phys.set_shadow(0xa_0000, 0x2_0000, false, false);
    assert_ne!(empty, filled);
    assert_eq!(hash(), filled);
}
