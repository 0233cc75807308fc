//! Users whom the abuse guard has suspended.

use serde_json::json;

use crate::api::Api;
use crate::support::{TestServer, Transport};
use crate::wire::Wire;
use crate::{config, logged};

/// How a question about a realm that there is not is refused.
fn suspension_of_nobody(api: &Api) -> u16 {
    api.refused("DELETE", "/v1/suspensions?user=carol&realm=nowhere", None).0
}

#[test]
fn one_of_two_users_of_one_name_is_suspended_listed_lifted_and_ended_by_the_realm() {
    let more = r#"
        [guard]
        suspend-after = 1
        [[listen]]
        address = "127.0.0.2:0"
        transport = "udp"
        realm = "b.example"
        [[realm]]
        name = "b.example"
        [[realm.secrets]]
        file = "@DIR@/secret"
    "#;
    let server = TestServer::start(&config(more));
    let api = Api::of(&server);
    let elsewhere = server.listeners().iter().find(|(_, address)| address.ip().to_string() == "127.0.0.2").unwrap().1;
    let login = server.credentials("carol");
    let (mut here, _) = Wire::allocated(&server, Transport::Udp, "carol");
    let mut there = Wire::over_udp(elsewhere, &login);
    assert!(there.allocate().is_ok());
    assert_eq!(there.permit("240.0.0.1:80").unwrap_err(), 403);
    assert!(here.permit("8.8.8.8:80").is_ok());
    assert_eq!(there.permit("8.8.8.8:80").unwrap_err(), 403);
    let list = api.get("/v1/suspensions");
    assert_eq!((&list["total"], &list["suspensions"][0]["realm"]), (&1.into(), &"b.example".into()), "{list}");
    logged(&server, 1, "user=\"carol\" realm=\"b.example\" client=");
    let refusals = |realm: &str| {
        let list = api.get(&format!("/v1/refusals?user=carol&realm={realm}"));
        let refusals = list["refusals"].as_array().unwrap().clone();
        refusals.into_iter().map(|refusal| (refusal["realm"].clone(), refusal["reason"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(refusals("turnstone"), []);
    let of_b = |reason: &str| (json!("b.example"), json!(reason));
    assert_eq!(refusals("b.example"), [of_b("suspended"), of_b("peer-denied-by-default")]);
    let lifted = |realm: &str| api.delete(&format!("/v1/suspensions?user=carol&realm={realm}"))["lifted"].clone();
    assert_eq!([lifted("turnstone"), lifted("b.example")], [0, 1].map(serde_json::Value::from));
    assert!(there.permit("8.8.8.8:80").is_ok());
    let sessions = |realm: &str| api.get(&format!("/v1/sessions?realm={realm}"))["sessions"].as_array().unwrap().len();
    assert_eq!((sessions("turnstone"), sessions("b.example")), (1, 1));
    assert_eq!(api.delete("/v1/sessions?user=carol&realm=turnstone")["ended"], 1);
    assert_eq!((sessions("turnstone"), sessions("b.example")), (0, 1));
}

#[test]
fn who_probes_is_suspended_listed_told_of_and_lifted() {
    let more = "[guard]\nsuspend-after = 3\nsuspend-for = \"30m\"\n[[peers.policy]]\nname = \"sfu\"\nmode = \"sfu\"\n";
    let server = TestServer::start(&config(more));
    let api = Api::of(&server);
    assert_eq!(api.get("/v1/suspensions"), json!({ "suspensions": [], "total": 0 }));
    assert_eq!(suspension_of_nobody(&api), 400);
    let (mut client, _) = Wire::allocated(&server, Transport::Udp, "carol");
    for peer in ["240.0.0.1:80", "169.254.169.254:80", "224.0.0.1:80"] {
        assert_eq!(client.permit(peer).unwrap_err(), 403, "{peer}");
    }
    let list = api.get("/v1/suspensions");
    let suspension = &list["suspensions"][0];
    assert_eq!(
        (&list["total"], &suspension["user"], &suspension["realm"], &suspension["credential"]),
        (&1.into(), &"carol".into(), &json!(null), &"time-limited".into())
    );
    assert!((1700..=1800).contains(&suspension["left_secs"].as_u64().unwrap()), "{list}");
    logged(&server, 1, "a user is suspended for peers that are denied");
    let again = || Wire::connect(&server, Transport::Tcp, &server.credentials("carol")).allocate();
    assert_eq!(again().unwrap_err(), 403);
    let refusals = api.get("/v1/refusals?user=carol");
    let mut reasons = refusals["refusals"].as_array().unwrap().iter().map(|refusal| &refusal["reason"]);
    assert!(reasons.any(|reason| reason == "suspended"), "{refusals}");
    let lifted = |user: &str| api.delete(&format!("/v1/suspensions?user={user}"))["lifted"].clone();
    assert_eq!([lifted("dave"), lifted("carol"), lifted("carol")], [0, 1, 0].map(serde_json::Value::from));
    assert!(again().is_ok());
    assert_eq!(api.refused("DELETE", "/v1/suspensions", None).0, 400);

    // Each policy's verdict of an address is there.
    let as_peer = api.get("/v1/refusals?address=8.8.8.8")["as_peer"].clone();
    assert_eq!(as_peer["allowed"], true);
    let of_sfu = &as_peer["policies"][0];
    assert_eq!((&of_sfu["policy"], &of_sfu["allowed"]), (&"sfu".into(), &false.into()));
    assert_eq!(of_sfu["explanation"], "no rule in [[peers.policy]] \"sfu\" allowed covers it, and mode is \"sfu\"");
}
