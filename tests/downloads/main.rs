//! Models come by https from a hub on loopback, whatever OpenSSL the machine has, and are streamed like any other.

#![cfg(all(feature = "llama", feature = "cli"))]

#[path = "../child/mod.rs"]
mod child;

use child::{Ended, StatsFile, command, completion, completion_of, polyglot, run};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

const REPOSITORY: &str = "someone/polyglot-GGUF";
const FILE: &str = "polyglot-moe-Q8_0.gguf";
const RAM: (&str, &str) = ("HOTSET_RAM", "30%");

/// A hub with the bundled model, and a folder for what is downloaded.
struct Hub {
    dir: TempDir,
    server: Child,
    port: String,
}

impl Hub {
    /// One whose first answers with content are cut short.
    fn start(n_cuts: usize) -> Self {
        Self::start_as("127.0.0.1", n_cuts)
    }

    /// One whose certificate has this name.
    fn start_as(name: &str, n_cuts: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let file = path("files").join(REPOSITORY).join(FILE);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::copy(polyglot(), file).unwrap();
        let pair = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        fs::write(path("hub.pem"), pair.cert.pem()).unwrap();
        fs::write(path("hub.key"), pair.signing_key.serialize_pem()).unwrap();
        let mut server = Command::new("python3")
            .arg(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/downloads/hub.py"
            ))
            .arg(path("files"))
            .arg(n_cuts.to_string())
            .args([path("hub.pem"), path("hub.key")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
        let port = lines.next().expect("the hub says its port").unwrap();
        let mut log = File::create(path("log")).unwrap();
        std::thread::spawn(move || {
            use std::io::Write;
            lines.try_for_each(|line| writeln!(log, "{}", line.unwrap_or_default()))
        });
        Self { dir, server, port }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}/{path}", self.port)
    }

    /// Has a program download here, and trust this certificate alone.
    fn serves(&self, mut command: Command, certificate: &Path) -> Command {
        command
            .env("MODEL_ENDPOINT", self.url(""))
            .env("LLAMA_CACHE", self.path("cache"))
            .env("SSL_CERT_FILE", certificate)
            .env("SSL_CERT_DIR", self.path("none"));
        command
    }

    /// The ranges of the requests with content for the model so far; "-" is all of it.
    fn downloads(&self) -> Vec<String> {
        let log = fs::read_to_string(self.path("log")).unwrap();
        let of_model = log
            .lines()
            .filter_map(|line| line.strip_prefix(&format!("GET /files/{REPOSITORY}/{FILE} ")));
        of_model.map(str::to_owned).collect()
    }

