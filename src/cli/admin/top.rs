//! `turnstone top`: what the server does at this moment, as the difference of two looks at it.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt::Write;
use std::io::{IsTerminal, Read, stdin, stdout};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::clock::span;
use crate::config::parse_duration;
use crate::reject::Reason;
use crate::traffic::Traffic;
use crate::wall_clock::unix_now;

use super::super::output::{CliError, Exit, Printer, printable, utc_text};
use super::answers::{Status, UserList, UserTotal, print_json, read};
use super::client::{Call, Client, runtime};
use super::status;
use super::text::{Table, bit_rate, bytes, count, cut, rate, with_realm};
use super::whereabouts::AdminFlags;

const INTERVAL_MIN: Duration = Duration::from_millis(200);
const INTERVAL_MAX: Duration = Duration::from_secs(3600);
/// Users that are looked at; as many as the API tells at once.
const USERS_MAX: u64 = 1000;
/// Users that are shown without a terminal.
const USERS_SHOWN: usize = 20;
/// Reasons of refusals that are named.
const REASONS_SHOWN: usize = 4;

/// Show live what the running server and its users do.
#[derive(Args)]
#[command(after_help = "Examples:
  turnstone top --sort packets
  turnstone top --once --interval 10s

q or Ctrl-C ends it. Without a terminal, or with --once or --json, it prints what happens within one interval.")]
pub(in crate::cli) struct TopArgs {
    /// How often to look, 200ms to 1h.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = interval)]
    interval: Duration,

    /// What to order the users by: bits or packets per second, bytes or sessions in total, or the name.
    #[arg(long, value_enum, default_value = "bits")]
    sort: Sort,

    /// Print once, after one interval.
    #[arg(long)]
    once: bool,

    /// Print once, after one interval, as an object; rates are per second.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    server: AdminFlags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Sort {
    Bits,
    Packets,
    Bytes,
    Sessions,
    User,
}

/// `turnstone top`
pub(in crate::cli) fn top(args: &TopArgs, printer: &mut Printer) -> Result<Exit, CliError> {
    let client = args.server.client()?;
    let runtime = runtime()?;
    if args.once || args.json || !stdout().is_terminal() {
        let (before, now) = runtime.block_on(async {
            let before = Look::take(&client, args.sort).await?;
            sleep(args.interval).await;
            Ok::<_, CliError>((before, Look::take(&client, args.sort).await?))
        })?;
        if args.json {
            print_json(&figures(&before, &now, args.sort), printer)?;
            return Ok(Exit::Success);
        }
        let lines = screen(Some(&before), &now, args.sort, USERS_SHOWN);
        printer.print(&lines.iter().fold(String::new(), |text, line| text + line + "\n"))?;
        return Ok(Exit::Success);
    }
    let terminal = Terminal::enter();
    let result = runtime.block_on(watch(&client, args, printer));
    drop(terminal);
    // A thread that waits for a key must not be waited for.
    runtime.shutdown_background();
    // The cursor comes back also where the screen is left on an error.
    printer.print("\x1b[?25h\n")?;
    result.map(|()| Exit::Success)
}

async fn watch(client: &Client, args: &TopArgs, printer: &mut Printer) -> Result<(), CliError> {
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    let mut keys = keys();
    let ended = async {
        tokio::select! {
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
            () = quit(&mut keys) => {}
        }
    };
    tokio::pin!(ended);
    printer.print("\x1b[?25l\x1b[2J")?;
    let mut before: Option<Look> = None;
    loop {
        let now = tokio::select! {
            look = Look::take(client, args.sort) => look?,
            () = &mut ended => return Ok(()),
        };
        let (columns, rows) = size();
        let lines = screen(before.as_ref(), &now, args.sort, rows);
        printer.print(&drawn(&lines, columns, rows, printer.shows_colours()))?;
        before = Some(now);
        tokio::select! {
            () = sleep(args.interval) => {}
            () = &mut ended => return Ok(()),
        }
    }
}

/// What the server says at one moment.
struct Look {
    at: Instant,
    at_unix: u64,
    status: Status,
    users: UserList,
}

impl Look {
    async fn take(client: &Client, sort: Sort) -> Result<Self, CliError> {
        let sort = match sort {
            Sort::Packets => "packets",
            Sort::Sessions => "sessions",
            Sort::Bits | Sort::Bytes | Sort::User => "bytes",
        };
        let limit = USERS_MAX.to_string();
        let users = Call::get("/v1/users").query("sort", Some(sort)).query("limit", Some(&limit));
        let users = read(client.call(users).await?)?;
        let status = read(client.call(Call::get("/v1/status")).await?)?;
        Ok(Self { at: Instant::now(), at_unix: unix_now(), status, users })
    }
}

