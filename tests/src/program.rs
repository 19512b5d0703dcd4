//! Starts the programs of this workspace, as built by the Cargo that runs the tests.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

const START_TIME_MAX: Duration = Duration::from_secs(60);

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Program {
    name: &'static str,
    child: Child,
    addresses: Vec<SocketAddr>,
    log: Arc<Mutex<Vec<String>>>,
}

/// The folder with the programs, built once a test process.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let test = std::env::current_exe().expect("a test knows where it is");
        // target/PROFILE/deps/test
        let folder = test.ancestors().nth(2).expect("tests lie under target").to_owned();
        let release = folder.file_name().is_some_and(|name| name == "release");
        let mut build = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
        build.current_dir(crate::repository()).args(["build", "--quiet", "--workspace", "--bins"]);
        build.arg("--target-dir").arg(folder.parent().expect("target"));
        if release {
            build.arg("--release");
        }
        // What Cargo tells a test about its package would make some build scripts run again, each time.
        for (name, _) in std::env::vars_os() {
            if name
                .to_str()
                .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
            {
                build.env_remove(name);
            }
        }
        assert!(build.status().expect("cargo runs").success(), "the programs do not build");
        folder
    })
}

impl Program {
    /// Starts a program and waits until it listens on `ports` ports.
    ///
    /// # Panics
    /// If it ends before, with its log.
    pub fn start(name: &'static str, arguments: &[&str], ports: usize) -> Program {
        let mut program = Program::spawn(name, arguments);
        let lines = program.read_log();
        while program.addresses.len() < ports {
            match lines.recv_timeout(START_TIME_MAX) {
                Ok(line) => {
                    if line.contains("Listening on") {
                        let address = line.split("address=").nth(1).expect("the line has an address");
                        let address = address.split_whitespace().next().expect("the address is not empty");
                        program.addresses.push(address.parse().expect("IP:PORT"));
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("{name} ended at its start:\n{}", program.log())
                }
                Err(RecvTimeoutError::Timeout) => panic!("{name} does not listen:\n{}", program.log()),
            }
        }
        program
    }

    fn spawn(name: &'static str, arguments: &[&str]) -> Program {
        let child = Command::new(folder().join(name))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        Program { name, child, addresses: Vec::new(), log: Arc::default() }
    }

    fn read_log(&mut self) -> Receiver<String> {
        let (send, lines) = channel();
        let errors = self.child.stderr.take().expect("stderr is piped");
        let output = self.child.stdout.take().expect("stdout is piped");
        let log = Arc::clone(&self.log);
        std::thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                log.lock().unwrap().push(line.clone());
                let _ = send.send(line);
            }
        });
        let log = Arc::clone(&self.log);
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                log.lock().unwrap().push(line);
            }
        });
        lines
    }

    /// Where the program listens, in the order in which it said so.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where a program with one port listens.
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// `http://IP:PORT`
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// What it has printed so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL: nothing of it runs any more when this returns.
    pub fn kill(mut self) {
        self.child.kill().expect("the process can be killed");
        self.child.wait().expect("the process was started here");
    }

    /// Sends a signal by name, e.g. `TERM`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status();
        assert!(sent.expect("kill runs").success());
    }

    /// SIGTERM, and how it ended.
    pub fn terminate(mut self) -> ExitStatus {
        self.signal("TERM");
        self.child.wait().expect("the process was started here")
    }

    /// Runs a program to its end; its exit code and what it printed.
    pub fn run(name: &'static str, arguments: &[&str]) -> (Option<i32>, String) {
        let output = Command::new(folder().join(name))
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of {} ---\n{}", self.name, self.log());
        }
    }
}
