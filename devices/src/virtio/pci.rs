//! The modern PCI transport (VIRTIO 1.2, section 4.1), with MSI-X and the interrupt pin.
//!
//! Everything is in base address register 4: common configuration, interrupt status, the device's
//! configuration, notifications, and the MSI-X table, a page each. Left out: legacy drivers, event
//! indices, packed rings, reset of single queues.

use serde::{Deserialize, Serialize};

use super::queue::{MOST, Queue};
use super::{Context, Served, VirtioDevice};
use crate::pci::PciFunction;
use crate::pci::{Bar, COMMAND_MASTER, COMMAND_NO_INTX, ConfigSpace, ConfigState, Mapping};
use crate::{BusDevice, GuestMemory, InterruptLine, Width};

/// The base address register.
pub const BAR: u8 = 4;
/// Its length.
pub const BAR_LEN: u64 = 0x8000;

const COMMON: u64 = 0x0000;
const STATUS: u64 = 0x1000;
const DEVICE: u64 = 0x2000;
const NOTIFY: u64 = 0x3000;
const TABLE: u64 = 0x4000;
const PENDING: u64 = 0x5000;
const PAGE: u64 = 0x1000;

/// Bytes between the notification addresses of queues.
const NOTIFY_STEP: u32 = 4;

const FEATURE_INDIRECT: u64 = 1 << 28;
const FEATURE_VERSION_1: u64 = 1 << 32;

const FEATURES_OK: u8 = 0x08;
const DRIVER_OK: u8 = 0x04;
const NEEDS_RESET: u8 = 0x40;

const ISR_QUEUE: u8 = 1;
const ISR_CONFIG: u8 = 2;

const MSIX_ENABLE: u16 = 0x8000;
const MSIX_MASK: u16 = 0x4000;
const NO_VECTOR: u16 = 0xffff;

/// Where interrupts as messages go: an address and a datum, as a write on the bus.
pub trait MessageSink: Send {
    /// The message.
    fn send(&self, address: u64, data: u32);
}

impl<F: Fn(u64, u32) + Send> MessageSink for F {
    fn send(&self, address: u64, data: u32) {
        self(address, data);
    }
}

/// What the driver has set up.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Registers {
    device_select: u32,
    driver_select: u32,
    driver_features: u64,
    config_vector: u16,
    status: u8,
    queue_select: u16,
    queues: Vec<Queue>,
    isr: u8,
}

impl Registers {
    fn new(queues: usize) -> Registers {
        Registers {
            device_select: 0,
            driver_select: 0,
            driver_features: 0,
            config_vector: NO_VECTOR,
            status: 0,
            queue_select: 0,
            queues: vec![Queue::new(); queues],
            isr: 0,
        }
    }
}

/// The state of transport and device.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VirtioState {
    config: ConfigState,
    registers: Registers,
    /// Address (two words), data and control of each vector.
    table: Vec<[u32; 4]>,
    pending: u64,
    device: Vec<u8>,
}

/// A device with its transport.
pub struct VirtioPci<D> {
    /// The device. After changing it, [`VirtioPci::poll`].
    pub device: D,
    config: ConfigSpace,
    registers: Registers,
    table: Vec<[u32; 4]>,
    pending: u64,
    /// Where the MSI-X capability and the one for access through configuration space are.
    msix: u8,
    window: u8,
    memory: Box<dyn GuestMemory>,
    line: Box<dyn InterruptLine>,
    messages: Box<dyn MessageSink>,
}

