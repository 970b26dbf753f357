//! A guest for the tests: smoltcp with the network as its card, or frames made by hand.

mod connections;
mod datagrams;
mod hostile;
mod services;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::{tcp, udp};
use smoltcp::wire::*;

use super::*;

pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
pub const GUEST_MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

pub fn checks() -> ChecksumCapabilities {
    ChecksumCapabilities::default()
}

pub fn localhost(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A port of the host that leads to one of the guest.
pub fn forward(protocol: Protocol, port: u16) -> Forward {
    Forward {
        protocol,
        host: localhost(0),
        guest: SocketAddrV4::new(GUEST, port),
    }
}

/// The network, and a word when frames wait.
pub struct Card {
    pub net: UserNet,
    told: Receiver<()>,
}

impl Card {
    pub fn new(config: UserConfig) -> Card {
        let (tell, told) = channel();
        let wait = move || {
            let _ = tell.send(());
        };
        let net = UserNet::new(config).unwrap();
        net.tell(Box::new(wait));
        Card { net, told }
    }

    /// The next frame for which the function has an answer; others are dropped.
    pub fn expect<T>(&mut self, mut wanted: impl FnMut(&[u8]) -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            while let Some(frame) = self.net.receive() {
                if let Some(found) = wanted(&frame) {
                    return found;
                }
            }
            assert!(begun.elapsed() < PATIENCE, "no such frame");
            let _ = self.told.recv_timeout(Duration::from_millis(20));
        }
    }

    pub fn send_ip(&mut self, protocol: IpProtocol, from: Ipv4Addr, to: Ipv4Addr, body: &[u8]) {
        self.net.send(&ip_frame(protocol, from, to, body));
    }

    pub fn ping(&mut self, to: Ipv4Addr) {
        self.send_ip(IpProtocol::Icmp, GUEST, to, &echo_request());
    }

    /// Sends a datagram with these ends.
    pub fn send_udp(&mut self, from: SocketAddrV4, to: SocketAddrV4, data: &[u8]) {
        let body = udp_body(from, to, data);
        self.send_ip(IpProtocol::Udp, *from.ip(), *to.ip(), &body);
    }
}

pub fn echo_request() -> Vec<u8> {
    let request = Icmpv4Repr::EchoRequest {
        ident: 7,
        seq_no: 9,
        data: b"abcdefgh",
    };
    let mut body = vec![0; request.buffer_len()];
    request.emit(&mut Icmpv4Packet::new_unchecked(&mut body), &checks());
    body
}

pub fn udp_body(from: SocketAddrV4, to: SocketAddrV4, data: &[u8]) -> Vec<u8> {
    let repr = UdpRepr {
        src_port: from.port(),
        dst_port: to.port(),
    };
    let mut body = vec![0; 8 + data.len()];
    repr.emit(
        &mut UdpPacket::new_unchecked(&mut body),
        &(*from.ip()).into(),
        &(*to.ip()).into(),
        data.len(),
        |payload| payload.copy_from_slice(data),
        &checks(),
    );
    body
}

pub fn ip_frame(protocol: IpProtocol, from: Ipv4Addr, to: Ipv4Addr, body: &[u8]) -> Vec<u8> {
    let repr = Ipv4Repr {
        src_addr: from,
        dst_addr: to,
        next_header: protocol,
        payload_len: body.len(),
        hop_limit: 64,
    };
    let mut frame = vec![0; 34 + body.len()];
    let mut header = EthernetFrame::new_unchecked(&mut frame);
    header.set_dst_addr(EthernetAddress(GATEWAY_MAC));
    header.set_src_addr(EthernetAddress(GUEST_MAC));
    header.set_ethertype(EthernetProtocol::Ipv4);
    repr.emit(
        &mut Ipv4Packet::new_unchecked(header.payload_mut()),
        &checks(),
    );
    frame[34..].copy_from_slice(body);
    frame
}

/// The IP packet in a frame for the guest.
pub fn ip_of(frame: &[u8]) -> Option<(Ipv4Repr, &[u8])> {
    let frame = EthernetFrame::new_checked(frame).unwrap();
    if frame.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    assert_eq!(frame.src_addr().0, GATEWAY_MAC);
    let packet = Ipv4Packet::new_checked(frame.payload()).unwrap();
    let repr = Ipv4Repr::parse(&packet, &checks()).unwrap();
    Some((repr, packet.payload()))
}

