//! `serve --dev`: listeners that are free, and what to paste into a page.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use zeroize::Zeroizing;

use crate::addr::Transport;
use crate::auth::mint;
use crate::config::{AdminToken, Config, Overrides, WaysIn};
use crate::credentials::{offered_urls, peer_connection, turn_urls};
use crate::ops::host;
use crate::ops::{Bound, PagePort};
use crate::wall_clock::unix_now;
use crate::worker::fill_from_system;

use super::dev_socket;
use super::output::{CliError, Printer, utc_text};

const PORT: u16 = 3478;
const PAGE_PORT: u16 = 9642;
const PORTS_TRIED: u16 = 100;
const TTL_SECS: u64 = 86_400;

/// Listeners on loopback and on the LAN, UDP and TCP on one free port, and relays on the LAN; nothing on IPv6 addresses
/// that the whole Internet may reach. Flags and variables go before. Returns why the usual port is not used, if it is not.
pub(super) fn set_defaults(overrides: &mut Overrides) -> Result<Option<String>, CliError> {
    let host = host::detect();
    let lan = host.ipv4.unwrap_or(Ipv4Addr::LOCALHOST);
    let mut addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
    if lan != Ipv4Addr::LOCALHOST {
        addresses.push(IpAddr::V4(lan));
    }
    if host::can_bind(IpAddr::V6(Ipv6Addr::LOCALHOST)) {
        addresses.push(IpAddr::V6(Ipv6Addr::LOCALHOST));
    }
    let mut taken = None;
    if !overrides.has("listen") {
        let mut ports = (PORT..).take(PORTS_TRIED.into());
        let port = ports.find(|port| {
            let found = addresses.iter().find_map(|ip| taken_by(SocketAddr::new(*ip, *port)));
            let is_free = found.is_none();
            taken = taken.take().or(found);
            is_free
        });
        let port = port.ok_or_else(|| {
            CliError::usage(format!("every port from {PORT} on is taken; choose one: --listen udp://127.0.0.1:PORT"))
        })?;
        let listeners = addresses.iter().flat_map(|ip| {
            let address = SocketAddr::new(*ip, port);
            [Transport::Udp, Transport::Tcp].map(|transport| format!("{transport}://{address}"))
        });
        overrides.set_default("listen", "--dev", listeners.collect());
    }
    overrides.set_default("relay.ipv4", "--dev", vec![lan.to_string()]);
    overrides.set_default("relay.ipv6", "--dev", vec!["off".to_owned()]);
    if let Some(socket) = dev_socket::make() {
        overrides.set_default("admin.listen", "--dev", vec![format!("unix:{}", socket.display())]);
    }
    Ok(taken)
}

/// A port on loopback for the page, with a token of this run. `None` where there is no port.
pub(super) fn page_port() -> Option<PagePort> {
    let address = |port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
    let mut ports = (PAGE_PORT..).take(PORTS_TRIED.into());
    let port = ports.find(|port| TcpListener::bind(address(*port)).is_ok())?;
    let mut random = [0; 16];
    fill_from_system(&mut random);
    let token = random.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    let token = AdminToken::new(Zeroizing::new(token.into_bytes())).ok()?;
    Some(PagePort { address: address(port), token })
}

/// Why a listener cannot be at an address, with the address.
fn taken_by(address: SocketAddr) -> Option<String> {
    let udp = UdpSocket::bind(address).err().map(|error| ("udp", error));
    let (transport, error) = udp.or_else(|| TcpListener::bind(address).err().map(|error| ("tcp", error)))?;
    let why = match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!("another program has it (ss -lnp 'sport = :{}' shows which)", address.port())
        }
        _ => error.to_string(),
    };
    Some(format!("not on port {}: {transport} {address}: {why}", address.port()))
}

/// What is printed when the listeners are bound.
pub(super) struct Announcement {
    config: Config,
    ttl_secs: u64,
    /// Whether the listeners are the file's: then all of them are printed.
    from_file: bool,
    /// Why the listeners are not on the usual port.
    port_taken: Option<String>,
    /// Of a page at a port of its own.
    page_token: Option<AdminToken>,
}

impl Announcement {
    pub(super) fn new(
        config: &Config,
        from_file: bool,
        port_taken: Option<String>,
        page_token: Option<AdminToken>,
    ) -> Self {
        Self {
            port_taken,
            page_token,
            config: config.clone(),
            ttl_secs: config.auth.credential_lifetime_max.map_or(TTL_SECS, |max| max.as_secs().min(TTL_SECS)),
            from_file,
        }
    }

    pub(super) fn print(&self, bound: &Bound, printer: &mut Printer) -> Result<(), CliError> {
        printer.line("turnstone is ready, for a try-out: loopback peers are allowed. Not for the Internet.")?;
        for (transport, address) in &bound.listeners {
            printer.line(format_args!("  listening on {transport} {address}"))?;
        }
        if let Some(why) = &self.port_taken {
            printer.line(format_args!("  {why}"))?;
        }
        if let Some(admin) = self.config.admin.as_ref().map(|admin| &admin.listen) {
            printer.line(format_args!("  turnstone status, sessions, top and explain see it (--admin {admin})"))?;
        }
        if let Some(page) = bound.page {
            // What follows the # stays in the browser.
            let token = self.page_token.as_ref().map(|token| String::from_utf8_lossy(token.as_bytes()));
            let fragment = token.map(|token| format!("#token={token}")).unwrap_or_default();
            printer.line(format_args!("  the page: http://{page}/{fragment}"))?;
        }
        let auth = &self.config.auth;
        let Some(secret) = auth.secrets.first() else {
            return printer
                .line("  use a static user of the configuration; it has no secret to make a credential with");
        };
        let urls = self.urls(bound);
        if urls.is_empty() {
            return printer.line(
                "  no listener leads clients into the realm of [auth]: turnstone credentials --in-realm has URLs",
            );
        }
        let expires_unix = unix_now().saturating_add(self.ttl_secs);
        let username = format!("{expires_unix}:dev");
        let password = mint(&secret.bytes, &username);
        printer.line("")?;
        printer.line(format_args!(
            "For a page; it uses nothing but the relay, and its credential is good until {}:",
            utc_text(expires_unix)
        ))?;
        printer.line("")?;
        printer.line(peer_connection(&urls, &username, &password))?;
        printer.line("")?;
        printer.line("Ctrl-C stops the server.")
    }

    /// Those of the realm of `[auth]`, whose secret makes the credential. Of the listeners made up here only some are worth it.
    fn urls(&self, bound: &Bound) -> Vec<String> {
        let Config { relay, auth, .. } = &self.config;
        match self.from_file {
            true => offered_urls(&WaysIn::new(&self.config), &bound.listeners, None),
            false => turn_urls(worth_printing(&bound.listeners), relay, auth.public_host.as_deref()),
        }
    }
}

/// Few URLs serve a browser better than many: those on the LAN, or else on 127.0.0.1.
fn worth_printing(listeners: &[(Transport, SocketAddr)]) -> Vec<(Transport, SocketAddr)> {
    let is_lan = |address: &SocketAddr| address.is_ipv4() && !address.ip().is_loopback();
    let has_lan = listeners.iter().any(|(_, address)| is_lan(address));
    let keep = |address: &SocketAddr| if has_lan { is_lan(address) } else { address.is_ipv4() };
    let kept: Vec<_> = listeners.iter().copied().filter(|(_, address)| keep(address)).collect();
    if kept.is_empty() { listeners.to_vec() } else { kept }
}
