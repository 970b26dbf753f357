//! Linux with the user space of `src/guests`: the kernels of `tests/install-guests`, the initial RAM
//! disk that `metaphrase boot` would make for them, and commands for the shell at the serial line.

use super::{Guest, image};
use metaphrase::guests::initramfs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

/// What a command says behind its output.
const END: &str = "that was all";

/// A kernel of that flavour, and its initial RAM disk. `None` if it is not installed.
pub fn linux(flavour: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    let directory = format!("linux/{flavour}");
    let (kernel, modules) = (
        image(&directory, "vmlinuz-")?,
        image(&directory, "modules")?,
    );
    let name = kernel.file_name()?.to_string_lossy().into_owned();
    // Modules are looked for where a package has them.
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let tree = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let tree = tree.join(format!("modules-{flavour}-{}-{number}", std::process::id()));
    let place = tree.join("lib/modules");
    std::fs::create_dir_all(&place).expect("a directory");
    let place = place.join(name.trim_start_matches("vmlinuz-"));
    std::os::unix::fs::symlink(modules, place).expect("a link");
    let busybox = std::fs::read("/bin/busybox").expect("busybox-static is installed");
    let initrd = initramfs::build(&busybox, Some(&tree)).expect("an initial RAM disk");
    std::fs::remove_dir_all(&tree).expect("the directory was there");
    Some((std::fs::read(kernel).expect("the kernel"), initrd))
}

/// Gives the shell a command; what it prints.
pub fn command(guest: &mut Guest, line: &str, budget: u64) -> String {
    let before = guest.serial.text().len();
    // The quotes keep the echo of what is typed from being taken for the end.
    let (head, tail) = END.split_at(4);
    guest.type_serial(&format!("{line}; echo '{head}'\"{tail}\"\n"));
    let came = guest.run_until(budget, |guest| guest.serial.text()[before..].contains(END));
    let text = guest.serial.text()[before..].to_owned();
    assert!(came, "{line} has not ended: {text}");
    let output = text.split_once('\n').map_or("", |(_, output)| output);
    output.split(END).next().unwrap_or_default().to_owned()
}
