//! The host bridge of a PC: Intel 82441FX (datasheet 290549), as the PCI function 0:0.0. What
//! matters of it: the PAM registers, which put RAM behind the ROM addresses from C0000h to FFFFFh
//! (shadowing), and SMRAM, which hides RAM behind the video memory.
//!
//! The bridge keeps the registers and says what they mean; the machine maps memory accordingly,
//! after each access for which [`I440fx::take_changed`] is true. DRAM timing, error checking and
//! the aperture registers are only stored, as far as firmware reads them back.

use crate::pci::{ConfigSpace, ConfigState, Mapping, PciFunction};

const PAM: u8 = 0x59;
const SMRAM: u8 = 0x72;

const PAM_READ: u8 = 1;
const PAM_WRITE: u8 = 2;

const SMRAM_OPEN: u8 = 0x40;
const SMRAM_CLOSED: u8 = 0x20;
const SMRAM_LOCKED: u8 = 0x10;
const SMRAM_ENABLED: u8 = 0x08;
/// The only segment there is: A0000h to BFFFFh.
const SMRAM_SEGMENT: u8 = 0x02;

/// How many ranges can be shadowed.
pub const SHADOWS: usize = 13;

/// Where accesses to a range of ROM addresses go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shadow {
    /// First address.
    pub start: u64,
    /// Length.
    pub len: u64,
    /// Reads go to RAM, not to the ROM.
    pub read_ram: bool,
    /// Writes go to RAM; else they are lost.
    pub write_ram: bool,
}

/// Who sees the RAM behind the video memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Smram {
    /// There is SMRAM at all.
    pub enabled: bool,
    /// Everybody sees it, not only system management mode.
    pub open: bool,
    /// In system management mode, data accesses go to the video memory all the same.
    pub closed: bool,
}

/// The host bridge.
#[derive(Clone, Debug)]
pub struct I440fx {
    config: ConfigSpace,
    changed: bool,
}

impl Default for I440fx {
    fn default() -> I440fx {
        I440fx::new()
    }
}

impl I440fx {
    /// After reset: nothing is shadowed.
    pub fn new() -> I440fx {
        let mut config = ConfigSpace::new(0x8086, 0x1237, 0x06_0000, 2);
        // By this, firmware for virtual machines knows that it is in one, and asks fw_cfg.
        config.set_subsystem(0x1af4, 0x1100);
        // Configuration, DRAM control and timing; PAM; DRAM row boundaries; error registers.
        config.set_writable(0x50, &[0xff; 9]);
        config.set_writable(PAM, &[0x33; 7]);
        config.set_writable(PAM, &[0x30]);
        config.set_writable(0x60, &[0xff; 8]);
        config.set_writable(SMRAM, &[0x78]);
        config.set_writable(0x90, &[0xff; 2]);
        config.set(SMRAM, &[SMRAM_SEGMENT]);
        I440fx {
            config,
            changed: true,
        }
    }

    /// Back to the state after reset, but for a change that the machine is told of.
    pub fn reset(&mut self) {
        *self = I440fx::new();
    }

    /// Whether memory may have to be mapped otherwise than when this was last asked.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// The ranges from C0000h up, without gaps: twelve of 16 KiB, and the last 64 KiB.
    pub fn shadows(&self) -> [Shadow; SHADOWS] {
        std::array::from_fn(|i| {
            // The upper half of the first register is for the last range; then low half first.
            let (register, shift, start, len) = match i {
                12 => (PAM, 4, 0xf_0000, 0x1_0000),
                _ => (
                    PAM + 1 + i as u8 / 2,
                    4 * (i & 1),
                    0xc_0000 + i as u64 * 0x4000,
                    0x4000,
                ),
            };
            let bits = self.config.byte(register) >> shift;
            Shadow {
                start,
                len,
                read_ram: bits & PAM_READ != 0,
                write_ram: bits & PAM_WRITE != 0,
            }
        })
    }

    /// What the SMRAM register says.
    pub fn smram(&self) -> Smram {
        let bits = self.config.byte(SMRAM);
        Smram {
            enabled: bits & SMRAM_ENABLED != 0,
            open: bits & SMRAM_OPEN != 0,
            closed: bits & SMRAM_CLOSED != 0,
        }
    }

    /// The state.
    pub fn save(&self) -> ConfigState {
        self.config.save()
    }

