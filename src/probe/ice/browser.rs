//! What browsers do with `iceServers`: the checks of `new RTCPeerConnection` (W3C WebRTC, "set the configuration"), and what Chromium's
//! and Firefox's readers of URLs make of each. `tests/browser` holds it against both.

use std::fmt;
use std::time::Duration;

use zeroize::Zeroizing;

use super::servers::{Entry, IceServers, Remark};
use crate::addr::Transport;
use crate::auth::{TimeLimited, prepare};
use crate::client::Credential;
use crate::clock::span;
use crate::probe::report::{Status, Step};
use crate::probe::url::{InBrowser, Scheme, TurnUrl};

/// From so many on, Firefox warns that discovery gets slow.
const MANY_URLS: usize = 5;
/// The most bytes of a username: one more than RFC 8489 section 14.3 has.
const USERNAME_BYTES_MAX: usize = 509;
/// A page fetches its servers, then its user has to say yes to a microphone.
const SOON_SECS: u64 = 60;
/// Smaller numbers are no timestamps in use (the year 2001).
const TIMESTAMP_MIN: u64 = 1_000_000_000;
/// From here on (the year 5138 in seconds, 1973 in milliseconds) a timestamp is in milliseconds.
const MILLISECONDS_FROM: u64 = 100_000_000_000;

/// At which Firefox refuses any server: the bad ports of the Fetch standard, without 53, which it allows here.
const BLOCKED_PORTS: [u16; 81] = [
    1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109, 110, 111,
    113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530, 531, 532, 540,
    548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000,
    6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080,
];

/// A URL of the list.
pub(in crate::probe) struct Planned {
    /// How it is named in the report.
    pub(in crate::probe) name: String,
    /// What is known before anything is sent.
    pub(in crate::probe) steps: Vec<Step>,
    /// What is to be asked; nothing where browsers ask nothing.
    pub(in crate::probe) url: Option<TurnUrl>,
    pub(in crate::probe) credential: Option<Credential>,
}

/// The steps for the whole list, and its URLs in order.
pub(in crate::probe) fn plan(servers: &IceServers, sha256: bool, now_unix: u64) -> (Vec<Step>, Vec<Planned>) {
    let mut planned: Vec<Planned> = Vec::new();
    for (index, entry) in servers.entries.iter().enumerate() {
        let mut steps = entry.steps(now_unix);
        if entry.urls.is_empty() {
            planned.push(Planned { name: format!("entry {}", index + 1), steps, url: None, credential: None });
            continue;
        }
        for text in &entry.urls {
            let (verdicts, taken) = entry.judge(text);
            // What is of the entry is said at its first URL.
            steps.extend(verdicts);
            let credential =
                taken.as_ref().filter(|taken| taken.scheme.is_turn()).and_then(|_| entry.credential(sha256));
            // What is asked in another way than it is written is named as the page has it.
            let is_as_written =
                taken.as_ref().is_some_and(|taken| taken.scheme == taken.url.scheme && !taken.asks_for_dtls);
            let url = taken.map(|taken| taken.url);
            let again = url.as_ref().is_some_and(|url| {
                let is_same_url =
                    |other: &Planned| other.url.as_ref().is_some_and(|other| other.to_string() == url.to_string());
                planned.iter().any(|other| is_same_url(other) && is_same(&other.credential, &credential))
            });
            if again {
                let words = "listed twice: Chromium asks a STUN server once then, and makes two allocations at a TURN server; probed above";
                steps.push(step("browser", Status::Warn, words));
            }
            let named = url.as_ref().filter(|_| is_as_written);
            let name = named.map_or_else(|| text.escape_debug().take(300).collect(), ToString::to_string);
            let steps = std::mem::take(&mut steps);
            planned.push(Planned { name, steps, url: url.filter(|_| !again), credential });
        }
    }
    (overall(servers, &planned), planned)
}