impl<D: VirtioDevice> VirtioPci<D> {
    /// A device after reset. `line` is its INTA pin.
    pub fn new(
        device: D,
        memory: Box<dyn GuestMemory>,
        line: Box<dyn InterruptLine>,
        messages: Box<dyn MessageSink>,
    ) -> VirtioPci<D> {
        let mut config = ConfigSpace::new(0x1af4, 0x1040 + device.kind(), device.class(), 1);
        config.set_subsystem(0x1af4, 0x1100);
        config.set_interrupt_pin(1);
        config.set_bar(
            BAR,
            Bar::Memory64 {
                size: BAR_LEN,
                prefetchable: true,
            },
        );
        let structures = [(1u8, COMMON), (2, NOTIFY), (3, STATUS), (4, DEVICE)];
        for (kind, offset) in structures {
            let mut body = vec![16, kind, BAR, 0, 0, 0];
            body.extend((offset as u32).to_le_bytes());
            body.extend((PAGE as u32).to_le_bytes());
            if offset == NOTIFY {
                body[0] = 20;
                body.extend(NOTIFY_STEP.to_le_bytes());
            }
            config.add_capability(0x09, &body);
        }
        // Access through configuration space: bar, offset and length, then the data.
        let window = config.add_capability(0x09, &[&[20, 5][..], &[0; 16]].concat());
        let window = window.unwrap_or(0);
        config.set_writable(window + 4, &[0xff]);
        config.set_writable(window + 8, &[0xff; 8]);
        let vectors = device.queues() as u16 + 1;
        let mut body = (vectors - 1).to_le_bytes().to_vec();
        body.extend((TABLE as u32 | u32::from(BAR)).to_le_bytes());
        body.extend((PENDING as u32 | u32::from(BAR)).to_le_bytes());
        let msix = config.add_capability(0x11, &body).unwrap_or(0);
        config.set_writable(msix + 3, &[0xc0]);
        VirtioPci {
            registers: Registers::new(device.queues()),
            table: vec![[0, 0, 0, 1]; vectors.into()],
            pending: 0,
            device,
            config,
            msix,
            window,
            memory,
            line,
            messages,
        }
    }

    /// Serves what can be served now, after something has changed for the device.
    pub fn poll(&mut self) {
        for queue in 0..self.registers.queues.len() {
            self.serve(queue);
        }
    }

    /// Tells the driver that the device's configuration reads otherwise now.
    pub fn config_changed(&mut self) {
        if self.registers.status & DRIVER_OK != 0 {
            self.interrupt(ISR_CONFIG, self.registers.config_vector);
        }
    }

    /// The state.
    pub fn save(&self) -> VirtioState {
        VirtioState {
            config: self.config.save(),
            registers: self.registers.clone(),
            table: self.table.clone(),
            pending: self.pending,
            device: self.device.save(),
        }
    }

    /// Takes over the state of the same device.
    pub fn restore(&mut self, state: VirtioState) {
        self.config.restore(&state.config);
        self.registers = state.registers;
        let queues = self.device.queues();
        self.registers.queues.resize_with(queues, Queue::new);
        self.table = state.table;
        self.table.resize(queues + 1, [0, 0, 0, 1]);
        self.pending = state.pending;
        self.device.restore(&state.device);
        self.drive_line();
    }

    /// A reset of the machine.
    pub fn reset(&mut self) {
        self.config.set(crate::pci::COMMAND, &[0, 0]);
        self.config.set(self.msix + 3, &[0]);
        self.table.fill([0, 0, 0, 1]);
        self.pending = 0;
        self.reset_device();
    }

    fn reset_device(&mut self) {
        self.registers = Registers::new(self.device.queues());
        self.drive_line();
    }

    fn features(&self) -> u64 {
        self.device.features() | FEATURE_INDIRECT | FEATURE_VERSION_1
    }

    fn serve(&mut self, index: usize) {
        let ready = |status: u8| status & (DRIVER_OK | NEEDS_RESET) == DRIVER_OK;
        let master = self.config.command() & COMMAND_MASTER != 0;
        let mut interrupt = false;
        // No more can wait than a queue holds, unless its rings lie on top of each other.
        for _ in 0..MOST {
            if !master || !ready(self.registers.status) {
                break;
            }
            let Some(queue) = self.registers.queues.get_mut(index) else {
                return;
            };
            let cx = Context {
                memory: &*self.memory,
                features: self.registers.driver_features,
            };
            let served = queue.peek(cx.memory).and_then(|chain| match chain {
                Some(chain) => match self.device.serve(index, &chain, &cx)? {
                    Served::Done(written) => Ok(Some((chain, written))),
                    Served::Later => Ok(None),
                },
                None => Ok(None),
            });
            match served {
                Ok(Some((chain, written))) => {
                    interrupt |= queue.done(cx.memory, &chain, written);
                }
                Ok(None) => break,
                Err(_) => {
                    self.registers.status |= NEEDS_RESET;
                    let vector = self.registers.config_vector;
                    self.interrupt(ISR_CONFIG, vector);
                }
            }
        }
        if interrupt && let Some(queue) = self.registers.queues.get(index) {
            let vector = queue.vector;
            self.interrupt(ISR_QUEUE, vector);
        }
    }

