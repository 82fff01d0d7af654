//! Where the time goes: of routing, of computing, and at the end of a batch.

use super::core::Engine;
use super::lane::Lane;
use super::meter::Spent;
use super::run::Routing;
use crate::timeline::{Pen, What};
use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

thread_local! {
    /// When this thread began the operation that it computes, if that is drawn.
    static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
}

impl Engine {
    /// Draws what happens from now on. Only the first one draws.
    pub fn draw_with(&self, pen: Pen) {
        let _ = self.arrivals.flight.pen.set(pen);
    }

    /// Routing took from `begin` until now.
    pub(super) fn note_route(&self, lane: &Lane, layer: usize, begin: u64, begins: bool, routing: &Routing) {
        let took = Duration::from_nanos(self.arrivals.flight.now() - begin);
        if !routing.batch.is_trial() {
            let is_prefill = lane.clock.is_prefill.load(Ordering::Relaxed);
            Spent::add(&self.meter.spent(is_prefill).bookkeeping_ns, took);
        }
        if let Some(pen) = self.arrivals.flight.pen.get().filter(|_| begins) {
            let what = What::Route {
                layer: layer as u32,
                n_tokens: routing.picks.n_tokens(),
            };
            pen.ended(0, took, what);
        }
    }

    /// Thread `ith` asks for entry `i` of an operation that is drawn, the first or the second one.
    #[cold]
    pub(super) fn draw_begin(&self, lane: &Lane, layer: usize, ith: u32, i: usize) {
        match i {
            0 => BEGAN.set(Some(Instant::now())),
            _ if ith == 0 && lane.part.load(Ordering::Relaxed) == 0 => {
                let pen = self.arrivals.flight.pen.get().expect("it is drawn");
                pen.mark(ith, What::First { layer: layer as u32 });
            }
            _ => {}
        }
    }

    /// Thread `ith` has computed an operation. After the last one of a batch that is what the batch took.
    pub(super) fn note_end(&self, lane: &Lane, layer: usize, ith: u32) {
        let part = lane.part.load(Ordering::Relaxed);
        let flight = &self.arrivals.flight;
        if let Some(pen) = flight.pen.get()
            && let Some(began) = BEGAN.take()
        {
            let layer = layer as u32;
            pen.span(ith, began, What::Compute { layer, part });
        }
        let layers = &self.layout.layers;
        let is_last = layer + 1 == layers.len() && part as usize + 1 == layers[layer].parts.len();
        if ith > 0 || !is_last || lane.is_trial.load(Ordering::Relaxed) {
            return;
        }
        let is_prefill = lane.clock.is_prefill.load(Ordering::Relaxed);
        let began = lane.clock.batch.swap(0, Ordering::Relaxed);
        if began > 0 {
            let took = flight.now().saturating_sub(began);
            Spent::add(&self.meter.spent(is_prefill).busy_ns, Duration::from_nanos(took));
        }
    }
}
