//! Says what the core has to tell. It is told by threads that compute, with locks that others want, and whoever reads
//! standard error may be slow: so a thread of its own says it.

use super::signals;
use crate::notice::{Listener, Notice, Notices};
use crate::report;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::Duration;

enum Word {
    Notice(Notice),
    Text(String),
    /// Answered when everything before it is said.
    Flush(Sender<()>),
}

/// To the thread; `None` if there is none to be had.
static THREAD: OnceLock<Option<Mutex<Sender<Word>>>> = OnceLock::new();

fn start() -> Option<Mutex<Sender<Word>>> {
    let (sender, receiver) = channel();
    let speak = move || {
        // A signal that interrupts it would wait for whoever waits for it.
        signals::leave_to_others();
        for word in receiver {
            match word {
                Word::Notice(notice) => report::say(&notice.to_string()),
                Word::Text(text) => report::say(&text),
                Word::Flush(done) => drop(done.send(())),
            }
        }
    };
    let thread = std::thread::Builder::new().name("hotset-say".into());
    PROCESS.store(std::process::id(), Relaxed);
    thread.spawn(speak).ok().map(|_| Mutex::new(sender))
}

/// Says what `notices` tell from now on, and have told.
pub fn follow(notices: &Notices) {
    let sender = THREAD.get_or_init(start).as_ref().map(|thread| {
        let thread = thread.lock().expect("no thread panics with it");
        thread.clone()
    });
    let listener: Listener = match sender {
        // The thread lives as long as the process, but not in a child that was forked.
        Some(sender) => Box::new(move |notice| match is_here() {
            true => drop(sender.send(Word::Notice(notice))),
            false => unsaid().push(notice),
        }),
        // It is said at the next chance: whoever tells may hold a lock.
        None => Box::new(|notice| unsaid().push(notice)),
    };
    notices.listen(listener);
}

/// Says `text`, or nothing if there is no thread for it.
pub fn say(text: String) {
    let thread = THREAD.get_or_init(start).as_ref().filter(|_| is_here());
    if let Some(thread) = thread {
        let thread = thread.lock().expect("no thread panics with it");
        let _ = thread.send(Word::Text(text));
    }
}

/// The process that has the thread.
static PROCESS: AtomicU32 = AtomicU32::new(0);

fn is_here() -> bool {
    PROCESS.load(Relaxed) == std::process::id()
}

/// What nobody could say.
static UNSAID: Mutex<Vec<Notice>> = Mutex::new(Vec::new());

fn unsaid() -> MutexGuard<'static, Vec<Notice>> {
    UNSAID.lock().expect("no thread panics with it")
}

/// Waits until what was told so far is said, but not for long: a terminal may be stopped.
pub fn flush() {
    const LIMIT: Duration = Duration::from_secs(1);
    let thread = THREAD.get().and_then(Option::as_ref);
    let Some(thread) = thread.filter(|_| is_here()) else {
        let unsaid = std::mem::take(&mut *unsaid());
        unsaid
            .iter()
            .for_each(|notice| report::say(&notice.to_string()));
        return;
    };
    let (done, said) = channel();
    // Whoever holds it was interrupted.
    let Ok(sender) = thread.try_lock() else {
        return;
    };
    if sender.send(Word::Flush(done)).is_ok() {
        let _ = said.recv_timeout(LIMIT);
    }
}
