//! Two servers with `HOTSET_RAM=auto` in a group that has memory for the experts of one: who is asked has it.

use crate::group::Group;
use crate::heavy;
use crate::serving::LlamaServer;
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
/// Makes 230 MiB of experts in this many slots.
const FACTOR: &str = "16";
const N_SLOTS: u64 = 384;
/// Room for the experts of one server and little more, beside what else two of them need.
const ROOM: u64 = 400 * MIB;
/// Within this they change places.
const SOON: Duration = Duration::from_secs(5);
const N_TOKENS: u32 = 500;
/// Who has computed nothing for so long is idle.
const IDLE: Duration = Duration::from_secs(3);
const ARGS: &[&str] = &[
    "-np", "1", "-ub", "32", "-b", "32", "-c", "1024", "--temp", "0",
];
const PROMPTS: [&str; 2] = ["int main", "Il disco"];

struct Server {
    server: LlamaServer,
}

/// Hits and misses so far, and slots.
#[derive(Debug, Clone, Copy)]
struct Counters {
    hits: u64,
    misses: u64,
    n_slots: u64,
}

impl Counters {
    /// The hit rate between two looks.
    fn rate_since(&self, before: &Self) -> f64 {
        let hits = (self.hits - before.hits) as f64;
        hits / (hits + (self.misses - before.misses) as f64)
    }
}

impl Server {
    fn start(group: &Group, model: &Path, ledgers: &Path, beside: Option<&Server>) -> Self {
        let mut program = crate::child::command(
            env!("CARGO_BIN_EXE_llama-server"),
            &[("HOTSET_RAM", "auto"), ("HOTSET_PREFETCH", "off")],
        );
        program.env("XDG_RUNTIME_DIR", ledgers);
        program.arg("-m").arg(model);
        let command = group.joining(&program);
        let server = match beside {
            None => LlamaServer::start_with(command, ARGS),
            Some(_) => LlamaServer::start_beside(command, ARGS),
        };
        Self { server }
    }

    fn counters(&self) -> Counters {
        let stats = self.server.get("/hotset/stats");
        let of = |part: &str, name: &str| stats[0][part][name].as_u64().unwrap_or(0);
        let both = |name: &str| of("generation", name) + of("prompt", name);
        Counters {
            hits: both("hits"),
            misses: both("misses"),
            n_slots: stats[0]["n_slots"].as_u64().unwrap(),
        }
    }

    /// Generates while `look` is called again and again; returns the tokens.
    fn generate(&self, prompt: &str, mut look: impl FnMut(Duration, Counters)) -> Vec<u64> {
        let begin = Instant::now();
        let answer = self.server.complete_apart(prompt, N_TOKENS);
        while !answer.is_finished() {
            look(begin.elapsed(), self.counters());
            std::thread::sleep(Duration::from_millis(100));
        }
        Self::tokens_of(answer.join().unwrap())
    }

    fn tokens_of(answer: Value) -> Vec<u64> {
        let tokens = answer["tokens"].as_array().expect("tokens");
        tokens.iter().map(|token| token.as_u64().unwrap()).collect()
    }

    /// The same until it has most of the slots, which is soon, and hits more then than before.
    fn generate_and_grow(&self, prompt: &str) -> Vec<u64> {
        let (mut first, mut most_at, mut then, mut last) = (None, None, None, None);
        let tokens = self.generate(prompt, |at, now| {
            first.get_or_insert(now);
            if now.n_slots > N_SLOTS / 2 && most_at.is_none() {
                most_at = Some(at);
                then = Some(now);
            }
            last = Some(now);
        });
        let (first, last) = (first.unwrap(), last.unwrap());
        let most_at = most_at.unwrap_or_else(|| panic!("it stays with {last:?}"));
        assert!(most_at <= SOON, "most of the slots after {most_at:?}");
        let (before, after) = (
            then.unwrap().rate_since(&first),
            last.rate_since(&then.unwrap()),
        );
        println!("most of the slots after {most_at:?}, hit rate {before:.2} and then {after:.2}");
        assert!(after > before && after > 0.8, "{before} and then {after}");
        tokens
    }

    fn signal(&mut self, signal: libc::c_int) {
        self.server.running().signal(signal);
    }
}

fn has_slots(server: &Server, what: &str, is_so: impl Fn(u64) -> bool) {
    let begin = Instant::now();
    while !is_so(server.counters().n_slots) {
        assert!(
            begin.elapsed() < 6 * SOON,
            "{what}: {:?}",
            server.counters()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn who_is_asked_has_the_memory() {
    let Some((group, dir, model)) = heavy("neighbours", FACTOR) else {
        return;
    };
    let stock: Vec<Vec<u64>> = {
        let server = LlamaServer::start(&model, &[("HOTSET", "off")], ARGS);
        let of =
            |prompt| Server::tokens_of(server.complete_apart(prompt, N_TOKENS).join().unwrap());
        PROMPTS.map(of).into()
    };
    group.limit(ROOM).unwrap();
    let mut one = Server::start(&group, &model, dir.path(), None);
    assert_eq!(one.generate(PROMPTS[0], |_, _| ()), stock[0]);
    has_slots(&one, "alone", |n| n > N_SLOTS / 10 * 8);
    let mut two = Server::start(&group, &model, dir.path(), Some(&one));
    assert!(two.counters().n_slots < N_SLOTS / 2, "little is left");

    // Each in turn, while the other is idle.
    assert!(two.generate_and_grow(PROMPTS[1]) == stock[1]);
    has_slots(&one, "gave way", |n| n < N_SLOTS / 2);
    assert!(one.counters().n_slots > 0, "it keeps a little");
    std::thread::sleep(IDLE);
    assert!(one.generate_and_grow(PROMPTS[0]) == stock[0]);

    // Of one that is stopped nothing can be had, and nobody waits for it.
    one.signal(libc::SIGSTOP);
    assert!(two.generate(PROMPTS[1], |_, _| ()) == stock[1]);
    assert!(two.counters().n_slots < N_SLOTS / 2);
    one.signal(libc::SIGCONT);
    assert!(two.generate_and_grow(PROMPTS[1]) == stock[1]);

    // What one that is killed had is there for the other.
    two.signal(libc::SIGKILL);
    has_slots(&one, "all", |n| n > N_SLOTS / 10 * 8);
    let said = one.server.running().stderr();
    assert!(said.contains("another model needs memory"), "{said}");
    one.signal(libc::SIGTERM);
    let begin = Instant::now();
    while one.server.running().is_running() {
        assert!(begin.elapsed() < 6 * SOON, "it ends");
        std::thread::sleep(Duration::from_millis(20));
    }
    drop((one, two));
    drop(group);
    let left = std::fs::read_dir(dir.path()).unwrap().flatten();
    let left: Vec<_> = left.filter(|entry| entry.path().is_dir()).collect();
    let n_left = left
        .iter()
        .map(|entry| std::fs::read_dir(entry.path()).unwrap().count());
    assert_eq!(n_left.sum::<usize>(), 0, "no ledger is left: {left:?}");
}
