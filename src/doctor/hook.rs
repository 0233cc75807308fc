//! The application of `[hook]`: whether it can be reached from here.

use std::io::{Error, ErrorKind};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::config::{Hook, HookUrl};
use crate::probe::{Status, Step};

use super::finding;

pub(super) fn judge(hook: &Hook, timeout: Duration) -> Step {
    let reached = match &hook.url {
        HookUrl::Unix(path) => UnixStream::connect(path).map(drop),
        HookUrl::Http(url, _) => {
            let (host, port) = url.host_and_port();
            let connect = |address| TcpStream::connect_timeout(&address, timeout).map(drop);
            let addresses = (host.as_str(), port).to_socket_addrs();
            let none = Err(Error::from(ErrorKind::NotFound));
            addresses.and_then(|found| found.map(connect).reduce(|one, other| one.or(other)).unwrap_or(none))
        }
    };
    let shown = &hook.url;
    match reached {
        Ok(()) => finding("hook", Status::Ok, format!("the application {shown} can be reached")),
        Err(error) => {
            let message =
                format!("the application {shown} cannot be reached, and users that only it knows are refused: {error}");
            finding("hook", Status::Fail, message)
        }
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
            let step = judge(config.hook.as_ref().unwrap(), Duration::from_secs(5));
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
}
