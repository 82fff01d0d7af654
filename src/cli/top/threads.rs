//! Threads that ask a server, so that a screen never waits for it. They end with the process.

use super::answers::{Heat, Stats};
use super::app::{Action, News};
use super::client::{Client, Failure, Order};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How often the counters are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// How often the plan is, which the server makes anew every few minutes.
const PLAN: Duration = Duration::from_secs(60);
/// How soon again if there was none.
const PLAN_AGAIN: Duration = Duration::from_secs(5);

/// The counters, and where experts are.
pub fn look(client: &Client) -> Result<(Vec<Stats>, Vec<Heat>), Failure> {
    Ok((client.stats()?, client.heat()?))
}

/// The way to the threads.
pub struct Threads {
    news: Receiver<News>,
    orders: Sender<Order>,
    wake: Sender<()>,
    is_paused: Arc<AtomicBool>,
}

impl Threads {
    pub fn start(client: Client) -> Self {
        let client = Arc::new(client);
        let (tell, news) = channel();
        let (orders, ordered) = channel();
        let (wake, woken) = channel();
        let (ask_plan, plan_asked) = channel();
        let is_paused = Arc::new(AtomicBool::new(false));
        {
            let (client, tell, is_paused) = (client.clone(), tell.clone(), is_paused.clone());
            thread::spawn(move || keep_looking(&client, &tell, &woken, &is_paused));
        }
        {
            let (client, tell) = (client.clone(), tell.clone());
            thread::spawn(move || keep_planning(&client, &tell, &plan_asked));
        }
        {
            let wake = wake.clone();
            thread::spawn(move || obey(&client, &tell, &ordered, &[wake, ask_plan]));
        }
        Self {
            news,
            orders,
            wake,
            is_paused,
        }
    }

    /// What there is to tell since the last call.
    pub fn news(&self) -> impl Iterator<Item = News> {
        self.news.try_iter()
    }

    /// Does what a key asked for, but for the end.
    pub fn act(&self, action: Action) {
        // A thread that is gone has panicked, and the program goes on without it.
        match action {
            Action::Quit => {}
            Action::Order(order) => {
                let _ = self.orders.send(order);
            }
            Action::Pause(is_paused) => {
                self.is_paused.store(is_paused, Relaxed);
                let _ = self.wake.send(());
            }
        }
    }
}

/// Waits for `length`, or until woken; says whether anybody is left to tell.
fn rest(length: Duration, woken: &Receiver<()>) -> bool {
    let waited = woken.recv_timeout(length);
    while woken.try_recv().is_ok() {}
    waited != Err(RecvTimeoutError::Disconnected)
}

fn keep_looking(
    client: &Client,
    tell: &Sender<News>,
    woken: &Receiver<()>,
    is_paused: &AtomicBool,
) {
    loop {
        let began = Instant::now();
        if !is_paused.load(Relaxed) {
            let seen = look(client).map(|(stats, heat)| News::Seen(stats, heat));
            if tell.send(seen.unwrap_or_else(News::Missed)).is_err() {
                return;
            }
        }
        if !rest(LOOK.saturating_sub(began.elapsed()), woken) {
            return;
        }
    }
}

fn keep_planning(client: &Client, tell: &Sender<News>, woken: &Receiver<()>) {
    loop {
        let again = match client.plans() {
            Ok(plans) => match tell.send(News::Planned(plans)) {
                Ok(()) => PLAN,
                Err(_) => return,
            },
            // Who looks at the counters says what is wrong with the server.
            Err(_) => PLAN_AGAIN,
        };
        if !rest(again, woken) {
            return;
        }
    }
}

fn obey(client: &Client, tell: &Sender<News>, orders: &Receiver<Order>, wake: &[Sender<()>]) {
    for order in orders {
        if tell.send(News::Ordered(client.order(&order))).is_err() {
            return;
        }
        for sender in wake {
            let _ = sender.send(());
        }
    }
}