    /// Takes over a state.
    pub fn restore(&mut self, state: &ConfigState) {
        self.config.restore(state);
        self.changed = true;
    }
}

impl PciFunction for I440fx {
    fn read_config(&mut self, register: u8) -> u32 {
        self.config.read(register)
    }

    fn write_config(&mut self, register: u8, value: u32, mask: u32) {
        let before = (self.shadows(), self.smram());
        let smram = self.config.byte(SMRAM);
        self.config.write(register, value, mask);
        if smram & SMRAM_LOCKED != 0 {
            self.config.set(SMRAM, &[smram]);
        } else if self.config.byte(SMRAM) & SMRAM_LOCKED != 0 {
            // Locking closes what was open, until reset.
            let locked = self.config.byte(SMRAM) & !SMRAM_OPEN;
            self.config.set(SMRAM, &[locked]);
        }
        self.changed |= before != (self.shadows(), self.smram());
    }

    fn mappings(&self) -> Vec<Mapping> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, round_trip};

    fn write(bridge: &mut I440fx, register: u8, value: u8) {
        let shift = 8 * u32::from(register & 3);
        let value = u32::from(value) << shift;
        bridge.write_config(register & 0xfc, value, 0xff << shift);
    }

    fn shadowed(bridge: &I440fx) -> Vec<(u64, u64, bool, bool)> {
        let all = bridge.shadows();
        all.iter()
            .filter(|s| s.read_ram || s.write_ram)
            .map(|s| (s.start, s.len, s.read_ram, s.write_ram))
            .collect()
    }

    #[test]
    fn ranges_are_shadowed_one_by_one() {
        let mut bridge = I440fx::new();
        assert_eq!(bridge.read_config(0), 0x1237_8086);
        assert!(bridge.take_changed() && !bridge.take_changed());
        assert_eq!(shadowed(&bridge), []);
        write(&mut bridge, 0x59, 0xff);
        assert!(bridge.take_changed());
        assert_eq!(shadowed(&bridge), [(0xf_0000, 0x1_0000, true, true)]);
        write(&mut bridge, 0x59, 0x00);
        write(&mut bridge, 0x5a, 0x21);
        write(&mut bridge, 0x5f, 0x30);
        assert_eq!(
            shadowed(&bridge),
            [
                (0xc_0000, 0x4000, true, false),
                (0xc_4000, 0x4000, false, true),
                (0xe_c000, 0x4000, true, true),
            ]
        );
        bridge.take_changed();
        write(&mut bridge, 0x5f, 0xf0);
        write(&mut bridge, 0x57, 0x01);
        assert!(!bridge.take_changed(), "nothing new");
    }

    #[test]
    fn ranges_lie_side_by_side() {
        let mut next = 0xc_0000;
        for shadow in I440fx::new().shadows() {
            assert_eq!(shadow.start, next);
            next += shadow.len;
        }
        assert_eq!(next, 0x10_0000);
    }

    #[test]
    fn smram_opens_until_it_is_locked() {
        let mut bridge = I440fx::new();
        assert_eq!(bridge.config.byte(SMRAM), 0x02);
        write(&mut bridge, SMRAM, 0x48);
        let smram = bridge.smram();
        assert!(smram.enabled && smram.open && !smram.closed);
        write(&mut bridge, SMRAM, 0x58);
        assert!(bridge.smram().enabled && !bridge.smram().open);
        bridge.take_changed();
        write(&mut bridge, SMRAM, 0x40);
        assert_eq!(bridge.config.byte(SMRAM), 0x1a);
        assert!(!bridge.take_changed());
        bridge.reset();
        assert!(!bridge.smram().enabled && bridge.take_changed());
    }

    #[test]
    fn survives_a_storm_and_a_round_trip() {
        let mut random = Random::new(14);
        let mut bridge = I440fx::new();
        for _ in 0..100_000 {
            let register = random.next() as u8 & 0xfc;
            bridge.write_config(register, random.next() as u32, random.next() as u32);
            bridge.read_config(random.next() as u8 & 0xfc);
        }
        let mut other = I440fx::new();
        other.restore(&round_trip(&bridge.save()));
        assert_eq!(other.shadows(), bridge.shadows());
        assert_eq!(other.smram(), bridge.smram());
    }
}
