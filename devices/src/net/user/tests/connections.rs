use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::Ordering::SeqCst;
use std::thread;

use smoltcp::socket::tcp::State;

use super::hostile::{segment, syn};
use super::*;
use crate::testing::Random;

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    (0..len / 8)
        .flat_map(|_| random.next().to_le_bytes())
        .collect()
}

/// A listener of the host, and its port.
fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind(localhost(0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

const MEGABYTES: usize = 6 << 20;

#[test]
fn megabytes_go_both_ways() {
    let (listener, port) = listener();
    let host = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut writer = stream.try_clone().unwrap();
        let writing = thread::spawn(move || {
            writer.write_all(&noise(1, MEGABYTES)).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        writing.join().unwrap();
        all
    });
    let mut guest = Guest::new(UserConfig::default());
    let socket = guest.connect(GATEWAY, port);
    let (to_send, mut sent, mut got) = (noise(2, MEGABYTES), 0, Vec::<u8>::new());
    guest.wait_for(socket, State::Established);
    guest.until(|guest| {
        let socket = guest.tcp(socket);
        if sent < to_send.len() {
            sent += socket.send_slice(&to_send[sent..]).unwrap();
            if sent == to_send.len() {
                socket.close();
            }
        }
        let mut piece = vec![0; 0x1_0000];
        match socket.recv_slice(&mut piece) {
            Ok(len) => got.extend(&piece[..len]),
            Err(_) => return (sent == to_send.len()).then_some(()),
        }
        None
    });
    assert!(got == noise(1, MEGABYTES), "towards the guest");
    guest.until(|_| host.is_finished().then_some(()));
    assert!(host.join().unwrap() == to_send, "towards the host");
}

#[test]
fn segments_may_be_longer_than_packets() {
    let (listener, port) = listener();
    let mut card = Card::new(UserConfig::default());
    let acknowledged = |frame: &[u8]| {
        let (_, payload) = ip_of(frame)?;
        let packet = TcpPacket::new_checked(payload).ok()?;
        Some((packet.seq_number(), packet.ack_number()))
    };
    card.net.send(&segment(5000, (GATEWAY, port), &syn()));
    let (theirs, ours) = card.expect(acknowledged);
    let data = noise(8, 60_000);
    let repr = TcpRepr {
        control: TcpControl::Psh,
        seq_number: ours,
        ack_number: Some(theirs + 1),
        payload: &data,
        ..syn()
    };
    let repr = TcpRepr {
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        ..repr
    };
    card.net.send(&segment(5000, (GATEWAY, port), &repr));
    let end = card.expect(|frame| acknowledged(frame).map(|(_, number)| number));
    assert_eq!(end, ours + data.len());
    let mut got = vec![0; data.len()];
    listener.accept().unwrap().0.read_exact(&mut got).unwrap();
    assert!(got == data);
}

#[test]
fn each_side_may_end_first() {
    // The guest ends, and still hears.
    let (listener, port) = listener();
    let mut guest = Guest::new(UserConfig::default());
    let host = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        stream.write_all(&noise(3, 300_000)).unwrap();
        drop(stream);
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"bye").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        (all, rest)
    });
    let socket = guest.connect(GATEWAY, port);
    guest.wait_for(socket, State::Established);
    guest.send(socket, b"question");
    guest.tcp(socket).close();
    assert!(guest.receive_all(socket) == noise(3, 300_000));
    // The host ends, and still hears.
    let socket = guest.connect(GATEWAY, port);
    guest.wait_for(socket, State::CloseWait);
    assert_eq!(guest.receive_all(socket), b"bye");
    let rest = noise(4, 200_000);
    guest.send(socket, &rest);
    guest.tcp(socket).close();
    guest.wait_for(socket, State::Closed);
    let (all, heard) = host.join().unwrap();
    assert_eq!(all, b"question");
    assert!(heard == rest);
}

