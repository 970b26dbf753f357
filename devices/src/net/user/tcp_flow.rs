//! A connection of the guest and the host's socket that it is joined to.
//!
//! smoltcp talks TCP with the guest, and its buffers are all that lies between the two: what the
//! host's socket does not take stays in the receive buffer and closes the guest's window; what the
//! guest does not take stays in the host's socket.

use std::hash::{BuildHasher, RandomState};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{RecvError, Socket, SocketBuffer, State};
use smoltcp::wire::{HardwareAddress, IpCidr, IpEndpoint};

use super::packet::Out;
use super::{GATEWAY, MTU};

/// Bytes that wait for the host's socket, at most, and for the guest.
const FROM_GUEST: usize = 0x2_0000;
const FOR_GUEST: usize = 0x4_0000;
/// How often a silent guest is asked whether it is still there, and when it is given up.
const KEEP_ALIVE: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(60);
const GIVE_UP: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(300);
/// No flow is looked at again for its timers before that time.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// The TCP of all connections. It takes any address of the packets it is given for its own.
pub struct Stack {
    interface: Interface,
    started: Instant,
}

/// What smoltcp takes for its network: at most one packet that has come, and those that go out.
struct Port<'a> {
    packet: Option<&'a [u8]>,
    out: &'a mut Out,
    refused: bool,
}

struct Arrived<'a>(&'a [u8]);

impl RxToken for Arrived<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

struct Leaving<'a>(&'a mut Out);

impl TxToken for Leaving<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        self.0.packet(len, f)
    }
}

impl Device for Port<'_> {
    type RxToken<'a>
        = Arrived<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = Leaving<'a>
    where
        Self: 'a;

    fn receive(
        &mut self,
        _: smoltcp::time::Instant,
    ) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        let packet = self.packet.take()?;
        Some((Arrived(packet), Leaving(self.out)))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Self::TxToken<'_>> {
        let room = self.out.has_room();
        self.refused |= !room;
        room.then_some(Leaving(self.out))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        capabilities
    }
}

impl Stack {
    /// Time begins at `now`.
    pub fn new(now: Instant) -> Stack {
        let mut port = Port {
            packet: None,
            out: &mut Out::default(),
            refused: false,
        };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = RandomState::new().hash_one(now);
        let mut interface = Interface::new(config, &mut port, smoltcp::time::Instant::ZERO);
        interface.set_any_ip(true);
        interface.update_ip_addrs(|addresses| {
            // There is room for one.
            let _ = addresses.push(IpCidr::new(GATEWAY.into(), 0));
        });
        Stack {
            interface,
            started: now,
        }
    }

    fn time(&self, now: Instant) -> smoltcp::time::Instant {
        let elapsed = now.saturating_duration_since(self.started);
        smoltcp::time::Instant::from_micros(elapsed.as_micros().min(i64::MAX as u128) as i64)
    }

    fn arrived(&mut self, packet: &[u8], sockets: &mut SocketSet<'_>, now: Instant, out: &mut Out) {
        let mut port = Port {
            packet: Some(packet),
            out,
            refused: false,
        };
        let now = self.time(now);
        self.interface.poll_ingress_single(now, &mut port, sockets);
    }

    /// Answers a segment that belongs to no connection with a reset.
    pub fn refuse(&mut self, packet: &[u8], now: Instant, out: &mut Out) {
        self.arrived(packet, &mut SocketSet::new(Vec::new()), now, out);
    }
}

/// A connection.
pub struct Flow {
    stream: TcpStream,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    /// The host's socket may have something to read, may take something.
    readable: bool,
    writable: bool,
    /// No more will come from the host, or from the guest.
    host_ended: bool,
    guest_ended: bool,
    /// The host's socket is of no more use.
    broken: bool,
    /// There are packets for which there is no room.
    stuck: bool,
    due: Option<Instant>,
}

fn endpoint(address: SocketAddrV4) -> IpEndpoint {
    IpEndpoint::new((*address.ip()).into(), address.port())
}

impl Flow {
    fn new(stream: TcpStream) -> Flow {
        let buffer = |len| SocketBuffer::new(vec![0; len]);
        let mut socket = Socket::new(buffer(FROM_GUEST), buffer(FOR_GUEST));
        socket.set_nagle_enabled(false);
        socket.set_keep_alive(Some(KEEP_ALIVE));
        socket.set_timeout(Some(GIVE_UP));
        // Segments come in bursts, and an acknowledgement is sent after each burst.
        socket.set_ack_delay(None);
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        // What goes either way is sent as it comes.
        let _ = stream.set_nodelay(true);
        Flow {
            stream,
            sockets,
            handle,
            readable: false,
            writable: true,
            host_ended: false,
            guest_ended: false,
            broken: false,
            stuck: false,
            due: None,
        }
    }

