//! Writes CD images that boot: ISO 9660 (ECMA-119) at interchange level 1, with an El Torito boot
//! catalogue, and optionally a master boot record so that the same image boots as a disk.
//!
//! The loader is isolinux: its file gets a boot information table, and the boot record gets the
//! address of that file in front of a partition that spans the image.

use super::Error;
use std::collections::BTreeMap;

/// Bytes in a sector of a CD.
const SECTOR: usize = 2048;
const DESCRIPTOR: u32 = 16;
const BOOT_RECORD: u32 = 17;
const TERMINATOR: u32 = 18;
const CATALOGUE: u32 = 19;
const TABLES: u32 = 20;
/// What a disk with the image is taken to have: heads, sectors a track of 512 bytes.
const HEADS: usize = 64;
const TRACK: usize = 32;

/// A CD image under construction.
#[derive(Debug, Default)]
pub struct Iso {
    /// Paths in capitals to contents.
    files: BTreeMap<String, Vec<u8>>,
}

/// How the image boots.
#[derive(Clone, Copy, Debug)]
pub struct Boot<'b> {
    /// The loader's path.
    pub loader: &'b str,
    /// Boot code of 432 bytes for when it is a disk.
    pub disk: Option<&'b [u8]>,
}

/// A directory: where it is, and what is in it (the last parts of names, in order).
struct Directory {
    path: String,
    parent: usize,
    children: Vec<Child>,
    sector: u32,
    size: usize,
}

struct Child {
    name: String,
    /// The directory's number, or the file's path.
    what: Result<usize, String>,
}

impl Iso {
    /// Adds a file. Names have at most eight letters, digits or `_`, and three more after a dot;
    /// case does not matter.
    pub fn file(&mut self, path: &str, content: Vec<u8>) -> Result<(), Error> {
        let path = path.to_ascii_uppercase();
        let parts: Vec<&str> = path.split('/').collect();
        let (name, directories) = parts.split_last().unwrap_or((&"", &[]));
        let (stem, suffix) = name.split_once('.').unwrap_or((name, ""));
        let plain = |text: &str, length: usize| {
            let letter = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
            text.len() <= length && text.bytes().all(letter)
        };
        let named = directories.iter().all(|d| plain(d, 8) && !d.is_empty());
        if !named || stem.is_empty() || !plain(stem, 8) || !plain(suffix, 3) || parts.len() > 8 {
            return Err(Error::Content(format!("{path} is no name for a CD")));
        }
        if u32::try_from(content.len()).is_err() {
            return Err(Error::Content(format!("{path} is too large for a CD")));
        }
        self.files.insert(path, content);
        Ok(())
    }

    /// The image.
    pub fn finish(mut self, boot: Option<Boot<'_>>) -> Result<Vec<u8>, Error> {
        let mut directories = self.directories();
        let tables = table(&directories, u32::to_le_bytes, u16::to_le_bytes).len();
        let table_sectors = tables.div_ceil(SECTOR) as u32;
        let mut next = TABLES + 2 * table_sectors;
        for directory in &mut directories {
            directory.sector = next;
            directory.size = directory.layout().next_multiple_of(SECTOR);
            next += (directory.size / SECTOR) as u32;
        }
        let mut places = BTreeMap::new();
        for (path, content) in &self.files {
            places.insert(path.clone(), next);
            let sectors = content.len().div_ceil(SECTOR).max(1);
            next = (sectors as u32).checked_add(next).ok_or_else(too_large)?;
        }
        let loader = match boot {
            Some(boot) => Some(self.patch(boot.loader, &places)?),
            None => None,
        };
        // As a disk it ends with a cylinder.
        let cylinder = HEADS * TRACK * 512;
        let end = next as usize * SECTOR;
        let mut image = vec![0; end.next_multiple_of(cylinder)];
        let sectors = u32::try_from(image.len() / SECTOR).map_err(|_| too_large())?;
        let mut put = |sector: u32, bytes: &[u8]| {
            let start = sector as usize * SECTOR;
            image[start..start + bytes.len()].copy_from_slice(bytes);
        };
        put(DESCRIPTOR, &volume(&directories[0], sectors, tables));
        put(TERMINATOR, b"\xffCD001\x01");
        for (sector, bytes) in [
            (
                TABLES,
                table(&directories, u32::to_le_bytes, u16::to_le_bytes),
            ),
            (
                TABLES + table_sectors,
                table(&directories, u32::to_be_bytes, u16::to_be_bytes),
            ),
        ] {
            put(sector, &bytes);
        }
        for directory in &directories {
            put(
                directory.sector,
                &directory.records(&directories, &places, &self.files),
            );
        }
        for (path, content) in &self.files {
            put(places[path], content);
        }
        if let Some(sector) = loader {
            put(BOOT_RECORD, &boot_record());
            put(CATALOGUE, &catalogue(sector));
            if let Some(code) = boot.and_then(|boot| boot.disk) {
                let record = master_boot_record(code, sector, image.len())?;
                image[..512].copy_from_slice(&record);
            }
        }
        Ok(image)
    }

