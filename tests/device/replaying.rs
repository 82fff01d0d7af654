//! What is recorded of a run with a device is what its policy decided about: replayed, it gives the hits of the run
//! to the unit.

use super::{budget, config, load};
use crate::runner::{Options, take_hook, tokens};
use crate::tiny;
use hotset::config::Ram;
use hotset::policy::REGISTRY;
use hotset::replay::Replay;
use hotset::trace::Trace;

/// A prompt, generation, small batches and generation again. No batch looks like drafts: what is rejected is
/// recorded, but the policy does not hear of it.
#[test]
pub fn replaying_gives_the_hits_of_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let all = tiny::all();
    // One pool, two, and one for each of three layers.
    for (spec, n_pools) in [(&all[1], 1), (&all[0], 2), (&all[7], 3)] {
        let model = tiny::write(spec, dir.path());
        let ram = Some(Ram::Percent(30.0));
        // A guard tries at least what it is like without the cache.
        let runs = [(None, false), (None, true), (ram, false)];
        let policies = REGISTRY
            .iter()
            .flat_map(|policy| runs.map(|(ram, is_guarded)| (policy, ram, is_guarded)));
        for (policy, ram, is_guarded) in policies {
            let path = dir.path().join("run.trace.gz");
            let mut config = config(policy.name);
            config.trace = Some(path.clone());
            config.ram = ram;
            config.guards_device = is_guarded;
            let options = Options {
                n_threads: 1,
                n_batch: 200,
                n_ubatch: 60,
                n_seq: 4,
                ..Options::default()
            };
            let hook = take_hook(Some(&config));
            let mut runner = load(&model, options, budget(spec, 0.66));
            let given = tokens(200, tiny::N_VOCAB);
            let mut given = given.as_slice();
            let mut next = |n: usize| given.split_off(..n).expect("there are enough");
            let mut logits = Vec::new();
            (0..8).for_each(|_| runner.decode(next(1), &mut logits));
            runner.read(next(80));
            (0..6).for_each(|_| runner.decode(next(4), &mut logits));
            runner.read(next(7));
            (0..20).for_each(|_| runner.decode(next(1), &mut logits));
            let device = hotset::llama::stats().remove(0).devices.remove(0);
            drop(runner);
            drop(hook);

            let trace = Trace::open(&path, u32::MAX).unwrap();
            let header = trace.header();
            let what = format!("{} {} {ram:?} {is_guarded}", spec.name, policy.name);
            assert_eq!(header.pools.len(), n_pools, "{what}");
            let shape = header.shape();
            let mut replay = Replay::new(&shape, &header.pools, policy.name, None).unwrap();
            let hits = replay.run(trace.recorded()).unwrap();
            let n_hits: u64 = hits.iter().map(|&n| u64::from(n)).sum();
            assert_eq!(n_hits, device.generation.hits, "{what}");
            assert_eq!(replay.counts().decode, device.generation, "{what}");
            assert_eq!(replay.counts().prefill.events, 0, "{what}");
            assert_eq!(trace.recorded().any(|r| r.is_aside), is_guarded, "{what}");
            assert!(
                is_guarded || device.generation.evictions > 0 && device.n_uncached > 0,
                "{what}"
            );
        }
    }
}
