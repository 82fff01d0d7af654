//! llama-cli at its prompt, in a terminal.

use super::child::{Ended, Running, command, polyglot};
use super::terminal::Terminal;
use std::time::Duration;

/// Starts a chat, and sends it a signal when it waits for what a person types.
fn end_idle_chat(vars: &[(&str, &str)], signal: libc::c_int) -> Ended {
    let terminal = Terminal::open();
    let mut chat = command(env!("CARGO_BIN_EXE_llama-cli"), vars);
    chat.arg("-m").arg(polyglot());
    chat.args(["-c", "512", "-t", "2", "-ngl", "0", "--no-repack"]);
    let mut running = Running::start_reading(chat, terminal.stdio());
    running.wait_until("a prompt", |r| r.stdout().ends_with(b"> "));
    std::thread::sleep(Duration::from_millis(300));
    running.signal(signal);
    let mut n_looks = 0;
    running.wait_watching(|_| {
        n_looks += 1;
        assert!(n_looks < 10_000, "it ignores the signal");
    })
}

#[test]
fn an_idle_chat_ends_at_one_signal() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let stock = end_idle_chat(&[("HOTSET", "off")], signal);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.json");
        let save = ("HOTSET_PROFILE_SAVE", path.to_str().unwrap());
        let ram = ("HOTSET_RAM", "40%");
        for vars in [&[save][..], &[ram], &[save, ram]] {
            let ended = end_idle_chat(vars, signal);
            assert_eq!(ended.status, stock.status, "{}", ended.stderr);
        }
    }
}
