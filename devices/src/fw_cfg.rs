//! The firmware configuration device: how the machine tells its firmware what it is made of (the
//! interface that the "QEMU firmware configuration device" specification describes).
//!
//! Ports: 510h selects an item (16 bits), 511h gives its bytes one by one. At 514h is the DMA
//! interface, a 64-bit address of a request, most significant byte first; writing its lower half
//! starts it. Attach [`FwCfg`] at 510h for [`PORTS`] ports.
//!
//! Items with a number are set with [`FwCfg::set`]; files, which the directory lists by name, are
//! added with [`FwCfg::add_file`]. A file that may be written is given back by [`FwCfg::file`].
//! Bytes behind the end of an item read as 0; a DMA request for more than 64 KiB of them is refused.
//! Writing through the data port is not supported, as in the specification since its DMA interface.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{BusDevice, GuestMemory, Width};

/// First port.
pub const BASE: u16 = 0x510;
/// Number of ports.
pub const PORTS: u64 = 12;

/// The item that says that this device is there.
pub const SIGNATURE: u16 = 0x0000;
/// The item with the features of the interface.
pub const FEATURES: u16 = 0x0001;
/// The system UUID.
pub const UUID: u16 = 0x0002;
/// Bytes of RAM, 64 bits.
pub const RAM_SIZE: u16 = 0x0003;
/// Whether there is no graphics adapter, 16 bits.
pub const NO_GRAPHIC: u16 = 0x0004;
/// Number of processors, 16 bits.
pub const CPUS: u16 = 0x0005;
/// Address at which a kernel is to be loaded, 32 bits.
pub const KERNEL_ADDRESS: u16 = 0x0007;
/// Bytes of a kernel, 32 bits.
pub const KERNEL_SIZE: u16 = 0x0008;
/// Address at which an initial RAM disk is to be loaded, 32 bits.
pub const INITRD_ADDRESS: u16 = 0x000a;
/// Bytes of an initial RAM disk, 32 bits.
pub const INITRD_SIZE: u16 = 0x000b;
/// Whether firmware is to show a boot menu, 16 bits.
pub const BOOT_MENU: u16 = 0x000e;
/// Most processors there can be, 16 bits.
pub const MAX_CPUS: u16 = 0x000f;
/// A kernel.
pub const KERNEL_DATA: u16 = 0x0011;
/// An initial RAM disk.
pub const INITRD_DATA: u16 = 0x0012;
/// Address at which a command line is to be loaded, 32 bits.
pub const COMMAND_LINE_ADDRESS: u16 = 0x0013;
/// Bytes of a command line, 32 bits.
pub const COMMAND_LINE_SIZE: u16 = 0x0014;
/// A command line.
pub const COMMAND_LINE_DATA: u16 = 0x0015;
/// Address of a kernel's real mode part, 32 bits.
pub const SETUP_ADDRESS: u16 = 0x0016;
/// Bytes of a kernel's real mode part, 32 bits.
pub const SETUP_SIZE: u16 = 0x0017;
/// A kernel's real mode part.
pub const SETUP_DATA: u16 = 0x0018;
/// The file directory.
pub const DIRECTORY: u16 = 0x0019;

/// The first file.
const FIRST_FILE: u16 = 0x0020;
/// Bytes of a name in the directory, with the 0 behind it.
const NAME: usize = 56;
/// The interface with data port, and DMA.
const HAS_DMA: u32 = 0x0000_0003;
/// What reading the address of the DMA interface gives.
const DMA_SIGNATURE: u64 = 0x51_45_4d_55_20_43_46_47;

/// Most bytes behind the end of an item that a DMA request may read. A limit of ours: without it a
/// request of 4 GiB could be made for nothing.
const MOST_ZEROS: usize = 0x1_0000;

const DMA: u64 = 4;
const DMA_ERROR: u32 = 0x01;
const DMA_READ: u32 = 0x02;
const DMA_SKIP: u32 = 0x04;
const DMA_SELECT: u32 = 0x08;
const DMA_WRITE: u32 = 0x10;

#[derive(Clone, Default)]
struct Item {
    data: Arc<Vec<u8>>,
    writable: bool,
}

/// The state: what is selected, and the contents of what the guest may write.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct FwCfgState {
    selected: u16,
    offset: u32,
    dma_address: u64,
    written: BTreeMap<u16, Vec<u8>>,
}

