//! Errors of the host, while a machine runs and before.

use super::*;

#[test]
fn an_image_that_is_truncated_while_in_use() {
    let dir = Dir::new("truncated");
    let base = dir.raw("base", MIB);
    let raw = dir.raw("raw", MIB);
    let qcow2 = dir.qcow2("qcow2", MIB, None);
    let behind = dir.qcow2("behind", MIB, Some(("base", Format::Raw)));
    for (path, cut) in [(&raw, &raw), (&qcow2, &qcow2), (&behind, &base)] {
        let told = Told::default();
        let mut disk = open(path, &told.options()).unwrap();
        disk.write(0, &[1; 512]).unwrap();
        disk.flush().unwrap();
        File::options()
            .write(true)
            .open(cut)
            .unwrap()
            .set_len(512)
            .unwrap();
        let mut data = [0; 512];
        for _ in 0..3 {
            assert!(matches!(
                disk.read(2047, &mut data),
                Err(BlockError::Host(_))
            ));
            assert!(matches!(disk.write(2047, &data), Err(BlockError::Host(_))));
        }
        // Writing did not let it grow again.
        assert_eq!(std::fs::metadata(cut).unwrap().len(), 512);
        let told = told.all();
        assert_eq!(
            told.len(),
            2,
            "once for reading, once for writing: {told:?}"
        );
        assert!(told[0].contains("truncated"), "{told:?}");
    }
}

#[test]
fn a_file_that_cannot_be_written() {
    // A program that is being executed can be read and not written, even by root.
    let path = std::env::current_exe().unwrap();
    let error = open(&path, &ImageOptions::default()).err().unwrap();
    assert!(matches!(error, ImageError::NotWritable(..)), "{error}");
    assert!(error.hint().unwrap().contains("readonly=on"));
    let dir = Dir::new("unwritable");
    for options in [
        read_only(),
        ImageOptions {
            snapshot: Some(dir.0.clone()),
            ..ImageOptions::default()
        },
    ] {
        let mut first = [0; 512];
        open(&path, &options).unwrap().read(0, &mut first).unwrap();
        assert_eq!(first[..4], *b"\x7fELF");
    }
    // A path through a file cannot even be looked at.
    let below = path.join("image");
    let error = open(&below, &ImageOptions::default()).err().unwrap();
    assert!(matches!(error, ImageError::Host(..)), "{error}");
}

#[test]
fn no_room_for_a_snapshot() {
    let dir = Dir::new("noroom");
    let raw = dir.raw("raw", MIB);
    let options = ImageOptions {
        snapshot: Some(dir.file("none")),
        ..ImageOptions::default()
    };
    let message = error(&raw, &options);
    assert!(message.contains("none"), "{message}");
}

#[test]
fn errors_are_told_once_a_kind() {
    let told = Told::default();
    let mut faults = Faults::new(Path::new("disk"), told.options().report);
    let full = io::Error::from(io::ErrorKind::StorageFull);
    for _ in 0..5 {
        let error = faults.host(Doing::Writing, &full);
        assert!(
            matches!(error, BlockError::Host(text) if text.starts_with("disk: cannot be written"))
        );
        faults.host(Doing::Flushing, &full);
    }
    assert_eq!(told.all().len(), 2);
}
