//! The link layer: who in the guest's network has which hardware address (ARP).
//!
//! Addresses are learnt from whatever the guest sends. Packets for a neighbour that is not known
//! wait until it has answered.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
};

use super::packet::HEAD;
use super::{GATEWAY, GATEWAY_MAC, NAME_SERVER, NETWORK};

/// Most packets that wait for answers.
const MOST_PARKED: usize = 64;
/// Time between two questions for the same neighbour.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Bytes of an ARP packet.
const ARP_LEN: usize = 28;

#[derive(Clone, Copy, Default)]
struct Neighbour {
    mac: Option<[u8; 6]>,
    asked: Option<Instant>,
}

/// The neighbours.
pub struct Ether {
    /// By the last byte of their address.
    neighbours: [Neighbour; 256],
    parked: VecDeque<Vec<u8>>,
}

/// The last byte of an address that a guest can have.
fn host_part(address: Ipv4Addr) -> Option<u8> {
    let [a, b, c, host] = address.octets();
    let taken = [0, 255, GATEWAY.octets()[3], NAME_SERVER.octets()[3]];
    ([a, b, c] == NETWORK && !taken.contains(&host)).then_some(host)
}

/// Whether a guest can have that address.
pub fn is_guest(address: Ipv4Addr) -> bool {
    host_part(address).is_some()
}

/// Where a packet that lies behind a frame's header goes.
fn destination(frame: &[u8]) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = frame.get(HEAD + 16..HEAD + 20)?.try_into().ok()?;
    Some(octets.into())
}

impl Ether {
    /// Nobody is known.
    pub fn new() -> Ether {
        Ether {
            neighbours: [Neighbour::default(); 256],
            parked: VecDeque::new(),
        }
    }

    /// Somebody has shown his addresses. Packets that have waited for them go to `frames`.
    pub fn learn(&mut self, address: Ipv4Addr, mac: EthernetAddress, frames: &mut Vec<Vec<u8>>) {
        let Some(host) = host_part(address).filter(|_| mac.is_unicast()) else {
            return;
        };
        let known = self.neighbours[usize::from(host)].mac.replace(mac.0);
        if known.is_none() {
            for frame in std::mem::take(&mut self.parked) {
                if destination(&frame) == Some(address) {
                    frames.push(addressed(frame, mac.0));
                } else {
                    self.parked.push_back(frame);
                }
            }
        }
    }

    /// An ARP packet has come.
    pub fn arp(&mut self, payload: &[u8], frames: &mut Vec<Vec<u8>>) {
        let Ok(Ok(ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr,
            source_protocol_addr,
            target_protocol_addr,
            ..
        })) = ArpPacket::new_checked(payload).map(|packet| ArpRepr::parse(&packet))
        else {
            return;
        };
        if !source_hardware_addr.is_unicast() {
            return;
        }
        self.learn(source_protocol_addr, source_hardware_addr, frames);
        let ours = [GATEWAY, NAME_SERVER].contains(&target_protocol_addr);
        if ours && operation == ArpOperation::Request {
            let reply = ArpRepr::EthernetIpv4 {
                operation: ArpOperation::Reply,
                source_hardware_addr: EthernetAddress(GATEWAY_MAC),
                source_protocol_addr: target_protocol_addr,
                target_hardware_addr: source_hardware_addr,
                target_protocol_addr: source_protocol_addr,
            };
            frames.push(arp_frame(reply, source_hardware_addr.0));
        }
    }

    /// Completes the frame of an IP packet and adds it to `frames`, or has it wait and adds a
    /// question for its destination.
    pub fn send(&mut self, frame: Vec<u8>, now: Instant, frames: &mut Vec<Vec<u8>>) {
        let Some(to) = destination(&frame) else {
            return;
        };
        if to.is_broadcast() {
            frames.push(addressed(frame, [0xff; 6]));
            return;
        }
        let Some(host) = host_part(to) else {
            return;
        };
        let neighbour = &mut self.neighbours[usize::from(host)];
        if let Some(mac) = neighbour.mac {
            frames.push(addressed(frame, mac));
            return;
        }
        let due = neighbour.asked.is_none_or(|at| now - at >= ASK_AGAIN);
        if due {
            neighbour.asked = Some(now);
            let question = ArpRepr::EthernetIpv4 {
                operation: ArpOperation::Request,
                source_hardware_addr: EthernetAddress(GATEWAY_MAC),
                source_protocol_addr: GATEWAY,
                target_hardware_addr: EthernetAddress([0; 6]),
                target_protocol_addr: to,
            };
            frames.push(arp_frame(question, [0xff; 6]));
        }
        if self.parked.len() >= MOST_PARKED {
            self.parked.pop_front();
        }
        self.parked.push_back(frame);
    }
}

fn header(frame: &mut [u8], to: [u8; 6], protocol: EthernetProtocol) {
    let mut frame = EthernetFrame::new_unchecked(frame);
    frame.set_dst_addr(EthernetAddress(to));
    frame.set_src_addr(EthernetAddress(GATEWAY_MAC));
    frame.set_ethertype(protocol);
}

fn addressed(mut frame: Vec<u8>, to: [u8; 6]) -> Vec<u8> {
    header(&mut frame, to, EthernetProtocol::Ipv4);
    frame
}

fn arp_frame(repr: ArpRepr, to: [u8; 6]) -> Vec<u8> {
    let mut frame = vec![0; HEAD + ARP_LEN];
    header(&mut frame, to, EthernetProtocol::Arp);
    repr.emit(&mut ArpPacket::new_unchecked(&mut frame[HEAD..]));
    frame
}
