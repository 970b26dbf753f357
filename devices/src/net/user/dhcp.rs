//! The DHCP server (RFC 2131): addresses from 10.0.2.15 on, one for each hardware address.
//!
//! Answers go to everybody, which every client has to accept. Leases are never taken back, except
//! that the one that was not renewed for longest goes when all are taken.

use std::net::{Ipv4Addr, SocketAddrV4};

use smoltcp::wire::{
    DHCP_CLIENT_PORT, DHCP_SERVER_PORT, DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress,
};

use super::packet::Out;
use super::{FIRST_LEASE, GATEWAY, NAME_SERVER, NETWORK};

/// How many addresses there are to hand out.
const LEASES: usize = 16;
/// How long a lease lasts, in seconds.
const DURATION: u32 = 86_400;
/// Bytes of the shortest message that old clients (BOOTP) take.
const SHORTEST: usize = 300;

/// The server.
#[derive(Default)]
pub struct Dhcp {
    /// Who has which address, and when that was last confirmed.
    leases: [Option<(EthernetAddress, u64)>; LEASES],
    count: u64,
}

fn address(lease: usize) -> Ipv4Addr {
    let [a, b, c] = NETWORK;
    Ipv4Addr::new(a, b, c, FIRST_LEASE.octets()[3].wrapping_add(lease as u8))
}

impl Dhcp {
    /// The address of a client.
    fn lease(&mut self, client: EthernetAddress) -> Ipv4Addr {
        let mine = |lease: &Option<(EthernetAddress, u64)>| {
            lease.is_some_and(|(holder, _)| holder == client)
        };
        let index = self.leases.iter().position(mine);
        let oldest = || {
            let ages = self.leases.iter().enumerate();
            ages.min_by_key(|(_, lease)| lease.map_or(0, |(_, renewed)| renewed))
                .map_or(0, |(index, _)| index)
        };
        let index = index.unwrap_or_else(oldest);
        self.count += 1;
        self.leases[index] = Some((client, self.count));
        address(index)
    }

    /// A message of a client.
    pub fn receive(&mut self, message: &[u8], out: &mut Out) {
        let Ok(packet) = DhcpPacket::new_checked(message) else {
            return;
        };
        let Ok(request) = DhcpRepr::parse(&packet) else {
            return;
        };
        let client = request.client_hardware_address;
        if !client.is_unicast() {
            return;
        }
        let another = |server| server != GATEWAY;
        let answer = match request.message_type {
            DhcpMessageType::Discover => (DhcpMessageType::Offer, self.lease(client)),
            // The client has chosen another server.
            DhcpMessageType::Request if request.server_identifier.is_some_and(another) => return,
            DhcpMessageType::Request => {
                let mine = self.lease(client);
                let asked = request.requested_ip.unwrap_or(request.client_ip);
                match asked == mine {
                    true => (DhcpMessageType::Ack, mine),
                    false => (DhcpMessageType::Nak, Ipv4Addr::UNSPECIFIED),
                }
            }
            DhcpMessageType::Inform => (DhcpMessageType::Ack, Ipv4Addr::UNSPECIFIED),
            _ => return,
        };
        reply(&request, answer, out);
    }
}

fn reply(request: &DhcpRepr<'_>, answer: (DhcpMessageType, Ipv4Addr), out: &mut Out) {
    let (message_type, your_ip) = answer;
    let granted = message_type != DhcpMessageType::Nak;
    let informed = request.message_type == DhcpMessageType::Inform;
    let leased = (granted && !informed).then_some(DURATION);
    let mask = Ipv4Addr::new(255, 255, 255, 0);
    let repr = DhcpRepr {
        message_type,
        transaction_id: request.transaction_id,
        secs: 0,
        client_hardware_address: request.client_hardware_address,
        client_ip: if informed {
            request.client_ip
        } else {
            Ipv4Addr::UNSPECIFIED
        },
        your_ip,
        server_ip: GATEWAY,
        router: granted.then_some(GATEWAY),
        subnet_mask: granted.then_some(mask),
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: request.broadcast,
        requested_ip: None,
        client_identifier: None,
        server_identifier: Some(GATEWAY),
        parameter_request_list: None,
        dns_servers: granted.then(|| [NAME_SERVER].into_iter().collect()),
        max_size: None,
        lease_duration: leased,
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    };
    let mut message = vec![0; repr.buffer_len().max(SHORTEST)];
    if repr
        .emit(&mut DhcpPacket::new_unchecked(&mut message))
        .is_ok()
    {
        let from = SocketAddrV4::new(GATEWAY, DHCP_SERVER_PORT);
        let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, DHCP_CLIENT_PORT);
        out.udp(from, to, &message);
    }
}
