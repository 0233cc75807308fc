//! Pages of other origins.

use crate::api::Api;
use crate::support::TestServer;
use crate::{KEY, PAGE, PAGE_KEY, PLAIN, config};

const BODY: &str = r#"{"user":"page-7"}"#;
const ORIGIN: &str = "Origin: https://app.example.org\r\n";

#[test]
fn a_page_may_ask_with_a_key_for_its_origin_and_read_the_answer() {
    let server = TestServer::start(&config(PLAIN, ""));
    let api = Api::of(&server);
    let wanted =
        "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization,content-type\r\n";
    let preflight = api.send("OPTIONS", "/v1/credentials", &format!("{ORIGIN}{wanted}"), "");
    assert_eq!((preflight.status, preflight.body.as_str()), (204, ""));
    for (name, value) in [
        ("access-control-allow-origin", PAGE),
        ("access-control-allow-methods", "POST"),
        ("access-control-allow-headers", "authorization, content-type"),
        ("vary", "Origin"),
    ] {
        assert_eq!(preflight.header(name), Some(value), "{name}");
    }
    let answered = api.ask_with(PAGE_KEY, ORIGIN, BODY);
    assert_eq!((answered.status, answered.header("access-control-allow-origin")), (201, Some(PAGE)));
    assert_eq!(answered.header("vary"), Some("Origin"));
    assert_eq!(answered.header("access-control-allow-credentials"), None, "cookies are nobody's here");
    // What is wrong, the page may read, too.
    let refused = api.ask_with(PAGE_KEY, ORIGIN, r#"{"user":"alice"}"#);
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), (403, Some(PAGE)));
    let refused = api.ask_with("tsk_wrong", ORIGIN, BODY);
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), (401, Some(PAGE)));
    assert_eq!(api.ask_with(PAGE_KEY, "", BODY).status, 201, "a program has no origin");
}

#[test]
fn pages_of_others_get_nothing_whatever_key_they_have() {
    let server = TestServer::start(&config(PLAIN, ""));
    let api = Api::of(&server);
    let others = [
        "https://evil.example",
        "http://app.example.org",
        "https://app.example.org.evil.example",
        "https://app.example.org:8443",
        "HTTPS://APP.EXAMPLE.ORG",
        "https://xapp.example.org",
        "null",
        "",
        "*",
    ];
    for origin in others {
        let origin = format!("Origin: {origin}\r\n");
        let preflight = api.send("OPTIONS", "/v1/credentials", &origin, "");
        assert_eq!((preflight.status, preflight.code().as_str()), (403, "origin_not_allowed"), "{origin}");
        for key in [PAGE_KEY, KEY] {
            let answered = api.ask_with(key, &origin, BODY);
            assert_eq!((answered.status, answered.code().as_str()), (403, "origin_not_allowed"), "{origin}");
            assert_eq!(answered.header("access-control-allow-origin"), None, "{origin}");
        }
    }
    // The right page with the key of a back end.
    let answered = api.ask_with(KEY, ORIGIN, BODY);
    assert_eq!((answered.status, answered.code().as_str()), (403, "origin_not_allowed"));
    let two = format!("{ORIGIN}Origin: https://evil.example\r\n");
    assert_eq!(api.ask_with(PAGE_KEY, &two, BODY).status, 403);
}

#[test]
fn a_key_may_be_for_every_page() {
    let server = TestServer::start(&config(PLAIN, "").replace(&format!("[\"{PAGE}\"]"), "\"*\""));
    let api = Api::of(&server);
    let origin = "Origin: http://localhost:5173\r\n";
    assert_eq!(api.send("OPTIONS", "/v1/credentials", origin, "").status, 204);
    let answered = api.ask_with(PAGE_KEY, origin, BODY);
    assert_eq!((answered.status, answered.header("access-control-allow-origin")), (201, Some("http://localhost:5173")));
    assert_eq!(api.ask_with(KEY, origin, BODY).status, 403);
}
