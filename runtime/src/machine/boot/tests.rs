//! Kernels made here: what is handed over, and that damaged ones are refused.

use super::bytes::{dwords, u32_at, u64_at};
use super::cpu::Entry;
use super::plan::Plan;
use super::*;
use std::io::Write;

const RAM: u64 = 16 << 20;

/// A part of an ELF file: type, address, content, length in memory.
type Segment<'a> = (u32, u64, &'a [u8], u64);

/// An ELF file of 32 or 64 bits with those segments; virtual addresses are `bias` higher. The first
/// section is empty, the second has strings.
fn elf(wide: bool, entry: u64, bias: u64, segments: &[Segment<'_>]) -> Vec<u8> {
    const STRINGS: &[u8] = b"\0.strtab\0";
    let word = |v: u64| v.to_le_bytes()[..if wide { 8 } else { 4 }].to_vec();
    let (header, ph, sh) = if wide { (64, 56, 64) } else { (52, 32, 40) };
    let mut data = Vec::new();
    let mut headers = Vec::new();
    let first = header + ph * segments.len();
    for (kind, at, content, len) in segments {
        let offset = word((first + data.len()) as u64);
        let flags = 7u32.to_le_bytes().to_vec();
        let [vaddr, paddr] = [at.wrapping_add(bias), *at].map(word);
        let [filesz, memsz, align] = [content.len() as u64, *len, 4].map(word);
        let kind = kind.to_le_bytes().to_vec();
        let fields = if wide {
            [kind, flags, offset, vaddr, paddr, filesz, memsz, align]
        } else {
            [kind, offset, vaddr, paddr, filesz, memsz, flags, align]
        };
        headers.extend(fields.concat());
        data.extend_from_slice(content);
        data.resize(data.len().next_multiple_of(4), 0);
    }
    let strings = first + data.len();
    data.extend_from_slice(STRINGS);
    data.resize(data.len().next_multiple_of(8), 0);
    let sections = first + data.len();
    let mut file = b"\x7fELF".to_vec();
    file.extend([if wide { 2 } else { 1 }, 1, 1]);
    file.resize(16, 0);
    file.extend([2, 0, if wide { 62 } else { 3 }, 0, 1, 0, 0, 0]);
    file.extend([word(entry), word(header as u64), word(sections as u64)].concat());
    file.extend([0; 4]);
    for half in [header, ph, segments.len(), sh, 2, 1] {
        file.extend((half as u16).to_le_bytes());
    }
    assert_eq!(file.len(), header);
    file.extend(headers);
    file.extend(data);
    file.resize(file.len() + sh, 0);
    let mut section = [0u32.to_le_bytes(), 3u32.to_le_bytes()].concat();
    section.extend(
        [
            word(0),
            word(0),
            word(strings as u64),
            word(STRINGS.len() as u64),
        ]
        .concat(),
    );
    section.resize(sh, 0);
    file.extend(section);
    file
}

/// A Multiboot header with those flags and what follows.
fn header(flags: u32, rest: &[u32]) -> Vec<u8> {
    let magic = 0x1bad_b002u32;
    let sum = 0u32.wrapping_sub(magic).wrapping_sub(flags);
    [dwords(&[magic, flags, sum]), dwords(rest)].concat()
}

fn multiboot_elf(wide: bool) -> Vec<u8> {
    let code = [header(3, &[]), vec![0x90; 100]].concat();
    let bias = 0xc000_0000;
    let entry = 0x20_0010 + bias;
    elf(wide, entry, bias, &[(1, 0x20_0000, &code, 0x3000)])
}

fn pvh_elf(wide: bool) -> Vec<u8> {
    let mut note = dwords(&[4, 4, 18]);
    note.extend(b"Xen\0");
    note.extend(0x10_0020u32.to_le_bytes());
    let segments: [Segment<'_>; 2] = [(1, 0x10_0000, &[0x90; 64], 0x2000), (4, 0, &note, 0)];
    elf(wide, 0x10_0000, 0, &segments)
}

fn bzimage() -> Vec<u8> {
    let mut image = vec![0; 3 * 512];
    image[0x1f1] = 2;
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1fe, &[0x55, 0xaa, 0xeb, 0x66]);
    put(0x202, b"HdrS\x0f\x02");
    put(0x211, &[1]);
    put(0x214, &0x10_0000u32.to_le_bytes());
    put(0x22c, &0x7fff_ffffu32.to_le_bytes());
    put(0x236, &1u16.to_le_bytes());
    put(0x238, &100u32.to_le_bytes());
    put(0x258, &0x20_0000u64.to_le_bytes());
    put(0x260, &0x10_0000u32.to_le_bytes());
    image.extend([0x90; 0x1000]);
    image
}

fn module(content: &[u8], text: &str) -> Module {
    Module {
        content: content.to_vec(),
        command_line: text.into(),
    }
}

/// Plans a start: the parts as one image of RAM, and the entry.
fn planned(kernel: &Kernel<'_>) -> Result<(Format, Vec<u8>, Entry), BootError> {
    let file = decompress(kernel.image, RAM)?;
    let mut plan = Plan::new(RAM);
    let (format, entry) = plan_start(&mut plan, kernel, &file)?;
    let mut ram = vec![0; RAM as usize];
    let mut last = 0;
    for (at, bytes) in plan.parts() {
        assert!(at >= last && at + bytes.len() as u64 <= RAM);
        last = at + bytes.len() as u64;
        ram[at as usize..last as usize].copy_from_slice(bytes);
    }
    Ok((format, ram, entry))
}

fn text_at(ram: &[u8], at: u32) -> String {
    let bytes = ram[at as usize..].iter().take_while(|b| **b != 0);
    String::from_utf8_lossy(&bytes.copied().collect::<Vec<_>>()).into_owned()
}

#[test]
fn multiboot_hands_everything_over() {
    for wide in [false, true] {
        let image = multiboot_elf(wide);
        let modules = [module(b"one", "a x"), module(&[7; 0x1001], "b")];
        let kernel = Kernel {
            image: &image,
            name: "kernel",
            command_line: "an argument",
            modules: &modules,
            ..Kernel::default()
        };
        let (format, ram, entry) = planned(&kernel).expect("a plan");
        assert_eq!(format, Format::Multiboot);
        let Entry::Protected { eip, registers, .. } = entry else {
            panic!("{entry:?}")
        };
        assert_eq!(eip, 0x20_0010);
        assert_eq!(registers[0], 0x2bad_b002);
        let field = |n: usize| u32_at(&ram, registers[1] as usize + 4 * n).expect("a field");
        assert_eq!(field(0), 0x26d);
        assert_eq!((field(1), field(2)), (0x9c000 >> 10, 15 << 10));
        assert_eq!(text_at(&ram, field(4)), "kernel an argument");
        assert_eq!(text_at(&ram, field(16)), "metaphrase");
        assert_eq!(field(5), 2);
        let list = field(6) as usize;
        let modules: Vec<[u32; 3]> = (0..2)
            .map(|n| [0, 4, 8].map(|at| u32_at(&ram, list + 16 * n + at).expect("a field")))
            .collect();
        // Directly behind the kernel are its strings and its section headers.
        assert_eq!(modules[0][..2], [0x20_4000, 0x20_4003]);
        assert_eq!(modules[1][1] - modules[1][0], 0x1001);
        assert_eq!(text_at(&ram, modules[0][2]), "a x");
        assert_eq!(&ram[modules[0][0] as usize..][..3], b"one");
        // Map: the size of the first entry, and the last, which is RAM from 1 MiB on.
        let (len, map) = (field(11) as usize, field(12) as usize);
        assert_eq!(u32_at(&ram, map), Some(20));
        assert_eq!(u64_at(&ram, map + len - 20), Some(0x10_0000));
        assert_eq!(u64_at(&ram, map + len - 12), Some(RAM - 0x10_0000));
        // Sections: the strings have an address now.
        assert_eq!((field(7), field(10)), (2, 1));
        let names = field(9) as usize + field(8) as usize;
        let at = u32_at(&ram, names + if wide { 16 } else { 12 }).expect("an address");
        assert_eq!(text_at(&ram, at + 1), ".strtab");
    }
}

#[test]
fn multiboot_header_with_addresses() {
    let addresses = [0x10_0004, 0x10_0000, 0x10_0020, 0x10_1000, 0x10_0018];
    let mut image = vec![0xcc; 64];
    image.extend(b"load");
    image.extend(header(0x1_0004, &addresses));
    image.resize(image.len() + 100, 0x90);
    let kernel = Kernel {
        image: &image,
        ..Kernel::default()
    };
    let (_, ram, entry) = planned(&kernel).expect("a plan");
    assert_eq!(&ram[0x10_0000..0x10_0004], b"load");
    assert_eq!(ram[0x10_0020], 0, "behind the end");
    let Entry::Protected { eip, registers, .. } = entry else {
        panic!("{entry:?}")
    };
    assert_eq!(eip, 0x10_0018);
    let info = registers[1] as usize;
    assert_ne!(u32_at(&ram, info).expect("flags") & 1 << 12, 0);
    assert_eq!(u64_at(&ram, info + 88), Some(0xb_8000), "a text screen");
    let wrong = |n: usize, value: u32| {
        let mut addresses = addresses;
        addresses[n] = value;
        let mut image = image.clone();
        image[80..100].copy_from_slice(&dwords(&addresses));
        let kernel = Kernel {
            image: &image,
            ..Kernel::default()
        };
        planned(&kernel).is_err()
    };
    assert!(wrong(0, 0xf_0000), "the header before the start");
    assert!(wrong(0, 0x20_0000), "the start before the file");
    assert!(wrong(1, 0xfff0_0000), "the start behind the header");
    assert!(wrong(2, 0x20_0000), "the end behind the file");
    assert!(wrong(3, 0xffff_ffff), "more than RAM");
    assert!(wrong(4, 0x10_1000), "the entry behind the end");
    let mut image = image.clone();
    image.splice(68..80, header(0x1_0014, &[]));
    let kernel = Kernel {
        image: &image,
        ..Kernel::default()
    };
    assert!(matches!(planned(&kernel), Err(BootError::Features(0x10))));
}

#[test]
fn pvh_hands_everything_over() {
    for wide in [false, true] {
        let image = pvh_elf(wide);
        let modules = [module(b"disk", "")];
        let kernel = Kernel {
            image: &image,
            command_line: "words",
            modules: &modules,
            ..Kernel::default()
        };
        let (format, ram, entry) = planned(&kernel).expect("a plan");
        assert_eq!(format, Format::Pvh);
        let Entry::Protected { eip, registers, .. } = entry else {
            panic!("{entry:?}")
        };
        assert_eq!(eip, 0x10_0020);
        let info = registers[1] as usize;
        let at = |offset: usize| u64_at(&ram, info + offset).expect("a field") as usize;
        assert_eq!(u32_at(&ram, info), Some(0x336e_c578));
        assert_eq!(u32_at(&ram, info + 4), Some(1));
        assert_eq!(u32_at(&ram, info + 12), Some(1));
        assert_eq!(text_at(&ram, at(24) as u32), "words");
        assert_eq!(at(32) as u64, map::RSDP);
        let disk = u64_at(&ram, at(16)).expect("a module") as usize;
        assert_eq!(&ram[disk..disk + 4], b"disk");
        assert_eq!(u64_at(&ram, at(16) + 8), Some(4));
        let entries = u32_at(&ram, info + 48).expect("a count") as usize;
        assert_eq!(u64_at(&ram, at(40) + 24 * (entries - 1)), Some(0x10_0000));
    }
}

#[test]
fn linux_hands_everything_over() {
    let image = bzimage();
    let modules = [module(&[5; 0x1001], "")];
    let mut kernel = Kernel {
        image: &image,
        command_line: "words",
        modules: &modules,
        random_seed: Some([9; 32]),
        ..Kernel::default()
    };
    let (format, ram, entry) = planned(&kernel).expect("a plan");
    assert_eq!(format, Format::Linux);
    let Entry::Protected { eip, registers, .. } = entry else {
        panic!("{entry:?}")
    };
    assert_eq!((eip, registers[2]), (0x10_0000, 0x1_0000));
    let params = &ram[0x1_0000..0x1_1000];
    assert_eq!(u32_at(params, 0x202), Some(u32::from_le_bytes(*b"HdrS")));
    assert_eq!(
        text_at(&ram, u32_at(params, 0x228).expect("a field")),
        "words"
    );
    assert_eq!(u32_at(params, 0x218), Some(RAM as u32 - 0x2000));
    assert_eq!(u32_at(params, 0x21c), Some(0x1001));
    assert_eq!(params[0x210], 0xff);
    assert_eq!(params[0x1e8], 4);
    let seed = u64_at(params, 0x250).expect("a pointer") as usize;
    assert_eq!(u32_at(&ram, seed + 8), Some(9));
    assert_eq!(ram[seed + 16..seed + 48], [9; 32]);
    kernel.entry = KernelEntry::Long;
    let (_, ram, entry) = planned(&kernel).expect("a plan");
    let Entry::Long { rip, rsi, cr3, .. } = entry else {
        panic!("{entry:?}")
    };
    assert_eq!((rip, rsi), (0x10_0200, 0x1_0000));
    for at in [0u64, 0x10_0200, 0xc123_4567] {
        let entry = |table: u64, n: u64| u64_at(&ram, (table & !0xfff) as usize + 8 * n as usize);
        let upper = entry(cr3, 0)
            .and_then(|e| entry(e, at >> 30))
            .expect("a table");
        let large = entry(upper, at >> 21 & 511).expect("a page");
        assert_eq!(large & !0x1f_ffff, at & !0x1f_ffff);
        assert_eq!(large & 0x83, 0x83);
    }
}

#[test]
fn linux_refuses_what_it_cannot_start() {
    let damaged = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut image = bzimage();
        change(&mut image);
        let kernel = Kernel {
            image: &image,
            ..Kernel::default()
        };
        planned(&kernel).expect_err("no start").to_string()
    };
    let says = |error: String, what: &str| assert!(error.contains(what), "{error}");
    says(damaged(&|i| i[0x207] = 1), "protocol 1.15");
    says(damaged(&|i| i[0x211] = 0), "protocol 2.15");
    says(damaged(&|i| i[0x216] = 0), "firmware");
    says(damaged(&|i| i[0x1f1] = 200), "truncated");
    says(damaged(&|i| i[0x263] = 1), "MiB of RAM are needed");
    let image = bzimage();
    let long = "x".repeat(101);
    let mut kernel = Kernel {
        image: &image,
        command_line: &long,
        ..Kernel::default()
    };
    says(planned(&kernel).expect_err("long").to_string(), "100 bytes");
    kernel.command_line = &long[1..];
    assert!(planned(&kernel).is_ok());
    kernel.entry = KernelEntry::Real;
    says(planned(&kernel).expect_err("16").to_string(), "-bios");
    let huge = [module(&vec![1; RAM as usize], "")];
    kernel.modules = &huge;
    kernel.entry = KernelEntry::Auto;
    says(
        planned(&kernel).expect_err("large").to_string(),
        "MiB of RAM",
    );
}

