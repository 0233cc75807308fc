//! coturn's command line, as its `getopt_long` takes it apart: long options whole or begun, with their value behind `=` or in
//! the next word; short ones one by one or several in a word.

use super::conf::Conf;
use super::findings::{FindingKind, Grade, Spot};
use super::syntax::Entry;
use super::table;

/// Short options and the directives that they are; the second list takes a value.
const SHORT_SWITCHES: &[(char, &str)] = &[
    ('v', "verbose"),
    ('V', "Verbose"),
    ('o', "daemon"),
    ('f', "fingerprint"),
    ('z', "no-auth"),
    ('a', "lt-cred-mech"),
    ('S', "stun-only"),
    ('K', "keep-address-family"),
];
const SHORT_VALUES: &[(char, &str)] = &[
    ('d', "listening-device"),
    ('p', "listening-port"),
    ('L', "listening-ip"),
    ('E', "relay-ip"),
    ('X', "external-ip"),
    ('i', "relay-device"),
    ('m', "relay-threads"),
    ('l', "log-file"),
    ('r', "realm"),
    ('u', "user"),
    ('b', "userdb"),
    ('B', "bps-capacity"),
    ('e', "psql-userdb"),
    ('M', "mysql-userdb"),
    ('J', "mongo-userdb"),
    ('N', "redis-userdb"),
    ('O', "redis-statsdb"),
    ('q', "user-quota"),
    ('Q', "total-quota"),
    ('s', "max-bps"),
    ('C', "rest-api-separator"),
    ('A', "allocation-default-address-family"),
    ('c', CONFIG),
];
/// Not a directive: the file that the others are in.
const CONFIG: &str = "c";

/// What is on by being there, and has a value only behind `=`.
const SWITCHES: &[&str] = &[
    "allow-loopback-peers",
    "channel-lifetime",
    "check-origin-consistency",
    "cli",
    "daemon",
    "dh1066",
    "dh566",
    "drop-invalid-packets",
    "drop-invalid-packets-log",
    "dtls",
    "fingerprint",
    "include-reason-string",
    "keep-address-family",
    "log-binding",
    "lt-cred-mech",
    "max-allocate-lifetime",
    "mobility",
    "multiplex-peer",
    "new-log-timestamp",
    "no-auth",
    "no-auth-pings",
    "no-cli",
    "no-dtls",
    "no-dynamic-ip-list",
    "no-dynamic-realms",
    "no-loopback-peers",
    "no-multicast-peers",
    "no-rfc5780",
    "no-software-attribute",
    "no-sslv2",
    "no-sslv3",
    "no-stdout-log",
    "no-stun",
    "no-stun-backward-compatibility",
    "no-tcp",
    "no-tcp-relay",
    "no-tls",
    "no-tlsv1",
    "no-tlsv1_1",
    "no-tlsv1_2",
    "no-udp",
    "no-udp-relay",
    "oauth",
    "permission-lifetime",
    "prod",
    "prometheus",
    "prometheus-username-labels",
    "raw-public-keys",
    "respond-http-unsupported",
    "response-origin-only-with-rfc5780",
    "rfc3489-compatibility",
    "rfc5766-channel-numbers",
    "rfc5780",
    "secure-stun",
    "server-relay",
    "simple-log",
    "software-attribute",
    "stale-nonce",
    "stateless-nonce",
    "stun-backward-compatibility",
    "stun-only",
    "syslog",
    "tlsv1",
    "tlsv1_1",
    "udp-gso",
    "udp-recvmmsg",
    "udp-recvmmsg-log",
    "udp-self-balance",
    "unauthorized-ratelimit",
    "use-auth-secret",
    "Verbose",
    "verbose",
    "version",
    "web-admin",
    "web-admin-listen-on-workers",
];

/// Whether a directive needs no value.
pub(super) fn is_switch(name: &str) -> bool {
    SWITCHES.contains(&name)
}

/// The options as directives; `Err` is the place of a word that belongs to none.
pub(super) fn entries(arguments: &[String]) -> Vec<Result<Entry<'_>, Spot>> {
    let mut entries = Vec::new();
    let mut words = arguments.iter().enumerate().map(|(index, word)| (Spot::Argument(index + 1), word.as_str()));
    while let Some((spot, word)) = words.next() {
        if word == "--" {
            entries.extend(words.by_ref().map(|(spot, _)| Err(spot)));
        } else if let Some(long) = word.strip_prefix("--") {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (long, None),
            };
            let name = whole_name(name);
            let needs_value = table::find(name).is_some() && !is_switch(name) && value.is_none();
            let next = if needs_value { words.next().map(|(_, word)| word) } else { None };
            entries.push(Ok(Entry { spot, name, value: value.or(next).unwrap_or("") }));
        } else if let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) {
            short(spot, letters, &mut || words.next().map(|(_, word)| word), &mut entries);
        } else if !(spot == Spot::Argument(1) && word.rsplit('/').next() == Some("turnserver")) {
            entries.push(Err(spot));
        }
    }
    entries
}

