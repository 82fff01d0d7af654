//! Says what the core has to tell. It is told by threads that compute, with locks that others want, and whoever reads
//! standard error may be slow: so a thread of its own says it.

use crate::notice::{Listener, Notice, Notices};
use crate::report;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

enum Word {
    Notice(Notice),
    /// Answered when everything before it is said.
    Flush(Sender<()>),
}

/// To the thread; `None` if there is none to be had.
static THREAD: OnceLock<Option<Mutex<Sender<Word>>>> = OnceLock::new();

fn start() -> Option<Mutex<Sender<Word>>> {
    let (sender, receiver) = channel();
    let speak = move || {
        for word in receiver {
            match word {
                Word::Notice(notice) => report::say(&notice.to_string()),
                Word::Flush(done) => drop(done.send(())),
            }
        }
    };
    let thread = std::thread::Builder::new().name("hotset-say".into());
    thread.spawn(speak).ok().map(|_| Mutex::new(sender))
}

/// Says what `notices` tell from now on, and have told.
pub fn follow(notices: &Notices) {
    let sender = THREAD.get_or_init(start).as_ref().map(|thread| {
        let thread = thread.lock().expect("no thread panics with it");
        thread.clone()
    });
    let listener: Listener = match sender {
        // The thread lives as long as the process.
        Some(sender) => Box::new(move |notice| drop(sender.send(Word::Notice(notice)))),
        None => Box::new(|notice| report::say(&notice.to_string())),
    };
    notices.listen(listener);
}

/// Waits until what was told so far is said, but not for long: a terminal may be stopped.
pub fn flush() {
    const LIMIT: Duration = Duration::from_secs(1);
    let Some(thread) = THREAD.get().and_then(Option::as_ref) else {
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
