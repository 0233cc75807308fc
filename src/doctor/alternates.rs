//! Whether the servers that clients are sent to answer.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::addr::{SocketKind, Transport};
use crate::config::Config;
use crate::probe::{self, Roots, Status, Step};
use crate::turn::AlternateServer;

use super::{Options, finding};

/// Where clients may be sent, and the section that says so.
fn each(config: &Config) -> impl Iterator<Item = (&'static str, &AlternateServer)> {
    let of_redirect = config.redirect.iter().flat_map(|redirect| &redirect.alternates.servers);
    let of_drain = config.drain.alternates.servers.iter().map(|server| ("drain", server));
    of_redirect.map(|server| ("redirect", server)).chain(of_drain)
}

/// Asks each server of `[redirect]` and `[drain]` once: by a Binding request over UDP, by a connection otherwise.
pub(super) fn judge(config: &Config, options: &Options) -> Vec<Step> {
    let mut asked = BTreeSet::new();
    let mut steps = Vec::new();
    for (section, AlternateServer { transport, address }) in each(config) {
        let kind = transport.map_or(SocketKind::Udp, Transport::socket_kind);
        if asked.insert((kind == SocketKind::Udp, *address)) {
            steps.push(judge_one(section, kind, *address, options.timeout));
        }
    }
    steps
}

fn judge_one(section: &'static str, kind: SocketKind, address: SocketAddr, timeout: Duration) -> Step {
    let answer = match kind {
        SocketKind::Tcp => TcpStream::connect_timeout(&address, timeout).map(drop).map_err(|error| error.to_string()),
        SocketKind::Udp => ask(address, timeout),
    };
    let over = if kind == SocketKind::Udp { "UDP" } else { "TCP" };
    match answer {
        Ok(()) => finding(section, Status::Ok, format!("alternate-server {address} answers over {over}")),
        Err(why) => {
            let message = format!(
                "alternate-server {address} does not answer this host over {over}: clients that are sent there may get nothing ({why})"
            );
            finding(section, Status::Warn, message)
        }
    }
}

/// A Binding request, as a probe makes it.
fn ask(address: SocketAddr, timeout: Duration) -> Result<(), String> {
    let url = format!("stun:{address}").parse().map_err(|error: probe::UrlError| error.to_string())?;
    let options = probe::Options {
        urls: Vec::new(),
        credential: None,
        roots: Roots::System,
        insecure: false,
        past_certificate: false,
        proxy_header: false,
        connect_to: None,
        certificate_name: None,
        family: None,
        timeout,
        relay_reach: false,
        safety: false,
        tcp_relay: false,
    };
    let target = probe::run_at(&options, &url, address, &mut |_| ()).map_err(|error| error.to_string())?;
    match target.all_steps().find(|step| matches!(step.status, Status::Fail | Status::Warn)) {
        Some(step) => Err(step.message.clone()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::super::tests::config;
    use super::*;

    #[test]
    fn servers_that_do_not_answer_are_warned_of_and_each_is_asked_once() {
        let (tcp, udp) = (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let (open, closed) = (tcp.local_addr().unwrap(), udp.local_addr().unwrap());
        drop(udp);
        let text = format!(
            "[redirect]\nalternate-server = [\"tcp://{open}\", \"tls://{open}\", \"udp://{closed}\", \"tcp://{closed}\"]\n\
             [drain]\nalternate-server = \"{closed}\"\n"
        );
        let options = Options { pid: None, roots: Roots::System, timeout: Duration::from_secs(5) };
        let steps: Vec<_> = judge(&config(&text), &options).into_iter().map(|step| (step.step, step.status)).collect();
        assert_eq!(steps, [("redirect", Status::Ok), ("redirect", Status::Warn), ("redirect", Status::Warn)]);
        assert_eq!(judge(&config(""), &options).len(), 0);
    }
}
