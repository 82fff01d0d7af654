//! Says whether the cache pays.
