//! The operator's page behind nginx, which ends TLS: at the origins of the configuration, and at no other.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::proxy::{Proxy, free_ports};
use crate::support::{require_tool, run};
use crate::uclient::spec;

const NAME: &str = "ops.example.org";
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// curl at the proxy, as a page would ask; the status.
fn ask(authority: &Path, port: u16, method: &str, path: &str, headers: &[&str]) -> u16 {
    let token = format!("Authorization: Bearer {TOKEN}");
    // nginx takes one alone.
    let token = (!headers.iter().any(|header| header.starts_with("Authorization"))).then_some(&*token);
    let mut command = Command::new(require_tool("curl", "curl"));
    command
        .args(["--silent", "--show-error", "--output", "/dev/null", "--write-out", "%{http_code}", "--max-time", "20"])
        .args(["--cacert", &authority.display().to_string(), "--resolve", &format!("{NAME}:{port}:127.0.0.1")])
        .args(["--request", method])
        .args(headers.iter().copied().chain(token).flat_map(|header| ["--header", header]))
        .arg(format!("https://{NAME}:{port}{path}"));
    let finished = run(&mut command, Duration::from_secs(30));
    finished.stdout.parse().unwrap_or_else(|error| panic!("{error}: {}", finished.all_output()))
}

#[test]
fn the_page_works_behind_nginx_at_the_origins_of_the_configuration_alone() {
    let [admin, kept, own, unused] = free_ports();
    let server = |origins: &str| {
        let mut spec = spec();
        spec.certificate_names = vec![NAME.to_owned(), "127.0.0.1".to_owned()];
        spec.extra_toml =
            format!("[admin]\nlisten = \"127.0.0.1:{admin}\"\ntoken = \"{TOKEN}\"\npage = true\n{origins}");
        spec.start()
    };
    let configured = server(&format!("page-origins = [\"https://{NAME}:{kept}\", \"https://{NAME}:{own}\"]\n"));
    let at = |port: u16, host: &str| {
        format!(
            "server {{ listen 127.0.0.1:{port} ssl; ssl_certificate @DIR@/certificate.pem; ssl_certificate_key @DIR@/key.pem; \
             location / {{ proxy_pass http://127.0.0.1:{admin}; {host} }} \
             location /turn/ {{ proxy_pass http://127.0.0.1:{admin}/; {host} }} }}"
        )
    };
    // As docs/page.md has it, and as nginx does it when nobody says anything of the name.
    let sites = at(kept, "proxy_set_header Host $host;") + &at(own, "");
    let (certificate, key) = (configured.file("certificate.pem"), configured.file("key.pem"));
    let folder = tempfile::tempdir().unwrap();
    let authority = folder.path().join("authority.pem");
    std::fs::copy(configured.file("authority.pem"), &authority).unwrap();
    let _nginx =
        Proxy::nginx(&format!("server {{ listen 127.0.0.1:{unused}; return x; }}"), &sites, (&certificate, &key), kept);
    for port in [kept, own] {
        let origin = format!("Origin: https://{NAME}:{port}");
        let page = ["Sec-Fetch-Site: same-origin"];
        assert_eq!(ask(&authority, port, "GET", "/", &[]), 200);
        assert_eq!(ask(&authority, port, "GET", "/page/main.js", &page), 200);
        assert_eq!(ask(&authority, port, "GET", "/v1/status", &page), 200);
        assert_eq!(ask(&authority, port, "POST", "/v1/self-test", &[&origin, page[0]]), 200);
        assert_eq!(ask(&authority, port, "POST", "/v1/self-test", &["Origin: https://evil.example"]), 403);
        assert_eq!(ask(&authority, port, "POST", "/v1/self-test", &["Sec-Fetch-Site: cross-site"]), 403);
        assert_eq!(ask(&authority, port, "GET", "/v1/status", &["Authorization: Bearer wrong"]), 401);
    }
    // Under a path, which nginx takes away, there is all that the page asks for; `src/page` has it ask for nothing by a path from the root.
    for path in ["/turn/", "/turn/page/main.js", "/turn/page/base.css", "/turn/v1/status"] {
        assert_eq!(ask(&authority, kept, "GET", path, &["Sec-Fetch-Site: same-origin"]), 200, "{path}");
    }
    // A name that somebody has led to the proxy is none of ours.
    assert_eq!(ask(&authority, kept, "GET", "/", &["Host: evil.example"]), 403);
    drop(configured);
    let _server = server("");
    assert_eq!(ask(&authority, kept, "GET", "/", &[]), 403);
    let origin = format!("Origin: https://{NAME}:{own}");
    assert_eq!(ask(&authority, own, "POST", "/v1/self-test", &[&origin]), 403);
}