    /// The guest has asked for a connection to `remote` with that packet, and the host has one.
    pub fn accepted(
        stream: TcpStream,
        remote: SocketAddrV4,
        syn: &[u8],
        stack: &mut Stack,
        now: Instant,
        out: &mut Out,
    ) -> Flow {
        let mut flow = Flow::new(stream);
        // It fails for port 0, which then refuses the packet.
        let _ = flow.socket().listen(endpoint(remote));
        flow.packet(syn, stack, now, out);
        flow
    }

    /// Somebody has connected to the host, and the guest is asked for a connection.
    pub fn forwarded(
        stream: TcpStream,
        guest: SocketAddrV4,
        remote: SocketAddrV4,
        stack: &mut Stack,
    ) -> Flow {
        let mut flow = Flow::new(stream);
        let socket = flow.sockets.get_mut::<Socket<'_>>(flow.handle);
        let context = stack.interface.context();
        flow.broken = socket
            .connect(context, endpoint(guest), endpoint(remote))
            .is_err();
        flow
    }

    fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    /// The host's socket.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Whether it is to be told when the host's socket can be read, and when it can be written.
    pub fn interest(&self) -> (bool, bool) {
        let reads = !self.readable && !self.host_ended && !self.broken;
        (reads, !self.writable && !self.broken)
    }

    /// When it has to be looked at, if nothing happens before.
    pub fn due(&self) -> Option<Instant> {
        self.due.filter(|_| !self.stuck)
    }

    /// Whether it waits for room towards the guest.
    pub fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// The host's socket can be read, or written.
    pub fn ready(&mut self, readable: bool, writable: bool) {
        self.readable |= readable;
        self.writable |= writable;
    }

    /// A packet of the guest. [`Flow::pump`] is to follow.
    pub fn packet(&mut self, packet: &[u8], stack: &mut Stack, now: Instant, out: &mut Out) {
        stack.arrived(packet, &mut self.sockets, now, out);
    }

    /// Moves what can be moved. Whether the connection still lives.
    pub fn pump(&mut self, stack: &mut Stack, now: Instant, out: &mut Out) -> bool {
        if !self.broken {
            self.write_host();
        }
        if !self.broken {
            self.read_host();
        }
        if self.broken {
            self.socket().abort();
        }
        let time = stack.time(now);
        let mut port = Port {
            packet: None,
            out,
            refused: false,
        };
        let sockets = &mut self.sockets;
        while stack.interface.poll_egress(time, &mut port, sockets)
            == smoltcp::iface::PollResult::SocketStateChanged
        {}
        self.stuck = port.refused;
        let due = stack.interface.poll_at(time, sockets);
        self.due = due.map(|at| {
            let wait = Duration::from_micros(at.total_micros().max(0) as u64);
            (stack.started + wait).max(now + SHORTEST_WAIT)
        });
        !self.is_over()
    }

    /// Whether nothing is left to do. A host's socket whose guest has gone away is reset.
    fn is_over(&mut self) -> bool {
        let broken = self.broken;
        let socket = self.socket();
        let drained = broken || !socket.can_recv();
        let ended = matches!(socket.state(), State::Closed | State::TimeWait);
        if self.stuck || !ended || !drained {
            return false;
        }
        if !self.guest_ended {
            let _ = rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO));
        }
        true
    }

    fn write_host(&mut self) {
        let socket = self.sockets.get_mut::<Socket<'_>>(self.handle);
        while self.writable && socket.can_recv() {
            let mut stream = &self.stream;
            let written = socket.recv(|bytes| match stream.write(bytes) {
                Ok(len) => (len, Ok(len)),
                Err(error) => (0, Err(error)),
            });
            match written {
                Ok(Ok(1..)) => {}
                Ok(Err(error)) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Ok(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
                Ok(_) => {
                    self.broken = true;
                    return;
                }
                Err(_) => break,
            }
        }
        let finished = !socket.can_recv() && socket.peek(1) == Err(RecvError::Finished);
        if finished && !self.guest_ended {
            self.guest_ended = true;
            // An error means that the other side has gone, which reading will tell.
            let _ = self.stream.shutdown(Shutdown::Write);
        }
    }

    fn read_host(&mut self) {
        let socket = self.sockets.get_mut::<Socket<'_>>(self.handle);
        while self.readable && !self.host_ended && socket.can_send() {
            let mut stream = &self.stream;
            let read = socket.send(|room| match stream.read(room) {
                Ok(len) => (len, Ok(len)),
                Err(error) => (0, Err(error)),
            });
            match read {
                Ok(Ok(1..)) => {}
                Ok(Ok(0)) => {
                    self.host_ended = true;
                    socket.close();
                }
                Ok(Err(error)) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
                Ok(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
                Ok(Err(_)) => {
                    self.broken = true;
                    return;
                }
                Err(_) => break,
            }
        }
    }
}

/// The address as the guest sees it of somebody who has connected to the host.
pub fn seen_by_guest(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(GATEWAY, port)
}