/// The device.
pub struct FwCfg {
    items: BTreeMap<u16, Item>,
    /// Names of files, whose numbers count from [`FIRST_FILE`].
    names: Vec<String>,
    selected: u16,
    offset: u32,
    dma_address: u64,
    memory: Box<dyn GuestMemory>,
}

impl FwCfg {
    /// A device with its signature, its features and an empty directory.
    pub fn new(memory: Box<dyn GuestMemory>) -> FwCfg {
        let mut device = FwCfg {
            items: BTreeMap::new(),
            names: Vec::new(),
            selected: 0,
            offset: 0,
            dma_address: 0,
            memory,
        };
        device.set(SIGNATURE, *b"QEMU");
        device.set(FEATURES, HAS_DMA.to_le_bytes());
        device.list_files();
        device
    }

    /// Sets an item. Numbers in items are least significant byte first.
    pub fn set(&mut self, item: u16, data: impl Into<Vec<u8>>) {
        let data = Arc::new(data.into());
        let writable = false;
        self.items.insert(item, Item { data, writable });
    }

    /// Adds a file that the guest may read. Replaces one of the same name. False if the name is too
    /// long or there are too many.
    pub fn add_file(&mut self, name: &str, data: impl Into<Vec<u8>>) -> bool {
        self.put_file(name, data.into(), false)
    }

    /// Adds a file that the guest may also write through DMA.
    pub fn add_writable_file(&mut self, name: &str, data: impl Into<Vec<u8>>) -> bool {
        self.put_file(name, data.into(), true)
    }

    /// What a file holds.
    pub fn file(&self, name: &str) -> Option<&[u8]> {
        let index = self.names.iter().position(|n| n == name)?;
        let item = self.items.get(&(FIRST_FILE + index as u16))?;
        Some(&item.data)
    }

    /// After a reset of the machine.
    pub fn reset(&mut self) {
        (self.selected, self.offset, self.dma_address) = (0, 0, 0);
    }

    /// The state.
    pub fn save(&self) -> FwCfgState {
        let written = self.items.iter().filter(|(_, item)| item.writable);
        FwCfgState {
            selected: self.selected,
            offset: self.offset,
            dma_address: self.dma_address,
            written: written.map(|(n, item)| (*n, item.data.to_vec())).collect(),
        }
    }

    /// Takes over the state of a device with the same items.
    pub fn restore(&mut self, state: FwCfgState) {
        self.selected = state.selected;
        self.offset = state.offset;
        self.dma_address = state.dma_address;
        for (number, data) in state.written {
            if let Some(item) = self.items.get_mut(&number)
                && item.writable
                && item.data.len() == data.len()
            {
                item.data = Arc::new(data);
            }
        }
    }

    fn put_file(&mut self, name: &str, data: Vec<u8>, writable: bool) -> bool {
        let index = self.names.iter().position(|n| n == name);
        let index = index.unwrap_or(self.names.len());
        if name.len() >= NAME || index >= 0x1000 {
            return false;
        }
        if index == self.names.len() {
            self.names.push(name.to_string());
        }
        let data = Arc::new(data);
        self.items
            .insert(FIRST_FILE + index as u16, Item { data, writable });
        self.list_files();
        true
    }

    /// Makes the directory: the number of files, and for each its size, its item and its name.
    /// Numbers in it have their most significant byte first.
    fn list_files(&mut self) {
        let mut data = (self.names.len() as u32).to_be_bytes().to_vec();
        for (item, name) in (FIRST_FILE..).zip(&self.names) {
            let size = self.items.get(&item).map_or(0, |item| item.data.len());
            data.extend((size as u32).to_be_bytes());
            data.extend(item.to_be_bytes());
            data.extend([0; 2]);
            data.extend(name.bytes());
            data.resize(data.len() + NAME - name.len(), 0);
        }
        self.set(DIRECTORY, data);
    }

    fn select(&mut self, item: u16) {
        self.selected = item;
        self.offset = 0;
    }

    /// The bytes from the offset on.
    fn rest(&self) -> &[u8] {
        let item = self.items.get(&self.selected);
        let data = item.map_or(&[][..], |item| &item.data);
        data.get(self.offset as usize..).unwrap_or(&[])
    }

    fn read_data(&mut self, into: &mut [u8]) {
        let rest = self.rest();
        let len = rest.len().min(into.len());
        into[..len].copy_from_slice(&rest[..len]);
        into[len..].fill(0);
        self.offset = self.offset.saturating_add(into.len() as u32);
    }