/// Letters behind one dash: switches, and at the end one with a value, which may be in the same word.
fn short<'a>(
    spot: Spot,
    letters: &'a str,
    next: &mut dyn FnMut() -> Option<&'a str>,
    entries: &mut Vec<Result<Entry<'a>, Spot>>,
) {
    let find = |list: &'static [(char, &'static str)], letter| list.iter().find(|(known, _)| *known == letter);
    let mut rest = letters.chars();
    while let Some(letter) = rest.next() {
        // No configuration file; help.
        if matches!(letter, 'n' | 'h') {
            continue;
        }
        if let Some((_, name)) = find(SHORT_SWITCHES, letter) {
            entries.push(Ok(Entry { spot, name, value: "" }));
            continue;
        }
        let Some((_, name)) = find(SHORT_VALUES, letter) else {
            return entries.push(Err(spot));
        };
        let own = rest.as_str();
        let value = if own.is_empty() { next().unwrap_or("") } else { own };
        if *name != CONFIG {
            entries.push(Ok(Entry { spot, name, value }));
        }
        return;
    }
}

/// A long option may be cut short, as long as only one begins so.
fn whole_name(name: &str) -> &str {
    if name.is_empty() || table::find(name).is_some() {
        return name;
    }
    let mut begun = table::all().map(|(known, _)| known).filter(|known| known.starts_with(name));
    match (begun.next(), begun.next()) {
        (Some(only), None) => only,
        _ => name,
    }
}

/// A command line that names a file, or none, where another one was given or none.
pub(super) fn look_for_file(conf: &mut Conf, arguments: &[String], has_file: bool) {
    let named = arguments.iter().position(|word| word == "-c" || word.starts_with("-c/"));
    let none = arguments.iter().position(|word| word == "-n");
    if let (Some(index), false) = (named, has_file) {
        let message = "the directives of that file are not here: turnstone import FILE --args -- ...";
        let spot = Some(Spot::Argument(index + 1));
        conf.find(spot, "-c", FindingKind::NotConverted, Grade::Clients, message);
    } else if let (Some(index), true) = (none, has_file) {
        let message =
            "coturn reads no file with it, so that those of the file do nothing there; here they are taken over";
        conf.find(Some(Spot::Argument(index + 1)), "-n", FindingKind::Note, Grade::Clients, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken_apart(line: &str) -> Vec<String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let entries = entries(&words);
        let text = |entry: Result<Entry<'_>, Spot>| match entry {
            Ok(entry) => format!("{} {}={}", entry.spot, entry.name, entry.value),
            Err(spot) => format!("{spot} ?"),
        };
        entries.into_iter().map(text).map(|text| text.replace("argument ", "")).collect()
    }

    #[test]
    fn options_are_taken_apart_as_getopt_does() {
        assert_eq!(
            taken_apart(
                "/usr/bin/turnserver -n --log-file=stdout --min-port 49160 -vp3478 -L 10.0.0.1 --no-udp x --static-auth-sec=a=b"
            ),
            [
                "3 log-file=stdout",
                "4 min-port=49160",
                "6 verbose=",
                "6 listening-port=3478",
                "7 listening-ip=10.0.0.1",
                "9 no-udp=",
                "10 ?",
                "11 static-auth-secret=a=b",
            ]
        );
        assert_eq!(taken_apart("-c /etc/turnserver.conf --user"), ["3 user="]);
        assert_eq!(taken_apart("-w -- --realm=x"), ["1 ?", "3 ?"]);
        assert_eq!(taken_apart("--frobnicate=1 --no-tl"), ["1 frobnicate=1", "2 no-tl="]);
    }

    #[test]
    fn every_switch_and_short_option_is_a_directive() {
        let short = SHORT_SWITCHES.iter().chain(SHORT_VALUES).map(|(_, name)| *name).filter(|name| *name != CONFIG);
        for name in SWITCHES.iter().copied().chain(short) {
            assert!(table::find(name).is_some(), "{name}");
        }
        assert!(SHORT_SWITCHES.iter().all(|(_, name)| is_switch(name)));
        assert!(SHORT_VALUES.iter().all(|(_, name)| !is_switch(name)));
    }
}
