//! A network for a guest with two ports that lead into it from the host's loopback address, and what
//! connects there: one sends bytes that the guest hashes, at the other it sends a file.

use super::END;
use super::hardware::{host_hash_of, noise};
use crate::guest_kit::{Guest, Outcome, Printed};
use metaphrase_devices::net::user::{FIRST_LEASE, Forward, Protocol, UserConfig, UserNet};
use metaphrase_runtime::machine::pc::{Nic, PcConfig};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpStream};
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Ports of the guest.
const HASHES: u16 = 5000;
const SENDS: u16 = 5001;
/// Bytes that the guest is sent.
const LEN: usize = 1 << 20;
/// How long the outside waits for an answer.
const PATIENCE: Duration = Duration::from_secs(300);
/// What the guest says before it listens.
const READY: &str = "listening at both ports";

/// What the guest does. What waits ends by itself.
pub const SCRIPT: &str = r#"cat >/bin/leased <<'END'
#!/bin/sh
[ "$1" = bound ] || exit 0
ifconfig $interface $ip netmask $subnet
route add default gw $router
END
chmod +x /bin/leased
ifconfig lo 127.0.0.1
ifconfig eth0 up
udhcpc -i eth0 -n -q -s /bin/leased
ifconfig eth0
ping -c 1 10.0.2.2
timeout 300 nc -l -p 5000 -e sha256sum &
timeout 300 nc -l -p 5001 -e cat /bin/busybox &
echo listening at both ports
wait
cat /proc/net/dev"#;

/// What connects from outside: the guest's hash, and the file that it has sent. Nothing if the guest
/// has ended before it listened.
type Client = JoinHandle<Option<(Vec<u8>, Vec<u8>)>>;

/// The network of one machine.
pub struct Network {
    net: Cell<Option<UserNet>>,
    ports: [SocketAddr; 2],
    client: Cell<Option<Client>>,
}

impl Network {
    /// A network with free ports of the host.
    pub fn new() -> Network {
        let forward = |port| Forward {
            protocol: Protocol::Tcp,
            host: (Ipv4Addr::LOCALHOST, 0).into(),
            guest: SocketAddrV4::new(FIRST_LEASE, port),
        };
        let config = UserConfig {
            forwards: vec![forward(HASHES), forward(SENDS)],
            ..UserConfig::default()
        };
        let net = UserNet::new(config).expect("a network");
        let ports = [0, 1].map(|n| net.forwards()[n].host);
        Network {
            net: Cell::new(Some(net)),
            ports,
            client: Cell::default(),
        }
    }

    /// Plugs a card of the machine into it.
    pub fn put_into(&self, config: &mut PcConfig) {
        let net = self.net.take().expect("one machine");
        config.nics.push(Nic {
            mac: [0x52, 0x54, 0, 0x12, 0x34, 0x56],
            plug: Box::new(move |wait| {
                net.tell(wait);
                Box::new(net)
            }),
        });
    }

    /// Starts what connects from outside.
    pub fn begin(&self, guest: &Guest) {
        let (printed, ports) = (guest.serial.clone(), self.ports);
        let client = std::thread::spawn(move || {
            listens(&printed).then(|| {
                let data = noise(LEN, 3);
                (exchange(ports[0], &data), exchange(ports[1], &[]))
            })
        });
        self.client.set(Some(client));
    }

    /// Compares what went in with what came out.
    pub fn check(&self, outcome: &Outcome, busybox: &Path) {
        let text = &outcome.serial;
        let client = self.client.take().expect("it was started");
        let answers = client.join().expect("what connects from outside");
        let (hash, file) = answers.unwrap_or_else(|| panic!("it did not listen: {text}"));
        let hash = String::from_utf8_lossy(&hash);
        assert!(hash.starts_with(&host_hash_of(&noise(LEN, 3))), "{hash:?}");
        let busybox = std::fs::read(busybox).expect("busybox-static is installed");
        assert_eq!(host_hash_of(&file), host_hash_of(&busybox), "{text}");
        let address = format!("inet addr:{FIRST_LEASE}");
        for line in [&address, "1 packets received, 0% packet loss"] {
            assert!(text.contains(line), "{line:?} in {text}");
        }
    }
}

/// Waits until the guest listens; false if it has come to its end without.
fn listens(printed: &Printed) -> bool {
    loop {
        let text = printed.text();
        if text.contains(READY) {
            return true;
        }
        if text.contains(END) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Sends that and returns the answer. A connection for which the guest is not ready is refused: it
/// brings none.
fn exchange(port: SocketAddr, data: &[u8]) -> Vec<u8> {
    let start = Instant::now();
    loop {
        let attempt = || -> std::io::Result<Vec<u8>> {
            let mut stream = TcpStream::connect(port)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            stream.write_all(data)?;
            stream.shutdown(Shutdown::Write)?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer)?;
            Ok(answer)
        };
        match attempt() {
            Ok(answer) if !answer.is_empty() => return answer,
            other => assert!(start.elapsed() < PATIENCE, "no answer: {other:?}"),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
