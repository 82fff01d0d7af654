//! What a person reads: the line at the start, the table at the end; and the same as JSON.

mod counters;
mod device;
mod disk;
mod fit;
mod placement;
mod progress;
mod rates;
mod say;
mod start;
mod table;

pub use counters::{line, text, write_json};
pub use device::{device_line, device_lines, guard_line};
pub use disk::disk_lines;
pub use fit::fit_line;
pub use placement::{no_room_line, placement_line, unmoved_line, whole_line};
pub use progress::Progress;
pub use say::say;
pub use start::{cycle_line, start_line, warm_line};
