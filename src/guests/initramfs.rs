//! The user space of the Linux guests, as an initial RAM disk: busybox, an init script that ends in
//! a shell, and the kernel modules for what a PC here can have.

use super::Error;
use super::cpio::Archive;
use super::modules::Modules;
use std::path::Path;

/// The first program.
const INIT: &str = include_str!("init.sh");

/// What `udhcpc` calls.
const DHCP: &str = include_str!("dhcp.sh");

/// Changes when what is made here changes.
pub(super) const RECIPE: &str = concat!(include_str!("init.sh"), include_str!("dhcp.sh"), "1");

/// Modules that may be of use, with `_` for `-`. Which are loaded goes by the devices found.
const MODULES: &[&str] = &[
    // virtio
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_console",
    "virtio_balloon",
    "virtio_rng",
    // The IDE and floppy controllers of the board, and what is attached to them
    "ata_piix",
    "ata_generic",
    "pata_acpi",
    "sd_mod",
    "sr_mod",
    "floppy",
    // Keyboard and mouse
    "i8042",
    "atkbd",
    "psmouse",
    "evdev",
    // File systems
    "ext4",
    "isofs",
    "vfat",
    "nls_cp437",
    "nls_iso8859_1",
    "nls_ascii",
    "loop",
    "squashfs",
    "crc32c_generic",
    "crc32c_intel",
    // Raw packets, for DHCP
    "af_packet",
];

const DIRECTORIES: &[&str] = &[
    "bin",
    "dev",
    "etc",
    "lib",
    "lib/modules",
    "mnt",
    "proc",
    "root",
    "run",
    "sbin",
    "sys",
    "tmp",
    "usr",
    "usr/bin",
    "usr/sbin",
];

/// The archive: busybox, and modules out of `tree` (none, if it is not there).
pub fn build(busybox: &[u8], tree: Option<&Path>) -> Result<Vec<u8>, Error> {
    let mut archive = Archive::default();
    for directory in DIRECTORIES {
        archive.directory(directory);
    }
    archive.device("dev/console", 5, 1);
    archive.file("bin/busybox", busybox);
    archive.link("bin/sh", "busybox");
    archive.file("init", INIT.as_bytes());
    archive.file("etc/dhcp.sh", DHCP.as_bytes());
    archive.data("etc/passwd", b"root::0:0:root:/root:/bin/sh\n");
    archive.data("etc/group", b"root:x:0:\n");
    archive.data("etc/hosts", b"127.0.0.1 localhost\n");
    archive.data("etc/profile", b"PS1='\\w # '\n");
    if let Some(tree) = tree {
        let modules = Modules::read(tree, MODULES)?;
        let root = format!("lib/modules/{}", modules.version);
        archive.directory(&root);
        let mut made = Vec::new();
        for module in modules.by_name.values() {
            let ends = module.path.match_indices('/').map(|(end, _)| end);
            for parent in ends.map(|end| &module.path[..end]) {
                if !made.contains(&parent) {
                    made.push(parent);
                    archive.directory(&format!("{root}/{parent}"));
                }
            }
            archive.data(&format!("{root}/{}", module.path), &module.bytes);
        }
        archive.data(
            &format!("{root}/modules.dep"),
            modules.dependencies().as_bytes(),
        );
        archive.data(
            &format!("{root}/modules.alias"),
            modules.aliases().as_bytes(),
        );
    }
    Ok(archive.finish())
}
