//! A small model, as a server tells of it, for tests.

use super::answers::{Device, Heat, Plan, Stats};
use serde_json::{Value, json};

pub fn stats() -> Stats {
    serde_json::from_value(stats_json()).unwrap()
}

fn stats_json() -> Value {
    json!({
        "model": "/models/polyglot-moe.gguf", "policy": "adaptive", "io": "io_uring",
        "n_layers": 6, "n_experts": 384, "n_slots": 108, "n_resident": 104, "expert_bytes": 14_994_636u64,
        "generation": {"events": 1208, "tokens": 203, "hits": 6082, "misses": 3582, "evictions": 3440, "staged": 0},
        "prompt": {"events": 6, "tokens": 40, "hits": 0, "misses": 0, "evictions": 0, "staged": 0},
        "bytes_read": 154_979_532u64, "bytes_read_uncounted": 0,
        "generation_time": {"busy_ms": 610.0, "stalled_ms": 340.0},
        "prompt_time": {"busy_ms": 0.0, "stalled_ms": 0.0},
        "devices": [],
        "live": {
            "ram": "30%", "budget_bytes": 4_718_592, "budget_bytes_max": 14_994_636u64,
            "available_bytes": 2_147_483_648u64, "disk_bytes_per_s": 1.6e9,
            "policies": [
                {"name": "adaptive", "choice": "adaptive", "about": ""},
                {"name": "lru", "choice": "lru", "about": ""},
            ],
            "profile": {
                "saves_to": "it.json", "used": ["chat"], "folder": null,
                "workload": {"name": "it", "sureness": 0.97, "changes": 2},
            },
            "uptime_s": 7380.0, "since_s": 7000.0, "hindsight_age_s": null,
        },
    })
}

pub fn device() -> Device {
    serde_json::from_value(json!({
        "device": "CUDA0", "n_experts": 64, "n_slots": 16, "n_resident": 12, "slot_bytes": 655_360,
        "generation": {"tokens": 9, "hits": 300, "misses": 100}, "bytes_uploaded": 0, "bytes_warmed": 0,
    }))
    .unwrap()
}

/// Six layers of 64 experts: the first ones are hot and in memory, two on a device.
pub fn heat() -> Heat {
    let layer = |block: u32| {
        let weights: Vec<f64> = (0..64)
            .map(|expert| 1.0 / f64::from(1 + expert + 2 * block))
            .collect();
        let sum: f64 = weights.iter().sum();
        let share: Vec<f64> = weights.iter().map(|weight| weight / sum).collect();
        let tier = "gg".to_string() + &"m".repeat(16) + &"d".repeat(46);
        json!({"block": block, "share": share, "tier": tier})
    };
    let layers: Vec<Value> = (0..6).map(layer).collect();
    serde_json::from_value(json!({"model": "a", "layers": layers})).unwrap()
}

pub fn plan() -> Plan {
    let point = |mib: f64, hit_percent: f64, tokens_per_s: f64| {
        let budget_bytes = (mib * f64::from(1 << 20)) as u64;
        json!({"budget_bytes": budget_bytes, "hit_percent": hit_percent, "tokens_per_s": tokens_per_s})
    };
    serde_json::from_value(json!({
        "model": "a", "age_s": 0.0, "step_bytes": 1 << 20, "now": point(4.5, 62.9, 83.0),
        "rows": [
            point(2.25, 40.0, 60.0), point(4.5, 62.9, 83.0), point(6.5, 72.0, 101.5),
            point(9.0, 84.0, 130.0), point(14.3, 100.0, 200.0),
        ],
    }))
    .unwrap()
}