fn overall(servers: &IceServers, planned: &[Planned]) -> Vec<Step> {
    let (entries, urls) = (servers.entries.len(), servers.urls().count());
    let mut steps: Vec<Step> = servers.remarks.iter().map(|remark| said("ice-servers", remark)).collect();
    let throwing = planned.iter().find(|planned| planned.steps.iter().any(|step| step.facts.contains_key("throws")));
    let plural = |count, one: &str, many: &str| format!("{count} {}", if count == 1 { one } else { many });
    let counted = format!("{} with {}", plural(entries, "entry", "entries"), plural(urls, "URL", "URLs"));
    steps.push(match throwing {
        Some(first) => {
            let words = format!(
                "{counted}; new RTCPeerConnection throws because of {} (below), and the page gets none of them",
                first.name
            );
            step("ice-servers", Status::Fail, words)
        }
        None if urls >= MANY_URLS => {
            let words = format!("{counted}; from {MANY_URLS} on, Firefox warns that they slow discovery down");
            step("ice-servers", Status::Warn, words)
        }
        None => step("ice-servers", Status::Ok, counted),
    });
    steps
}

impl Entry {
    /// What there is to say of it before its URLs are looked at.
    fn steps(&self, now_unix: u64) -> Vec<Step> {
        let remarks = self.remarks.iter().map(|remark| said("entry", remark));
        remarks.chain(self.username.as_deref().and_then(|username| expiry(username, now_unix))).collect()
    }

    /// What browsers make of a URL; nothing where they refuse it.
    fn judge(&self, text: &str) -> (Vec<Step>, Option<InBrowser>) {
        let taken = match TurnUrl::in_browser(text) {
            Ok(taken) => taken,
            Err(error) if error.is_of_a_host_that_browsers_look_up() => {
                let words = format!("browsers find no server there: {error}");
                return (vec![step("browser", Status::Fail, words)], None);
            }
            Err(error) => return (vec![throws("SyntaxError", error)], None),
        };
        if taken.scheme.is_turn() {
            for (name, value) in
                [("username", self.username.as_deref()), ("credential", self.credential.as_deref().map(String::as_str))]
            {
                let problem = match value {
                    None => format!("{name} is missing"),
                    Some("") => format!("{name} is empty"),
                    Some(username) if name == "username" && username.len() > USERNAME_BYTES_MAX => {
                        format!("username is longer than {USERNAME_BYTES_MAX} bytes")
                    }
                    Some(_) => continue,
                };
                return (vec![throws("InvalidAccessError", problem)], None);
            }
        }
        let mut steps = vec![how(&taken).fact("written", text)];
        let transport = text.split_once("?transport=").map_or("", |(_, transport)| transport);
        if transport.bytes().any(|byte| byte.is_ascii_uppercase()) {
            steps.push(throws("SyntaxError", format!("Firefox wants the transport in small letters, not {transport}")));
        }
        let (port, is_turn) = (taken.url.port, taken.scheme.is_turn());
        if BLOCKED_PORTS.contains(&port) {
            steps.push(throws("SyntaxError", format!("Firefox blocks port {port} for all but its own protocol")));
        }
        if is_turn && port < 1024 && ![53, 80, 443].contains(&port) {
            let words =
                format!("Chromium uses no TURN server at port {port}: 53, 80, 443 and those from 1024 on are good");
            steps.push(step("browser", Status::Warn, words));
        }
        (steps, Some(taken))
    }

    fn credential(&self, sha256: bool) -> Option<Credential> {
        let (username, password) = (self.username.clone()?, self.credential.as_deref()?);
        // Browsers take the bytes as they are.
        let password = prepare(password).unwrap_or_else(|_| password.to_owned());
        Some(Credential { username, password: Zeroizing::new(password), sha256 })
    }
}

/// How they ask.
fn how(taken: &InBrowser) -> Step {
    let port = taken.url.port;
    let (status, words) = match (taken.scheme, taken.url.transport) {
        (Scheme::Stuns, _) => {
            let words = format!(
                "stuns: is not supported by Firefox; Chromium asks port {port} by plain UDP, as of stun:, so write that"
            );
            return throws("NotSupportedError", words);
        }
        (Scheme::Stun, _) => (Status::Ok, format!("asked over UDP at port {port}")),
        (Scheme::Turns, _) if taken.asks_for_dtls => (
            Status::Warn,
            format!("browsers speak no DTLS and do not read ?transport=udp here: TLS over TCP at port {port}"),
        ),
        (Scheme::Turns, _) => (Status::Ok, format!("a relay over TLS at port {port}")),
        (Scheme::Turn, Transport::Tcp) => (Status::Ok, format!("a relay over TCP at port {port}")),
        (Scheme::Turn, _) => (Status::Ok, format!("a relay over UDP at port {port}")),
    };
    step("browser", status, words)
}