    /// Runs llama-completion with streamed experts on what these arguments name.
    fn complete(&self, args: &[&str]) -> Ended {
        let completion = completion_of(args, &[RAM], &[]);
        run(self.serves(completion, &self.path("hub.pem")))
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// What the model says when it is loaded from its own file.
fn right() -> String {
    run(completion(&polyglot(), &[("HOTSET", "off")], &[]))
        .text()
        .into_owned()
}

#[test]
fn a_model_of_a_hub_is_downloaded_once_and_streamed() {
    let right = right();
    let hub = Hub::start(0);
    let by_quantisation = format!("{REPOSITORY}:Q8_0");
    for args in [
        &["-hf", &by_quantisation][..],
        &["--hf-repo", REPOSITORY, "--hf-file", FILE],
    ] {
        let stats = StatsFile::new();
        let vars = [RAM, ("HOTSET_STATS", &stats.path())];
        let completion = completion_of(args, &vars, &[]);
        assert_eq!(
            run(hub.serves(completion, &hub.path("hub.pem"))).text(),
            right,
            "{args:?}"
        );
        stats.read_streamed();
    }
    assert_eq!(hub.downloads(), ["-"]);
    // By `hotset run` it is the same, and without the hub what is there is taken.
    let mut offline = command(env!("CARGO_BIN_EXE_hotset"), &[]);
    offline.args(["run", "--tool", "completion", "--ram", "30%", "--"]);
    offline
        .args(child::ARGS)
        .args(child::SAMPLED)
        .args(["--offline", "-hf", &by_quantisation]);
    assert_eq!(run(hub.serves(offline, &hub.path("hub.pem"))).text(), right);
    assert_eq!(hub.downloads(), ["-"]);
}

#[test]
fn a_download_that_was_cut_goes_on_where_it_ended() {
    let right = right();
    // A program tries three times.
    let hub = Hub::start(4);
    let by_quantisation = format!("{REPOSITORY}:Q8_0");
    let cut = hub.complete(&["-hf", &by_quantisation]);
    assert_ne!(cut.code(), 0, "{}", cut.stderr);
    assert_eq!(hub.downloads().len(), 3);
    assert_eq!(hub.complete(&["-hf", &by_quantisation]).text(), right);
    let downloads = hub.downloads();
    assert_eq!(downloads.len(), 5, "{downloads:?}");
    assert_eq!(downloads[0], "-");
    let begin = |range: &String| range["bytes=".len()..].trim_end_matches('-').parse::<u64>();
    let begins: Vec<_> = downloads[1..]
        .iter()
        .map(|range| begin(range).unwrap())
        .collect();
    assert!(
        begins[0] > 0 && begins.is_sorted_by(|a, b| a < b),
        "{begins:?}"
    );
}

#[test]
fn a_file_that_an_address_names_is_fetched_again_when_it_has_changed() {
    let right = right();
    let hub = Hub::start(0);
    let to = hub.path("here.gguf");
    let url = hub.url(&format!("files/{REPOSITORY}/{FILE}"));
    let args = ["-m", to.to_str().unwrap(), "-mu", &url];
    for _ in 0..2 {
        assert_eq!(hub.complete(&args).text(), right);
        assert_eq!(hub.downloads(), ["-"]);
    }
    assert_eq!(fs::read(&to).unwrap(), fs::read(polyglot()).unwrap());
    // A byte behind the last tensor.
    let mut bytes = fs::read(polyglot()).unwrap();
    bytes.push(0);
    fs::write(hub.path("files").join(REPOSITORY).join(FILE), &bytes).unwrap();
    assert_eq!(hub.complete(&args).text(), right);
    assert_eq!(hub.downloads().len(), 2);
    assert_eq!(fs::read(&to).unwrap(), bytes);
}

#[test]
fn a_server_that_cannot_be_trusted_is_refused() {
    let by_quantisation = format!("{REPOSITORY}:Q8_0");
    let [hub, other, misnamed] =
        ["127.0.0.1", "127.0.0.1", "example.org"].map(|name| Hub::start_as(name, 0));
    for (hub, certificate, reason) in [
        (
            &hub,
            other.path("hub.pem"),
            "SSL server verification failed",
        ),
        (
            &misnamed,
            misnamed.path("hub.pem"),
            "SSL server hostname verification failed",
        ),
    ] {
        // The reason is in the queue of a thread when the program exits, and is not to be lost there.
        for _ in 0..8 {
            let completion = completion_of(&["-hf", &by_quantisation], &[RAM], &[]);
            let ended = run(hub.serves(completion, &certificate));
            assert_ne!(ended.code(), 0);
            assert!(ended.stderr.contains(reason), "{}", ended.stderr);
            // There are certificates, if not the right ones.
            assert_eq!(ended.said(), [""; 0]);
        }
        assert_eq!(hub.downloads(), [""; 0]);
        assert!(fs::read_to_string(hub.path("log")).unwrap().is_empty());
    }
}

#[test]
fn without_root_certificates_one_line_says_so() {
    let hub = Hub::start(0);
    let by_quantisation = format!("{REPOSITORY}:Q8_0");
    let missing = hub.path("missing.pem");
    let program = completion_of(&["-hf", &by_quantisation], &[RAM], &[]);
    let ended = run(hub.serves(program, &missing));
    assert_ne!(ended.code(), 0);
    let said = ended.said();
    assert_eq!(said.len(), 1, "{}", ended.stderr);
    let names_it = said[0].contains(&format!("SSL_CERT_FILE={}", missing.display()));
    assert!(
        names_it && said[0].contains("no root certificates"),
        "{said:?}"
    );

    // It is of no use to those who download nothing.
    let program = completion(&polyglot(), &[("HOTSET", "off")], &[]);
    let ended = run(hub.serves(program, &missing));
    assert_eq!(ended.code(), 0);
    assert_eq!(ended.said(), [""; 0]);
}
