//! Whether a file is a sound qcow2 image (QEMU's `docs/interop/qcow2.txt`).
//!
//! The library that reads and writes these images trusts much of what they say. So before it sees a
//! file, everything that points somewhere is followed here once: header, both levels of tables, and
//! the reference counts. Each pointer must lead to a whole cluster inside the file that nothing else
//! uses, and what is used must be counted. A corrupt image is refused with what is wrong; a guest
//! cannot be made to write over the image's own tables.
//!
//! Memory is bounded: a bit for each cluster of the file, and one table at a time.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::file::HostFile;
use super::{Format, ImageError};

/// How a qcow2 image begins.
pub const MAGIC: [u8; 4] = *b"QFI\xfb";

/// Largest bitmap of used clusters, in bytes.
const MOST_BITS: u64 = 64 << 20;
/// Most bytes of second-level tables that are looked through.
const MOST_TABLES: u64 = 4 << 30;
/// Most entries in the first-level table, and most bytes of the table of reference count blocks,
/// as QEMU has it.
const MOST_L1: u64 = 4 << 20;
const MOST_REFERENCES: u64 = 8 << 20;

/// Bits of table entries that hold an offset.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;
/// Of a second-level entry: what version 2 and 3 leave reserved.
const RESERVED: u64 = 0x3f00_0000_0000_01fe;

/// What the header says, checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// Bytes of the disk.
    pub size: u64,
    /// The base-2 logarithm of the size of a cluster.
    pub cluster_bits: u32,
    /// The name of the backing file, as the image gives it, and its format.
    pub backing: Option<(String, Option<String>)>,
    version: u32,
    refcount_order: u32,
    l1: (u64, u64),
    references: (u64, u64),
}

/// What is known about an image without opening it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Info {
    /// Its format.
    pub format: Format,
    /// Bytes of the disk.
    pub size: u64,
    /// Bytes of the file.
    pub file: u64,
    /// The name of the backing file.
    pub backing: Option<String>,
    /// What is wrong with it.
    pub defect: Option<String>,
}

/// Looks at an image without changing it.
///
/// # Errors
/// If the file cannot be read, or its header is none.
pub fn info(path: &Path, format: Option<Format>) -> Result<Info, ImageError> {
    let file = HostFile::open(path, false)?;
    let format = match format {
        Some(format) => format,
        None => file.probe()?,
    };
    let (mut size, mut backing, mut defect) = (file.len, None, None);
    if format == Format::Qcow2 {
        let header = header(&file).map_err(|why| file.invalid(why))?;
        defect = tables(&file, &header, true).err();
        size = header.size;
        backing = header.backing.map(|(name, _)| name);
    }
    Ok(Info {
        format,
        size,
        file: file.len,
        backing,
        defect,
    })
}

/// Reads what there is; beyond the end of the file there are zeros.
fn read(file: &HostFile, at: u64, into: &mut [u8]) -> Result<(), String> {
    let mut done = 0;
    while done < into.len() {
        match file.file.read_at(&mut into[done..], at + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(format!("cannot be read: {error}")),
        }
    }
    into[done..].fill(0);
    Ok(())
}

/// Big-endian entries of a table.
fn entries(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    let (entries, _) = bytes.as_chunks::<8>();
    entries.iter().map(|bytes| u64::from_be_bytes(*bytes))
}

/// The header of an image.
pub(super) fn header(file: &HostFile) -> Result<Header, String> {
    let mut bytes = [0; 112];
    read(file, 0, &mut bytes)?;
    let long = |at: usize| u64::from_be_bytes(std::array::from_fn(|i| bytes[at + i]));
    let word = |at: usize| u32::from_be_bytes(std::array::from_fn(|i| bytes[at + i]));
    if bytes[..4] != MAGIC {
        return Err("is no qcow2 image".into());
    }
    let version = word(4);
    let own = match version {
        2 => 72,
        3 => 104,
        _ => return Err(format!("qcow2 version {version} is not supported")),
    };
    if file.len < own {
        return Err("the image is cut off within its header".into());
    }
    let cluster_bits = word(20);
    if !(9..=21).contains(&cluster_bits) {
        return Err(format!(
            "clusters of 2^{cluster_bits} bytes are not possible"
        ));
    }
    let cluster = 1 << cluster_bits;
    if word(32) != 0 {
        return Err("the image is encrypted, which is not supported".into());
    }
    let mut refcount_order = 4;
    let mut length = 72;
    if version == 3 {
        features(long(72))?;
        refcount_order = word(96);
        length = u64::from(word(100));
        if refcount_order > 6 {
            return Err(format!("reference counts of 2^{refcount_order} bits"));
        }
        if length < 104 || length > cluster || length % 8 != 0 {
            return Err(format!("a header of {length} bytes is not possible"));
        }
        if length > 104 && bytes[104] != 0 {
            return Err("clusters that are not compressed with deflate are not supported".into());
        }
    }
    let size = long(24);
    if size == 0 || !size.is_multiple_of(512) || size > 1 << 60 {
        return Err(format!("a disk of {size} bytes is not possible"));
    }
    let l1 = (long(40), u64::from(word(36)));
    let needed = size.div_ceil(cluster * (cluster / 8));
    if l1.1 < needed || l1.1 > MOST_L1 {
        return Err(format!(
            "a first-level table of {} entries does not fit the size of the disk",
            l1.1
        ));
    }
    let references = (long(48), u64::from(word(56)) << cluster_bits);
    if references.1 == 0 || references.1 > MOST_REFERENCES.max(cluster) {
        return Err(format!(
            "a table of reference counts of {} bytes",
            references.1
        ));
    }
    for (what, (at, len)) in [
        ("first-level table", (l1.0, l1.1 * 8)),
        ("table of reference counts", references),
    ] {
        let end = at.checked_add(len);
        if at == 0
            || at % cluster != 0
            || end.is_none_or(|end| end > file.len.next_multiple_of(cluster))
        {
            return Err(format!("the {what} at {at:#x} is outside the file"));
        }
    }
    let name = (long(8), u64::from(word(16)));
    let backing = backing(file, version, name, length, cluster)?;
    Ok(Header {
        size,
        cluster_bits,
        backing,
        version,
        refcount_order,
        l1,
        references,
    })
}

