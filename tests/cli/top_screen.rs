//! The screen of `hotset top`, and the terminal that it leaves behind.

use super::top::{Request, answer, refusal, serve, top};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// What is drawn takes no longer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Sent before a program writes over a screen that comes back, and the other one after it.
const ENTER: &str = "\u{1b}[?1049h";
const LEAVE: &str = "\u{1b}[?1049l";

/// A terminal of 80 columns and 24 rows with the program on it.
struct Screen {
    person: File,
    program: File,
    written: Arc<Mutex<Vec<u8>>>,
    child: Child,
    modes: libc::termios,
}

impl Screen {
    fn open(mut command: Command) -> Self {
        let (mut person, mut program) = (-1, -1);
        let size = winsize(24, 80);
        let (name, modes) = (std::ptr::null_mut(), std::ptr::null());
        // SAFETY: places for two files, which are ours then, and a size; names and modes are not asked for.
        let (person, program) = unsafe {
            let status = libc::openpty(&mut person, &mut program, name, modes, &size);
            assert_eq!(status, 0, "a terminal");
            (File::from_raw_fd(person), File::from_raw_fd(program))
        };
        let stdio = || program.try_clone().unwrap();
        command.env("TERM", "xterm-256color");
        command.stdin(stdio()).stdout(stdio()).stderr(stdio());
        let modes = modes_of(&program);
        let written: Arc<Mutex<Vec<u8>>> = Arc::default();
        let (mut reader, all) = (person.try_clone().unwrap(), written.clone());
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = reader.read(&mut bytes) {
                all.lock().unwrap().extend(&bytes[..n]);
            }
        });
        Self {
            child: command.spawn().unwrap(),
            person,
            program,
            written,
            modes,
        }
    }

    fn written(&self) -> String {
        String::from_utf8_lossy(&self.written.lock().unwrap()).into_owned()
    }

    #[track_caller]
    fn wait_for(&self, text: &str) {
        let start = Instant::now();
        while !self.written().contains(text) {
            let written = self.written();
            assert!(start.elapsed() < PATIENCE, "no {text:?} in {written:?}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn press(&mut self, keys: &str) {
        self.person.write_all(keys.as_bytes()).unwrap();
    }

    /// The end of the program, which must have left the terminal as it was; with what it wrote last.
    #[track_caller]
    fn end(mut self) -> (ExitStatus, String) {
        let start = Instant::now();
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None if start.elapsed() > PATIENCE => panic!("it goes on: {:?}", self.written()),
                None => thread::sleep(Duration::from_millis(20)),
            }
        };
        self.wait_for(LEAVE);
        let written = self.written();
        assert!(written.find(ENTER) < written.rfind(LEAVE), "{written:?}");
        let modes = modes_of(&self.program);
        assert_eq!(modes.c_lflag, self.modes.c_lflag);
        assert_eq!(modes.c_iflag, self.modes.c_iflag);
        let last = written.rsplit(LEAVE).next().unwrap_or_default().to_string();
        (status, last)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Of a test that failed, one that goes on.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn winsize(n_rows: u16, n_columns: u16) -> libc::winsize {
    libc::winsize {
        ws_row: n_rows,
        ws_col: n_columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

fn modes_of(terminal: &File) -> libc::termios {
    // SAFETY: zeros are modes, and they are read from a terminal that is open.
    unsafe {
        let mut modes = std::mem::zeroed();
        assert_eq!(libc::tcgetattr(terminal.as_raw_fd(), &mut modes), 0);
        modes
    }
}

#[test]
fn another_size_is_another_screen() {
    let url = serve(|request| answer(request.line.trim_start_matches("GET "))) + "/llm";
    let mut screen = Screen::open(top(&[&url]));
    screen.wait_for("\u{1b}[24;1H");
    let size = winsize(40, 100);
    // SAFETY: a size for a terminal that is open.
    unsafe { libc::ioctl(screen.program.as_raw_fd(), libc::TIOCSWINSZ, &size) };
    screen.wait_for("\u{1b}[40;1H");
    screen.press("q");
    assert!(screen.end().0.success());
}

#[test]
fn keys_and_signals_end_it_and_the_terminal_is_as_it_was() {
    let url = serve(|request| answer(request.line.trim_start_matches("GET "))) + "/llm";
    // Ctrl-C, which is a key here.
    for key in ["q", "\u{3}"] {
        let mut screen = Screen::open(top(&[&url]));
        screen.wait_for("q quit");
        screen.wait_for("38;5;");
        screen.press(key);
        let (status, _) = screen.end();
        assert_eq!(status.code(), Some(0));
    }
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let screen = Screen::open(top(&[&url]));
        screen.wait_for("q quit");
        // SAFETY: a signal to a child that has not been waited for.
        unsafe { libc::kill(screen.child.id() as libc::pid_t, signal) };
        let (status, _) = screen.end();
        assert_eq!(status.signal(), Some(signal));
    }
}

/// A text of the JSON in a request.
fn said(request: &Request, name: &str) -> String {
    let body: serde_json::Value = serde_json::from_str(&request.body).unwrap();
    body[name].as_str().unwrap().to_string()
}

#[test]
fn what_a_server_says_of_an_order_is_shown() {
    let url = serve(|request| match request.line.as_str() {
        "POST /llm/hotset/budget" => (400, refusal(&format!("no-{}", said(request, "ram")))),
        "POST /llm/hotset/policy" => (
            200,
            format!(r#"{{"policy":"<{}>"}}"#, said(request, "name")),
        ),
        line => answer(line.trim_start_matches("GET ")),
    }) + "/llm";
    let mut command = top(&[&url]);
    command.env("NO_COLOR", "1");
    let mut screen = Screen::open(command);
    screen.wait_for("q quit");
    // A screen is sent in pieces, but for words that were not there.
    screen.press("b6-parrots\r");
    screen.wait_for("no-6-parrots");
    screen.press("olru\r");
    screen.wait_for("<lru>");
    screen.press("q");
    let written = screen.written();
    assert!(
        !written.contains("38;5;") && written.contains("Mmdg"),
        "{written:?}"
    );
    assert!(screen.end().0.success());
}

#[test]
fn a_server_that_goes_away_is_waited_for_and_one_that_wants_a_key_is_not() {
    let (is_away, is_locked) = (Arc::new(AtomicBool::new(true)), AtomicBool::new(false));
    let is_locked = Arc::new(is_locked);
    let state = (is_away.clone(), is_locked.clone());
    let url = serve(
        move |request| match (state.0.load(Relaxed), state.1.load(Relaxed)) {
            (true, _) => (503, refusal("Loading model")),
            (_, true) => (401, String::new()),
            _ => answer(request.line.trim_start_matches("GET ")),
        },
    ) + "/llm";
    let screen = Screen::open(top(&[&url]));
    screen.wait_for("Loading model");
    is_away.store(false, Relaxed);
    screen.wait_for("small.gguf");
    is_locked.store(true, Relaxed);
    let (status, last) = screen.end();
    assert_eq!(status.code(), Some(2));
    assert!(
        last.contains("hotset: error: ") && last.contains("--api-key"),
        "{last}"
    );
}
