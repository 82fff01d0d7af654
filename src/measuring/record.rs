//! A run with what it ran under, and whether all runs wrote the same tokens.

use super::Run;
use serde::Serialize;
use std::collections::BTreeMap;

/// The variant that is llama.cpp without hotset.
pub const STOCK: &str = "stock";
/// The variant that has every expert in memory and no limit.
pub const COMPUTE: &str = "compute";
/// One run with what it ran under.
#[derive(Debug, Clone, Serialize)]
pub struct Record {
    /// The workload's name.
    pub workload: String,
    /// The memory limit as it was asked for; empty for [`COMPUTE`], which has none.
    pub limit: String,
    /// [`STOCK`], [`COMPUTE`], or a policy and perhaps `+ahead`.
    pub variant: String,
    /// Counted from 1.
    pub repetition: u32,
    /// The limit of the control group; null without one.
    pub cap_bytes: Option<u64>,
    /// Memory for experts; null for stock llama.cpp.
    pub budget_bytes: Option<u64>,
    /// The most that the group had at once, file pages included; null where the kernel does not say.
    pub peak_bytes: Option<u64>,
    /// What was measured.
    pub run: Run,
}

impl Record {
    /// What a person calls it.
    pub fn title(&self) -> String {
        match self.limit.as_str() {
            "" => format!(
                "{}, {}, run {}",
                self.workload, self.variant, self.repetition
            ),
            limit => format!(
                "{}, {limit}, {}, run {}",
                self.workload, self.variant, self.repetition
            ),
        }
    }
}

/// Two runs of a workload that wrote different tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The run that the others are compared with.
    pub first: String,
    /// The run that differs.
    pub second: String,
    /// The first token that differs, counted from 0.
    pub at: usize,
    /// What both runs have there; null where one has ended.
    pub tokens: [Option<i32>; 2],
}

/// The runs whose tokens are not those of the first run of their workload.
pub fn differences(records: &[Record]) -> Vec<Difference> {
    let mut firsts: BTreeMap<&str, &Record> = BTreeMap::new();
    let mut found = Vec::new();
    for record in records {
        let first = *firsts.entry(&record.workload).or_insert(record);
        let (a, b) = (&first.run.tokens, &record.run.tokens);
        let n = a.len().max(b.len());
        if let Some(at) = (0..n).find(|&i| a.get(i) != b.get(i)) {
            found.push(Difference {
                first: first.title(),
                second: record.title(),
                at,
                tokens: [a.get(at).copied(), b.get(at).copied()],
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(workload: &str, variant: &str, repetition: u32) -> Record {
        Record {
            workload: workload.to_string(),
            limit: "40%".to_string(),
            variant: variant.to_string(),
            repetition,
            cap_bytes: None,
            budget_bytes: None,
            peak_bytes: None,
            run: Run {
                tokens: vec![1, 2, 3, 4],
                ..Run::default()
            },
        }
    }

    #[test]
    fn tokens_that_differ_are_found_within_a_workload() {
        let mut records = vec![
            record("it", STOCK, 1),
            record("en", STOCK, 1),
            record("it", "lru", 2),
        ];
        records[1].run.tokens = vec![9];
        assert_eq!(differences(&records), []);
        records[2].run.tokens = vec![1, 2, 7, 4];
        let found = differences(&records);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].at, found[0].tokens), (2, [Some(3), Some(7)]));
        assert!(found[0].second.contains("lru, run 2"), "{found:?}");
        records[2].run.tokens = vec![1, 2, 3];
        let found = differences(&records);
        assert_eq!((found[0].at, found[0].tokens), (3, [Some(4), None]));
    }
}
