//! A timeline of a run: what was asked for when, when it came, who computed and who waited. It is written in the
//! Trace Event Format of Chrome, which Perfetto and `chrome://tracing` show.
//!
//! Whoever has a [`Pen`] draws. Only the latest events are kept, and an event costs two looks at the clock and a lock
//! that is hardly ever taken; without a pen it costs a branch.

use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Events that are kept: some hundred tokens of a model of 30 layers, in 8 MiB, or as text in 20.
const N_EVENTS_MAX: usize = 1 << 17;
/// The track of reads, besides those of threads.
const DISK: u32 = u32::MAX;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A router's picks were planned, and what is missing asked for: by thread 0, while the others wait.
    Route {
        /// Of the model's layers with experts.
        layer: u32,
        /// Tokens of the batch.
        n_tokens: u32,
    },
    /// A thread computed with one part of a layer's experts, waits included.
    Compute {
        /// As above.
        layer: u32,
        /// Number of the part, as of gate, up and down.
        part: u32,
    },
    /// The first expert of a layer was there.
    First {
        /// As above.
        layer: u32,
    },
    /// A thread waited for an expert.
    Wait {
        /// As above.
        layer: u32,
        /// The expert.
        expert: u32,
        /// Whether it was asked for before the router had picked it.
        is_early: bool,
    },
    /// A part of an expert is to be read.
    Asked {
        /// What its end is known by.
        tag: u64,
        /// As above.
        layer: u32,
        /// As above.
        part: u32,
        /// As above.
        expert: u32,
        /// Whether no router has picked it yet.
        is_guess: bool,
    },
    /// What was asked for has arrived.
    Done {
        /// As above.
        tag: u64,
    },
    /// What was asked for is not read after all.
    Recalled {
        /// As above.
        tag: u64,
    },
    /// The router has run, and an expert that was guessed and asked for was picked or not.
    Guess {
        /// As above.
        layer: u32,
        /// As above.
        expert: u32,
        /// Whether it was picked.
        is_right: bool,
        /// Whether it was there.
        is_there: bool,
    },
}

#[derive(Debug, Clone, Copy)]
struct Event {
    /// Nanoseconds since the timeline began.
    at: u64,
    took: u64,
    model: u32,
    thread: u32,
    what: What,
}

/// The timeline of a process.
pub struct Timeline {
    begin: Instant,
    events: Mutex<VecDeque<Event>>,
    models: Mutex<Vec<String>>,
}

/// Draws for one model.
#[derive(Clone)]
pub struct Pen {
    timeline: Arc<Timeline>,
    model: u32,
}

impl Default for Timeline {
    fn default() -> Self {
        Self {
            begin: Instant::now(),
            events: Mutex::default(),
            models: Mutex::default(),
        }
    }
}

impl Pen {
    /// What is drawn with it is of the model of this name.
    pub fn new(timeline: &Arc<Timeline>, model: &str) -> Self {
        let mut models = timeline.models.lock().expect("no thread panics with it");
        models.push(model.to_string());
        Self {
            timeline: timeline.clone(),
            model: models.len() as u32 - 1,
        }
    }

    /// It happened now, in a thread with this number.
    pub fn mark(&self, thread: u32, what: What) {
        self.draw(thread, Instant::now(), 0, what);
    }

    /// It began at `begin` and ends now, in a thread with this number.
    pub fn span(&self, thread: u32, begin: Instant, what: What) {
        let took = begin.elapsed().as_nanos() as u64;
        self.draw(thread, begin, took, what);
    }

    /// It ends now, and took so long.
    pub fn ended(&self, thread: u32, took: Duration, what: What) {
        let begin = Instant::now().checked_sub(took);
        self.draw(thread, begin.unwrap_or(self.timeline.begin), took.as_nanos() as u64, what);
    }

    /// Something of the disk happened now.
    pub fn disk(&self, what: What) {
        self.mark(DISK, what);
    }

