//! How a server finds its store, and what it does when that is gone.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::redis::Redis;
use crate::rights::doctor;
use crate::support::free_port;
use crate::support::{TestAuthority, wait_until};
use crate::{LIMIT, metric, store_status, turnstone, wait_connected, with_store};

#[test]
fn the_status_of_the_store_is_shown_and_a_store_that_is_killed_or_paused_is_found_again() {
    let mut redis = Redis::start();
    let url = redis.url();
    let server = with_store(&format!("url = \"{url}\"\nnode = \"turn1\"\nprefix = \"fleet\"")).start();
    wait_connected(&server, true);
    let shown = turnstone(&server, &["store", "status"]);
    assert_eq!(shown.code, Some(0));
    for text in [url.as_str(), "connected since", "turn1", "fleet:...", "no limit holds over all servers"] {
        assert!(shown.stdout.contains(text), "{text}: {}", shown.stdout);
    }
    assert!(turnstone(&server, &["status"]).stdout.contains(&format!("{url}, connected")));
    assert!(metric(&server, "turnstone_store_connected") == 1.0);

    for is_paused in [false, true] {
        let connections = store_status(&server)["connections"].as_u64().unwrap();
        if is_paused {
            redis.pause()
        } else {
            redis.kill()
        }
        wait_connected(&server, false);
        let shown = turnstone(&server, &["store", "status"]);
        assert!(shown.code == Some(1) && shown.stdout.contains("NOT CONNECTED since"), "{shown:?}");
        assert!(turnstone(&server, &["status"]).stdout.contains("NOT CONNECTED:"));
        assert!(metric(&server, "turnstone_store_connected") == 0.0);
        if is_paused {
            redis.resume()
        } else {
            redis.start_again()
        }
        wait_connected(&server, true);
        assert_eq!(store_status(&server)["connections"].as_u64().unwrap(), connections + 1);
    }
    // Each time once, however often it was tried.
    wait_until("the last line", LIMIT, || {
        (server.log().matches("connected with the store").count() == 3).then_some(())
    });
    assert_eq!(server.log().matches("the store cannot be reached").count(), 2, "{}", server.log());
    assert_eq!(server.log().matches("connected with the store").count(), 3, "{}", server.log());
}

#[test]
fn a_server_starts_without_its_store_and_says_why_it_has_none() {
    let port = free_port();
    let server = with_store(&format!("url = \"redis://127.0.0.1:{port}\"")).start();
    wait_until("the problem to be told", LIMIT, || store_status(&server)["problem"].as_str().map(drop));
    let status = store_status(&server);
    assert!(status["problem"].as_str().unwrap().contains("refused"), "{status}");
    let redis = Redis::start_at(port, tempfile::tempdir().unwrap(), Vec::new(), &[]);
    wait_connected(&server, true);
    drop(redis);
}

#[test]
fn a_wrong_password_is_told_and_not_shown_and_a_reload_brings_the_right_one() {
    let redis = Redis::start_with(&["--requirepass", "the-right-password"]);
    let file = redis.folder().join("password");
    write_secret(&file, "the-wrong-password\n");
    let server = with_store(&format!("url = \"{}\"\npassword-file = {file:?}", redis.url())).start();
    wait_until("the problem to be told", LIMIT, || store_status(&server)["problem"].as_str().map(drop));
    let status = store_status(&server);
    assert!(status["problem"].as_str().unwrap().starts_with("the user or the password is refused"), "{status}");
    wait_until("the warning", LIMIT, || server.log().contains("does not let this server in").then_some(()));
    let judged = doctor(&server);
    assert!(
        judged.contains("answers, but the user or the password is refused") && judged.contains("ACL LIST"),
        "{judged}"
    );
    assert!(turnstone(&server, &["status"]).stdout.contains("NOT CONNECTED: the user or the password is refused"));
    write_secret(&file, "the-right-password\n");
    server.signal(rustix::process::Signal::HUP);
    wait_connected(&server, true);
    // A loss that turns out to be another one is told as that, once.
    redis.ask_as("the-right-password", &["CONFIG", "SET", "requirepass", "another-password"]);
    redis.ask_as("another-password", &["CLIENT", "KILL", "TYPE", "normal"]);
    wait_connected(&server, false);
    let told = |text: &str| server.log().matches(text).count();
    wait_until("the other warning", LIMIT, || (told("does not let this server in") == 2).then_some(()));
    assert_eq!(told("the store cannot be reached"), 1, "{}", server.log());
    redis.ask_as("another-password", &["CONFIG", "SET", "requirepass", "the-right-password"]);
    wait_connected(&server, true);
    // Without one, the store takes the connection and refuses whatever it is asked.
    let without = with_store(&format!("url = \"{}\"", redis.url())).start();
    wait_until("the problem to be told", LIMIT, || store_status(&without)["problem"].as_str().map(drop));
    let status_without = store_status(&without);
    assert!(status_without["problem"].as_str().unwrap().contains("password is refused"), "{status_without}");
    wait_until("the warning", LIMIT, || without.log().contains("does not let this server in").then_some(()));
    for password in ["the-wrong-password", "the-right-password"] {
        assert!(!server.log().contains(password) && !status.to_string().contains(password));
    }
}

#[test]
fn a_store_over_tls_with_a_user_is_trusted_by_its_authority_alone_and_is_shown_a_certificate() {
    let authority = TestAuthority::issue(&["localhost", "127.0.0.1"]);
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    for (name, pem) in [
        ("ca.pem", &authority.authority_pem),
        ("cert.pem", &authority.certificate_pem),
        ("key.pem", &authority.key_pem),
    ] {
        write_secret(&folder.path().join(name), pem);
    }
    fs::write(
        folder.path().join("users.acl"),
        "user default off\nuser turnstone on >acl-password ~turnstone:* &* +@all\n",
    )
    .unwrap();
    let port = free_port();
    // As Debian's does, it wants a certificate of its clients.
    let arguments = [
        "--port",
        "0",
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &at("cert.pem"),
        "--tls-key-file",
        &at("key.pem"),
        "--tls-ca-cert-file",
        &at("ca.pem"),
        "--aclfile",
        &at("users.acl"),
    ];
    let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let redis = Redis::start_at(port, tempfile::tempdir().unwrap(), arguments, &[]);
    let store =
        |more: &str| format!("url = \"rediss://turnstone@localhost:{port}\"\npassword = \"acl-password\"\n{more}");
    let ours = format!("certificate = {:?}\nkey = {:?}\n", at("cert.pem"), at("key.pem"));
    let trusted = with_store(&store(&format!("ca = {:?}\n{ours}", at("ca.pem")))).start();
    wait_connected(&trusted, true);
    for (more, why) in [(ours, "certificate"), (format!("ca = {:?}", at("ca.pem")), "certificate")] {
        let refused = with_store(&store(&more)).start();
        wait_until("the problem to be told", LIMIT, || store_status(&refused)["problem"].as_str().map(drop));
        let status = store_status(&refused);
        assert!(
            status["connected"] == false && status["problem"].as_str().unwrap().to_lowercase().contains(why),
            "{status}"
        );
    }
    drop(redis);
}

/// For its owner's eyes.
pub(crate) fn write_secret(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}
