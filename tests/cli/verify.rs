//! `turnstone credentials verify`: every way in which people get credentials wrong, by name.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::Sha256;

use std::time::{SystemTime, UNIX_EPOCH};

use super::{Place, SECRET};

fn now_unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn hmac_sha1(secret: &[u8], data: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha1>::new_from_slice(secret).unwrap();
    mac.update(data.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn password(secret: &[u8], data: &str) -> String {
    STANDARD.encode(hmac_sha1(secret, data))
}

fn verify(place: &Place, username: &str, password: &str) -> (i32, String) {
    let args = ["credentials", "verify", "--offline", "--config", "turnserver.toml", "--", username, password];
    let ran = super::ran(&mut place.command(&args));
    assert_eq!(ran.err, "");
    assert!(!ran.out.contains(SECRET), "the secret is shown: {}", ran.out);
    (ran.code, ran.out)
}

#[test]
fn json_has_the_verdict_and_the_sentence() {
    let place = Place::new();
    let args = ["credentials", "verify", "--config", "turnserver.toml", "--json", "alice", "guess"];
    let ran = super::ran(&mut place.command(&args));
    let answer: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, answer["valid"].as_bool()), (1, Some(false)));
    assert!(answer["reason"].as_str().unwrap().starts_with("not valid: not a time-limited credential"), "{answer}");
    let shown: serde_json::Value = serde_json::from_str(&place.run(&["config", "show", "--json"]).ok()).unwrap();
    assert_eq!(shown["relay"]["ports"], "50000-50099");
}

#[test]
fn who_may_not_read_the_secret_is_told_of_sudo() {
    use std::os::unix::process::CommandExt;
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let place = Place::new();
    let program = place.path("turnstone");
    // By another process: one that this one forks meanwhile would have it open for writing, and nobody could execute it.
    assert!(
        std::process::Command::new("cp").arg(env!("CARGO_BIN_EXE_turnstone")).arg(&program).status().unwrap().success()
    );
    let directory = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(place.path(""), directory).unwrap();
    for (args, has_hint) in [(&["credentials", "verify", "a", "b"][..], true), (&["check"], true), (&["serve"], false)]
    {
        let mut command = std::process::Command::new(&program);
        command
            .current_dir(place.path(""))
            .args(args)
            .args(["--config", "turnserver.toml"])
            .env_clear()
            .uid(65534)
            .gid(65534);
        let output = command.output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{err}");
        assert_eq!(err.contains("run it with sudo"), has_hint, "{args:?}: {err}");
    }
}

#[test]
fn every_mistake_has_its_sentence() {
    let place = Place::new();
    let now = now_unix();
    let secret = SECRET.as_bytes();
    let alice = format!("{}:alice", now + 3600);
    let expired = format!("{}:alice", now - 185);
    let milliseconds = format!("{}:alice", (now + 3600) * 1000);
    let hmac = hmac_sha1(secret, &alice);
    let sha256 = {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
        mac.update(alice.as_bytes());
        STANDARD.encode(mac.finalize().into_bytes())
    };
    let hex: String = hmac.iter().map(|byte| format!("{byte:02x}")).collect();
    // A user whose HMAC has one of the two characters in which the alphabets differ.
    let plus = (0..1000)
        .map(|number| format!("{}:{number}", now + 3600))
        .find(|username| password(secret, username).contains(['+', '/']))
        .unwrap();
    let newline = format!("{SECRET}\n");
    let cases = [
        (alice.clone(), password(b"another secret, as long", &alice), "not valid: wrong secret: "),
        (alice.clone(), password(secret, &format!("{alice}\n")), "newline at the end of the username"),
        (alice.clone(), SECRET.to_owned(), "the password is the shared secret \"main\" itself"),
        (expired.clone(), password(secret, &expired), "not valid: expired 3 min"),
        (expired.clone(), password(b"another secret, as long", &expired), "made with none of the configured secrets"),
        (milliseconds.clone(), password(secret, &milliseconds), "the timestamp is in milliseconds instead of seconds"),
        (alice.clone(), hex, "the password is in hex instead of base64"),
        (alice.clone(), STANDARD_NO_PAD.encode(&hmac), "the password is base64 without its padding (=)"),
        (plus.clone(), URL_SAFE.encode(hmac_sha1(secret, &plus)), "url-safe base64 instead of standard base64"),
        (alice.clone(), format!(" {}", STANDARD.encode(&hmac)), "the password has white space around it"),
        (alice.clone(), "letmein".to_owned(), "the password is not an HMAC-SHA1 in base64 (28 characters)"),
        (alice.clone(), sha256, "the password is an HMAC-SHA256 instead of an HMAC-SHA1"),
        (alice.clone(), password(secret, "alice"), "the HMAC was made over the user part alone"),
        (
            alice.clone(),
            password(secret, alice.split(':').next().unwrap()),
            "the HMAC was made over the timestamp alone",
        ),
        (alice.clone(), password(newline.as_bytes(), &alice), "the secret was used with a newline at its end"),
        ("alice".to_owned(), password(secret, "alice"), "the username has no timestamp"),
        ("alice".to_owned(), "letmein".to_owned(), "not a time-limited credential"),
    ];
    for (username, password, sentence) in cases {
        let (code, out) = verify(&place, &username, &password);
        assert_eq!(code, 1, "{username} {password}: {out}");
        assert!(out.starts_with("not valid: ") && out.contains(sentence), "{out}lacks {sentence}");
    }
    let (code, out) = verify(&place, &alice, &STANDARD.encode(&hmac));
    assert_eq!(code, 0);
    assert!(out.starts_with("valid: made with secret \"main\", expires in "), "{out}");
}

