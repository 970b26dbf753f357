//! What the machine is called and made of, for its guest's users: the tables of the SMBIOS
//! specification (DSP0134), version 2.8, with the 32-bit entry point.

use crate::cpu_model::CpuModel;
use metaphrase_frontend::Features;

/// The file of the structures in the configuration device.
pub(super) const TABLES: &str = "etc/smbios/smbios-tables";
/// The file of the entry point.
pub(super) const ANCHOR: &str = "etc/smbios/smbios-anchor";

/// Where the entry point goes without firmware, and the structures behind it.
pub(super) const BASE: u64 = 0xf_0000;
const STRUCTURES: u64 = BASE + 0x20;

/// A handle that names nothing.
const NONE: u16 = 0xffff;
/// A handle of error information that is not there.
const NO_ERRORS: u16 = 0xfffe;
/// The handle of the memory array.
const ARRAY: u16 = 0x1000;

/// The processor, as CPUID tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Processor {
    /// EAX of leaf 1.
    pub(super) signature: u32,
    /// EDX of leaf 1.
    pub(super) features: u32,
    /// It has 64-bit mode.
    pub(super) is_64_bit: bool,
    /// In MHz.
    pub(super) mhz: u16,
}

impl Processor {
    /// A model. Its clock is that of the time-stamp counter.
    pub(super) fn of(cpu: &CpuModel) -> Processor {
        let [signature, _, _, features] = cpu.cpuid(1, 0);
        Processor {
            signature,
            features,
            is_64_bit: cpu.features().has(Features::LM),
            mhz: 1000,
        }
    }
}

/// Structures, and the entry point to them.
pub(super) struct Smbios {
    structures: Vec<u8>,
    count: u16,
    longest: u16,
}

