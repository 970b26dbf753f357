//! What is made of the files that came out of packages.

use super::iso::{Boot, Iso};
use super::{Error, at, fetch, initramfs, run};
use std::fs;
use std::path::{Path, PathBuf};

/// One step. Names are those of files in the guest's directory.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Takes the gzip wrapping off, in place.
    Gunzip(&'static str),
    /// Makes an initial RAM disk of that name, out of `busybox` and the kernel's modules.
    Initramfs(&'static str),
    /// Pads a file to the size of a floppy of 1.44 MB.
    Floppy(&'static str),
    /// Makes `isolinux.iso`, which is a CD and a disk, of isolinux's files, `vmlinuz` and `initrd`.
    Isolinux,
    /// Makes a disk of that name with Debian's base system.
    Debian(&'static str),
    /// Removes a file that only served to make another.
    Remove(&'static str),
}

/// The configuration of isolinux: Linux, on the serial port, at once.
const ISOLINUX: &str = "SERIAL 0 115200\nDEFAULT linux\nPROMPT 0\nLABEL linux\n\
    KERNEL /boot/vmlinuz\nINITRD /boot/initrd\nAPPEND console=ttyS0 quiet panic=-1\n";

/// Makes a disk with Debian's base system.
const DEBIAN: &str = include_str!("debian.sh");

/// Changes when what is made here changes.
pub(super) const RECIPE: &str = DEBIAN;

/// Carries out a step in a guest's directory.
pub(super) fn carry_out(step: &Step, directory: &Path) -> Result<(), Error> {
    let read = |name: &str| {
        let path = directory.join(name);
        fs::read(&path).map_err(at(&path))
    };
    let write = |name: &str, bytes: &[u8]| {
        let path = directory.join(name);
        fs::write(&path, bytes).map_err(at(&path))
    };
    match step {
        Step::Gunzip(name) => write(name, &run::unpacked(&directory.join(name), "gzip")?),
        Step::Initramfs(name) => {
            let tree = directory.join(fetch::MODULES);
            let tree = tree.exists().then_some(&*tree);
            write(name, &initramfs::build(&read("busybox")?, tree)?)
        }
        Step::Floppy(name) => {
            const FLOPPY: usize = 2880 * 512;
            let mut bytes = read(name)?;
            if bytes.len() > FLOPPY {
                return Err(Error::Content(format!("{name} does not fit on a floppy")));
            }
            bytes.resize(FLOPPY, 0);
            write(name, &bytes)
        }
        Step::Isolinux => {
            let mut iso = Iso::default();
            iso.file("isolinux/isolinux.bin", read("isolinux.bin")?)?;
            iso.file("isolinux/ldlinux.c32", read("ldlinux.c32")?)?;
            iso.file("isolinux/isolinux.cfg", ISOLINUX.into())?;
            iso.file("boot/vmlinuz", read("vmlinuz")?)?;
            iso.file("boot/initrd", read("initrd")?)?;
            let boot = Boot {
                loader: "isolinux/isolinux.bin",
                disk: Some(&read("isohdpfx.bin")?),
            };
            write("isolinux.iso", &iso.finish(Some(boot))?)
        }
        Step::Debian(name) => debian(&directory.join(name)),
        Step::Remove(name) => {
            let path = directory.join(name);
            fs::remove_file(&path).map_err(at(&path))
        }
    }
}

/// The base system needs two tools, and root's rights for the scripts of its packages.
fn debian(image: &Path) -> Result<(), Error> {
    let there = |tool: &&str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let usual = ["/usr/sbin", "/sbin"].map(PathBuf::from);
        let mut places = std::env::split_paths(&path).chain(usual);
        places.any(|place| place.join(tool).exists())
    };
    let needed = ["debootstrap", "mke2fs"];
    if !needed.iter().all(there) || !rustix::process::geteuid().is_root() {
        return Err(Error::Content(
            "this guest is made by debootstrap and mke2fs (package e2fsprogs) in root's hands"
                .into(),
        ));
    }
    let mut command = run::command("sh");
    command.args(["-c", DEBIAN, "debian.sh"]).arg(image);
    let out = run::output("sh", &mut command)?;
    match out.status.success() {
        true => Ok(()),
        false => Err(run::failed("debootstrap", &out.stderr)),
    }
}
