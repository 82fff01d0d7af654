//! A model that is being loaded.

use super::foresight::SeenRouters;
use super::repack::Streamed;
use crate::engine::layout::Tensor;
use crate::error::{Error, Result};
use crate::store::ModelFile;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::c_int;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the latest load has failed for what somebody has set, so that trying again as it is cannot help.
static IS_REFUSED: AtomicBool = AtomicBool::new(false);

/// Notes how a load has ended.
pub fn note_end(started: &Result<()>) {
    IS_REFUSED.store(
        started.as_ref().is_err_and(is_of_settings),
        Ordering::Release,
    );
}

/// Whether the latest load has failed for what somebody has set.
#[cfg(feature = "llama")]
pub fn is_refused() -> bool {
    IS_REFUSED.load(Ordering::Acquire)
}

/// Whether an error is about what somebody has set. What the system refuses is nobody's mistake.
fn is_of_settings(error: &Error) -> bool {
    match error {
        // A profile of another model, among them.
        Error::Setting { .. }
        | Error::File { .. }
        | Error::Unreadable { .. }
        | Error::Mismatch { .. } => true,
        _ => false,
    }
}

/// A model that is being loaded: its expert tensors seen so far.
pub struct Loading {
    /// The address of the model.
    pub key: usize,
    /// Those of llama.cpp that `tensors` are about.
    pub streamed: Vec<Streamed>,
    /// Expert tensors that are left in the file.
    pub tensors: Vec<Tensor>,
    /// The files, with the descriptors llama.cpp knows them by.
    pub files: Vec<(c_int, ModelFile)>,
    /// Expert tensors that llama.cpp has loaded as usual, and their addresses.
    pub residents: Vec<Tensor>,
    /// The addresses of `residents`.
    pub resident_addresses: Vec<usize>,
    /// Blocks with experts that are in memory in the order that suits the processor, which only it can read.
    pub repacked: BTreeSet<u32>,
    /// The experts of each block that has any, wherever these are.
    pub blocks: BTreeMap<u32, u32>,
    /// Addresses of all weights in host memory that are not left on disk.
    pub in_host: Vec<Range<usize>>,
    /// The routers.
    pub routers: SeenRouters,
    /// What will be said when all tensors are seen.
    pub error: Option<Error>,
}

impl Loading {
    /// The model at address `key`, of which nothing is seen yet.
    pub fn new(key: usize) -> Self {
        Self {
            key,
            streamed: Vec::new(),
            tensors: Vec::new(),
            files: Vec::new(),
            residents: Vec::new(),
            resident_addresses: Vec::new(),
            repacked: BTreeSet::new(),
            blocks: BTreeMap::new(),
            in_host: Vec::new(),
            routers: SeenRouters::default(),
            error: None,
        }
    }

    /// Notes a tensor at `address` that llama.cpp has loaded as usual.
    pub fn add_resident(&mut self, address: usize, tensor: Tensor) {
        self.resident_addresses.push(address);
        self.residents.push(tensor);
    }

    /// Notes a tensor that is left in the file behind `fd`; its `file` is set here.
    pub fn add_streamed(&mut self, streamed: Streamed, tensor: Tensor, fd: c_int) {
        match self.file(fd) {
            Ok(file) => {
                self.streamed.push(streamed);
                self.tensors.push(Tensor { file, ..tensor });
            }
            Err(error) => {
                self.error.get_or_insert(error);
            }
        }
    }

    /// The number of the file behind `fd`, opened on first sight.
    fn file(&mut self, fd: c_int) -> Result<u32> {
        if let Some(at) = self.files.iter().position(|(known, _)| *known == fd) {
            return Ok(at as u32);
        }
        // SAFETY: llama.cpp keeps the file open until the tensors are bound.
        let file = unsafe { BorrowedFd::borrow_raw(fd) };
        self.files.push((fd, ModelFile::open(file)?));
        Ok(self.files.len() as u32 - 1)
    }
}