#[test]
fn refusals_and_resets_are_passed_on() {
    let mut guest = Guest::new(UserConfig::default());
    let (gone, port) = listener();
    drop(gone);
    let socket = guest.connect(GATEWAY, port);
    let begun = Instant::now();
    guest.wait_for(socket, State::Closed);
    assert!(begun.elapsed() < Duration::from_secs(5));
    // The guest resets.
    let (listener, port) = listener();
    let socket = guest.connect(GATEWAY, port);
    guest.wait_for(socket, State::Established);
    let (mut stream, _) = listener.accept().unwrap();
    guest.tcp(socket).abort();
    guest.until(|_| {
        stream.set_nonblocking(true).unwrap();
        match stream.read(&mut [0; 10]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                Some(())
            }
            Ok(_) => panic!("no reset"),
        }
    });
    // The host resets: data that it has not read is lost.
    let socket = guest.connect(GATEWAY, port);
    guest.wait_for(socket, State::Established);
    guest.send(socket, &[1; 1000]);
    let (stream, _) = listener.accept().unwrap();
    guest.until(|_| (stream.peek(&mut [0; 2000]).unwrap() == 1000).then_some(()));
    drop(stream);
    guest.wait_for(socket, State::Closed);
}

#[test]
fn forwarded_ports_reach_the_guest() {
    for restrict in [false, true] {
        let mut guest = Guest::new(UserConfig {
            restrict,
            forwards: vec![forward(Protocol::Tcp, 22), forward(Protocol::Tcp, 23)],
            ..UserConfig::default()
        });
        let ports = [0, 1].map(|n| guest.card.net.forwards()[n].host);
        let socket = guest.tcp_socket();
        guest.tcp(socket).listen(22).unwrap();
        let host = thread::spawn(move || {
            let mut stream = TcpStream::connect(ports[0]).unwrap();
            stream.write_all(b"login").unwrap();
            let mut answer = [0; 100_000];
            stream.read_exact(&mut answer).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            assert_eq!(stream.read(&mut [0]).unwrap(), 0);
            answer.to_vec()
        });
        guest.wait_for(socket, State::Established);
        let remote = guest.tcp(socket).remote_endpoint().unwrap();
        assert_eq!(remote.addr, GATEWAY.into());
        assert_eq!(guest.receive(socket, 5), b"login");
        let answer = noise(5, 100_000);
        guest.send(socket, &answer);
        assert!(guest.receive_all(socket).is_empty());
        guest.tcp(socket).close();
        guest.until(|_| host.is_finished().then_some(()));
        assert!(host.join().unwrap() == answer);
        // Nobody listens there in the guest.
        let mut stream = TcpStream::connect(ports[1]).unwrap();
        let refused = thread::spawn(move || stream.read(&mut [0]).map_err(|error| error.kind()));
        guest.until(|_| refused.is_finished().then_some(()));
        assert_eq!(refused.join().unwrap(), Err(ErrorKind::ConnectionReset));
    }
}

#[test]
fn a_restricted_guest_gets_nowhere() {
    let (listener, port) = listener();
    listener.set_nonblocking(true).unwrap();
    let mut guest = Guest::new(UserConfig {
        restrict: true,
        resolver: Some(localhost(port)),
        ..UserConfig::default()
    });
    for (to, port) in [(GATEWAY, port), (NAME_SERVER, 53)] {
        let socket = guest.connect(to, port);
        guest.wait_for(socket, State::Closed);
    }
    assert!(listener.accept().is_err());
}

#[test]
fn loopback_addresses_are_the_guests_own() {
    let (listener, port) = listener();
    listener.set_nonblocking(true).unwrap();
    let mut guest = Guest::new(UserConfig::default());
    let socket = guest.connect(Ipv4Addr::LOCALHOST, port);
    let begun = Instant::now();
    guest.until(|_| (begun.elapsed() > Duration::from_millis(300)).then_some(()));
    assert_eq!(guest.tcp(socket).state(), State::SynSent);
    assert!(listener.accept().is_err());
}

#[test]
fn questions_by_connection_go_to_the_resolver() {
    let (listener, port) = listener();
    let mut guest = Guest::new(UserConfig {
        resolver: Some(localhost(port)),
        ..UserConfig::default()
    });
    let socket = guest.connect(NAME_SERVER, 53);
    guest.wait_for(socket, State::Established);
    listener.accept().unwrap();
    let socket = guest.connect(NAME_SERVER, 54);
    guest.wait_for(socket, State::Closed);
}

