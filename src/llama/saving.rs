//! What the loaded models leave: profiles, recordings, reports.

use super::bound::BOUND;
use super::loaded_model::LoadedModel;
use super::model::Model;
use super::{neighbours, observer, reports, shares, speaker};
use crate::stats::Stats;

/// Reports on the models that are still loaded, and leaves the memory of this process to others.
pub fn finish_with(stats: fn(&Model) -> Option<Stats>, n_picks_max: usize) -> bool {
    let is_reported = reports::rest(stats, n_picks_max);
    shares::leave();
    neighbours::leave();
    is_reported
}

/// The end of the process: saves and reports all there is, but for the comparison with other policies. Locks that an
/// interrupted thread holds are given up after a while.
pub fn end() {
    save_profiles();
    finish_with(Model::counters, 0);
    live().iter().for_each(LoadedModel::end_recording);
    speaker::flush();
}

/// Saves what there is so far.
pub fn save() {
    save_profiles();
    reports::write_so_far();
}

/// The models of which there may be something to save. The loaded models may be in use for long, by a model that is being
/// loaded; this needs no lock.
fn live() -> Vec<LoadedModel> {
    let table = BOUND.load();
    // One tensor of each model.
    let firsts = table.iter().filter(|(_, b)| (b.layer, b.part) == (0, 0));
    let streamed = firsts.map(|(_, bound)| LoadedModel::Streamed(bound.model.clone()));
    let loaded = observer::observers().into_iter().map(LoadedModel::Loaded);
    streamed.chain(loaded).collect()
}

/// Saves the profiles of all models; what is in use by an interrupted thread stays as it was.
pub fn save_profiles() {
    save_all(&live());
}

/// Saves the profiles of these.
pub fn save_all(models: &[LoadedModel]) {
    models.iter().for_each(LoadedModel::save);
}
