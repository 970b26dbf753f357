//! The network's thread: takes the guest's frames apart, waits for sockets, hands frames over.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    DHCP_SERVER_PORT, EthernetAddress, EthernetFrame, EthernetProtocol, Icmpv4Packet, Icmpv4Repr,
    IpProtocol, Ipv4Packet, Ipv4Repr, TcpPacket, TcpRepr, UdpPacket, UdpRepr,
};

use super::dhcp::Dhcp;
use super::ether::{Ether, is_guest};
use super::link::Link;
use super::packet::Out;
use super::tcp::{Key, Tcp};
use super::udp::Udp;
use super::{GATEWAY, GATEWAY_MAC, NAME_SERVER, NETWORK, UserConfig, dns};

const NAMES: u16 = 53;

/// Whom an event of the host is for.
#[derive(Clone, Copy, Debug)]
pub enum Who {
    /// The machine has something, or room.
    Link,
    /// Somebody connects to a forwarded port.
    Listener(usize),
    /// A connection.
    Tcp(Key),
    /// A pair of ends of datagrams.
    Udp(Key),
    /// Somebody has sent a datagram to a forwarded port.
    UdpForward(usize),
}

/// The thread's belongings.
pub struct Nat {
    link: Arc<Link>,
    restrict: bool,
    resolver: Option<SocketAddr>,
    ether: Ether,
    dhcp: Dhcp,
    tcp: Tcp,
    udp: Udp,
    out: Out,
    /// Finished frames.
    frames: Vec<Vec<u8>>,
}

impl Nat {
    /// With the sockets of forwarded ports, and where in the guest they lead to.
    pub fn new(
        link: Arc<Link>,
        config: &UserConfig,
        listeners: Vec<(TcpListener, SocketAddrV4)>,
        sockets: Vec<(UdpSocket, SocketAddrV4)>,
    ) -> Nat {
        let now = Instant::now();
        Nat {
            link,
            restrict: config.restrict,
            resolver: config.resolver,
            ether: Ether::new(),
            dhcp: Dhcp::default(),
            tcp: Tcp::new(listeners, now),
            udp: Udp::new(sockets, now),
            out: Out::default(),
            frames: Vec::new(),
        }
    }

    /// Runs until the link is stopped.
    pub fn run(mut self) {
        let mut events = Vec::new();
        while !self.link.is_stopped() {
            let now = Instant::now();
            self.out.set_room(self.link.room());
            for (who, flags) in events.drain(..) {
                self.event(who, flags, now);
            }
            for frame in self.link.take() {
                self.frame(&frame, now);
            }
            self.tcp.advance(now, &mut self.out);
            self.udp.advance(now);
            for packet in self.out.packets.drain(..) {
                self.ether.send(packet, now, &mut self.frames);
            }
            let room = self.out.has_room();
            let held_back = !room || self.tcp.is_stuck();
            if !self.link.give(&mut self.frames, held_back) {
                self.wait(room, now, &mut events);
            }
        }
    }

    /// Sleeps until something happens.
    fn wait(&self, room: bool, now: Instant, events: &mut Vec<(Who, PollFlags)>) {
        let mut whose = vec![Who::Link];
        let wake = self.link.wake_fd();
        let mut fds = vec![PollFd::from_borrowed_fd(wake, PollFlags::IN)];
        let mut add = |who, fd, flags| {
            whose.push(who);
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        };
        self.tcp.interest(now, &mut add);
        // Datagrams that cannot be handed over stay with the host.
        if room {
            self.udp.interest(&mut add);
        }
        let due = self.tcp.due().into_iter().chain(self.udp.due()).min();
        let timeout = due.map(|at| timespec(at.saturating_duration_since(now)));
        if poll(&mut fds, timeout.as_ref()).is_err() {
            // Interrupted: look again. If the host is out of memory, not too often.
            std::thread::sleep(Duration::from_millis(1));
            return;
        }
        let happened = whose.into_iter().zip(fds.iter().map(PollFd::revents));
        events.extend(happened.filter(|(_, flags)| !flags.is_empty()));
    }

    fn event(&mut self, who: Who, flags: PollFlags, now: Instant) {
        match who {
            Who::Link => self.link.awake(),
            Who::Listener(n) => self.tcp.accept(n, now),
            Who::Tcp(key) => self.tcp.event(key, flags, now, &mut self.out),
            Who::Udp(key) => self.udp.event(key, now, &mut self.out),
            Who::UdpForward(n) => self.udp.forwarded(n, now, &mut self.out),
        }
    }