    fn draw(&self, thread: u32, begin: Instant, took: u64, what: What) {
        let since = begin.saturating_duration_since(self.timeline.begin);
        let event = Event {
            at: since.as_nanos() as u64,
            took,
            model: self.model,
            thread,
            what,
        };
        let mut events = self.timeline.events.lock().expect("no thread panics with it");
        if events.len() == N_EVENTS_MAX {
            events.pop_front();
        }
        events.push_back(event);
    }
}

impl Timeline {
    /// Whether anybody draws.
    pub fn has_models(&self) -> bool {
        !self.models.lock().expect("no thread panics with it").is_empty()
    }

    /// Writes the latest events as a JSON object.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let events = self.events.lock().expect("no thread panics with it").clone();
        let models = self.models.lock().expect("no thread panics with it").clone();
        to.write_all(b"{\"displayTimeUnit\":\"ms\",\"traceEvents\":[")?;
        let mut is_first = true;
        let mut show = |value: &Value| {
            if !std::mem::take(&mut is_first) {
                to.write_all(b",\n")?;
            }
            serde_json::to_writer(&mut *to, value).map_err(io::Error::from)
        };
        for name in names(&models, &events) {
            show(&name)?;
        }
        // Reads that are under way, by model and tag.
        let mut asked: HashMap<(u32, u64), Event> = HashMap::new();
        let mut n_reads = 0;
        for event in events {
            match event.what {
                What::Asked { tag, .. } => {
                    asked.insert((event.model, tag), event);
                }
                What::Done { tag } | What::Recalled { tag } => {
                    if let Some(begin) = asked.remove(&(event.model, tag)) {
                        n_reads += 1;
                        for half in read(&begin, &event, n_reads) {
                            show(&half)?;
                        }
                    }
                }
                _ => show(&event.shown())?,
            }
        }
        to.write_all(b"]}\n")
    }
}

/// Names of processes and threads: a model is shown as a process.
fn names(models: &[String], events: &VecDeque<Event>) -> Vec<Value> {
    let name = |of: &str, model: u32, thread: u32, name: &str| {
        json!({"ph": "M", "name": of, "pid": model, "tid": thread, "args": {"name": name}})
    };
    let mut threads: Vec<_> = events.iter().map(|e| (e.model, e.thread)).collect();
    threads.sort_unstable();
    threads.dedup();
    let threads = threads.into_iter().filter(|(_, thread)| *thread != DISK);
    let threads = threads.map(|(model, thread)| name("thread_name", model, thread, &format!("thread {thread}")));
    let models = (0..).zip(models).map(|(model, title)| name("process_name", model, 0, title));
    models.chain(threads).collect()
}

/// A read, from when it was asked for to its end.
fn read(begin: &Event, end: &Event, number: u64) -> [Value; 2] {
    let What::Asked { layer, part, expert, is_guess, .. } = begin.what else {
        unreachable!("only what was asked for is kept");
    };
    let kind = match (is_guess, end.what) {
        (_, What::Recalled { .. }) => "recalled",
        (true, _) => "read ahead",
        (false, _) => "read",
    };
    let name = format!("{kind}: layer {layer} expert {expert} part {part}");
    let half = |phase: &str, event: &Event| {
        json!({
            "ph": phase, "cat": "disk", "id": number, "name": name, "pid": event.model, "tid": 0,
            "ts": event.at as f64 / 1e3,
        })
    };
    [half("b", begin), half("e", end)]
}

