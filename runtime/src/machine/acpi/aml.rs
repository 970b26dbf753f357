//! AML, the byte code of ACPI's definition blocks (ACPI specification, chapter 20): as much of it as
//! a board needs. Every function gives the bytes of one term.

/// Bytes of AML.
pub(super) type Aml = Vec<u8>;

/// Terms one after another.
pub(super) fn terms(all: impl IntoIterator<Item = Aml>) -> Aml {
    all.into_iter().flatten().collect()
}

/// A package length (20.2.4) with what it counts: the body, and itself.
fn counted(body: &[u8]) -> Aml {
    let mut out = if body.len() < 63 {
        vec![body.len() as u8 + 1]
    } else if body.len() < 0xffe {
        let len = body.len() + 2;
        vec![0x40 | (len & 15) as u8, (len >> 4) as u8]
    } else {
        let len = body.len() + 3;
        vec![0x80 | (len & 15) as u8, (len >> 4) as u8, (len >> 12) as u8]
    };
    out.extend(body);
    out
}

fn packaged(opcode: &[u8], body: &[u8]) -> Aml {
    [opcode, &counted(body)].concat()
}

/// A name or a path, as ASL spells it.
pub(super) fn path(text: &str) -> Aml {
    let (root, rest) = match text.strip_prefix('\\') {
        Some(rest) => (&b"\\"[..], rest),
        None => (&[][..], text),
    };
    let segments: Vec<&str> = rest.split('.').collect();
    debug_assert!(segments.iter().all(|s| s.len() == 4), "{text}");
    let prefix = match segments.len() {
        1 => vec![],
        2 => vec![0x2e],
        n => vec![0x2f, n as u8],
    };
    [root, &prefix, segments.concat().as_bytes()].concat()
}

/// A number.
pub(super) fn int(value: u64) -> Aml {
    let bytes = value.to_le_bytes();
    match value {
        0 => vec![0x00],
        1 => vec![0x01],
        2..=0xff => [&[0x0a], &bytes[..1]].concat(),
        0x100..=0xffff => [&[0x0b], &bytes[..2]].concat(),
        0x1_0000..=0xffff_ffff => [&[0x0c], &bytes[..4]].concat(),
        _ => [&[0x0e], &bytes[..]].concat(),
    }
}

/// A string.
pub(super) fn text(value: &str) -> Aml {
    [&[0x0d], value.as_bytes(), &[0]].concat()
}

/// A compressed identifier such as PNP0A03 (19.3.4).
pub(super) fn eisa(id: &str) -> Aml {
    let letters = id.bytes().take(3);
    let vendor = letters.fold(0u32, |all, c| all << 5 | u32::from(c - b'@'));
    let product = u32::from_str_radix(id.get(3..).unwrap_or(""), 16).unwrap_or(0);
    [&[0x0c][..], &(vendor << 16 | product).to_be_bytes()].concat()
}

/// Name (…).
pub(super) fn name(at: &str, value: Aml) -> Aml {
    [vec![0x08], path(at), value].concat()
}

/// Scope (…) {…}.
pub(super) fn scope(at: &str, body: Aml) -> Aml {
    packaged(&[0x10], &[path(at), body].concat())
}

/// Device (…) {…}.
pub(super) fn device(at: &str, body: Aml) -> Aml {
    packaged(&[0x5b, 0x82], &[path(at), body].concat())
}

/// Method (…, arguments) {…}; one that makes names is serialised.
pub(super) fn method(at: &str, arguments: u8, serialised: bool, body: Aml) -> Aml {
    let flags = vec![arguments | u8::from(serialised) << 3];
    packaged(&[0x14], &[path(at), flags, body].concat())
}

/// Package {…}; at most 255 elements.
pub(super) fn package(elements: &[Aml]) -> Aml {
    packaged(
        &[0x12],
        &[&[elements.len() as u8], &elements.concat()[..]].concat(),
    )
}

/// Buffer {…}.
pub(super) fn buffer(bytes: &[u8]) -> Aml {
    packaged(&[0x11], &[&int(bytes.len() as u64), bytes].concat())
}

/// OperationRegion (…, PCI_Config, …).
pub(super) fn pci_region(at: &str, offset: u8, len: u8) -> Aml {
    let space = vec![2];
    [
        vec![0x5b, 0x80],
        path(at),
        space,
        int(offset.into()),
        int(len.into()),
    ]
    .concat()
}

/// Field (…, ByteAcc, NoLock, Preserve) with a name for each byte.
pub(super) fn byte_field(region: &str, names: &[String]) -> Aml {
    let mut body = path(region);
    body.push(1);
    for name in names {
        body.extend(path(name));
        body.push(8);
    }
    packaged(&[0x5b, 0x81], &body)
}

