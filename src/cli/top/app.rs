//! What a screen shows, and what keys do to it.

use super::answers::{Heat, Plan, Stats};
use super::client::{Failure, Order, printable};
use super::history::{Counted, History};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::style::{Color, Style};
use std::time::Duration;

/// How long a message stays.
const MESSAGE: Duration = Duration::from_secs(15);

/// What threads tell the screen.
pub enum News {
    Seen(Vec<Stats>, Vec<Heat>),
    Planned(Vec<Plan>),
    /// There was no answer.
    Missed(Failure),
    /// What came of an order.
    Ordered(Result<String, Failure>),
}

/// What a key asks of the threads.
#[derive(Debug, PartialEq)]
pub enum Action {
    Quit,
    Order(Order),
    /// Whether to look at the server no more.
    Pause(bool),
}

/// A model of the server.
#[derive(Default)]
pub struct Watched {
    pub stats: Stats,
    pub heat: Heat,
    pub plan: Option<Plan>,
    pub history: History,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    Budget,
    Policy,
}

impl Asked {
    pub fn name(self) -> &'static str {
        match self {
            Self::Budget => "budget",
            Self::Policy => "policy",
        }
    }
}

/// A line that is being typed.
pub struct Input {
    pub asked: Asked,
    pub text: String,
}

/// All times are since the start of the program.
pub struct App {
    pub url: String,
    pub now: Duration,
    pub models: Vec<Watched>,
    /// Which of them is shown.
    pub shown: usize,
    pub shows_curve: bool,
    pub is_paused: bool,
    /// Letters instead of colours.
    pub has_colors: bool,
    pub input: Option<Input>,
    /// The last answer.
    answered: Option<Duration>,
    /// Why there was none since.
    missed: Option<String>,
    message: Option<(Duration, String)>,
}

impl App {
    pub fn new(url: &str, has_colors: bool) -> Self {
        Self {
            url: url.to_string(),
            now: Duration::ZERO,
            models: Vec::new(),
            shown: 0,
            shows_curve: false,
            is_paused: false,
            has_colors,
            input: None,
            answered: None,
            missed: None,
            message: None,
        }
    }

    pub fn watched(&self) -> Option<&Watched> {
        self.models.get(self.shown)
    }

    /// What was counted in the last `length` of the model that is shown.
    pub fn latest(&self, length: Duration) -> Counted {
        let latest = |watched: &Watched| watched.history.latest(self.seen(), length);
        self.watched().map_or(Counted::default(), latest)
    }

    /// When the server last answered, or the program started.
    pub fn seen(&self) -> Duration {
        self.answered.unwrap_or_default()
    }

    pub fn has_answer(&self) -> bool {
        self.answered.is_some()
    }

    /// `color`, where there are colours.
    pub fn colored(&self, color: Color) -> Style {
        match self.has_colors {
            true => Style::new().fg(color),
            false => Style::new(),
        }
    }

    /// Takes in what a thread tells; fails with what no waiting mends.
    pub fn hear(&mut self, news: News) -> Result<(), Failure> {
        match news {
            News::Seen(stats, heat) => self.see(stats, heat),
            News::Planned(plans) => {
                for (watched, plan) in self.models.iter_mut().zip(plans) {
                    watched.plan = Some(plan);
                }
            }
            News::Missed(Failure::Unauthorized) | News::Ordered(Err(Failure::Unauthorized)) => {
                return Err(Failure::Unauthorized);
            }
            News::Missed(failure) => self.missed = Some(printable(&failure.reason())),
            News::Ordered(Ok(text)) => self.say(&text),
            News::Ordered(Err(failure)) => self.say(&failure.reason()),
        }
        Ok(())
    }

    fn see(&mut self, stats: Vec<Stats>, heat: Vec<Heat>) {
        self.answered = Some(self.now);
        self.missed = None;
        self.models.truncate(stats.len());
        self.models.resize_with(stats.len(), Watched::default);
        let mut heat = heat.into_iter();
        for (watched, stats) in self.models.iter_mut().zip(stats) {
            if watched.stats.model != stats.model {
                *watched = Watched::default();
            }
            watched.history.push(self.now, Counted::of(&stats));
            watched.heat = heat.next().unwrap_or_default();
            watched.stats = stats;
        }
        self.shown = self.shown.min(self.models.len().saturating_sub(1));
    }