/// The datagram in a frame for the guest.
pub fn udp_of(frame: &[u8]) -> Option<(SocketAddrV4, SocketAddrV4, Vec<u8>)> {
    let (ip, payload) = ip_of(frame)?;
    if ip.next_header != IpProtocol::Udp {
        return None;
    }
    let packet = UdpPacket::new_checked(payload).unwrap();
    let ends = (ip.src_addr.into(), ip.dst_addr.into());
    let repr = UdpRepr::parse(&packet, &ends.0, &ends.1, &checks()).unwrap();
    Some((
        SocketAddrV4::new(ip.src_addr, repr.src_port),
        SocketAddrV4::new(ip.dst_addr, repr.dst_port),
        packet.payload().to_vec(),
    ))
}

pub struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

pub struct Sending<'a>(&'a mut UserNet);

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.send(&frame);
        result
    }
}

impl Device for Card {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Received, Sending<'_>)> {
        let frame = self.net.receive()?;
        Some((Received(frame), Sending(&mut self.net)))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Sending<'_>> {
        Some(Sending(&mut self.net))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = crate::net::MAX_FRAME;
        capabilities
    }
}

/// A guest with a stack of its own.
pub struct Guest {
    pub card: Card,
    interface: Interface,
    sockets: SocketSet<'static>,
    next_port: u16,
}

impl Guest {
    pub fn new(config: UserConfig) -> Guest {
        let mut card = Card::new(config);
        let mac = EthernetAddress(GUEST_MAC);
        let config = Config::new(mac.into());
        let now = smoltcp::time::Instant::now();
        let mut interface = Interface::new(config, &mut card, now);
        interface.update_ip_addrs(|all| all.push(IpCidr::new(GUEST.into(), 24)).unwrap());
        interface
            .routes_mut()
            .add_default_ipv4_route(GATEWAY)
            .unwrap();
        Guest {
            card,
            interface,
            sockets: SocketSet::new(Vec::new()),
            next_port: 50_000,
        }
    }

    /// Works until there is an answer.
    pub fn until<T>(&mut self, mut done: impl FnMut(&mut Guest) -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            let now = smoltcp::time::Instant::now();
            self.interface.poll(now, &mut self.card, &mut self.sockets);
            if let Some(found) = done(self) {
                let now = smoltcp::time::Instant::now();
                self.interface.poll(now, &mut self.card, &mut self.sockets);
                return found;
            }
            assert!(begun.elapsed() < PATIENCE, "it takes too long");
            let delay = self.interface.poll_delay(now, &self.sockets);
            let delay = delay.map_or(Duration::from_millis(20), Duration::from);
            let delay = delay.min(Duration::from_millis(20));
            let _ = self.card.told.recv_timeout(delay);
        }
    }

    pub fn tcp_socket(&mut self) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; 0x1_0000]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_ack_delay(None);
        self.sockets.add(socket)
    }

    pub fn tcp(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    pub fn udp(&mut self, handle: SocketHandle) -> &mut udp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    pub fn udp_socket(&mut self, port: u16) -> SocketHandle {
        let buffer =
            || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 32], vec![0; 0x1_0000]);
        let mut socket = udp::Socket::new(buffer(), buffer());
        socket.bind(port).unwrap();
        self.sockets.add(socket)
    }

    /// Starts to connect.
    pub fn connect(&mut self, to: Ipv4Addr, port: u16) -> SocketHandle {
        let handle = self.tcp_socket();
        self.next_port += 1;
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(handle);
        let context = self.interface.context();
        socket.connect(context, (to, port), self.next_port).unwrap();
        handle
    }

    /// Sends all of it.
    pub fn send(&mut self, handle: SocketHandle, mut data: &[u8]) {
        self.until(|guest| {
            let sent = guest.tcp(handle).send_slice(data).unwrap();
            data = &data[sent..];
            data.is_empty().then_some(())
        });
    }

    /// Receives so much.
    pub fn receive(&mut self, handle: SocketHandle, len: usize) -> Vec<u8> {
        let mut all = Vec::new();
        self.until(|guest| {
            let mut piece = vec![0; len - all.len()];
            let got = guest.tcp(handle).recv_slice(&mut piece).unwrap();
            all.extend(&piece[..got]);
            (all.len() == len).then_some(())
        });
        all
    }

    /// Receives until the other side has closed.
    pub fn receive_all(&mut self, handle: SocketHandle) -> Vec<u8> {
        let mut all = Vec::new();
        self.until(|guest| {
            let mut piece = vec![0; 0x1_0000];
            match guest.tcp(handle).recv_slice(&mut piece) {
                Ok(got) => all.extend(&piece[..got]),
                Err(tcp::RecvError::Finished) => return Some(()),
                Err(error) => panic!("{error}"),
            }
            None
        });
        all
    }

    pub fn wait_for(&mut self, handle: SocketHandle, state: tcp::State) {
        self.until(|guest| (guest.tcp(handle).state() == state).then_some(()));
    }
}
