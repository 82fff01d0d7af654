//! Installing llama.cpp's expert hook, and what programs of ours ask of it.

use super::loaded::loaded_models;
#[cfg(feature = "llama")]
use super::loaded_model::LoadedModel;
use super::model::Model;
use super::sys::{ggml_expert_hook, ggml_set_expert_hook};
use super::workload::Given;
use super::{
    batch_hook, compute_hook, device_hook, ending, http_hook, live, load_hook, metering, reports,
    requests, saving,
};
use crate::config::{Config, Ram, StatsTo};
use crate::error::Result;
#[cfg(feature = "llama")]
use crate::profile::Profile;
use crate::report;
use crate::stats::Stats;

/// The table is only read, and `user_data` is not used.
struct Hook(ggml_expert_hook);

// SAFETY: see above.
unsafe impl Sync for Hook {}

static HOOK: Hook = Hook(ggml_expert_hook {
    user_data: std::ptr::null_mut(),
    wants: Some(load_hook::wants),
    bind: Some(load_hook::bind),
    ready: Some(load_hook::ready),
    unbind: Some(load_hook::unbind),
    warmup: Some(load_hook::warmup),
    find: Some(compute_hook::find),
    route: Some(compute_hook::route),
    acquire: Some(compute_hook::acquire),
    observe: Some(compute_hook::observe),
    buffer: Some(compute_hook::buffer),
    batch: Some(batch_hook::batch),
    trim: Some(batch_hook::trim),
    probe: Some(batch_hook::probe),
    end: Some(compute_hook::ends),
    cached: Some(device_hook::cached),
    plan: Some(device_hook::plan),
    use_: Some(device_hook::use_),
    close: Some(device_hook::close),
    copy: Some(device_hook::copy),
    uncached: Some(device_hook::uncached),
    http: Some(http_hook::http),
    metrics: Some(http_hook::metrics),
});

/// Installs the hook with these settings; does nothing when they say off.
///
/// Call it while no model is loaded. Fails if the settings cannot hold on this machine.
pub fn install(config: Config) -> Result<()> {
    if !config.enabled {
        uninstall();
        return Ok(());
    }
    match (config.ram, &config.routed) {
        // What others of the router have, they give back when the model is loaded.
        (Some(Ram::Bytes(_)), Some(_)) => {}
        (Some(Ram::Bytes(n)), None) => crate::memory::check(n)?,
        _ => {}
    }
    config.check_files()?;
    if let Some(line) = config.named_files() {
        report::say(&line);
    }
    let given = Given::read(&config)?;
    let is_silent = config.stats == StatsTo::Off;
    let has_files = config.files().next().is_some();
    ending::want(has_files || given.saves() || !is_silent);
    if let StatsTo::Every(interval) = config.stats {
        let thread = std::thread::Builder::new().name("hotset-stats".to_string());
        if let Err(cause) = thread.spawn(move || reports::report_every(interval)) {
            report::say(&format!(
                "hotset: warning: no thread for HOTSET_STATS: {cause}; it reports at the end only"
            ));
        }
    }
    http_hook::answer_if(config.answers);
    requests::count_if(config.answers, !is_silent);
    metering::count_if(config.answers);
    live::begin();
    loaded_models().configure(config, given);
    // SAFETY: the table is static.
    unsafe { ggml_set_expert_hook(&HOOK.0) };
    Ok(())
}

/// As [`install`], and profiles are learnt whether they are saved or not.
#[cfg(feature = "llama")]
pub fn install_to_learn(config: Config) -> Result<()> {
    install(config)?;
    loaded_models().learn();
    Ok(())
}

/// The profiles of all loaded models, where they are learnt.
#[cfg(feature = "llama")]
pub fn profiles() -> Vec<Profile> {
    let models = loaded_models().all();
    saving::save_all(&models);
    let workloads = models.iter().filter_map(LoadedModel::workload);
    workloads.filter_map(|workload| workload.learnt()).collect()
}

/// Removes the hook. Call it while no model is loaded.
pub fn uninstall() {
    // SAFETY: NULL is allowed, and the caller says that no model is loaded.
    unsafe { ggml_set_expert_hook(std::ptr::null()) };
}

/// What is computed from now on is no text: nothing is learnt from it.
#[cfg(feature = "llama")]
pub fn teach_nothing() {
    loaded_models().teach_nothing();
}

/// Holds tables back until [`finish`], for programs that still have text to write when a model goes.
#[cfg(feature = "llama")]
pub fn hold_tables() {
    loaded_models().holds_tables = true;
}

/// Reports on the models that are still loaded; for the end of a program that does not free them.
///
/// Returns false if any report of this process could not be written.
pub fn finish() -> bool {
    ending::apart(|| saving::finish_with(Model::stats, usize::MAX))
}

/// The counters of every loaded model.
pub fn stats() -> Vec<Stats> {
    reports::stats(Model::stats, usize::MAX)
}

/// The same without the comparison with other policies, which takes time and memory.
#[cfg(feature = "llama")]
pub fn counters() -> Vec<Stats> {
    reports::stats(Model::counters, 0)
}
