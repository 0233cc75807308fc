//! Keeps the shape that ARCHITECTURE.md promises: who may use whom, where `unsafe` is, how long a module gets.

// A helper that cannot do its work must fail the test that called it; clippy counts only `#[test]` functions as tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod graph;
mod source;
mod transports;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use graph::{Circle, Graph, circles};
use source::{Source, files_below, in_rows, product_code, room, root, sources, without_tests};

/// Vocabulary that every module may use.
const SHARED: &[&str] = &["addr", "clock", "policy_name", "reject", "text", "traffic", "user"];

/// A module, what it may use besides [`SHARED`] (a module, or one path below it), and the words that would mean it touches
/// what is not its own.
///
/// What crates may use of each other stands in their `Cargo.toml`, too; rows are about the modules inside `crates/turn`, and
/// about words.
const RULES: &[(&str, &[&str], &[&str])] = &[
    ("addr", &[], &[]),
    ("clock", &[], &["std::time"]),
    ("policy_name", &[], &[]),
    ("reject", &["stun"], &[]),
    ("text", &[], &["std::time", "std::fs", "std::io", "tokio", "libc", "tracing"]),
    ("traffic", &[], &["std::time", "std::fs", "std::io", "tokio", "libc", "tracing"]),
    ("user", &[], &["std::time", "std::fs", "std::io", "tokio", "libc", "tracing"]),
    ("stun", &[], &["std::time", "std::fs", "std::io", "std::sync", "tokio", "libc", "socket2", "tracing"]),
    (
        "turn",
        &["stun", "auth", "policy"],
        &["std::time", "std::fs", "Mutex", "RwLock", "UdpSocket", "TcpStream", "tokio", "libc", "socket2", "rustls"],
    ),
    ("auth", &["stun", "policy"], &["UdpSocket", "TcpStream", "tokio", "libc", "socket2"]),
    ("policy", &[], &["UdpSocket", "TcpStream", "tokio", "libc", "socket2"]),
    ("net", &[], &["rustls", "tracing"]),
    // It judges servers from outside: it shares the wire format with ours, and none of its fast paths.
    ("client", &["stun"], &["tokio", "libc"]),
    // It reads bytes; who sends them and what becomes of it is others'.
    ("proxy", &["turn"], &["std::io", "tokio", "libc", "tracing"]),
    (
        "stream",
        &[
            "stun",
            "turn",
            "net",
            "proxy",
            "config::ListenOptions",
            "config::SecretError",
            "config::Streams",
            "config::TlsFiles",
            "config::TlsVersion",
            "config::Wanted",
            "config::Web",
            "config::why",
            "regular_file",
        ],
        &["tokio"],
    ),
    (
        "worker",
        &[
            "stun",
            "turn",
            "net",
            "proxy",
            "dtls",
            "stream",
            "policy",
            "counters",
            "config::ListenOptions",
            "config::RelayChoice",
            "config::Streams",
            "hook::EventSender",
            "hook::HookSender",
            "store::leases",
            "usage::UsageSender",
        ],
        &["std::fs", "tokio", "RwLock"],
    ),
    // What strangers send is read without sockets and without a clock; of OpenSSL, one file knows.
    (
        "dtls",
        &[
            "config::TlsFiles",
            "regular_file",
            "stream::CHAIN_BYTES_MAX",
            "stream::CertificateChoice",
            "stream::TlsError",
        ],
        &["std::time", "std::net", "tokio", "libc", "tracing"],
    ),
    ("counters", &["turn"], &["std::fs", "tokio", "RwLock"]),
    ("config", &["auth", "policy", "regular_file", "turn", "wall_clock"], &["TcpStream", "tokio", "libc"]),
    // It writes what `config` reads: of that, what judges and spells values.
    (
        "import",
        &[
            "auth",
            "policy",
            "config::check_secret",
            "config::duration_text",
            "config::edits",
            "config::network_of",
            "config::parse_host",
            "config::parse_realm",
            "config::quoted",
            "config::rate_text",
        ],
        &["std::fs", "TcpStream", "tokio", "libc"],
    ),
    // No worker waits for an application.
    (
        "hook",
        &[
            "turn",
            "auth::KnownCredential",
            "auth::StoredKeys",
            "auth::UsernameLimits",
            "net::sys",
            "client::io_words",
            "client::unix_words",
            "policy::AnswerBudgets",
            "policy::RateLimit",
            "policy::RateLimiter",
            "config::Hook",
            "config::HookEvent",
            "config::HookEvents",
            "config::HookUrl",
            "config::WebhookToken",
            "usage::Session",
            "usage::server_start_line",
            "http::Allowance",
            "http::Bounded",
            "state_file",
        ],
        &["libc", "UdpSocket"],
    ),
    // No worker waits for the store.
    (
        "store",
        &[
            "turn::Answer",
            "turn::AskId",
            "policy::QuotaLimits",
            "policy::Quotas",
            "policy::Reservation",
            "policy::Share",
            "policy::WithoutShare",
            "regular_file",
            "net::sys",
            "auth::IssuedBefore",
            "auth::KnownCredential",
            "auth::Revocation",
            "auth::Revoked",
            "auth::SharedSecret",
            "auth::StoredKeys",
            "client::tls",
            "config::HostPort",
            "config::RevocationError",
            "config::SecretError",
            "config::StoreConfig",
            "config::StoreLayout",
            "config::StorePassword",
            "config::StorePlace",
            "config::StoredSecrets",
            "config::WrittenRevocation",
            "config::check_secret",
            "hook::read_answer",
            "http::Allowance",
            "http::Bounded",
            "wall_clock",
        ],
        &["libc", "UdpSocket"],
    ),
    // Its threads are its own: no packet waits for a disk or a webhook.
    (
        "usage",
        &[
            "turn",
            "auth::UsernameLimits",
            "config::Unusable",
            "config::Usage",
            "config::UsageFile",
            "config::Wanted",
            "config::Webhook",
            "config::WebhookToken",
            "config::WebhookUrl",
        ],
        &["tokio", "libc", "TcpStream", "UdpSocket"],
    ),
    // The load generator judges the server from outside: it shares the wire format with it, and none of its fast paths.
    ("bench", &["stun", "client", "net::sys"], &["tokio", "libc"]),
    // It judges servers from outside, too, with the load generator's client.
    (
        "probe",
        &["stun", "auth::TimeLimited", "auth::prepare", "client", "dtls", "turn::framing", "net::sys", "wall_clock"],
        &["tokio", "std::fs"],
    ),
    // It looks at the host, and at the server from outside.
    (
        "doctor",
        &[
            "config",
            "acme::record_of",
            "credentials::written_urls",
            "probe",
            "store::ProbeError",
            "store::Probed",
            "store::Wanted",
            "store::probe",
            "store::host_name",
            "fleet::Heard",
            "fleet::ProbeFailure",
            "fleet::Probed",
            "fleet::NodeReport",
            "fleet::probe",
            "hook::HookError",
            "hook::Probed",
            "hook::probe",
            "net",
            "auth",
            "client",
            "turn::AlternateServer",
            "turn::server_names",
            "public_address",
            "wall_clock",
        ],
        &["tokio", "libc"],
    ),
    // Endpoints for programs: what is asked and answered there is others'.
    (
        "http",
        &["net::bind_endpoint", "net::connect_unix", "config::Acme", "config::CredentialsApi", "config::Endpoint"],
        &["libc", "tracing"],
    ),
    // It hands credentials out, and has no part in what is done with them: no worker, no core.
    (
        "credentials",
        &[
            "http",
            "page",
            "auth",
            "net::sys",
            "policy::AnswerBudgets",
            "policy::PolicyName",
            "policy::RateLimit",
            "policy::RateLimiter",
            "config::ApiKey",
            "config::Config",
            "config::CredentialsApi",
            "config::Origin",
            "config::Listener",
            "config::RealmConfig",
            "config::Relay",
            "config::WaysIn",
            "config::Shape",
            "config::revocation_of",
            "config::revocation_of_user",
            "user",
        ],
        &["std::fs", "libc", "TcpStream", "UdpSocket"],
    ),
    // It asks others, and knows nothing of what is done with the answer.
    (
        "public_address",
        &[
            "stun",
            "config::AddressSource",
            "config::Cloud",
            "config::Finding",
            "config::FoundBy",
            "config::StunServer",
            "config::is_public",
        ],
        &["std::fs", "libc", "tracing"],
    ),
    // It asks other nodes, and knows nothing of what is done with the answer.
    (
        "fleet",
        &[
            "http::Allowance",
            "http::Bounded",
            "regular_file",
            "state_file",
            "client::tls",
            "client::io_words",
            "client::unix_words",
            "config::AdminToken",
            "config::FleetConfig",
            "config::NodeSource",
            "config::NodeUrl",
            "config::SrvName",
            "wall_clock",
        ],
        &["libc", "tracing"],
    ),
    // It talks to an authority, and has no way to a worker: what it shows is a table in `stream`.
    (
        "acme",
        &[
            "http",
            "regular_file",
            "state_file",
            "client::tls",
            "net::sys",
            "policy::RateLimit",
            "policy::RateLimiter",
            "config::Acme",
            "config::AtPort",
            "config::Challenges",
            "stream::Validation",
            "stream::Validations",
            "wall_clock",
        ],
        &["libc", "UdpSocket"],
    ),
    ("state_file", &[], &["std::net", "libc", "tracing"]),
    ("regular_file", &[], &["std::net", "tokio", "libc", "tracing"]),
    ("wall_clock", &[], &["std::net", "std::fs", "tokio", "libc", "tracing"]),
    // Files and their headers, and nothing of a server.
    ("page", &[], &["std::net", "std::fs", "tokio", "libc"]),
    (
        "ops",
        &[
            "config",
            "credentials",
            "http",
            "counters",
            "worker",
            "dtls",
            "stream",
            "net",
            "turn",
            "stun",
            "auth",
            "policy",
            "usage",
            "hook",
            "page",
            "public_address",
            "fleet",
            "store",
            "acme",
            "regular_file",
            "state_file",
            "wall_clock",
        ],
        &[],
    ),
];