/// Local0 to Local7.
pub(super) fn local(n: u8) -> Aml {
    vec![0x60 + n]
}

/// Arg0 to Arg6.
pub(super) fn arg(n: u8) -> Aml {
    vec![0x68 + n]
}

/// Store (value, target).
pub(super) fn store(value: Aml, target: Aml) -> Aml {
    [vec![0x70], value, target].concat()
}

/// And (a, b), with no target.
pub(super) fn and(a: Aml, b: Aml) -> Aml {
    [vec![0x7b], a, b, vec![0]].concat()
}

/// Or (a, b, target).
pub(super) fn or(a: Aml, b: Aml, target: Aml) -> Aml {
    [vec![0x7d], a, b, target].concat()
}

/// LNot (a).
pub(super) fn not(a: Aml) -> Aml {
    [vec![0x92], a].concat()
}

/// If (…) {…}.
pub(super) fn when(condition: Aml, body: Aml) -> Aml {
    packaged(&[0xa0], &[condition, body].concat())
}

/// Return (…).
pub(super) fn give(value: Aml) -> Aml {
    [vec![0xa4], value].concat()
}

/// CreateDWordField (buffer, index, name).
pub(super) fn dword_field(buffer: Aml, index: u8, at: &str) -> Aml {
    [vec![0x8a], buffer, int(index.into()), path(at)].concat()
}

/// ResourceTemplate {…} of descriptors (6.4).
pub(super) fn resources(descriptors: &[Aml]) -> Aml {
    let mut bytes = descriptors.concat();
    // The end tag, with a checksum that is not used.
    bytes.extend([0x79, 0]);
    buffer(&bytes)
}

/// Ports at a fixed place.
pub(super) fn ports(first: u16, len: u8) -> Aml {
    let [low, high] = first.to_le_bytes();
    vec![0x47, 1, low, high, low, high, 1, len]
}

/// An edge-triggered interrupt request of the ISA bus.
pub(super) fn irq(n: u8) -> Aml {
    let [low, high] = (1u16 << n).to_le_bytes();
    vec![0x22, low, high]
}

/// An ISA DMA channel: 8 bits, no bus master, compatible timing.
pub(super) fn dma(channel: u8) -> Aml {
    vec![0x2a, 1 << channel, 0]
}

/// Interrupts one of which is used, level-triggered, active high, shared. The number of the first
/// is in byte 5.
pub(super) fn interrupts(any_of: &[u32]) -> Aml {
    let len = 2 + 4 * any_of.len() as u8;
    let mut out = vec![0x89, len, 0, 0x09, any_of.len() as u8];
    out.extend(any_of.iter().flat_map(|n| n.to_le_bytes()));
    out
}

/// Memory at a fixed place, read-only for others.
pub(super) fn fixed_memory(start: u32, len: u32) -> Aml {
    let mut out = vec![0x86, 9, 0, 0];
    out.extend(start.to_le_bytes());
    out.extend(len.to_le_bytes());
    out
}

/// An address space that a bridge passes on: of buses (2) or ports (1).
pub(super) fn word_space(kind: u8, flags: u8, first: u16, last: u16) -> Aml {
    let mut out = vec![0x88, 13, 0, kind, 0x0c, flags];
    // All 1_0000h values would not fit; nobody has them.
    for word in [0, first, last, 0, (last - first).wrapping_add(1)] {
        out.extend(word.to_le_bytes());
    }
    out
}

/// Memory that a bridge passes on.
pub(super) fn memory_space(first: u32, last: u32) -> Aml {
    let mut out = vec![0x87, 23, 0, 0, 0x0c, 1];
    for dword in [0, first, last, 0, last - first + 1] {
        out.extend(dword.to_le_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_count_themselves() {
        assert_eq!(counted(&[7; 62])[..2], [63, 7]);
        assert_eq!(counted(&[7; 63])[..3], [0x41, 4, 7]);
        assert_eq!(counted(&[7; 0xffd])[..3], [0x4f, 0xff, 7]);
        assert_eq!(counted(&[7; 0xffe])[..4], [0x81, 0, 1, 7]);
    }

    #[test]
    fn names_and_numbers() {
        assert_eq!(path("\\_SB_.PCI0"), b"\\\x2e_SB_PCI0");
        assert_eq!(path("\\_SB_.PCI0.ISA_"), b"\\\x2f\x03_SB_PCI0ISA_");
        assert_eq!(int(0x1234), [0x0b, 0x34, 0x12]);
        assert_eq!(eisa("PNP0A03"), [0x0c, 0x41, 0xd0, 0x0a, 0x03]);
        assert_eq!(buffer(&[9]), [0x11, 3, 1, 9]);
    }
}
