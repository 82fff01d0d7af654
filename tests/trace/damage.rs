//! Damaged and contradictory files are refused, with the line.

use super::{Copied, copied, gzip, header, read, read_gzip};
use hotset::trace::Trace;
use std::path::Path;

/// What the error of this text must name.
#[track_caller]
fn refused(text: &str, parts: &[&str]) {
    let error = read(text).err().expect(text).to_string();
    for part in ["some.trace.gz"].iter().chain(parts) {
        assert!(error.contains(part), "no {part:?} in: {error}");
    }
}

#[test]
fn headers_that_are_wrong() {
    refused("", &["line 1", "no header"]);
    refused("\n", &["line 1", "JSON object"]);
    refused("[3,8,3]\n", &["line 1", "JSON object"]);
    refused("{\"n_layers\":3\n", &["line 1", "header is wrong"]);
    refused("{\"n_layers\":3,\"n_experts\":8}\n", &["line 1", "top_k"]);
    refused(
        "{\"n_layers\":\"3\",\"n_experts\":8,\"top_k\":3}\n",
        &["line 1", "string"],
    );
    refused(
        "{\"n_layers\":-3,\"n_experts\":8,\"top_k\":3}\n",
        &["line 1", "-3"],
    );
    refused(
        "{\"n_layers\":2.5,\"n_experts\":8,\"top_k\":3}\n",
        &["line 1", "2.5"],
    );
    refused(
        "{\"n_layers\":5000000000,\"n_experts\":8,\"top_k\":3}\n",
        &["5000000000"],
    );
    refused(
        "{\"n_layers\":4000000000,\"n_experts\":8,\"top_k\":3}\n",
        &["4000000000", "1048576"],
    );
    refused(
        "{\"n_layers\":4294967295,\"n_experts\":4294967295,\"top_k\":3}\n",
        &["4294967295"],
    );
    refused(
        "{\"n_layers\":0,\"n_experts\":8,\"top_k\":3}\n",
        &["n_layers 0"],
    );
    refused(
        "{\"n_layers\":3,\"n_experts\":0,\"top_k\":0}\n",
        &["n_experts 0"],
    );
    refused(
        "{\"n_layers\":3,\"n_experts\":8,\"top_k\":0}\n",
        &["top_k 0", "1..=8"],
    );
    refused(
        "{\"n_layers\":3,\"n_experts\":8,\"top_k\":9}\n",
        &["top_k 9", "1..=8"],
    );
    refused(&header(",\"top_k\":3"), &["duplicate"]);
    refused(
        &header(",\"format\":\"top-16 id:probability\""),
        &["line 1", "\"top-16 id:probability\""],
    );
    refused(
        &header(",\"segments\":[[0,5,\"a\"],[4,1,\"b\"]]"),
        &["token 4", "token 5"],
    );
    refused(
        &header(",\"segments\":[[4294967295,1,\"a\"]]"),
        &["4294967295", "too long"],
    );
    refused(&header(",\"segments\":[[0,5]]"), &["line 1"]);
    refused(
        &header(",\"expert_bytes\":[1,2]"),
        &["2 sizes for 3 layers"],
    );
    refused(&header(",\"expert_bytes\":[1,0,1]"), &["size of 0"]);
    refused(
        &header(",\"expert_bytes\":[1,1,1099511627777]"),
        &["1099511627777"],
    );
    let pools = |pools: &str| header(&format!(",\"pools\":[{pools}]"));
    refused(
        &pools("{\"layers\":[0,1],\"slots\":1}"),
        &["layer 2 is in none"],
    );
    refused(
        &pools("{\"layers\":[0,1,1,2],\"slots\":1}"),
        &["layer 1 is in two"],
    );
    refused(&pools("{\"layers\":[0,1,2,3],\"slots\":1}"), &["layer 3"]);
    refused(&pools("{\"layers\":[1,0,2],\"slots\":1}"), &["[1, 0, 2]"]);
    refused(
        &pools("{\"layers\":[0,1,2],\"slots\":25}"),
        &["25 slots for 24"],
    );
    refused(
        &pools("{\"layers\":[],\"slots\":0},{\"layers\":[0,1,2],\"slots\":1}"),
        &["[]"],
    );
    refused(
        &format!("{{{}", " ".repeat(17 << 20)),
        &["line 1", "longer than 16777216"],
    );
}

#[test]
fn lines_that_are_wrong() {
    for (line, parts) in [
        ("", &["not `token layer id"][..]),
        ("7", &["\"7\""]),
        ("0 0", &["\"0 0\""]),
        ("0 0 ", &["expert \"\""]),
        ("0 0 1,", &["expert \"\""]),
        ("0 0 1 2", &["\"0 0 1 2\""]),
        ("0  0 1", &["not `token"]),
        (" 0 0 1", &["not `token"]),
        ("0 0 1\r", &["1\\r"]),
        ("x 0 1", &["token \"x\""]),
        ("-1 0 1", &["token \"-1\""]),
        ("+1 0 1", &["token \"+1\""]),
        ("4294967295 0 1", &["token \"4294967295\"", "0..4294967295"]),
        ("99999999999 0 1", &["99999999999"]),
        ("0 3 1", &["layer 3 is outside 0..3"]),
        ("0 0 8", &["expert 8 is outside 0..8"]),
        ("0 0 1.5", &["1.5"]),
        ("0 0 22:0.09", &["22:0.09"]),
        ("0 0 3,1,3", &["expert 3 is there twice"]),
        ("0 0 3,1,2,4", &["more experts than top_k, which is 3"]),
        (&"1".repeat(73), &["longer than 72 bytes"]),
    ] {
        let text = header("") + line + "\n";
        let parts = [&["line 2"], parts].concat();
        refused(&text, &parts);
        if !line.is_empty() {
            refused(&(header(",\"batched\":true") + line + "\n"), &parts);
        }
    }
}

