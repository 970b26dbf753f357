//! Paging off: linear addresses are physical ones.

use super::super::{Access, Paged, PagingContext, PhysMemory, Rights};
use crate::memory::MemFault;
use metaphrase_devices::{BusDevice, Width};
use metaphrase_ir::RmwOp;
use std::sync::{Arc, Mutex};

/// Remembers the writes it gets; reads give the offset, in every byte counted up.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<(u64, Width, u64)>>>);

impl BusDevice for Recorder {
    fn read(&mut self, offset: u64, width: Width) -> u64 {
        let bytes: [u8; 8] = std::array::from_fn(|n| (offset as u8).wrapping_add(n as u8));
        self.0.lock().unwrap().push((offset, width, 0));
        u64::from_le_bytes(bytes) & width.ones()
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) {
        self.0.lock().unwrap().push((offset, width, value));
    }
}

impl Recorder {
    fn take(&self) -> Vec<(u64, Width, u64)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// 64 KiB of RAM at 0, a device at 0x10000, ROM at 0x20000.
fn memory() -> (Paged, Recorder) {
    let mut phys = PhysMemory::new();
    phys.add_ram(0, 0x10000).unwrap();
    phys.add_rom(0x20000, &[0xaa, 0xbb, 0xcc, 0xdd]).unwrap();
    let device = Recorder::default();
    let attached = Box::new(device.clone());
    phys.mmio()
        .attach(0x10000, 0x1000, "recorder", attached)
        .unwrap();
    (Paged::new(Arc::new(phys)), device)
}

#[test]
fn values_of_every_size_across_pages() {
    let (m, _) = memory();
    for at in [0x1000, 0x1fff, 0x1ffd, 0x1ff1, 0x2ff8] {
        m.write(at, 0x1122_3344_5566_7788_99aa_bbcc_ddee_ff00u128)
            .unwrap();
        for _ in 0..2 {
            assert_eq!(m.read::<u8>(at), Ok(0));
            assert_eq!(m.read::<u16>(at), Ok(0xff00));
            assert_eq!(m.read::<u32>(at + 1), Ok(0xccdd_eeff));
            assert_eq!(m.read::<u64>(at + 8), Ok(0x1122_3344_5566_7788));
        }
        m.write::<u32>(at + 2, 0x0102_0304).unwrap();
        assert_eq!(m.read::<u64>(at), Ok(0x99aa_0102_0304_ff00));
    }
}

#[test]
fn only_an_instruction_that_runs_alone_reaches_a_device() {
    let (m, device) = memory();
    let refused = |addr, write| MemFault {
        addr,
        write,
        code: true,
    };
    assert_eq!(m.read::<u32>(0x10004), Err(refused(0x10004, false)));
    assert_eq!(m.write::<u32>(0x10004, 1), Err(refused(0x10004, true)));
    assert_eq!(m.write::<u32>(0xfffe, 1), Err(refused(0x10000, true)));
    assert_eq!(m.cas::<u32>(0x10004, 1, 2), Err(refused(0x10004, true)));
    assert_eq!(m.check(0xfff0, 32, false), Err(refused(0x10000, false)));
    assert!(m.is_device(0x10004, false) && !m.is_device(0xfffe, false));
    assert!(device.take().is_empty() && !m.take_device_access());
    m.set_alone(true);
    assert_eq!(m.write::<u32>(0x10004, 1), Ok(()));
    assert_eq!(device.take(), [(4, Width::Dword, 1)]);
    assert!(m.take_device_access() && !m.take_device_access());
}

#[test]
fn device_accesses_are_cut_into_aligned_parts() {
    use Width::{Byte, Dword, Qword, Word};
    let (m, device) = memory();
    m.set_alone(true);
    assert_eq!(m.read::<u32>(0x10004), Ok(0x0706_0504));
    assert_eq!(device.take(), [(4, Dword, 0)]);
    assert_eq!(m.read::<u32>(0x10001), Ok(0x0403_0201));
    assert_eq!(device.take(), [(1, Byte, 0), (2, Word, 0), (4, Byte, 0)]);
    m.write(0x10010, 0x1111_2222_3333_4444_5555_6666_7777_8888u128)
        .unwrap();
    let low = 0x5555_6666_7777_8888;
    let high = 0x1111_2222_3333_4444;
    assert_eq!(device.take(), [(0x10, Qword, low), (0x18, Qword, high)]);
    // From RAM into the device.
    m.write::<u32>(0xffff, 0x4433_2211).unwrap();
    assert_eq!(m.read::<u8>(0xffff), Ok(0x11));
    assert_eq!(device.take(), [(0, Word, 0x3322), (2, Byte, 0x44)]);
    assert_eq!(m.rmw::<u16>(RmwOp::Or, 0x10008, 0x8000), Ok(0x0908));
    assert_eq!(device.take(), [(8, Word, 0), (8, Word, 0x8908)]);
    assert_eq!(m.cas::<u16>(0x10008, 1, 2), Ok(0x0908));
    assert_eq!(device.take(), [(8, Word, 0), (8, Word, 0x0908)]);
}

#[test]
fn rom_keeps_what_it_has_and_nothing_reads_ones() {
    let (m, _) = memory();
    m.set_alone(true);
    m.write::<u32>(0x20000, 0).unwrap();
    assert_eq!(m.read::<u32>(0x20000), Ok(0xddcc_bbaa));
    m.write::<u64>(0x30000, 7).unwrap();
    assert_eq!(m.read::<u64>(0x30000), Ok(u64::MAX));
    assert_eq!(m.span(0x20000, 4, true), Ok(None));
    assert!(m.span(0x20000, 4, false).unwrap().is_some());
    assert_eq!(m.span(0x10000, 4, false), Ok(None));
}

#[test]
fn locked_accesses_aligned_or_not() {
    let (m, _) = memory();
    for at in [0x1000, 0x1ffd, 0x2001] {
        m.write::<u32>(at, 40).unwrap();
        assert_eq!(m.rmw::<u32>(RmwOp::Add, at, 2), Ok(40));
        assert_eq!(m.cas::<u32>(at, 41, 9), Ok(42));
        assert_eq!(m.cas::<u32>(at, 42, 9), Ok(42));
        assert_eq!(m.read::<u32>(at), Ok(9));
    }
    for at in [0x3000, 0x3ff8] {
        m.write::<u128>(at, 5).unwrap();
        assert_eq!(m.cas128(at, 5, 1 << 100), Ok(5));
        assert_eq!(m.cas128(at, 5, 0), Ok(1 << 100));
        assert_eq!(m.read::<u128>(at), Ok(1 << 100));
    }
}

#[test]
fn code_is_protected_to_the_piece() {
    let (m, _) = memory();
    // The write is in the TLB before the page becomes code.
    m.write::<u32>(0x1000, 1).unwrap();
    m.note_code(0x1040, 16);
    let refused = |addr| {
        Err(MemFault {
            addr,
            write: true,
            code: true,
        })
    };
    assert_eq!(m.write::<u32>(0x1040, 1), refused(0x1040));
    assert_eq!(m.write::<u32>(0x103e, 1), refused(0x1040));
    assert_eq!(m.fault_of(0x103e, true, false), None);
    assert_eq!(m.write::<u32>(0x1080, 1), Ok(()));
    assert_eq!(m.write::<u32>(0x1000, 2), Ok(()));
    assert_eq!(m.write::<u64>(0xffc, 3), Ok(()));
    assert_eq!(m.stats().writes_beside_code, 3);
    assert_eq!(m.read::<u32>(0x1040), Ok(0));
    assert_eq!(
        m.rmw::<u32>(RmwOp::Add, 0x1040, 1),
        refused(0x1040).map(|()| 0)
    );
    assert_eq!(m.check(0x1000, 0x200, true), refused(0x1040));
    m.write_as::<u32>(Rights::Supervisor, 0x1044, 9).unwrap();
    assert_eq!(m.phys().take_dirty(), [1]);
    assert_eq!(m.phys().take_dirty(), []);
    m.phys().forget_code(1);
    assert_eq!(m.write::<u32>(0x1040, 1), Ok(()));
    assert_eq!(m.stats().writes_beside_code, 3);
}

#[test]
fn fetch_translate_and_a20() {
    let (m, _) = memory();
    m.set_alone(true);
    m.write::<u32>(0x1ffe, 0x4433_2211).unwrap();
    let mut bytes = [0; 4];
    assert_eq!(m.fetch(0x1ffe, &mut bytes), 4);
    assert_eq!(bytes, [0x11, 0x22, 0x33, 0x44]);
    let read = |at| m.translate(at, Access::Read, Rights::Current);
    assert_eq!(read(0x12_3456), Ok(0x12_3456));
    assert_eq!(read(0x1_0012_3456), Ok(0x12_3456));
    m.set_context(PagingContext::default());
    assert_eq!(read(0x12_3456), Ok(0x2_3456));
    assert_eq!(m.translate_code(0x12_3456), Ok(0x2_3456));
    m.set_context(PagingContext {
        a20: true,
        ..PagingContext::default()
    });
    assert_eq!(read(0x12_3456), Ok(0x12_3456));
    // The top of the 32-bit space runs into its bottom.
    m.write::<u32>(0, 0xdead_beef).unwrap();
    assert_eq!(m.read::<u32>(0xffff_fffe), Ok(0xbeef_ffff));
}

#[test]
fn string_instructions_on_paged_memory() {
    use crate::cpu_model::CpuModel;
    use crate::env::Env;
    use crate::helpers::TABLE;
    use crate::memory::GuestMemory;
    use crate::state::CpuState;
    use metaphrase_ir::{Helper, Reg, StringKind, StringOp};

    let (paged, device) = memory();
    paged.set_alone(true);
    let model = CpuModel::max();
    let mut env = Env::new(GuestMemory::system(paged), model);
    let mut state = CpuState::new();
    env.attach(&mut state);
    let mut run = |kind, size, from: u64, to: u64, count: u64| {
        let s = &mut *state;
        s.gpr[0] = 0x0403_0201;
        s.gpr[Reg::Rsi as usize] = from;
        s.gpr[Reg::Rdi as usize] = to;
        s.gpr[Reg::Rcx as usize] = count;
        let op = StringOp {
            segment: 3,
            checked: false,
            aligned: false,
            kind,
            size,
            addr: 4,
            repne: false,
            long: false,
        };
        let address = TABLE.address(Helper::RepString);
        // SAFETY: the table holds functions of that type; the state is attached.
        unsafe {
            let f: metaphrase_backend::HelperFn = std::mem::transmute(address);
            f(std::ptr::from_mut(s).cast(), op.pack().into(), 0, 0, 0);
        }
        (s.gpr[Reg::Rcx as usize], s.gpr[Reg::Rdi as usize])
    };
    assert_eq!(run(StringKind::Stos, 4, 0, 0xf00, 0x200), (0, 0x1700));
    assert_eq!(run(StringKind::Movs, 4, 0xf00, 0x2ffe, 0x200), (0, 0x37fe));
    // A pattern that spreads, and one that moves down.
    assert_eq!(run(StringKind::Movs, 1, 0xf00, 0xf03, 0x100), (0, 0x1003));
    assert_eq!(run(StringKind::Movs, 2, 0x3000, 0x2ffe, 8), (0, 0x300e));
    // To and from a device, into ROM.
    assert_eq!(run(StringKind::Stos, 2, 0, 0x10000, 3), (0, 0x10006));
    assert_eq!(device.take().len(), 3);
    assert_eq!(run(StringKind::Movs, 1, 0x10008, 0x4000, 4), (0, 0x4004));
    assert_eq!(run(StringKind::Movs, 1, 0xf00, 0x20000, 4), (0, 0x20004));
    let m = &env.memory;
    assert_eq!(m.read::<u32>(0x37fa), Ok(0x0403_0201));
    assert_eq!(m.read::<u32>(0xf03), Ok(0x0103_0201));
    assert_eq!(m.read::<u32>(0x2ffe), Ok(0x0201_0403));
    assert_eq!(m.read::<u32>(0x4000), Ok(0x0b0a_0908));
    assert_eq!(m.read::<u32>(0x20000), Ok(0xddcc_bbaa));
}