/// `cli` may use everything.
const UNRULED: &[&str] = &["cli", "lib", "main"];

/// The only module with `unsafe`: the system calls.
const UNSAFE_HOME: [&str; 2] = ["net", "sys"];

/// Files with a type whose methods are spread over other files on purpose, with the reason. These files may use it in a circle;
/// what else they have, types and functions, they may not.
const SPREAD: &[(&str, &str)] = &[
    ("turn::server", "one state, and a file for each method of RFC 8656 that changes it"),
    ("turnstone::worker", "a worker's rooms, and a file for each step of its round that goes through them"),
    (
        "turnstone::worker::clients",
        "listeners and connections, and a file for accepting and for the turn of a connection",
    ),
];

const MODULE_LINES_MAX: usize = 600;

/// Whether `used`, of at most two segments, is what `allowed` names or below it.
fn is_within(used: &str, allowed: &str) -> bool {
    used == allowed || used.strip_prefix(allowed).is_some_and(|below| below.starts_with("::"))
}

fn source(module: &str, text: &str) -> Source {
    Source { path: PathBuf::new(), module: module.split("::").map(str::to_owned).collect(), text: text.to_owned() }
}

#[test]
fn the_reader_sees_paths_groups_and_climbs_and_nothing_in_comments_or_tests() {
    let text = "//! crate::comment\nuse crate::{addr::{A, B}, turn::C, Thing};\nlet x = super::super::auth::y(\"crate::text\");\n\
                let q = ('\"', crate::stun::Z);\nuse turnstone_net::sys;\nsys::epoll();\n\
                #[cfg(test)]\nmod tests { use crate::worker::W; }";
    let named = |module: &str| -> Vec<String> {
        let sources = [source(module, text)];
        let paths = Graph::new(&sources).named(&sources[0].module);
        paths.iter().map(|path| in_rows(path)).collect::<BTreeSet<_>>().into_iter().collect()
    };
    let expected = ["Thing", "addr::A", "addr::B", "auth::y", "net::sys", "stun::Z", "turn::C"];
    assert_eq!(named("turnstone::worker::file"), expected);
    let inside = ["addr::A", "addr::B", "auth::y", "net::sys", "turn::Thing", "turn::stun", "turn::turn"];
    assert_eq!(named("turn::server::file"), inside);
}

