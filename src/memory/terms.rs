//! How a size came about, as people read it: what there is, less what others need of it.

use super::auto_size;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// What there is, and what was subtracted from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    of: (&'static str, u64),
    less: Vec<(&'static str, u64)>,
}

/// What of memory is needed by whom, when everything but experts is allocated.
#[derive(Debug, Clone, Copy, Default)]
pub struct Needs {
    /// Weights that are no experts, in buffers or mapped.
    pub weights: u64,
    /// Other buffers: of the KV cache and of intermediate results.
    pub buffers: u64,
    /// What of both counts as available: it is empty, or may be dropped.
    pub to_come: u64,
    /// Of models in other processes.
    pub others: u64,
    /// Of hotset itself.
    pub own: u64,
}

impl Terms {
    /// What of a bound of `n_bytes` with this name experts get, where `room` is available. What `needs` does not know
    /// is in use, by this process or by others.
    pub fn of_memory((name, n_bytes): (&'static str, u64), room: u64, needs: &Needs) -> Self {
        let allocated = needs.weights + needs.buffers;
        let filled = allocated.saturating_sub(needs.to_come);
        let used = n_bytes.saturating_sub(room);
        let reserve = auto_size::reserve(room);
        // What was filled elsewhere, as before this process came to its group, is not in use here.
        let (of, mut less) = match used.checked_sub(filled) {
            Some(used) => (
                (name, n_bytes),
                vec![
                    ("in use", used),
                    ("weights", needs.weights),
                    ("KV and buffers", needs.buffers),
                ],
            ),
            None => (("available", room), vec![("still to be filled", needs.to_come)]),
        };
        less.extend([
            ("other models", needs.others),
            ("counters", needs.own),
            ("reserve", reserve),
        ]);
        Self { of, less }
    }

    /// What experts get of what the system promises to this process.
    pub fn of_promise(promised: u64, own: u64) -> Self {
        Self {
            of: ("ulimit", promised),
            less: vec![
                ("counters", own),
                ("reserve", auto_size::reserve(promised)),
            ],
        }
    }

    /// What is left.
    pub fn left(&self) -> u64 {
        let less = self.less.iter().map(|(_, n)| *n);
        less.fold(self.of.1, u64::saturating_sub)
    }

    /// As `16.0 - weights 2.1 - reserve 1.0 = 12.9 GiB`. Each number is right to a unit of its last digit, and what is
    /// written adds up. What is nothing is left out.
    pub fn text(&self) -> String {
        // Digits after the point, and how many of the last one make a GiB or MiB.
        let (unit, name, n_digits) = match self.of.1 {
            n if n >= 10 * GIB => (GIB, "GiB", 1),
            n if n >= GIB => (GIB, "GiB", 2),
            _ => (MIB, "MiB", 0),
        };
        let per_unit = 10u64.pow(n_digits);
        let rounded = |n: u64| (u128::from(n) * u128::from(per_unit) + u128::from(unit / 2)) / u128::from(unit);
        let number = |n: u128| match n_digits {
            0 => n.to_string(),
            _ => {
                let per_unit = u128::from(per_unit);
                format!("{}.{:02$}", n / per_unit, n % per_unit, n_digits as usize)
            }
        };
        let mut left = self.of.1;
        let mut text = format!("{} {}", self.of.0, number(rounded(left)));
        for (what, n_bytes) in &self.less {
            let rest = left.saturating_sub(*n_bytes);
            let shown = rounded(left) - rounded(rest);
            left = rest;
            if shown > 0 {
                text += &format!(" - {what} {}", number(shown));
            }
        }
        format!("{text} = {} {name}", number(rounded(left)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sum of what is written, in the last digit: the first number less those after each minus.
    fn adds_up(text: &str) -> bool {
        let (terms, left) = text.split_once(" = ").unwrap();
        let number = |term: &str| {
            let word = term.split(' ').rfind(|w| w.starts_with(|c: char| c.is_ascii_digit()));
            word.unwrap().replace('.', "").parse::<i64>().unwrap()
        };
        let mut terms = terms.split(" - ").map(number);
        let first = terms.next().unwrap();
        first - terms.sum::<i64>() == number(left)
    }

    fn gib(n: f64) -> u64 {
        (n * GIB as f64) as u64
    }

    #[test]
    fn a_size_says_how_it_came_about() {
        let needs = Needs {
            weights: gib(2.1),
            buffers: gib(0.8),
            to_come: gib(0.8),
            ..Needs::default()
        };
        let terms = Terms::of_memory(("limit", gib(16.0)), gib(13.4), &needs);
        let text = "limit 16.0 - in use 0.5 - weights 2.1 - KV and buffers 0.8 - reserve 0.8 = 11.8 GiB";
        assert_eq!(terms.text(), text);
        assert_eq!(terms.left(), auto_size::at_start(gib(13.4), gib(0.8)));
        // Filled before it came to its group.
        let terms = Terms::of_memory(("limit", gib(4.0)), gib(4.0), &needs);
        let text = "available 4.00 - still to be filled 0.80 - reserve 0.25 = 2.95 GiB";
        assert_eq!(terms.text(), text);
        let terms = Terms::of_promise(300 * MIB, 8 * MIB);
        assert_eq!(terms.text(), "ulimit 300 - counters 8 - reserve 64 = 228 MiB");
        let terms = Terms::of_promise(30 * MIB, 0);
        assert_eq!(terms.text(), "ulimit 30 - reserve 30 = 0 MiB");
    }

    #[test]
    fn what_is_written_adds_up_and_is_what_it_gets() {
        let mut state = 1u64;
        let mut random = move |n: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
            (state >> 20) % n
        };
        for _ in 0..3000 {
            let most = [100 * MIB, GIB, 9 * GIB, 400 * GIB][random(4) as usize];
            let n_bytes = random(most);
            let mut part = || random(n_bytes / 3 + 1);
            let needs = Needs {
                weights: part(),
                buffers: part(),
                to_come: part(),
                others: part() / 4,
                own: part() / 8,
            };
            let room = random(n_bytes + 1);
            let needs = Needs {
                to_come: needs.to_come.min(needs.weights + needs.buffers),
                ..needs
            };
            let terms = Terms::of_memory(("memory", n_bytes), room, &needs);
            assert!(adds_up(&terms.text()), "{}", terms.text());
            let others = needs.to_come + needs.others + needs.own;
            assert_eq!(terms.left(), auto_size::at_start(room, others), "{terms:?}");
            assert!(!terms.text().contains(" 0 -") && !terms.text().contains(" 0.0 -"), "{}", terms.text());
        }
    }
}