    fn say(&mut self, text: &str) {
        self.message = Some((self.now, printable(text)));
    }

    /// The line that has something to say: what is asked, what the server said, or that it does not.
    pub fn line(&self) -> Option<String> {
        if let Some(input) = &self.input {
            return Some(match input.asked {
                Asked::Budget => "Memory for experts, as in 6GiB, 40% or auto".to_string(),
                Asked::Policy => format!("One of {}", self.policies()),
            });
        }
        if let Some((_, text)) = &self.message {
            return Some(text.clone());
        }
        let missed = self.missed.as_ref()?;
        let seconds = (self.now - self.seen()).as_secs();
        Some(format!("no answer since {seconds} s: {missed}"))
    }

    fn policies(&self) -> String {
        let names = self.watched().map(|watched| {
            let policies = watched.stats.live.policies.iter();
            policies.map(|p| printable(&p.name)).collect::<Vec<_>>()
        });
        names.unwrap_or_default().join(", ")
    }

    /// It is `now`.
    pub fn tick(&mut self, now: Duration) {
        self.now = now;
        if self
            .message
            .as_ref()
            .is_some_and(|(at, _)| *at + MESSAGE < now)
        {
            self.message = None;
        }
    }

    pub fn press(&mut self, key: KeyEvent) -> Option<Action> {
        if key.kind == KeyEventKind::Release {
            return None;
        }
        let has_control = key.modifiers.contains(KeyModifiers::CONTROL);
        if has_control && key.code == KeyCode::Char('c') {
            return Some(Action::Quit);
        }
        match self.input.is_some() {
            true => self.press_in_line(key.code, has_control).map(Action::Order),
            false if has_control => None,
            false => self.press_on_screen(key.code),
        }
    }

    fn press_on_screen(&mut self, code: KeyCode) -> Option<Action> {
        self.message = None;
        let asks = |asked| {
            let text = String::new();
            Some(Input { asked, text })
        };
        match code {
            KeyCode::Char('q') => return Some(Action::Quit),
            KeyCode::Char('p' | ' ') => {
                self.is_paused = !self.is_paused;
                return Some(Action::Pause(self.is_paused));
            }
            KeyCode::Char('s') => return Some(Action::Order(Order::SaveProfile)),
            KeyCode::Char('r') => return Some(Action::Order(Order::Reset)),
            KeyCode::Char('h') => self.shows_curve = !self.shows_curve,
            KeyCode::Char('b') => self.input = asks(Asked::Budget),
            KeyCode::Char('o') => self.input = asks(Asked::Policy),
            KeyCode::Tab => self.shown = (self.shown + 1) % self.models.len().max(1),
            _ => {}
        }
        None
    }

