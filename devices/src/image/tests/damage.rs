//! Files that are no images, or no sound ones.

use super::*;

/// An image that has some of everything: data, zeros, holes, tables.
fn sample(dir: &Dir, name: &str, cluster: usize, count_bits: usize) -> PathBuf {
    use imago::FormatCreateBuilder;
    let path = dir.raw(name, 0);
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let storage = imago::file::File::try_from(file).unwrap();
    imago::qcow2::Qcow2::<imago::file::File>::create_builder(storage)
        .size(SAMPLE)
        .cluster_size(cluster)
        .refcount_width(count_bits)
        .create()
        .unwrap();
    let mut model = vec![0; SAMPLE as usize];
    exercise(&mut *default(&path), &mut model, 8, 60);
    path
}

const SAMPLE: u64 = 2 * MIB;

/// Whatever a guest can do with an image that could be opened: errors are fine.
fn use_up(disk: &mut dyn BlockBackend, random: &mut Random) {
    for _ in 0..20 {
        let sectors = disk.sectors();
        let count = (1 + random.below(300)).min(sectors);
        let lba = random.below(sectors - count + 1);
        let mut data = vec![random.next() as u8; count as usize * SECTOR];
        match random.below(4) {
            0 => drop(disk.read(lba, &mut data)),
            1 => drop(disk.write_zeroes(lba, count, false)),
            2 => drop(disk.flush()),
            _ => drop(disk.write(lba, &data)),
        }
    }
}

/// Flips bits, above all where the image's tables are, for many seeds and sizes of clusters.
#[test]
fn flipped_bits_are_refused_or_do_no_harm() {
    let dir = Dir::new("flips");
    for (cluster, count_bits) in [(65536, 16), (512, 1), (4096, 64), (1024, 8)] {
        let path = sample(&dir, "sample", cluster, count_bits);
        let sample = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let (mut refused, mut opened) = (0, 0);
        for seed in 1..160 {
            match flip(&path, &sample, cluster as u64, seed) {
                true => opened += 1,
                false => refused += 1,
            }
        }
        assert!(
            refused > 25 && opened > 10,
            "clusters of {cluster}: {refused} refused, {opened} opened"
        );
    }
}

/// Whether the image with a few bits flipped could be opened.
fn flip(path: &Path, sample: &[u8], cluster: u64, seed: u64) -> bool {
    let mut random = Random::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut bytes = sample.to_vec();
    for _ in 0..1 + random.below(4) {
        // The first clusters are header, reference counts, and tables.
        let at = match random.below(4) {
            0 => random.below(120),
            1 => random.below(5) * cluster + random.below(64),
            2 => random.below(5 * cluster),
            _ => random.below(bytes.len() as u64),
        };
        bytes[at as usize] ^= 1 << random.below(8);
    }
    std::fs::write(path, &bytes).unwrap();
    let opened = match open(path, &ImageOptions::default()) {
        Err(error) => {
            let after = std::fs::read(path).unwrap();
            assert!(after == bytes, "seed {seed}: {error}");
            false
        }
        Ok(mut disk) => {
            use_up(&mut *disk, &mut random);
            true
        }
    };
    // Nothing was written far away.
    let len = std::fs::metadata(path).unwrap().len();
    assert!(len < 64 * MIB, "seed {seed}: {len} bytes");
    opened
}

#[test]
fn cut_off_images_are_refused() {
    let dir = Dir::new("cut");
    let path = sample(&dir, "sample", 65536, 16);
    let bytes = std::fs::read(&path).unwrap();
    let mut random = Random::new(9);
    let mut lengths: Vec<usize> = (0..40)
        .map(|_| random.below(bytes.len() as u64) as usize)
        .collect();
    lengths.extend([0, 1, 3, 4, 5, 71, 72, 103, 104, 511, 512, 0xffff, 0x10000]);
    for len in lengths {
        // An image may end within its last cluster of data.
        if bytes.len() - len < 0x10000 {
            continue;
        }
        std::fs::write(&path, &bytes[..len]).unwrap();
        let message = error(
            &path,
            &ImageOptions {
                format: Some(Format::Qcow2),
                ..ImageOptions::default()
            },
        );
        assert!(
            message.starts_with(&path.display().to_string()),
            "{message}"
        );
    }
}

fn with(path: &Path, changes: &[(u64, &[u8])]) {
    let file = File::options().write(true).open(path).unwrap();
    for (at, bytes) in changes {
        file.write_all_at(bytes, *at).unwrap();
    }
}

#[test]
fn headers_that_ask_for_too_much_or_the_unknown() {
    let dir = Dir::new("headers");
    type Case<'a> = (&'a str, &'a [(u64, &'a [u8])]);
    let cases: [Case<'_>; 14] = [
        ("version 9", &[(7, &[9])]),
        ("clusters of 2^40", &[(23, &[40])]),
        ("encrypted", &[(35, &[1])]),
        ("first-level table", &[(36, &[0xff; 4])]),
        ("first-level table", &[(36, &[0; 4])]),
        ("first-level table", &[(40, &[0x7f; 8])]),
        ("reference counts", &[(56, &[0xff; 4])]),
        ("reference counts", &[(48, &[0xff; 8])]),
        ("a disk of", &[(24, &[0xff; 8])]),
        ("a disk of 0 bytes", &[(24, &[0; 8])]),
        ("qemu-img check", &[(79, &[1])]),
        ("another file", &[(79, &[4])]),
        ("extended", &[(79, &[16])]),
        ("2^99 bits", &[(99, &[99])]),
    ];
    for (i, (expected, changes)) in cases.into_iter().enumerate() {
        let path = dir.qcow2(&format!("image-{i}"), MIB, None);
        with(&path, changes);
        let message = error(&path, &ImageOptions::default());
        assert!(message.contains(expected), "{expected}: {message}");
    }
}

