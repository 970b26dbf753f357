//! Tests of guest memory.

use super::page::{CODE, EXEC, MAPPED, READ, WRITE};
use super::*;

const AT: u64 = 0x10_0000;

fn memory() -> GuestMemory {
    let m = GuestMemory::new(Window::Bits32).unwrap();
    m.map_anon(AT, 2 * PAGE, READ | WRITE).unwrap();
    m
}

fn fault(addr: u64, write: bool, code: bool) -> MemFault {
    MemFault { addr, write, code }
}

#[test]
fn windows_have_the_promised_size() {
    assert_eq!(GuestMemory::new(Window::Bits32).unwrap().limit(), 1 << 32);
    let wide = GuestMemory::new(Window::Bits64).unwrap();
    assert!(wide.limit().is_power_of_two() && wide.limit() >= 1 << 34);
    wide.map_anon(wide.limit() - PAGE, PAGE, READ | WRITE)
        .unwrap();
    wide.write(wide.limit() - 8, 7u64).unwrap();
    assert_eq!(wide.read::<u64>(wide.limit() - 8), Ok(7));
    assert!(wide.map_anon(wide.limit(), PAGE, READ).is_err());
}

#[test]
fn accesses_are_checked_whole_before_anything_happens() {
    let m = memory();
    assert_eq!(m.write(AT + PAGE - 3, 0x1122_3344_5566_7788u64), Ok(()));
    assert_eq!(m.read::<u64>(AT + PAGE - 3), Ok(0x1122_3344_5566_7788));
    let end = AT + 2 * PAGE;
    assert_eq!(m.write(end - 1, 0xffffu16), Err(fault(end, true, false)));
    assert_eq!(m.read::<u8>(end - 1), Ok(0));
    assert_eq!(m.read::<u32>(end - 2), Err(fault(end, false, false)));
    assert_eq!(m.read::<u32>(AT - 2), Err(fault(AT - 2, false, false)));
}

#[test]
fn no_address_overflows() {
    let m = memory();
    for addr in [
        u64::MAX,
        u64::MAX - 3,
        u64::MAX - 7,
        1 << 63,
        1 << 32,
        (1 << 32) - 1,
    ] {
        assert_eq!(m.read::<u64>(addr).map_err(|f| f.addr), Err(addr));
        assert_eq!(m.write(addr, 1u128).map_err(|f| f.addr), Err(addr));
        assert!(m.read_bytes(addr, &mut [0; 100]).is_err());
        assert!(m.host_ptr(addr, u64::MAX, true).is_err());
        assert_eq!(m.fetch(addr, &mut [0; 15]), 0);
        assert_eq!(m.flags(addr), 0);
    }
    assert!(m.map_anon(u64::MAX - PAGE + 1, PAGE, READ).is_err());
    assert!(m.map_anon(PAGE, u64::MAX - PAGE + 1, READ).is_err());
    assert!(m.host_ptr(u64::MAX, 0, true).is_ok());
}

#[test]
fn protection_is_what_was_asked_for() {
    let m = memory();
    assert_eq!(m.flags(AT), READ | WRITE | MAPPED);
    m.protect(AT, PAGE, EXEC).unwrap();
    assert_eq!(m.flags(AT), READ | EXEC | MAPPED);
    assert_eq!(m.write(AT, 1u8), Err(fault(AT, true, false)));
    m.protect(AT, PAGE, 0).unwrap();
    assert_eq!(m.read::<u8>(AT), Err(fault(AT, false, false)));
    assert_eq!(m.protect(AT, 4 * PAGE, READ), Err(MapError::NotMapped));
    assert_eq!(m.flags(AT), MAPPED);
    m.unmap(AT, 2 * PAGE).unwrap();
    assert_eq!(m.flags(AT + PAGE), 0);
}

#[test]
fn code_pages_refuse_writes_until_released() {
    let m = memory();
    let n = AT / PAGE;
    m.protect_code(n).unwrap();
    assert_eq!(m.flags(AT), READ | WRITE | MAPPED | CODE);
    assert_eq!(m.write(AT, 1u8), Err(fault(AT, true, true)));
    assert_eq!(m.write(AT - 1, 1u16), Err(fault(AT - 1, true, false)));
    assert_eq!(m.cas(AT, 0u32, 1), Err(fault(AT, true, true)));
    m.release_code(n).unwrap();
    assert_eq!(m.write(AT, 1u8), Ok(()));
    assert!(m.take_dirty_code().is_empty());
}

#[test]
fn system_calls_take_translations_off() {
    let m = memory();
    let n = AT / PAGE;
    m.protect_code(n).unwrap();
    m.protect_code(n + 1).unwrap();
    assert!(m.host_ptr(AT, 8, false).is_ok());
    assert!(m.take_dirty_code().is_empty());
    m.write_bytes(AT + PAGE - 1, &[1, 2]).unwrap();
    assert_eq!(m.take_dirty_code(), [n, n + 1]);
    assert_eq!(m.read::<u16>(AT + PAGE - 1), Ok(0x201));
    assert_eq!(m.flags(AT) & CODE, 0);
}

