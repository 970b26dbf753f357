//! A cable with a plug at each end: what goes in at one comes out at the other.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{FramesWait, NetBackend};
use crate::Shared;

/// Most frames that are in the cable in one direction.
const MOST_WAITING: usize = 1024;

/// One direction: the frames in it, and who is told that there are some.
struct Lane {
    frames: Shared<VecDeque<Vec<u8>>>,
    wait: FramesWait,
}

/// An end of a [`cable`].
pub struct Plug {
    out: Arc<Lane>,
    input: Arc<Lane>,
}

/// A cable. Each end is given what is to be called when frames wait there.
pub fn cable(at_first: FramesWait, at_second: FramesWait) -> (Plug, Plug) {
    let lane = |wait| {
        Arc::new(Lane {
            frames: Shared::default(),
            wait,
        })
    };
    let (to_first, to_second) = (lane(at_first), lane(at_second));
    let first = Plug {
        out: to_second.clone(),
        input: to_first.clone(),
    };
    let second = Plug {
        out: to_first,
        input: to_second,
    };
    (first, second)
}

impl NetBackend for Plug {
    fn send(&mut self, frame: &[u8]) {
        let waiting = {
            let mut frames = self.out.frames.lock();
            if frames.len() < MOST_WAITING {
                frames.push_back(frame.to_vec());
            }
            frames.len()
        };
        // Those who were told before have not looked yet.
        if waiting == 1 {
            (self.out.wait)();
        }
    }

    fn receive(&mut self) -> Option<Vec<u8>> {
        self.input.frames.lock().pop_front()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    use super::*;

    #[test]
    fn frames_arrive_in_order_and_are_announced() {
        let told = Arc::new(AtomicU32::new(0));
        let count = told.clone();
        let tell = Box::new(move || {
            count.fetch_add(1, SeqCst);
        });
        let (mut a, mut b) = cable(Box::new(|| {}), tell);
        a.send(&[1]);
        a.send(&[2]);
        assert_eq!(told.load(SeqCst), 1);
        assert_eq!(a.receive(), None);
        assert_eq!(b.receive(), Some(vec![1]));
        assert_eq!(b.receive(), Some(vec![2]));
        assert_eq!(b.receive(), None);
        a.send(&[3]);
        assert_eq!(told.load(SeqCst), 2);
        for _ in 0..2 * MOST_WAITING {
            b.send(&[4]);
        }
        let kept = std::iter::from_fn(|| a.receive()).count();
        assert_eq!(kept, MOST_WAITING);
    }
}