#[test]
fn a_circle_is_seen_through_re_exports_aliases_and_methods_and_named() {
    let sources = [
        source("turnstone", "mod room;"),
        source("turnstone::room", "mod a; mod b; mod c; mod d; pub use a::A; pub use c::*; pub use b::B as Renamed;"),
        source("turnstone::room::a", "use super::Renamed; pub struct A; impl A { fn f(&self) { self.far() } }"),
        source("turnstone::room::b", "use super::d; pub struct B(C); use super::C; fn f() { d::g() }"),
        source("turnstone::room::c", "pub struct C; pub fn only_b_uses_it() {}"),
        source("turnstone::room::d", "pub fn g() { crate::room::A }"),
        source("turnstone::room::e", "use super::a::A; impl A { fn far(&self) {} }"),
    ];
    let edges = Graph::new(&sources).edges(&[]);
    let shown = |module: &[String]| module.last().unwrap().clone();
    let flat: Vec<_> =
        edges.iter().map(|(from, to)| (shown(from), to.iter().map(|to| shown(to)).collect::<String>())).collect();
    let expected = [("turnstone", ""), ("room", ""), ("a", "be"), ("b", "cd"), ("c", ""), ("d", "a"), ("e", "a")];
    assert_eq!(flat, expected.map(|(from, to)| (from.to_owned(), to.to_owned())));
    let circles: Vec<String> =
        circles(&edges).iter().map(|circle| circle.shortest.iter().map(|module| shown(module)).collect()).collect();
    assert_eq!(circles, ["aea"], "a group that reaches itself gives its shortest circle");
}

