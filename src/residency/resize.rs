//! More slots, or fewer.

use super::slots::Residency;
use crate::error::{Error, Result};

impl Residency {
    /// Changes the number of slots; returns those taken out of use, whose memory may be given back.
    ///
    /// Shrinking retires free slots first and then those of the coldest experts, whatever their
    /// numbers; no expert moves. Growing takes retired slots back before it adds new numbers.
    /// A size below the number of pinned slots is an error and changes nothing.
    pub fn resize(&mut self, n_slots: u32) -> Result<Vec<u32>> {
        let n_pinned = self.n_pinned();
        if n_slots < n_pinned {
            return Err(Error::setting("slots", n_slots.to_string(), format!("must be at least {n_pinned}, which are in use right now")));
        }
        self.policy.resize(n_slots);
        while self.n_slots() < n_slots {
            let slot = self.retired.pop().unwrap_or_else(|| {
                self.experts.push(None);
                self.pins.push(0);
                self.pins.len() as u32 - 1
            });
            self.free.push(slot);
        }
        let n_kept = self.retired.len();
        while self.n_slots() > n_slots {
            let slot = self
                .free
                .pop()
                .or_else(|| self.evict().map(|(slot, _)| slot));
            self.retired
                .push(slot.expect("more slots are in use than pinned"));
        }
        Ok(self.retired[n_kept..].to_vec())
    }
}
