//! `turnstone health`: one question to the server of this host, for containers and service managers that ask a program.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use crate::addr::Transport;
use crate::config::{Endpoint, Listener, Reached};
use crate::doctor::health::{ask, body, reachable, read_status};
use crate::ops::host;
use crate::stun::{Class, Encoder, HEADER_LEN, Message, Method, TransactionId};

use super::input::ConfigFlags;
use super::output::{CliError, Exit, Printer};
use super::probe::timeout;

/// When a datagram is sent again, by the part of the time that there is.
const SENDS: u32 = 4;
/// No answer to a bare Binding request is longer.
const ANSWER_BYTES_MAX: usize = 1500;

/// Say in one line whether the server of this host is well.
#[derive(Args)]
#[command(after_help = "\
It reads where the server is as the server does: the configuration file, TURNSTONE_* variables and
these flags. It asks /readyz of [metrics], or else the admin socket, or else sends a STUN Binding
request to a listener, which by itself does not say whether a server drains. It needs no secret.

Examples:
  turnstone health                  is it ready for new clients?
  turnstone health --live           does it run at all, even if it drains?

Exit codes: 0 it is well, 1 it is not, or does not answer, 2 wrong usage or configuration.")]
pub(super) struct HealthArgs {
    /// Whether it runs and makes progress: a server that drains, or has no relay address yet, is well then.
    #[arg(long)]
    live: bool,
    /// The longest that it may take, in seconds, 0.1 to 600.
    #[arg(long, default_value = "5", value_name = "SECONDS", value_parser = timeout)]
    timeout: Duration,
    /// Print the line as JSON: ok is true or false, message is text.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: ConfigFlags,
}

/// What there is to say, and whether the server is well.
type Verdict = (bool, String);

pub(super) fn run(args: &HealthArgs, printer: &mut Printer) -> Result<Exit, CliError> {
    let reading = args.flags.read(false)?;
    let reached = Reached::read(&reading.source, &reading.overrides, host::detect())?;
    let (is_well, message) = look(&reached, args.live, args.timeout)?;
    match args.json {
        true => printer.line(json!({ "ok": is_well, "message": message }))?,
        false => printer.line(format_args!("{}: {message}", if is_well { "ok" } else { "not well" }))?,
    }
    Ok(if is_well { Exit::Success } else { Exit::CheckFailed })
}

fn look(reached: &Reached, live: bool, timeout: Duration) -> Result<Verdict, CliError> {
    if let Some(endpoint) = reached.metrics.as_ref().filter(|endpoint| has_port(endpoint)) {
        return Ok(by_metrics(endpoint, live, timeout));
    }
    // A port of the admin API wants a token, which is a secret.
    if let Some(endpoint @ Endpoint::Unix(_)) = &reached.admin
        && let Some(verdict) = by_admin(endpoint, live, timeout)
    {
        return Ok(verdict);
    }
    by_listener(&reached.listeners, timeout)
}

/// A port that the kernel has chosen is not known here.
fn has_port(endpoint: &Endpoint) -> bool {
    !matches!(endpoint, Endpoint::Tcp(address) if address.port() == 0)
}

fn by_metrics(endpoint: &Endpoint, live: bool, timeout: Duration) -> Verdict {
    let path = if live { "/healthz" } else { "/readyz" };
    match ask(endpoint, path, timeout).as_deref().map(read_status) {
        Ok(Some((code, body))) => (code == 200, format!("{path} at {endpoint} says {code}: {body}")),
        Ok(None) => (false, format!("{path} at {endpoint}: the answer is not HTTP; is it another program?")),
        Err(error) => (false, format!("{path} at {endpoint} does not answer: {error}")),
    }
}

