//! The faults of a cable: packets that are lost in one direction or in both, all or some of them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::traffic::Way;
use crate::Random;

/// The faults of a cable at the moment.
pub(super) struct Faults {
    /// Directions in which everything is lost.
    cut: [AtomicBool; 2],
    /// How many of a thousand packets are lost.
    lost_in_1000: AtomicU32,
    random: Mutex<Random>,
}

impl Faults {
    pub(super) fn none() -> Faults {
        let cut = [false; 2].map(AtomicBool::new);
        Faults { cut, lost_in_1000: AtomicU32::new(0), random: Mutex::new(Random::new(1)) }
    }

    /// Whether everything is lost in a direction from now on.
    pub(super) fn cut(&self, way: Way, is_cut: bool) {
        self.cut[way as usize].store(is_cut, Ordering::Relaxed);
    }

    /// Loses so many of a thousand packets from now on.
    pub(super) fn lose(&self, of_1000: u32) {
        self.lost_in_1000.store(of_1000, Ordering::Relaxed);
    }

    /// Whether the next packet is lost.
    pub(super) fn takes(&self, way: Way) -> bool {
        let lost = u64::from(self.lost_in_1000.load(Ordering::Relaxed));
        self.cut[way as usize].load(Ordering::Relaxed)
            || lost > 0 && self.random.lock().unwrap().below(1000) < lost
    }
}
