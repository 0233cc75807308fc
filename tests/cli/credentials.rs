//! `turnstone credentials`.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use turnstone::auth::mint;

use super::{Place, SECRET, ran};

fn now_unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn json(text: &str) -> Value {
    assert_eq!(text.lines().count(), 1, "one line to paste: {text}");
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_credential_passes_its_own_verification_in_every_format() {
    let place = Place::new();
    let text = place.run(&["credentials", "--user", "alice"]).ok();
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    let json_form = json(&place.run(&["credentials", "--user", "alice", "--format", "json"]).ok());
    let ice = json(&place.run(&["credentials", "--user", "alice", "--format", "ice-servers"]).ok());
    let ice = &ice["iceServers"][0];
    let text_of = |value: &Value| value.as_str().unwrap().to_owned();
    for (username, password) in [
        (field("username "), field("password ")),
        (text_of(&json_form["username"]), text_of(&json_form["password"])),
        (text_of(&ice["username"]), text_of(&ice["credential"])),
    ] {
        assert!(username.ends_with(":alice"), "{username}");
        assert_eq!(*password, **mint(SECRET.as_bytes(), &username));
        let verified = place.run(&["credentials", "verify", &username, &password]).ok();
        assert!(verified.starts_with("valid: made with secret \"main\", expires in "), "{verified}");
    }
}

#[test]
fn the_lifetime_is_in_the_username() {
    let place = Place::new();
    for (ttl, secs) in [("12h", 43_200), ("30m", 1800), ("1d", 86_400), ("90s", 90)] {
        let before = now_unix();
        let credential = json(&place.run(&["credentials", "--user", "a", "--ttl", ttl, "--format", "json"]).ok());
        let expires: u64 = credential["username"].as_str().unwrap().split(':').next().unwrap().parse().unwrap();
        assert!((before + secs..=now_unix() + secs).contains(&expires), "{ttl}: {expires}");
        assert_eq!(credential["ttl"], secs);
    }
}

#[test]
fn urls_are_the_listeners_as_clients_reach_them() {
    let place = Place::new();
    place.append(
        "[[listen]]\naddress = \"0.0.0.0:443\"\ntransport = \"tls\"\n[[listen]]\naddress = \"[2001:db8::7]:3478\"\n\
         transport = \"udp\"\n[tls]\ncertificate = \"c\"\nkey = \"k\"\n",
    );
    let ice = json(&place.run(&["credentials", "--user", "a", "--format", "ice-servers"]).ok());
    let urls: Vec<_> =
        ice["iceServers"][0]["urls"].as_array().unwrap().iter().map(|url| url.as_str().unwrap()).collect();
    let expected = [
        "turn:203.0.113.5:3478?transport=udp",
        "turn:203.0.113.5:3478?transport=tcp",
        "turns:203.0.113.5:443?transport=tcp",
        "turn:[2001:db8::7]:3478?transport=udp",
    ];
    assert_eq!(urls, expected, "the relay address stands outside for 127.0.0.1 and for the wildcard");

    let args = ["credentials", "--user", "a", "--format", "json", "--public-host", "turn.example.org"];
    let credential = json(&place.run(&args).ok());
    let urls: Vec<_> = credential["uris"].as_array().unwrap().iter().map(|url| url.as_str().unwrap()).collect();
    assert_eq!(
        urls,
        [
            "turn:turn.example.org:3478?transport=udp",
            "turn:turn.example.org:3478?transport=tcp",
            "turns:turn.example.org:443?transport=tcp"
        ]
    );
}

#[test]
fn the_readmes_configuration_hands_out_no_more_urls_than_browsers_like() {
    let readme = include_str!("../../README.md");
    let (_, rest) = readme.split_once("turnserver.toml >/dev/null <<END\n").unwrap();
    let config = rest.split("\nEND\n").next().unwrap();
    let place = Place::new();
    let config = config
        .replace("$NAME", "turn.example.org")
        .replace("$ADDRESS", "203.0.113.5")
        .replace("/etc/turnstone/secret", &place.path("secret").display().to_string());
    place.file("turnserver.toml", &config, 0o600);
    let expected = [
        "turn:turn.example.org:3478?transport=udp",
        "turn:turn.example.org:3478?transport=tcp",
        "turn:turn.example.org:443?transport=udp",
        "turns:turn.example.org:443?transport=tcp",
    ];
    assert_eq!(uris(&place, None), expected);
    place.file(
        "turnserver.toml",
        &config.replace("[auth]\n", "[auth]\nurls = [\"turn:a\", \"turn:b\", \"turn:c\", \"turn:d\", \"turn:e\"]\n"),
        0o600,
    );
    assert_eq!(uris(&place, None).len(), 5, "what is written is what is meant");
}

fn uris(place: &Place, realm: Option<&str>) -> Vec<String> {
    // No server runs here, whatever the configuration says.
    let mut args = vec!["credentials", "--user", "a", "--format", "json", "--offline"];
    args.extend(realm.iter().flat_map(|realm| ["--in-realm", realm]));
    let credential = json(&place.run(&args).ok());
    credential["uris"].as_array().unwrap().iter().map(|url| url.as_str().unwrap().to_owned()).collect()
}

#[test]
fn urls_are_of_listeners_that_lead_into_the_realm_by_a_name_that_does() {
    let place = Place::new();
    let realm = |name: &str, more: &str| {
        format!("[[realm]]\nname = \"{name}\"\n{more}[[realm.secrets]]\nsecret = \"another secret, as long\"\n")
    };
    place.append(&format!(
        "[[listen]]\naddress = \"0.0.0.0:443\"\ntransport = \"tls\"\n[[listen]]\naddress = \"0.0.0.0:3480\"\ntransport = [\"udp\", \"tls\"]\n\
         realm = \"by-listener\"\n[tls]\ncertificate = \"c\"\nkey = \"k\"\n[auth]\npublic-host = \"turn.example.org\"\n{}{}{}{}{}",
        realm("by-name", "sni = [\"*.b.example\", \"turn.b.example\"]\n"),
        realm("by-listener", ""),
        realm("by-wildcard", "sni = [\"*.c.example\"]\npublic-host = \"turn.c.example\"\n"),
        realm("given", "urls = [\"turns:d.example:443?transport=tcp\"]\n"),
        realm("nowhere", "sni = [\"*.e.example\"]\n"),
    ));
    assert_eq!(
        uris(&place, None),
        [
            "turn:turn.example.org:3478?transport=udp",
            "turn:turn.example.org:3478?transport=tcp",
            "turns:turn.example.org:443?transport=tcp"
        ]
    );
    let by_name = ["turns:turn.b.example:443?transport=tcp", "turns:turn.b.example:3480?transport=tcp"];
    assert_eq!(uris(&place, Some("by-name")), by_name);
    let by_listener = ["turn:turn.example.org:3480?transport=udp", "turns:turn.example.org:3480?transport=tcp"];
    assert_eq!(uris(&place, Some("by-listener")), by_listener);
    let by_wildcard = by_name.map(|url| url.replace("turn.b", "turn.c"));
    assert_eq!(uris(&place, Some("by-wildcard")), by_wildcard);
    assert_eq!(uris(&place, Some("given")), ["turns:d.example:443?transport=tcp"]);
    let nowhere = place.run(&["credentials", "--user", "a", "--in-realm", "nowhere"]);
    assert!(nowhere.code == 0 && nowhere.err.contains("no URL leads into the realm \"nowhere\""), "{}", nowhere.err);
}

#[test]
fn listeners_behind_proxies_and_those_for_discovery_are_not_printed_and_urls_go_before_all() {
    let place = Place::new();
    place.append(
        "[[listen]]\naddress = \"127.0.0.1:5349\"\ntransport = \"tls\"\nproxy-from = [\"127.0.0.1\"]\n\
         [tls]\ncertificate = \"c\"\nkey = \"k\"\n[nat-discovery]\naddresses = [\"127.0.0.1\", \"127.0.0.2\"]\n",
    );
    let own = ["turn:203.0.113.5:3478?transport=udp", "turn:203.0.113.5:3478?transport=tcp"];
    assert_eq!(uris(&place, None), own);
    place.append("[auth]\nurls = [\"turns:turn.example.org:443?transport=tcp\"]\n");
    assert_eq!(uris(&place, None), ["turns:turn.example.org:443?transport=tcp"]);
}

#[test]
fn a_user_s_keys_are_made_whichever_way_the_others_name_him() {
    let place = Place::new();
    let made = |args: &[&str]| ran(place.command(&[&["credentials", "hash"], args].concat()).write_stdin("pass\n"));
    let by_position = made(&["--realm", "b.example", "cam"]);
    assert_eq!((by_position.code, by_position.err.as_str()), (0, ""));
    assert_eq!(made(&["--in-realm", "b.example", "--user", "cam"]).out, by_position.out);
    assert_eq!(made(&["--realm", "b.example", "--user", "cam", "cam"]).code, 2);
}

#[test]
fn the_secret_may_come_from_a_file_a_variable_or_standard_input_without_any_configuration() {
    let place = Place::new();
    let args = ["credentials", "--user", "a", "--format", "json"];
    let by_file = ran(place.command(&args).args(["--secret-file", "secret"]));
    let by_variable = ran(place.command(&args).env("TURNSTONE_SECRET", SECRET));
    let by_stdin = ran(place.command(&args).arg("--secret-stdin").write_stdin(format!("{SECRET}\n")));
    for ran in [by_file, by_variable, by_stdin] {
        assert_eq!(ran.code, 0, "{}", ran.err);
        let credential = json(&ran.out);
        let username = credential["username"].as_str().unwrap();
        assert_eq!(credential["password"], **mint(SECRET.as_bytes(), username));
    }
}

#[test]
fn one_of_several_secrets_is_chosen_by_its_id() {
    let place = Place::new();
    place.append("[[auth.secrets]]\nid = \"next\"\nsecret = \"the next secret, as long\"\n");
    let args = ["credentials", "--user", "a", "--format", "json", "--secret-id", "next"];
    let credential = json(&place.run(&args).ok());
    let username = credential["username"].as_str().unwrap();
    assert_eq!(credential["password"], **mint(b"the next secret, as long", username));
    let verified = place.run(&["credentials", "verify", username, credential["password"].as_str().unwrap()]).ok();
    assert!(verified.contains("made with secret \"next\""), "{verified}");

    let ran = place.run(&["credentials", "--user", "a", "--secret-id", "old"]);
    assert_eq!((ran.code, ran.err.as_str()), (2, "error: --secret-id: no secret \"old\"; there is main, next\n"));
}

#[test]
fn bad_arguments_are_refused_with_their_name() {
    let place = Place::new();
    for (args, error) in [
        (&["--user", ""][..], "error: --user: \"\" is empty, too long, or has a character"),
        (&["--user", "a\nb"], "error: --user: \"a\\nb\" is empty, too long, or has a character"),
        (&["--user", "a", "--ttl", "12"], "error: --ttl: \"12\" has no unit"),
        (&["--user", "a", "--ttl", "0s"], "error: --ttl: \"0s\" is not from 1s to 366d"),
        (&["--user", "a", "--ttl", "2000d"], "error: --ttl: \"2000d\" is not from 1s to 366d"),
        (&["--user", "a", "--secret", "x"], "error: unexpected argument '--secret' found"),
    ] {
        let ran = place.run(&[&["credentials"][..], args].concat());
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{args:?}");
        assert!(ran.err.starts_with(error), "{args:?}: {}", ran.err);
    }
    let long = "a".repeat(600);
    assert_eq!(place.run(&["credentials", "--user", &long]).code, 2);
    let ran = ran(place.command(&["credentials", "--user", "a", "--secret-stdin"]).write_stdin("short\n"));
    assert!(ran.code == 2 && ran.err.starts_with("--secret-stdin: the secret has 5 bytes"), "{}", ran.err);
}

#[test]
fn a_secret_file_that_others_can_read_is_refused() {
    let place = Place::new();
    place.file("secret", SECRET, 0o644);
    let ran = place.run(&["credentials", "--user", "a"]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.starts_with("turnserver.toml:12:8: in [[auth.secrets]] "), "{}", ran.err);
    assert!(ran.err.contains("(mode 0644); run: chmod 600 "), "{}", ran.err);
}

#[test]
fn the_commands_of_a_client_take_secrets_of_a_container_s_modes_when_the_variable_says_so() {
    let place = Place::with("[admin]\nlisten = \"127.0.0.1:1\"\ntoken-file = \"token\"");
    place.file("token", "0123456789abcdef", 0o444);
    place.file("secret", SECRET, 0o444);
    place.file("credential", r#"{"username":"9999999999:a","password":"p"}"#, 0o444);
    let config = &["status", "--config", "turnserver.toml"][..];
    let token = &["status", "--admin", "127.0.0.1:1", "--admin-token-file", "token"];
    let secret = &["probe", "turn:127.0.0.1:1", "--timeout", "0.1", "--user", "a", "--secret-file", "secret"];
    let credential = &["probe", "turn:127.0.0.1:1", "--timeout", "0.1", "--credential", "credential"];
    for args in [config, token, secret, credential] {
        let said = |variable: &str| {
            let ran = ran(place.command(args).env("TURNSTONE_SECRET_FILES_READABLE_BY", variable));
            format!("{}{}", ran.out, ran.err)
        };
        for refused in ["", "group"] {
            assert!(said(refused).contains("is open to"), "{args:?} {refused}: {}", said(refused));
        }
        let accepted = said("everybody");
        assert!(!accepted.contains("is open to") && !accepted.is_empty(), "{args:?}: {accepted}");
    }
}

#[test]
fn an_access_token_passes_its_own_verification_and_another_servers_does_not() {
    let place = Place::new();
    place.append(
        "[[auth.token-keys]]\nid = \"old\"\nnot-after = \"2020-01-01T00:00:00Z\"\nkey = \"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"\n\
         [[auth.token-keys]]\nid = \"k\"\nkey = \"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\"\n",
    );
    let made: Value = serde_json::from_str(&place.run(&["credentials", "token", "--ttl", "10m"]).ok()).unwrap();
    assert_eq!((&made["kid"], &made["expires_in"], &made["token_type"]), (&"k".into(), &600.into(), &"pop".into()));
    let token = made["access_token"].as_str().unwrap();
    let verify = |place: &Place, token: &str| place.run(&["credentials", "token", "--verify", token]);
    let valid = verify(&place, token).ok();
    assert!(valid.starts_with("valid: of the key \"k\", for "), "{valid}");
    let old: Value = serde_json::from_str(&place.run(&["credentials", "token", "--key-id", "old"]).ok()).unwrap();
    for (token, why) in [
        (old["access_token"].as_str().unwrap(), "its key \"old\" is not good at this moment"),
        ("no base64", "not valid: it is not base64"),
        ("AAAA", "no key in [[auth.token-keys]] opens it for \"turnstone\""),
    ] {
        let refused = verify(&place, token);
        assert!(refused.code == 1 && refused.out.contains(why), "{}", refused.out);
    }
    let elsewhere = Place::with("[auth]\nserver-name = \"elsewhere.example\"\n");
    elsewhere.append("[[auth.token-keys]]\nid = \"k\"\nkey = \"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\"\n");
    assert!(verify(&elsewhere, token).out.contains("for \"elsewhere.example\""));
    let none = Place::new().run(&["credentials", "token"]);
    assert!(none.code == 2 && none.err.contains("has no [[auth.token-keys]]"), "{}", none.err);
}

const LIMITED: &str =
    "[auth]\nusername-limits = true\n[[peers.policy]]\nname = \"sfu\"\nmode = \"sfu\"\nallowed = [\"8.8.8.8\"]\n";

#[test]
fn limits_are_signed_with_the_name_and_verified() {
    let place = Place::with(LIMITED);
    let args = ["credentials", "--user", "a", "--json", "--bandwidth", "2M", "--allocations", "4", "--peers", "sfu"];
    let credential = json(&place.run(&args).ok());
    let username = credential["username"].as_str().unwrap();
    assert!(username.ends_with(":a;bw=2M;alloc=4;peers=sfu"), "{username}");
    assert_eq!(credential["password"], **mint(SECRET.as_bytes(), username));
    let verified = place.run(&["credentials", "verify", username, credential["password"].as_str().unwrap()]).ok();
    assert!(
        verified.starts_with("valid: ") && verified.ends_with("; limited to bw=2M;alloc=4;peers=sfu\n"),
        "{verified}"
    );

    let verify = |username: &str| place.run(&["credentials", "verify", username, &mint(SECRET.as_bytes(), username)]);
    let ran = verify("9999999999:a;pps=5");
    assert_eq!(ran.code, 1);
    assert!(
        ran.out.contains("not valid: the limits in the username cannot be read: there is a limit that"),
        "{}",
        ran.out
    );
    let ran = verify("9999999999:a;peers=gone");
    assert!(ran.code == 1 && ran.out.contains("no [[peers.policy]] has the name \"gone\""), "{}", ran.out);
    let ran = place.run(&["credentials", "verify", "9999999999:a;alloc=1", &mint(SECRET.as_bytes(), "9999999999:a")]);
    assert!(ran.code == 1 && ran.out.contains("over the username without its limits"), "{}", ran.out);
}

#[test]
fn limits_that_the_server_would_not_read_are_refused_with_the_flag() {
    let refused = |place: &Place, args: &[&str], why: &str| {
        let ran = place.run(&[&["credentials", "--user"][..], args].concat());
        assert_eq!(ran.code, 2);
        assert!(ran.err.contains(why), "{args:?}: {}", ran.err);
    };
    let place = Place::with(LIMITED);
    refused(&place, &["a", "--bandwidth", "fast"], "--bandwidth: \"fast\": bw is not a whole number");
    refused(&place, &["a", "--allocations", "0"], "--allocations: \"0\": alloc is not");
    refused(&place, &["a", "--peers", "gone"], "--peers: no [[peers.policy]] has the name \"gone\"");
    refused(&place, &["a", "--allocations", "1;bw=1G"], "--allocations");
    refused(&place, &["a;b"], "--user: a name has no ;");
    let in_realm = Place::with(
        "[[realm]]\nname = \"b\"\nurls = [\"turns:b.example\"]\nusername-limits = true\n[[realm.secrets]]\nfile = \"secret\"\n",
    );
    refused(&in_realm, &["a", "--bandwidth", "2M"], "set username-limits = true in [auth] or in the [[realm]]");
    let made = in_realm.run(&["credentials", "--user", "a", "--json", "--bandwidth", "2Mbit/s", "--in-realm", "b"]);
    let username = json(&made.ok())["username"].as_str().unwrap().to_owned();
    let password = mint(SECRET.as_bytes(), &username);
    let verified = in_realm.run(&["credentials", "verify", &username, &password, "--in-realm", "b"]).ok();
    assert!(verified.ends_with("; limited to bw=2M\n"), "{verified}");
    let plain = Place::new();
    refused(&plain, &["a", "--bandwidth", "2M"], "set username-limits = true in [auth]");
    assert_eq!(plain.run(&["credentials", "--user", "a;b"]).code, 0, "as before");
    let ran =
        plain.run(&["credentials", "verify", "9999999999:a;bw=2M", &mint(SECRET.as_bytes(), "9999999999:a;bw=2M")]);
    assert!(ran.code == 0 && ran.out.contains("bw=2M counts as part of the user's name"), "{}", ran.out);
}

#[test]
fn a_key_for_the_api_is_shown_once_and_what_the_configuration_gets_is_valid() {
    let place = Place::new();
    let text = ran(&mut place.command(&["credentials", "key", "--id", "back.end"])).ok();
    let key = text.lines().find(|line| line.starts_with("tsk_")).unwrap();
    assert_eq!(key.len(), 47, "{text}");
    let (_, table) = text.split_once("then turnstone reload:\n\n").unwrap();
    assert!(
        table.starts_with("[[credentials.keys]]\nid = \"back.end\"\nsha256 = \"") && !table.contains(key),
        "{table}"
    );
    place.append(&format!("[credentials]\nlisten = \"127.0.0.1:9643\"\ntls = false\n{table}"));
    let shown = place.run(&["config", "show"]).ok();
    assert!(shown.contains("# [[credentials.keys]] id = \"back.end\", max-ttl = \"1d\""), "{shown}");
    let hash = table.split('"').nth(3).unwrap();
    assert!(!shown.contains(hash), "{shown}");

    let first = json(&ran(&mut place.command(&["credentials", "key", "--json"])).ok());
    let key = first["key"].as_str().unwrap();
    let again = ran(place.command(&["credentials", "key", "--json", "--stdin"]).write_stdin(format!("{key}\n")));
    assert_eq!(json(&again.out), serde_json::json!({ "id": "backend", "sha256": first["sha256"] }));
    for (args, input, error) in [
        (&["--id", "a b"][..], "", "error: --id: \"a b\": expected at most 64 letters"),
        (&["--stdin"], "short", "error: --stdin: expected a random key of at least 16"),
        (&["--stdin"], "two words that are long enough", "error: --stdin: expected a random key"),
    ] {
        let ran = ran(place.command(&[&["credentials", "key"][..], args].concat()).write_stdin(input));
        assert!(ran.code == 2 && ran.err.starts_with(error), "{args:?}: {}", ran.err);
    }
}

#[test]
fn formats_for_shells_and_for_programs_that_make_credentials_themselves() {
    let place = Place::with("[auth]\npublic-host = \"turn.example.org\"\n");
    let env = place.run(&["credentials", "--user", "o'neil", "--format", "env"]).ok();
    let plain = place.run(&["credentials", "--user", "anna", "--format", "env"]).ok();
    assert!(plain.contains(":anna\n") && !plain.contains('\''), "a file of variables keeps quotes: {plain}");
    let script = format!("{env}printf '%s %s %s' \"$TURN_USERNAME\" \"$TURN_PASSWORD\" \"$TURN_URLS\"");
    let shell = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
    let printed = String::from_utf8(shell.stdout).unwrap();
    let (username, rest) = printed.split_once(' ').unwrap();
    let (password, urls) = rest.split_once(' ').unwrap();
    assert!(username.ends_with(":o'neil"), "{username}");
    assert_eq!(*password, **mint(SECRET.as_bytes(), username));
    assert_eq!(urls, "turn:turn.example.org:3478?transport=udp,turn:turn.example.org:3478?transport=tcp");

    for (format, line) in [
        ("synapse", "turn_user_lifetime: 3600s"),
        ("nextcloud", &format!("php occ talk:turn:add --secret='{SECRET}' turn 'turn.example.org:3478' udp,tcp")),
        ("prosody", "turn_external_host = \"turn.example.org\""),
        ("jitsi", &format!("external_service_secret = \"{SECRET}\"")),
        ("ejabberd", "    credentials_lifetime: 3600s"),
        ("livekit", "    - host: \"turn.example.org\""),
    ] {
        let text = place.run(&["credentials", "--format", format, "--ttl", "1h"]).ok();
        assert!(text.lines().any(|found| found == line), "{format}: {text}");
        assert!(text.contains(SECRET), "{format}: {text}");
    }
    for (args, error) in [
        (&["--format", "synapse", "--user", "a"][..], "error: --user: it makes credentials itself"),
        (&["--format", "synapse", "--count", "2"], "error: --count: expected"),
        (&["--format", "livekit", "--bandwidth", "2M"], "error: --bandwidth, --allocations and --peers: "),
        (&["--format", "env", "--user", "a", "--count", "2"], "error: --count: expected"),
        (&["--user", "a", "--count", "0"], "error: invalid value '0' for '--count"),
        (&[], "error: --user is missing"),
    ] {
        let ran = place.run(&[&["credentials"][..], args].concat());
        assert!(ran.code == 2 && ran.err.starts_with(error), "{args:?}: {}", ran.err);
    }
}

#[test]
fn many_credentials_are_for_as_many_users() {
    let place = Place::new();
    let lines = place.run(&["credentials", "--user", "load", "--count", "3", "--json"]).ok();
    let users: Vec<_> = lines
        .lines()
        .map(|line| {
            let made: Value = serde_json::from_str(line).unwrap();
            let username = made["username"].as_str().unwrap();
            assert_eq!(made["password"], **mint(SECRET.as_bytes(), username));
            username.split_once(':').unwrap().1.to_owned()
        })
        .collect();
    assert_eq!(users, ["load-1", "load-2", "load-3"]);
    let text = place.run(&["credentials", "--user", "load", "--count", "2"]).ok();
    assert_eq!(text.split("\n\n").count(), 2, "{text}");
}

#[test]
fn the_page_on_realms_has_the_urls_that_are_printed_for_each_of_them() {
    let page = include_str!("../../docs/tls-and-realms.md");
    let blocks = page.split("```toml\n").skip(1).filter_map(|rest| rest.split_once("```")).map(|(block, _)| block);
    let [config] = blocks.filter(|block| block.contains("[[realm.secrets]]")).collect::<Vec<_>>()[..] else {
        panic!("not one configuration with a realm")
    };
    let place = Place::new();
    ["secret", "secret-b"].iter().for_each(|name| _ = place.file(name, "0123456789abcdef", 0o600));
    let folder = place.path("");
    place.file("realms.toml", &config.replace("/etc/turnstone/", &format!("{}/", folder.display())), 0o600);
    let table = page.split("The URLs that work for each:").nth(1).unwrap();
    let mut rows = 0;
    for row in table.lines().filter(|line| line.contains("| `sudo turnstone credentials ")) {
        let code: Vec<_> = row.split('`').skip(1).step_by(2).collect();
        let args = code[0].strip_prefix("sudo turnstone ").unwrap().split(' ');
        let printed =
            ran(place.command(&args.collect::<Vec<_>>()).args(["--json", "--offline", "--config", "realms.toml"])).ok();
        let printed: Value = serde_json::from_str(&printed).unwrap();
        assert_eq!(serde_json::json!(code[1..]), printed["uris"], "{row}");
        rows += 1;
    }
    assert_eq!(rows, 2);
}
