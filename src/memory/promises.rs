//! What may be mapped, whether it is used or not: limits of this process, and of systems that promise no more
//! memory than they have.

use super::limit::{Limit, kib_field};
use crate::proc::{field, number};
use rustix::process::{Resource, getrlimit};
use std::path::Path;

/// What of the addresses that this process may have is left, if there is a limit (`ulimit -v`).
pub(super) fn addresses(root: &Path) -> Option<Limit> {
    resource(root, Resource::As, "VmSize:", "the limit of address space")
}

/// What the system promises more of memory that can be written to, used or not: by `ulimit -d`, and where it
/// does not promise more than it has (`vm.overcommit_memory` of 2).
pub(super) fn promises(root: &Path) -> impl Iterator<Item = Limit> {
    let data = resource(root, Resource::Data, "VmData:", "the limit of data");
    data.into_iter().chain(commit(root))
}

fn resource(root: &Path, resource: Resource, used: &str, what: &str) -> Option<Limit> {
    let limit = getrlimit(resource).current?;
    let used = kib_field(&root.join("proc/self/status"), used).unwrap_or(0);
    Some(Limit {
        n_bytes: limit,
        is_machine: false,
        room: i64::try_from(limit).unwrap_or(i64::MAX) - used as i64,
        why: format!("{what} of {limit} bytes, ulimit"),
    })
}

fn commit(root: &Path) -> Option<Limit> {
    if number(&root.join("proc/sys/vm/overcommit_memory"))? != 2 {
        return None;
    }
    let meminfo = root.join("proc/meminfo");
    let kib = |name| field(&meminfo, name);
    let all = kib("CommitLimit:")?;
    let room = all as i64 - kib("Committed_AS:")? as i64;
    Some(Limit {
        n_bytes: 1024 * all,
        is_machine: true,
        room: 1024 * room,
        why: "CommitLimit of /proc/meminfo".into(),
    })
}