    fn press_in_line(&mut self, code: KeyCode, has_control: bool) -> Option<Order> {
        let input = self.input.as_mut()?;
        match code {
            KeyCode::Esc => self.input = None,
            KeyCode::Char('u') if has_control => input.text.clear(),
            KeyCode::Char(c) if !has_control => input.text.push(c),
            KeyCode::Backspace => drop(input.text.pop()),
            KeyCode::Enter => {
                let Input { asked, text } = self.input.take()?;
                let text = text.trim().to_string();
                return match asked {
                    _ if text.is_empty() => None,
                    Asked::Budget => Some(Order::Budget(text)),
                    Asked::Policy => Some(Order::Policy(text)),
                };
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use std::io;

    fn press(app: &mut App, code: KeyCode) -> Option<Action> {
        app.press(KeyEvent::new(code, KeyModifiers::NONE))
    }

    fn type_in(app: &mut App, text: &str) -> Option<Action> {
        for c in text.chars() {
            assert_eq!(press(app, KeyCode::Char(c)), None, "{c}");
        }
        press(app, KeyCode::Enter)
    }

    fn app() -> App {
        let mut app = App::new("http://box", true);
        let seen = News::Seen(vec![sample::stats()], vec![sample::heat()]);
        app.hear(seen).unwrap();
        app
    }

    #[test]
    fn lines_become_orders() {
        let mut app = app();
        assert_eq!(press(&mut app, KeyCode::Char('b')), None);
        assert!(app.line().unwrap().contains("6GiB"));
        // Letters that are keys elsewhere.
        let order = type_in(&mut app, "6GiBq");
        assert_eq!(
            order,
            Some(Action::Order(Order::Budget("6GiBq".to_string())))
        );
        assert!(app.input.is_none());

        press(&mut app, KeyCode::Char('o'));
        assert_eq!(app.line().unwrap(), "One of adaptive, lru");
        type_in(&mut app, "x");
        press(&mut app, KeyCode::Char('o'));
        press(&mut app, KeyCode::Char('x'));
        press(&mut app, KeyCode::Backspace);
        let order = type_in(&mut app, " lru ");
        assert_eq!(order, Some(Action::Order(Order::Policy("lru".to_string()))));

        press(&mut app, KeyCode::Char('o'));
        press(&mut app, KeyCode::Esc);
        assert_eq!(press(&mut app, KeyCode::Char('q')), Some(Action::Quit));
        press(&mut app, KeyCode::Char('b'));
        assert_eq!(press(&mut app, KeyCode::Enter), None);
        let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        press(&mut app, KeyCode::Char('b'));
        assert_eq!(app.press(control_c), Some(Action::Quit));
    }

    #[test]
    fn keys_do_what_the_last_line_says() {
        let mut app = app();
        assert_eq!(
            press(&mut app, KeyCode::Char('p')),
            Some(Action::Pause(true))
        );
        assert_eq!(
            press(&mut app, KeyCode::Char(' ')),
            Some(Action::Pause(false))
        );
        let (s, r) = (KeyCode::Char('s'), KeyCode::Char('r'));
        assert_eq!(press(&mut app, s), Some(Action::Order(Order::SaveProfile)));
        assert_eq!(press(&mut app, r), Some(Action::Order(Order::Reset)));
        press(&mut app, KeyCode::Char('h'));
        assert!(app.shows_curve);
        let two = vec![sample::stats(), sample::stats()];
        app.hear(News::Seen(two, Vec::new())).unwrap();
        press(&mut app, KeyCode::Tab);
        assert_eq!(app.shown, 1);
        // One was unloaded.
        app.hear(News::Seen(vec![sample::stats()], Vec::new()))
            .unwrap();
        assert_eq!(app.shown, 0);
    }

    #[test]
    fn what_a_server_says_is_shown_for_a_while_and_its_silence_until_it_ends() {
        let mut app = app();
        let refused = Failure::Refused(400, "no such policy: \u{7}x".to_string());
        app.hear(News::Ordered(Err(refused))).unwrap();
        assert_eq!(app.line().unwrap(), "no such policy: ?x");
        app.tick(Duration::from_secs(20));
        assert_eq!(app.line(), None);

        let gone = || Failure::Unreachable(io::Error::other("refused"));
        app.hear(News::Missed(gone())).unwrap();
        app.tick(Duration::from_secs(25));
        assert_eq!(app.line().unwrap(), "no answer since 25 s: refused");
        app.hear(News::Seen(vec![sample::stats()], Vec::new()))
            .unwrap();
        assert_eq!(app.line(), None);

        assert!(app.hear(News::Missed(Failure::Unauthorized)).is_err());
        let refused = News::Ordered(Err(Failure::Unauthorized));
        assert!(app.hear(refused).is_err());
    }

    #[test]
    fn another_model_begins_anew() {
        let mut app = app();
        app.tick(Duration::from_secs(2));
        let mut stats = sample::stats();
        stats.generation.tokens += 10;
        app.hear(News::Seen(vec![stats.clone()], Vec::new()))
            .unwrap();
        app.hear(News::Planned(vec![sample::plan()])).unwrap();
        assert_eq!(app.latest(Duration::from_secs(60)).tokens, 10.0);
        stats.model = "other.gguf".to_string();
        app.hear(News::Seen(vec![stats], Vec::new())).unwrap();
        assert_eq!(app.latest(Duration::from_secs(60)).tokens, 0.0);
        assert!(app.watched().unwrap().plan.is_none());
    }
}
