//! A page and its calls by one port: the tls listener passes on what is for the web server.

use serde_json::json;

use crate::support::{Spec, wait_until};
use crate::{BYTES, Trust, assert_relayed, browse, ice_server};

#[test]
fn chromium_loads_a_page_from_and_relays_through_the_same_port() {
    let (port, web) = wait_until("free ports", std::time::Duration::from_secs(5), || {
        let held = [0, 1].map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let [port, web] = held.map(|listener| listener.local_addr().unwrap().port());
        Some((port, web))
    });
    let extra_toml = format!(
        "[[listen]]\naddress = \"127.0.0.1:{port}\"\ntransport = [\"udp\", \"tcp\", \"tls\"]\nweb = \"127.0.0.1:{web}\"\n"
    );
    let server = Spec { extra_toml, ..Spec::local() }.start();
    let url = format!("turns:localhost:{port}?transport=tcp");
    let run = json!({
        "name": url,
        "page": format!("https://localhost:{port}/"),
        "site": {"port": web, "certificate": server.file("certificate.pem"), "key": server.file("key.pem")},
        "iceServers": [ice_server(&url, &server.credentials("browser"))],
        "bytes": BYTES,
        "video": true,
    });
    let result = browse(&server, Trust::TestAuthority, &[run])[&url].clone();
    assert_eq!(result["title"], "relay by HTTP 2.0", "{result:#}");
    assert_relayed(&result, "tls");
}
