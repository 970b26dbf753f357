//! What the tests of devices share: a clock that is set by hand, lines that remember, random
//! numbers, and a storm of random accesses.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use crate::{Clock, GuestMemory, InterruptLine, PortDevice, Timed};

/// A clock that stands still until it is told.
#[derive(Default)]
pub struct TestClock(AtomicU64);

impl TestClock {
    pub fn new() -> Arc<TestClock> {
        Arc::default()
    }

    pub fn set(&self, now: u64) {
        self.0.store(now, SeqCst);
    }

    pub fn step(&self, ns: u64) -> u64 {
        self.0.fetch_add(ns, SeqCst).wrapping_add(ns)
    }
}

impl Clock for TestClock {
    fn now(&self) -> u64 {
        self.0.load(SeqCst)
    }
}

/// Watches a line.
#[derive(Clone, Default)]
pub struct Probe(Arc<(AtomicBool, AtomicU64)>);

impl Probe {
    pub fn line(&self) -> Box<dyn InterruptLine> {
        Box::new(self.clone())
    }

    pub fn level(&self) -> bool {
        self.0.0.load(SeqCst)
    }

    /// How often it went from low to high.
    pub fn rises(&self) -> u64 {
        self.0.1.load(SeqCst)
    }
}

impl InterruptLine for Probe {
    fn set_level(&self, high: bool) {
        if !self.0.0.swap(high, SeqCst) && high {
            self.0.1.fetch_add(1, SeqCst);
        }
    }
}

/// Memory from address 0.
#[derive(Clone, Default)]
pub struct TestMemory(pub Arc<Mutex<Vec<u8>>>);

impl TestMemory {
    pub fn new(len: usize) -> TestMemory {
        TestMemory(Arc::new(Mutex::new(vec![0; len])))
    }
}

impl GuestMemory for TestMemory {
    fn read(&self, address: u64, into: &mut [u8]) {
        let memory = self.0.lock().unwrap();
        for (i, byte) in into.iter_mut().enumerate() {
            let at = address.wrapping_add(i as u64) as usize;
            *byte = memory.get(at).copied().unwrap_or(0xff);
        }
    }

    fn write(&self, address: u64, from: &[u8]) {
        let mut memory = self.0.lock().unwrap();
        for (i, byte) in from.iter().enumerate() {
            if let Some(cell) = memory.get_mut(address.wrapping_add(i as u64) as usize) {
                *cell = *byte;
            }
        }
    }
}

/// Random numbers: xorshift64*.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// A time step: mostly small, sometimes absurd.
    pub fn time(&mut self) -> u64 {
        let bits = self.below(64);
        self.next() >> bits >> self.below(24)
    }
}

/// 100,000 random accesses to these ports and steps of time. `advance` is called at every other
/// event, so that late calls are tried too. The clock wraps around now and then.
pub fn storm<T: PortDevice + Timed>(device: &mut T, clock: &TestClock, ports: &[u16]) {
    let mut random = Random::new(0x5eed);
    for _ in 0..100_000 {
        let port = ports[random.below(ports.len() as u64) as usize];
        match random.below(8) {
            0 => {
                clock.step(random.time());
            }
            1 => {
                if let Some(at) = device.next_event(clock.now()) {
                    clock.set(at.max(clock.now()));
                    device.advance(clock.now());
                }
            }
            2..4 => {
                device.read_port(port);
            }
            _ => device.write_port(port, random.next() as u8),
        }
    }
}

/// That a state survives being written out and read in.
pub fn round_trip<S>(state: &S) -> S
where
    S: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let text = serde_json::to_string(state).unwrap();
    let back = serde_json::from_str(&text).unwrap();
    assert_eq!(state, &back);
    back
}
