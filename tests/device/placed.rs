//! `hotset run` with devices: what is chosen where nobody has, that it fits and computes what the same options do, and
//! what is said where streaming makes a choice idle.

use crate::child::{self, Ended, StatsFile, command, polyglot};
use crate::rpc::Server;
use serde_json::Value;
use std::process::Command;

/// What the model takes of one device beside experts is less, and all of it is more.
const FITS_MIB: u64 = 24;
const FREE: [&str; 1] = ["free"];
const TAKEN: [&str; 4] = ["dense", "KV", "compute", "reserve"];

/// A server without a GPU says that it has all memory of the machine free. This of it is not to be used.
fn reserve(usable_mib: u64) -> String {
    let memory = sysinfo::MemoryRefreshKind::everything();
    let system =
        sysinfo::System::new_with_specifics(sysinfo::RefreshKind::nothing().with_memory(memory));
    ((system.total_memory() >> 20) - usable_mib).to_string()
}

fn endpoints(servers: &[Server]) -> String {
    let all: Vec<_> = servers.iter().map(Server::endpoint).collect();
    all.join(",")
}

/// `hotset run` with llama-completion, these settings and options, and what else the text depends on.
fn run(vars: &[(&str, &str)], args: &[&str]) -> Ended {
    let mut run = command(env!("CARGO_BIN_EXE_hotset"), vars);
    run.args(["run", "--tool", "completion"]);
    end(run, args)
}

/// The same, started by its own name.
fn run_llama(vars: &[(&str, &str)], args: &[&str]) -> Ended {
    end(command(env!("CARGO_BIN_EXE_llama-completion"), vars), args)
}

fn end(mut run: Command, args: &[&str]) -> Ended {
    run.arg("-m").arg(polyglot()).args(["-p", child::PROMPT]);
    run.args(["-n", "24"]).args(child::SAMPLED).args(args);
    child::run(run)
}

/// The line of what was chosen.
fn chosen(ended: &Ended) -> Option<String> {
    let said = ended.said();
    let lines: Vec<_> = said
        .iter()
        .filter(|l| l.starts_with("hotset: chose "))
        .collect();
    assert!(lines.len() < 2, "said once: {lines:#?}");
    lines.first().map(|line| line.to_string())
}

/// The options that it names.
fn options(line: &str) -> Vec<String> {
    let options = line.strip_prefix("hotset: chose ").unwrap();
    let options = options.split(" for ").next().unwrap();
    options.split(' ').map(str::to_string).collect()
}

/// For each device that it names, what it has, what is taken of it, and what is left.
fn sums(line: &str) -> Vec<(u64, [u64; 4], u64)> {
    let sums = line.split("(MiB: ").skip(1);
    let of = |sum: &str| {
        let number = |name: &str| {
            let text = sum
                .split(name)
                .nth(1)
                .unwrap_or_else(|| panic!("{name}: {line}"));
            let text = text.trim_start();
            let end = text
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(text.len());
            text[..end].parse::<u64>().unwrap()
        };
        (number(FREE[0]), TAKEN.map(number), number("="))
    };
    sums.map(of).collect()
}

fn cache_mib(options: &[String]) -> u64 {
    let at = options
        .iter()
        .position(|option| option == "--moe-cache-mib");
    options[at.expect("a cache is chosen") + 1].parse().unwrap()
}

