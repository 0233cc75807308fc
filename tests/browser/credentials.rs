//! A page that fetches its `iceServers` from the credentials API and connects with them.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::{Spec, TestServer, wait_until};
use crate::{BROWSER_LIMIT, BYTES, Trust, browse};

const KEY: &str = "tsk_cGFnZS1rZXktb2YtdGhlLXRlc3RzLTAxMjM0NTY3ODk";
const OTHER_KEY: &str = "tsk_YmFja2VuZC1rZXktb2YtdGhlLXRlc3RzLTAxMjM0NTY";

fn key(id: &str, text: &str, more: &str) -> String {
    let hash: String = Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("[[credentials.keys]]\nid = \"{id}\"\nsha256 = \"{hash}\"\n{more}")
}

fn server(keys: &str) -> (TestServer, String) {
    let api = format!("[credentials]\nlisten = \"127.0.0.1:0\"\nshapes = [\"cloudflare\"]\n{keys}");
    let server = Spec { extra_toml: api, ..Spec::local() }.start();
    let line = wait_until("the endpoint in the log", BROWSER_LIMIT, || {
        let log = server.log();
        log.lines().find(|line| line.contains("serving the credentials API")).map(str::to_owned)
    });
    let port: String = line.split("127.0.0.1:").nth(1).unwrap().chars().take_while(char::is_ascii_digit).collect();
    (server, format!("https://localhost:{port}"))
}

fn fetching(name: &str, url: &str, key: &str, body: &Value) -> Value {
    let headers = json!({"Authorization": format!("Bearer {key}"), "Content-Type": "application/json"});
    let init = json!({"method": "POST", "headers": headers, "body": body.to_string()});
    json!({"name": name, "fetch": {"url": url, "init": init}, "bytes": BYTES, "video": false})
}

#[test]
fn a_page_fetches_a_credential_and_connects_through_the_relay() {
    let backend = key("backend", OTHER_KEY, "");
    let page = key("page", KEY, "origins = \"*\"\nuser-prefix = \"page-\"\n");
    let (server, api) = server(&(page + &backend));
    let own = format!("{api}/v1/credentials");
    let cloudflare = format!("{api}/v1/turn/keys/page/credentials/generate-ice-servers");
    let runs = [
        fetching("own", &own, KEY, &json!({"user": "page-1", "ttl": 600})),
        fetching("cloudflare", &cloudflare, KEY, &json!({"ttl": 600})),
        fetching("of a back end", &own, OTHER_KEY, &json!({"user": "page-1"})),
        fetching("of nobody", &own, "tsk_wrong", &json!({"user": "page-1"})),
    ];
    let results = browse(&server, Trust::TestAuthority, &runs);
    for name in ["own", "cloudflare"] {
        let result = &results[name];
        assert_eq!(result["connected"], true, "{result:#}");
        assert_eq!(result["receivedSha256"], result["expectedSha256"], "{result:#}");
        assert_eq!((&result["pair"]["local"], &result["pair"]["remote"]), (&json!("relay"), &json!("relay")));
    }
    assert_eq!(results["of a back end"]["fetched"], 403);
    assert_eq!(results["of nobody"]["fetched"], 401);

    // Where no key is for pages, none is even told why.
    let (server, api) = self::server(&backend);
    let own = format!("{api}/v1/credentials");
    let run = fetching("of a back end", &own, OTHER_KEY, &json!({"user": "a"}));
    let results = browse(&server, Trust::TestAuthority, &[run]);
    let blocked = results["of a back end"]["fetched"].as_str().unwrap();
    assert!(blocked.contains("Failed to fetch"), "{blocked}");
}