impl Smbios {
    /// The structures for a machine with that processor and that many bytes of RAM below 4 GiB.
    pub(super) fn new(cpu: Processor, ram: u64) -> Smbios {
        let mut t = Smbios {
            structures: Vec::new(),
            count: 0,
            longest: 0,
        };
        t.firmware();
        t.add(
            1,
            0x100,
            &system(),
            &["Metaphrase", "PC", env!("CARGO_PKG_VERSION")],
        );
        // Of another kind, in a safe state, security unknown.
        let chassis = [1, 1, 2, 0, 0, 3, 3, 3, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        t.add(3, 0x300, &chassis, &["Metaphrase", "PC"]);
        t.add(
            4,
            0x400,
            &processor(cpu),
            &["CPU 0", "Metaphrase", "virtual"],
        );
        t.memory(ram);
        // No error was found at boot.
        t.add(32, 0x2000, &[0; 7], &[]);
        t.add(127, 0x7f00, &[], &[]);
        t
    }

    fn add(&mut self, kind: u8, handle: u16, body: &[u8], strings: &[&str]) {
        let start = self.structures.len();
        self.structures.extend([kind, body.len() as u8 + 4]);
        self.structures.extend(handle.to_le_bytes());
        self.structures.extend(body);
        for text in strings {
            self.structures.extend(text.bytes());
            self.structures.push(0);
        }
        self.structures.push(0);
        if strings.is_empty() {
            self.structures.push(0);
        }
        self.count += 1;
        self.longest = self.longest.max((self.structures.len() - start) as u16);
    }

    fn firmware(&mut self) {
        // Vendor and version, segment E800h, the date, 64 KiB of ROM.
        let mut body = vec![1, 2, 0x00, 0xe8, 3, 0];
        // Its characteristics are not told, but for one: this is a virtual machine.
        body.extend(8u64.to_le_bytes());
        body.extend([0, 0x10, 0, 0, 0xff, 0xff]);
        self.add(
            0,
            0,
            &body,
            &["Metaphrase", env!("CARGO_PKG_VERSION"), "01/01/2025"],
        );
    }

    /// The array of memory, its one module, and where that is.
    fn memory(&mut self, ram: u64) {
        let (kib, mib) = ((ram >> 10) as u32, (ram >> 20) as u16);
        // Of another kind, system memory, no error correction.
        let mut array = vec![1, 3, 3];
        array.extend(kib.to_le_bytes());
        array.extend(NO_ERRORS.to_le_bytes());
        array.extend(1u16.to_le_bytes());
        array.extend(0u64.to_le_bytes());
        self.add(16, ARRAY, &array, &[]);

        let mut module: Vec<u8> = [ARRAY, NO_ERRORS, NONE, NONE, mib]
            .into_iter()
            .flat_map(u16::to_le_bytes)
            .collect();
        // A DIMM in no set, RAM of another kind, speed unknown.
        module.extend([9, 0, 1, 0, 7, 2, 0, 0, 0, 2, 0, 0, 0, 0]);
        module.extend([0; 6]);
        self.add(17, 0x1100, &module, &["DIMM 0", "Metaphrase"]);

        let mut mapped = 0u32.to_le_bytes().to_vec();
        mapped.extend((kib - 1).to_le_bytes());
        mapped.extend(ARRAY.to_le_bytes());
        mapped.push(1);
        mapped.extend([0; 16]);
        self.add(19, 0x1300, &mapped, &[]);
    }

    /// The structures.
    pub(super) fn structures(&self) -> &[u8] {
        &self.structures
    }

    /// The entry point to structures at an address; firmware writes the address itself.
    pub(super) fn anchor(&self, address: u32) -> Vec<u8> {
        let mut t = b"_SM_\0\x1f\x02\x08".to_vec();
        t.extend(self.longest.to_le_bytes());
        t.extend([0; 6]);
        t.extend(b"_DMI_\0");
        t.extend((self.structures.len() as u16).to_le_bytes());
        t.extend(address.to_le_bytes());
        t.extend(self.count.to_le_bytes());
        t.push(0x28);
        debug_assert_eq!(t.len(), 31);
        for (start, at) in [(0x10, 0x15), (0, 4)] {
            let sum = t[start..].iter().fold(0u8, |sum, b| sum.wrapping_add(*b));
            t[at] = sum.wrapping_neg();
        }
        t
    }

    /// All of it, to be put at [`BASE`] where there is no firmware.
    pub(super) fn image(&self) -> Vec<u8> {
        let mut image = self.anchor(STRUCTURES as u32);
        image.resize((STRUCTURES - BASE) as usize, 0);
        image.extend(&self.structures);
        image
    }
}

fn system() -> Vec<u8> {
    let mut body = vec![1, 2, 3, 0];
    // No identity of its own; switched on by the power switch.
    body.extend([0; 16]);
    body.extend([6, 0, 0]);
    body
}

fn processor(cpu: Processor) -> Vec<u8> {
    // A socket with a central processor of another family.
    let mut body = vec![1, 3, 1, 2];
    body.extend(cpu.signature.to_le_bytes());
    body.extend(cpu.features.to_le_bytes());
    body.extend([3, 0, 0, 0]);
    body.extend(cpu.mhz.to_le_bytes());
    body.extend(cpu.mhz.to_le_bytes());
    // Populated and enabled; not to be replaced. Its caches are not described.
    body.extend([0x41, 1]);
    body.extend([0xff; 6]);
    body.extend([0, 0, 0, 1, 1, 1]);
    body.extend((u16::from(cpu.is_64_bit) << 2).to_le_bytes());
    body.extend(1u16.to_le_bytes());
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_can_be_walked() {
        let cpu = Processor {
            signature: 0x6f0,
            features: 1,
            is_64_bit: true,
            mhz: 1000,
        };
        let smbios = Smbios::new(cpu, 256 << 20);
        let image = smbios.image();
        let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |sum, b| sum.wrapping_add(*b));
        assert_eq!((sum(&image[..31]), sum(&image[16..31])), (0, 0));
        let len = usize::from(u16::from_le_bytes([image[22], image[23]]));
        let address = u32::from_le_bytes(image[24..28].try_into().expect("four bytes"));
        let mut rest = &image[(u64::from(address) - BASE) as usize..];
        assert_eq!(rest.len(), len);
        let mut found = Vec::new();
        while !rest.is_empty() {
            // The lengths of the specification.
            found.push((rest[0], rest[1]));
            let strings = &rest[usize::from(rest[1])..];
            let end = strings
                .windows(2)
                .position(|w| w == [0, 0])
                .expect("an end");
            rest = &strings[end + 2..];
        }
        assert_eq!(
            found,
            [
                (0, 0x18),
                (1, 0x1b),
                (3, 0x16),
                (4, 0x2a),
                (16, 0x17),
                (17, 0x22),
                (19, 0x1f),
                (32, 0x0b),
                (127, 4)
            ]
        );
        assert_eq!(usize::from(image[28]), found.len());
    }
}
