//! A terminal for a command: what it asks there, and what it draws.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

use crate::support::{TestServer, Transport, wait_until};
use crate::wire::Wire;
use crate::{LIMIT, config, json, on};

/// A command on a terminal of its own, 100 columns by 30 rows.
pub(crate) struct Terminal {
    keys: File,
    screen: Arc<Mutex<String>>,
    /// Keeps it open, and tells its modes.
    line: OwnedFd,
    pub(crate) child: Child,
}

impl Terminal {
    pub(crate) fn run(command: &mut Command) -> Terminal {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap();
        let line = rustix::fs::open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        tcsetwinsize(&line, Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let end = || Stdio::from(line.try_clone().unwrap());
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let screen = Arc::new(Mutex::new(String::new()));
        let (shown, mut output) = (Arc::clone(&screen), File::from(ours.try_clone().unwrap()));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(len @ 1..) = output.read(&mut buffer) {
                shown.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..len]));
            }
        });
        Terminal { keys: File::from(ours), screen, line, child }
    }

    pub(crate) fn shown(&self) -> String {
        self.screen.lock().unwrap().clone()
    }

    pub(crate) fn shows(&self, text: &str) {
        wait_until(&format!("{text:?} on the terminal"), LIMIT, || self.shown().contains(text).then_some(()));
    }

    pub(crate) fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    pub(crate) fn modes(&self) -> Termios {
        tcgetattr(&self.line).unwrap()
    }

    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        wait_until("the command's end", LIMIT, || self.child.try_wait().unwrap()).code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn kick_shows_what_will_end_and_asks() {
    let server = TestServer::start(&config(""));
    let mut clients: Vec<_> = (0..12).map(|_| Wire::allocated(&server, Transport::Udp, "mallory").0).collect();
    let sessions = json(&server, &["sessions"]);
    let first = sessions["sessions"][0]["id"].as_str().unwrap();

    let mut no = Terminal::run(&mut on(&server, &["kick", "--user", "mallory"]));
    no.shows("end 12 sessions of mallory? [y/N] ");
    assert!(no.shown().contains(first) && no.shown().contains("and 2 others"), "{}", no.shown());
    no.press("\n");
    assert_eq!(no.exit_code(), Some(1));
    no.shows("nothing was ended");
    assert!(clients.iter_mut().all(|client| client.refresh().is_ok()));

    let mut one = Terminal::run(&mut on(&server, &["kick", first]));
    one.shows("end this session? [y/N] ");
    assert!(one.shown().contains("user         mallory"), "{}", one.shown());
    one.press("y\n");
    one.shows("ended 1 session");
    assert_eq!(one.exit_code(), Some(0));

    let mut yes = Terminal::run(&mut on(&server, &["kick", "--user", "mallory"]));
    yes.shows("end 11 sessions of mallory? [y/N] ");
    yes.press("Yes\n");
    yes.shows("ended 11 sessions");
    assert_eq!(yes.exit_code(), Some(0));
    assert!(clients.iter_mut().all(|client| client.refresh() == Err(437)));

    let mut nobody = Terminal::run(&mut on(&server, &["kick", "--user", "mallory"]));
    nobody.shows("no such session");
    assert_eq!(nobody.exit_code(), Some(1));
}

#[test]
fn a_drain_is_watched_on_one_line() {
    let mut server = TestServer::start(&config(""));
    let _client = Wire::allocated(&server, Transport::Udp, "alice");
    let mut drain = Terminal::run(&mut on(&server, &["drain", "--wait"]));
    drain.shows("\r\u{1b}[K1 allocation left");
    assert_eq!(crate::printed(&server, &["kick", "--yes", "--user", "alice"]), "ended 1 session\n");
    assert_eq!(drain.exit_code(), Some(0));
    drain.shows("the server has ended");
    assert_eq!(server.exit_code_within(LIMIT), Some(0));
}

#[test]
fn words_and_the_log_have_colours_on_a_terminal_that_shows_them_unless_they_are_not_wanted() {
    let server = TestServer::start(&config(""));
    let serve = ["serve", "--dev", "--listen", "udp://127.0.0.1:0"];
    for (variables, has_colours) in [
        (&[("TERM", "xterm")][..], true),
        (&[("TERM", "xterm"), ("NO_COLOR", "1")], false),
        (&[("TERM", "dumb")], false),
        (&[], false),
    ] {
        let mut check = Terminal::run(on(&server, &["check"]).envs(variables.iter().copied()));
        check.shows("warnings");
        assert_eq!(check.shown().contains("\u{1b}[32mok "), has_colours, "{variables:?}: {}", check.shown());
        check.exit_code();
        let doctor = Terminal::run(on(&server, &["doctor"]).envs(variables.iter().copied()));
        doctor.shows(" checks of this host");
        assert_eq!(
            doctor.shown().contains("\u{1b}[32mok\u{1b}[0m  "),
            has_colours,
            "{variables:?}: {}",
            doctor.shown()
        );
        let log = Terminal::run(crate::turnstone(&serve).envs(variables.iter().copied()));
        log.shows("listening on udp/127.0.0.1:");
        assert_eq!(log.shown().contains("\u{1b}[32m INFO"), has_colours, "{variables:?}: {}", log.shown());
    }
}
