//! Starting a bzImage by its 16-bit entry, through firmware.
//!
//! Firmware such as SeaBIOS knows nothing of kernels; but it runs option ROMs that it finds among the
//! files of the configuration device, and boots from one that says it can. So the parts of the kernel
//! become items of that device, and a ROM made here, which has the device write them to memory, jumps
//! to the kernel's real-mode code. Firmware that does know kernels finds them under the same numbers.

use super::error::BootError;
use super::format::Format;
use super::linux::{self, PARAMS, REAL_END};
use super::plan::Plan;
use super::{Kernel, decompress};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use metaphrase_devices::fw_cfg::{self, FwCfg};

/// RAM that firmware needs at the end of it, for its tables.
const FIRMWARE_RAM: u64 = 1 << 20;
/// The file with the ROM. Firmware looks for ROMs in this directory.
const ROM_FILE: &str = "genroms/kernel.bin";
/// What firmware boots from: that ROM.
const BOOT_ORDER: &str = "/rom@genroms/kernel.bin\n\0";

/// Items of the configuration device for each part, by address: where it goes, its length, itself.
const ITEMS: [[u16; 3]; 4] = [
    [
        fw_cfg::SETUP_ADDRESS,
        fw_cfg::SETUP_SIZE,
        fw_cfg::SETUP_DATA,
    ],
    [
        fw_cfg::COMMAND_LINE_ADDRESS,
        fw_cfg::COMMAND_LINE_SIZE,
        fw_cfg::COMMAND_LINE_DATA,
    ],
    [
        fw_cfg::KERNEL_ADDRESS,
        fw_cfg::KERNEL_SIZE,
        fw_cfg::KERNEL_DATA,
    ],
    [
        fw_cfg::INITRD_ADDRESS,
        fw_cfg::INITRD_SIZE,
        fw_cfg::INITRD_DATA,
    ],
];

/// A kernel that firmware starts.
#[derive(Clone, Debug)]
pub struct FirmwareKernel {
    /// Address and content of each part.
    parts: Vec<(u64, Vec<u8>)>,
    rom: Vec<u8>,
}

impl FirmwareKernel {
    /// Prepares a bzImage for a machine with that much RAM.
    ///
    /// # Errors
    /// If it is none, is damaged, or does not fit.
    pub fn new(ram: u64, kernel: &Kernel<'_>) -> Result<FirmwareKernel, BootError> {
        let file = decompress(kernel.image, ram)?;
        if Format::of(&file).map_err(BootError::Unknown)? != Format::Linux {
            return Err(BootError::NotThroughFirmware);
        }
        let mut plan = Plan::new(ram);
        let top = ram.saturating_sub(FIRMWARE_RAM);
        linux::plan_real(&mut plan, kernel, &file, top)?;
        let parts: Vec<_> = plan.parts().map(|(at, b)| (at, b.to_vec())).collect();
        let rom = rom(&parts).map_err(|_| BootError::NotThroughFirmware)?;
        Ok(FirmwareKernel { parts, rom })
    }

    /// Puts everything into the configuration device.
    pub fn offer(&self, settings: &mut FwCfg) {
        for ((at, bytes), [address, size, data]) in self.parts.iter().zip(ITEMS) {
            settings.set(address, (*at as u32).to_le_bytes());
            settings.set(size, (bytes.len() as u32).to_le_bytes());
            settings.set(data, &bytes[..]);
        }
        settings.add_file(ROM_FILE, &self.rom[..]);
        settings.add_file("bootorder", BOOT_ORDER);
    }
}

/// Offsets in an option ROM, and of its header for plug and play (Plug and Play BIOS specification,
/// 3.2).
const INIT: usize = 3;
const HEADER_POINTER: usize = 0x1a;
const HEADER: usize = 0x20;
const PRODUCT: usize = 0x40;
const REQUESTS: usize = 0x60;
const START: usize = 0xa0;
const BLOCK: usize = 512;