#[test]
fn who_does_not_read_holds_up_who_writes() {
    let (listener, port) = listener();
    let mut guest = Guest::new(UserConfig::default());
    // The host does not read.
    let socket = guest.connect(GATEWAY, port);
    guest.wait_for(socket, State::Established);
    let (mut stream, _) = listener.accept().unwrap();
    let data = noise(6, 32 << 20);
    let (mut sent, mut last) = (0, Instant::now());
    guest.until(|guest| {
        let more = guest.tcp(socket).send_slice(&data[sent..]).unwrap();
        sent += more;
        if more > 0 {
            last = Instant::now();
        }
        (last.elapsed() > Duration::from_millis(500)).then_some(())
    });
    assert!(sent < data.len(), "{sent}");
    let reading = thread::spawn(move || {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        all
    });
    guest.send(socket, &data[sent..]);
    guest.tcp(socket).close();
    guest.until(|_| reading.is_finished().then_some(()));
    assert!(reading.join().unwrap() == data);
    // The guest does not read.
    let socket = guest.connect(GATEWAY, port);
    guest.wait_for(socket, State::Established);
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    let (mut sent, mut last) = (0, Instant::now());
    guest.until(|_| {
        match stream.write(&data[sent..]) {
            Ok(more) => (sent, last) = (sent + more, Instant::now()),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        (last.elapsed() > Duration::from_millis(500)).then_some(())
    });
    assert!(sent < data.len(), "{sent}");
    drop(stream);
    assert!(guest.receive_all(socket) == data[..sent]);
}

#[test]
fn a_slow_guest_gets_everything() {
    let (listener, port) = listener();
    let mut guest = Guest::new(UserConfig::default());
    let sockets: Vec<_> = (0..8).map(|_| guest.connect(GATEWAY, port)).collect();
    let writers: Vec<_> = (0..8)
        .map(|_| {
            guest.until(|guest| {
                let up = |s: &SocketHandle| guest.tcp(*s).state() == State::Established;
                sockets.iter().all(up).then_some(())
            });
            let (mut stream, _) = listener.accept().unwrap();
            thread::spawn(move || stream.write_all(&noise(7, 1 << 20)).unwrap())
        })
        .collect();
    // Nothing is fetched until both queues and all windows are full.
    thread::sleep(Duration::from_millis(300));
    for socket in sockets {
        assert!(guest.receive_all(socket) == noise(7, 1 << 20));
    }
    for writer in writers {
        writer.join().unwrap();
    }
}

#[test]
fn connections_are_bounded() {
    let (listener, port) = listener();
    let mut guest = Guest::new(UserConfig::default());
    let accepting = thread::spawn(move || {
        let all: Vec<_> = (0..256).map(|_| listener.accept().unwrap()).collect();
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err());
        all
    });
    let mut sockets = Vec::new();
    for _ in 0..256 {
        let socket = guest.connect(GATEWAY, port);
        guest.wait_for(socket, State::Established);
        sockets.push(socket);
    }
    let streams = accepting.join().unwrap();
    let socket = guest.connect(GATEWAY, port);
    guest.wait_for(socket, State::Closed);
    for socket in &sockets[..2] {
        guest.tcp(*socket).close();
    }
    drop(streams);
}

#[test]
fn the_thread_sleeps_and_ends() {
    let (listener, port) = listener();
    let mut guest = Guest::new(UserConfig {
        forwards: vec![forward(Protocol::Tcp, 22)],
        ..UserConfig::default()
    });
    let socket = guest.connect(GATEWAY, port);
    guest.wait_for(socket, State::Established);
    let (mut stream, _) = listener.accept().unwrap();
    // One side of one connection has ended, another has more for the guest than it fetches.
    let half = guest.connect(GATEWAY, port);
    guest.wait_for(half, State::Established);
    listener
        .accept()
        .unwrap()
        .0
        .shutdown(Shutdown::Both)
        .unwrap();
    guest.wait_for(half, State::CloseWait);
    stream.set_nonblocking(true).unwrap();
    while stream.write(&[1; 0x1_0000]).is_ok() {}
    thread::sleep(Duration::from_millis(200));
    let turns = || guest.card.net.link.turns.load(SeqCst);
    let before = turns();
    thread::sleep(Duration::from_millis(1000));
    assert!(turns() - before < 10, "{}", turns() - before);
    let forwarded = guest.card.net.forwards()[0].host;
    let link = guest.card.net.link.clone();
    drop(guest);
    assert_eq!(Arc::strong_count(&link), 1, "the thread has gone");
    assert!(TcpStream::connect(forwarded).is_err());
}
