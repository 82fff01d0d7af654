//! Large batches that a device computes with experts that are copied to it for one operation.
//!
//! What the device keeps of these llama.cpp copies there. Of a model that streams the rest comes through the memory of
//! its engine: as a loan, which ends with the last operation of the layer. Of other models llama.cpp copies all.

use super::banks::send;
use super::bound::{Bound, bound};
use super::device;
use super::model::Model;
use super::observer;
use super::picks::picks;
use super::sys::{
    ggml_backend_synchronize, ggml_backend_t, ggml_backend_tensor_set_async, ggml_tensor,
};
use crate::draft_tokens::Batch;
use crate::engine::{Loan, Wanted};
use crate::error::Result;
use crate::trace::Picks;
use std::cell::RefCell;
use std::sync::{Arc, Weak};

/// A layer of which some operations have been copied for.
struct Open {
    model: Weak<Model>,
    layer: usize,
    /// One bit for each part whose operation is still to come.
    parts_left: u32,
    loan: Loan,
}

thread_local! {
    /// The layer that this thread computes.
    static OPEN: RefCell<Option<Open>> = const { RefCell::new(None) };
}

/// A device is about to compute an operation of a large batch, for which the router has picked `ids`: copies what the
/// device does not keep of these experts to the operation's copy of `weights`. Returns false if that is left to
/// llama.cpp.
///
/// # Safety
///
/// As `ggml-expert-hook.h` says.
pub unsafe fn copy(
    backend: ggml_backend_t,
    weights: *const ggml_tensor,
    op: &ggml_tensor,
    ids: *const i32,
    batch: &Batch,
) -> Result<bool> {
    // SAFETY: the operation has ids, and this is what they are.
    let ids = ggml_tensor {
        data: ids.cast_mut().cast(),
        ..unsafe { *op.src[2] }
    };
    let Some(bound) = bound(weights as usize) else {
        if batch.is_trial() {
            return Ok(false);
        }
        // SAFETY: they lie in memory.
        if let Some((layer, picks)) = unsafe { observer::record(weights as usize, &ids, batch) } {
            device::learn_uncached(layer, picks, &device::held(layer, backend), batch)?;
        }
        return Ok(false);
    };
    // SAFETY: the same.
    let picks = unsafe { picks(&ids) };
    OPEN.with_borrow_mut(|open| {
        if !open.as_ref().is_some_and(|open| open.goes_on(&bound)) {
            close(open)?;
            *open = Some(Open::begin(&bound, picks, backend, batch)?);
        }
        let layer = open.as_mut().expect("it is open");
        // SAFETY: the operation has the weights where they are to be copied to.
        unsafe { layer.send(&bound, backend, op.src[0])? };
        if layer.parts_left == 0 {
            close(open)?;
        }
        Ok(true)
    })
}

/// This thread computes something else.
pub fn end() -> Result<()> {
    OPEN.with_borrow_mut(close)
}

fn close(open: &mut Option<Open>) -> Result<()> {
    let Some(mut open) = open.take() else {
        return Ok(());
    };
    open.end()
}

/// A thread may end in the middle of a layer. What was sent to the device has been waited for.
impl Drop for Open {
    fn drop(&mut self) {
        // Whoever uses the model next sees that it cannot be read.
        let _ = self.end();
    }
}

impl Open {
    /// Plans the layer's event, and begins to read what is not in memory.
    fn begin(bound: &Bound, picks: Picks, backend: ggml_backend_t, batch: &Batch) -> Result<Self> {
        let engine = bound.model.engine()?;
        let held = device::held(bound.layer, backend);
        let layer = &engine.layout().layers[bound.layer];
        let is_missing = |id: &u32| held.binary_search(id).is_err();
        let missing: Vec<u32> = (0..layer.n_experts).filter(is_missing).collect();
        let wanted = Wanted {
            picks,
            batch,
            missing: &missing,
            victims: &[],
            is_kept: false,
        };
        let mut loan = Loan::default();
        engine.begin_loan(bound.layer, &wanted, &mut loan)?;
        if !batch.is_trial() {
            device::learn_uncached(bound.layer, picks, &held, batch)?;
        }
        Ok(Self {
            model: Arc::downgrade(&bound.model),
            layer: bound.layer,
            parts_left: layer.all_parts(),
            loan,
        })
    }

    /// The loan ends, if it has not.
    fn end(&mut self) -> Result<()> {
        match self.model.upgrade() {
            Some(model) => model.engine()?.end_loan(&mut self.loan),
            None => Ok(()),
        }
    }

    /// Whether an operation on these weights is one of this layer's that are still to come.
    fn goes_on(&self, bound: &Bound) -> bool {
        let is_same = self.layer == bound.layer && self.parts_left & (1 << bound.part) != 0;
        is_same && std::ptr::eq(self.model.as_ptr(), Arc::as_ptr(&bound.model))
    }

    /// Sends what is lent of one part to `target`, and waits until the device has it.
    ///
    /// # Safety
    ///
    /// `target` is on the device and has place for all experts of the part.
    unsafe fn send(
        &mut self,
        bound: &Bound,
        backend: ggml_backend_t,
        target: *mut ggml_tensor,
    ) -> Result<()> {
        let part = bound.part;
        self.parts_left &= !(1 << part);
        // SAFETY: passed on from our caller. What was computed before may have had its data at the same place: it
        // has ended then.
        let (n, n_experts) = unsafe {
            ggml_backend_synchronize(backend);
            ((*target).nb[2], (*target).ne[2] as u32)
        };
        let engine = bound.model.engine()?;
        engine.show(&self.loan, part..part + 1, |piece| {
            // SAFETY: the same; the loan is not ended before the device has been waited for.
            unsafe { send(backend, target, piece.expert, piece, n) }
        })?;
        // Some devices read a bit more than an expert, which must not be NaN.
        static ZEROS: [u8; 512] = [0; 512];
        let picked = self.loan.picked();
        let behind = picked.iter().map(|expert| expert + 1);
        for place in behind.filter(|e| *e < n_experts && picked.binary_search(e).is_err()) {
            let (data, offset) = (ZEROS.as_ptr().cast(), place as usize * n);
            // SAFETY: the same, and nobody reads this place for what it holds.
            unsafe {
                ggml_backend_tensor_set_async(backend, target, data, offset, n.min(ZEROS.len()));
            }
        }
        // SAFETY: the same.
        unsafe { ggml_backend_synchronize(backend) };
        Ok(())
    }
}
