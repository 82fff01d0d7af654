//! The other models of `HOTSET_RAM=auto` that see the same memory, in this process or others of this user: what they
//! say, and what they are told.

use crate::memory;
use crate::memory::division::Member;
use crate::memory::turns::others_need;
use crate::report;
use crate::sharing::{self, Ledger};
use rustix::time::{ClockId, clock_gettime};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex, MutexGuard};

/// Changes with what is told: those of other versions do not meet.
const VERSION: u32 = 1;
/// Time between two looks at which control group this is, in milliseconds.
const GROUP_MS: u64 = 1000;

/// What the models of this process have in ledgers, by their numbers.
static LEDGERS: Mutex<Vec<(u64, Ledger<Member>)>> = Mutex::new(Vec::new());

fn ledgers() -> MutexGuard<'static, Vec<(u64, Ledger<Member>)>> {
    LEDGERS.lock().expect("no thread panics with it")
}

/// Those of one model.
pub struct Neighbours {
    /// Its number in this process.
    number: u64,
    /// Where folders of all groups are, the first that can be used.
    bases: Vec<PathBuf>,
    /// The folder of its group, if it has come there, and when that was looked at.
    folder: Option<PathBuf>,
    looked_at: u64,
}

impl Neighbours {
    /// None so far. `bases` are where the folders of all groups may be.
    pub fn new(number: u64, bases: &[PathBuf]) -> Self {
        Self {
            number,
            bases: bases.to_vec(),
            folder: None,
            looked_at: 0,
        }
    }

    /// Tells them what this model is like, and returns what they say.
    pub fn meet(&mut self, own: &Member) -> Vec<Member> {
        if self.bases.is_empty() {
            return Vec::new();
        }
        let met = self.try_meet(own);
        met.unwrap_or_else(|cause| {
            report::say(&format!(
                "hotset: warning: models of HOTSET_RAM=auto in other processes are not told what this one needs, \
                 nor heard: {cause}"
            ));
            self.leave();
            self.bases.clear();
            Vec::new()
        })
    }

    /// Tells them what has changed.
    pub fn tell(&self, own: &Member) {
        let ledgers = ledgers();
        if let Some((_, ledger)) = ledgers.iter().find(|(number, _)| *number == self.number) {
            // The next meeting shows what is wrong.
            let _ = ledger.tell(*own);
        }
    }

    fn try_meet(&mut self, own: &Member) -> io::Result<Vec<Member>> {
        if self.folder.is_none() || own.told_at >= self.looked_at + GROUP_MS {
            self.looked_at = own.told_at;
            self.come(own)?;
        }
        let ledgers = ledgers();
        // There is none at the end of the process.
        let Some((_, ledger)) = ledgers.iter().find(|(number, _)| *number == self.number) else {
            return Ok(Vec::new());
        };
        ledger.tell(*own)?;
        let others = ledger.others();
        if matches!(&others, Err(cause) if cause.kind() == io::ErrorKind::NotFound) {
            // Somebody has tidied up: it joins again.
            self.folder = None;
            return Ok(Vec::new());
        }
        others
    }

    /// Joins those of the group where this process is now.
    fn come(&mut self, own: &Member) -> io::Result<()> {
        let name = folder_name();
        if self
            .folder
            .as_ref()
            .is_some_and(|folder| folder.ends_with(&name))
        {
            return Ok(());
        }
        self.leave();
        let mut failure = io::Error::other("there is no folder for it");
        for base in &self.bases {
            let folder = base.join(&name);
            match Ledger::join(&folder, *own) {
                Ok(ledger) => {
                    sharing::sweep(&folder);
                    ledgers().push((self.number, ledger));
                    self.folder = Some(folder);
                    return Ok(());
                }
                Err(cause) => failure = cause,
            }
        }
        Err(failure)
    }

    fn leave(&self) {
        ledgers().retain(|(number, _)| *number != self.number);
    }
}

impl Drop for Neighbours {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Leaves the others what this process has, unless it is interrupted while it looks: they will see its end anyway.
pub fn leave() {
    if let Ok(mut ledgers) = LEDGERS.try_lock() {
        ledgers.clear();
    }
}

/// What models of other processes will still need of what counts as available.
pub fn need(bases: &[PathBuf]) -> u64 {
    let name = folder_name();
    let folders = bases.iter().map(|base| base.join(&name));
    let members: Vec<Member> = folders
        .flat_map(|folder| sharing::living(&folder))
        .collect();
    others_need(process(), memory::room(), &members)
}

fn folder_name() -> String {
    format!("auto-{VERSION}-{}", memory::group())
}

/// A number that no other process has.
pub fn process() -> u64 {
    static NUMBER: LazyLock<u64> = LazyLock::new(|| RandomState::new().build_hasher().finish());
    *NUMBER
}

/// Milliseconds of a clock that all processes of the machine have.
pub fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}
