//! Things that happen to devices from outside, such as frames that arrive: another thread rings,
//! and the device looks on the machine's thread.

use super::Waker;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A device with a bell.
pub struct Bell {
    rung: Arc<AtomicBool>,
    device: Box<dyn FnMut() + Send>,
}

impl Bell {
    /// A bell that has `device` called between two instructions after each time that it was rung,
    /// and what rings it from any thread.
    pub fn new(
        waker: Waker,
        device: Box<dyn FnMut() + Send>,
    ) -> (Bell, impl Fn() + Send + Sync + 'static) {
        let rung = Arc::new(AtomicBool::new(false));
        let flag = rung.clone();
        let ring = move || {
            flag.store(true, Ordering::Release);
            waker.wake();
        };
        (Bell { rung, device }, ring)
    }

    /// Calls the device if the bell was rung.
    pub(super) fn answer(&mut self) {
        if self.rung.load(Ordering::Relaxed) && self.rung.swap(false, Ordering::Acquire) {
            (self.device)();
        }
    }
}
