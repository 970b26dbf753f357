//! Disks, discs and floppies: QEMU's options for them, and the images behind.

use super::messages::say;
use super::{Failure, exit};
use clap::Args;
use metaphrase_devices::BlockBackend;
use metaphrase_devices::image::{self, Cache, Format, ImageError, ImageOptions};
use metaphrase_runtime::machine::pc::{BootFrom, PcConfig, Seat};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::Arc;

/// Arguments about drives.
#[derive(Debug, Default, Args)]
pub struct DriveArgs {
    /// The first IDE disk: a raw or qcow2 image, which the guest may write (`-hda`).
    #[arg(long, value_name = "FILE", help_heading = "Drives")]
    pub hda: Option<PathBuf>,
    /// The second IDE disk (`-hdb`).
    #[arg(long, value_name = "FILE", help_heading = "Drives")]
    pub hdb: Option<PathBuf>,
    /// The third IDE disk (`-hdc`).
    #[arg(long, value_name = "FILE", help_heading = "Drives")]
    pub hdc: Option<PathBuf>,
    /// The fourth IDE disk (`-hdd`).
    #[arg(long, value_name = "FILE", help_heading = "Drives")]
    pub hdd: Option<PathBuf>,
    /// The first floppy disk (`-fda`).
    #[arg(long, value_name = "FILE", help_heading = "Drives")]
    pub fda: Option<PathBuf>,
    /// The second floppy disk (`-fdb`).
    #[arg(long, value_name = "FILE", help_heading = "Drives")]
    pub fdb: Option<PathBuf>,
    /// The disc in the IDE CD-ROM drive, which takes the place of the third disk: an ISO image
    /// (`-cdrom`).
    #[arg(long, value_name = "FILE", help_heading = "Drives")]
    pub cdrom: Option<PathBuf>,
    /// A drive: `file=FILE,if=ide|virtio|floppy,index=N,bus=N,unit=N,media=disk|cdrom,
    /// format=raw|qcow2,readonly=on|off,snapshot=on|off,cache=writeback|writethrough|none|unsafe`
    /// (`-drive`); may be repeated. A comma in a name is written twice.
    #[arg(long, value_name = "OPTIONS", help_heading = "Drives")]
    pub drive: Vec<OsString>,
    /// Write no image: what the guest writes goes to temporary files and is gone at the end
    /// (`-snapshot`).
    #[arg(long, help_heading = "Drives")]
    pub snapshot: bool,
    /// What to boot from: letters a, c, d, n in order, or `order=LETTERS,once=LETTERS,menu=on|off`
    /// (`-boot`).
    #[arg(long, value_name = "OPTIONS", value_parser = boot, help_heading = "Drives")]
    pub boot: Option<Boot>,
}

/// What a drive hangs on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interface {
    /// The two IDE channels, with two drives each.
    Ide,
    /// A PCI device of its own.
    Virtio,
    /// The floppy disk controller.
    Floppy,
}

impl Interface {
    /// How many drives there can be.
    fn places(self) -> usize {
        match self {
            Interface::Ide => 4,
            Interface::Virtio => 16,
            Interface::Floppy => 2,
        }
    }
}

/// A drive that the command line asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Drive {
    /// What it hangs on.
    pub interface: Interface,
    /// Its place there; of IDE drives, two to a channel.
    pub index: usize,
    /// It is a CD-ROM drive.
    pub cdrom: bool,
    /// The image.
    pub file: PathBuf,
    format: Option<Format>,
    read_only: bool,
    snapshot: bool,
    cache: Cache,
}

/// What firmware boots from.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Boot {
    /// In that order: `a` floppy, `c` disk, `d` disc, `n` network.
    pub order: String,
    /// The same, the first time only.
    pub once: String,
    /// Show a menu.
    pub menu: bool,
}

/// The parts between commas; two commas are one in a part.
fn parts(text: &OsStr) -> Vec<OsString> {
    let mut parts = vec![Vec::new()];
    let mut bytes = text.as_bytes().iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte != b',' || bytes.next_if_eq(&b',').is_some() {
            parts.last_mut().expect("there is one").push(byte);
        } else {
            parts.push(Vec::new());
        }
    }
    parts.into_iter().map(OsString::from_vec).collect()
}

