//! The guest's connections, and those that are forwarded to it.
//!
//! The guest's request is answered when the host's connection stands: with a reset if it was
//! refused. Until then only the request is kept.

use std::collections::HashMap;
use std::net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
use smoltcp::wire::{TcpControl, TcpRepr};

use super::nat::Who;
use super::packet::Out;
use super::tcp_flow::{Flow, Stack, seen_by_guest};

/// Most connections. Beyond, the guest's are refused and others wait.
const MOST: usize = 256;
/// How long nothing is accepted after the host could not.
const PAUSE: Duration = Duration::from_secs(1);

/// The guest's end and the other.
pub type Key = (SocketAddrV4, SocketAddrV4);

enum Connection {
    /// The host connects; what the guest has sent.
    Asked(TcpStream, Vec<u8>),
    Open(Box<Flow>),
}

/// The connections.
pub struct Tcp {
    stack: Stack,
    connections: HashMap<Key, Connection>,
    listeners: Vec<(TcpListener, SocketAddrV4)>,
    /// Those for which something has happened.
    touched: Vec<Key>,
    paused: Option<Instant>,
    /// Rotates who comes first when there is room.
    turn: usize,
}

impl Tcp {
    /// None, but these ports of the host lead to ports of the guest.
    pub fn new(listeners: Vec<(TcpListener, SocketAddrV4)>, now: Instant) -> Tcp {
        Tcp {
            stack: Stack::new(now),
            connections: HashMap::new(),
            listeners,
            touched: Vec::new(),
            paused: None,
            turn: 0,
        }
    }

    /// A segment of the guest. `target` is where the host is to connect to, if it may.
    pub fn packet(
        &mut self,
        key: Key,
        (packet, segment): (&[u8], &TcpRepr<'_>),
        target: impl FnOnce() -> Option<SocketAddr>,
        now: Instant,
        out: &mut Out,
    ) {
        let opens = segment.control == TcpControl::Syn && segment.ack_number.is_none();
        let full = self.connections.len() >= MOST;
        match self.connections.get_mut(&key) {
            Some(Connection::Open(flow)) => {
                flow.packet(packet, &mut self.stack, now, out);
                self.touched.push(key);
            }
            Some(Connection::Asked(..)) => {
                if segment.control == TcpControl::Rst {
                    self.connections.remove(&key);
                }
            }
            None if !opens || full => {
                self.stack.refuse(packet, now, out);
            }
            None => match target().map(start_connecting) {
                Some(Ok(stream)) => {
                    let asked = Connection::Asked(stream, packet.to_vec());
                    self.connections.insert(key, asked);
                }
                _ => self.stack.refuse(packet, now, out),
            },
        }
    }

    /// What the thread has to wait for.
    pub fn interest<'a>(
        &'a self,
        now: Instant,
        mut add: impl FnMut(Who, BorrowedFd<'a>, PollFlags),
    ) {
        if self.connections.len() < MOST && self.paused.is_none_or(|until| until <= now) {
            for (n, (listener, _)) in self.listeners.iter().enumerate() {
                add(Who::Listener(n), listener.as_fd(), PollFlags::IN);
            }
        }
        for (key, connection) in &self.connections {
            match connection {
                Connection::Asked(stream, _) => {
                    add(Who::Tcp(*key), stream.as_fd(), PollFlags::OUT);
                }
                Connection::Open(flow) => {
                    let (reads, writes) = flow.interest();
                    let mut flags = PollFlags::empty();
                    flags.set(PollFlags::IN, reads);
                    flags.set(PollFlags::OUT, writes);
                    if !flags.is_empty() {
                        add(Who::Tcp(*key), flow.stream().as_fd(), flags);
                    }
                }
            }
        }
    }

    /// Something has happened to a connection of the host.
    pub fn event(&mut self, key: Key, flags: PollFlags, now: Instant, out: &mut Out) {
        let over = flags.intersects(PollFlags::ERR | PollFlags::HUP);
        match self.connections.get_mut(&key) {
            Some(Connection::Open(flow)) => {
                flow.ready(
                    over || flags.contains(PollFlags::IN),
                    over || flags.contains(PollFlags::OUT),
                );
                self.touched.push(key);
            }
            Some(Connection::Asked(..)) => {
                let Some(Connection::Asked(stream, syn)) = self.connections.remove(&key) else {
                    return;
                };
                if over || !matches!(stream.take_error(), Ok(None)) {
                    return self.stack.refuse(&syn, now, out);
                }
                let flow = Flow::accepted(stream, key.1, &syn, &mut self.stack, now, out);
                self.open(key, flow);
            }
            None => {}
        }
    }

    fn open(&mut self, key: Key, flow: Flow) {
        self.connections
            .insert(key, Connection::Open(Box::new(flow)));
        self.touched.push(key);
    }

    /// Somebody connects to a port of the host.
    pub fn accept(&mut self, listener: usize, now: Instant) {
        while self.connections.len() < MOST {
            let Some((listener, guest)) = self.listeners.get(listener) else {
                return;
            };
            let accepted = listener.accept().and_then(|(stream, peer)| {
                stream.set_nonblocking(true)?;
                Ok((stream, peer.port()))
            });
            let (stream, port) = match accepted {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.paused = Some(now + PAUSE);
                    return;
                }
            };
            // The peer's own port if it can be had.
            let ports = (port.max(1)..=u16::MAX).chain(1024..port.max(1024));
            let guest = *guest;
            let free = |port: &u16| {
                !self
                    .connections
                    .contains_key(&(guest, seen_by_guest(*port)))
            };
            let Some(port) = ports.into_iter().find(free) else {
                return;
            };
            let remote = seen_by_guest(port);
            let flow = Flow::forwarded(stream, guest, remote, &mut self.stack);
            self.open((guest, remote), flow);
        }
    }

    /// Does what has become due.
    pub fn advance(&mut self, now: Instant, out: &mut Out) {
        self.paused = self.paused.filter(|until| *until > now);
        let mut keys = std::mem::take(&mut self.touched);
        let waiting = keys.len();
        let room = out.has_room();
        for (key, connection) in &self.connections {
            if let Connection::Open(flow) = connection
                && (flow.is_stuck() && room || flow.due().is_some_and(|at| at <= now))
            {
                keys.push(*key);
            }
        }
        keys.sort_unstable();
        keys.dedup();
        if waiting < keys.len() {
            self.turn = self.turn.wrapping_add(1);
            let first = self.turn % keys.len();
            keys.rotate_left(first);
        }
        for key in keys {
            if let Some(Connection::Open(flow)) = self.connections.get_mut(&key)
                && !flow.pump(&mut self.stack, now, out)
            {
                self.connections.remove(&key);
            }
        }
    }

    /// Whether packets wait for room.
    pub fn is_stuck(&self) -> bool {
        let stuck = |connection: &Connection| matches!(connection, Connection::Open(flow) if flow.is_stuck());
        self.connections.values().any(stuck)
    }

    /// When something becomes due.
    pub fn due(&self) -> Option<Instant> {
        let flows = self.connections.values().filter_map(|c| match c {
            Connection::Open(flow) => flow.due(),
            Connection::Asked(..) => None,
        });
        flows.chain(self.paused).min()
    }
}

/// A connection of the host that stands or fails later.
fn start_connecting(target: SocketAddr) -> Result<TcpStream, Errno> {
    let family = match target {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    match connect(&socket, &target) {
        Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => Ok(socket.into()),
        Err(error) => Err(error),
    }
}
