//! The report for people.

use super::advice::Verdict;
use super::compute::Compute;
use super::disk::Disk;
use super::expect::{Expectation, Range};
use super::machine::Machine;
use super::model::{Model, TypeBytes};
use super::plan::Plan;
use super::report::Report;
use comfy_table::{Table, presets};
use hotset::numbers::bytes;

/// Lines of two columns.
type Rows = Vec<[String; 2]>;

fn row(name: &str, text: impl ToString) -> [String; 2] {
    [name.to_string(), text.to_string()]
}

/// All of it.
pub fn text(report: &Report) -> String {
    let mut text = part("machine", machine(report));
    if let Some(disk) = &report.disk {
        text += &part("disk", self::disk(disk));
    }
    if let Some(model) = &report.model {
        text += &part("model", self::model(report, model));
    }
    text += &advice(report);
    if let Some(plan) = &report.run {
        text += &part("run", run(plan));
    }
    if let Some(expected) = &report.expect {
        text += &part("expect", expect(expected));
    }
    text + &format!("measure it: {}\n", report.measure)
}

/// A heading and its rows.
fn part(heading: &str, rows: Rows) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).add_rows(rows);
    if let Some(first) = table.column_mut(0) {
        first.set_padding((2, 1));
    }
    format!("{heading}\n{}\n\n", table.trim_fmt())
}

fn machine(report: &Report) -> Rows {
    let Machine {
        cpu,
        kernel,
        physical_cores,
        logical_cores,
        usable_cores,
        memory_bytes,
        available_bytes,
        available_by,
        ..
    } = &report.machine;
    let physical = physical_cores.map_or(String::new(), |n| format!("{n} physical, "));
    let mut rows = vec![
        row("processor", cpu),
        row(
            "cores",
            format!("{physical}{logical_cores} logical, {usable_cores} usable by this process"),
        ),
        row(
            "memory",
            format!(
                "{}, {} available ({available_by})",
                bytes(*memory_bytes),
                bytes(*available_bytes)
            ),
        ),
    ];
    rows.extend(limits(&report.machine));
    rows.push(row(
        "huge pages",
        report.machine.huge_pages.as_deref().unwrap_or("none"),
    ));
    rows.push(row(
        "io_uring",
        match &report.no_io_uring_because {
            Some(why) => format!("refused: {why}"),
            None => "usable".to_string(),
        },
    ));
    rows.push(row("GPUs", gpus(&report.machine)));
    rows.extend(report.compute.map(compute));
    rows.push(row("system", kernel));
    rows
}

fn limits(machine: &Machine) -> Rows {
    let limits = [
        ("address space", machine.address_space_limit_bytes),
        ("data", machine.data_limit_bytes),
    ];
    let of = |(name, limit): (&str, Option<u64>)| {
        Some(row(name, format!("limited to {}", bytes(limit?))))
    };
    let mut rows: Rows = limits.into_iter().filter_map(of).collect();
    let locked = machine
        .locked_memory_limit_bytes
        .map_or("no limit".to_string(), bytes);
    rows.push(row("locked memory", locked));
    rows
}

fn gpus(machine: &Machine) -> String {
    match machine.gpus.as_deref() {
        None => "not looked for: this hotset was built without llama.cpp".to_string(),
        Some([]) => "none that llama.cpp knows".to_string(),
        Some(gpus) => {
            let of = gpus.iter().map(|gpu| {
                let (free, all) = (bytes(gpu.free_bytes), bytes(gpu.memory_bytes));
                format!("{} ({}), {free} free of {all}", gpu.name, gpu.description)
            });
            of.collect::<Vec<_>>().join("; ")
        }
    }
}

fn compute(compute: Compute) -> [String; 2] {
    let text = format!(
        "{} threads read {:.1} GB/s from memory, and multiply {:.0} billion weights a second",
        compute.n_threads,
        compute.memory_bytes_per_s / 1e9,
        compute.products_per_s / 1e9
    );
    row("computing", text)
}

fn disk(disk: &Disk) -> Rows {
    let mut kind = disk.file_system.clone();
    if let Some(device) = &disk.device {
        kind += &format!(" on {device}");
    }
    if disk.is_remote {
        kind += ", a network or user-space file system";
    }
    match disk.is_rotational {
        Some(true) => kind += ", rotational by what the system says",
        Some(false) => kind += ", not rotational",
        None => {}
    }
    let direct = match (disk.is_direct, &disk.not_direct_because) {
        (true, _) => "direct, past the page cache".to_string(),
        (false, Some(why)) => format!("through the page cache: {why}"),
        (false, None) => "through the page cache".to_string(),
    };
    let with = match &disk.no_uring_because {
        Some(why) => format!("{}: {why}", disk.reads_with),
        None => disk.reads_with.clone(),
    };
    let speed = match &disk.speed {
        None => "not measured: there are no whole experts to read".to_string(),
        Some(speed) => format!(
            "{:.2} GB/s in reads of {} at random places, {} pieces of {} at once",
            speed.bytes_per_s / 1e9,
            bytes(speed.read_bytes),
            speed.depth,
            bytes(speed.piece_bytes)
        ),
    };
    vec![
        row("file system", kind),
        row("reads", format!("{direct}; {with}")),
        row("speed", speed),
    ]
}

