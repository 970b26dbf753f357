//! The guest's datagrams. Each pair of ends has a socket of the host, which is connected, so that
//! nobody else can send to the guest; it is given up when nothing has passed for a while.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use smoltcp::wire::Icmpv4DstUnreachable;

use super::nat::Who;
use super::packet::Out;
use super::tcp::Key;
use super::tcp_flow::seen_by_guest;

/// Most pairs. Beyond, the one that was idle for longest goes.
const MOST: usize = 256;
/// How long a pair may be idle, and one that only asks a name server.
const IDLE: Duration = Duration::from_secs(120);
const IDLE_NAMES: Duration = Duration::from_secs(10);
const NAMES: u16 = 53;
/// Datagrams that are read from a socket before the next has its turn.
const AT_ONCE: usize = 32;
/// Time between two looks for idle pairs.
const LOOK: Duration = Duration::from_secs(1);

/// How datagrams of a pair leave.
enum Way {
    /// Through a socket of its own.
    Own(UdpSocket),
    /// Through a port that is forwarded, to somebody.
    Forwarded(usize, SocketAddr),
}

struct Pair {
    way: Way,
    used: Instant,
}

/// The pairs.
pub struct Udp {
    pairs: HashMap<Key, Pair>,
    forwards: Vec<(UdpSocket, SocketAddrV4)>,
    /// Who has sent to a forwarded port, and for whom the guest takes him.
    peers: HashMap<(usize, SocketAddr), Key>,
    look: Instant,
    buffer: Vec<u8>,
}

impl Udp {
    /// None, but these ports of the host lead to ports of the guest.
    pub fn new(forwards: Vec<(UdpSocket, SocketAddrV4)>, now: Instant) -> Udp {
        Udp {
            pairs: HashMap::new(),
            forwards,
            peers: HashMap::new(),
            look: now,
            buffer: vec![0; 0x1_0000],
        }
    }

    /// A datagram of the guest. `target` is where the host is to send it to, if it may.
    pub fn datagram(
        &mut self,
        key: Key,
        data: &[u8],
        target: impl FnOnce() -> Option<SocketAddr>,
        now: Instant,
        out: &mut Out,
    ) {
        if !self.pairs.contains_key(&key) {
            let made = target().map(connected);
            let Some(Ok(socket)) = made else {
                let reason = match made {
                    None => Icmpv4DstUnreachable::HostProhibited,
                    _ => Icmpv4DstUnreachable::HostUnreachable,
                };
                return out.refuse_udp(key.0, key.1, data.len(), reason);
            };
            self.insert(key, Way::Own(socket), now);
        }
        let Some(pair) = self.pairs.get_mut(&key) else {
            return;
        };
        pair.used = now;
        let sent = match &pair.way {
            Way::Own(socket) => socket.send(data),
            Way::Forwarded(n, peer) => match self.forwards.get(*n) {
                Some((socket, _)) => socket.send_to(data, peer),
                None => return,
            },
        };
        if let Err(error) = sent {
            refused(key, error.kind(), data.len(), out);
        }
    }

    fn insert(&mut self, key: Key, way: Way, now: Instant) {
        if self.pairs.len() >= MOST {
            let idlest = self.pairs.iter().min_by_key(|(_, pair)| pair.used);
            if let Some(idlest) = idlest.map(|(key, _)| *key) {
                self.remove(idlest);
            }
        }
        self.pairs.insert(key, Pair { way, used: now });
    }

    fn remove(&mut self, key: Key) {
        if let Some(pair) = self.pairs.remove(&key)
            && let Way::Forwarded(n, peer) = pair.way
        {
            self.peers.remove(&(n, peer));
        }
    }

    /// What the thread has to wait for.
    pub fn interest<'a>(&'a self, mut add: impl FnMut(Who, BorrowedFd<'a>, PollFlags)) {
        for (n, (socket, _)) in self.forwards.iter().enumerate() {
            add(Who::UdpForward(n), socket.as_fd(), PollFlags::IN);
        }
        for (key, pair) in &self.pairs {
            if let Way::Own(socket) = &pair.way {
                add(Who::Udp(*key), socket.as_fd(), PollFlags::IN);
            }
        }
    }

    /// A pair's socket can be read.
    pub fn event(&mut self, key: Key, now: Instant, out: &mut Out) {
        let Some(pair) = self.pairs.get_mut(&key) else {
            return;
        };
        let Way::Own(socket) = &pair.way else {
            return;
        };
        for _ in 0..AT_ONCE {
            if !out.has_room() {
                return;
            }
            match socket.recv(&mut self.buffer) {
                Ok(len) => {
                    pair.used = now;
                    out.udp(key.1, key.0, &self.buffer[..len]);
                }
                Err(error) => return refused(key, error.kind(), 0, out),
            }
        }
    }

    /// A forwarded port can be read.
    pub fn forwarded(&mut self, n: usize, now: Instant, out: &mut Out) {
        for _ in 0..AT_ONCE {
            let Some((socket, guest)) = self.forwards.get(n).filter(|_| out.has_room()) else {
                return;
            };
            let Ok((len, peer)) = socket.recv_from(&mut self.buffer) else {
                return;
            };
            let guest = *guest;
            let key = match self.peers.get(&(n, peer)) {
                Some(key) => *key,
                None => {
                    let port = peer.port().max(1);
                    let mut ports = (port..=u16::MAX).chain(1024..port.max(1024));
                    let free =
                        |port: &u16| !self.pairs.contains_key(&(guest, seen_by_guest(*port)));
                    let Some(port) = ports.find(free) else {
                        return;
                    };
                    let key = (guest, seen_by_guest(port));
                    self.insert(key, Way::Forwarded(n, peer), now);
                    self.peers.insert((n, peer), key);
                    key
                }
            };
            if let Some(pair) = self.pairs.get_mut(&key) {
                pair.used = now;
            }
            out.udp(key.1, key.0, &self.buffer[..len]);
        }
    }

    /// Gives up pairs that were idle for long.
    pub fn advance(&mut self, now: Instant) {
        if now < self.look {
            return;
        }
        self.look = now + LOOK;
        let idle = |(key, pair): (&Key, &Pair)| (expiry(key, pair) <= now).then_some(*key);
        let idle: Vec<Key> = self.pairs.iter().filter_map(idle).collect();
        for key in idle {
            self.remove(key);
        }
    }

    /// When something becomes due.
    pub fn due(&self) -> Option<Instant> {
        let first = self.pairs.iter().map(|(key, pair)| expiry(key, pair)).min();
        first.map(|at| at.max(self.look))
    }
}

fn expiry(key: &Key, pair: &Pair) -> Instant {
    let names = key.1.port() == NAMES;
    pair.used + if names { IDLE_NAMES } else { IDLE }
}

/// A socket that sends to `target` and hears only from there.
fn connected(target: SocketAddr) -> std::io::Result<UdpSocket> {
    let any: IpAddr = match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_nonblocking(true)?;
    socket.connect(target)?;
    Ok(socket)
}

/// Tells the guest if nobody listens.
fn refused(key: Key, error: ErrorKind, len: usize, out: &mut Out) {
    let reason = match error {
        ErrorKind::ConnectionRefused => Icmpv4DstUnreachable::PortUnreachable,
        ErrorKind::HostUnreachable => Icmpv4DstUnreachable::HostUnreachable,
        ErrorKind::NetworkUnreachable => Icmpv4DstUnreachable::NetUnreachable,
        _ => return,
    };
    out.refuse_udp(key.0, key.1, len, reason);
}