fn switch(name: &str, value: &str) -> Result<bool, String> {
    match value {
        "on" | "yes" | "true" => Ok(true),
        "off" | "no" | "false" => Ok(false),
        _ => Err(format!("{name}={value}: on or off is wanted")),
    }
}

fn number(name: &str, value: &str) -> Result<usize, String> {
    value
        .parse()
        .map_err(|_| format!("{name}={value}: a number is wanted"))
}

/// The argument of `-boot`.
fn boot(text: &str) -> Result<Boot, String> {
    let letters = |text: &str| -> Result<String, String> {
        let known = text.chars().all(|c| "acdn".contains(c));
        let once = text
            .chars()
            .enumerate()
            .all(|(i, c)| text.find(c) == Some(i));
        if text.is_empty() || !known || !once {
            return Err(format!(
                "{text}: letters out of a, c, d and n are wanted, each once"
            ));
        }
        Ok(text.into())
    };
    let mut boot = Boot::default();
    for part in text.split(',') {
        match part.split_once('=') {
            None | Some(("order", _)) => {
                boot.order = letters(part.strip_prefix("order=").unwrap_or(part))?;
            }
            Some(("once", value)) => boot.once = letters(value)?,
            Some(("menu", value)) => boot.menu = switch("menu", value)?,
            Some((name, _)) => return Err(format!("{name}: order, once and menu are known")),
        }
    }
    Ok(boot)
}

/// What `-drive` says; the place may still be open.
fn drive(text: &OsStr) -> Result<(Drive, Option<usize>), String> {
    let mut file = None;
    let (mut index, mut bus, mut unit) = (None, None, None);
    let mut drive = Drive {
        interface: Interface::Ide,
        index: 0,
        cdrom: false,
        file: PathBuf::new(),
        format: None,
        read_only: false,
        snapshot: false,
        cache: Cache::Writeback,
    };
    for part in parts(text) {
        let equals = part.as_bytes().iter().position(|byte| *byte == b'=');
        let (name, value) = part.as_bytes().split_at(equals.unwrap_or(part.len()));
        let name = String::from_utf8_lossy(name).into_owned();
        let raw = OsStr::from_bytes(value.get(1..).unwrap_or_default());
        let value = &*raw.to_string_lossy();
        match &*name {
            _ if equals.is_none() => return Err(format!("{name}: name=value is wanted")),
            "file" => file = Some(PathBuf::from(raw)),
            "if" => {
                drive.interface = match value {
                    "ide" => Interface::Ide,
                    "virtio" => Interface::Virtio,
                    "floppy" => Interface::Floppy,
                    _ => return Err(format!("if={value}: ide, virtio and floppy are known")),
                }
            }
            "index" => index = Some(number(&name, value)?),
            "bus" => bus = Some(number(&name, value)?),
            "unit" => unit = Some(number(&name, value)?),
            "media" => {
                drive.cdrom = match value {
                    "disk" => false,
                    "cdrom" => true,
                    _ => return Err(format!("media={value}: disk and cdrom are known")),
                }
            }
            "format" => drive.format = Some(value.parse()?),
            "readonly" | "read-only" => drive.read_only = switch(&name, value)?,
            "snapshot" => drive.snapshot = switch(&name, value)?,
            "cache" => {
                drive.cache = match value {
                    "writeback" | "none" => Cache::Writeback,
                    "writethrough" | "directsync" => Cache::Writethrough,
                    "unsafe" => Cache::Unsafe,
                    _ => {
                        return Err(format!(
                            "cache={value}: writeback, writethrough, none and unsafe are known"
                        ));
                    }
                }
            }
            _ => {
                return Err(format!(
                    "{name}: file, if, index, bus, unit, media, format, readonly, snapshot and \
                     cache are known"
                ));
            }
        }
    }
    drive.file = file.ok_or("file=FILE is missing")?;
    if drive.cdrom && drive.interface != Interface::Ide {
        return Err("media=cdrom is there for if=ide".into());
    }
    if bus.is_some() || unit.is_some() {
        if index.is_some() {
            return Err("index, or bus and unit".into());
        }
        let units = if drive.interface == Interface::Ide {
            2
        } else {
            drive.interface.places()
        };
        let unit = unit.unwrap_or(0);
        if unit >= units {
            return Err(format!("unit={unit}: a bus has {units}"));
        }
        index = bus
            .unwrap_or(0)
            .checked_mul(units)
            .and_then(|n| n.checked_add(unit));
        index = Some(index.unwrap_or(usize::MAX));
    }
    Ok((drive, index))
}