/// What happened between two looks, for programs.
fn figures(before: &Look, now: &Look, sort: Sort) -> Value {
    let secs = now.at.duration_since(before.at).as_secs_f64();
    // Another run of the server counts from zero.
    let before = Some(before).filter(|before| before.status.instance == now.status.instance);
    let rate =
        |was: u64, is: u64| if before.is_some() && secs > 0.0 { is.saturating_sub(was) as f64 / secs } else { 0.0 };
    let status = &now.status;
    let direction = |of: fn(&Status) -> Traffic| {
        let (was, is) = (before.map_or(of(status), |before| of(&before.status)), of(status));
        json!({ "packets": rate(was.packets, is.packets), "bits": rate(was.bytes, is.bytes) * 8.0 })
    };
    let refused = status.refused.iter().map(|(reason, is)| {
        let was = before.and_then(|before| before.status.refused.get(reason)).copied().unwrap_or(0);
        (reason.clone(), rate(was, *is).into())
    });
    let mut users = users(before, now, &rate);
    users.sort_by(|one, other| sort.compare(one, other));
    let users = users.iter().map(|user| {
        json!({
            "user": user.total.user,
            "realm": user.total.realm,
            "sessions": user.total.sessions,
            "to_peers_bits": user.to_peers * 8.0,
            "to_clients_bits": user.to_clients * 8.0,
            "packets": user.packets,
            "total_bytes": user.total_bytes(),
        })
    });
    json!({
        "seconds": secs,
        "allocations": status.allocations,
        "to_peers": direction(|status| status.traffic.to_peers),
        "to_clients": direction(|status| status.traffic.to_clients),
        "refused": refused.collect::<serde_json::Map<_, _>>(),
        "users": users.collect::<Vec<_>>(),
        "total_users": now.users.total_users,
    })
}

/// The lines of the screen, with so many of users at most.
fn screen(before: Option<&Look>, now: &Look, sort: Sort, users_max: usize) -> Vec<String> {
    // Another run of the server counts from zero.
    let before = before.filter(|before| before.status.instance == now.status.instance);
    let secs = before.map_or(0.0, |before| now.at.duration_since(before.at).as_secs_f64());
    let per_sec = |before: u64, now: u64| if secs > 0.0 { now.saturating_sub(before) as f64 / secs } else { 0.0 };
    let status = &now.status;
    let mut lines = vec![
        format!(
            "turnstone {}  {}  up {}  {}",
            printable(&status.version),
            status::state(status, now.at_unix),
            span(status.uptime_secs),
            utc_text(now.at_unix)
        ),
        format!(
            "{}, {}, {}{}",
            count(status.allocations, "allocation"),
            count(now.users.total_users, "user"),
            count(status.connections, "connection"),
            status.ports.iter().fold(String::new(), |text, (family, ports)| {
                format!("{text}, {} relay ports {} of {}", printable(family), ports.used, ports.total)
            })
        ),
    ];
    let mut direction = |name: &str, of: fn(&Status) -> Traffic| {
        let (was, is) = (before.map_or(of(status), |before| of(&before.status)), of(status));
        let (packets, bits) = (per_sec(was.packets, is.packets), bit_rate(per_sec(was.bytes, is.bytes)));
        lines.push(format!("{name}  {bits}, {packets:.0} packets/s"));
    };
    direction("to peers  ", |status| status.traffic.to_peers);
    direction("to clients", |status| status.traffic.to_clients);
    lines.push(refusals(before, now, &per_sec));
    lines.push(String::new());
    let mut users = users(before, now, &per_sec);
    users.sort_by(|one, other| sort.compare(one, other));
    let mut table = Table::new(&["USER", ">SESSIONS", ">TO PEERS", ">TO CLIENTS", ">PACKETS", ">TOTAL"]);
    for user in users.iter().take(users_max) {
        table.row([
            with_realm(&user.total.user, user.total.realm.as_deref()),
            user.total.sessions.to_string(),
            bit_rate(user.to_peers),
            bit_rate(user.to_clients),
            rate(user.packets),
            bytes(user.total_bytes()),
        ]);
    }
    lines.extend(table.to_string().lines().map(str::to_owned));
    if now.users.total_users > USERS_MAX {
        lines.push(format!("of {} users, those with the most are looked at", now.users.total_users));
    }
    lines
}

