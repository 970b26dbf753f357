//! The table of guests.

use super::apt::{Architecture, Name};
pub use super::recipe::Step;
use Architecture::{Amd64, I386};
use Name::{Behind, Exact, Newest};

/// A whole system that can be booted.
#[derive(Debug)]
pub struct Guest {
    /// Its name.
    pub name: &'static str,
    /// What it is, in one line.
    pub about: &'static str,
    /// Packages with what is taken out of them.
    pub sources: &'static [Source],
    /// What is made of that.
    pub steps: &'static [Step],
    /// The options of `metaphrase system` that boot it; `{}` stands for its directory, and
    /// `{size}` for variables that tell the shell how large the terminal is.
    pub boot: &'static [&'static str],
}

/// A package with what is taken out of it.
#[derive(Debug)]
pub struct Source {
    /// Which one.
    pub package: Name,
    /// For which architecture.
    pub architecture: Architecture,
    /// Files: the path in the package, without `usr/` in front, in which `*` stands for anything
    /// within one name; and the name in the guest's directory.
    pub take: &'static [(&'static str, &'static str)],
    /// It is a kernel, and its modules are wanted for the initial RAM disk.
    pub modules: bool,
}

impl Guest {
    /// The guest of that name.
    pub fn named(name: &str) -> Option<&'static Guest> {
        ALL.iter().find(|guest| guest.name == name)
    }

    /// The options that boot it out of `directory`, on a terminal of so many columns and rows if
    /// there is one. A serial line does not tell its size.
    pub fn options(
        &self,
        directory: &std::path::Path,
        terminal: Option<(u16, u16)>,
    ) -> Vec<std::ffi::OsString> {
        let size = terminal.map(|(columns, rows)| format!(" COLUMNS={columns} LINES={rows}"));
        let size = size.unwrap_or_default();
        let option = |text: &&str| match text.split_once("{}") {
            None => text.replace("{size}", &size).into(),
            Some((before, after)) => {
                let mut option = std::ffi::OsString::from(before);
                option.push(directory);
                option.push(after);
                option
            }
        };
        self.boot.iter().map(option).collect()
    }
}

const fn source(
    package: Name,
    architecture: Architecture,
    take: &'static [(&'static str, &'static str)],
) -> Source {
    Source {
        package,
        architecture,
        take,
        modules: false,
    }
}

const fn kernel(package: Name, architecture: Architecture) -> Source {
    Source {
        package,
        architecture,
        take: &[("boot/vmlinuz-*", "vmlinuz")],
        modules: true,
    }
}

const fn busybox(architecture: Architecture) -> Source {
    source(
        Exact("busybox-static"),
        architecture,
        &[("bin/busybox", "busybox")],
    )
}

const SEABIOS: Source = source(
    Exact("seabios"),
    Amd64,
    &[
        ("share/seabios/bios-256k.bin", "bios-256k.bin"),
        ("share/seabios/vgabios-stdvga.bin", "vgabios-stdvga.bin"),
    ],
);
const ISOLINUX: Source = source(
    Exact("isolinux"),
    Amd64,
    &[
        ("lib/ISOLINUX/isolinux.bin", "isolinux.bin"),
        ("lib/ISOLINUX/isohdpfx.bin", "isohdpfx.bin"),
    ],
);
const LDLINUX: Source = source(
    Exact("syslinux-common"),
    Amd64,
    &[("lib/syslinux/modules/bios/ldlinux.c32", "ldlinux.c32")],
);
const CLOUD_KERNEL: Name = Behind("linux-image-cloud-amd64");

const INITRAMFS: &[Step] = &[Step::Initramfs("initrd"), Step::Remove("busybox")];
const ISO: &[Step] = &[
    Step::Initramfs("initrd"),
    Step::Isolinux,
    Step::Remove("busybox"),
    Step::Remove("initrd"),
    Step::Remove("vmlinuz"),
    Step::Remove("isolinux.bin"),
    Step::Remove("isohdpfx.bin"),
    Step::Remove("ldlinux.c32"),
];
const LINUX: &[&str] = &[
    "-m",
    "256",
    "-kernel",
    "{}/vmlinuz",
    "-initrd",
    "{}/initrd",
    "-append",
    "console=ttyS0 quiet panic=-1{size}",
];

