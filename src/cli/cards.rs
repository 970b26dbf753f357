//! The cards in the PC's slots: display adapter and virtio devices.

use super::Failure;
use super::messages::say;
use super::system::read;
use clap::{Args, ValueEnum};
use metaphrase_runtime::machine::pc::{Display, PcConfig};
use std::path::{Path, PathBuf};

/// Arguments for cards.
#[derive(Clone, Debug, Args)]
pub struct CardArgs {
    /// The display adapter (`-vga`).
    #[arg(long, value_enum, default_value = "std", help_heading = "Cards")]
    pub vga: VgaArg,
    /// The option ROM of the display adapter; by default `vgabios-stdvga.bin` beside the firmware,
    /// or one of the SeaBIOS that is installed.
    #[arg(long, value_name = "FILE", help_heading = "Cards")]
    pub vga_rom: Option<PathBuf>,
    /// A further card; may be repeated (`-device`).
    #[arg(long, value_enum, value_name = "CARD", help_heading = "Cards")]
    pub device: Vec<CardArg>,
}

/// A display adapter.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum VgaArg {
    /// A VGA with the Bochs display interface.
    Std,
    /// None.
    None,
}

/// A card.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum CardArg {
    /// A source of randomness.
    VirtioRngPci,
    /// A memory balloon.
    VirtioBalloonPci,
}

/// The name of the option ROM, and where Debian's SeaBIOS has it.
const ROM: &str = "vgabios-stdvga.bin";
const INSTALLED: &str = "/usr/share/seabios";

impl CardArgs {
    /// Puts the cards into a PC; `firmware` is the file of the firmware, if there is one. The
    /// display is `shown` somewhere.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn add_to(
        &self,
        config: &mut PcConfig,
        firmware: Option<&Path>,
        shown: bool,
    ) -> Result<(), Failure> {
        if self.vga == VgaArg::Std {
            let rom = match (&self.vga_rom, firmware) {
                (Some(path), _) => read(path)?,
                (None, Some(firmware)) => default_rom(firmware, shown),
                // Nobody would run it.
                (None, None) => Vec::new(),
            };
            config.display = Some(Display::new(rom));
        }
        for card in &self.device {
            match card {
                CardArg::VirtioRngPci => config.entropy = Some(Box::new(host_random)),
                CardArg::VirtioBalloonPci => config.balloon = true,
            }
        }
        Ok(())
    }
}

/// The option ROM that comes with the firmware. Without one the display works, but a BIOS shows
/// nothing on it, which whoever looks at it is told.
fn default_rom(firmware: &Path, shown: bool) -> Vec<u8> {
    let beside = firmware.with_file_name(ROM);
    let installed = Path::new(INSTALLED).join(ROM);
    let found = [beside, installed]
        .into_iter()
        .find_map(|path| std::fs::read(path).ok());
    if found.is_none() && shown {
        say!(
            "metaphrase: there is no {ROM} beside the firmware or in {INSTALLED}: a BIOS shows \
             nothing on the screen without it (--vga-rom FILE names one; Ctrl-A x ends)"
        );
    }
    found.unwrap_or_default()
}

/// Random bytes of the host.
fn host_random(into: &mut [u8]) {
    let mut rest = into;
    while !rest.is_empty() {
        match rustix::rand::getrandom(&mut *rest, rustix::rand::GetRandomFlags::empty()) {
            Ok(n) => rest = &mut rest[n..],
            Err(rustix::io::Errno::INTR) => {}
            // No Linux refuses; what is left stays as the driver gave it.
            Err(_) => return,
        }
    }
}
