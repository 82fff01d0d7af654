//! Budgets of a replay, and the pools they buy.

use crate::config::Ram;
use crate::error::{Error, Result};
use crate::expert::Shape;
use crate::numbers::too_small;
use crate::residency::pools::{Demand, group, share_slots};
use crate::trace::{Header, PoolSpec};

/// How much memory a replay has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Budget {
    /// This share of all experts, or of their bytes where they differ in size; above 0, up to 1.
    Share(f64),
    /// This many bytes, above 0.
    Bytes(u64),
    /// The pools of the run that was recorded.
    Run,
}

/// Which layers share slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// All that can: those with experts of one size.
    Global,
    /// Each layer has its own.
    Layer,
}

impl Budget {
    /// Reads `12.5%`, `2GiB` or `run`.
    pub fn parse(text: &str) -> Result<Self> {
        if text == "run" {
            return Ok(Self::Run);
        }
        match Ram::parse("--budgets", text) {
            Ok(Ram::Percent(percent)) => Ok(Self::Share(percent / 100.0)),
            Ok(Ram::Bytes(n_bytes)) => Ok(Self::Bytes(n_bytes)),
            Err(error) if too_small(text).is_some() => Err(error),
            Ok(Ram::Auto | Ram::IfNeeded) | Err(_) => Err(Error::setting(
                "--budgets",
                text,
                "expected a share of the experts above 0% and up to 100%, a size above 0 \
                          such as 2GiB, or run",
            )),
        }
    }

    /// The pools that it buys for a model; what the trace lacks if it cannot say.
    pub fn pools(
        self,
        header: &Header,
        shape: &Shape,
        scope: Scope,
    ) -> std::result::Result<Vec<PoolSpec>, String> {
        if self == Self::Run {
            return match header.pools.is_empty() {
                true => Err("it does not say what pools its run had".into()),
                false => Ok(header.pools.clone()),
            };
        }
        if matches!(self, Self::Bytes(_)) && header.expert_bytes.is_empty() {
            return Err("it does not say how many bytes an expert has".into());
        }
        let sizes: Vec<u64> = (0..shape.n_layers())
            .map(|l| shape.expert_bytes(l))
            .collect();
        let by_size = group(&sizes);
        if let [layers] = &by_size[..] {
            let n_slots = self.equal_slots(header, shape);
            return Ok(match scope {
                Scope::Global => vec![pool(layers.clone(), n_slots)],
                Scope::Layer => divide(n_slots, header),
            });
        }
        let layers = match scope {
            Scope::Global => by_size,
            Scope::Layer => (0..shape.n_layers()).map(|layer| vec![layer]).collect(),
        };
        let demands: Vec<Demand> = layers.iter().map(|layers| demand(shape, layers)).collect();
        let n_slots = share_slots(&demands, self.n_bytes(&demands));
        Ok(layers
            .into_iter()
            .zip(n_slots)
            .map(|(l, n)| pool(l, n))
            .collect())
    }

    /// The slots where all experts have one size.
    fn equal_slots(self, header: &Header, shape: &Shape) -> u32 {
        match self {
            // One event's experts must fit.
            Self::Share(share) => {
                ((share * shape.n_total() as f64).round() as u32).max(header.top_k)
            }
            _ => {
                let all = demand(shape, &(0..shape.n_layers()).collect::<Vec<_>>());
                share_slots(&[all], self.n_bytes(&[all]))[0]
            }
        }
    }

    fn n_bytes(self, demands: &[Demand]) -> u64 {
        let all = |d: &Demand| d.slot_bytes * u64::from(d.n_experts);
        match self {
            Self::Bytes(n_bytes) => n_bytes,
            Self::Share(share) => {
                (share * demands.iter().map(all).sum::<u64>() as f64).round() as u64
            }
            Self::Run => unreachable!("its pools are given"),
        }
    }
}

fn demand(shape: &Shape, layers: &[u32]) -> Demand {
    Demand {
        slot_bytes: shape.expert_bytes(layers[0]),
        n_experts: layers.iter().map(|&layer| shape.n_experts(layer)).sum(),
    }
}

fn pool(layers: Vec<u32>, n_slots: u32) -> PoolSpec {
    PoolSpec {
        layers,
        n_slots,
        preloaded: false,
        device: false,
    }
}

/// The same number of slots for each layer, the first ones get what is left over; at least `top_k`.
fn divide(n_slots: u32, header: &Header) -> Vec<PoolSpec> {
    let n = header.n_layers;
    (0..n)
        .map(|layer| {
            let share = n_slots / n + u32::from(layer < n_slots % n);
            pool(vec![layer], share.max(header.top_k))
        })
        .collect()
}
