//! Packets for the guest, collected until they are handed over all at once.

use std::net::{Ipv4Addr, SocketAddrV4};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket,
    UdpRepr,
};

use super::MTU;
use super::link::MOST_FOR_GUEST;

/// Bytes before the packet, which [`super::ether::Ether`] fills in.
pub const HEAD: usize = 14;
/// Bytes of an IP header.
const IP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const HOP_LIMIT: u8 = 64;
/// Packets that are sent whether there is room or not (answers of services).
const RESERVE: usize = 64;

/// Packets for the guest.
#[derive(Default)]
pub struct Out {
    /// IP packets with room for the frame's header.
    pub packets: Vec<Vec<u8>>,
    /// How many more are welcome.
    room: usize,
    ident: u16,
}

impl Out {
    /// So many are welcome.
    pub fn set_room(&mut self, room: usize) {
        self.room = room.saturating_sub(self.packets.len());
    }

    /// Whether one more is welcome.
    pub fn has_room(&self) -> bool {
        self.room > 0
    }

    /// Adds a packet of that length. If there is far too much already, it is lost.
    pub fn packet<R>(&mut self, len: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        let mut frame = vec![0; HEAD + len];
        let result = fill(&mut frame[HEAD..]);
        if self.room > 0 || self.packets.len() < MOST_FOR_GUEST + RESERVE {
            self.packets.push(frame);
        }
        self.room = self.room.saturating_sub(1);
        result
    }

    fn ip(&mut self, header: Ipv4Repr, fill: impl FnOnce(&mut [u8])) {
        self.packet(IP_HEADER + header.payload_len, |bytes| {
            let mut packet = Ipv4Packet::new_unchecked(bytes);
            header.emit(&mut packet, &ChecksumCapabilities::default());
            fill(packet.payload_mut());
        });
    }

    /// Adds a datagram, in fragments if it is too long for one packet.
    pub fn udp(&mut self, from: SocketAddrV4, to: SocketAddrV4, data: &[u8]) {
        let len = UDP_HEADER + data.len();
        let repr = UdpRepr {
            src_port: from.port(),
            dst_port: to.port(),
        };
        let emit = |bytes: &mut [u8]| {
            repr.emit(
                &mut UdpPacket::new_unchecked(bytes),
                &(*from.ip()).into(),
                &(*to.ip()).into(),
                data.len(),
                |payload| payload.copy_from_slice(data),
                &ChecksumCapabilities::default(),
            );
        };
        let header = |payload_len| header(*from.ip(), *to.ip(), IpProtocol::Udp, payload_len);
        if len > usize::from(u16::MAX) - IP_HEADER {
            return;
        }
        if len <= MTU - IP_HEADER {
            return self.ip(header(len), emit);
        }
        let mut whole = vec![0; len];
        emit(&mut whole);
        self.ident = self.ident.wrapping_add(1);
        let (ident, step) = (self.ident, (MTU - IP_HEADER) / 8 * 8);
        for (n, piece) in whole.chunks(step).enumerate() {
            self.packet(IP_HEADER + piece.len(), |bytes| {
                let mut packet = Ipv4Packet::new_unchecked(bytes);
                header(piece.len()).emit(&mut packet, &ChecksumCapabilities::default());
                packet.clear_flags();
                packet.set_ident(ident);
                packet.set_frag_offset((n * step) as u16);
                packet.set_more_frags(n * step + piece.len() < len);
                packet.fill_checksum();
                packet.payload_mut().copy_from_slice(piece);
            });
        }
    }

    /// Adds the answer to a ping.
    pub fn echo(&mut self, from: Ipv4Addr, to: Ipv4Addr, ident: u16, seq_no: u16, data: &[u8]) {
        let reply = Icmpv4Repr::EchoReply {
            ident,
            seq_no,
            data,
        };
        self.icmp(from, to, &reply);
    }

    /// Says that a datagram was refused.
    pub fn refuse_udp(
        &mut self,
        guest: SocketAddrV4,
        remote: SocketAddrV4,
        len: usize,
        reason: Icmpv4DstUnreachable,
    ) {
        let len = UDP_HEADER.saturating_add(len).min(u16::MAX.into());
        let mut start = [0; UDP_HEADER];
        start[..2].copy_from_slice(&guest.port().to_be_bytes());
        start[2..4].copy_from_slice(&remote.port().to_be_bytes());
        start[4..6].copy_from_slice(&(len as u16).to_be_bytes());
        let message = Icmpv4Repr::DstUnreachable {
            reason,
            header: header(*guest.ip(), *remote.ip(), IpProtocol::Udp, len),
            data: &start,
        };
        self.icmp(*remote.ip(), *guest.ip(), &message);
    }

    fn icmp(&mut self, from: Ipv4Addr, to: Ipv4Addr, message: &Icmpv4Repr<'_>) {
        let header = header(from, to, IpProtocol::Icmp, message.buffer_len());
        self.ip(header, |bytes| {
            let mut packet = Icmpv4Packet::new_unchecked(bytes);
            message.emit(&mut packet, &ChecksumCapabilities::default());
        });
    }
}

fn header(from: Ipv4Addr, to: Ipv4Addr, next_header: IpProtocol, payload_len: usize) -> Ipv4Repr {
    Ipv4Repr {
        src_addr: from,
        dst_addr: to,
        next_header,
        payload_len,
        hop_limit: HOP_LIMIT,
    }
}
