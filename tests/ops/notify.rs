//! A service manager that reads nothing of what it is told.

use rustix::process::Signal;

use crate::support::{Spec, wait_until};
use crate::{LIMIT, endpoint, get};

#[test]
fn a_service_manager_that_reads_nothing_holds_nobody_up() {
    let watchdog = ("WATCHDOG_USEC".to_owned(), "10000".to_owned());
    let extra_toml = "[metrics]\nlisten = \"127.0.0.1:0\"\n".to_owned();
    let (mut server, notify) = Spec { extra_toml, environment: vec![watchdog], ..Spec::local() }.launch();
    server.wait_for_ready(&notify);
    let endpoint = endpoint(&server);
    // Its socket takes some signs of life, and then no more.
    wait_until("the socket to be full", LIMIT, || {
        assert_eq!(get(&endpoint, "/healthz").0, 200);
        server.log().contains("does not read what it is told").then_some(())
    });
    assert_eq!(get(&endpoint, "/readyz").0, 200);
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code_within(LIMIT), Some(0));
    drop(notify);
}
