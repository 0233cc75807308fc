//! What `turnstone doctor` looks at on the server's own host: the machine, the files, the network, and every listener as a
//! client sees it.
//!
//! Each check is a function of plain inputs (the text of a file of /proc, the configuration, a list of interfaces) that returns
//! findings; [`run`] collects the inputs and asks each. It sends packets to this host's own addresses, to the web servers that share ports,
//! to the servers that clients are sent to (`[redirect]`, `[drain]`), to the application of `[hook]`, to the store of `[store]`, to
//! the nodes of `[fleet]`, and to no others.

pub mod acme;
mod alternates;
mod buffers;
pub mod certificate;
pub mod choices;
pub mod clients;
mod clock;
pub mod credentials;
mod examine;
mod files;
mod firewall;
pub mod fleet;
pub(crate) mod health;
mod hook;
mod host;
mod listeners;
pub mod network;
mod nftables;
pub(crate) mod page;
pub mod ports;
pub mod process;
mod report;
pub mod service;
pub mod store;
mod walk;

pub use examine::run;
pub use report::{Progress, Report, SCHEMA};

use std::time::Duration;

use crate::config::{Config, Overrides, Source};
use crate::probe::{Roots, Status, Step};

/// What to look at, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The server's process, where the owner of the listeners is not to be looked for.
    pub pid: Option<u32>,
    /// Which authorities a listener's certificate is judged by.
    pub roots: Roots,
    /// The longest that one step at a listener may take.
    pub timeout: Duration,
}

/// A configuration that was read.
#[derive(Clone, Copy, Debug)]
pub struct Configured<'a> {
    /// What came of it.
    pub config: &'a Config,
    /// Where from.
    pub source: &'a Source,
    /// What won over it.
    pub overrides: &'a Overrides,
    /// A further file that holds a secret, named by a variable.
    pub secret_file: Option<&'a std::path::Path>,
    /// How many warnings there were.
    pub warnings: usize,
}

/// A finding that took no time worth telling.
fn finding(check: &'static str, status: Status, message: impl Into<String>) -> Step {
    Step::new(check, status, Duration::ZERO, message)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::config::{ConfigError, Host, Overrides, Surroundings};

    /// A configuration with a secret; without anything else it is for loopback.
    pub(super) fn config(text: &str) -> Config {
        let listen = if text.contains("[[listen]]") {
            ""
        } else {
            "[[listen]]\naddress = \"127.0.0.1:3478\"\ntransport = \"udp\"\n"
        };
        let text = format!("{listen}{text}\n[[auth.secrets]]\nid = \"a\"\nsecret = \"0123456789abcdef\"\n");
        let source = Source { name: "test".to_owned(), text, ..Source::default() };
        let host = Host { cores: 1, ipv4: Some(Ipv4Addr::LOCALHOST), ipv6: None, has_ipv6: true };
        let around = Surroundings { host, env: &|_| None, dev: false };
        Config::parse(&source, &Overrides::default(), &around).unwrap().config
    }

    #[test]
    fn a_configuration_that_cannot_be_read_is_a_failure_and_the_machine_is_looked_at_all_the_same() {
        let options = Options { pid: None, roots: Roots::System, timeout: Duration::from_secs(5) };
        let error = ConfigError::one(crate::config::Place::Source("f.toml".to_owned()), "no".to_owned());
        let mut seen = 0;
        let report = run(Err(&error), &options, &mut |_| seen += 1);
        assert_eq!((report.verdict, report.checks[0].message.as_str()), (Status::Fail, "f.toml: no"));
        assert!(report.checks.iter().any(|step| step.step == "clock-sync"));
        assert_eq!(seen, report.checks.len());
    }
}
