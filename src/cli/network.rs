//! `-nic`: the network card and the network that it is plugged into.

use super::Failure;
use clap::Args;
use metaphrase_devices::net::user::{self, Forward, Protocol, UserConfig, UserNet};
use metaphrase_runtime::machine::pc::{Nic, PcConfig};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

/// Arguments for the network.
#[derive(Clone, Debug, Args)]
pub struct NetworkArgs {
    /// The network card: `none`, or `user` for a network of the guest's own with a way out through
    /// the host, followed by
    /// `,hostfwd=tcp|udp:[HOSTADDR]:HOSTPORT-[GUESTADDR]:GUESTPORT` (may be repeated),
    /// `,restrict=on` (nothing but hostfwd), `,dns=ADDR[:PORT]` (where names are asked for),
    /// `,mac=ADDR` (`-nic`).
    #[arg(long, value_name = "NIC", default_value = "none", value_parser = nic,
          help_heading = "Cards")]
    pub nic: NicArg,
}

/// A network card.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NicArg {
    /// None.
    None,
    /// One in a network of its own.
    User {
        /// What the guest may do.
        config: UserConfig,
        /// The card's address.
        mac: [u8; 6],
    },
}

/// The card's address if none is given: one of those that QEMU's cards have.
const MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];
/// Where name servers listen.
const NAMES: u16 = 53;

impl NetworkArgs {
    /// Puts the card into a PC and opens the ports that are forwarded.
    ///
    /// # Errors
    /// If a port cannot be listened at.
    pub fn add_to(&self, config: &mut PcConfig) -> Result<(), Failure> {
        let NicArg::User { config: user, mac } = &self.nic else {
            return Ok(());
        };
        let net = UserNet::new(user.clone()).map_err(|error| Failure::usage(error.to_string()))?;
        config.nics.push(Nic {
            mac: *mac,
            plug: Box::new(move |wait| {
                net.tell(wait);
                Box::new(net)
            }),
        });
        Ok(())
    }
}

fn nic(text: &str) -> Result<NicArg, String> {
    let mut words = text.split(',');
    match words.next() {
        Some("none") => match words.next() {
            None => return Ok(NicArg::None),
            Some(_) => return Err("none has no properties".into()),
        },
        Some("user") => {}
        _ => return Err("`user` or `none` is wanted".into()),
    }
    let (mut config, mut mac) = (UserConfig::default(), MAC);
    for word in words {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        match name {
            "hostfwd" => config.forwards.push(forward(value)?),
            "restrict" => config.restrict = switch(value)?,
            "dns" => config.resolver = Some(resolver(value)?),
            "mac" => mac = hardware_address(value)?,
            "model" if ["virtio", "virtio-net-pci"].contains(&value) => {}
            "model" => return Err(format!("{value}: the only model is virtio-net-pci")),
            _ => {
                let known = "hostfwd, restrict, dns, mac or model";
                return Err(format!("{name}: {known} is wanted"));
            }
        }
    }
    if config.restrict && config.resolver.is_some() {
        return Err("dns would be of no use with restrict=on".into());
    }
    Ok(NicArg::User { config, mac })
}

fn switch(text: &str) -> Result<bool, String> {
    match text {
        "on" | "yes" => Ok(true),
        "off" | "no" => Ok(false),
        _ => Err(format!("restrict={text}: on or off is wanted")),
    }
}

/// `[tcp|udp]:[HOSTADDR]:HOSTPORT-[GUESTADDR]:GUESTPORT`.
fn forward(text: &str) -> Result<Forward, String> {
    let wrong = |what: &str| format!("hostfwd={text}: {what}");
    let form = "tcp|udp:[HOSTADDR]:HOSTPORT-[GUESTADDR]:GUESTPORT is wanted";
    let parts = text.split_once(':').zip(text.split_once('-'));
    let ((protocol, _), (host, guest)) = parts.ok_or_else(|| wrong(form))?;
    let protocol = match protocol {
        "tcp" | "" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return Err(wrong("tcp or udp is wanted")),
    };
    let host = host.split_once(':').map_or("", |(_, host)| host);
    let ends = host.rsplit_once(':').zip(guest.rsplit_once(':'));
    let ((host, host_port), (guest, guest_port)) = ends.ok_or_else(|| wrong(form))?;
    let port = |text: &str| match text.parse() {
        Ok(port @ 1..=u16::MAX) => Ok(port),
        _ => Err(wrong(&format!("{text}: a port from 1 to 65535 is wanted"))),
    };
    let host: IpAddr = match host {
        "" => Ipv4Addr::UNSPECIFIED.into(),
        _ => bare(host)
            .parse()
            .map_err(|_| wrong(&format!("{host}: an address of the host is wanted")))?,
    };
    let guest = match guest {
        "" => user::FIRST_LEASE,
        _ => guest
            .parse()
            .ok()
            .filter(|guest| user::is_guest(*guest))
            .ok_or_else(|| {
                wrong(&format!(
                    "{guest}: an address of the guest from 10.0.2.4 to 10.0.2.254 is wanted"
                ))
            })?,
    };
    Ok(Forward {
        protocol,
        host: SocketAddr::new(host, port(host_port)?),
        guest: SocketAddrV4::new(guest, port(guest_port)?),
    })
}

