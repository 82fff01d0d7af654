//! What cannot be written in the end costs a line, and neither the run nor what was there.

use super::child::{Running, run};
use super::{Bench, SIDES, Side, mounted, warnings};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;

/// On a disk that is full before the run begins what was there stays whole.
#[test]
fn a_full_disk_costs_a_line_for_each_file() {
    let bench = Bench::new();
    run(bench.command(&bench.out())).text();
    let kept = bench.dir.path().join("kept");
    fs::create_dir(&kept).unwrap();
    let script = "mkdir $OUT/../saved; cp $OUT/* $OUT/../saved; mount -t tmpfs -o size=2m none $OUT; \
        cp $OUT/../saved/* $OUT; dd if=/dev/zero of=$OUT/filler bs=4k count=999 2> $OUT/../dd || true; \
        \"$@\"; status=$?; rm $OUT/filler; cp $OUT/* $OUT/../kept; ls -A $OUT | wc -l > $OUT/../n; exit $status";
    let command = bench.command(&bench.out());
    let Some(command) = mounted(&command, &bench.out(), script) else {
        return;
    };
    let ended = run(command);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert_eq!(ended.stdout, bench.stock_text());
    let said = warnings(&ended);
    assert_eq!(said.len(), SIDES.len(), "{}", ended.stderr);
    for (side, line) in SIDES.iter().zip(sorted_like_sides(&said)) {
        assert!(line.contains("No space left on device"), "{line}");
        let read = |folder: &Path| fs::read(folder.join(side.file)).unwrap();
        assert_eq!(read(&kept), read(&bench.out()), "{}", side.name);
    }
    let n = fs::read_to_string(bench.dir.path().join("n")).unwrap();
    assert_eq!(n.trim(), SIDES.len().to_string(), "no temporary file stays");
}

/// The line of each file.
fn sorted_like_sides<'a>(lines: &[&'a str]) -> Vec<&'a str> {
    let of = |side: &Side| {
        let line = lines.iter().find(|line| line.contains(side.name));
        *line.unwrap_or_else(|| panic!("no {} in {lines:?}", side.name))
    };
    SIDES.iter().map(of).collect()
}

/// The folder goes while the program runs, which does not care.
#[test]
fn a_folder_that_goes_costs_a_line_for_each_file() {
    let bench = Bench::new();
    let mut running = Running::start(bench.slow_command());
    let is_loaded = |r: &Running| r.stderr().contains("layers stream");
    running.wait_until("loading", is_loaded);
    fs::remove_dir_all(bench.out()).unwrap();
    let ended = running.wait();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let lines = warnings(&ended);
    assert_eq!(lines.len(), SIDES.len(), "{}", ended.stderr);
    for line in sorted_like_sides(&lines) {
        assert!(line.contains("No such file or directory"), "{line}");
    }
    assert!(!bench.out().exists());
}

/// Who writes into a pipe that nobody reads any more is ended by that, unless it takes care.
#[test]
fn a_reader_that_goes_costs_a_line_for_each_file() {
    let bench = Bench::new();
    let open = |side: &Side| {
        let path = bench.path(side);
        let made = Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        // One that waits for nobody who writes.
        let mut options = File::options();
        options.read(true).custom_flags(libc::O_NONBLOCK);
        options.open(path).unwrap()
    };
    let readers = SIDES.each_ref().map(open);
    let mut running = Running::start(bench.slow_command());
    running.wait_until("some routing", |_| has_bytes(&readers[2]));
    drop(readers);
    let ended = running.wait();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let lines = warnings(&ended);
    assert_eq!(lines.len(), SIDES.len(), "{}", ended.stderr);
    sorted_like_sides(&lines);
}

/// Whether something was written into a pipe.
fn has_bytes(mut reader: &File) -> bool {
    matches!(reader.read(&mut [0; 64]), Ok(1..))
}
