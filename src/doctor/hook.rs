//! The application of `[hook]`: whether it answers as it should, and can be reached where it is told of allocations. It is told nothing from here.

use std::io::{Error, ErrorKind};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::config::{Config, Hook, HookUrl};
use crate::hook::{HookError, Probed, probe};
use crate::net::connect_unix;
use crate::net::sys::clocks;
use crate::probe::{Status, Step};

use super::finding;

pub(super) fn judge(config: &Config, timeout: Duration) -> Vec<Step> {
    let asked = config.hook.as_ref().map(|hook| ask(hook, &config.auth.realm, timeout));
    // Where it is asked and told at one place, that is looked at once.
    let elsewhere = config.hook_events.as_ref().filter(|events| events.is_elsewhere);
    let told = elsewhere
        .map(|events| one(&events.url, timeout, "the application that is told of allocations", "it is told nothing"));
    asked.into_iter().chain(told).collect()
}

/// Asks about a name that nobody has.
fn ask(hook: &Hook, realm: &str, timeout: Duration) -> Step {
    let (url, name) = (&hook.url, format!("turnstone-doctor-{:x}", clocks().0));
    let Probed { took, answer } = probe(hook, &name, realm, timeout);
    let took = took.as_secs_f64() * 1e3;
    let lost = "users that only it knows are refused";
    let failed = |message| finding("hook", Status::Fail, message);
    match answer {
        Ok(None) => {
            let message =
                format!("the application {url} answers in {took:.1} ms, that it has no user {name:?}, as it should be");
            finding("hook", Status::Ok, message)
        }
        Ok(Some(_)) => {
            let message = format!(
                "the application {url} answers with a credential for {name:?}, a name that nobody has: expected status 404; whoever guesses what it \
                 answers gets in by any name"
            );
            finding("hook", Status::Warn, message)
        }
        Err(HookError::Status(status @ 401)) => failed(format!(
            "the application {url} answers HTTP status {status}, and {lost}: does it expect another token than that of [hook] (token, token-file)?"
        )),
        Err(error @ HookError::Connect(_)) => {
            failed(format!("the application {url} cannot be used, and {lost}: {error}"))
        }
        Err(error) => failed(format!(
            "the application {url}, asked about {name:?}, has not answered as it should (404), and {lost}: {}",
            match url {
                HookUrl::Http(url, _) => url.redact(&error.to_string()),
                HookUrl::Unix(_) => error.to_string(),
            }
        )),
    }
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
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::super::tests::config;
    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    /// An application that says this to everybody, or nothing.
    fn application(answer: Option<&'static str>) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let mut silent = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                match answer {
                    Some(answer) => {
                        let _ = stream.read(&mut [0; 4096]);
                        let _ = stream.write_all(answer.as_bytes());
                    }
                    None => silent.push(stream),
                }
            }
        });
        port
    }

    fn judged(hook: &str) -> Vec<(Status, String)> {
        let config = config(&format!("[relay]\nipv4 = \"5.44.1.1\"\n[hook]\n{hook}\n"));
        judge(&config, LIMIT).into_iter().map(|step| (step.status, step.message)).collect()
    }

    #[test]
    fn it_is_asked_about_a_name_that_nobody_has_and_what_is_wrong_is_told() {
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        for (answer, status, told) in [
            (Some("HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n"), Status::Ok, "as it should be"),
            (
                Some("HTTP/1.1 200 X\r\nContent-Length: 17\r\n\r\n{\"password\": \"x\"}"),
                Status::Warn,
                "expected status 404",
            ),
            (Some("HTTP/1.1 401 X\r\nContent-Length: 0\r\n\r\n"), Status::Fail, "another token than that of [hook]"),
            (
                Some("HTTP/1.1 200 X\r\nContent-Length: 14\r\n\r\n{\"alloca\": \"x\"}"),
                Status::Fail,
                "has not answered as it should",
            ),
            (None, Status::Fail, "no answer within the timeout"),
        ] {
            let url = format!("http://127.0.0.1:{}/users?key=hidden", application(answer));
            let [(found, message)] = judged(&format!("url = \"{url}\"\ntimeout = \"1s\"")).try_into().unwrap();
            assert!(found == status && message.contains(told) && !message.contains("hidden"), "{message}");
        }
        for gone in [format!("http://127.0.0.1:{gone}/"), "unix:/nowhere/hook.sock".to_owned()] {
            let [(status, message)] = judged(&format!("url = \"{gone}\"")).try_into().unwrap();
            assert!(status == Status::Fail && message.contains("users that only it knows"), "{message}");
        }
    }

    #[test]
    fn one_that_is_told_elsewhere_is_looked_at_there() {
        let port = application(Some("HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n"));
        let messages = |hook: &str| judged(&format!("events = [\"start\"]\n{hook}"));
        let at = format!("\"http://127.0.0.1:{port}/\"");
        assert_eq!(messages(&format!("url = {at}")).len(), 1);
        let both = messages(&format!("url = {at}\nevents-url = \"unix:/nowhere/events.sock\""));
        assert!(matches!(&both[..], [(Status::Ok, _), (Status::Fail, told)] if told.contains("it is told nothing")));
        let alone = messages(&format!("events-url = {at}"));
        assert!(matches!(&alone[..], [(Status::Ok, told)] if told.contains("that is told of allocations")));
    }
}