/// When a time-limited credential ends; nothing of another username.
fn expiry(username: &str, now_unix: u64) -> Option<Step> {
    let expires_unix = TimeLimited::parse(username)?.expires_unix;
    let (status, words) = match expires_unix {
        0..TIMESTAMP_MIN => return None,
        MILLISECONDS_FROM.. => (
            Status::Warn,
            "the username's timestamp is in milliseconds, and servers read seconds: some refuse it, for others it never expires"
                .to_owned(),
        ),
        _ if expires_unix <= now_unix => {
            (Status::Fail, format!("the credential expired {} ago, says its username", span(now_unix - expires_unix)))
        }
        _ => {
            let left = expires_unix - now_unix;
            let status = if left < SOON_SECS { Status::Warn } else { Status::Ok };
            (status, format!("the credential expires in {}", span(left)))
        }
    };
    Some(step("credential", status, words).fact("expires_unix", expires_unix))
}

fn is_same(one: &Option<Credential>, other: &Option<Credential>) -> bool {
    let parts = |credential: &Option<Credential>| {
        credential.as_ref().map(|credential| (credential.username.clone(), credential.password.clone()))
    };
    parts(one) == parts(other)
}

/// What keeps a page from all its servers, in one browser at least.
fn throws(error: &str, why: impl fmt::Display) -> Step {
    step("browser", Status::Fail, format!("new RTCPeerConnection throws {error}: {why}")).fact("throws", error)
}

/// A remark as a step; what fails makes the constructor throw.
fn said(name: &'static str, remark: &Remark) -> Step {
    let said = step(name, remark.status, remark.words.clone());
    if remark.status == Status::Fail { said.fact("throws", true) } else { said }
}