#[test]
fn a_secret_that_was_decoded_before_use_is_recognised() {
    let hex_secret = "00112233445566778899aabbccddeeff";
    let base64_secret = "AAECAwQFBgcICQoLDA0ODw==";
    let place = Place::new();
    place.append(&format!(
        "[[auth.secrets]]\nid = \"hex\"\nsecret = \"{hex_secret}\"\n[[auth.secrets]]\nid = \"b64\"\nsecret = \"{base64_secret}\"\n"
    ));
    let alice = format!("{}:alice", now_unix() + 3600);
    let raw_hex: Vec<u8> = (0..16).map(|at| u8::from_str_radix(&hex_secret[2 * at..2 * at + 2], 16).unwrap()).collect();
    let (code, out) = verify(&place, &alice, &password(&raw_hex, &alice));
    assert!(code == 1 && out.contains("the secret was hex-decoded before use") && out.contains("\"hex\""), "{out}");
    let raw_base64 = STANDARD.decode(base64_secret).unwrap();
    let (code, out) = verify(&place, &alice, &password(&raw_base64, &alice));
    assert!(code == 1 && out.contains("the secret was base64-decoded before use") && out.contains("\"b64\""), "{out}");
}

#[test]
fn static_users_are_verified_too() {
    let place = Place::new();
    place.append("[[auth.users]]\nname = \"camera\"\npassword = \"correct horse\"\n");
    let (code, out) = verify(&place, "camera", "correct horse");
    assert_eq!((code, out.as_str()), (0, "valid: static user \"camera\"\n"));
    for (name, password) in [("camera", "wrong"), ("nobody", "correct horse"), ("Camera", "correct horse")] {
        let (code, out) = verify(&place, name, password);
        assert!(code == 1 && out.starts_with("not valid: no static user has this name and password"), "{out}");
    }
    let alice = format!("{}:alice", now_unix() + 60);
    assert_eq!(verify(&place, &alice, &password(SECRET.as_bytes(), &alice)).0, 0);
}

#[test]
fn the_password_may_come_from_standard_input() {
    let place = Place::new();
    let alice = format!("{}:alice", now_unix() + 60);
    let password = password(SECRET.as_bytes(), &alice);
    let mut command = place.command(&["credentials", "verify", "--config", "turnserver.toml", &alice, "-"]);
    let ran = super::ran(command.write_stdin(format!("{password}\n")));
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
}

#[test]
fn a_username_that_is_too_long_is_no_valid_credential() {
    let place = Place::new();
    let (code, _) = verify(&place, &"a".repeat(70_000), "x");
    assert_eq!(code, 1);
}

#[test]
fn a_credential_that_the_file_of_revocations_names_is_not_valid() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let text = "[relay]\nipv4 = \"127.0.0.1\"\n[auth]\nrevocations = \"revoked\"\ncredential-lifetime-max = \"2h\"\n\
                [[auth.secrets]]\nsecret = \"0123456789abcdef0123\"\n[[auth.users]]\nname = \"door\"\npassword = \"opens\"\n";
    std::fs::write(path("turnserver.toml"), text).unwrap();
    std::fs::set_permissions(path("turnserver.toml"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::write(path("revoked"), "{\"user\": \"mallory\"}\n{\"user\": \"door\"}\n").unwrap();
    let config = path("turnserver.toml").display().to_string();
    let turnstone = |args: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_turnstone"))
            .args(args)
            .args(["--config", &config])
            .env_clear()
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap())
    };
    let minted = |user: &str, ttl: &str| {
        let (code, text) = turnstone(&["credentials", "--user", user, "--ttl", ttl, "--format", "json"]);
        assert_eq!(code, Some(0), "{text}");
        let json: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        ["username", "password"].map(|key| json[key].as_str().unwrap().to_owned())
    };
    let judged = |user: &str, password: &str| turnstone(&["credentials", "verify", user, password]);
    let [name, password] = minted("mallory", "1h");
    let (code, text) = judged(&name, &password);
    assert!(code == Some(1) && text.contains("the file of revocations in [auth] revokes it"), "{text}");
    let (code, text) = judged("door", "opens");
    assert!(code == Some(1) && text.contains("revokes it"), "{text}");
    let [name, password] = minted("alice", "2h");
    assert_eq!(judged(&name, &password).0, Some(0));
    let (code, text) = turnstone(&["credentials", "--user", "alice", "--ttl", "3h"]);
    assert!(code == Some(2) && text.contains("more than credential-lifetime-max in [auth], 2h"), "{text}");
}