    /// All directories, the root first, those of a level before those below.
    fn directories(&self) -> Vec<Directory> {
        let mut all = vec![Directory::new(String::new(), 0)];
        let mut number = 0;
        while number < all.len() {
            let path = all[number].path.clone();
            let mut names: BTreeMap<String, Result<usize, String>> = BTreeMap::new();
            for file in self.files.keys() {
                let Some(rest) = file.strip_prefix(&path) else {
                    continue;
                };
                match rest.split_once('/') {
                    None => drop(names.insert(rest.into(), Err(file.clone()))),
                    Some((name, _)) if !names.contains_key(name) => {
                        all.push(Directory::new(format!("{path}{name}/"), number));
                        names.insert(name.into(), Ok(all.len() - 1));
                    }
                    Some(_) => {}
                }
            }
            let children = names.into_iter().map(|(name, what)| Child { name, what });
            all[number].children = children.collect();
            number += 1;
        }
        all
    }

    /// Writes the boot information table into the loader; its sector.
    fn patch(&mut self, loader: &str, places: &BTreeMap<String, u32>) -> Result<u32, Error> {
        let path = loader.to_ascii_uppercase();
        let (Some(file), Some(&sector)) = (self.files.get_mut(&path), places.get(&path)) else {
            return Err(Error::Content(format!("{loader} is not on the CD")));
        };
        if file.len() < 64 {
            return Err(Error::Content(format!("{loader} is no loader")));
        }
        let word = |bytes: &[u8]| {
            let mut padded = [0; 4];
            padded[..bytes.len()].copy_from_slice(bytes);
            u32::from_le_bytes(padded)
        };
        let words = file[64..].chunks(4).map(word);
        let sum = words.fold(0, u32::wrapping_add);
        let length = file.len() as u32;
        for (n, value) in [DESCRIPTOR, sector, length, sum].into_iter().enumerate() {
            file[8 + 4 * n..][..4].copy_from_slice(&value.to_le_bytes());
        }
        file[24..64].fill(0);
        Ok(sector)
    }
}

impl Directory {
    fn new(path: String, parent: usize) -> Directory {
        Directory {
            path,
            parent,
            children: Vec::new(),
            sector: 0,
            size: 0,
        }
    }

    /// How many bytes the records take; none crosses the end of a sector.
    fn layout(&self) -> usize {
        let lengths = self.children.iter().map(|child| child.record(0, 0).len());
        lengths.fold(2 * 34, |at, length| place(at, length) + length)
    }

    fn records(
        &self,
        all: &[Directory],
        places: &BTreeMap<String, u32>,
        files: &BTreeMap<String, Vec<u8>>,
    ) -> Vec<u8> {
        let parent = &all[self.parent];
        let mut bytes = record(&[0], self.sector, self.size, true);
        bytes.extend(record(&[1], parent.sector, parent.size, true));
        for child in &self.children {
            let record = match &child.what {
                Ok(number) => child.record(all[*number].sector, all[*number].size),
                Err(path) => child.record(places[path], files[path].len()),
            };
            bytes.resize(place(bytes.len(), record.len()), 0);
            bytes.extend(record);
        }
        bytes
    }
}

impl Child {
    fn record(&self, sector: u32, size: usize) -> Vec<u8> {
        match &self.what {
            Ok(_) => record(self.name.as_bytes(), sector, size, true),
            Err(_) => {
                let dot = if self.name.contains('.') { "" } else { "." };
                let name = format!("{}{dot};1", self.name);
                record(name.as_bytes(), sector, size, false)
            }
        }
    }
}

/// Where a record of that length goes, if `at` is the next free byte.
fn place(at: usize, length: usize) -> usize {
    match at % SECTOR + length > SECTOR {
        true => at.next_multiple_of(SECTOR),
        false => at,
    }
}

fn too_large() -> Error {
    Error::Content("the files are too large for a CD".into())
}

/// A number of 32 bits in both byte orders.
fn both(value: u32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&value.to_le_bytes());
    bytes[4..].copy_from_slice(&value.to_be_bytes());
    bytes
}