/// Refuses images that must not be opened without knowing what these bits mean.
fn features(incompatible: u64) -> Result<(), String> {
    let bits = [
        (
            1 << 0,
            "its reference counts are not up to date; qemu-img check -r all repairs it",
        ),
        (
            1 << 1,
            "it is marked as corrupt; qemu-img check -r all may repair it",
        ),
        (
            1 << 2,
            "its data are in another file, which is not supported",
        ),
        (1 << 3, "its compression is not supported"),
        (1 << 4, "its extended table entries are not supported"),
    ];
    match bits.iter().find(|(bit, _)| incompatible & bit != 0) {
        Some((_, why)) => Err((*why).into()),
        None if incompatible != 0 => Err(format!("unknown features {incompatible:#x}")),
        None => Ok(()),
    }
}

/// The backing file and its format.
fn backing(
    file: &HostFile,
    version: u32,
    (at, len): (u64, u64),
    header: u64,
    cluster: u64,
) -> Result<Option<(String, Option<String>)>, String> {
    const FORMAT: u32 = 0xe279_2aca;
    const FEATURE_NAMES: u32 = 0x6803_f857;
    let mut format = None;
    // Extensions: type, length, data, filled up to 8 bytes. Version 2 may have them only before the
    // name.
    let mut next = header;
    let limit = if version == 3 { cluster } else { at };
    loop {
        if next + 8 > limit {
            if version == 3 {
                return Err("the header's extensions do not end".into());
            }
            break;
        }
        let mut head = [0; 8];
        read(file, next, &mut head)?;
        let kind = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        let len = u64::from(u32::from_be_bytes([head[4], head[5], head[6], head[7]]));
        if kind == 0 {
            break;
        }
        if next + 8 + len > cluster {
            return Err("a header extension is longer than the header".into());
        }
        match kind {
            FORMAT => format = Some(text(file, next + 8, len)?),
            FEATURE_NAMES if len % 48 != 0 => {
                return Err(format!("feature names of {len} bytes are not possible"));
            }
            _ => {}
        }
        next += 8 + len.next_multiple_of(8);
    }
    if at == 0 || len == 0 {
        return Ok(None);
    }
    if len > 1023 || at.checked_add(len).is_none_or(|end| end > cluster) {
        return Err("the name of the backing file is outside the header".into());
    }
    Ok(Some((text(file, at, len)?, format)))
}

fn text(file: &HostFile, at: u64, len: u64) -> Result<String, String> {
    let mut bytes = vec![0; len as usize];
    read(file, at, &mut bytes)?;
    String::from_utf8(bytes).map_err(|_| "a name that is not UTF-8".into())
}

/// The clusters of a file, and which of them are spoken for.
struct Clusters {
    used: Vec<u64>,
    /// Those that hold compressed data, perhaps of several clusters of the disk.
    shared: Vec<u64>,
    count: u64,
    cluster_bits: u32,
}

impl Clusters {
    fn new(file: &HostFile, cluster_bits: u32) -> Result<Clusters, String> {
        let count = file.len.div_ceil(1 << cluster_bits);
        if count / 8 > MOST_BITS {
            return Err(format!(
                "a file of {} bytes is too large to be checked",
                file.len
            ));
        }
        Ok(Clusters {
            used: vec![0; count.div_ceil(64) as usize],
            shared: vec![0; count.div_ceil(64) as usize],
            count,
            cluster_bits,
        })
    }

    /// Takes the clusters of a range, which nobody else may have unless both share them.
    fn take(&mut self, at: u64, len: u64, share: bool, what: &str) -> Result<(), String> {
        let last = at.checked_add(len.max(1) - 1);
        let last = last.map(|last| last >> self.cluster_bits);
        let Some(last) = last.filter(|last| *last < self.count) else {
            return Err(format!("{what} at {at:#x} is outside the file"));
        };
        for cluster in at >> self.cluster_bits..=last {
            let (word, bit) = ((cluster / 64) as usize, 1 << (cluster % 64));
            if self.used[word] & bit != 0 && !(share && self.shared[word] & bit != 0) {
                return Err(format!("{what} at {at:#x} is in use for something else"));
            }
            self.used[word] |= bit;
            if share {
                self.shared[word] |= bit;
            }
        }
        Ok(())
    }