#[test]
fn compressed_kernels_are_decompressed_within_ram() {
    let pack = |bytes: &[u8]| {
        let level = flate2::Compression::fast();
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), level);
        packer.write_all(bytes).expect("written");
        packer.finish().expect("packed")
    };
    let image = pack(&multiboot_elf(false));
    let mut kernel = Kernel {
        image: &image,
        ..Kernel::default()
    };
    assert!(planned(&kernel).is_ok());
    kernel.image = &image[..image.len() - 9];
    assert!(matches!(planned(&kernel), Err(BootError::Gzip(_))));
    let bomb = pack(&vec![0; RAM as usize + 1]);
    kernel.image = &bomb;
    assert!(matches!(planned(&kernel), Err(BootError::GzipTooLarge(16))));
}

#[test]
fn a_kernel_for_firmware_needs_a_16_bit_entry() {
    let (linux, other) = (bzimage(), pvh_elf(true));
    let mut kernel = Kernel {
        image: &linux,
        ..Kernel::default()
    };
    assert!(FirmwareKernel::new(RAM, &kernel).is_ok());
    kernel.entry = KernelEntry::Long;
    assert!(FirmwareKernel::new(RAM, &kernel).is_err());
    kernel.entry = KernelEntry::Auto;
    kernel.image = &other;
    assert!(FirmwareKernel::new(RAM, &kernel).is_err());
}