/// A directory record (ECMA-119, 9.1).
fn record(name: &[u8], sector: u32, size: usize, directory: bool) -> Vec<u8> {
    let mut bytes = vec![0; 33 + name.len() + (name.len() + 1) % 2];
    bytes[0] = bytes.len() as u8;
    bytes[2..10].copy_from_slice(&both(sector));
    bytes[10..18].copy_from_slice(&both(size as u32));
    // The first of January 2000.
    bytes[18..21].copy_from_slice(&[100, 1, 1]);
    bytes[25] = if directory { 2 } else { 0 };
    bytes[28..32].copy_from_slice(&[1, 0, 0, 1]);
    bytes[32] = name.len() as u8;
    bytes[33..33 + name.len()].copy_from_slice(name);
    bytes
}

/// A path table (9.4), in one byte order.
fn table(
    directories: &[Directory],
    long: fn(u32) -> [u8; 4],
    short: fn(u16) -> [u8; 2],
) -> Vec<u8> {
    let mut bytes = Vec::new();
    for directory in directories {
        let path = directory.path.trim_end_matches('/');
        let name = match path.rsplit('/').next() {
            None | Some("") => &[0],
            Some(name) => name.as_bytes(),
        };
        bytes.extend([name.len() as u8, 0]);
        bytes.extend(long(directory.sector));
        bytes.extend(short(directory.parent as u16 + 1));
        bytes.extend(name);
        bytes.resize(bytes.len().next_multiple_of(2), 0);
    }
    bytes
}

/// The primary volume descriptor (8.4).
fn volume(root: &Directory, sectors: u32, tables: usize) -> Vec<u8> {
    let mut bytes = vec![0; SECTOR];
    bytes[..7].copy_from_slice(b"\x01CD001\x01");
    bytes[8..72].fill(b' ');
    bytes[40..50].copy_from_slice(b"METAPHRASE");
    bytes[80..88].copy_from_slice(&both(sectors));
    // One volume, number one, sectors of 2048 bytes.
    bytes[120..132].copy_from_slice(&[1, 0, 0, 1, 1, 0, 0, 1, 0, 8, 8, 0]);
    bytes[132..140].copy_from_slice(&both(tables as u32));
    let table_sectors = tables.div_ceil(SECTOR) as u32;
    bytes[140..144].copy_from_slice(&TABLES.to_le_bytes());
    bytes[148..152].copy_from_slice(&(TABLES + table_sectors).to_be_bytes());
    bytes[156..190].copy_from_slice(&record(&[0], root.sector, root.size, true));
    bytes[190..813].fill(b' ');
    // Four times that are not given.
    for at in [813, 830, 847, 864] {
        bytes[at..at + 16].fill(b'0');
    }
    bytes[881] = 1;
    bytes
}

/// The boot record volume descriptor (El Torito, figure 7).
fn boot_record() -> Vec<u8> {
    let mut bytes = vec![0; SECTOR];
    bytes[..7].copy_from_slice(b"\0CD001\x01");
    bytes[7..30].copy_from_slice(b"EL TORITO SPECIFICATION");
    bytes[71..75].copy_from_slice(&CATALOGUE.to_le_bytes());
    bytes
}

/// The boot catalogue: one loader, without emulation of another medium.
fn catalogue(loader: u32) -> Vec<u8> {
    let mut bytes = vec![0; SECTOR];
    // The validation entry's words add up to zero.
    bytes[0] = 1;
    bytes[28..32].copy_from_slice(&[0xaa, 0x55, 0x55, 0xaa]);
    bytes[32] = 0x88;
    // Four sectors of 512 bytes; the loader reads the rest of itself.
    bytes[38] = 4;
    bytes[40..44].copy_from_slice(&loader.to_le_bytes());
    bytes
}

/// The first sector of the image as a disk: code, the loader's address in sectors of 512 bytes, and
/// one active partition with everything.
fn master_boot_record(code: &[u8], loader: u32, size: usize) -> Result<[u8; 512], Error> {
    if code.len() != 432 {
        return Err(Error::Content(
            "the disk's boot code has not 432 bytes".into(),
        ));
    }
    let sectors = u32::try_from(size / 512).map_err(|_| too_large())?;
    let last = (size / (HEADS * TRACK * 512)).clamp(1, 1024) - 1;
    let mut bytes = [0; 512];
    bytes[..432].copy_from_slice(code);
    bytes[432..436].copy_from_slice(&(loader * 4).to_le_bytes());
    bytes[440..444].copy_from_slice(b"mphr");
    bytes[446..450].copy_from_slice(&[0x80, 0, 1, 0]);
    // Hidden, so that nobody writes to it.
    bytes[450] = 0x17;
    bytes[451] = HEADS as u8 - 1;
    bytes[452] = TRACK as u8 | (last >> 2) as u8 & 0xc0;
    bytes[453] = last as u8;
    bytes[458..462].copy_from_slice(&sectors.to_le_bytes());
    bytes[510..].copy_from_slice(&[0x55, 0xaa]);
    Ok(bytes)
}
