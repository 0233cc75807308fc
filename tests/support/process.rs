//! Foreign programs: found or named, run with a time limit, never left behind.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What a program said and how it ended.
#[derive(Debug)]
pub struct Finished {
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// Both outputs, for searching and for messages.
    pub fn all_output(&self) -> String {
        format!("{}\n{}", self.stdout, self.stderr)
    }
}

/// Runs `command` to its end and fails the test, showing the output, when it takes longer than `limit`.
pub fn run(command: &mut Command, limit: Duration) -> Finished {
    run_with_input(command, "", limit)
}

/// The same with something to read on standard input.
pub fn run_with_input(command: &mut Command, input: &str, limit: Duration) -> Finished {
    let (name, mut child) = spawn_with_pipes(command);
    // A program that ends without reading its input is judged by its exit code.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let stdout = read_all(child.stdout.take().unwrap());
    let stderr = read_all(child.stderr.take().unwrap());
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            break None;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
    match status {
        Some(status) => Finished { code: status.code(), stdout, stderr },
        None => panic!("{name} did not end within {limit:?}\n{stdout}\n{stderr}"),
    }
}

fn spawn_with_pipes(command: &mut Command) -> (String, Child) {
    let name = format!("{command:?}");
    let child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
    (name, child)
}

/// A program that talks in lines over stdin and stdout; killed when dropped.
pub struct Interactive {
    name: String,
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
    stderr: Arc<Mutex<String>>,
}

impl Interactive {
    pub fn start(command: &mut Command) -> Interactive {
        let (name, mut child) = spawn_with_pipes(command);
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let stderr = Arc::new(Mutex::new(String::new()));
        let collected = Arc::clone(&stderr);
        let stderr_lines = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in stderr_lines.lines().map_while(Result::ok) {
                let mut text = collected.lock().unwrap();
                text.push_str(&line);
                text.push('\n');
            }
        });
        let stdin = child.stdin.take().unwrap();
        Interactive { name, child, stdin, lines, stderr }
    }

    pub fn send_line(&mut self, line: &str) {
        let sent = writeln!(self.stdin, "{line}").and_then(|()| self.stdin.flush());
        if let Err(error) = sent {
            panic!("{} does not listen: {error}\n{}", self.name, self.stderr_text());
        }
    }

    /// The next line of its output; fails the test after `limit` or when the program ended.
    pub fn next_line(&mut self, limit: Duration) -> String {
        self.line_within(limit)
            .unwrap_or_else(|| panic!("{} said nothing for {limit:?}\n{}", self.name, self.stderr_text()))
    }

    /// The next line of its output, or `None` after `limit`; fails the test when the program ended.
    pub fn line_within(&mut self, limit: Duration) -> Option<String> {
        match self.lines.recv_timeout(limit) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => panic!("{} ended\n{}", self.name, self.stderr_text()),
        }
    }

    fn stderr_text(&self) -> String {
        // What was printed just before the end is still on its way through the pipe.
        std::thread::sleep(Duration::from_millis(100));
        self.stderr.lock().unwrap().clone()
    }
}

impl Drop for Interactive {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program that goes on by itself; killed when dropped.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Fails the test with the name of the Debian package when `program` is not installed.
pub fn require_tool(program: &str, debian_package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| panic!("this test needs `{program}`: install the Debian package {debian_package}"))
}

/// Fails the test when it does not run as root.
pub fn require_root(purpose: &str) {
    assert!(rustix::process::geteuid().is_root(), "this test needs root: it makes {purpose}");
}

/// Cargo's target directory, where the set-up scripts put what they download.
pub fn target_dir() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().to_owned()
}

/// Waits until `condition` gives a value; fails the test after `limit`.
pub fn wait_until<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn read_all(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
