//! The trials of this process, which take turns: what one model does while it compares, all others notice.

use crate::trial::{Turn, Turns};
use std::sync::{Arc, LazyLock};

static TURNS: LazyLock<Arc<Turns>> = LazyLock::new(Arc::default);

/// For one trial more.
pub fn turn() -> Turn {
    Turn::of(&TURNS)
}
