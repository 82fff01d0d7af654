//! The terminal while a screen is on it. However the program ends, it is left as it was.

use super::app::{Action, App};
use super::client::Client;
use super::screen;
use super::threads::Threads;
use hotset::error::Error;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// How soon news are on the screen, and a signal is seen.
const GLANCE: Duration = Duration::from_millis(200);

/// The number of the signal that ended it, if one did.
type Signal = Option<i32>;

/// Shows the server until a key or a signal ends it.
pub fn watch(client: Client) -> anyhow::Result<ExitCode> {
    let signal = Arc::new(AtomicUsize::new(0));
    for number in [SIGINT, SIGTERM] {
        flag::register_usize(number, signal.clone(), number as usize)
            .map_err(|cause| Error::system("signals", cause))?;
    }
    // https://no-color.org: set, and not to nothing.
    let has_colors = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let app = App::new(client.base(), has_colors);
    let threads = Threads::start(client);
    let shown = match ratatui::try_init() {
        Ok(mut terminal) => show(&mut terminal, app, &threads, &signal),
        Err(cause) => Err(of_terminal(cause).into()),
    };
    // Fails where the terminal is gone, and then there is nothing to restore.
    let _ = ratatui::try_restore();
    if let Some(number) = shown? {
        // Who sent it sees that it ended the program. Returns only if that cannot be done.
        let _ = low_level::emulate_default_handler(number);
    }
    Ok(ExitCode::SUCCESS)
}

fn show(
    terminal: &mut DefaultTerminal,
    mut app: App,
    threads: &Threads,
    signal: &AtomicUsize,
) -> anyhow::Result<Signal> {
    let start = Instant::now();
    let mut is_current = false;
    loop {
        let before = app.now.as_secs();
        app.tick(start.elapsed());
        for news in threads.news() {
            is_current = false;
            app.hear(news).map_err(|failure| failure.error(&app.url))?;
        }
        // Nothing is sent over a slow line for nothing; ages are in seconds.
        if !is_current || app.now.as_secs() != before {
            let drawn = terminal.draw(|frame| screen::draw(frame, &app));
            drawn.map_err(of_terminal)?;
            is_current = true;
        }
        let mut wait = GLANCE;
        // What was typed meanwhile is taken in before it is drawn.
        while event::poll(wait).map_err(of_terminal)? {
            wait = Duration::ZERO;
            is_current = false;
            // A resize is seen by the next drawing.
            if let Event::Key(key) = event::read().map_err(of_terminal)? {
                match app.press(key) {
                    Some(Action::Quit) => return Ok(None),
                    Some(action) => threads.act(action),
                    None => {}
                }
            }
        }
        match signal.load(Relaxed) {
            0 => {}
            number => return Ok(Some(number as i32)),
        }
    }
}

fn of_terminal(cause: std::io::Error) -> Error {
    Error::system("the terminal", cause)
}
