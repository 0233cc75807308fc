//! The application of `[hook]`: whether it can be reached from here, where it is asked and where it is told.

use std::io::{Error, ErrorKind};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::config::{Config, HookUrl};
use crate::net::connect_unix;
use crate::probe::{Status, Step};

use super::finding;

pub(super) fn judge(config: &Config, timeout: Duration) -> Vec<Step> {
    let asked = config
        .hook
        .as_ref()
        .map(|hook| one(&hook.url, timeout, "the application", "users that only it knows are refused"));
    // Where it is asked and told at one place, that is looked at once.
    let elsewhere = config.hook_events.as_ref().filter(|events| events.is_elsewhere);
    let told = elsewhere
        .map(|events| one(&events.url, timeout, "the application that is told of allocations", "it is told nothing"));
    asked.into_iter().chain(told).collect()
}

fn one(url: &HookUrl, timeout: Duration, who: &str, else_: &str) -> Step {
    let reached = match url {
        HookUrl::Unix(path) => connect_unix(path, timeout).map(drop),
        HookUrl::Http(url, _) => {
            let (host, port) = url.host_and_port();
            let connect = |address| TcpStream::connect_timeout(&address, timeout).map(drop);
            let addresses = (host.as_str(), port).to_socket_addrs();
            let none = Err(Error::from(ErrorKind::NotFound));
            addresses.and_then(|found| found.map(connect).reduce(|one, other| one.or(other)).unwrap_or(none))
        }
    };
    match reached {
        Ok(()) => finding("hook", Status::Ok, format!("{who} {url} can be reached")),
        Err(error) => finding("hook", Status::Fail, format!("{who} {url} cannot be reached, and {else_}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::super::tests::config;
    use super::*;

    #[test]
    fn an_application_that_is_not_there_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let judged = |url: &str| {
            let config = config(&format!("[relay]\nipv4 = \"5.44.1.1\"\n[hook]\nurl = \"{url}\"\n"));
            let [step] = judge(&config, Duration::from_secs(5)).try_into().unwrap();
            (step.status, step.message)
        };
        let url = format!("http://127.0.0.1:{}/users?key=hidden", listener.local_addr().unwrap().port());
        let (status, message) = judged(&url);
        assert!(status == Status::Ok && !message.contains("hidden"), "{message}");
        drop(listener);
        for gone in [url.as_str(), "unix:/nowhere/hook.sock"] {
            let (status, message) = judged(gone);
            assert!(status == Status::Fail && message.contains("users that only it knows"), "{message}");
        }
    }

    #[test]
    fn one_that_is_told_elsewhere_is_looked_at_there() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let messages = |hook: &str| {
            let config = config(&format!("[relay]\nipv4 = \"5.44.1.1\"\n[hook]\nevents = [\"start\"]\n{hook}\n"));
            let steps = judge(&config, Duration::from_secs(5));
            steps.into_iter().map(|step| (step.status, step.message)).collect::<Vec<_>>()
        };
        let at = format!("\"http://127.0.0.1:{port}/\"");
        assert_eq!(messages(&format!("url = {at}")).len(), 1);
        let both = messages(&format!("url = {at}\nevents-url = \"unix:/nowhere/events.sock\""));
        assert!(matches!(&both[..], [(Status::Ok, _), (Status::Fail, told)] if told.contains("it is told nothing")));
        let alone = messages(&format!("events-url = {at}"));
        assert!(matches!(&alone[..], [(Status::Ok, told)] if told.contains("that is told of allocations")));
    }
}