    /// Takes whole clusters for one use.
    fn claim(&mut self, at: u64, len: u64, what: &str) -> Result<(), String> {
        if at & ((1 << self.cluster_bits) - 1) != 0 {
            return Err(format!("{what} at {at:#x} does not begin with a cluster"));
        }
        self.take(at, len, false, what)
    }

    fn is_used(&self, cluster: u64) -> bool {
        let word = self.used.get((cluster / 64) as usize);
        word.is_some_and(|word| word >> (cluster % 64) & 1 != 0)
    }
}

/// Follows all pointers of an image. Reference counts matter only if it is to be written.
pub(super) fn tables(file: &HostFile, header: &Header, counts: bool) -> Result<(), String> {
    let cluster = 1u64 << header.cluster_bits;
    let mut clusters = Clusters::new(file, header.cluster_bits)?;
    clusters.claim(0, cluster, "the header")?;
    clusters.claim(header.l1.0, header.l1.1 * 8, "the first-level table")?;
    clusters.claim(
        header.references.0,
        header.references.1,
        "the table of reference counts",
    )?;
    let mut l1 = vec![0; header.l1.1 as usize * 8];
    read(file, header.l1.0, &mut l1)?;
    let mut references = vec![0; header.references.1 as usize];
    read(file, header.references.0, &mut references)?;
    for block in entries(&references).filter(|block| *block != 0) {
        clusters.claim(block, cluster, "a block of reference counts")?;
    }
    let used = entries(&l1).filter(|entry| entry & OFFSET != 0);
    if used.count() as u64 > MOST_TABLES / cluster {
        return Err("too many second-level tables".into());
    }
    let mut table = vec![0; cluster as usize];
    for entry in entries(&l1) {
        // Bit 63 says that there is no other reference to the table.
        if entry & !(OFFSET | 1 << 63) != 0 {
            return Err(format!("a first-level entry {entry:#x} makes no sense"));
        }
        let at = entry & OFFSET;
        if at != 0 {
            clusters.claim(at, cluster, "a second-level table")?;
            read(file, at, &mut table)?;
            for entry in entries(&table).filter(|entry| *entry != 0) {
                data(entry, header, &mut clusters)?;
            }
        }
    }
    if counts {
        counted(file, header, &clusters, &references)?;
    }
    Ok(())
}

/// Where a second-level entry points.
fn data(entry: u64, header: &Header, clusters: &mut Clusters) -> Result<(), String> {
    let nonsense = || format!("a second-level entry {entry:#x} makes no sense");
    if entry & COMPRESSED != 0 {
        if entry >> 63 != 0 {
            return Err(nonsense());
        }
        // An offset in bytes, and how many more sectors of 512 bytes the data reach into.
        let shift = 62 - (header.cluster_bits - 8);
        let at = entry & ((1 << shift) - 1);
        let more = (entry & (COMPRESSED - 1)) >> shift;
        // The last sector need not be there in full.
        let end = (at & !511) + (more + 1) * 512;
        let end = end.min(clusters.count << clusters.cluster_bits);
        return clusters.take(at, end.saturating_sub(at), true, "compressed data");
    }
    let reserved = RESERVED | if header.version == 2 { 1 } else { 0 };
    if entry & reserved != 0 {
        return Err(nonsense());
    }
    match entry & OFFSET {
        0 => Ok(()),
        at => clusters.claim(at, 1 << header.cluster_bits, "data"),
    }
}

/// That everything in use has a reference count, so that it is not given away again.
fn counted(
    file: &HostFile,
    header: &Header,
    clusters: &Clusters,
    references: &[u8],
) -> Result<(), String> {
    let cluster = 1u64 << header.cluster_bits;
    let order = header.refcount_order;
    // In a block; a count takes 2^order bits.
    let counts = (cluster * 8) >> order;
    let mut block = vec![0; cluster as usize];
    for (first, at) in (0..clusters.count)
        .step_by(counts as usize)
        .zip(entries(references).chain(std::iter::repeat(0)))
    {
        if at == 0 {
            block.fill(0);
        } else {
            read(file, at, &mut block)?;
        }
        for index in 0..counts.min(clusters.count - first) {
            if clusters.is_used(first + index) && is_zero(&block, index, order) {
                let at = (first + index) << header.cluster_bits;
                return Err(format!("the cluster at {at:#x} is in use and not counted"));
            }
        }
    }
    Ok(())
}

/// Whether a count in a block is zero.
fn is_zero(block: &[u8], index: u64, order: u32) -> bool {
    if order < 3 {
        let bit = (index << order) as usize;
        let mask = (1u16 << (1 << order)) - 1;
        return block[bit / 8] >> (bit % 8) & mask as u8 == 0;
    }
    let len = 1 << (order - 3);
    let at = index as usize * len;
    block[at..at + len].iter().all(|byte| *byte == 0)
}
