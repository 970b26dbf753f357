use std::net::UdpSocket;

use super::*;

/// Sends a message of a DHCP client and gives the answer's kind and address, and checks the rest.
fn dhcp(
    card: &mut Card,
    kind: DhcpMessageType,
    mac: [u8; 6],
    asked: Option<Ipv4Addr>,
) -> (DhcpMessageType, Ipv4Addr) {
    let request = DhcpRepr {
        message_type: kind,
        transaction_id: 0x1234_5678,
        secs: 0,
        client_hardware_address: EthernetAddress(mac),
        client_ip: Ipv4Addr::UNSPECIFIED,
        your_ip: Ipv4Addr::UNSPECIFIED,
        server_ip: Ipv4Addr::UNSPECIFIED,
        router: None,
        subnet_mask: None,
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: false,
        requested_ip: asked,
        client_identifier: Some(EthernetAddress(mac)),
        server_identifier: None,
        parameter_request_list: Some(&[1, 3, 6]),
        dns_servers: None,
        max_size: None,
        lease_duration: None,
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    };
    let mut message = vec![0; request.buffer_len()];
    request
        .emit(&mut DhcpPacket::new_unchecked(&mut message))
        .unwrap();
    let from = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68);
    card.send_udp(from, SocketAddrV4::new(Ipv4Addr::BROADCAST, 67), &message);
    let (from, to, message) = card.expect(udp_of);
    assert_eq!(from, SocketAddrV4::new(GATEWAY, 67));
    assert_eq!(to, SocketAddrV4::new(Ipv4Addr::BROADCAST, 68));
    let packet = DhcpPacket::new_checked(&message[..]).unwrap();
    let answer = DhcpRepr::parse(&packet).unwrap();
    assert_eq!(answer.transaction_id, 0x1234_5678);
    assert_eq!(answer.client_hardware_address.0, mac);
    assert_eq!(answer.server_identifier, Some(GATEWAY));
    if answer.message_type != DhcpMessageType::Nak {
        assert_eq!(answer.router, Some(GATEWAY));
        assert_eq!(answer.subnet_mask, Some(Ipv4Addr::new(255, 255, 255, 0)));
        assert_eq!(answer.dns_servers.unwrap()[..], [NAME_SERVER]);
        assert_eq!(answer.lease_duration, Some(86_400));
    }
    (answer.message_type, answer.your_ip)
}

#[test]
fn addresses_are_leased() {
    use DhcpMessageType::{Ack, Discover, Nak, Offer, Request};
    let mut card = Card::new(UserConfig::default());
    assert_eq!(dhcp(&mut card, Discover, GUEST_MAC, None), (Offer, GUEST));
    let ack = dhcp(&mut card, Request, GUEST_MAC, Some(GUEST));
    assert_eq!(ack, (Ack, GUEST));
    let other = [0x52, 0x54, 0, 0, 0, 1];
    let second = Ipv4Addr::new(10, 0, 2, 16);
    assert_eq!(dhcp(&mut card, Discover, other, None), (Offer, second));
    let nak = dhcp(&mut card, Request, other, Some(GUEST));
    assert_eq!(nak, (Nak, Ipv4Addr::UNSPECIFIED));
    let again = dhcp(&mut card, Request, GUEST_MAC, Some(GUEST));
    assert_eq!(again, (Ack, GUEST));
    for n in 2..40 {
        let (_, address) = dhcp(&mut card, Discover, [0x52, 0x54, 0, 0, 0, n], None);
        assert!((15..31).contains(&address.octets()[3]), "{address}");
    }
}

#[test]
fn gateway_and_name_server_answer() {
    for restrict in [false, true] {
        let mut card = Card::new(UserConfig {
            restrict,
            ..UserConfig::default()
        });
        for to in [Ipv4Addr::new(10, 0, 2, 77), GATEWAY, NAME_SERVER] {
            card.ping(to);
        }
        for expected in [GATEWAY, NAME_SERVER] {
            card.expect(|frame| {
                assert_eq!(frame[..6], GUEST_MAC);
                let (ip, payload) = ip_of(frame)?;
                assert_eq!((ip.src_addr, ip.dst_addr), (expected, GUEST));
                let message = Icmpv4Packet::new_checked(payload).unwrap();
                let reply = Icmpv4Repr::EchoReply {
                    ident: 7,
                    seq_no: 9,
                    data: b"abcdefgh",
                };
                assert_eq!(Icmpv4Repr::parse(&message, &checks()), Ok(reply));
                Some(())
            });
        }
    }
}