/// The option ROM: a request to the configuration device for each part, and the code.
fn rom(parts: &[(u64, Vec<u8>)]) -> Result<Vec<u8>, IcedError> {
    /// Select and read.
    const COMMAND: u32 = 0x0a;
    let mut rom = vec![0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| rom[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &[0x55, 0xaa, 1]);
    // Initialisation: there is none. A far return.
    put(INIT, &[0xcb]);
    put(HEADER_POINTER, &(HEADER as u16).to_le_bytes());
    put(PRODUCT, b"Linux kernel\0");
    let mut header = [0; 32];
    header[..6].copy_from_slice(b"$PnP\x01\x02");
    header[0x10..0x12].copy_from_slice(&(PRODUCT as u16).to_le_bytes());
    // The boot entry vector.
    header[0x1a..0x1c].copy_from_slice(&(START as u16).to_le_bytes());
    header[9] = complement(&header);
    put(HEADER, &header);
    let mut count = 0;
    for ((at, bytes), [_, _, item]) in parts.iter().zip(ITEMS) {
        let from = REQUESTS + 16 * usize::from(count);
        put(from, &(u32::from(item) << 16 | COMMAND).to_be_bytes());
        put(from + 4, &(bytes.len() as u32).to_be_bytes());
        put(from + 8, &at.to_be_bytes());
        count += 1;
    }
    let code = code(count)?;
    put(START, &code);
    rom[BLOCK - 1] = complement(&rom);
    Ok(rom)
}

/// What makes the sum of all bytes 0.
fn complement(bytes: &[u8]) -> u8 {
    let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    sum.wrapping_neg()
}

/// The code of the boot entry vector. Each request is copied to low memory, since the device answers
/// in its first doubleword; the device's numbers have their most significant byte first.
fn code(count: u16) -> Result<Vec<u8>, IcedError> {
    const REQUEST: u16 = 0x7000;
    const SEGMENT: u16 = (PARAMS >> 4) as u16;
    let mut a = CodeAssembler::new(16)?;
    let mut next = a.create_label();
    let mut wait = a.create_label();
    a.cli()?;
    a.cld()?;
    a.xor(ax, ax)?;
    a.mov(es, ax)?;
    a.mov(ss, ax)?;
    a.mov(sp, u32::from(REQUEST))?;
    a.push(cs)?;
    a.pop(ds)?;
    a.mov(si, REQUESTS as u32)?;
    a.mov(bx, u32::from(count))?;
    a.set_label(&mut next)?;
    a.mov(di, u32::from(REQUEST))?;
    a.mov(cx, 8)?;
    a.rep().movsw()?;
    a.mov(dx, u32::from(fw_cfg::BASE) + 8)?;
    a.mov(eax, u32::from(REQUEST).swap_bytes())?;
    a.out(dx, eax)?;
    a.set_label(&mut wait)?;
    a.mov(eax, dword_ptr(u64::from(REQUEST)).es())?;
    // All but the error bit.
    a.test(eax, !1u32.swap_bytes())?;
    a.jnz(wait)?;
    a.dec(bx)?;
    a.jnz(next)?;
    a.mov(ax, u32::from(SEGMENT))?;
    a.mov(ds, ax)?;
    a.mov(es, ax)?;
    a.mov(fs, ax)?;
    a.mov(gs, ax)?;
    a.mov(ss, ax)?;
    a.mov(sp, u32::from(REAL_END))?;
    // The real-mode code begins behind its first sector: a far jump to it.
    let mut code = a.assemble(START as u64)?;
    code.push(0xea);
    code.extend([0, 0]);
    code.extend((SEGMENT + 0x20).to_le_bytes());
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rom_is_one_that_firmware_accepts() {
        let parts = [(PARAMS, vec![1, 2, 3]), (0x2_0000, vec![0])];
        let rom = rom(&parts).expect("a ROM");
        assert_eq!(rom.len(), BLOCK);
        assert_eq!(complement(&rom), 0);
        assert_eq!(complement(&rom[HEADER..HEADER + 32]), 0);
        assert_eq!(rom[REQUESTS..REQUESTS + 8], [0, 0x18, 0, 0x0a, 0, 0, 0, 3]);
    }
}