fn model(report: &Report, model: &Model) -> Rows {
    let named = report
        .source
        .as_ref()
        .map_or("", |source| source.named.as_str());
    let name = match model.name.as_str() {
        "" => named.to_string(),
        name => format!("{name} ({named})"),
    };
    let mut rows = vec![
        row("name", name),
        row(
            "shape",
            format!(
                "{}, {} layers, {} in {} files",
                model.architecture,
                model.n_layers,
                bytes(model.n_bytes),
                model.n_files
            ),
        ),
    ];
    if model.is_moe() {
        let text = format!(
            "{} in each of {} layers, a token uses {}; {} in all, {} each",
            model.n_experts,
            model.n_expert_layers,
            model.top_k,
            bytes(model.expert_bytes),
            bytes(model.bytes_of_expert)
        );
        rows.push(row("experts", text));
        rows.push(row(
            "a token uses",
            format!(
                "{} of experts (the token cycle)",
                bytes(model.token_expert_bytes)
            ),
        ));
    } else {
        rows.push(row("experts", "none: a dense model"));
    }
    let types = |types: &[TypeBytes]| {
        let of = types
            .iter()
            .map(|of| format!("{} {}", of.name, bytes(of.bytes)));
        of.collect::<Vec<_>>().join(", ")
    };
    if model.is_moe() {
        rows.push(row("types of experts", types(&model.expert_types)));
    }
    rows.push(row(
        "dense",
        format!(
            "{}: {}",
            bytes(model.dense_bytes),
            types(&model.dense_types)
        ),
    ));
    rows.push(row(
        "files",
        match model.damage.len() {
            0 if report.disk.is_none() => "not on this machine".to_string(),
            0 => "whole".to_string(),
            _ => model
                .damage
                .iter()
                .map(|damage| damage.text())
                .collect::<Vec<_>>()
                .join("; "),
        },
    ));
    rows
}

fn advice(report: &Report) -> String {
    let verdict = match report.verdict {
        None => return String::new(),
        Some(Verdict::Helps) => "hotset helps here: experts are streamed",
        Some(Verdict::Little) => "hotset works here, and helps little",
        Some(Verdict::No) => "hotset will not help here",
        Some(Verdict::Unknown) => "the files are not whole, so there is nothing to run yet",
    };
    let mut text = format!("{verdict}\n");
    for advice in &report.advice {
        text += &format!("  - {}\n", advice.text);
    }
    text + "\n"
}

fn run(plan: &Plan) -> Rows {
    let memory = format!(
        "{} for experts; beside them {} dense, {} KV cache, {} for the process",
        bytes(plan.budget_bytes),
        bytes(plan.dense_bytes),
        bytes(plan.kv_bytes),
        bytes(plan.process_bytes)
    );
    vec![
        row("chat", &plan.command),
        row("server", &plan.server_command),
        row("memory", memory),
    ]
}

fn expect(expected: &Expectation) -> Rows {
    let assumed = match expected.disk_is_assumed {
        true => " of a disk that is assumed",
        false => "",
    };
    let from = format!(
        "{:.0} % of the experts in memory, {:.0} % hits ({:.0} to {:.0}); a token computes for {:.0} ms and reads {} in {:.0} ms{assumed}",
        100.0 * expected.share_in_memory,
        100.0 * expected.hit_rate.typical,
        100.0 * expected.hit_rate.low,
        100.0 * expected.hit_rate.high,
        expected.compute_ms_per_token,
        bytes(expected.read_bytes_per_token.typical as u64),
        expected.read_ms_per_token
    );
    vec![
        row("with hotset", tokens(&expected.hotset_tokens_per_s)),
        row(
            "stock llama.cpp",
            tokens(&expected.stock_tokens_per_s) + ", mapped, in as much memory",
        ),
        row("all in memory", tokens(&expected.in_memory_tokens_per_s)),
        row("because", from),
    ]
}

/// `3.1 to 8.2 tokens/s`.
fn tokens(range: &Range) -> String {
    let number = |n: f64| match n {
        100.0.. => format!("{n:.0}"),
        1.0.. => format!("{n:.1}"),
        _ => format!("{n:.2}"),
    };
    format!("{} to {} tokens/s", number(range.low), number(range.high))
}