#[test]
fn lines_out_of_order() {
    for lines in ["1 0 1\n0 0 1\n", "0 1 1\n0 0 1\n", "0 1 1\n0 1 2\n"] {
        refused(&(header("") + lines), &["line 3", "out of order"]);
    }
    for (lines, number) in [
        ("0 1 1\n0 0 1\n", "line 3"),
        ("0 1 1\n\n0 1 2\n", "line 4"),
        ("1 1 1\n0 0 1\n0 2 1\n1 1 1\n", "line 5"),
    ] {
        refused(
            &(header(",\"batched\":true") + lines),
            &[number, "out of order"],
        );
    }
    // With a limit, too.
    let text = header("") + "1 0 1\n5 0 1\n4 0 1\n";
    assert!(Trace::read_text(Path::new("x"), text.as_bytes(), 2).is_err());
}

#[test]
fn data_that_is_no_whole_gzip_file_or_no_text() {
    let text = header("") + "0 0 1\n1 0 2\n";
    let whole = gzip(&text);
    for n in 0..whole.len() {
        let error = read_gzip(&whole[..n]).err().expect("it is cut off");
        let error = error.to_string();
        assert!(
            error.contains("line ") && error.contains("ends early"),
            "{n} bytes: {error}"
        );
    }
    assert!(read_gzip(&[&whole[..], b"junk"].concat()).is_err());
    assert!(read_gzip(text.as_bytes()).is_err());
    let mut binary = text.into_bytes();
    let n = binary.len();
    binary[n - 2] = 0xff;
    let error = Trace::read_text(Path::new("x"), &binary[..], u32::MAX)
        .err()
        .unwrap();
    let error = error.to_string();
    assert!(
        error.contains("line 3") && error.contains("UTF-8"),
        "{error}"
    );
}

#[test]
fn files_that_are_not_there() {
    let error = Trace::open(Path::new("no/such.trace.gz"), 5).err().unwrap();
    assert!(error.to_string().contains("no/such.trace.gz"), "{error}");
    assert!(Trace::open(Path::new("."), 5).is_err());
}

/// What can be read of a file, and why no more.
fn salvaged(bytes: &[u8]) -> Option<(Vec<Copied>, String)> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("some.trace.gz");
    std::fs::write(&path, bytes).unwrap();
    let refused = Trace::open(&path, u32::MAX).err().expect("it is damaged");
    match Trace::salvage(&path, u32::MAX) {
        Err(error) => {
            assert_eq!(error.to_string(), refused.to_string());
            None
        }
        Ok((trace, damage)) => {
            let damage = damage.expect("it is damaged").to_string();
            assert_eq!(
                refused.to_string(),
                damage.clone() + " (--salvage reads them)"
            );
            let events = copied(&trace);
            let n_tokens = trace.n_tokens();
            let said = format!(
                "; {} events of {n_tokens} tokens before it are whole",
                events.len()
            );
            assert!(damage.ends_with(&said), "{damage}");
            Some((events, damage))
        }
    }
}

/// However much of a file is left, what is read of it is how the whole trace begins.
#[test]
fn what_comes_before_the_damage_can_be_read() {
    let mut text = header(",\"batched\":true");
    for token in (0..400).step_by(2) {
        for layer in 0..3 {
            for token in [token, token + 1] {
                text += &format!("{token} {layer} {},{}\n", token % 7, token % 7 + 1);
            }
        }
    }
    let events = copied(&read(&text).unwrap());
    // As recordings are written: parts that are compressed by themselves.
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let parts: Vec<Vec<u8>> = lines.chunks(301).map(|part| gzip(&part.concat())).collect();
    let in_parts = parts.concat();
    assert_eq!(copied(&read_gzip(&in_parts).unwrap()), events);

    let mut n_read = Vec::new();
    for whole in [gzip(&text), in_parts] {
        for n in (0..whole.len()).step_by(7) {
            // At the end of a part nothing is damaged.
            if read_gzip(&whole[..n]).is_ok() {
                continue;
            }
            let Some((found, damage)) = salvaged(&whole[..n]) else {
                continue;
            };
            assert!(damage.contains("ends early"), "{damage}");
            assert!(events.starts_with(&found), "{n} bytes");
            n_read.push(found.len());
        }
        for tail in [&b"junk"[..], &[0; 4096]] {
            let (found, _) = salvaged(&[&whole[..], tail].concat()).expect("some can be read");
            assert_eq!(
                found,
                events[..events.len() - 1],
                "all but the last, which might go on"
            );
        }
        // A header may be longer than any line.
        let long = gzip(&header(&format!(",\"model\":\"{}\"", "x".repeat(200))));
        for second in [&whole, &long] {
            let both = [&whole[..], second].concat();
            let (found, damage) = salvaged(&both).expect("the first one");
            assert_eq!(found, events[..events.len() - 1]);
            assert!(
                damage.contains("line 1202: another trace begins here"),
                "{damage}"
            );
        }
    }
    assert!(n_read.iter().any(|&n| n > events.len() / 2), "{n_read:?}");
    assert!(salvaged(b"").is_none() && salvaged(b"junk").is_none());
    assert!(salvaged(&gzip(&header(""))[..20]).is_none());
}
