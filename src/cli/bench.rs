//! `turnstone bench`: load on a server, and what it costs.

use std::io::{IsTerminal, Write};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::addr::Transport;
use crate::bench::{self, BenchError, Mode, Options, Progress, Roots, Trust};

use super::login::Login;
use super::output::{CliError, Exit, Printer};

const EXAMPLES: &str = "\
Examples:
  turnstone bench client-to-peer 127.0.0.1 --secret-file secret --server-pid $(pidof turnstone)
  turnstone bench round-trip turn.example.org --transport tls -u alice --password-env PW -r 2000
  turnstone bench hold 127.0.0.1 --clients 10000 --secret-file secret --server-pid 4711 --json

The clients are one user of one network, which a server does not let take all it has. A server under
test wants
  [limits] unauthenticated-replies-per-second = \"unlimited\"
  [quota] allocations-per-user = \"unlimited\", allocations-per-user-per-second = \"unlimited\"
and, with everything on one machine, --dev, which allows peers on loopback.

Exit code 1 when nothing arrived, 3 when the server refused what the measurement needs.";

/// Put load on a TURN server, and report what arrives, how late and at what cost.
///
/// The clients and their peers are all in this process, and check every packet.
#[derive(Args)]
#[command(after_help = EXAMPLES, args_override_self = true)]
pub(super) struct BenchArgs {
    /// What the clients and peers do.
    #[arg(value_enum, required_unless_present = "forwarder")]
    mode: Option<ModeArg>,
    /// The server: host or host:port (default port 3478, with TLS 5349).
    #[arg(required_unless_present = "forwarder")]
    server: Option<String>,
    /// How clients reach the server.
    #[arg(long, value_enum, default_value = "udp")]
    transport: TransportArg,
    #[command(flatten)]
    login: Login,
    /// PEM file with the certificate authorities that the server's certificate is judged by.
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    ca: Option<PathBuf>,
    /// Accept any server certificate.
    #[arg(long)]
    insecure: bool,
    /// Name in the server's certificate, when it is not the host.
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// Clients, each with its own connection and allocation.
    #[arg(long, short, default_value_t = 50)]
    clients: u32,
    /// Bytes of payload in a packet.
    #[arg(long, short, default_value_t = 160)]
    size: usize,
    /// Packets that one client sends, or is sent, back to back.
    #[arg(long, short, default_value_t = 1)]
    burst: u32,
    /// Send a burst as one segmented datagram (UDP GSO), so that it arrives coalesced where the server can take it so.
    #[arg(long)]
    gso: bool,
    /// Receive coalesced packets (UDP GRO) as clients and peers.
    #[arg(long)]
    gro: bool,
    /// Packets in flight at most, over all clients.
    #[arg(long, short, default_value_t = 128)]
    window: u32,
    /// Packets per second over all clients, whatever comes back, instead of a window.
    #[arg(long, short, value_name = "PER_SECOND")]
    rate: Option<u64>,
    /// Measured time in seconds.
    #[arg(long, short, default_value = "5", value_parser = seconds)]
    duration: Duration,
    /// Time under load before that, in seconds.
    #[arg(long, default_value = "1", value_parser = seconds)]
    warm_up: Duration,
    /// Send and Data indications instead of a channel.
    #[arg(long)]
    indications: bool,
    /// Peer sockets, which the clients share.
    #[arg(long, default_value_t = 1)]
    peers: u32,
    /// Address of the peers, when it is not the one from which this machine reaches the server.
    #[arg(long, value_name = "IP")]
    peer_ip: Option<IpAddr>,
    /// Address of the clients.
    #[arg(long, value_name = "IP")]
    client_ip: Option<IpAddr>,
    /// Process id of the server on this machine, for its CPU time and memory.
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
    /// Sleep while nothing arrives; the server then pays for waking this process, and latencies have its wake-ups in them.
    #[arg(long)]
    sleep: bool,
    /// How to print the result.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// The same as --format json.
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Be a plain forwarder on this loopback address, the floor that servers are compared with.
    #[arg(long, hide = true, value_name = "ADDR")]
    forwarder: Option<SocketAddr>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ModeArg {
    /// Clients send, peers receive.
    ClientToPeer,
    /// Peers send, clients receive.
    PeerToClient,
    /// Clients send, peers return it.
    RoundTrip,
    /// Clients send to each other's relayed addresses, in pairs.
    RelayToRelay,
    /// Make and end allocations: 401, Allocate, Refresh 0.
    Allocate,
    /// Keep allocations idle, then end them.
    Hold,
    /// Binding requests.
    Stun,
    /// Allocate requests without credentials.
    Flood,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum TransportArg {
    Udp,
    Tcp,
    Tls,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// Runs the command.
pub(super) fn run(args: &BenchArgs, printer: &mut Printer) -> Result<Exit, CliError> {
    let failed = |e: BenchError| match e {
        BenchError::Options(error) => CliError::usage(error),
        e => CliError::Failed(Exit::RunTime, format!("error: {e}")),
    };
    if let Some(listen) = args.forwarder {
        bench::forward(listen, |addr| {
            // A closed standard output does not stop it.
            let _ = printer.line(format_args!("forwarding on {addr}"));
        })
        .map_err(failed)?;
    }
    let options = options(args)?;
    let show = std::io::stderr().is_terminal();
    let erase = || {
        if show {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    };
    let report = bench::run(&options, &mut |progress: &Progress| {
        erase();
        if show {
            let _ = write!(std::io::stderr(), "{progress}");
        }
    });
    erase();
    let report = report.map_err(failed)?;
    match if args.json { Format::Json } else { args.format } {
        Format::Table => printer.print(&report.to_string())?,
        Format::Json => printer.line(crate::text::json_pretty(&report))?,
    }
    match report.failure() {
        Some(failure) => Err(CliError::Failed(Exit::CheckFailed, format!("error: {failure}"))),
        None => Ok(Exit::Success),
    }
}

fn options(args: &BenchArgs) -> Result<Options, CliError> {
    let (Some(mode), Some(server)) = (args.mode, &args.server) else {
        return Err(CliError::usage("a mode and a server are needed"));
    };
    let transport = match args.transport {
        TransportArg::Udp => Transport::Udp,
        TransportArg::Tcp => Transport::Tcp,
        TransportArg::Tls => Transport::Tls,
    };
    let (host, addr) = resolve(server, if transport.is_encrypted() { 5349 } else { 3478 })?;
    Ok(Options {
        mode: match mode {
            ModeArg::ClientToPeer => Mode::ClientToPeer,
            ModeArg::PeerToClient => Mode::PeerToClient,
            ModeArg::RoundTrip => Mode::RoundTrip,
            ModeArg::RelayToRelay => Mode::RelayToRelay,
            ModeArg::Allocate => Mode::Allocate,
            ModeArg::Hold => Mode::Hold,
            ModeArg::Stun => Mode::Stun,
            ModeArg::Flood => Mode::Flood,
        },
        server: addr,
        server_name: args.server_name.clone().unwrap_or(host),
        transport,
        credential: args.login.credential()?,
        trust: match (&args.ca, args.insecure) {
            (Some(path), _) => Trust::Authorities(Roots::File(path.clone())),
            (None, true) => Trust::Nothing,
            (None, false) => Trust::Authorities(Roots::System),
        },
        clients: args.clients,
        size: args.size,
        burst: args.burst,
        gso: args.gso,
        gro: args.gro,
        window: args.window,
        rate: args.rate,
        duration: args.duration,
        warm_up: args.warm_up,
        indications: args.indications,
        peers: args.peers,
        peer_ip: args.peer_ip,
        client_ip: args.client_ip,
        server_pid: args.server_pid,
        spin: !args.sleep,
    })
}

/// The host as written, and the first address of it.
fn resolve(server: &str, default_port: u16) -> Result<(String, SocketAddr), CliError> {
    if let Ok(ip) = server.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        return Ok((ip.to_string(), SocketAddr::new(ip, default_port)));
    }
    let (host, port) = match server.rsplit_once(':') {
        Some((host, port)) => {
            (host, port.parse().map_err(|_| CliError::usage(format_args!("{server}: {port} is not a port")))?)
        }
        None => (server, default_port),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let mut addrs = (host, port).to_socket_addrs().map_err(|error| CliError::usage(format_args!("{host}: {error}")))?;
    let addr = addrs.next().ok_or_else(|| CliError::usage(format_args!("{host} has no address")))?;
    Ok((host.to_owned(), addr))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let secs: f64 = text.parse().map_err(|_| format!("{text} is not a number of seconds"))?;
    Duration::try_from_secs_f64(secs).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_named_in_every_usual_form() {
        let addr = |text: &str| {
            resolve(text, 3478).map(|(host, addr)| (host, addr.to_string())).map_err(|error| error.to_string())
        };
        let ok = |host: &str, addr: &str| Ok((host.to_owned(), addr.to_owned()));
        assert_eq!(addr("127.0.0.1"), ok("127.0.0.1", "127.0.0.1:3478"));
        assert_eq!(addr("127.0.0.1:99"), ok("127.0.0.1", "127.0.0.1:99"));
        assert_eq!(addr("::1"), ok("::1", "[::1]:3478"));
        assert_eq!(addr("[::1]"), ok("::1", "[::1]:3478"));
        assert_eq!(addr("[::1]:99"), ok("::1", "[::1]:99"));
        assert!(addr("127.0.0.1:port").unwrap_err().contains("not a port"));
    }
}
