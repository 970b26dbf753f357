//! The loader on hand-built files, most of them damaged.

use super::abi::Abi;
use super::exec::{self, Request};
use super::loader::{self, LoadError};
use crate::cpu_model::CpuModel;
use crate::memory::page;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// A file that is removed at the end of its test.
struct Temp(PathBuf);

impl Temp {
    fn new(bytes: &[u8]) -> Temp {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("metaphrase-loader-{}-{n}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::File::create(&path)
            .unwrap()
            .write_all(bytes)
            .unwrap();
        Temp(path)
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A segment: address, size in memory, offset in the file, size there, flags (R = 4, W = 2, X = 1).
type Load = (u64, u64, u64, u64, u32);

const SIZE: usize = 0x2800;

/// An x86-64 file with these segments; every byte behind the headers is 0xab.
fn elf64(kind: u16, loads: &[Load]) -> Vec<u8> {
    let mut b = vec![0xab; SIZE];
    b[..64].fill(0);
    b[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    b[16..18].copy_from_slice(&kind.to_le_bytes());
    b[18..20].copy_from_slice(&62u16.to_le_bytes());
    b[24..32].copy_from_slice(&0x40_1000u64.to_le_bytes());
    b[32..40].copy_from_slice(&64u64.to_le_bytes());
    b[54..56].copy_from_slice(&56u16.to_le_bytes());
    b[56..58].copy_from_slice(&(loads.len() as u16).to_le_bytes());
    for (n, &(addr, mem, offset, file, flags)) in loads.iter().enumerate() {
        let ph = &mut b[64 + 56 * n..][..56];
        ph.fill(0);
        ph[..4].copy_from_slice(&1u32.to_le_bytes());
        ph[4..8].copy_from_slice(&flags.to_le_bytes());
        for (at, v) in [(8, offset), (16, addr), (32, file), (40, mem)] {
            ph[at..at + 8].copy_from_slice(&v.to_le_bytes());
        }
    }
    b
}

/// An i386 file with one segment.
fn elf32(addr: u32, mem: u32) -> Vec<u8> {
    let mut b = vec![0; 0x1000];
    b[..7].copy_from_slice(b"\x7fELF\x01\x01\x01");
    b[16..18].copy_from_slice(&2u16.to_le_bytes());
    b[18..20].copy_from_slice(&3u16.to_le_bytes());
    b[24..28].copy_from_slice(&addr.to_le_bytes());
    b[28..32].copy_from_slice(&52u32.to_le_bytes());
    b[42..44].copy_from_slice(&32u16.to_le_bytes());
    b[44..46].copy_from_slice(&1u16.to_le_bytes());
    for (n, v) in [1, 0, addr, addr, 0x100, mem, 5, 0x1000].iter().enumerate() {
        b[52 + 4 * n..56 + 4 * n].copy_from_slice(&u32::to_le_bytes(*v));
    }
    b
}

fn load(bytes: &[u8]) -> Result<(crate::GuestMemory, exec::Loaded), LoadError> {
    let file = Temp::new(bytes);
    exec::load(Request {
        path: file.0.clone(),
        exec_path: b"/prog".to_vec(),
        args: vec![b"prog".to_vec()],
        env: Vec::new(),
        sysroot: None,
        cpu: CpuModel::max(),
    })
}

fn error(bytes: &[u8]) -> LoadError {
    load(bytes).expect_err("the file must be refused")
}

const GOOD: Load = (0x40_0000, 0x3000, 0, 0x1800, 6);

#[test]
fn a_program_is_mapped_with_zeros_behind_its_data() {
    let (memory, loaded) = load(&elf64(2, &[GOOD])).unwrap();
    assert_eq!(loaded.image.abi, Abi::X86_64);
    assert_eq!(loaded.image.start, 0x40_1000);
    assert_eq!(loaded.image.phdr, 0x40_0040);
    assert_eq!(memory.read::<u8>(0x40_17ff), Ok(0xab));
    assert_eq!(memory.read::<u8>(0x40_1800), Ok(0));
    assert_eq!(memory.read::<u8>(0x40_2fff), Ok(0));
    assert!(memory.read::<u8>(0x40_3000).is_err());
    assert_eq!(loaded.space.brk, 0x40_3000);
    assert_eq!(memory.flags(0x40_0000) & page::EXEC, 0);
}

#[test]
fn segments_without_page_congruence_are_copied() {
    let second = (0x40_3100, 0x200, 0x1801, 0x100, 4);
    let (memory, _) = load(&elf64(2, &[GOOD, second])).unwrap();
    assert_eq!(memory.read::<u8>(0x40_30ff), Ok(0));
    assert_eq!(memory.read::<u8>(0x40_3100), Ok(0xab));
    assert_eq!(memory.read::<u8>(0x40_3200), Ok(0));
    assert!(memory.write::<u8>(0x40_3100, 1).is_err());
}

#[test]
fn position_independent_programs_move() {
    let (memory, loaded) = load(&elf64(3, &[(0x1000, 0x1000, 0x1000, 0x1000, 5)])).unwrap();
    let base = loaded.space.layout.pie_base;
    assert_eq!(memory.read::<u8>(base), Ok(0xab));
    assert_eq!(loaded.image.entry, base + 0x40_1000 - 0x1000);
}

#[test]
fn i386_programs_without_a_stack_header_may_execute_everything_readable() {
    let (memory, loaded) = load(&elf32(0x804_8000, 0x100)).unwrap();
    assert_eq!(loaded.image.abi, Abi::I386);
    assert!(loaded.image.exec_stack);
    assert_ne!(memory.flags(loaded.sp) & page::EXEC, 0);
    assert!(memory.read::<u8>(loaded.space.layout.trampoline).is_ok());
}

#[test]
fn every_defect_has_its_error() {
    assert!(matches!(error(b"#include"), LoadError::NotElf { .. }));
    assert!(matches!(error(b""), LoadError::NotElf { .. }));
    assert!(matches!(error(b"\x7fELF"), LoadError::Truncated { .. }));
    let good = elf64(2, &[GOOD]);
    assert!(matches!(error(&good[..63]), LoadError::Truncated { .. }));
    assert!(matches!(error(&good[..100]), LoadError::Truncated { .. }));
    let short = error(&good[..0x1000]);
    assert!(matches!(short, LoadError::Truncated { end: 0x1800, .. }));

    let mut arm = good.clone();
    arm[18] = 183;
    let error_arm = error(&arm);
    assert!(error_arm.to_string().contains("AArch64"), "{error_arm}");
    let mut big = good.clone();
    (big[5], big[18], big[19]) = (2, 0, 22);
    assert!(error(&big).to_string().contains("S/390"));
    let mut x32 = good.clone();
    x32[4] = 1;
    assert!(error(&x32).to_string().contains("x32"));

    let mut object = good.clone();
    object[16] = 1;
    assert!(matches!(error(&object), LoadError::NotProgram { .. }));
    let nothing = error(&elf64(2, &[]));
    assert!(matches!(nothing, LoadError::NothingToLoad { .. }));
    let empty = error(&elf64(2, &[(0x40_0000, 0, 0, 0, 4)]));
    assert!(matches!(empty, LoadError::NothingToLoad { .. }));
    let mut headers = good.clone();
    headers[54] = 55;
    assert!(matches!(error(&headers), LoadError::Damaged { .. }));
    let inverted = error(&elf64(2, &[(0x40_0000, 0x100, 0, 0x200, 4)]));
    assert!(matches!(inverted, LoadError::Damaged { .. }));
    for (addr, size) in [(0, 0x1000), (1 << 61, 0x1000), (u64::MAX - 5, 0x1000)] {
        let outside = error(&elf64(2, &[(addr, size, 0, 0, 4)]));
        assert!(matches!(outside, LoadError::OutsideWindow { .. }));
    }
    let outside = error(&elf32(0xffff_0000, 0x8000));
    assert!(matches!(outside, LoadError::OutsideWindow { .. }));
}

#[test]
fn directories_and_missing_files_are_told_apart() {
    let here = loader::open_program(&std::env::temp_dir()).unwrap_err();
    assert!(matches!(here, LoadError::Directory { .. }));
    assert_eq!(here.errno().0, libc::EACCES);
    let missing = loader::open_program(&PathBuf::from("/no/such/file")).unwrap_err();
    assert_eq!(missing.errno().0, libc::ENOENT);
    let device = loader::open_program(&PathBuf::from("/dev/null")).unwrap_err();
    assert!(matches!(device, LoadError::NotRegular { .. }));
}

#[test]
fn damaged_headers_never_panic() {
    let good = elf64(3, &[GOOD, (0x40_4000, 0x100, 0x1000, 0x80, 5)]);
    let mut seed = 1u64;
    for _ in 0..3000 {
        let mut bytes = good.clone();
        for _ in 0..4 {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let at = (seed >> 40) as usize % (64 + 112);
            bytes[at] = (seed >> 32) as u8;
        }
        // Only parsing: reserving a window for each would be slow.
        let file = Temp::new(&bytes);
        let open = loader::open_program(&file.0).unwrap();
        if let Ok(elf) = loader::parse(&file.0, &open) {
            assert!(elf.extent().0 <= elf.extent().1);
        }
    }
}

#[test]
fn scripts_run_their_interpreter() {
    let program = Temp::new(&elf64(2, &[GOOD]));
    let script = format!("#! {}  -x y \nrest\n", program.0.display());
    let (_, loaded) = load(script.as_bytes()).unwrap();
    let args: Vec<String> = loaded
        .args
        .iter()
        .map(|a| String::from_utf8_lossy(a).into_owned())
        .collect();
    let name = program.0.display().to_string();
    assert_eq!(args, [name.as_str(), "-x y", "/prog"]);
    let endless = Temp::new(b"");
    std::fs::write(&endless.0, format!("#!{}\n", endless.0.display())).unwrap();
    let text = std::fs::read(&endless.0).unwrap();
    let error = load(&text).unwrap_err();
    assert!(matches!(error, LoadError::TooManyInterpreters { .. }));
}