/// How many requests are refused, and for what.
fn refusals(before: Option<&Look>, now: &Look, per_sec: &impl Fn(u64, u64) -> f64) -> String {
    // Every client's first request is answered so; it is no fault.
    let is_challenge = |reason: &str| reason == Reason::MissingIntegrity.label();
    let was =
        |reason: &str, is: u64| before.map_or(is, |before| before.status.refused.get(reason).copied().unwrap_or(0));
    let mut rates: Vec<_> = now
        .status
        .refused
        .iter()
        .filter(|(reason, _)| !is_challenge(reason))
        .map(|(reason, is)| (reason, per_sec(was(reason, *is), *is)))
        .filter(|(_, rate)| *rate > 0.0)
        .collect();
    rates.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    let total = rates.iter().fold(0.0, |total, (_, rate)| total + rate);
    let mut line = format!("refusals    {}", rate(total));
    for (index, (reason, per_sec)) in rates.iter().take(REASONS_SHOWN).enumerate() {
        let start = if index == 0 { ": " } else { ", " };
        let _ = write!(line, "{start}{} {}", printable(reason), rate(*per_sec));
    }
    line
}

/// A user's rates: bytes and packets per second.
struct UserRates<'l> {
    total: &'l UserTotal,
    to_peers: f64,
    to_clients: f64,
    packets: f64,
}

impl UserRates<'_> {
    fn total_bytes(&self) -> u64 {
        self.total.to_peers.bytes.saturating_add(self.total.to_client.bytes)
    }
}

fn users<'l>(before: Option<&Look>, now: &'l Look, per_sec: &impl Fn(u64, u64) -> f64) -> Vec<UserRates<'l>> {
    // Of more users than the API tells of, one that is missing need not be new.
    let knew_all = before.is_some_and(|before| before.users.total_users as usize <= before.users.users.len());
    let before: HashMap<_, &UserTotal> = before
        .into_iter()
        .flat_map(|before| &before.users.users)
        .map(|total| ((&total.realm, &total.user), total))
        .collect();
    let rates = now.users.users.iter().map(|total| {
        // Who is new has sent all of it since; the totals of a user whose sessions ended may have fallen.
        let was = match before.get(&(&total.realm, &total.user)) {
            Some(was) => (was.to_peers, was.to_client),
            None if knew_all => Default::default(),
            None => (total.to_peers, total.to_client),
        };
        let is = (total.to_peers, total.to_client);
        UserRates {
            total,
            to_peers: per_sec(was.0.bytes, is.0.bytes),
            to_clients: per_sec(was.1.bytes, is.1.bytes),
            packets: per_sec(was.0.packets, is.0.packets) + per_sec(was.1.packets, is.1.packets),
        }
    });
    rates.collect()
}

impl Sort {
    /// The greatest first; by name, the first.
    fn compare(self, one: &UserRates<'_>, other: &UserRates<'_>) -> Ordering {
        let figure = |rates: &UserRates<'_>| match self {
            Self::Bits => rates.to_peers + rates.to_clients,
            Self::Packets => rates.packets,
            Self::Bytes => rates.total_bytes() as f64,
            Self::Sessions => rates.total.sessions as f64,
            Self::User => 0.0,
        };
        let by_total =
            || if self == Self::User { Ordering::Equal } else { other.total_bytes().cmp(&one.total_bytes()) };
        let by_name = || one.total.user.cmp(&other.total.user);
        figure(other).total_cmp(&figure(one)).then_with(by_total).then_with(by_name)
    }
}

/// The lines at the top of the screen, and nothing else on it.
fn drawn(lines: &[String], columns: usize, rows: usize, colours: bool) -> String {
    let mut lines: Vec<_> = lines.iter().take(rows).map(|line| cut(line, columns)).collect();
    // The server's own line, and the head of the table.
    let head = lines.iter().position(String::is_empty).map(|blank| blank + 1);
    for index in [Some(0), head].into_iter().flatten().filter(|_| colours) {
        if let Some(line) = lines.get_mut(index) {
            *line = format!("\x1b[1m{line}\x1b[0m");
        }
    }
    format!("\x1b[H{}\x1b[K\x1b[J", lines.join("\x1b[K\r\n"))
}

/// Columns and rows of the terminal.
fn size() -> (usize, usize) {
    match tcgetwinsize(stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => (80, 24),
    }
}

/// Keys come at once and are not shown, until this is dropped.
struct Terminal(Option<Termios>);

impl Terminal {
    fn enter() -> Self {
        let Some(before) = stdin().is_terminal().then(|| tcgetattr(stdin()).ok()).flatten() else { return Self(None) };
        let mut modes = before.clone();
        modes.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        Self(tcsetattr(stdin(), OptionalActions::Now, &modes).is_ok().then_some(before))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(stdin(), OptionalActions::Now, before);
        }
    }
}

/// The keys that are pressed; none where standard input is no terminal.
fn keys() -> mpsc::Receiver<u8> {
    let (send, keys) = mpsc::channel(16);
    if stdin().is_terminal() {
        std::thread::spawn(move || {
            for key in stdin().lock().bytes().map_while(Result::ok) {
                if send.blocking_send(key).is_err() {
                    break;
                }
            }
        });
    }
    keys
}