#[test]
fn mapping_anew_makes_translations_stale() {
    let m = memory();
    let n = AT / PAGE;
    for change in [
        |m: &GuestMemory| m.map_anon(AT, PAGE, READ | WRITE),
        |m: &GuestMemory| m.protect(AT, PAGE, READ | WRITE | EXEC),
        |m: &GuestMemory| m.unmap(AT, PAGE),
    ] {
        m.protect_code(n).unwrap();
        change(&m).unwrap();
        assert_eq!(m.take_dirty_code(), [n]);
        assert_eq!(m.flags(AT) & CODE, 0);
    }
}

#[test]
fn fetch_stops_where_execution_is_not_allowed() {
    let m = memory();
    m.write(AT + PAGE - 2, 0x0201u16).unwrap();
    m.protect(AT, PAGE, READ | EXEC).unwrap();
    let mut bytes = [0; 15];
    assert_eq!(m.fetch(AT + PAGE - 2, &mut bytes), 2);
    assert_eq!(bytes[..3], [1, 2, 0]);
    assert_eq!(m.fetch(AT + PAGE, &mut bytes), 0);
}

#[test]
fn free_space_is_found_from_the_top_and_from_the_bottom() {
    let m = memory();
    assert_eq!(m.find_free(PAGE, AT, AT + 3 * PAGE), Some(AT + 2 * PAGE));
    assert_eq!(m.find_free(2 * PAGE, AT, AT + 3 * PAGE), None);
    assert_eq!(m.find_free(PAGE + 1, 0, AT + 2 * PAGE), Some(AT - 2 * PAGE));
    assert_eq!(m.find_free_up(PAGE, AT, AT + 9 * PAGE), Some(AT + 2 * PAGE));
    assert_eq!(m.find_free_up(2 * PAGE, AT - PAGE, AT + 3 * PAGE), None);
    assert_eq!(m.find_free(0, 0, AT), None);
}

#[test]
fn strings_end_at_zero_or_fault() {
    let m = memory();
    m.write_bytes(AT + PAGE - 3, b"hello\0").unwrap();
    assert_eq!(m.read_cstr(AT + PAGE - 3, 100), Ok(Some(b"hello".to_vec())));
    assert_eq!(m.read_cstr(AT + PAGE - 3, 5), Ok(None));
    m.write_bytes(AT + 2 * PAGE - 2, b"xx").unwrap();
    let past = m.read_cstr(AT + 2 * PAGE - 2, 100);
    assert_eq!(past, Err(fault(AT + 2 * PAGE, false, false)));
}

#[test]
fn atomics_at_any_alignment() {
    use metaphrase_ir::RmwOp;
    let m = memory();
    for at in [AT, AT + 1, AT + PAGE - 3] {
        m.write(at, 0x8000_0001u32).unwrap();
        assert_eq!(m.rmw(RmwOp::Add, at, 0x8000_0002u32), Ok(0x8000_0001));
        assert_eq!(m.rmw(RmwOp::Xchg, at, 9u32), Ok(3));
        assert_eq!(m.cas(at, 9u32, 10), Ok(9));
        assert_eq!(m.cas(at, 9u32, 11), Ok(10));
        assert_eq!(m.read::<u32>(at), Ok(10));
        let (old, new) = (u128::MAX / 3, u128::MAX / 5);
        m.write(at, old).unwrap();
        assert_eq!(m.cas128(at, new, 0), Ok(old));
        assert_eq!(m.cas128(at, old, new), Ok(old));
        assert_eq!(m.read::<u128>(at), Ok(new));
    }
    let end = AT + 2 * PAGE;
    assert_eq!(
        m.rmw(RmwOp::Or, end - 1, 1u16),
        Err(fault(end, true, false))
    );
}

#[test]
fn files_are_mapped_private_and_shared() {
    let path = std::env::temp_dir().join(format!("metaphrase-map-{}", std::process::id()));
    std::fs::write(&path, vec![7u8; 2 * PAGE as usize]).unwrap();
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let m = memory();
    for (addr, shared) in [(0x20_0000, false), (0x30_0000, true)] {
        let mapping = FileMapping {
            fd: rustix::fd::AsFd::as_fd(&file),
            offset: PAGE,
            shared,
        };
        m.map_file(addr, PAGE, READ | WRITE, mapping).unwrap();
        assert_eq!(m.read::<u8>(addr), Ok(7));
        m.write(addr, 9u8).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes[PAGE as usize], if shared { 9 } else { 7 });
    }
    std::fs::remove_file(&path).unwrap();
}
