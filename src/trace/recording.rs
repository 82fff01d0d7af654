//! A recording whose pools are known late.

use super::{Header, Picks, PoolSpec, Recorder};
use crate::expert::Spot;
use crate::notice::Notices;
use once_cell::sync::OnceCell;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// A recording that begins with its first event: until then its header may change.
pub struct Recording {
    path: PathBuf,
    header: Mutex<Header>,
    recorder: OnceCell<Recorder>,
    notices: Arc<Notices>,
}

impl Recording {
    /// Will write to `path`, see [`Recorder::new`].
    pub fn new(path: PathBuf, header: Header) -> Self {
        Self {
            path,
            header: Mutex::new(header),
            recorder: OnceCell::new(),
            notices: Arc::default(),
        }
    }

    /// What there is to tell a person.
    pub fn notices(&self) -> &Notices {
        &self.notices
    }

    /// As [`Recorder::record`].
    pub fn record(&self, layer: u32, picks: Picks, spots: &[Spot], is_aside: bool) {
        let begin = || {
            let header = self.header.lock().expect(HEADER).clone();
            Recorder::new(self.path.clone(), header, self.notices.clone())
        };
        let recorder = self.recorder.get_or_init(begin);
        recorder.record(layer, picks, spots, is_aside);
    }

    /// What is recorded goes through these pools of devices first. Those of the first context count.
    pub fn note_devices(&self, pools: &[PoolSpec]) {
        let mut header = self.header.lock().expect(HEADER);
        if !header.pools.iter().any(|pool| pool.device) {
            header.pools = pools.to_vec();
        }
    }

    /// As [`Recorder::pause`].
    pub fn pause(&self) {
        if let Some(recorder) = self.recorder.get() {
            recorder.pause();
        }
    }

    /// As [`Recorder::finish`].
    pub fn finish(&self) {
        if let Some(recorder) = self.recorder.get() {
            recorder.finish();
        }
    }
}

const HEADER: &str = "no thread panics with it";