/// Runs with and without streaming on so many devices; returns what was chosen and the counters of devices.
fn check_chosen(servers: &[Server], usable_mib: u64, ram: Option<&str>) -> Vec<Value> {
    let (endpoints, reserve) = (endpoints(servers), reserve(usable_mib));
    let device = ["--rpc", &endpoints, "--fit-target", &reserve];
    let stats = StatsFile::new();
    let path = stats.path();
    let mut vars = vec![("HOTSET_DEVICE_CACHE", "on"), ("HOTSET_STATS", &path)];
    vars.extend(ram.map(|ram| ("HOTSET_RAM", ram)));
    let ended = run(&vars, &device);
    let text = ended.text().into_owned();
    let line = chosen(&ended).unwrap_or_else(|| panic!("nothing was chosen:\n{}", ended.stderr));
    let devices = stats.read()["devices"].take();
    let devices = devices.as_array().unwrap().clone();

    let options = options(&line);
    let sums = sums(&line);
    assert_eq!(sums.len(), servers.len(), "{line}");
    for (free, taken, left) in &sums {
        assert_eq!(free - taken.iter().sum::<u64>(), *left, "{line}");
        assert!(taken[..3].iter().all(|mib| *mib > 0), "{line}");
        assert_eq!(taken[3].to_string(), reserve, "{line}");
    }
    let n_mib = cache_mib(&options);
    assert!(
        n_mib > 0 && n_mib <= sums.iter().map(|sum| sum.2).sum(),
        "{line}"
    );
    // No device got more than it had left.
    assert_eq!(devices.len(), servers.len(), "{devices:#?}");
    for (device, sum) in devices.iter().zip(&sums) {
        let n_bytes = device["slot_bytes"].as_u64().unwrap();
        assert!(n_bytes > 0 && n_bytes <= sum.2 << 20, "{line} {device:#}");
    }

    // What is chosen is the same as the same options, of which nothing is said.
    let by_hand = StatsFile::new();
    let path = by_hand.path();
    vars[1] = ("HOTSET_STATS", &path);
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    let same = run(&vars, &[&device, &options[..]].concat());
    assert_eq!(same.text(), text);
    assert_eq!(chosen(&same), None);
    let same = by_hand.read()["devices"].take();
    for (device, same) in devices.iter().zip(same.as_array().unwrap()) {
        for name in ["device", "n_slots", "slot_bytes", "n_layers", "generation"] {
            assert_eq!(device[name], same[name], "{name}: {line}");
        }
    }
    // And as what stock llama.cpp computes on these devices.
    let off = run(
        &[("HOTSET", "off")],
        &[&device[..], &["-ngl", "all", "-cmoe"]].concat(),
    );
    assert_eq!(off.text(), text);
    devices
}

#[test]
fn one_device_gets_the_dense_part_and_what_is_left_for_experts() {
    let servers = [Server::start()];
    for ram in [None, Some("40%"), Some("auto")] {
        let devices = check_chosen(&servers, FITS_MIB, ram);
        assert_eq!(devices[0]["n_layers"], 6, "{devices:#?}");
        assert!(
            devices[0]["generation"]["hits"].as_u64() > Some(0),
            "{devices:#?}"
        );
    }
}

#[test]
fn two_devices_share_it_so_that_both_fit() {
    let servers = [Server::start(), Server::start()];
    for ram in [None, Some("40%")] {
        check_chosen(&servers, 16, ram);
    }
}

#[test]
fn what_is_taken_is_what_was_measured() {
    let server = Server::start();
    let (endpoint, reserve) = (server.endpoint(), reserve(FITS_MIB));
    let args = ["--rpc", &endpoint, "--fit-target", &reserve, "-lv", "5"];
    let ended = run(&[("HOTSET_RAM", "40%")], &args);
    let line = chosen(&ended).unwrap();
    let [(_, taken, _)] = sums(&line)[..] else {
        panic!("one device: {line}");
    };
    // llama.cpp's own list at the end, of what was allocated: `self = model + context + compute`, rounded down.
    let row = |line: &&str| line.contains("memory_breakdown_print") && line.contains("- RPC0");
    let row = ended.stderr.lines().rfind(row).expect(&ended.stderr);
    let inner = row.rsplit('(').next().unwrap().split(')').next().unwrap();
    let numbers = inner.split(|c: char| !c.is_ascii_digit());
    let numbers: Vec<u64> = numbers.filter_map(|n| n.parse().ok()).collect();
    let [_, model, context, compute] = numbers[..] else {
        panic!("{row}");
    };
    let kept = cache_mib(&options(&line));
    assert!((model..=model + 1).contains(&taken[0]), "{row} {line}");
    assert!(
        (context..=context + 2).contains(&(taken[1] + kept)),
        "{row} {line}"
    );
    assert!((compute..=compute + 1).contains(&taken[2]), "{row} {line}");
}

#[test]
fn without_a_device_or_where_all_fits_it_is_as_ever() {
    let stock = run(&[("HOTSET", "off")], &[]);
    let ended = run(&[], &[]);
    assert_eq!(ended.text(), stock.text());
    assert_eq!(chosen(&ended), None);

    let server = Server::start();
    let endpoint = server.endpoint();
    let ended = run(&[], &["--rpc", &endpoint]);
    let stock = run(&[("HOTSET", "off")], &["--rpc", &endpoint]);
    assert_eq!(ended.text(), stock.text());
    let said = ended.said();
    let [line] = said[..] else {
        panic!("only that it fits: {said:#?}");
    };
    assert!(line.contains("nothing is streamed"), "{line}");
}

