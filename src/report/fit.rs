//! What a person reads of whether a model fits in memory.

use crate::memory::fits::Fit;
use crate::numbers::bytes;

/// Whether the model `name` is loaded as usual or streamed, and why, in one line.
pub fn fit_line(name: &str, fit: &Fit) -> String {
    let Fit { needs, room } = fit;
    let devices = match room.devices {
        0 => String::new(),
        n => format!(" + devices {}", bytes(n)),
    };
    let sum = format!(
        "weights {} + KV cache {} ({} tokens) + buffers {} = {} of {} (available {} - reserve {}{devices})",
        bytes(needs.weights),
        bytes(needs.context()),
        needs.n_ctx,
        bytes(needs.buffers),
        bytes(needs.total()),
        bytes(room.usable()),
        bytes(room.available),
        bytes(room.reserve()),
    );
    if fit.is_whole() {
        return format!("hotset: {name} fits in memory and is loaded as usual, nothing is streamed: {sum}");
    }
    let shorter = fit.n_ctx_most();
    let shorter = shorter.map_or(String::new(), |n| format!("; with -c {n} it would fit"));
    format!("hotset: {name} does not fit in memory, so its experts are streamed: {sum}{shorter}")
}