impl DriveArgs {
    /// The drives, each in a place of its own.
    ///
    /// # Errors
    /// If they make no sense together.
    pub fn drives(&self) -> Result<Vec<Drive>, Failure> {
        use Interface::{Floppy, Ide};
        let named = [
            (&self.hda, Ide, 0, false),
            (&self.hdb, Ide, 1, false),
            (&self.hdc, Ide, 2, false),
            (&self.hdd, Ide, 3, false),
            (&self.fda, Floppy, 0, false),
            (&self.fdb, Floppy, 1, false),
            (&self.cdrom, Ide, 2, true),
        ];
        let named = named
            .into_iter()
            .filter_map(|(file, interface, index, cdrom)| {
                let file = file.clone()?;
                let drive = Drive {
                    interface,
                    index,
                    cdrom,
                    file,
                    format: None,
                    read_only: false,
                    snapshot: false,
                    cache: Cache::Writeback,
                };
                Some((drive, Some(index)))
            });
        let mut all: Vec<_> = named.collect();
        for text in &self.drive {
            all.push(drive(text).map_err(|why| Failure::usage(format!("--drive: {why}")))?);
        }
        let mut drives: Vec<Drive> = Vec::new();
        // Those with a place first, so that the others find what is left.
        let (placed, open): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, at)| at.is_some());
        for (mut drive, index) in placed.into_iter().chain(open) {
            let interface = drive.interface;
            let is_free = |index: &usize| {
                let taken = |other: &Drive| other.interface == interface && other.index == *index;
                !drives.iter().any(taken)
            };
            let index = match index {
                Some(index) => Some(index).filter(|n| *n < interface.places() && is_free(n)),
                None => (0..interface.places()).find(is_free),
            };
            drive.index = index.ok_or_else(|| {
                Failure::usage(format!(
                    "{}: there is no place for this drive, or another drive has it",
                    drive.file.display()
                ))
            })?;
            drive.snapshot |= self.snapshot;
            drives.push(drive);
        }
        Ok(drives)
    }

    /// Puts the drives into a PC, with their images, and says what it boots from.
    ///
    /// # Errors
    /// If they make no sense, or an image cannot be used.
    pub fn connect(&self, config: &mut PcConfig) -> Result<(), Failure> {
        let mut drives = self.drives()?;
        // Those without numbers of their own are counted.
        drives.sort_by_key(|drive| drive.index);
        for drive in drives {
            let (channel, unit) = (drive.index as u8 / 2, drive.index as u8 % 2);
            let seat = match drive.interface {
                Interface::Ide if drive.cdrom => Seat::IdeCd { channel, unit },
                Interface::Ide => Seat::IdeDisk { channel, unit },
                Interface::Floppy => Seat::Floppy(drive.index as u8),
                Interface::Virtio => Seat::Virtio,
            };
            config.add_drive(seat, drive.open()?);
        }
        if let Some(boot) = &self.boot {
            if !boot.order.is_empty() {
                config.boot_order = sources(&boot.order);
            }
            config.boot_once = sources(&boot.once);
            config.boot_menu = boot.menu;
        }
        Ok(())
    }
}

/// What letters stand for. Nothing boots from the network, so that letter changes nothing.
fn sources(letters: &str) -> Vec<BootFrom> {
    let source = |letter| match letter {
        'a' => Some(BootFrom::Floppy),
        'c' => Some(BootFrom::Disk),
        'd' => Some(BootFrom::Cd),
        _ => None,
    };
    letters.chars().filter_map(source).collect()
}

impl Drive {
    /// Opens the image.
    ///
    /// # Errors
    /// If it cannot be used.
    pub fn open(&self) -> Result<Box<dyn BlockBackend>, Failure> {
        let snapshot = self.snapshot.then(|| {
            let directory = std::env::var_os("TMPDIR").filter(|dir| !dir.is_empty());
            directory.map_or("/var/tmp".into(), PathBuf::from)
        });
        let options = ImageOptions {
            format: self.format,
            read_only: self.read_only || self.cdrom,
            snapshot,
            cache: self.cache,
            report: Arc::new(|text| say!("metaphrase: {text}")),
        };
        image::open(&self.file, &options).map_err(|error| unusable(&error))
    }
}

