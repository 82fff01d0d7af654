//! The end of a process that would compute something wrong.

use super::speaker;
use crate::error::Error;
use crate::report;
use std::sync::Mutex;
use std::time::Duration;

/// Says what happened and ends the process: a wrong token is worse than none.
pub fn fatal(error: &Error) -> ! {
    // Other threads of the lane may fail for the same reason: the first speaks, the others wait for
    // the end here.
    static FIRST: Mutex<()> = Mutex::new(());
    let _first = FIRST.lock();
    say_soon(format!("hotset: error: {error}"));
    // SAFETY: a plain libc call. Destructors must not run, since other threads still compute; nor may
    // streams be flushed, since a thread that waits for input holds the lock of one.
    unsafe { libc::_exit(1) }
}

/// Says it, unless that takes long: a terminal may be stopped.
fn say_soon(text: String) {
    const LIMIT: Duration = Duration::from_secs(2);
    let (sender, receiver) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new().name("hotset-said".to_string());
    let said = text.clone();
    let speak = move || {
        speaker::flush();
        report::say(&said);
        let _ = sender.send(());
    };
    match thread.spawn(speak) {
        Ok(_) => drop(receiver.recv_timeout(LIMIT)),
        // That there are no more threads may be what there is to say.
        Err(_) => report::say(&text),
    }
}