async fn quit(keys: &mut mpsc::Receiver<u8>) {
    while let Some(key) = keys.recv().await {
        if matches!(key, b'q' | b'Q') {
            return;
        }
    }
    std::future::pending().await
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text).map_err(|problem| problem.to_string())?;
    match (INTERVAL_MIN..=INTERVAL_MAX).contains(&interval) {
        true => Ok(interval),
        false => Err("not from 200ms to 1h".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(at: Instant, instance: &str, traffic: Value, refused: Value, users: Value) -> Look {
        let status = json!({
            "version": "0.1.0", "instance": instance, "pid": 1, "started_unix": 0, "uptime_secs": 7200, "state": "serving",
            "drain": null, "config_generation": 1, "config_file": null, "workers": 1, "listeners": [], "allocations": 3,
            "allocations_by_transport": {}, "ports": {}, "traffic": traffic, "refused": refused, "dropped": {},
            "connections": 0, "certificate_not_after_unix": null, "log_level": "info"
        });
        let users = json!({ "total_users": 2, "users": users });
        Look { at, at_unix: 0, status: read(status).unwrap(), users: read(users).unwrap() }
    }

    fn of(packets: u64, bytes: u64) -> Value {
        json!({ "packets": packets, "bytes": bytes })
    }

    fn user(name: &str, to_peers: Value, to_client: Value) -> Value {
        json!({ "user": name, "sessions": 1, "to_peers": to_peers, "to_client": to_client })
    }

    #[test]
    fn rates_are_the_difference_of_two_looks_by_the_time_between_them() {
        let start = Instant::now();
        let traffic =
            |to_peers, to_clients| json!({ "to_peers": to_peers, "to_clients": to_clients, "own_relayed": of(0, 0) });
        let before = look(
            start,
            "a",
            traffic(of(1000, 5000), of(10, 100)),
            json!({ "wrong-password": 4, "missing-integrity": 100 }),
            json!([user("alice", of(1000, 5000), of(0, 0)), user("bob", of(5, 900), of(0, 0))]),
        );
        let now = look(
            start + Duration::from_secs(2),
            "a",
            traffic(of(1200, 255_000), of(10, 100)),
            json!({ "wrong-password": 8, "no-port": 30, "missing-integrity": 900 }),
            json!([
                user("alice", of(1200, 255_000), of(8, 100)),
                user("bob", of(1, 100), of(0, 0)),
                user("new", of(4, 250), of(0, 0))
            ]),
        );
        let lines = screen(Some(&before), &now, Sort::Bits, 10);
        assert_eq!(lines[2], "to peers    1.0 Mbit/s, 100 packets/s");
        assert_eq!(lines[3], "to clients  0 bit/s, 0 packets/s");
        assert_eq!(lines[4], "refusals    17/s: no-port 15/s, wrong-password 2.0/s");
        let cells =
            |line: &str| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect::<Vec<_>>().join("|");
        let rows: Vec<_> = lines[7..].iter().map(|line| cells(line)).collect();
        // One of bob's sessions ended, which is no traffic.
        let wanted = [
            "alice|1|1.0 Mbit/s|400 bit/s|104/s|255 kB",
            "new|1|1.0 kbit/s|0 bit/s|2.0/s|250 B",
            "bob|1|0 bit/s|0 bit/s|0/s|100 B",
        ];
        assert_eq!(rows, wanted);
        let by_name = screen(Some(&before), &now, Sort::User, 2);
        assert_eq!(by_name.len(), 9);
        assert!(by_name[7].starts_with("alice") && by_name[8].starts_with("bob"), "{by_name:?}");
        // Another run of the server, and the first look at it, have no rates.
        let restarted =
            Look { status: look(start, "b", traffic(of(1, 1), of(1, 1)), json!({}), json!([])).status, ..before };
        for before in [None, Some(&restarted)] {
            assert_eq!(
                screen(before, &now, Sort::Bits, 10)[2..5],
                ["to peers    0 bit/s, 0 packets/s", "to clients  0 bit/s, 0 packets/s", "refusals    0/s"]
            );
        }
    }

    #[test]
    fn a_picture_covers_the_whole_screen_and_no_more() {
        let lines: Vec<_> = ["12345", "1", "2", "3"].map(str::to_owned).into();
        assert_eq!(drawn(&lines, 4, 3, false), "\x1b[H123…\x1b[K\r\n1\x1b[K\r\n2\x1b[K\x1b[J");
        let lines: Vec<_> = ["one", "", "HEAD", "x"].map(str::to_owned).into();
        let shown = drawn(&lines, 80, 24, true);
        assert_eq!(shown.matches("\x1b[1m").count(), 2, "{shown:?}");
        assert!(shown.contains("\x1b[1mone\x1b[0m") && shown.contains("\x1b[1mHEAD\x1b[0m"), "{shown:?}");
    }
}