/// An image that cannot be used.
fn unusable(error: &ImageError) -> Failure {
    Failure {
        code: if error.is_not_found() {
            exit::NOT_FOUND
        } else {
            exit::CANNOT_RUN
        },
        message: error.to_string(),
        hint: error.hint().map(str::to_string),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(args: &DriveArgs) -> Vec<(Interface, usize, String)> {
        let drives = args.drives().expect("drives");
        let place = |d: Drive| (d.interface, d.index, d.file.display().to_string());
        drives.into_iter().map(place).collect()
    }

    fn given(drives: &[&str]) -> DriveArgs {
        DriveArgs {
            drive: drives.iter().map(OsString::from).collect(),
            ..DriveArgs::default()
        }
    }

    #[test]
    fn drives_find_their_places() {
        let mut args = given(&[
            "file=b",
            "file=c,if=virtio",
            "file=d,bus=1,unit=1,if=ide",
            "file=e,,f,if=floppy,readonly=on,cache=unsafe,format=raw",
            "file=g,if=virtio",
        ]);
        args.hda = Some("a".into());
        args.cdrom = Some("disc".into());
        use Interface::{Floppy, Ide, Virtio};
        let expected = [
            (Ide, 0, "a"),
            (Ide, 2, "disc"),
            (Ide, 3, "d"),
            (Ide, 1, "b"),
            (Virtio, 0, "c"),
            (Floppy, 0, "e,f"),
            (Virtio, 1, "g"),
        ];
        assert_eq!(
            places(&args),
            expected.map(|(i, n, f)| (i, n, f.to_string()))
        );
        let drives = args.drives().expect("drives");
        assert!(drives[1].cdrom && !drives[0].cdrom);
        assert!(drives[5].read_only && drives[5].format == Some(Format::Raw));
        assert_eq!(drives[5].cache, Cache::Unsafe);
        args.snapshot = true;
        assert!(
            args.drives()
                .expect("drives")
                .iter()
                .all(|drive| drive.snapshot)
        );
    }

    #[test]
    fn drives_without_sense_are_refused() {
        for (drives, word) in [
            (&["if=ide"][..], "file=FILE"),
            (&["file=a,if=scsi"], "virtio"),
            (&["file=a,size=7"], "size"),
            (&["file=a,readonly=perhaps"], "on or off"),
            (&["file=a,format=vmdk"], "qcow2"),
            (&["file=a,cache=some"], "writeback"),
            (&["file=a,media=tape"], "cdrom"),
            (&["file=a,if=virtio,media=cdrom"], "if=ide"),
            (&["file=a,index=x"], "a number"),
            (&["file=a,index=4"], "no place"),
            (&["file=a,bus=9"], "no place"),
            (&["file=a,bus=99999999999999999"], "no place"),
            (&["file=a,unit=2"], "a bus has 2"),
            (&["file=a,index=1,unit=1"], "bus and unit"),
            (&["file=a,index=1", "file=b,unit=1"], "another drive"),
            (&["file=a,nonsense"], "name=value"),
        ] {
            let failure = given(drives).drives().expect_err("no sense");
            assert_eq!(failure.code, exit::USAGE);
            assert!(
                failure.message.contains(word),
                "{drives:?}: {}",
                failure.message
            );
        }
        let mut five = given(&["file=a"; 5]);
        assert!(five.drives().is_err());
        five.drive.pop();
        assert!(five.drives().is_ok());
        five.hda = Some("b".into());
        assert!(five.drives().is_err());
    }

    #[test]
    fn boot_orders() {
        let all = boot("order=cdn,once=d,menu=on").expect("an order");
        assert_eq!((&*all.order, &*all.once, all.menu), ("cdn", "d", true));
        assert_eq!(boot("a").expect("an order").order, "a");
        for text in ["", "x", "cc", "order=", "menu=maybe", "splash=x", "once=q"] {
            assert!(boot(text).is_err(), "{text}");
        }
    }
}
