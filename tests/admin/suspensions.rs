//! Users whom the abuse guard has suspended.

use serde_json::json;

use crate::api::Api;
use crate::support::{TestServer, Transport};
use crate::wire::Wire;
use crate::{config, logged};

#[test]
fn who_probes_is_suspended_listed_told_of_and_lifted() {
    let more = "[guard]\nsuspend-after = 3\nsuspend-for = \"30m\"\n[[peers.policy]]\nname = \"sfu\"\nmode = \"sfu\"\n";
    let server = TestServer::start(&config(more));
    let api = Api::of(&server);
    assert_eq!(api.get("/v1/suspensions"), json!({ "suspensions": [], "total": 0 }));
    let (mut client, _) = Wire::allocated(&server, Transport::Udp, "carol");
    for peer in ["240.0.0.1:80", "169.254.169.254:80", "224.0.0.1:80"] {
        assert_eq!(client.permit(peer).unwrap_err(), 403, "{peer}");
    }
    let list = api.get("/v1/suspensions");
    let suspension = &list["suspensions"][0];
    assert_eq!(
        (&list["total"], &suspension["user"], &suspension["credential"]),
        (&1.into(), &"carol".into(), &"time-limited".into())
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
