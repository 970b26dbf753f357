use std::io::Write;
use std::net::{TcpListener, TcpStream};

use super::*;
use crate::testing::Random;

/// That the network still works.
fn alive(card: &mut Card) {
    card.ping(GATEWAY);
    card.expect(|frame| {
        let (ip, _) = ip_of(frame)?;
        (ip.next_header == IpProtocol::Icmp).then_some(())
    });
}

/// Damages some bytes, or the length.
fn damage(frame: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..1 + random.below(4) {
        match random.below(8) {
            0 => frame.truncate(random.below(frame.len() as u64 + 1) as usize),
            1 => frame.resize(random.below(1600) as usize, random.next() as u8),
            2 if frame.len() > 14 => {
                // The first bytes of the IP header: version, lengths, fragments.
                let at = 14 + random.below(10) as usize;
                if let Some(byte) = frame.get_mut(at) {
                    *byte = random.next() as u8;
                }
            }
            _ if !frame.is_empty() => {
                let at = random.below(frame.len() as u64) as usize;
                frame[at] = random.next() as u8;
            }
            _ => {}
        }
    }
}

/// Makes the checksums of a frame right, as far as it has any.
fn correct(frame: &mut [u8]) {
    let Some(bytes) = frame.get_mut(14..) else {
        return;
    };
    if Ipv4Packet::new_checked(&*bytes).is_err() {
        return;
    }
    let mut packet = Ipv4Packet::new_unchecked(bytes);
    packet.fill_checksum();
    let (from, to) = (packet.src_addr().into(), packet.dst_addr().into());
    let protocol = packet.next_header();
    let body = packet.payload_mut();
    match protocol {
        IpProtocol::Udp if UdpPacket::new_checked(&*body).is_ok() => {
            UdpPacket::new_unchecked(body).fill_checksum(&from, &to);
        }
        IpProtocol::Tcp if TcpPacket::new_checked(&*body).is_ok() => {
            TcpPacket::new_unchecked(body).fill_checksum(&from, &to);
        }
        IpProtocol::Icmp if Icmpv4Packet::new_checked(&*body).is_ok() => {
            Icmpv4Packet::new_unchecked(body).fill_checksum();
        }
        _ => {}
    }
}

pub fn segment(from: u16, to: (Ipv4Addr, u16), repr: &TcpRepr<'_>) -> Vec<u8> {
    let repr = TcpRepr {
        src_port: from,
        dst_port: to.1,
        ..*repr
    };
    let mut body = vec![0; repr.buffer_len()];
    let mut packet = TcpPacket::new_unchecked(&mut body);
    repr.emit(&mut packet, &GUEST.into(), &to.0.into(), &checks());
    ip_frame(IpProtocol::Tcp, GUEST, to.0, &body)
}

pub fn syn() -> TcpRepr<'static> {
    TcpRepr {
        src_port: 0,
        dst_port: 0,
        control: TcpControl::Syn,
        seq_number: TcpSeqNumber(1000),
        ack_number: None,
        window_len: 1000,
        window_scale: Some(3),
        max_seg_size: Some(1460),
        sack_permitted: true,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    }
}

