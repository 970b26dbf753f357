//! The PCI devices of the board: those of the chipset, and cards in its slots.

use super::chipset::{Ranges, VIDEO};
use super::config::{Display, Drive, Seat};
use super::irqs::pin_a;
use super::{PcError, Site};
use metaphrase_devices::acpi_pm::AcpiPm;
use metaphrase_devices::floppy::Floppy;
use metaphrase_devices::i440fx::I440fx;
use metaphrase_devices::ide::{self, Ide};
use metaphrase_devices::pci::{PciAddress, PciHost, ROM_INDEX};
use metaphrase_devices::piix::{IsaBridge, PowerFunction};
use metaphrase_devices::vga::{self, Vga};
use metaphrase_devices::virtio::{self, Blk, VirtioDevice, VirtioPci};
use metaphrase_devices::{Bus, QuietAccess, Shared, quiet};
use std::collections::BTreeMap;

/// The host bridge.
pub(super) const HOST_BRIDGE: PciAddress = PciAddress::new(0, 0);
/// The ISA bridge.
pub(super) const ISA_BRIDGE: PciAddress = PciAddress::new(1, 0);
/// The IDE controller.
const IDE: PciAddress = PciAddress::new(1, 1);
/// Power management.
const POWER: PciAddress = PciAddress::new(1, 3);
/// The first slot for cards. There are 29 more.
const FIRST: u8 = 2;

/// The devices so far.
pub(super) struct Slots {
    pub(super) host: Shared<PciHost>,
    pub(super) ranges: BTreeMap<PciAddress, Ranges>,
    pub(super) resets: Vec<Box<dyn FnMut() + Send>>,
    router: Shared<IsaBridge>,
    next: u8,
    /// Disks so far, for their serial numbers.
    disks: u32,
}

impl Slots {
    pub(super) fn new(site: &Site, bridge: Shared<I440fx>, router: Shared<IsaBridge>) -> Slots {
        let host = Shared::new(PciHost::new(site.pins.reset_line()));
        host.lock().add(HOST_BRIDGE, Box::new(bridge));
        host.lock().add(ISA_BRIDGE, Box::new(router.clone()));
        Slots {
            host,
            ranges: BTreeMap::new(),
            resets: Vec::new(),
            router,
            next: FIRST,
            disks: 0,
        }
    }

    pub(super) fn add_power(&mut self, pm: Shared<AcpiPm>, power: Shared<PowerFunction>) {
        self.host.lock().add(POWER, Box::new(power));
        let ranges: Ranges =
            Box::new(move |_| Some(quiet(QuietAccess::Reads, Box::new(pm.clone()))));
        self.ranges.insert(POWER, ranges);
    }

    /// The IDE controller, with its ports.
    pub(super) fn add_ide(&mut self, site: &Site, ports: &mut Bus) -> Result<Shared<Ide>, PcError> {
        let lines = [site.irqs.line(14), site.irqs.line(15)];
        let ide = Shared::new(Ide::new(site.master(), lines));
        for n in 0..2 {
            let (command, control) = (ide::COMMAND_BLOCKS[n], ide::CONTROL_BLOCKS[n]);
            let block = quiet(QuietAccess::All, ide.command_block(n));
            ports.attach(command.into(), ide::COMMAND_PORTS, "IDE", block)?;
            ports.attach(
                control.into(),
                1,
                "IDE",
                quiet(QuietAccess::All, ide.control_block(n)),
            )?;
        }
        self.host.lock().add(IDE, Box::new(ide.clone()));
        let master = ide.clone();
        let ranges: Ranges = Box::new(move |_| Some(quiet(QuietAccess::All, master.bus_master())));
        self.ranges.insert(IDE, ranges);
        let reset = ide.clone();
        self.resets.push(Box::new(move || reset.lock().reset()));
        Ok(ide)
    }

    /// The number of the next free slot.
    fn slot(&mut self) -> Result<PciAddress, PcError> {
        let device = self.next;
        self.next += 1;
        if device > 30 {
            return Err(PcError::Slots);
        }
        Ok(PciAddress::new(device, 0))
    }

    /// The display adapter, with the addresses that every VGA has.
    pub(super) fn add_display(
        &mut self,
        site: &Site,
        ports: &mut Bus,
        display: Display,
    ) -> Result<Shared<Vga>, PcError> {
        let at = self.slot()?;
        let vga = Vga::new(site.time.clone(), display.memory, display.rom);
        let vga = Shared::new(vga);
        ports.attach(
            vga::BASE.into(),
            vga::PORTS,
            "VGA",
            quiet(QuietAccess::All, vga.port(vga::BASE)),
        )?;
        let (dispi, len) = (vga::DISPI_PORT, vga::DISPI_PORTS);
        ports.attach(
            dispi.into(),
            len,
            "DISPI",
            quiet(QuietAccess::All, vga.dispi()),
        )?;
        let mut mmio = site.memory.mmio();
        mmio.attach(VIDEO.0, VIDEO.1, "VGA", vga.window())?;
        self.host.lock().add(at, Box::new(vga.clone()));
        let views = vga.clone();
        let ranges: Ranges = Box::new(move |bar| match bar {
            vga::FRAME_BUFFER_BAR => Some(views.frame_buffer()),
            ROM_INDEX => Some(views.rom()),
            _ => None,
        });
        self.ranges.insert(at, ranges);
        let reset = vga.clone();
        self.resets.push(Box::new(move || reset.lock().reset()));
        Ok(vga)
    }

    /// A virtio device in the next slot.
    pub(super) fn add_virtio<D: VirtioDevice + 'static>(
        &mut self,
        site: &Site,
        device: D,
    ) -> Result<Shared<VirtioPci<D>>, PcError> {
        let at = self.slot()?;
        let pin = pin_a(&self.router, at.device);
        let device = VirtioPci::new(device, site.master(), pin, site.irqs.messages());
        let device = Shared::new(device);
        self.host.lock().add(at, Box::new(device.clone()));
        let registers = device.clone();
        let ranges: Ranges = Box::new(move |bar| match bar {
            virtio::BAR => Some(Box::new(registers.clone())),
            _ => None,
        });
        self.ranges.insert(at, ranges);
        let reset = device.clone();
        self.resets.push(Box::new(move || reset.lock().reset()));
        Ok(device)
    }

    /// The serial number of the next disk.
    fn serial_number(&mut self) -> String {
        self.disks += 1;
        format!("MP{:05}", self.disks)
    }

    /// Connects a drive.
    pub(super) fn connect(
        &mut self,
        site: &Site,
        ide: &Shared<Ide>,
        floppy: &Shared<Floppy>,
        drive: Drive,
    ) -> Result<(), PcError> {
        let (seat, medium) = (drive.seat, drive.medium);
        let serial = self.serial_number();
        let fits = match (seat, medium) {
            (Seat::IdeDisk { channel, unit }, Some(disk)) => {
                ide.lock()
                    .add_disk(channel.into(), unit.into(), disk, &serial)
            }
            (Seat::IdeCd { channel, unit }, disc) => {
                ide.lock()
                    .add_cd(channel.into(), unit.into(), disc, &serial)
            }
            (Seat::Floppy(unit), disk) => floppy.lock().add_drive(unit.into(), disk),
            (Seat::Virtio, Some(disk)) => {
                self.add_virtio(site, Blk::new(disk, &serial))?;
                true
            }
            (Seat::IdeDisk { .. } | Seat::Virtio, None) => false,
        };
        if fits {
            Ok(())
        } else {
            Err(PcError::Drive(seat))
        }
    }
}