    fn msix_control(&self) -> u16 {
        self.config.word(self.msix + 2)
    }

    fn interrupt(&mut self, isr: u8, vector: u16) {
        if self.msix_control() & MSIX_ENABLE == 0 {
            self.registers.isr |= isr;
            return self.drive_line();
        }
        if usize::from(vector) < self.table.len() {
            self.pending |= 1 << vector;
            self.send_pending();
        }
    }

    fn drive_line(&self) {
        let enabled =
            self.config.command() & COMMAND_NO_INTX == 0 && self.msix_control() & MSIX_ENABLE == 0;
        self.line.set_level(enabled && self.registers.isr != 0);
    }

    /// Sends the messages that wait and are no longer masked.
    fn send_pending(&mut self) {
        if self.msix_control() & (MSIX_ENABLE | MSIX_MASK) != MSIX_ENABLE {
            return;
        }
        for (vector, [low, high, data, control]) in self.table.iter().enumerate() {
            if self.pending & 1 << vector != 0 && control & 1 == 0 {
                self.pending &= !(1 << vector);
                let address = u64::from(*high) << 32 | u64::from(*low);
                self.messages.send(address, *data);
            }
        }
    }

    /// The common configuration, as it reads.
    fn common(&self) -> [u8; 0x38] {
        let r = &self.registers;
        let half = |features: u64, select: u32| match select {
            0 => features as u32,
            1 => (features >> 32) as u32,
            _ => 0,
        };
        let mut bytes = [0; 0x38];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0x00, &r.device_select.to_le_bytes());
        put(0x04, &half(self.features(), r.device_select).to_le_bytes());
        put(0x08, &r.driver_select.to_le_bytes());
        put(
            0x0c,
            &half(r.driver_features, r.driver_select).to_le_bytes(),
        );
        put(0x10, &r.config_vector.to_le_bytes());
        put(0x12, &(r.queues.len() as u16).to_le_bytes());
        put(0x14, &[r.status, 0]);
        put(0x16, &r.queue_select.to_le_bytes());
        // A queue that is not there has size 0.
        if let Some(q) = r.queues.get(usize::from(r.queue_select)) {
            put(0x18, &q.size.to_le_bytes());
            put(0x1a, &q.vector.to_le_bytes());
            put(0x1c, &u16::from(q.enabled).to_le_bytes());
            put(0x1e, &r.queue_select.to_le_bytes());
            put(0x20, &q.descriptors.to_le_bytes());
            put(0x28, &q.available.to_le_bytes());
            put(0x30, &q.used.to_le_bytes());
        }
        bytes
    }

    fn write_common(&mut self, offset: u64, width: Width, value: u64) {
        let vectors = self.table.len();
        // A vector that is not there reads back as none.
        let vector = match value as u16 {
            vector if usize::from(vector) < vectors => vector,
            _ => NO_VECTOR,
        };
        let r = &mut self.registers;
        match (offset, width) {
            (0x00, Width::Dword) => r.device_select = value as u32,
            (0x08, Width::Dword) => r.driver_select = value as u32,
            (0x0c, Width::Dword) if r.status & FEATURES_OK == 0 => {
                let shift = match r.driver_select {
                    0 => 0,
                    1 => 32,
                    _ => return,
                };
                r.driver_features = r.driver_features & !(0xffff_ffff << shift) | value << shift;
            }
            (0x10, Width::Word) => r.config_vector = vector,
            (0x14, Width::Byte) => self.write_status(value as u8),
            (0x16, Width::Word) => r.queue_select = value as u16,
            (0x18.., _) => {
                let Some(q) = r.queues.get_mut(usize::from(r.queue_select)) else {
                    return;
                };
                let dword = |old: u64, high: bool| {
                    let shift = if high { 32 } else { 0 };
                    old & !(0xffff_ffff << shift) | value << shift
                };
                match (offset, width) {
                    (0x1a, Width::Word) => q.vector = vector,
                    // All else is fixed once the queue is in use.
                    _ if q.enabled => {}
                    (0x18, Width::Word) if (1..=MOST).contains(&(value as u16)) => {
                        q.size = value as u16;
                    }
                    (0x1c, Width::Word) => q.enabled = value & 1 != 0 && q.is_sound(),
                    (0x20 | 0x24, Width::Dword) => {
                        q.descriptors = dword(q.descriptors, offset == 0x24);
                    }
                    (0x28 | 0x2c, Width::Dword) => q.available = dword(q.available, offset == 0x2c),
                    (0x30 | 0x34, Width::Dword) => q.used = dword(q.used, offset == 0x34),
                    (0x20, Width::Qword) => q.descriptors = value,
                    (0x28, Width::Qword) => q.available = value,
                    (0x30, Width::Qword) => q.used = value,
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn write_status(&mut self, value: u8) {
        if value == 0 {
            return self.reset_device();
        }
        let features = self.registers.driver_features;
        let acceptable = features & !self.features() == 0 && features & FEATURE_VERSION_1 != 0;
        let refused = if acceptable { 0 } else { FEATURES_OK };
        let kept = self.registers.status & NEEDS_RESET;
        let before = self.registers.status;
        self.registers.status = value & !refused & !NEEDS_RESET | kept;
        if self.registers.status & !before & DRIVER_OK != 0 {
            self.poll();
        }
    }

    fn write_table(&mut self, offset: u64, width: Width, value: u64) {
        let entry = self.table.get_mut((offset / 16) as usize);
        let word = (offset / 4 % 4) as usize;
        match (entry, width) {
            (Some(entry), Width::Dword) if offset.is_multiple_of(4) => entry[word] = value as u32,
            (Some(entry), Width::Qword) if offset.is_multiple_of(8) => {
                entry[word] = value as u32;
                entry[word + 1] = (value >> 32) as u32;
            }
            _ => {}
        }
        self.send_pending();
    }

    /// Where the driver's access through configuration space goes.
    fn window(&self) -> Option<(u64, Width)> {
        let offset = u64::from(self.config.read(self.window + 8));
        let width = match self.config.read(self.window + 12) {
            1 => Width::Byte,
            2 => Width::Word,
            4 => Width::Dword,
            _ => return None,
        };
        let bar = self.config.byte(self.window + 4) == BAR;
        (bar && offset % width.bytes() == 0 && offset < BAR_LEN).then_some((offset, width))
    }
}

impl<D: VirtioDevice> BusDevice for VirtioPci<D> {
    fn read(&mut self, offset: u64, width: Width) -> u64 {
        let slice = |bytes: &[u8], at: u64| {
            let byte = |i: u64| bytes.get((at + i) as usize).copied().unwrap_or(0);
            (0..width.bytes()).fold(0, |value, i| value | u64::from(byte(i)) << (8 * i))
        };
        match offset {
            COMMON..STATUS => slice(&self.common(), offset),
            STATUS => {
                let isr = std::mem::take(&mut self.registers.isr);
                self.drive_line();
                isr.into()
            }
            DEVICE..NOTIFY => slice(&self.device.config(), offset - DEVICE),
            TABLE..PENDING => {
                let words = self.table.iter().flatten();
                let bytes: Vec<u8> = words.flat_map(|word| word.to_le_bytes()).collect();
                slice(&bytes, offset - TABLE)
            }
            PENDING..0x6000 => slice(&self.pending.to_le_bytes(), offset - PENDING),
            _ => 0,
        }
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) {
        match offset {
            COMMON..STATUS => self.write_common(offset, width, value),
            DEVICE..NOTIFY => {
                let bytes = &value.to_le_bytes()[..width.bytes() as usize];
                self.device.write_config(offset - DEVICE, bytes);
            }
            NOTIFY..TABLE => self.serve(((offset - NOTIFY) / u64::from(NOTIFY_STEP)) as usize),
            TABLE..PENDING => self.write_table(offset - TABLE, width, value),
            _ => {}
        }
    }
}

impl<D: VirtioDevice> PciFunction for VirtioPci<D> {
    fn read_config(&mut self, register: u8) -> u32 {
        if register == self.window + 16
            && let Some((offset, width)) = self.window()
        {
            return self.read(offset, width) as u32;
        }
        self.config.read(register)
    }

    fn write_config(&mut self, register: u8, value: u32, mask: u32) {
        if register == self.window + 16
            && let Some((offset, width)) = self.window()
        {
            return self.write(offset, width, u64::from(value) & width.ones());
        }
        self.config.write(register, value, mask);
        self.drive_line();
        self.send_pending();
    }

    fn mappings(&self) -> Vec<Mapping> {
        self.config.mappings()
    }
}
