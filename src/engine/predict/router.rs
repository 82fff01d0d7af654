//! What a router is made of, and in which order it picks experts by its scores.

/// What becomes of the scores before the best are picked. It matters where something is added afterwards, or
/// experts are picked by group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Gate {
    /// Nothing.
    Plain,
    /// Shares of 1.
    #[default]
    Softmax,
    /// Each for itself between 0 and 1.
    Sigmoid,
    /// Each for itself above 0.
    RootOfSoftplus,
}

/// Experts that follow each other form groups of one size. The picks are of the best groups only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Groups {
    /// How many there are.
    pub n_groups: usize,
    /// From how many experts are picked.
    pub n_used: usize,
}

impl Groups {
    /// Experts of a group whose sum says how good it is.
    const N_BEST: usize = 2;
}

/// The router of one layer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Router<'a> {
    /// A row for each expert.
    pub weight: &'a [f32],
    /// Added to the scores; empty if there is none.
    pub bias: &'a [f32],
    /// Added to what the gate makes of them; empty if there is none.
    pub late_bias: &'a [f32],
    /// What the hidden state is multiplied with after it was normed, before the router sees it; empty if that is not
    /// known.
    pub norm: &'a [f32],
    /// See [`Gate`].
    pub gate: Gate,
    /// See [`Groups`].
    pub groups: Option<Groups>,
}

/// The routers of a model, by layer of its engine.
pub trait Routers: Send + Sync {
    /// That of `layer`, if it can be seen.
    fn router(&self, layer: usize) -> Option<Router<'_>>;
}

impl Router<'_> {
    /// Makes `scores`, as its weights and its bias say them, such that the best are picked.
    pub(super) fn rank(&self, scores: &mut [f32], scratch: &mut Vec<f32>) {
        if self.late_bias.is_empty() && self.groups.is_none() {
            return;
        }
        match self.gate {
            Gate::Sigmoid => scores.iter_mut().for_each(|s| *s = 1.0 / (1.0 + (-*s).exp())),
            Gate::Plain => {}
            Gate::Softmax => softmax(scores),
            Gate::RootOfSoftplus => scores.iter_mut().for_each(|s| *s = softplus(*s).sqrt()),
        }
        for (score, bias) in scores.iter_mut().zip(self.late_bias) {
            *score += bias;
        }
        if let Some(groups) = self.groups {
            limit(scores, groups, scratch);
        }
    }
}

fn softplus(score: f32) -> f32 {
    score.max(0.0) + (-score.abs()).exp().ln_1p()
}

fn softmax(scores: &mut [f32]) {
    let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    scores.iter_mut().for_each(|s| *s = (*s - most).exp());
    let sum: f32 = scores.iter().sum();
    scores.iter_mut().for_each(|s| *s /= sum);
}

/// Puts experts of groups that are not used behind: by what their group lacks, because scores that are
/// guessed do not tell for sure which groups are used.
fn limit(scores: &mut [f32], groups: Groups, sums: &mut Vec<f32>) {
    let Groups { n_groups, n_used } = groups;
    if n_groups < 2 || n_used == 0 || n_used >= n_groups || !scores.len().is_multiple_of(n_groups) {
        return;
    }
    let size = scores.len() / n_groups;
    if size < Groups::N_BEST {
        return;
    }
    sums.clear();
    for group in scores.chunks_exact(size) {
        let mut best = [f32::NEG_INFINITY; Groups::N_BEST];
        for &score in group {
            if score > best[0] {
                best = [score, best[0]];
            } else if score > best[1] {
                best[1] = score;
            }
        }
        sums.push(best.iter().sum());
    }
    sums.extend_from_within(..);
    let (sums, order) = sums.split_at_mut(n_groups);
    order.sort_unstable_by(|a, b| b.total_cmp(a));
    let bar = order[n_used - 1];
    for (group, &sum) in scores.chunks_exact_mut(size).zip(&*sums) {
        let lack = (bar - sum).max(0.0);
        // Even the best expert of an unused group is then behind the worst one that could be picked.
        group.iter_mut().for_each(|score| *score -= lack);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_bias_changes_the_order_and_a_gate_alone_does_not() {
        let mut scores = [2.0, 1.0, -1.0, 0.0];
        let router = Router::default();
        router.rank(&mut scores, &mut Vec::new());
        assert_eq!(scores, [2.0, 1.0, -1.0, 0.0]);
        let router = Router {
            late_bias: &[0.0, 0.0, 0.9, 0.0],
            gate: Gate::Sigmoid,
            ..Router::default()
        };
        router.rank(&mut scores, &mut Vec::new());
        assert!(scores[2] > scores[0] && scores[0] > scores[1], "{scores:?}");
    }

    #[test]
    fn groups_with_the_best_pairs_are_used() {
        // The best expert is in a group whose second one is poor.
        let mut scores = [0.9, 0.0, 0.8, 0.7, 0.6, 0.5, 0.1, 0.2];
        let groups = Groups {
            n_groups: 4,
            n_used: 2,
        };
        limit(&mut scores, groups, &mut Vec::new());
        let mut order: Vec<usize> = (0..8).collect();
        order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
        assert_eq!(order[..2], [2, 3], "{scores:?}");
        assert!(scores[0] < 0.9 && scores[4] == 0.6);
        let before = scores;
        limit(&mut scores, Groups { n_used: 4, ..groups }, &mut Vec::new());
        assert_eq!(scores, before);
    }
}