#[test]
fn tables_that_overlap_are_refused() {
    let dir = Dir::new("overlap");
    let path = dir.qcow2("image", MIB, None);
    let mut disk = default(&path);
    disk.write(0, &[1; 65536]).unwrap();
    disk.write(128, &[2; 65536]).unwrap();
    drop(disk);
    let bytes = std::fs::read(&path).unwrap();
    let entry = |at: u64| u64::from_be_bytes(std::array::from_fn(|i| bytes[at as usize + i]));
    let l1 = entry(40);
    let l2 = entry(l1) & !(1 << 63);
    let data = entry(l2 + 8);
    let copied = 1u64 << 63;
    let cases = [
        // The first cluster's data in the header, in a table, in another cluster's data.
        (l2, copied, "in use for something else"),
        (l2, copied | l2, "in use for something else"),
        (l2, data, "in use for something else"),
        (l2, copied | 1 << 40, "outside the file"),
        (l2, copied | l2 | 0x200, "does not begin with a cluster"),
        (l2, 1 << 57, "makes no sense"),
        (l1, copied | 1 << 50, "outside the file"),
        (l1, copied | l1, "in use for something else"),
        // The first block of reference counts counts nothing.
        (entry(entry(48)), 0, "not counted"),
    ];
    for (at, value, expected) in cases {
        let value = if value == copied {
            copied | 0x1_0000
        } else {
            value
        };
        std::fs::write(&path, &bytes).unwrap();
        with(&path, &[(at, &value.to_be_bytes())]);
        let message = error(&path, &ImageOptions::default());
        assert!(message.contains(expected), "{expected}: {message}");
        assert!(info(&path, None).unwrap().defect.is_some());
    }
}

#[test]
fn files_that_are_no_disks() {
    let dir = Dir::new("nodisks");
    let options = ImageOptions::default();
    let message = error(&dir.0, &options);
    assert!(message.contains("is a directory"), "{message}");
    let missing = open(&dir.file("none"), &options).err().unwrap();
    assert!(missing.is_not_found(), "{missing}");
    let message = error(Path::new("/dev/null"), &options);
    assert!(
        message.contains("neither a file nor a block device"),
        "{message}"
    );
    assert!(error(&dir.raw("empty", 0), &options).contains("empty"));
    let torn = dir.raw("torn", 1025);
    std::fs::write(&torn, [3; 1025]).unwrap();
    assert!(error(&torn, &options).contains("no whole number of sectors"));
    let mut disk = open(&torn, &read_only()).unwrap();
    assert_eq!(disk.sectors(), 3);
    let all = contents(&mut *disk);
    assert_eq!((all[1024], all[1025]), (3, 0));
    drop(disk);
    let mut disk = open(
        &torn,
        &ImageOptions {
            snapshot: Some(dir.0.clone()),
            ..options
        },
    )
    .unwrap();
    disk.write(2, &[4; 512]).unwrap();
    assert_eq!(contents(&mut *disk)[1024..], [4; 512]);
    assert_eq!(std::fs::read(&torn).unwrap(), [3; 1025]);
}

#[test]
fn backing_files_that_are_not_there_or_go_around() {
    let dir = Dir::new("loops");
    let options = ImageOptions::default();
    dir.qcow2("itself", MIB, Some(("itself", Format::Qcow2)));
    // The image is locked for writing when it is met again; reading alone finds the loop.
    error(&dir.file("itself"), &options);
    let message = error(&dir.file("itself"), &read_only());
    assert!(message.contains("its own backing file"), "{message}");
    dir.qcow2("one", MIB, Some(("two", Format::Qcow2)));
    dir.qcow2("two", MIB, Some(("one", Format::Qcow2)));
    let message = error(&dir.file("one"), &read_only());
    assert!(message.contains("its own backing file"), "{message}");
    let orphan = dir.qcow2("orphan", MIB, Some(("nowhere", Format::Raw)));
    let message = error(&orphan, &options);
    assert!(
        message.contains("backing file") && message.contains("no such file"),
        "{message}"
    );
    let remote = dir.qcow2("remote", MIB, Some(("nbd://host/disk", Format::Raw)));
    assert!(error(&remote, &options).contains("is no file"));
    let within = dir.qcow2("within", MIB, Some(("..", Format::Raw)));
    assert!(error(&within, &options).contains("is a directory"));
    for i in 0..70 {
        let (name, below) = (format!("chain-{i}"), format!("chain-{}", i + 1));
        dir.qcow2(&name, MIB, Some((&below, Format::Qcow2)));
    }
    assert!(error(&dir.file("chain-0"), &options).contains("too many backing files"));
}
