//! Variables that tell of descriptors which are not there, or nonsense.

use std::process::Stdio;

use crate::LIMIT;
use crate::manager::Manager;
use crate::support::{Transport, run};

#[test]
fn variables_that_are_wrong_stop_the_start_with_one_clear_error() {
    let manager = Manager::new();
    manager.configure(1, &[(Transport::Udp, "127.0.0.1:0".parse().unwrap())]);
    for (variables, message) in [
        (&[("LISTEN_FDS", "many")][..], "error: LISTEN_FDS=\"many\": is not a number of descriptors"),
        (&[("LISTEN_FDS", "1")], "error: LISTEN_FDS=1: descriptor 3 is not open"),
        (
            &[("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "one:two")],
            "error: LISTEN_FDNAMES=\"one:two\": has 2 names for 1 descriptors",
        ),
    ] {
        let mut command = manager.command();
        command.envs(variables.iter().copied()).stdin(Stdio::null());
        let finished = run(&mut command, LIMIT);
        assert_eq!(finished.code, Some(2), "{finished:?}");
        assert_eq!(finished.stderr.trim_end(), message);
    }
}

#[test]
fn variables_for_another_process_are_ignored() {
    let mut manager = Manager::new();
    manager.configure(1, &[(Transport::Udp, "127.0.0.1:0".parse().unwrap())]);
    manager.listen_pid = "1";
    manager.socket_unit.push(("unknown".to_owned(), std::fs::File::open("/dev/null").unwrap().into()));
    manager.start();
    manager.wait_for_log("listening on", 1);
    assert!(!manager.log().contains("WARN"), "{}", manager.log());
}
