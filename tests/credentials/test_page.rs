//! The page with the self-test.

use crate::api::Api;
use crate::support::TestServer;
use crate::{PAGE_KEY, PLAIN, config};

#[test]
fn the_test_page_is_there_where_it_is_wanted_and_shows_nothing_of_the_server() {
    let server = TestServer::start(&config(&format!("{PLAIN}\ntest-page = true\n"), ""));
    let api = Api::of(&server);
    let page = api.send("GET", "/test", "", "");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    // Relative ones, so that the page may stand under a path of a proxy.
    let files: Vec<_> = ["href=\"", "src=\""]
        .iter()
        .flat_map(|link| page.body.split(link).skip(1))
        .map(|rest| format!("/{}", rest.split('"').next().unwrap()))
        .collect();
    assert!(files.contains(&"/page/test.js".to_owned()) && files.contains(&"/page/base.css".to_owned()), "{files:?}");
    for path in files.iter().map(String::as_str).chain(["/test", "/page/ice.js"]) {
        let file = api.send("GET", path, "", "");
        assert_eq!(file.status, 200, "{path}");
        let policy = file.header("content-security-policy").unwrap_or_default();
        assert!(
            policy.contains("script-src 'self'; style-src 'self'") && policy.contains("frame-ancestors 'none'"),
            "{path}"
        );
        assert_eq!(file.header("access-control-allow-origin"), None, "{path}");
    }
    // The operator's page is not here.
    for path in ["/", "/page/main.js", "/page/sessions.js", "/v1/status"] {
        assert_eq!(api.send("GET", path, "", "").status, 404, "{path}");
    }
    let posted = api.send("POST", "/test", "", "{}");
    assert_eq!((posted.status, posted.header("allow")), (405, Some("GET, HEAD")));
    // Its own requests are judged as those of any page.
    let own = format!("Origin: http://{}\r\n", api.address);
    let asked = api.ask_with(PAGE_KEY, &own, r#"{"user":"page-7"}"#);
    assert_eq!((asked.status, asked.code().as_str()), (403, "origin_not_allowed"));
}

#[test]
fn without_it_there_is_no_page_and_a_flood_for_it_is_refused_as_any_is() {
    let server = TestServer::start(&config(PLAIN, ""));
    assert_eq!(Api::of(&server).send("GET", "/test", "", "").status, 404);
    let bounded = format!("{PLAIN}\ntest-page = true\nrequests-per-network-per-second = 1\n");
    let server = TestServer::start(&config(&bounded, ""));
    let api = Api::of(&server);
    let statuses: Vec<_> = (0..8).map(|_| api.send("GET", "/page/ice.js", "", "").status).collect();
    assert!(statuses.starts_with(&[200]) && statuses.contains(&429), "{statuses:?}");
}
