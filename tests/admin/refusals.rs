//! Refusals, as an operator who is asked "why can't I connect" finds them.

use serde_json::Value;

use crate::api::Api;
use crate::support::{Credentials, TestServer, Transport, wait_until};
use crate::wire::Wire;
use crate::{LIMIT, config, config_with_port};

fn refusals(api: &Api, query: &str) -> Vec<Value> {
    api.get(&format!("/v1/refusals{query}"))["refusals"].as_array().unwrap().clone()
}

#[test]
fn every_refusal_is_explained_and_found_by_user_and_by_address() {
    let rules = "[peers]\ndenied = [\"198.51.100.0/24\", \"9.9.9.0/24\"]\n[quota]\nallocations-per-user = 1\n\
                 [[auth.users]]\nname = \"camera\"\npassword = \"a rather long password\"\n";
    let server = TestServer::start(&config(rules));
    let mut api = Api::of(&server);
    api.hide("a rather long password");
    let started = api.get("/v1/status")["started_unix"].clone();
    assert_eq!(api.get("/v1/refusals"), serde_json::json!({ "refusals": [], "kept_since_unix": started }));
    let refused = |credentials: &Credentials| Wire::connect(&server, Transport::Udp, credentials).allocate();

    assert_eq!(refused(&server.expired_credentials("late")), Err(401));
    let wrong = Credentials { password: "guessed".to_owned(), ..server.credentials("guest") };
    assert_eq!(refused(&wrong), Err(401));
    let wrong = Credentials { username: "camera".to_owned(), password: "guessed".to_owned() };
    assert_eq!(refused(&wrong), Err(401));
    let nobody = Credentials { username: "nobody\u{1b}[31m\"".to_owned(), password: "x".to_owned() };
    assert_eq!(refused(&nobody), Err(401));
    let (mut client, _) = Wire::allocated(&server, Transport::Tcp, "alice");
    assert_eq!(refused(&server.credentials("alice")), Err(486));
    for peer in ["10.1.2.3:5000", "198.51.100.7:5000", "169.254.169.254:80", "[fd00::1]:9"] {
        assert!(client.permit(peer).is_err(), "{peer}");
    }
    assert_eq!(client.bind(0x4000, "9.9.9.9:53".parse().unwrap()), Err(403));
    assert_eq!(client.bind(0x4000, server.udp()), Err(403));

    let one = |query: &str| {
        let found = refusals(&api, query);
        assert_eq!(found.len(), 1, "{query}: {found:?}");
        found[0].clone()
    };
    let late = one("?user=late");
    assert_eq!((&late["code"], &late["reason"]), (&401.into(), &"credential-expired".into()));
    assert!(["the credential had expired 3 min before"].contains(&late["explanation"].as_str().unwrap()), "{late}");
    assert_eq!((&late["method"], &late["transport"], &late["peer"]), (&"Allocate".into(), &"udp".into(), &Value::Null));
    assert_eq!(late["username_complete"], true);
    assert_eq!(
        one("?user=guest")["explanation"],
        "wrong password, or made with another secret (or with a line end behind it): turnstone credentials verify USERNAME PASSWORD says more"
    );
    assert_eq!(one("?user=camera")["explanation"], "wrong password");
    let stranger = one("?user=nobody%1B%5B31m%22");
    assert_eq!(stranger["reason"], "unknown-user");
    assert_eq!(stranger["username"], nobody.username);

    let candidate = one("?address=10.1.2.3");
    assert_eq!(candidate["explanation"], "private host candidate (10.0.0.0/8, private use): normal in ICE");
    assert_eq!((&candidate["normal"], &candidate["code"]), (&true.into(), &403.into()));
    assert!(candidate["peer"].as_str().unwrap().starts_with("10.1.2.3:"), "{candidate}");
    let ruled = one("?address=198.51.100.7");
    assert_eq!(ruled["explanation"], "denied by the rule \"198.51.100.0/24\" in [peers] denied");
    assert_eq!((&ruled["normal"], &ruled["method"]), (&false.into(), &"CreatePermission".into()));
    assert_eq!(one("?address=9.9.9.9:53")["explanation"], "denied by the rule \"9.9.9.0/24\" in [peers] denied");
    assert_eq!(one("?address=169.254.169.254")["normal"], false);
    let own = one(&format!("?address={}", server.udp()));
    assert_eq!((&own["reason"], &own["method"]), (&"peer-is-server".into(), &"ChannelBind".into()));

    // What the peer policy makes of an address is told with it, whether it was refused or not.
    let as_peer = |query: &str| api.get(&format!("/v1/refusals{query}"))["as_peer"].clone();
    for (address, allowed, explanation) in [
        ("10.1.2.3", false, "10.0.0.0/8, private use"),
        ("198.51.100.9:5000", false, "the rule \"198.51.100.0/24\" in [peers] denied"),
        ("8.8.8.8", true, "no rule denies it"),
        ("8.8.8.8:53", true, "no rule denies it"),
        (&server.udp().to_string(), false, "an address of this server"),
    ] {
        let wanted = serde_json::json!({ "allowed": allowed, "explanation": explanation });
        assert_eq!(as_peer(&format!("?address={address}")), wanted, "{address}");
    }
    assert!(as_peer("").is_null() && as_peer("?user=alice").is_null());
    // Without a port, the ports that were refused are judged too: a permission for the address may be had all the same.
    let own = as_peer(&format!("?address={}", server.udp().ip()));
    assert_eq!(own["allowed"], true, "{own}");
    let port = serde_json::json!([{ "port": server.udp().port(), "allowed": false, "explanation": "an address of this server" }]);
    assert_eq!(own["ports"], port, "{own}");

    let by_client = refusals(&api, &format!("?address={}", client.local_address()));
    assert_eq!(by_client.len(), 6, "{by_client:?}");
    assert!(by_client.iter().all(|refusal| refusal["transport"] == "tcp"));
    let of_alice = refusals(&api, "?user=alice");
    assert_eq!(of_alice.len(), 7, "{of_alice:?}");
    assert!(of_alice.iter().any(|refusal| refusal["reason"] == "user-quota"), "{of_alice:?}");
    assert!(of_alice.is_sorted_by(|newer, older| newer["at_unix"].as_u64() >= older["at_unix"].as_u64()));
    assert_eq!(refusals(&api, "?limit=2").len(), 2);
    assert_eq!(refusals(&api, "?user=alice&address=10.1.2.3").len(), 1);
    assert_eq!(refusals(&api, "?user=late&address=10.1.2.3").len(), 0);
    let status = api.get("/v1/status");
    assert_eq!((&status["refused"]["wrong-password"], &status["refused"]["user-quota"]), (&2.into(), &1.into()));
    assert!(status["refused"]["no-port"].is_null());
}