#[test]
fn hardware_addresses_are_told_and_asked() {
    let config = UserConfig {
        forwards: vec![forward(Protocol::Udp, 7)],
        ..UserConfig::default()
    };
    let mut card = Card::new(config);
    let arp = |operation, target: Ipv4Addr| {
        let repr = ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr: EthernetAddress(GUEST_MAC),
            source_protocol_addr: GUEST,
            target_hardware_addr: EthernetAddress([0; 6]),
            target_protocol_addr: target,
        };
        let mut frame = ip_frame(IpProtocol::Udp, GUEST, GATEWAY, &[0; 8]);
        frame[12..14].copy_from_slice(&[8, 6]);
        repr.emit(&mut ArpPacket::new_unchecked(&mut frame[14..]));
        frame
    };
    let parse = |frame: &[u8]| {
        let packet = ArpPacket::new_checked(frame.get(14..)?).ok()?;
        let ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr,
            source_protocol_addr,
            target_protocol_addr,
            ..
        } = ArpRepr::parse(&packet).ok()?
        else {
            return None;
        };
        let mac = source_hardware_addr.0;
        Some((operation, mac, source_protocol_addr, target_protocol_addr))
    };
    // A datagram for the guest, whose address is not yet known.
    let host = UdpSocket::bind(localhost(0)).unwrap();
    let to = card.net.forwards()[0].host;
    host.send_to(b"first", to).unwrap();
    let asked = card.expect(parse);
    let question = (ArpOperation::Request, GATEWAY_MAC, GATEWAY, GUEST);
    assert_eq!(asked, question);
    card.net.send(&arp(ArpOperation::Reply, GATEWAY));
    let (_, to, data) = card.expect(udp_of);
    assert_eq!(
        (to, &data[..]),
        (SocketAddrV4::new(GUEST, 7), &b"first"[..])
    );
    // Whether its own address is taken, and somebody else's, is not answered.
    card.net.send(&arp(ArpOperation::Request, GUEST));
    card.net
        .send(&arp(ArpOperation::Request, Ipv4Addr::new(10, 0, 2, 4)));
    for address in [GATEWAY, NAME_SERVER] {
        card.net.send(&arp(ArpOperation::Request, address));
        let answer = (ArpOperation::Reply, GATEWAY_MAC, address, GUEST);
        assert_eq!(card.expect(parse), answer);
    }
}

/// A question for www.x.
fn question() -> Vec<u8> {
    let mut question = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    question.extend(b"\x03www\x01x\x00\x00\x01\x00\x01");
    question
}

#[test]
fn names_are_refused_without_a_resolver() {
    let nobody = UdpSocket::bind(localhost(0)).unwrap();
    let resolver = nobody.local_addr().unwrap();
    let configs = [
        UserConfig::default(),
        UserConfig {
            restrict: true,
            resolver: Some(resolver),
            ..UserConfig::default()
        },
    ];
    for config in configs {
        let mut card = Card::new(config);
        let from = SocketAddrV4::new(GUEST, 1234);
        card.send_udp(from, SocketAddrV4::new(NAME_SERVER, 53), &question());
        let (server, to, answer) = card.expect(udp_of);
        assert_eq!((server.port(), to), (53, from));
        assert_eq!(answer[..4], [0x12, 0x34, 0x81, 5]);
        assert_eq!(answer[12..], question()[12..]);
    }
    nobody.set_nonblocking(true).unwrap();
    assert!(nobody.recv(&mut [0; 100]).is_err(), "nothing got out");
}

#[test]
fn names_are_relayed_to_a_resolver() {
    let server = UdpSocket::bind(localhost(0)).unwrap();
    let mut guest = Guest::new(UserConfig {
        resolver: Some(server.local_addr().unwrap()),
        ..UserConfig::default()
    });
    let answering = std::thread::spawn(move || {
        let mut buffer = [0; 512];
        let (len, from) = server.recv_from(&mut buffer).unwrap();
        assert_eq!(buffer[..len], question());
        server.send_to(b"an answer", from).unwrap();
    });
    let socket = guest.udp_socket(4000);
    let to = (NAME_SERVER, 53);
    guest.udp(socket).send_slice(&question(), to).unwrap();
    let (answer, from) = guest.until(|guest| {
        let (data, meta) = guest.udp(socket).recv().ok()?;
        Some((data.to_vec(), meta.endpoint))
    });
    assert_eq!(answer, b"an answer");
    assert_eq!(from, to.into());
    answering.join().unwrap();
}