impl Event {
    /// As it is shown, but for reads.
    fn shown(&self) -> Value {
        let (name, args) = match self.what {
            What::Route { layer, n_tokens } => (format!("route layer {layer}"), json!({"tokens": n_tokens})),
            What::Compute { layer, part } => (format!("layer {layer} part {part}"), json!({})),
            What::First { layer } => (format!("layer {layer}: first expert"), json!({})),
            What::Wait { layer, expert, is_early } => {
                let asked = if is_early { "early" } else { "late" };
                (format!("wait, asked {asked}"), json!({"layer": layer, "expert": expert}))
            }
            What::Guess { layer, expert, is_right, is_there } => {
                let name = if is_right { "guess: right" } else { "guess: wrong" };
                (name.to_string(), json!({"layer": layer, "expert": expert, "there": is_there}))
            }
            What::Asked { .. } | What::Done { .. } | What::Recalled { .. } => unreachable!("reads are shown whole"),
        };
        let is_span = matches!(self.what, What::Route { .. } | What::Compute { .. } | What::Wait { .. });
        let mut shown = json!({
            "ph": if is_span { "X" } else { "i" }, "name": name, "pid": self.model, "tid": self.thread,
            "ts": self.at as f64 / 1e3, "args": args,
        });
        match is_span {
            true => shown["dur"] = json!(self.took as f64 / 1e3),
            // An instant of a thread.
            false => shown["s"] = json!("t"),
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(timeline: &Timeline) -> Vec<Value> {
        let mut text = Vec::new();
        timeline.write(&mut text).unwrap();
        let all: Value = serde_json::from_slice(&text).unwrap();
        all["traceEvents"].as_array().unwrap().clone()
    }

    fn of_phase<'a>(events: &'a [Value], phase: &str) -> Vec<&'a Value> {
        events.iter().filter(|e| e["ph"] == phase).collect()
    }

    #[test]
    fn a_read_is_shown_from_its_begin_to_its_end_and_those_under_way_are_not() {
        let timeline = Arc::default();
        let [pen, other] = ["a.gguf", "b.gguf"].map(|name| Pen::new(&timeline, name));
        let asked = |tag, is_guess| What::Asked { tag, layer: 3, part: 1, expert: 7, is_guess };
        pen.disk(asked(5, false));
        other.disk(asked(5, true));
        pen.disk(asked(6, true));
        pen.disk(asked(8, true));
        other.disk(What::Done { tag: 5 });
        pen.disk(What::Recalled { tag: 6 });
        pen.disk(What::Done { tag: 5 });
        let events = shown(&timeline);
        let (begins, ends) = (of_phase(&events, "b"), of_phase(&events, "e"));
        let name = |e: &&Value| (e["pid"].as_u64().unwrap(), e["name"].as_str().unwrap().to_string());
        let names: Vec<_> = begins.iter().map(name).collect();
        let what = "layer 3 expert 7 part 1";
        let expected = [(1, "read ahead"), (0, "recalled"), (0, "read")];
        assert_eq!(names, expected.map(|(model, kind)| (model, format!("{kind}: {what}"))));
        assert_eq!(ends.iter().map(name).collect::<Vec<_>>(), names);
        for (begin, end) in begins.iter().zip(&ends) {
            assert_eq!(begin["id"], end["id"]);
            assert!(begin["ts"].as_f64() <= end["ts"].as_f64());
        }
        let models = of_phase(&events, "M");
        assert_eq!(models[0]["args"]["name"], "a.gguf");
    }

    #[test]
    fn the_latest_events_are_kept_and_spans_last() {
        let timeline = Arc::default();
        let pen = Pen::new(&timeline, "");
        for layer in 0..N_EVENTS_MAX as u32 + 9 {
            pen.mark(2, What::First { layer });
        }
        pen.span(4, timeline.begin, What::Wait { layer: 1, expert: 2, is_early: true });
        let events = shown(&timeline);
        let firsts = of_phase(&events, "i");
        assert_eq!(firsts.len(), N_EVENTS_MAX - 1);
        assert_eq!(firsts[0]["name"], "layer 10: first expert");
        let [wait] = of_phase(&events, "X")[..] else { panic!("one span") };
        assert!(wait["dur"].as_f64().unwrap() > 0.0 && wait["ts"] == 0.0);
        assert_eq!((&wait["name"], &wait["tid"]), (&json!("wait, asked early"), &json!(4)));
    }
}