#[test]
fn what_somebody_has_chosen_is_left_alone() {
    let server = Server::start();
    let (endpoint, reserve) = (server.endpoint(), reserve(FITS_MIB));
    let device = ["--rpc", &endpoint, "--fit-target", &reserve, "-n", "2"];
    let cases: [&[&str]; 13] = [
        &["-ngl", "2"],
        &["--n-gpu-layers", "auto"],
        &["-ot", "ffn_.*_exps=CPU"],
        &["--cpu-moe"],
        &["-cmoe"],
        &["-ncmoe", "6"],
        &["--device", "none"],
        &["--moe-cache-mib", "0"],
        &["--moe_cache_mib", "4"],
        &["--fit", "on"],
        &["--fit", "off", "-ngl", "0"],
        &["-sm", "layer"],
        &["-ts", "1"],
    ];
    for args in cases {
        let ended = run(&[("HOTSET_RAM", "40%")], &[&device, args].concat());
        assert_eq!(ended.code(), 0, "{args:?} {}", ended.stderr);
        assert_eq!(chosen(&ended), None, "{args:?}");
    }
    for (name, value) in [
        ("LLAMA_ARG_N_GPU_LAYERS", "2"),
        ("LLAMA_ARG_MOE_CACHE_MIB", "0"),
    ] {
        let ended = run(&[("HOTSET_RAM", "40%"), (name, value)], &device);
        assert_eq!(chosen(&ended), None, "{name}");
    }
    // Nor does one of llama.cpp's own programs choose.
    let llama = child::completion(&polyglot(), &[("HOTSET_RAM", "40%")], &device[..4]);
    assert_eq!(chosen(&child::run(llama)), None);
    // That something would have been chosen.
    assert!(chosen(&run(&[("HOTSET_RAM", "40%")], &device)).is_some());
}

#[test]
fn any_program_chooses_where_it_is_asked_to() {
    let server = Server::start();
    let (endpoint, reserve) = (server.endpoint(), reserve(FITS_MIB));
    let device = ["--rpc", &endpoint, "--fit-target", &reserve];
    let auto = ("HOTSET_DEVICE_CACHE", "auto");
    let line_of = |ended: Ended| {
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        chosen(&ended).unwrap_or_else(|| panic!("nothing was chosen:\n{}", ended.stderr))
    };
    // All of it, as `hotset run` does without being asked.
    let expected = line_of(run(&[], &device));
    assert_eq!(line_of(run_llama(&[auto], &device)), expected);

    // Or the size of the cache alone, with what else was chosen.
    let context = options(&expected)[4].clone();
    let mib = cache_mib(&options(&expected)).to_string();
    let short = format!("hotset: chose --moe-cache-mib {mib} for ");
    let stock = run(
        &[("HOTSET", "off")],
        &[&device[..], &["-ngl", "99", "-cmoe", "-c", &context]].concat(),
    );
    let cases: [(&[(&str, &str)], &[&str]); 5] = [
        (&[auto], &["-ngl", "99", "-cmoe"]),
        (&[auto], &["-ngl", "99", "-ncmoe", "6"]),
        // What streams is in memory, whatever else is said of it.
        (&[auto, ("HOTSET_RAM", "40%")], &["-ngl", "99"]),
        (
            &[auto, ("HOTSET_RAM", "40%")],
            &["-ngl", "99", "-ncmoe", "2"],
        ),
        (&[auto, ("HOTSET_RAM", "40%")], &["-ngl", "99", "-cmoe"]),
    ];
    for (vars, args) in cases {
        let stats = StatsFile::new();
        let path = stats.path();
        let vars = [vars, &[("HOTSET_STATS", &path)]].concat();
        let args = [&device[..], args, &["-c", &context]].concat();
        let ended = run_llama(&vars, &args);
        assert_eq!(ended.text(), stock.text(), "{args:?}");
        let line = line_of(ended);
        assert!(line.starts_with(&short), "{line} {expected}");
        let n_bytes = stats.read()["devices"][0]["slot_bytes"].as_u64().unwrap();
        let n_mib: u64 = mib.parse().unwrap();
        assert!(
            n_bytes <= n_mib << 20 && n_bytes > (n_mib - 1) << 20,
            "{n_bytes} of {mib} MiB"
        );
    }
    // And the context, if that is not chosen either.
    let line = line_of(run_llama(
        &[auto],
        &[&device[..], &["-ngl", "99", "-cmoe"]].concat(),
    ));
    let both = format!("hotset: chose -c {context} --moe-cache-mib {mib} for ");
    assert!(line.starts_with(&both), "{line} {expected}");

    let on = ("HOTSET_DEVICE_CACHE", "on");
    let router = ("LLAMA_SERVER_ROUTER_PORT", "1");
    let rest: [(&[(&str, &str)], &[&str]); 7] = [
        (&[on], &["-cmoe"]),
        (&[], &["-cmoe"]),
        (&[auto], &["-cmoe", "--moe-cache-mib", "0"]),
        (&[auto], &["-cmoe", "-ts", "1"]),
        (&[auto], &["-cmoe", "--fit", "off"]),
        // There is nothing to keep there.
        (&[auto], &["-cmoe", "-ngl", "0"]),
        (&[auto, router], &["-cmoe"]),
    ];
    for (vars, args) in rest {
        let ended = run_llama(vars, &[&device, args, &["-n", "2"]].concat());
        assert_eq!(ended.code(), 0, "{args:?} {}", ended.stderr);
        assert_eq!(chosen(&ended), None, "{vars:?} {args:?}");
    }
}