fn step(name: &'static str, status: Status, words: impl Into<String>) -> Step {
    Step::new(name, status, Duration::ZERO, words)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn planned(text: &str) -> (Vec<Step>, Vec<Planned>) {
        plan(&IceServers::read(text).unwrap(), false, NOW)
    }

    /// `status words` of the first step of this name, at the only or first URL.
    fn first(text: &str, name: &str) -> String {
        let (_, planned) = planned(text);
        let step = planned[0].steps.iter().find(|step| step.step == name);
        step.map_or_else(String::new, |step| format!("{} {}", step.status.name(), step.message))
    }

    fn asked(text: &str) -> Vec<String> {
        planned(text).1.iter().filter_map(|planned| planned.url.as_ref()).map(ToString::to_string).collect()
    }

    #[test]
    fn each_url_is_asked_as_browsers_ask_it() {
        let turn = |url: &str| format!("[{{urls: '{url}', username: 'u', credential: 'p'}}]");
        for (text, words, url) in [
            ("[{urls: 'stun:a'}]".to_owned(), "ok asked over UDP at port 3478", "stun:a:3478"),
            (
                "[{urls: 'stuns:a'}]".to_owned(),
                "fail new RTCPeerConnection throws NotSupportedError: stuns: is not supported by Firefox; Chromium asks port 3478",
                "stun:a:3478",
            ),
            ("[{urls: 'stuns:a:443'}]".to_owned(), "fail new RTCPeerConnection throws NotSupportedError", "stun:a:443"),
            (turn("turn:a"), "ok a relay over UDP at port 3478", "turn:a:3478?transport=udp"),
            (turn("turn:a?transport=tcp"), "ok a relay over TCP at port 3478", "turn:a:3478?transport=tcp"),
            (turn("turns:[::1]"), "ok a relay over TLS at port 5349", "turns:[::1]:5349?transport=tcp"),
            (turn("turns:a:443?transport=udp"), "warn browsers speak no DTLS", "turns:a:443?transport=tcp"),
        ] {
            assert!(first(&text, "browser").starts_with(words), "{text}: {}", first(&text, "browser"));
            assert_eq!(asked(&text), [url]);
        }
        let (_, planned) = planned(&turn("turn:a:500"));
        assert!(planned[0].steps[1].message.contains("no TURN server at port 500"), "{:?}", planned[0].steps);
    }

    #[test]
    fn what_makes_the_constructor_throw_fails_the_whole_list_and_is_not_asked() {
        for (text, words) in [
            ("[{urls: 'turn:a'}]", "throws InvalidAccessError: username is missing"),
            ("[{urls: 'turn:a', username: 'u'}]", "throws InvalidAccessError: credential is missing"),
            ("[{urls: 'turns:a', username: '', credential: 'p'}]", "InvalidAccessError: username is empty"),
            ("[{urls: 'http:a'}]", "throws SyntaxError: \"http:a\": http: is not"),
            ("[{urls: 'stun:a?transport=udp'}]", "SyntaxError: \"stun:a?transport=udp\": stun: URLs have nothing"),
            ("[{urls: 'turn:a?transport=tls', username: 'u', credential: 'p'}]", "SyntaxError"),
        ] {
            assert!(first(text, "browser").contains(words), "{text}: {}", first(text, "browser"));
            let (overall, _) = planned(text);
            assert_eq!(overall[0].status, Status::Fail);
            assert!(overall[0].message.contains("the page gets none of them") && asked(text).is_empty());
        }
        let long = format!("[{{urls: 'turn:a', username: '{}', credential: 'p'}}]", "u".repeat(510));
        assert!(first(&long, "browser").contains("longer than 509 bytes"));
        let capitals = "[{urls: 'turn:a?transport=UDP', username: 'u', credential: 'p'}]";
        assert_eq!((planned(capitals).0[0].status, asked(capitals).len()), (Status::Fail, 1), "Chromium asks it");
        let no_host = planned("[{urls: 'stun:a..b'}]");
        assert!(no_host.0[0].status == Status::Ok && no_host.1[0].steps[0].message.contains("find no server there"));
        // The others are asked nevertheless.
        assert_eq!(asked("[{urls: 'turn:a'}, {urls: 'stun:b'}]"), ["stun:b:3478"]);
        let (overall, _) = planned("[{}, {urls: 'stun:b'}]");
        assert!(overall[0].message.contains("because of entry 1"), "{overall:?}");
    }

    #[test]
    fn what_browsers_ask_in_another_way_is_named_as_the_page_has_it() {
        let names = |text: &str| planned(text).1.into_iter().map(|planned| planned.name).collect::<Vec<_>>();
        assert_eq!(names("[{urls: ['stuns:a:443', 'stun:a']}]"), ["stuns:a:443", "stun:a:3478"]);
        let (overall, _) = planned("[{urls: ['stuns:a:443', 'stun:a']}]");
        assert!(overall[0].message.contains("throws because of stuns:a:443 (below)"), "{overall:?}");
        let turns = "[{urls: 'turns:a:443?transport=udp', username: 'u', credential: 'p'}]";
        assert_eq!(
            (names(turns), asked(turns)),
            (vec!["turns:a:443?transport=udp".to_owned()], vec!["turns:a:443?transport=tcp".to_owned()])
        );
    }

    #[test]
    fn the_end_of_a_credential_is_told() {
        let of = |username: &str| {
            first(&format!("[{{urls: 'turn:a', username: '{username}', credential: 'p'}}]"), "credential")
        };
        assert_eq!(of(&format!("{}:u", NOW + 57)), "warn the credential expires in 57 s");
        assert_eq!(of(&format!("{}", NOW + 3600)), "ok the credential expires in 60 min");
        assert_eq!(of(&format!("u:{}", NOW - 7200)), "fail the credential expired 2 h ago, says its username");
        assert!(of(&format!("{}:u", NOW * 1000)).starts_with("warn the username's timestamp is in milliseconds"));
        assert_eq!((of("alice"), of("12345:u")), (String::new(), String::new()));
        assert_eq!(first("[{urls: 'stun:a'}]", "credential"), "");
    }

    #[test]
    fn five_urls_are_many_and_one_that_is_listed_twice_is_asked_once() {
        let (overall, _) = planned("[{urls: ['stun:a', 'stun:b', 'stun:c', 'stun:d', 'stun:e']}]");
        assert_eq!(overall[0].status, Status::Warn);
        assert_eq!(asked("[{urls: ['stun:a', 'stuns:a:3478']}, {urls: 'stun:a:3478'}]"), ["stun:a:3478"]);
        let two =
            "[{urls: 'turn:a', username: 'u', credential: 'p'}, {urls: 'turn:a', username: 'v', credential: 'p'}]";
        assert_eq!(asked(two).len(), 2, "two users are two credentials to try");
    }
}