#[test]
fn garbage_is_survived() {
    // Nothing may leave, whatever addresses the garbage has.
    let mut card = Card::new(UserConfig {
        restrict: true,
        forwards: vec![forward(Protocol::Udp, 7), forward(Protocol::Tcp, 22)],
        ..UserConfig::default()
    });
    let guest = |port| SocketAddrV4::new(GUEST, port);
    let dns = SocketAddrV4::new(NAME_SERVER, 53);
    let everybody = SocketAddrV4::new(Ipv4Addr::BROADCAST, 67);
    let mut message = vec![0; 300];
    message[..4].copy_from_slice(&[1, 1, 6, 0]);
    message[236..244].copy_from_slice(&[0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255]);
    let mut arp = ip_frame(IpProtocol::Udp, GUEST, GATEWAY, &[0; 8]);
    arp[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    let udp = |from, to: SocketAddrV4, data: &[u8]| {
        ip_frame(IpProtocol::Udp, GUEST, *to.ip(), &udp_body(from, to, data))
    };
    let seeds = [
        ip_frame(IpProtocol::Icmp, GUEST, GATEWAY, &echo_request()),
        udp(guest(68), everybody, &message),
        udp(
            guest(99),
            dns,
            b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www\x01x\0\0\x01\0\x01",
        ),
        udp(guest(99), SocketAddrV4::new(GATEWAY, 99), b"data"),
        segment(5, (GATEWAY, 80), &syn()),
        arp,
    ];
    let mut random = Random::new(23);
    for n in 0..150_000 {
        let mut frame = seeds[random.below(seeds.len() as u64) as usize].clone();
        damage(&mut frame, &mut random);
        if random.below(4) > 0 {
            correct(&mut frame);
        }
        card.net.send(&frame);
        while card.net.receive().is_some() {}
        if n % 1000 == 0 {
            alive(&mut card);
        }
    }
    alive(&mut card);
}

#[test]
fn answers_that_nobody_fetches_are_bounded() {
    let mut card = Card::new(UserConfig {
        restrict: true,
        ..UserConfig::default()
    });
    let mut arp = ip_frame(IpProtocol::Udp, GUEST, GATEWAY, &[0; 8]);
    arp[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    arp[22..28].copy_from_slice(&GUEST_MAC);
    arp[28..32].copy_from_slice(&GUEST.octets());
    arp[38..42].copy_from_slice(&GATEWAY.octets());
    let turns = |card: &Card| {
        card.net
            .link
            .turns
            .load(std::sync::atomic::Ordering::SeqCst)
    };
    for _ in 0..100 {
        let before = turns(&card);
        for n in 0..100 {
            card.ping(GATEWAY);
            card.net.send(&arp);
            card.net.send(&segment(n, (GATEWAY, 80), &syn()));
        }
        while turns(&card) == before {
            std::thread::yield_now();
        }
    }
    std::thread::sleep(Duration::from_millis(100));
    let waiting = std::iter::from_fn(|| card.net.receive()).count();
    assert!((512..=1024).contains(&waiting), "{waiting}");
    alive(&mut card);
}

#[test]
fn nonsense_in_connections_is_survived() {
    let listener = TcpListener::bind(localhost(0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    listener.set_nonblocking(true).unwrap();
    let mut card = Card::new(UserConfig {
        forwards: vec![forward(Protocol::Tcp, 22)],
        ..UserConfig::default()
    });
    let forwarded = card.net.forwards()[0].host;
    let mut random = Random::new(29);
    // The last numbers that the network has sent, so that many segments are nearly right.
    let (mut seq, mut ack, mut remote) = (0u32, 0u32, port);
    let mut streams: Vec<TcpStream> = Vec::new();
    for n in 0..60_000u32 {
        if n % 64 == 0 {
            streams.truncate(20);
            streams.extend(listener.accept().map(|(stream, _)| stream));
            for stream in &mut streams {
                stream.set_nonblocking(true).unwrap();
                let _ = stream.write(&[1; 5000]);
            }
            if n % 640 == 0 {
                streams.insert(0, TcpStream::connect(forwarded).unwrap());
                alive(&mut card);
            }
        }
        let controls = [
            TcpControl::None,
            TcpControl::Psh,
            TcpControl::Syn,
            TcpControl::Fin,
            TcpControl::Rst,
        ];
        let control = controls[[0, 0, 0, 1, 1, 2, 2, 3, 4][random.below(9) as usize]];
        let near = |random: &mut Random, number: u32| {
            let offsets = [0, 0, 0, 1, u32::MAX, 100, 70_000, random.next() as u32];
            TcpSeqNumber(number.wrapping_add(offsets[random.below(8) as usize]) as i32)
        };
        let payload = vec![7; random.below(1400) as usize];
        let repr = TcpRepr {
            control,
            seq_number: near(&mut random, seq),
            ack_number: (random.below(6) > 0).then(|| near(&mut random, ack)),
            window_len: (random.next() >> random.below(64)) as u16,
            window_scale: (control == TcpControl::Syn).then(|| random.below(16) as u8),
            max_seg_size: (random.below(2) > 0 && control == TcpControl::Syn)
                .then(|| (random.next() >> random.below(64)) as u16),
            payload: if control == TcpControl::Syn {
                &[]
            } else {
                &payload
            },
            ..syn()
        };
        // The network drops the host's end of no port but these two.
        let (from, to) = match random.below(3) {
            0 => (22, remote),
            n => (5000 + n as u16, port),
        };
        let mut frame = segment(from, (GATEWAY, to), &repr);
        if random.below(4) == 0 {
            // Options and flags.
            let at = 14 + 20 + 12 + random.below(20) as usize;
            if let Some(byte) = frame.get_mut(at).filter(|_| at != 48) {
                *byte = random.next() as u8;
            }
            correct(&mut frame);
        }
        card.net.send(&frame);
        if n % 4 == 0 {
            std::thread::yield_now();
        }
        while let Some(frame) = card.net.receive() {
            if let Some((ip, payload)) = ip_of(&frame)
                && ip.next_header == IpProtocol::Tcp
            {
                let packet = TcpPacket::new_checked(payload).unwrap();
                ack = packet.seq_number().0 as u32;
                ack = ack.wrapping_add(packet.segment_len() as u32);
                seq = packet.ack_number().0 as u32;
                if packet.dst_port() == 22 {
                    remote = packet.src_port();
                }
            }
        }
    }
    alive(&mut card);
}