#[test]
fn no_module_reaches_past_its_row() {
    let rules: BTreeMap<_, _> = RULES.iter().map(|(module, uses, _)| (*module, *uses)).collect();
    let mut wrong = Vec::new();
    let sources = sources();
    let graph = Graph::new(&sources);
    for source in &sources {
        let top = source.room();
        // A file of tests is as free as a test module at the end of one.
        if UNRULED.contains(&top) || source.module.last().is_some_and(|file| file == "tests") {
            continue;
        }
        let Some(uses) = rules.get(top) else {
            wrong.push(format!("{}: module `{top}` has no row in tests/architecture", source.path.display()));
            continue;
        };
        for used in graph
            .named(&source.module)
            .iter()
            .map(|path| in_rows(path))
            .filter(|used| used.starts_with(|c: char| c.is_ascii_lowercase()))
        {
            if !std::iter::once(&top).chain(SHARED).chain(*uses).any(|allowed| is_within(&used, allowed)) {
                wrong.push(format!("{}: `{top}` may not use `{used}`", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_files_and_no_rooms_use_each_other_in_a_circle() {
    let sources = sources();
    let module = |path: &str| -> Vec<String> { path.split("::").map(str::to_owned).collect() };
    let spread: Vec<_> = SPREAD.iter().map(|(path, _)| module(path)).collect();
    let mut files = Graph::new(&sources).edges(&spread);
    for home in &spread {
        assert!(files.contains_key(home), "{home:?} is no file any more");
        for used in files.values_mut() {
            used.remove(home);
        }
    }
    let mut rooms: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (file, used) in &files {
        let of_room = rooms.entry(room(file).to_owned()).or_default();
        of_room.extend(used.iter().map(|used| room(used).to_owned()).filter(|used| used != room(file)));
    }
    let mut wrong: Vec<String> =
        circles(&rooms).iter().map(|circle| format!("rooms: {}", circle.shortest.join(" -> "))).collect();
    for Circle { shortest, group } in circles(&files) {
        let shortest: Vec<_> = shortest.iter().map(|file| file.join("::")).collect();
        let edge = |file: &Vec<String>| {
            let used: Vec<_> = files[file].intersection(&group).map(|used| used.join("::")).collect();
            format!("\n    {} uses {}", file.join("::"), used.join(", "))
        };
        wrong.push(format!("{}, in which{}", shortest.join(" -> "), group.iter().map(edge).collect::<String>()));
    }
    assert!(wrong.is_empty(), "circles:\n{}", wrong.join("\n"));
}

#[test]
fn no_module_touches_what_is_not_its_own() {
    let mut wrong = Vec::new();
    for source in sources() {
        let Some((top, _, forbidden)) = RULES.iter().find(|(module, ..)| *module == source.room()) else { continue };
        let code = product_code(&source.text);
        for word in *forbidden {
            let named = code.match_indices(word).any(|(at, _)| {
                let boundary = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
                boundary(code[..at].chars().next_back()) && boundary(code[at + word.len()..].chars().next())
            });
            if named {
                wrong.push(format!("{}: `{top}` may not touch `{word}`", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_core_carries_paths_to_clients_and_never_looks_into_one() {
    let mut carriers = 0;
    for source in sources().iter().filter(|source| source.module.first().is_some_and(|of_crate| of_crate == "turn")) {
        let code = product_code(&source.text);
        carriers += usize::from(code.contains("path::Path"));
        let is_home = source.path.ends_with("src/path.rs") || source.path.ends_with("src/lib.rs");
        let looks_inside =
            ["Path::Datagrams", "Path::Stream", "Path::Session", "DatagramPath", "StreamId", "SessionId", ".path."]
                .into_iter()
                .find(|inside| code.contains(inside));
        assert!(is_home || looks_inside.is_none(), "{}: {looks_inside:?}", source.path.display());
    }
    assert!(carriers > 0, "nothing carries a path");
}

#[test]
fn unsafe_is_only_where_system_calls_are() {
    for source in sources() {
        let is_home = source.module.starts_with(&UNSAFE_HOME.map(str::to_owned));
        let code =
            source.text.lines().map(|line| line.split("//").next().unwrap_or(line)).collect::<Vec<_>>().join("\n");
        let has_unsafe = code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe");
        assert!(is_home || !has_unsafe, "{} has unsafe code", source.path.display());
    }
}

#[test]
fn no_module_is_too_long_to_know_which_room_one_is_in() {
    for source in sources() {
        let lines = source.text.lines().count();
        assert!(lines <= MODULE_LINES_MAX, "{} has {lines} lines", source.path.display());
    }
}

#[test]
fn every_module_every_file_of_the_worker_every_kind_of_test_and_what_packages_are_made_by_is_on_the_page() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let mut wanted: Vec<String> = RULES.iter().map(|(module, ..)| format!("`{module}`")).collect();
    let of_worker = |source: &Source| match source.module.as_slice() {
        [_, room, file] if room == "worker" => Some(format!("`{file}`")),
        _ => None,
    };
    wanted.extend(sources().iter().filter_map(of_worker));
    for entry in fs::read_dir(root().join("tests")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "rs") || path.join("main.rs").is_file() {
            wanted.push(format!("`tests/{}`", path.file_stem().unwrap().to_str().unwrap()));
        }
    }
    for entry in fs::read_dir(root().join("packaging")).unwrap() {
        wanted.push(format!("`packaging/{}`", entry.unwrap().file_name().to_str().unwrap()));
    }
    let missing: Vec<_> = wanted.iter().filter(|name| !page.contains(name.as_str())).collect();
    assert!(wanted.len() > 50 && missing.is_empty(), "ARCHITECTURE.md does not name {missing:?}");
}

#[test]
fn every_module_says_what_it_is_for() {
    for source in sources() {
        assert!(source.text.starts_with("//! "), "{} has no first line", source.path.display());
        assert!(!source.text.starts_with("//! TODO"), "{} is not written yet", source.path.display());
    }
}

/// `[log] addresses` holds wherever a client's or a peer's address is logged, because `Logged` is the only way there.
#[test]
fn addresses_of_clients_and_peers_are_logged_as_wanted() {
    let mut logged = 0;
    for source in sources() {
        let text = without_tests(&source.text);
        for call in
            ["trace!(", "debug!(", "info!(", "warn!(", "error!("].iter().flat_map(|name| text.split(name).skip(1))
        {
            let call = call.split(");").next().unwrap();
            for field in ["client = ", "peer = ", "remote = ", "source = "] {
                for value in call.split(field).skip(1) {
                    let may = ["%Logged(", "%from,", "peer.map"].iter().any(|start| value.starts_with(start));
                    assert!(may, "{}: {field}is logged past Logged: {call}", source.path.display());
                    logged += 1;
                }
            }
        }
    }
    assert!(logged > 5, "only {logged}: does this test still see what is logged?");
}

#[test]
fn no_file_names_a_folder_of_somebodys_machine() {
    // Put together here, so that this file does not name them either.
    let folders =
        [["/ho", "me/"], ["/ro", "ot/"], ["/wo", "rk/"], ["/tmp/", "wt/"], ["/Us", "ers/"]].map(|parts| parts.concat());
    for path in files_below(root()) {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for (number, line) in text.lines().enumerate() {
            let named = folders.iter().find(|folder| line.contains(folder.as_str()));
            assert!(named.is_none(), "{}:{}: names {}", path.display(), number + 1, named.unwrap());
        }
    }
}
