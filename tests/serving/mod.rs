//! A llama-server, and requests to it.

#![allow(dead_code)]

use crate::child::{Ended, PROMPT, Running, command};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A llama-server that answers on a port of its own.
pub struct LlamaServer {
    running: Running,
    agent: ureq::Agent,
    url: String,
}

impl LlamaServer {
    /// Starts one with these settings of hotset and these arguments; later options win.
    pub fn start(model: &Path, vars: &[(&str, &str)], args: &[&str]) -> Self {
        let mut command = command(env!("CARGO_BIN_EXE_llama-server"), vars);
        command.arg("-m").arg(model);
        Self::start_with(command, args)
    }

    /// Starts a command that lacks these arguments and an address.
    pub fn start_with(command: Command, args: &[&str]) -> Self {
        Self::start_at(command, "", args)
    }

    /// The same beside others that the caller has started.
    pub fn start_beside(command: Command, args: &[&str]) -> Self {
        Self::start_by(Running::start_beside, command, "", args)
    }

    /// The same, where all paths begin with a prefix that the command is given otherwise.
    pub fn start_at(command: Command, prefix: &str, args: &[&str]) -> Self {
        Self::start_by(Running::start, command, prefix, args)
    }

    fn start_by(
        start: fn(Command) -> Running,
        mut command: Command,
        prefix: &str,
        args: &[&str],
    ) -> Self {
        // Free now, and the system gives the next caller another one.
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        drop(socket);
        command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
        command.args([
            "-t",
            "2",
            "--n-gpu-layers",
            "0",
            "--no-repack",
            "--no-webui",
        ]);
        command.args(args);
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(60)));
        let mut server = Self {
            running: start(command),
            agent: config.build().new_agent(),
            url: format!("http://127.0.0.1:{port}"),
        };
        let health = format!("{}{prefix}/health", server.url);
        let agent = server.agent.clone();
        server.running.wait_until("health", |_| {
            agent
                .get(&health)
                .call()
                .is_ok_and(|answer| answer.status() == 200)
        });
        server
    }

    /// Continues a prompt greedily by 24 tokens.
    pub fn complete(&self, prompt: Value) -> Value {
        let answer = self.ask(prompt);
        check(&answer);
        answer
    }

    /// The tokens of all prompts, which one request asks for: they share batches from the first on.
    pub fn tokens_together(&self, prompts: &[Value]) -> Vec<Value> {
        let mut answers = self.ask(prompts.into());
        let answers = answers.as_array_mut().expect("an answer to each prompt");
        answers.iter().for_each(check);
        answers.sort_by_key(|answer| answer["index"].as_u64());
        let tokens = answers.iter_mut().map(|answer| answer["tokens"].take());
        tokens.collect()
    }

    fn ask(&self, prompt: Value) -> Value {
        let body = json!({
            "model": "polyglot-moe", "prompt": prompt, "n_predict": 24, "temperature": 0, "ignore_eos": true,
            "cache_prompt": false, "return_tokens": true,
        });
        let answer = self
            .agent
            .post(format!("{}/completion", self.url))
            .send_json(&body);
        let answer = answer.unwrap_or_else(|e| panic!("{e}\n{}", self.running.stderr()));
        answer.into_body().read_json().unwrap()
    }

    /// What it answers to a request, which must succeed.
    pub fn post(&self, what: &str, body: &Value) -> Value {
        let answer = self
            .agent
            .post(format!("{}/{what}", self.url))
            .send_json(body);
        let answer = answer.unwrap_or_else(|e| panic!("{body}: {e}\n{}", self.running.stderr()));
        answer.into_body().read_json().unwrap()
    }

    /// The status and the text of its answer to `GET path`, or to `POST path` if there is a body; with a key, if it wants one.
    pub fn http(&self, path: &str, body: Option<&str>, key: Option<&str>) -> (u16, String) {
        let url = format!("{}{path}", self.url);
        let bearer = |key| format!("Bearer {key}");
        let answer = match (body, key.map(bearer)) {
            (None, None) => self.agent.get(&url).call(),
            (None, Some(key)) => self.agent.get(&url).header("Authorization", key).call(),
            (Some(body), None) => self.agent.post(&url).send(body),
            (Some(body), Some(key)) => self
                .agent
                .post(&url)
                .header("Authorization", key)
                .send(body),
        };
        let answer = answer.unwrap_or_else(|e| panic!("{path}: {e}\n{}", self.running.stderr()));
        let status = answer.status().as_u16();
        (status, answer.into_body().read_to_string().unwrap())
    }

    /// What it answers to `GET path`, which must succeed.
    pub fn get(&self, path: &str) -> Value {
        let (status, text) = self.http(path, None, None);
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}: {text}"))
    }

    /// Continues a prompt greedily by so many tokens, in a thread of its own.
    pub fn complete_apart(&self, prompt: &str, n_tokens: u32) -> std::thread::JoinHandle<Value> {
        let (agent, url) = (self.agent.clone(), format!("{}/completion", self.url));
        let body = json!({
            "prompt": prompt, "n_predict": n_tokens, "temperature": 0, "ignore_eos": true, "cache_prompt": false,
            "return_tokens": true,
        });
        std::thread::spawn(move || {
            let answer = agent.post(url).send_json(&body).unwrap();
            answer.into_body().read_json().unwrap()
        })
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.running.id()
    }

    /// The tokens of each prompt, one request at a time.
    pub fn tokens(&self, prompts: &[Value]) -> Vec<Value> {
        prompts
            .iter()
            .map(|p| self.complete(p.clone())["tokens"].take())
            .collect()
    }

    /// Waits until it has reported `what` so many times.
    pub fn wait_for(&mut self, what: &str, n_times: usize) {
        let is_said = |r: &Running| r.stderr().matches(what).count() >= n_times;
        self.running.wait_until(what, is_said);
    }

    /// Waits until it has fallen asleep so many times, and its model is gone. A signal that comes before finds
    /// llama-server with a lock that its own handler wants, and it never ends.
    pub fn wait_until_asleep(&mut self, n_times: usize) {
        self.wait_for("server is entering sleeping state", n_times);
        std::thread::sleep(Duration::from_millis(300));
    }

    /// Asks for the prompt to be continued by many tokens, in a thread of its own; what becomes of that is nobody's
    /// business. The client loses patience soon: at its end the server waits for those who are still connected.
    pub fn keep_busy(&self, prompt: Value) {
        let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(4)));
        let (agent, url) = (config.build().new_agent(), self.url.clone());
        let body = json!({ "prompt": prompt, "n_predict": 4000, "ignore_eos": true, "cache_prompt": false });
        std::thread::spawn(move || agent.post(format!("{url}/completion")).send_json(&body));
    }

    /// Its process.
    pub fn running(&mut self) -> &mut Running {
        &mut self.running
    }

    /// Waits for its end.
    pub fn wait(self) -> Ended {
        self.running.wait()
    }

    /// Ends it as a service manager does, and returns what it reported.
    pub fn stop(self) -> String {
        self.end().stderr
    }

    /// The same with what it printed.
    pub fn end(self) -> Ended {
        self.running.terminate();
        let ended = self.running.wait();
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        ended
    }
}

fn check(answer: &Value) {
    assert_eq!(answer["tokens_predicted"], 24, "{answer:#}");
    assert_eq!(answer["tokens"].as_array().unwrap().len(), 24, "{answer:#}");
}

/// One long prompt and three short ones.
pub fn prompts() -> Vec<Value> {
    let others = [
        "for (int i = 0; i < n; i++) { if (a[i] == 0) return",
        "The kernel reads the page from the disk",
        "Der Rechner",
    ];
    [PROMPT]
        .into_iter()
        .chain(others)
        .map(Value::from)
        .collect()
}