#[test]
fn an_explanation_is_by_the_rules_in_force_and_a_full_ring_says_since_when() {
    let server = TestServer::start(&config("[peers]\ndenied = [\"9.9.9.0/24\"]\n"));
    let api = Api::of(&server);
    let (mut client, _) = Wire::allocated(&server, Transport::Udp, "alice");
    assert_eq!(client.permit("9.9.9.9:0"), Err(403));
    server.write_config(&config(""));
    api.done("POST", "/v1/reload", None, 200);
    let explanation = refusals(&api, "?address=9.9.9.9")[0]["explanation"].clone();
    assert_eq!(explanation, "denied by the rules at that time; those in force now allow it");

    let started = api.get("/v1/status")["started_unix"].as_u64().unwrap();
    let unix_secs = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    wait_until("a later second", LIMIT, || (unix_secs() > started + 1).then_some(()));
    for _ in 0..600 {
        assert_eq!(client.permit("10.0.0.1:0"), Err(403));
    }
    let answer = api.get("/v1/refusals?limit=1000");
    assert_eq!(answer["refusals"].as_array().unwrap().len(), 512);
    assert!(answer["kept_since_unix"].as_u64().unwrap() > started, "{}", answer["kept_since_unix"]);
}

#[test]
fn the_admin_api_is_never_a_peer() {
    let server = TestServer::start(&config_with_port("[metrics]\nlisten = \"127.0.0.1:0\"\n"));
    let api = Api::at_port_of(&server);
    let (mut client, _) = Wire::allocated(&server, Transport::Udp, "mallory");
    let admin: std::net::SocketAddr = api.address().parse().unwrap();
    assert_eq!(client.bind(0x4000, admin), Err(403));
    let refusal = refusals(&api, &format!("?address={admin}")).remove(0);
    assert_eq!(refusal["reason"], "peer-is-server");
    // With --dev other programs on loopback are peers.
    let program = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    program.set_read_timeout(Some(LIMIT)).unwrap();
    assert!(client.bind(0x4000, program.local_addr().unwrap()).is_ok());
    assert!(client.bind(0x4001, format!("127.0.0.2:{}", admin.port()).parse().unwrap()).is_ok());
    // A reload does not forget it.
    api.done("POST", "/v1/reload", None, 200);
    assert_eq!(client.bind(0x4002, admin), Err(403));
}
