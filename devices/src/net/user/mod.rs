//! A network of its own for the guest, with a way out through sockets of the host.
//!
//! The guest sits in 10.0.2.0/24. Besides it there are a gateway (10.0.2.2), which hands out
//! addresses from 10.0.2.15 on and answers pings, and a name server (10.0.2.3), which passes
//! questions on to a resolver. A connection that the guest opens to anywhere else becomes a
//! connection of the host, one to the gateway a connection to the host's loopback address; the same
//! goes for datagrams. The other way round, a [`Forward`] is a port of the host behind which a port
//! of the guest is. The guest's TCP ends here: what goes over the host's sockets is only the data.
//!
//! A thread owns the sockets and sleeps when nothing happens. It meets the machine at two bounded
//! queues of frames (`link`). `nat` is its loop, `ether` knows the guest's hardware addresses,
//! `tcp` and `udp` pair flows of the guest with sockets, `dhcp` and `dns` are the services.
//!
//! The guest is not trusted: its frames are checked by smoltcp's parsers, the numbers of flows and
//! the sizes of buffers are bounded, and no destination but the gateway leads to the host's
//! loopback addresses. `docs/network.md` says what is reachable and what is left out.

mod dhcp;
mod dns;
mod ether;
mod link;
mod nat;
mod packet;
mod tcp;
mod tcp_flow;
#[cfg(test)]
mod tests;
mod udp;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::sync::Arc;
use std::thread::JoinHandle;

use super::{FramesWait, NetBackend};
pub use ether::is_guest;
use link::Link;
use nat::Nat;

/// The gateway, behind which is the host.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// The name server.
pub const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
/// The first address that is handed out.
pub const FIRST_LEASE: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);

/// The hardware address of gateway and name server.
const GATEWAY_MAC: [u8; 6] = [0x52, 0x55, 10, 0, 2, 2];
/// The network, without its last byte.
const NETWORK: [u8; 3] = [10, 0, 2];

/// Largest IP packet.
const MTU: usize = 1500;

/// What is forwarded.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

/// A port of the host behind which a port of the guest is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Forward {
    /// What is forwarded.
    pub protocol: Protocol,
    /// Where the host listens; port 0 takes any that is free.
    pub host: SocketAddr,
    /// Where it goes.
    pub guest: SocketAddrV4,
}

/// What the guest may do.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct UserConfig {
    /// Nothing leaves the guest's network but answers to what is forwarded to it.
    pub restrict: bool,
    /// Where questions to the name server go. Without, they are refused.
    pub resolver: Option<SocketAddr>,
    /// Ports of the guest that are reachable from the host.
    pub forwards: Vec<Forward>,
}

/// The network could not be made.
#[derive(Debug, thiserror::Error)]
pub enum UserNetError {
    /// A port of the host cannot be listened at.
    #[error("cannot listen at {0}: {1}")]
    Listen(SocketAddr, #[source] io::Error),
    /// The host has no thread or no means to wake it.
    #[error("cannot start the network's thread: {0}")]
    Thread(#[source] io::Error),
}

/// The network, as a card is plugged into it. It ends when this is dropped.
pub struct UserNet {
    link: Arc<Link>,
    thread: Option<JoinHandle<()>>,
    forwards: Vec<Forward>,
}

impl UserNet {
    /// Makes the network and starts to listen at the ports that are forwarded.
    ///
    /// # Errors
    /// If a port cannot be listened at, or the host lacks resources.
    pub fn new(mut config: UserConfig) -> Result<UserNet, UserNetError> {
        let (mut listeners, mut sockets) = (Vec::new(), Vec::new());
        for forward in &mut config.forwards {
            let failed = |error| UserNetError::Listen(forward.host, error);
            match forward.protocol {
                Protocol::Tcp => {
                    let listener = TcpListener::bind(forward.host).map_err(failed)?;
                    listener.set_nonblocking(true).map_err(failed)?;
                    forward.host = listener.local_addr().map_err(failed)?;
                    listeners.push((listener, forward.guest));
                }
                Protocol::Udp => {
                    let socket = UdpSocket::bind(forward.host).map_err(failed)?;
                    socket.set_nonblocking(true).map_err(failed)?;
                    forward.host = socket.local_addr().map_err(failed)?;
                    sockets.push((socket, forward.guest));
                }
            }
        }
        let link = Arc::new(Link::new().map_err(UserNetError::Thread)?);
        let forwards = config.forwards.clone();
        let nat = Nat::new(link.clone(), &config, listeners, sockets);
        let thread = std::thread::Builder::new()
            .name("guest network".into())
            .spawn(move || nat.run())
            .map_err(UserNetError::Thread)?;
        Ok(UserNet {
            link,
            thread: Some(thread),
            forwards,
        })
    }

    /// Names what is to be called when frames for the guest wait; only the first counts.
    pub fn tell(&self, wait: FramesWait) {
        self.link.tell(wait);
    }

    /// The ports that are forwarded, with those of the host that were taken.
    pub fn forwards(&self) -> &[Forward] {
        &self.forwards
    }
}

impl NetBackend for UserNet {
    fn send(&mut self, frame: &[u8]) {
        self.link.guest_sends(frame);
    }

    fn receive(&mut self) -> Option<Vec<u8>> {
        self.link.guest_fetches()
    }

    fn longest(&self) -> usize {
        link::LONGEST
    }
}

impl Drop for UserNet {
    fn drop(&mut self) {
        self.link.stop();
        if let Some(thread) = self.thread.take() {
            // If it has panicked, it has said so.
            let _ = thread.join();
        }
    }
}
