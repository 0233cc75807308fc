//! The credentials API of the program: what it makes is used with the same program, and every answer is held against the OpenAPI document.

// A helper that cannot do its work must fail the test that called it; clippy counts only `#[test]` functions as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../support/mod.rs"]
mod support;

// Of what it has, `tests/admin` uses more.
#[allow(dead_code)]
#[path = "../admin/wire.rs"]
mod wire;

mod api;
mod attacks;
mod bounds;
mod document;
mod pages;
mod programs;
mod recipes;
mod running;
mod shapes;
mod test_page;
mod twilio;
mod xmpp;

use std::time::Duration;

use sha2::{Digest, Sha256};

pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A key without bounds of its own.
pub(crate) const KEY: &str = "tsk_YmFja2VuZC1rZXktb2YtdGhlLXRlc3RzLTAxMjM0NTY";
/// One for pages.
pub(crate) const PAGE_KEY: &str = "tsk_cGFnZS1rZXktb2YtdGhlLXRlc3RzLTAxMjM0NTY3ODk";
/// One with everything bounded.
pub(crate) const BOUND_KEY: &str = "tsk_Ym91bmQta2V5LW9mLXRoZS10ZXN0cy0wMTIzNDU2Nzg";
/// Whose pages may ask.
pub(crate) const PAGE: &str = "https://app.example.org";

/// A server on loopback with the API on a port, and this in `[credentials]`, and more after it.
pub(crate) fn config(credentials: &str, more: &str) -> String {
    format!(
        "workers = 2\n[[listen]]\naddress = \"127.0.0.1:0\"\ntransport = [\"udp\", \"tcp\", \"tls\"]\n\
         [tls]\ncertificate = \"@DIR@/certificate.pem\"\nkey = \"@DIR@/key.pem\"\n\
         [relay]\nipv4 = \"127.0.0.1\"\nipv6 = \"off\"\nports = \"10000-29999\"\n\
         [metrics]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"unix:admin.sock\"\n\
         [credentials]\nlisten = \"127.0.0.1:0\"\n{credentials}\n{}{}{}\
         [[auth.secrets]]\nid = \"test\"\nfile = \"@DIR@/secret\"\n{more}",
        key("backend", KEY, ""),
        key("page", PAGE_KEY, &format!("origins = [\"{PAGE}\"]\nmax-ttl = \"1h\"\nuser-prefix = \"page-\"\n")),
        key("bound", BOUND_KEY, "max-ttl = \"10m\"\nuser-prefix = \"b-\"\nrequests-per-second = 2\n"),
    )
}

/// The table of a key.
pub(crate) fn key(id: &str, text: &str, more: &str) -> String {
    let hash: String = Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("[[credentials.keys]]\nid = \"{id}\"\nsha256 = \"{hash}\"\n{more}")
}

/// Plain HTTP, as behind a proxy.
pub(crate) const PLAIN: &str = "tls = false";