/// `None` where this user may not ask: anybody may ask a listener.
fn by_admin(endpoint: &Endpoint, live: bool, timeout: Duration) -> Option<Verdict> {
    let answer = match ask(endpoint, "/v1/status", timeout) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return None,
        Err(error) => return Some((false, format!("the admin API at {endpoint} does not answer: {error}"))),
        Ok(answer) => answer,
    };
    let Some(status) = body(&answer).and_then(|body| serde_json::from_slice::<Value>(body).ok()) else {
        return Some((false, format!("the admin API at {endpoint} answers with no status; is it another program?")));
    };
    let not_ready = status.get("not_ready").and_then(Value::as_str);
    let state = status.get("state").and_then(Value::as_str).unwrap_or("in no state");
    let is_ready = state == "serving" && not_ready.is_none();
    let lacks = not_ready.map_or(String::new(), |what| format!(", and {what}"));
    Some((live || is_ready, format!("the admin API at {endpoint} says that the server is {state}{lacks}")))
}

fn by_listener(listeners: &[Listener], timeout: Duration) -> Result<Verdict, CliError> {
    // Behind a proxy, this host may be taken for one that has forgotten its header.
    let may_ask = |each: &&Listener| each.address.port() != 0 && each.options.proxy_from.is_empty();
    let of = |transport| listeners.iter().filter(may_ask).find(|each| each.transport == transport);
    let (transport, listener) = [Transport::Udp, Transport::Tcp, Transport::Tls]
        .into_iter()
        .find_map(|transport| Some((transport, of(transport)?)))
        .ok_or_else(|| CliError::usage("no listener can be asked; set [metrics] listen or [admin] listen"))?;
    let address = reachable(listener.address);
    let asked = match transport {
        Transport::Udp => bind_udp(address, timeout).map(|()| "answers Binding requests"),
        Transport::Tcp => bind_tcp(address, timeout).map(|()| "answers Binding requests"),
        // What a client sees of its certificate is for `probe` to say.
        _ => TcpStream::connect_timeout(&address, timeout).map(|_| "takes connections"),
    };
    let name = transport.name();
    Ok(match asked {
        Ok(what) => (true, format!("{name} {address} {what}")),
        Err(error) => (false, format!("{name} {address} does not answer: {error}")),
    })
}

fn request(bytes: &mut Vec<u8>) -> std::io::Result<TransactionId> {
    let mut id = [0; 12];
    getrandom::fill(&mut id).map_err(std::io::Error::other)?;
    Encoder::new(bytes, Class::Request, Method::BINDING, TransactionId(id)).fingerprint();
    Ok(TransactionId(id))
}

fn answers(bytes: &[u8], id: TransactionId) -> bool {
    Message::parse(bytes).is_ok_and(|message| message.answers(Method::BINDING, id))
}

fn bind_udp(address: SocketAddr, timeout: Duration) -> std::io::Result<()> {
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.connect(address)?;
    let mut bytes = Vec::new();
    let id = request(&mut bytes)?;
    let deadline = Instant::now() + timeout;
    for _ in 0..SENDS {
        socket.send(&bytes)?;
        let again = Instant::now() + timeout / SENDS;
        while let Some(left) = again.min(deadline).checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
        {
            socket.set_read_timeout(Some(left))?;
            let mut answer = [0; ANSWER_BYTES_MAX];
            match socket.recv(&mut answer) {
                Ok(length) if answers(answer.get(..length).unwrap_or_default(), id) => return Ok(()),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                    break;
                }
                Err(error) => return Err(error),
            }
        }
    }
    Err(std::io::ErrorKind::TimedOut.into())
}

fn bind_tcp(address: SocketAddr, timeout: Duration) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    let mut bytes = Vec::new();
    let id = request(&mut bytes)?;
    stream.write_all(&bytes)?;
    let mut answer = vec![0; HEADER_LEN];
    stream.read_exact(&mut answer)?;
    let length = answer.get(2..4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u16::from_be_bytes);
    answer.resize(HEADER_LEN + usize::from(length).min(ANSWER_BYTES_MAX), 0);
    stream.read_exact(answer.get_mut(HEADER_LEN..).unwrap_or_default())?;
    match answers(&answer, id) {
        true => Ok(()),
        false => Err(std::io::Error::other("the answer is not that of a STUN server; is it another program?")),
    }
}