/// A generator of numbers (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

/// Values that break sums and bounds.
const ABSURD: [u64; 10] = [
    0,
    1,
    0xfff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_f000,
    0xffff_ffff,
    0x1_0000_0000,
    u64::MAX - 0xfff,
    u64::MAX,
];

/// Damages a file: flipped bits, absurd numbers, a missing end.
fn damage(file: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(6) {
        // Mostly near the beginning, where the headers are.
        let reach = if random.below(3) == 0 {
            file.len()
        } else {
            file.len().min(0x290)
        };
        if reach < 8 {
            return;
        }
        match random.below(8) {
            0 => {
                let len = random.below(file.len());
                file.truncate(len);
            }
            1..4 => file[random.below(reach)] ^= 1 << random.below(8),
            4 => file[random.below(reach)] = random.below(256) as u8,
            _ => {
                let value = ABSURD[random.below(ABSURD.len())].to_le_bytes();
                let len = [2, 4, 8][random.below(3)];
                let at = random.below(reach - 7) & !1;
                file[at..at + len].copy_from_slice(&value[..len]);
            }
        }
    }
}

/// Whatever happens to a kernel, it is either refused or stays in RAM (which `planned` checks), and
/// enters at a place that was loaded.
#[test]
fn damaged_kernels_are_refused_or_stay_in_ram() {
    let originals = [
        multiboot_elf(false),
        multiboot_elf(true),
        pvh_elf(false),
        pvh_elf(true),
        bzimage(),
        [
            header(0x1_0003, &[0x10_0000, 0x10_0000, 0, 0, 0x10_0000]),
            vec![0x90; 64],
        ]
        .concat(),
    ];
    let modules = [module(b"module", "text")];
    let (mut refused, mut accepted) = (0, 0);
    for seed in 1..=30_000u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut image = originals[random.below(originals.len())].clone();
        damage(&mut image, &mut random);
        let entries = [KernelEntry::Auto, KernelEntry::Protected, KernelEntry::Long];
        let kernel = Kernel {
            image: &image,
            modules: &modules,
            entry: entries[random.below(3)],
            ..Kernel::default()
        };
        let mut plan = Plan::new(RAM);
        match plan_start(&mut plan, &kernel, &image) {
            Err(error) => {
                assert!(!error.to_string().is_empty());
                refused += 1;
            }
            Ok((_, Entry::Protected { eip: at, .. })) => {
                assert!(plan.holds(at.into()), "seed {seed}: entry {at:#x}");
                accepted += 1;
            }
            Ok((_, Entry::Long { rip, .. })) => {
                assert!(plan.holds(rip), "seed {seed}: entry {rip:#x}");
                accepted += 1;
            }
        }
        for (at, bytes) in plan.parts() {
            assert!(at + bytes.len() as u64 <= RAM);
        }
        // As firmware's kernel it must not be worse.
        let _ = FirmwareKernel::new(RAM, &kernel);
    }
    assert!(refused > 3000 && accepted > 3000, "{refused} {accepted}");
}
