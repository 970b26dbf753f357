//! What a CD-ROM drive answers to command packets (MMC-3, SPC-3).

/// Where the program area of a CD begins: frame 150, after two seconds.
const LEAD_IN: u32 = 150;
/// The number by which the lead-out is known.
const LEAD_OUT: u8 = 0xaa;
/// A data track, copying not permitted.
const DATA_TRACK: u8 = 0x14;

/// Fixed format sense data.
pub(super) fn sense((key, code, qualifier): (u8, u8, u8)) -> Vec<u8> {
    let mut data = vec![0; 18];
    (data[0], data[2], data[7]) = (0x70, key, 10);
    (data[12], data[13]) = (code, qualifier);
    data
}

/// Standard INQUIRY data: a removable CD-ROM drive with the ATAPI response format.
pub(super) fn inquiry() -> Vec<u8> {
    let mut data = vec![0x05, 0x80, 0x00, 0x21, 31, 0, 0, 0];
    data.extend_from_slice(b"METAPHRS");
    data.extend_from_slice(b"CD-ROM          ");
    data.extend_from_slice(b"1.0 ");
    data
}

/// An address in a table of contents: blocks, or minute, second and frame.
fn address(block: u32, msf: bool) -> [u8; 4] {
    if !msf {
        return block.to_be_bytes();
    }
    let frame = block.saturating_add(LEAD_IN);
    let minute = (frame / (75 * 60)).min(255) as u8;
    [0, minute, (frame / 75 % 60) as u8, (frame % 75) as u8]
}

/// Puts the length in front, which does not count itself.
fn with_length(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u16).to_be_bytes(), body].concat()
}

/// READ TOC: the table of contents of a disc with one track. `None` for what there is not.
pub(super) fn toc(format: u8, first: u8, msf: bool, blocks: u32) -> Option<Vec<u8>> {
    let mut body = vec![1, 1];
    match format {
        0 => {
            if first > 1 && first != LEAD_OUT {
                return None;
            }
            if first <= 1 {
                body.extend([0, DATA_TRACK, 1, 0]);
                body.extend(address(0, msf));
            }
            body.extend([0, DATA_TRACK, LEAD_OUT, 0]);
            body.extend(address(blocks, msf));
        }
        // The only session.
        1 => {
            body.extend([0, DATA_TRACK, 1, 0]);
            body.extend(address(0, msf));
        }
        // All points: first track, last track, lead-out, and the track itself.
        2 => {
            let point = |point: u8, address: [u8; 3]| {
                let [m, s, f] = address;
                [1, DATA_TRACK, 0, point, 0, 0, 0, 0, m, s, f]
            };
            let at = |block| {
                let [_, m, s, f] = address(block, true);
                [m, s, f]
            };
            body.extend(point(0xa0, [1, 0, 0]));
            body.extend(point(0xa1, [1, 0, 0]));
            body.extend(point(0xa2, at(blocks)));
            body.extend(point(0x01, at(0)));
        }
        _ => return None,
    }
    Some(with_length(&body))
}

/// GET CONFIGURATION: the features from a number on (kind 0), those of them that are current (1),
/// or one (2). The drive knows the profile of CD-ROM.
pub(super) fn configuration(kind: u8, first: u16, disc: bool) -> Vec<u8> {
    const CD_ROM: u16 = 0x0008;
    let current = u8::from(disc);
    let [high, low] = CD_ROM.to_be_bytes();
    let features: [(u16, bool, Vec<u8>); 6] = [
        (0x0000, true, vec![0x03, 4, high, low, current, 0]),
        // Core: ATAPI.
        (0x0001, true, vec![0x0b, 8, 0, 0, 0, 2, 1, 0, 0, 0]),
        // Morphing, removable medium: a tray that ejects and locks.
        (0x0002, true, vec![0x07, 4, 2, 0, 0, 0]),
        (0x0003, true, vec![0x03, 4, 0x29, 0, 0, 0]),
        // Random reading in blocks of 2048 bytes.
        (0x0010, disc, vec![current, 8, 0, 0, 8, 0, 0, 1, 0, 0]),
        (0x001e, disc, vec![0x08 | current, 4, 0, 0, 0, 0]),
    ];
    let profile = if disc { CD_ROM } else { 0 };
    let mut body = vec![0, 0];
    body.extend(profile.to_be_bytes());
    for (number, active, rest) in features {
        let wanted = match kind {
            0 => number >= first,
            1 => number >= first && active,
            _ => number == first,
        };
        if wanted {
            body.extend(number.to_be_bytes());
            body.extend(rest);
        }
    }
    let mut data = (body.len() as u32).to_be_bytes().to_vec();
    data.extend(body);
    data
}

/// GET EVENT STATUS NOTIFICATION: the media class, if it is wanted.
pub(super) fn event(wanted: bool, event: u8, open: bool, disc: bool) -> Vec<u8> {
    const MEDIA: u8 = 4;
    const SUPPORTED: u8 = 1 << MEDIA;
    if !wanted {
        return vec![0, 2, 0x80, SUPPORTED];
    }
    let status = u8::from(open) | u8::from(disc) << 1;
    vec![0, 6, MEDIA, SUPPORTED, event, status, 0, 0]
}

/// READ DISC INFORMATION: a finished disc with one session and one track.
pub(super) fn disc() -> Vec<u8> {
    let mut data = vec![0; 34];
    data[1] = 32;
    data[2] = 0x0e;
    data[3..7].fill(1);
    data[7] = 0x20;
    data[16..24].fill(0xff);
    data
}

/// MODE SENSE(10) of a page, or of all. Values are the same whichever kind of them is wanted, but
/// that none can be changed.
pub(super) fn mode_sense(page: u8, locked: bool) -> Option<Vec<u8>> {
    let error_recovery = [0x01, 6, 0, 5, 0, 0, 0, 0];
    // What the drive can do: it locks and ejects, has a tray, reads at 8 times the speed of audio
    // and has a buffer of 128 KiB.
    let locks = 0x29 | u8::from(locked) << 1;
    let [high, low] = 1410u16.to_be_bytes();
    let capabilities = [
        0x2a, 18, 0, 0, 0, 0x20, locks, 0, high, low, 0, 2, 0, 128, high, low, 0, 0, 0, 0,
    ];
    let mut pages: Vec<&[u8]> = Vec::new();
    if matches!(page & 0x3f, 0x01 | 0x3f) {
        pages.push(&error_recovery);
    }
    if matches!(page & 0x3f, 0x2a | 0x3f) {
        pages.push(&capabilities);
    }
    if pages.is_empty() || page >> 6 == 3 {
        return None;
    }
    let mut body = vec![0x01, 0, 0, 0, 0, 0];
    for page_data in pages {
        let start = body.len();
        body.extend_from_slice(page_data);
        if page >> 6 == 1 {
            body[start + 2..].fill(0);
        }
    }
    Some(with_length(&body))
}