    /// Executes the request at the address of the DMA interface.
    fn dma(&mut self) {
        let at = std::mem::take(&mut self.dma_address);
        let mut request = [0; 16];
        self.memory.read(at, &mut request);
        let request = u128::from_be_bytes(request);
        let control = (request >> 96) as u32;
        let (length, address) = ((request >> 64) as u32, request as u64);
        if control & DMA_SELECT != 0 {
            self.select((control >> 16) as u16);
        }
        let done = if control & DMA_READ != 0 {
            self.dma_read(address, length)
        } else if control & DMA_WRITE != 0 {
            self.dma_write(address, length)
        } else {
            if control & DMA_SKIP != 0 {
                self.offset = self.offset.saturating_add(length);
            }
            true
        };
        let result = if done { 0 } else { DMA_ERROR };
        self.memory.write(at, &result.to_be_bytes());
    }

    /// False, with nothing done, if far more is wanted than there is.
    fn dma_read(&mut self, address: u64, length: u32) -> bool {
        let rest = self.rest();
        let len = rest.len().min(length as usize);
        let behind = length as usize - len;
        if behind > MOST_ZEROS {
            return false;
        }
        self.memory.write(address, &rest[..len]);
        let zeros = vec![0; behind];
        self.memory.write(address.wrapping_add(len as u64), &zeros);
        self.offset = self.offset.saturating_add(length);
        true
    }

    fn dma_write(&mut self, address: u64, length: u32) -> bool {
        let offset = self.offset as usize;
        let item = self.items.get_mut(&self.selected);
        let Some(item) = item.filter(|item| item.writable) else {
            return false;
        };
        let data = Arc::make_mut(&mut item.data);
        let end = offset.saturating_add(length as usize);
        let Some(into) = data.get_mut(offset..end) else {
            return false;
        };
        self.memory.read(address, into);
        self.offset = end as u32;
        true
    }

    fn write_dma_address(&mut self, offset: u64, width: Width, value: u64) {
        match (offset - DMA, width) {
            (0, Width::Dword) => {
                let high = u64::from((value as u32).swap_bytes());
                self.dma_address = high << 32 | self.dma_address & 0xffff_ffff;
            }
            (4, Width::Dword) => {
                let low = u64::from((value as u32).swap_bytes());
                self.dma_address = self.dma_address & !0xffff_ffff | low;
                self.dma();
            }
            (0, Width::Qword) => {
                self.dma_address = value.swap_bytes();
                self.dma();
            }
            _ => {}
        }
    }
}

impl BusDevice for FwCfg {
    fn read(&mut self, offset: u64, width: Width) -> u64 {
        let mut bytes = [0; 8];
        let len = width.bytes() as usize;
        self.read_many(offset, width, &mut bytes[..len]);
        u64::from_le_bytes(bytes)
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) {
        match (offset, width) {
            (0, Width::Word) => self.select(value as u16),
            (DMA.., _) => self.write_dma_address(offset, width, value),
            _ => {}
        }
    }