#[test]
fn choices_without_effect_on_what_streams_are_named() {
    let server = Server::start();
    let (endpoint, tight) = (server.endpoint(), reserve(FITS_MIB));
    let on = format!("exps=RPC0[{endpoint}]");
    let idle = "has no effect on these";
    let fits = "streams experts that would fit on devices";
    let cases: [(&[&str], &str, &str, [bool; 2]); 10] = [
        (&["-ngl", "99"], &tight, "40%", [true, false]),
        (&["-ncmoe", "2"], &tight, "40%", [true, false]),
        (&["--override-tensor", &on], &tight, "40%", [true, false]),
        (
            &["--fit", "off", "-ngl", "99"],
            &tight,
            "40%",
            [true, false],
        ),
        // They are where they were to be, or nothing was said of them.
        (&["-ngl", "99", "-cmoe"], &tight, "40%", [false, false]),
        (&["-ot", "attn=CPU"], &tight, "40%", [false, false]),
        (&[], &tight, "40%", [false, false]),
        // One line is enough.
        (&["-ngl", "99"], "1024", "40%", [false, true]),
        (&[], "1024", "auto", [false, true]),
        // Nobody has asked for streaming.
        (&["-ngl", "99"], "1024", "if-needed", [false, false]),
    ];
    for (args, reserve, ram, expected) in cases {
        let device = ["--rpc", &endpoint, "--fit-target", reserve, "-n", "2"];
        let ended = run(&[("HOTSET_RAM", ram)], &[&device, args].concat());
        assert_eq!(ended.code(), 0, "{args:?} {}", ended.stderr);
        let n_said = [idle, fits].map(|part| {
            let said = ended.said();
            said.iter().filter(|line| line.contains(part)).count()
        });
        assert_eq!(
            n_said,
            expected.map(usize::from),
            "{args:?} {ram} {}",
            ended.stderr
        );
    }
}

#[test]
fn no_pipeline_of_devices_where_each_layer_waits_for_the_host() {
    let servers = [Server::start(), Server::start()];
    let endpoints = endpoints(&servers);
    let device = ["--rpc", &endpoints, "-n", "2", "-lv", "5"];
    let is_pipelined = |vars: &[(&str, &str)], args: &[&str]| {
        let ended = run(vars, &[&device, args].concat());
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        // What is measured as if nothing were streamed is at another level.
        let is_it =
            |line: &str| line.contains(" I ") && line.contains("pipeline parallelism enabled");
        ended.stderr.lines().any(is_it)
    };
    for args in [&["-ngl", "99"][..], &["-ngl", "99", "--fit", "off"]] {
        assert!(is_pipelined(&[("HOTSET", "off")], args), "{args:?}");
        assert!(is_pipelined(&[], &args[..2]), "all experts are on devices");
        assert!(!is_pipelined(&[("HOTSET_RAM", "40%")], args), "{args:?}");
    }
}
