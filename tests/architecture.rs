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

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Vocabulary that every module may use.
const SHARED: &[&str] = &["addr", "clock", "reject", "text", "user"];

/// A module, what it may use besides [`SHARED`] (a module, or one path below it), and the words that would mean it touches
/// what is not its own.
///
/// What crates may use of each other stands in their `Cargo.toml`, too; rows are about the modules inside `crates/turn`, and
/// about words.
const RULES: &[(&str, &[&str], &[&str])] = &[
    ("addr", &[], &[]),
    ("clock", &[], &["std::time"]),
    ("reject", &["stun"], &[]),
    ("text", &[], &["std::time", "std::fs", "std::io", "tokio", "libc", "tracing"]),
    ("user", &[], &["std::time", "std::fs", "std::io", "tokio", "libc", "tracing"]),
    ("stun", &[], &["std::time", "std::fs", "std::io", "std::sync", "tokio", "libc", "socket2", "tracing"]),
    (
        "turn",
        &["stun", "auth", "policy"],
        &["std::time", "std::fs", "Mutex", "RwLock", "UdpSocket", "TcpStream", "tokio", "libc", "socket2", "rustls"],
    ),
    ("auth", &["stun"], &["UdpSocket", "TcpStream", "tokio", "libc", "socket2"]),
    ("policy", &[], &["UdpSocket", "TcpStream", "tokio", "libc", "socket2"]),
    ("net", &[], &["rustls", "tracing"]),
    // It judges servers from outside: it shares the wire format with ours, and none of its fast paths.
    ("client", &["stun"], &["tokio", "libc"]),
    (
        "stream",
        &[
            "stun",
            "turn",
            "net",
            "config::Streams",
            "config::TlsFiles",
            "config::TlsVersion",
            "config::Wanted",
            "config::why",
        ],
        &["tokio"],
    ),
    (
        "worker",
        &["stun", "turn", "net", "stream", "policy", "counters", "config::Streams", "usage::UsageSender"],
        &["std::fs", "tokio", "RwLock"],
    ),
    ("counters", &["turn"], &["std::fs", "tokio", "RwLock"]),
    ("config", &["auth", "policy", "turn", "import"], &["TcpStream", "tokio", "libc"]),
    ("import", &["auth", "config", "policy"], &["std::fs", "TcpStream", "tokio", "libc"]),
    // Its threads are its own: no packet waits for a disk or a webhook.
    (
        "usage",
        &[
            "turn",
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
    ("probe", &["stun", "auth::TimeLimited", "client", "stream::framing"], &["tokio", "std::fs"]),
    // It looks at the host, and at the server from outside.
    ("doctor", &["config", "probe", "net", "auth", "client"], &["tokio", "libc"]),
    ("ops", &["config", "counters", "worker", "stream", "net", "turn", "stun", "auth", "policy", "usage"], &[]),
];

/// `cli` may use everything.
const UNRULED: &[&str] = &["cli", "lib", "main"];

/// The only modules with `unsafe`: the system calls.
const UNSAFE_HOMES: &[&[&str]] = &[&["net", "sys"]];

const MODULE_LINES_MAX: usize = 600;

struct Source {
    path: PathBuf,
    /// The module path, e.g. `["turn", "server"]`, or `["auth", "nonce"]` where a crate has rows for its modules.
    module: Vec<String>,
    /// How many of its segments are below the root of its crate.
    depth: usize,
    /// The crate, but for the program's own.
    of_crate: Option<String>,
    text: String,
}

impl Source {
    fn top(&self) -> &str {
        self.module.first().map_or("lib", String::as_str)
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    let mut found = sources_of(&root().join("src"), None);
    for entry in fs::read_dir(root().join("crates")).unwrap() {
        let folder = entry.unwrap().path();
        let name = folder.file_name().unwrap().to_str().unwrap();
        found.extend(sources_of(&folder.join("src"), Some(name)));
    }
    assert!(found.len() > 200, "found only {} sources", found.len());
    found
}

fn sources_of(src: &Path, of_crate: Option<&str>) -> Vec<Source> {
    let mut found = Vec::new();
    for path in files_below(src) {
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let relative = path.strip_prefix(src).unwrap().with_extension("");
        let mut module: Vec<String> = relative.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
        if module.last().is_some_and(|last| last == "mod" || (of_crate.is_some() && last == "lib")) {
            module.pop();
        }
        let depth = module.len();
        if let Some(name) = of_crate
            && !module.first().is_some_and(|first| has_row(name, first))
        {
            module.insert(0, name.to_owned());
        }
        let text = fs::read_to_string(&path).unwrap();
        found.push(Source { module, depth, of_crate: of_crate.map(str::to_owned), text, path });
    }
    found
}

/// Whether a module of a crate has a row of its own; the rest of the crate has the crate's.
fn has_row(of_crate: &str, module: &str) -> bool {
    of_crate == "turn" && (SHARED.contains(&module) || ["auth", "policy"].contains(&module))
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_symlink() || [".git", ".venv", "target", "node_modules", "corpus", "artifacts"].contains(&name) {
            continue;
        }
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The code that is built into the product: without comments, string contents and the test module at the end.
fn product_code(text: &str) -> String {
    let text = match text.find("#[cfg(test)]\nmod ") {
        Some(at) => &text[..at],
        None => text,
    };
    let mut code = String::new();
    let mut rest = text.chars().peekable();
    let mut in_string = false;
    while let Some(c) = rest.next() {
        match c {
            '\\' if in_string => drop(rest.next()),
            '\'' if !in_string && rest.peek() == Some(&'"') => drop(rest.next()),
            '"' => {
                in_string = !in_string;
                code.push(c);
            }
            _ if in_string => {}
            '/' if rest.peek() == Some(&'/') => while rest.next_if(|&next| next != '\n').is_some() {},
            _ => code.push(c),
        }
    }
    code
}

/// What a source names of the rest, through `crate::`, enough `super::` or a crate's name, to two segments: `net::sys`.
fn edges(source: &Source, code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let climb = "super::".repeat(source.depth.max(1));
    for start in ["crate::", &climb] {
        for (at, _) in code.match_indices(start) {
            if !code[..at].ends_with(['_', '$', ':']) {
                found.extend(paths(&code[at + start.len()..]).into_iter().map(|name| match &source.of_crate {
                    Some(of_crate) if !has_row(of_crate, name.split("::").next().unwrap()) => {
                        format!("{of_crate}::{name}")
                    }
                    _ => name,
                }));
            }
        }
    }
    for (at, _) in code.match_indices("turnstone_") {
        let rest = &code[at + "turnstone_".len()..];
        let named = identifier(rest);
        for below in rest[named.len()..].strip_prefix("::").map(paths).unwrap_or_default() {
            let first = below.split("::").next().unwrap();
            found.insert(if has_row(&named, first) { below } else { format!("{named}::{first}") });
        }
    }
    found.into_iter().filter(|name| name.starts_with(|c: char| c.is_ascii_lowercase())).collect()
}

/// The paths of `a::b::c` or of each member of `{a::b, c::{d, e}}`, cut to two segments.
fn paths(text: &str) -> Vec<String> {
    if let Some(group) = text.strip_prefix('{') {
        return members(group).into_iter().flat_map(paths).collect();
    }
    let first = identifier(text);
    match text.trim_start()[first.len()..].strip_prefix("::") {
        Some(below) => match below.strip_prefix('{') {
            Some(group) => {
                members(group).into_iter().map(|member| format!("{first}::{}", identifier(member))).collect()
            }
            None => vec![format!("{first}::{}", identifier(below))],
        },
        None => vec![first],
    }
}

fn identifier(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

/// The members of a group whose opening brace has been read.
fn members(group: &str) -> Vec<&str> {
    let (mut found, mut nesting, mut start) = (Vec::new(), 0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => nesting += 1,
            '}' if nesting > 0 => nesting -= 1,
            ',' | '}' if nesting == 0 => {
                found.push(group[start..at].trim());
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    found.retain(|member| !member.is_empty());
    found
}

/// Whether `used`, of at most two segments, is what `allowed` names or below it.
fn is_within(used: &str, allowed: &str) -> bool {
    used == allowed || used.strip_prefix(allowed).is_some_and(|below| below.starts_with("::"))
}

#[test]
fn the_reader_of_edges_sees_paths_groups_and_climbs_and_nothing_in_comments_or_tests() {
    let code = product_code(
        "//! crate::comment\nuse crate::{addr::{A, B}, turn::C, Thing};\nlet x = super::super::auth::y(\"crate::text\");\n\
         let q = ('\"', crate::stun::Z);\nsuper::sibling::f();\nturnstone_net::sys::f();\n#[cfg(test)]\nmod tests { use crate::worker::W; }",
    );
    let expected = ["addr::A", "addr::B", "auth::y", "net::sys", "stun::Z", "turn::C"].map(str::to_owned);
    let of_crate = |name: Option<&str>| Source {
        path: PathBuf::new(),
        module: vec!["worker".to_owned(), "file".to_owned()],
        depth: 2,
        of_crate: name.map(str::to_owned),
        text: String::new(),
    };
    assert_eq!(edges(&of_crate(None), &code), BTreeSet::from(expected));
    let inside = edges(&of_crate(Some("turn")), "use crate::{addr::A, server::S};");
    assert_eq!(inside, BTreeSet::from(["addr::A", "turn::server::S"].map(str::to_owned)));
}

#[test]
fn no_module_reaches_past_its_row() {
    let rules: BTreeMap<_, _> = RULES.iter().map(|(module, uses, _)| (*module, *uses)).collect();
    let mut wrong = Vec::new();
    for source in sources() {
        let top = source.top();
        if UNRULED.contains(&top) {
            continue;
        }
        let Some(uses) = rules.get(top) else {
            wrong.push(format!("{}: module `{top}` has no row in tests/architecture.rs", source.path.display()));
            continue;
        };
        for used in edges(&source, &product_code(&source.text)) {
            if !std::iter::once(&top).chain(SHARED).chain(*uses).any(|allowed| is_within(&used, allowed)) {
                wrong.push(format!("{}: `{top}` may not use `{used}`", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_module_touches_what_is_not_its_own() {
    let mut wrong = Vec::new();
    for source in sources() {
        let Some((top, _, forbidden)) = RULES.iter().find(|(module, ..)| *module == source.top()) else { continue };
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
fn unsafe_is_only_where_system_calls_are() {
    for source in sources() {
        let is_home =
            UNSAFE_HOMES.iter().any(|home| source.module.iter().map(String::as_str).take(2).eq(home.iter().copied()));
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
fn every_module_every_file_of_the_worker_and_every_kind_of_test_is_on_the_page() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let mut wanted: Vec<String> = RULES.iter().map(|(module, ..)| format!("`{module}`")).collect();
    let of_worker = |source: &Source| match source.module.as_slice() {
        [top, file] if top == "worker" => Some(format!("`{file}`")),
        _ => None,
    };
    wanted.extend(sources().iter().filter_map(of_worker));
    for entry in fs::read_dir(root().join("tests")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "rs") || path.join("main.rs").is_file() {
            wanted.push(format!("`tests/{}`", path.file_stem().unwrap().to_str().unwrap()));
        }
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
        let text = source.text.split("#[cfg(test)]\nmod ").next().unwrap();
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
