use std::net::UdpSocket;

use super::*;

#[test]
fn datagrams_go_out_and_come_back() {
    let server = UdpSocket::bind(localhost(0)).unwrap();
    let port = server.local_addr().unwrap().port();
    let echo = std::thread::spawn(move || {
        let mut buffer = [0; 2000];
        for _ in 0..20 {
            let (len, from) = server.recv_from(&mut buffer).unwrap();
            server.send_to(&buffer[..len], from).unwrap();
        }
    });
    let mut guest = Guest::new(UserConfig::default());
    let sockets = [guest.udp_socket(4000), guest.udp_socket(4001)];
    for n in 0..20u8 {
        let socket = sockets[usize::from(n % 2)];
        let data = vec![n; 70 * usize::from(n)];
        let to = (GATEWAY, port);
        guest.udp(socket).send_slice(&data, to).unwrap();
        let (answer, from) = guest.until(|guest| {
            let (data, meta) = guest.udp(socket).recv().ok()?;
            Some((data.to_vec(), meta.endpoint))
        });
        assert_eq!((answer, from), (data, to.into()));
    }
    echo.join().unwrap();
}

#[test]
fn nobody_else_may_answer() {
    let server = UdpSocket::bind(localhost(0)).unwrap();
    let stranger = UdpSocket::bind(localhost(0)).unwrap();
    let port = server.local_addr().unwrap().port();
    let mut card = Card::new(UserConfig::default());
    let from = SocketAddrV4::new(GUEST, 99);
    card.send_udp(from, SocketAddrV4::new(GATEWAY, port), b"?");
    let (_, nat) = server.recv_from(&mut [0; 10]).unwrap();
    let _ = stranger.send_to(b"wrong", nat);
    server.send_to(b"right", nat).unwrap();
    assert_eq!(card.expect(udp_of).2, b"right");
}

/// What a message about a refused datagram says: why, and about which. (smoltcp's parser wants all
/// of that datagram.)
fn refusal_of(frame: &[u8]) -> Option<(u8, Ipv4Addr, Vec<u8>)> {
    let (ip, payload) = ip_of(frame)?;
    let message = Icmpv4Packet::new_checked(payload).ok()?;
    if message.msg_type() != Icmpv4Message::DstUnreachable {
        return None;
    }
    assert!(message.verify_checksum());
    let header = Ipv4Packet::new_unchecked(&payload[8..]);
    assert!(header.verify_checksum());
    assert_eq!((header.src_addr(), header.dst_addr()), (GUEST, ip.src_addr));
    assert_eq!(header.next_header(), IpProtocol::Udp);
    Some((message.msg_code(), ip.src_addr, payload[28..].to_vec()))
}

#[test]
fn refused_datagrams_are_told() {
    let gone = UdpSocket::bind(localhost(0)).unwrap();
    let port = gone.local_addr().unwrap().port();
    drop(gone);
    let from = SocketAddrV4::new(GUEST, 0x1234);
    for restrict in [false, true] {
        let mut card = Card::new(UserConfig {
            restrict,
            ..UserConfig::default()
        });
        card.send_udp(from, SocketAddrV4::new(GATEWAY, port), b"?");
        let (reason, who, data) = card.expect(refusal_of);
        let expected = match restrict {
            false => Icmpv4DstUnreachable::PortUnreachable,
            true => Icmpv4DstUnreachable::HostProhibited,
        };
        assert_eq!((reason, who), (expected.into(), GATEWAY));
        assert_eq!(data[..2], [0x12, 0x34]);
        assert_eq!(data[2..4], port.to_be_bytes());
    }
}

#[test]
fn forwarded_datagrams_are_answered() {
    let mut guest = Guest::new(UserConfig {
        restrict: true,
        forwards: vec![forward(Protocol::Udp, 7)],
        ..UserConfig::default()
    });
    let to = guest.card.net.forwards()[0].host;
    let hosts = [0, 1].map(|_| UdpSocket::bind(localhost(0)).unwrap());
    let socket = guest.udp_socket(7);
    for round in 0..3u8 {
        for (n, host) in (0u8..).zip(&hosts) {
            host.send_to(&[n, round], to).unwrap();
        }
        for _ in 0..2 {
            let (data, from) = guest.until(|guest| {
                let (data, meta) = guest.udp(socket).recv().ok()?;
                Some((data.to_vec(), meta.endpoint))
            });
            assert_eq!(from.addr, GATEWAY.into());
            let answer = [&data[..], b"!"].concat();
            guest.udp(socket).send_slice(&answer, from).unwrap();
            guest.until(|_| Some(()));
        }
        for (n, host) in (0u8..).zip(&hosts) {
            let mut answer = [0; 10];
            let (len, from) = host.recv_from(&mut answer).unwrap();
            assert_eq!((&answer[..len], from), (&[n, round, b'!'][..], to));
        }
    }
}

#[test]
fn long_datagrams_come_in_fragments() {
    let server = UdpSocket::bind(localhost(0)).unwrap();
    let port = server.local_addr().unwrap().port();
    let mut card = Card::new(UserConfig::default());
    let from = SocketAddrV4::new(GUEST, 99);
    card.send_udp(from, SocketAddrV4::new(GATEWAY, port), b"?");
    let (_, nat) = server.recv_from(&mut [0; 10]).unwrap();
    let data: Vec<u8> = (0..5000u32).map(|n| ((n * 7) >> 3) as u8).collect();
    server.send_to(&data, nat).unwrap();
    let mut whole = Vec::new();
    card.expect(|frame| {
        let packet = Ipv4Packet::new_checked(&frame[14..]).unwrap();
        assert!(packet.verify_checksum());
        assert_eq!((packet.src_addr(), packet.dst_addr()), (GATEWAY, GUEST));
        assert_eq!(usize::from(packet.frag_offset()), whole.len());
        assert_eq!((packet.next_header(), packet.ident()), (IpProtocol::Udp, 1));
        assert!(frame.len() <= crate::net::MAX_FRAME);
        whole.extend(packet.payload());
        (!packet.more_frags()).then_some(())
    });
    let packet = UdpPacket::new_checked(&whole[..]).unwrap();
    assert!(packet.verify_checksum(&GATEWAY.into(), &GUEST.into()));
    assert_eq!(packet.payload(), data);
}

#[test]
fn pairs_are_bounded() {
    let server = UdpSocket::bind(localhost(0)).unwrap();
    let port = server.local_addr().unwrap().port();
    let mut card = Card::new(UserConfig::default());
    for from in 1000..2000 {
        let from = SocketAddrV4::new(GUEST, from);
        card.send_udp(from, SocketAddrV4::new(GATEWAY, port), b"?");
        let (_, nat) = server.recv_from(&mut [0; 10]).unwrap();
        server.send_to(b"!", nat).unwrap();
        assert_eq!(card.expect(udp_of).1, from);
    }
}
