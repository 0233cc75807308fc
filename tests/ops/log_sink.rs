//! A log that nobody reads: a full pipe, a log collector that hangs.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::LIMIT;
use crate::support::{Running, run, wait_until};

const SECRET: (&str, &str) = ("TURNSTONE_SECRET", "a secret of thirty-two characters");

/// Every cycle begins with an unauthenticated request, so their answers are not limited.
const CONFIG: &str = r#"
[[listen]]
address = "127.0.0.1:0"
transport = "udp"
[relay]
ipv4 = "127.0.0.1"
ipv6 = "off"
[quota]
allocations-per-user-per-second = "unlimited"
[limits]
unauthenticated-replies-per-second = "unlimited"
"#;

#[test]
fn a_log_that_nobody_reads_holds_up_neither_the_relay_nor_its_stop() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("turnserver.toml");
    std::fs::write(&config, CONFIG).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnstone"));
    command.args(["serve", "--dev", "--config"]).arg(&config);
    command.env(SECRET.0, SECRET.1).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut server = Running(command.spawn().unwrap());
    let mut lines = BufReader::new(server.0.stdout.take().unwrap()).lines();
    let listening = lines.find_map(|line| line.unwrap().trim().strip_prefix("listening on udp ").map(str::to_owned));

    // The first thousand cycles log a line each; a pipe holds some two hundred of them.
    let listening = listening.unwrap();
    let mut cycles = 0;
    for _ in 0..20 {
        let mut bench = Command::new(env!("CARGO_BIN_EXE_turnstone"));
        bench
            .args(["bench", "allocate", &listening, "--user", "load", "--secret-env", SECRET.0])
            .env(SECRET.0, SECRET.1);
        bench.args(["--clients", "8", "--warm-up", "0.1", "--duration", "1", "--format", "json"]);
        let finished = run(&mut bench, LIMIT);
        assert_eq!(finished.code, Some(0), "{}", finished.all_output());
        let report: serde_json::Value = serde_json::from_str(&finished.stdout).unwrap();
        assert_eq!(report["lost"], 0, "{report:#}");
        cycles += report["received"].as_u64().unwrap();
        if cycles > 500 {
            break;
        }
    }
    assert!(cycles > 500, "{cycles}");

    kill_process(Pid::from_child(&server.0), Signal::TERM).unwrap();
    let status = wait_until("the server's end", LIMIT, || server.0.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
}