    /// A frame of the guest.
    fn frame(&mut self, frame: &[u8], now: Instant) {
        let Ok(frame) = EthernetFrame::new_checked(frame) else {
            return;
        };
        let to = frame.dst_addr();
        if to.0 != GATEWAY_MAC && !to.is_broadcast() {
            return;
        }
        match frame.ethertype() {
            EthernetProtocol::Arp => self.ether.arp(frame.payload(), &mut self.frames),
            EthernetProtocol::Ipv4 => self.ipv4(frame.src_addr(), frame.payload(), now),
            _ => {}
        }
    }

    fn ipv4(&mut self, mac: EthernetAddress, bytes: &[u8], now: Instant) {
        let checks = ChecksumCapabilities::default();
        let Ok(packet) = Ipv4Packet::new_checked(bytes) else {
            return;
        };
        let Ok(header) = Ipv4Repr::parse(&packet, &checks) else {
            return;
        };
        // Fragments are not put together again.
        if packet.more_frags() || packet.frag_offset() != 0 {
            return;
        }
        let (from, to) = (header.src_addr, header.dst_addr);
        let payload = packet.payload();
        let udp = || {
            let datagram = UdpPacket::new_checked(payload).ok()?;
            let repr = UdpRepr::parse(&datagram, &from.into(), &to.into(), &checks).ok()?;
            Some((repr, datagram.payload()))
        };
        if header.next_header == IpProtocol::Udp
            && (to.is_broadcast() || to == GATEWAY)
            && let Some((repr, data)) = udp()
            && repr.dst_port == DHCP_SERVER_PORT
        {
            return self.dhcp.receive(data, &mut self.out);
        }
        if !is_guest(from) {
            return;
        }
        self.ether.learn(from, mac, &mut self.frames);
        if !is_reachable(to) {
            return;
        }
        let key = |from_port, to_port| {
            let guest = SocketAddrV4::new(from, from_port);
            (guest, SocketAddrV4::new(to, to_port))
        };
        match header.next_header {
            IpProtocol::Tcp => {
                let segment = TcpPacket::new_checked(payload);
                let parse = |segment| TcpRepr::parse(segment, &from.into(), &to.into(), &checks);
                if let Ok(segment) = &segment
                    && let Ok(repr) = parse(segment)
                {
                    let key = key(repr.src_port, repr.dst_port);
                    let bytes = &bytes[..usize::from(packet.total_len()).min(bytes.len())];
                    let target = || target(self.restrict, self.resolver, key.1);
                    self.tcp
                        .packet(key, (bytes, &repr), target, now, &mut self.out);
                }
            }
            IpProtocol::Udp => {
                if let Some((repr, data)) = udp() {
                    self.datagram(key(repr.src_port, repr.dst_port), data, now);
                }
            }
            IpProtocol::Icmp => {
                let ours = [GATEWAY, NAME_SERVER].contains(&to);
                if let Ok(message) = Icmpv4Packet::new_checked(payload)
                    && let Ok(Icmpv4Repr::EchoRequest {
                        ident,
                        seq_no,
                        data,
                    }) = Icmpv4Repr::parse(&message, &checks)
                    && ours
                {
                    self.out.echo(to, from, ident, seq_no, data);
                }
            }
            _ => {}
        }
    }

    fn datagram(&mut self, key: Key, data: &[u8], now: Instant) {
        let resolver = self.resolver.filter(|_| !self.restrict);
        if *key.1.ip() == NAME_SERVER && key.1.port() == NAMES && resolver.is_none() {
            if let Some(refusal) = dns::refusal(data) {
                self.out.udp(key.1, key.0, &refusal);
            }
            return;
        }
        let target = || target(self.restrict, self.resolver, key.1);
        self.udp.datagram(key, data, target, now, &mut self.out);
    }
}

/// Whether there is anything at an address for a guest that sends there.
fn is_reachable(to: Ipv4Addr) -> bool {
    let [a, b, c, _] = to.octets();
    if [a, b, c] == NETWORK {
        return [GATEWAY, NAME_SERVER].contains(&to);
    }
    !matches!(a, 0 | 127 | 224..) && !to.is_link_local()
}

/// Where the host is to go when the guest goes to an address; nowhere if it must not.
fn target(restrict: bool, resolver: Option<SocketAddr>, to: SocketAddrV4) -> Option<SocketAddr> {
    if restrict || to.port() == 0 {
        return None;
    }
    match *to.ip() {
        GATEWAY => Some((Ipv4Addr::LOCALHOST, to.port()).into()),
        NAME_SERVER => resolver.filter(|_| to.port() == NAMES),
        _ => Some(to.into()),
    }
}

fn timespec(wait: Duration) -> Timespec {
    Timespec {
        tv_sec: wait.as_secs().min(i64::MAX as u64) as i64,
        tv_nsec: wait.subsec_nanos().into(),
    }
}