/// An IPv6 address without the brackets that tell its colons from that of the port.
fn bare(text: &str) -> &str {
    let inner = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    inner.unwrap_or(text)
}

fn resolver(text: &str) -> Result<SocketAddr, String> {
    let address = bare(text)
        .parse()
        .map(|address| SocketAddr::new(address, NAMES));
    address
        .or_else(|_| text.parse())
        .map_err(|_| format!("dns={text}: an address is wanted, with a port or without"))
}

fn hardware_address(text: &str) -> Result<[u8; 6], String> {
    let bytes: Option<Vec<u8>> = text
        .split(':')
        .map(|byte| {
            u8::from_str_radix(byte, 16)
                .ok()
                .filter(|_| byte.len() == 2)
        })
        .collect();
    let mac = bytes.and_then(|bytes| <[u8; 6]>::try_from(bytes).ok());
    // The lowest bit of the first byte says that it is the address of a group.
    mac.filter(|mac| mac[0] & 1 == 0 && *mac != [0; 6])
        .ok_or_else(|| {
            format!("mac={text}: the address of one card is wanted, as 52:54:00:12:34:56")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> (UserConfig, [u8; 6]) {
        match nic(text) {
            Ok(NicArg::User { config, mac }) => (config, mac),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn cards_are_understood() {
        assert_eq!(nic("none"), Ok(NicArg::None));
        assert_eq!(config("user"), (UserConfig::default(), MAC));
        let all = "user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:2222-:22,\
                   hostfwd=udp::5000-10.0.2.20:53,hostfwd=tcp:[::1]:80-:8080,\
                   restrict=off,dns=192.0.2.1,mac=02:00:00:00:00:0a";
        let (config, mac) = config(all);
        let forward = |protocol, host: &str, guest: &str| Forward {
            protocol,
            host: host.parse().unwrap(),
            guest: guest.parse().unwrap(),
        };
        let expected = [
            forward(Protocol::Tcp, "127.0.0.1:2222", "10.0.2.15:22"),
            forward(Protocol::Udp, "0.0.0.0:5000", "10.0.2.20:53"),
            forward(Protocol::Tcp, "[::1]:80", "10.0.2.15:8080"),
        ];
        assert_eq!(config.forwards, expected);
        assert_eq!(config.resolver, "192.0.2.1:53".parse().ok());
        assert_eq!((config.restrict, mac), (false, [2, 0, 0, 0, 0, 10]));
    }

    #[test]
    fn resolvers_may_have_ports() {
        for (text, expected) in [
            ("127.0.0.1:5353", "127.0.0.1:5353"),
            ("::1", "[::1]:53"),
            ("[::1]", "[::1]:53"),
            ("[::1]:99", "[::1]:99"),
        ] {
            let (config, _) = config(&format!("user,dns={text}"));
            assert_eq!(config.resolver, expected.parse().ok(), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for (text, said) in [
            ("", "`user` or `none`"),
            ("tap", "`user` or `none`"),
            ("none,mac=1", "none has no properties"),
            ("user,net=10.0.0.0/8", "net: hostfwd, restrict"),
            ("user,restrict", "restrict=: on or off"),
            ("user,restrict=on,dns=192.0.2.1", "of no use"),
            ("user,dns=resolver", "dns=resolver: an address"),
            ("user,model=e1000", "e1000: the only model"),
            ("user,mac=01:00:00:00:00:00", "mac=01"),
            ("user,mac=52:54:0:12:34:56", "mac=52"),
            ("user,mac=52:54:00:12:34", "mac=52"),
            ("user,hostfwd=", "is wanted"),
            ("user,hostfwd=tcp:22", "hostfwd=tcp:22: tcp|udp:["),
            ("user,hostfwd=tcp:22-22", "HOSTPORT"),
            ("user,hostfwd=sctp::22-:22", "tcp or udp"),
            ("user,hostfwd=tcp::0-:22", "0: a port"),
            ("user,hostfwd=tcp::22-:70000", "70000: a port"),
            ("user,hostfwd=tcp:here:22-:22", "here: an address"),
            ("user,hostfwd=tcp::22-10.0.2.2:22", "10.0.2.2: an address"),
            ("user,hostfwd=tcp::22-10.0.3.9:22", "10.0.3.9: an address"),
        ] {
            let error = nic(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