    fn read_many(&mut self, offset: u64, width: Width, into: &mut [u8]) {
        match (offset, width) {
            (1, Width::Byte) => self.read_data(into),
            (DMA.., _) => {
                let signature = DMA_SIGNATURE.to_be_bytes();
                for unit in into.chunks_mut(width.bytes() as usize) {
                    for (byte, at) in unit.iter_mut().zip((offset - DMA) as usize..) {
                        *byte = signature.get(at).copied().unwrap_or(0xff);
                    }
                }
            }
            _ => into.fill(0xff),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, TestMemory, round_trip};

    fn device() -> (FwCfg, TestMemory) {
        let memory = TestMemory::new(0x1_0000);
        let mut device = FwCfg::new(Box::new(memory.clone()));
        device.set(CPUS, 2u16.to_le_bytes());
        assert!(device.add_file("etc/one", *b"hello"));
        assert!(device.add_writable_file("etc/two", vec![0; 8]));
        (device, memory)
    }

    fn read(device: &mut FwCfg, item: u16, len: usize) -> Vec<u8> {
        device.write(0, Width::Word, item.into());
        let mut data = vec![0xcc; len];
        device.read_many(1, Width::Byte, &mut data);
        data
    }

    /// A request at 100h; what its control word is afterwards.
    fn dma(device: &mut FwCfg, memory: &TestMemory, control: u32, length: u32, at: u64) -> u32 {
        let request = [
            &control.to_be_bytes()[..],
            &length.to_be_bytes(),
            &at.to_be_bytes(),
        ];
        memory.write(0x100, &request.concat());
        device.write(4, Width::Dword, 0);
        device.write(8, Width::Dword, u64::from(0x100u32.swap_bytes()));
        let mut control = [0; 4];
        memory.read(0x100, &mut control);
        u32::from_be_bytes(control)
    }

    #[test]
    fn items_through_the_data_port() {
        let (mut device, _) = device();
        assert_eq!(read(&mut device, SIGNATURE, 6), b"QEMU\0\0");
        assert_eq!(read(&mut device, FEATURES, 4), [3, 0, 0, 0]);
        assert_eq!(read(&mut device, CPUS, 1), [2]);
        assert_eq!(device.read(1, Width::Byte), 0);
        assert_eq!(read(&mut device, 0x7777, 2), [0, 0]);
        assert_eq!(device.read(1, Width::Word), 0xffff, "bytes only");
    }

    #[test]
    fn the_directory_lists_files() {
        let (mut device, _) = device();
        assert!(device.add_file("etc/one", *b"hello!"), "again");
        assert!(!device.add_file(&"x".repeat(56), *b""));
        let directory = read(&mut device, DIRECTORY, 4 + 2 * 64);
        assert_eq!(directory[..4], [0, 0, 0, 2]);
        assert_eq!(directory[4..12], [0, 0, 0, 6, 0, 0x20, 0, 0]);
        assert_eq!(&directory[12..20], b"etc/one\0");
        assert_eq!(directory[68..76], [0, 0, 0, 8, 0, 0x21, 0, 0]);
        assert_eq!(read(&mut device, 0x20, 7), b"hello!\0");
    }

    #[test]
    fn dma_reads_writes_and_skips() {
        let (mut device, memory) = device();
        assert_eq!(device.read(4, Width::Dword), 0x554d_4551);
        assert_eq!(device.read(8, Width::Dword), 0x4746_4320);
        memory.write(0x200, &[0xee; 9]);
        assert_eq!(dma(&mut device, &memory, 0x20_000a, 8, 0x200), 0);
        let mut got = [0; 9];
        memory.read(0x200, &mut got);
        assert_eq!(&got, b"hello\0\0\0\xee");
        dma(&mut device, &memory, 0x20_000c, 3, 0);
        assert_eq!(dma(&mut device, &memory, 0x2, 2, 0x300), 0);
        memory.read(0x300, &mut got[..2]);
        assert_eq!(&got[..2], b"lo");
        assert_eq!(dma(&mut device, &memory, 0x21_0018, 5, 0x200), 0);
        assert_eq!(
            dma(&mut device, &memory, 0x10, 4, 0x200),
            DMA_ERROR,
            "too much"
        );
        assert_eq!(device.file("etc/two"), Some(&b"hello\0\0\0"[..]));
        assert_eq!(dma(&mut device, &memory, 0x2, 0x1_1000, 0), DMA_ERROR);
        assert_eq!(
            dma(&mut device, &memory, 0x20_0018, 5, 0x200),
            DMA_ERROR,
            "read-only"
        );
    }

    #[test]
    fn state_round_trip_and_storm() {
        let (mut one, memory) = device();
        memory.write(0x200, b"abcdefgh");
        dma(&mut one, &memory, 0x21_0018, 8, 0x200);
        one.write(0, Width::Word, 0x20);
        one.read(1, Width::Byte);
        let (mut two, _) = device();
        two.restore(round_trip(&one.save()));
        assert_eq!(two.read(1, Width::Byte), u64::from(b'e'));
        assert_eq!(two.file("etc/two"), Some(&b"abcdefgh"[..]));
        let mut random = Random::new(31);
        let widths = [Width::Byte, Width::Word, Width::Dword];
        for _ in 0..50_000 {
            let width = widths[random.below(3) as usize];
            let offset = random.below(13 - width.bytes());
            match random.below(3) {
                0 => {
                    one.read(offset, width);
                }
                1 => one.write(offset, width, random.next() & width.ones() & 0x3f),
                _ => {
                    let control = random.next() as u32 & 0x3f_001f;
                    let length = random.below(0x400) as u32;
                    dma(&mut one, &memory, control, length, random.next());
                }
            }
        }
    }
}
