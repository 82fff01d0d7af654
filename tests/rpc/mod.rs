//! A `ggml-rpc-server` on loopback, which llama.cpp takes for a GPU.

#![allow(dead_code, unsafe_code)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to start.
const LIMIT: Duration = Duration::from_secs(60);

/// A server, which ends when this is dropped, and with the process.
pub struct Server {
    child: Child,
    port: u16,
}

impl Server {
    /// Starts one on a free port. Call it in a thread that lives as long as the server should.
    pub fn start() -> Self {
        Self::start_with(&["-t", "2"], &[])
    }

    /// The same with other arguments than the address, and with these variables.
    pub fn start_with(args: &[&str], vars: &[(&str, &Path)]) -> Self {
        let program = concat!(env!("BUILD_LLAMA_SRC"), "/../build/bin/ggml-rpc-server");
        // Free until the server takes it, or nearly so.
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let mut command = Command::new(program);
        command
            .args(["-H", "127.0.0.1", "-p", &port.to_string(), "-d", "CPU"])
            .args(args)
            .env("OMP_WAIT_POLICY", "passive")
            .envs(vars.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // SAFETY: one system call, between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            })
        };
        let child = command.spawn().unwrap_or_else(|e| panic!("{program}: {e}"));
        let server = Self { child, port };
        let begin = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begin.elapsed() < LIMIT, "{program} does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    /// What `--rpc` takes.
    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Passes a connection on to a server, no faster than `bytes_per_s` to the server; lives as long as the process.
/// Returns what `--rpc` takes.
pub fn slow_link(server: &Server, bytes_per_s: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let port = server.port;
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(remote) = TcpStream::connect(("127.0.0.1", port)) else {
                return;
            };
            for socket in [&client, &remote] {
                socket.set_nodelay(true).unwrap();
            }
            let back = (remote.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || pass_on(client, remote, Some(bytes_per_s)));
            std::thread::spawn(move || pass_on(back.0, back.1, None));
        }
    });
    address.to_string()
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, bytes_per_s: Option<usize>) {
    let mut bytes = [0; 1 << 14];
    while let Ok(n) = from.read(&mut bytes) {
        if n == 0 || to.write_all(&bytes[..n]).is_err() {
            break;
        }
        if let Some(limit) = bytes_per_s {
            std::thread::sleep(Duration::from_secs_f64(n as f64 / limit as f64));
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
}