/// Every guest, the first being the one to begin with.
pub const ALL: &[Guest] = &[
    Guest {
        name: "linux",
        about: "Debian's cloud kernel (x86-64) with a busybox shell on the serial port",
        sources: &[kernel(CLOUD_KERNEL, Amd64), busybox(Amd64)],
        steps: INITRAMFS,
        boot: LINUX,
    },
    Guest {
        name: "linux-amd64",
        about: "Debian's usual kernel (x86-64) with a busybox shell",
        sources: &[kernel(Behind("linux-image-amd64"), Amd64), busybox(Amd64)],
        steps: INITRAMFS,
        boot: LINUX,
    },
    Guest {
        name: "linux-686",
        about: "Debian's 32-bit kernel with a busybox shell",
        sources: &[kernel(Behind("linux-image-686"), I386), busybox(I386)],
        steps: INITRAMFS,
        boot: LINUX,
    },
    Guest {
        name: "linux-686-pae",
        about: "Debian's 32-bit kernel with PAE, with a busybox shell",
        sources: &[kernel(Behind("linux-image-686-pae"), I386), busybox(I386)],
        steps: INITRAMFS,
        boot: LINUX,
    },
    Guest {
        name: "debian",
        about: "Debian's base system with systemd, made by debootstrap; root has no password",
        sources: &[kernel(CLOUD_KERNEL, Amd64), busybox(Amd64)],
        steps: &[
            Step::Initramfs("initrd"),
            Step::Debian("debian.img"),
            Step::Remove("busybox"),
        ],
        boot: &[
            "-m",
            "512",
            "-kernel",
            "{}/vmlinuz",
            "-initrd",
            "{}/initrd",
            "-append",
            "console=ttyS0 quiet panic=-1 root=/dev/vda",
            "-drive",
            "file={}/debian.img,if=virtio,format=raw",
            "-snapshot",
        ],
    },
    Guest {
        name: "debian-installer-amd64",
        about: "the installer of Debian (x86-64), on the serial port",
        sources: &[source(
            Newest("debian-installer-", "-netboot-amd64"),
            Amd64,
            &[
                (
                    "lib/debian-installer/images/*/amd64/text/debian-installer/amd64/linux",
                    "linux",
                ),
                (
                    "lib/debian-installer/images/*/amd64/text/debian-installer/amd64/initrd.gz",
                    "initrd.gz",
                ),
            ],
        )],
        steps: &[],
        boot: INSTALLER,
    },
    Guest {
        name: "debian-installer-i386",
        about: "the installer of Debian (32-bit), on the serial port",
        sources: &[source(
            Newest("debian-installer-", "-netboot-i386"),
            I386,
            &[
                (
                    "lib/debian-installer/images/*/i386/text/debian-installer/i386/linux",
                    "linux",
                ),
                (
                    "lib/debian-installer/images/*/i386/text/debian-installer/i386/initrd.gz",
                    "initrd.gz",
                ),
            ],
        )],
        steps: &[],
        boot: INSTALLER,
    },
    Guest {
        name: "isolinux",
        about: "a CD that boots the cloud kernel by isolinux",
        sources: &[
            kernel(CLOUD_KERNEL, Amd64),
            busybox(Amd64),
            ISOLINUX,
            LDLINUX,
            SEABIOS,
        ],
        steps: ISO,
        boot: &[
            "-m",
            "256",
            "-bios",
            "{}/bios-256k.bin",
            "-cdrom",
            "{}/isolinux.iso",
            "-display",
            "none",
        ],
    },
    Guest {
        name: "isolinux-disk",
        about: "the same image as a disk",
        sources: &[
            kernel(CLOUD_KERNEL, Amd64),
            busybox(Amd64),
            ISOLINUX,
            LDLINUX,
            SEABIOS,
        ],
        steps: ISO,
        boot: &[
            "-m",
            "256",
            "-bios",
            "{}/bios-256k.bin",
            "-hda",
            "{}/isolinux.iso",
            "-snapshot",
            "-display",
            "none",
        ],
    },
    Guest {
        name: "memtest",
        about: "memtest86+, 64-bit, on the serial port",
        sources: &[source(
            Exact("memtest86+"),
            Amd64,
            &[("boot/memtest86+x64.bin", "memtest.bin")],
        )],
        steps: &[],
        boot: MEMTEST,
    },
    Guest {
        name: "memtest-ia32",
        about: "memtest86+, 32-bit, on the serial port",
        sources: &[source(
            Exact("memtest86+"),
            Amd64,
            &[("boot/memtest86+ia32.bin", "memtest.bin")],
        )],
        steps: &[],
        boot: MEMTEST,
    },
    Guest {
        name: "memtest-iso",
        about: "memtest86+ from its CD",
        sources: &[
            source(
                Exact("memtest86+"),
                Amd64,
                &[("lib/memtest86+/memtest86+x64.iso", "memtest.iso")],
            ),
            SEABIOS,
        ],
        steps: &[],
        boot: &[
            "-m",
            "64",
            "-bios",
            "{}/bios-256k.bin",
            "-cdrom",
            "{}/memtest.iso",
        ],
    },
    Guest {
        name: "memtest-floppy",
        about: "memtest86+ from a floppy disk",
        sources: &[
            source(
                Exact("memtest86+"),
                Amd64,
                &[("boot/memtest86+x64.bin", "memtest.img")],
            ),
            SEABIOS,
        ],
        steps: &[Step::Floppy("memtest.img")],
        boot: &[
            "-m",
            "64",
            "-bios",
            "{}/bios-256k.bin",
            "-fda",
            "{}/memtest.img",
            "-snapshot",
        ],
    },
    Guest {
        name: "seabios",
        about: "SeaBIOS with nothing to boot from",
        sources: &[SEABIOS],
        steps: &[],
        boot: &[
            "-m",
            "64",
            "-bios",
            "{}/bios-256k.bin",
            "-debugcon",
            "stdio",
        ],
    },
    Guest {
        name: "grub-cd",
        about: "GRUB from its rescue CD",
        sources: &[
            source(
                Exact("grub-rescue-pc"),
                Amd64,
                &[("lib/grub-rescue/grub-rescue-cdrom.iso", "grub.iso")],
            ),
            SEABIOS,
        ],
        steps: &[],
        boot: &[
            "-m",
            "64",
            "-bios",
            "{}/bios-256k.bin",
            "-cdrom",
            "{}/grub.iso",
        ],
    },
    Guest {
        name: "grub-floppy",
        about: "GRUB from its rescue floppy disk",
        sources: &[
            source(
                Exact("grub-rescue-pc"),
                Amd64,
                &[("lib/grub-rescue/grub-rescue-floppy.img", "grub.img")],
            ),
            SEABIOS,
        ],
        steps: &[Step::Floppy("grub.img")],
        boot: &[
            "-m",
            "64",
            "-bios",
            "{}/bios-256k.bin",
            "-fda",
            "{}/grub.img",
            "-snapshot",
        ],
    },
    Guest {
        name: "invaders",
        about: "a game that needs no operating system, by multiboot",
        sources: &[source(
            Exact("grub-invaders"),
            Amd64,
            &[("boot/invaders.exec", "invaders.exec")],
        )],
        steps: &[],
        boot: &[
            "-m",
            "32",
            "-kernel",
            "{}/invaders.exec",
            "-display",
            "term",
        ],
    },
    Guest {
        name: "gnumach",
        about: "the GNU Mach microkernel, by multiboot; it stops for want of servers",
        sources: &[source(
            Newest("gnumach-image-", "-486"),
            I386,
            &[("boot/gnumach-*.gz", "gnumach")],
        )],
        steps: &[Step::Gunzip("gnumach")],
        boot: &[
            "-m",
            "64",
            "-kernel",
            "{}/gnumach",
            "-append",
            "console=com0",
        ],
    },
    Guest {
        name: "xen",
        about: "the Xen hypervisor, by multiboot; it panics for want of a dom0",
        sources: &[source(
            Newest("xen-hypervisor-", "-amd64"),
            Amd64,
            &[("boot/xen-*-amd64.gz", "xen")],
        )],
        steps: &[Step::Gunzip("xen")],
        boot: &[
            "-m",
            "256",
            "-kernel",
            "{}/xen",
            "-append",
            "console=com1 com1=115200,8n1 noreboot",
        ],
    },
    Guest {
        name: "ipxe",
        about: "the network boot loader iPXE",
        sources: &[
            source(Exact("ipxe"), Amd64, &[("boot/ipxe.lkrn", "ipxe.lkrn")]),
            SEABIOS,
        ],
        steps: &[],
        boot: &[
            "-m",
            "64",
            "-bios",
            "{}/bios-256k.bin",
            "-kernel",
            "{}/ipxe.lkrn",
            "-nic",
            "user",
        ],
    },
    Guest {
        name: "u-boot",
        about: "the boot loader U-Boot in place of a BIOS",
        sources: &[source(
            Exact("u-boot-qemu"),
            Amd64,
            &[("lib/u-boot/qemu-x86/u-boot.rom", "u-boot.rom")],
        )],
        steps: &[],
        boot: &["-m", "256", "-bios", "{}/u-boot.rom", "-display", "none"],
    },
    Guest {
        name: "ovmf",
        about: "the UEFI firmware OVMF in place of a BIOS",
        sources: &[source(
            Exact("ovmf"),
            Amd64,
            &[("share/ovmf/OVMF.fd", "OVMF.fd")],
        )],
        steps: &[],
        boot: &["-m", "256", "-bios", "{}/OVMF.fd", "-display", "none"],
    },
];

const INSTALLER: &[&str] = &[
    "-m",
    "1024",
    "-kernel",
    "{}/linux",
    "-initrd",
    "{}/initrd.gz",
    "-append",
    "console=ttyS0 TERM=linux",
];
const MEMTEST: &[&str] = &[
    "-m",
    "32",
    "-kernel",
    "{}/memtest.bin",
    "-append",
    "console=ttyS0,115200",
];
