//! A certificate authority that says whatever the test wants, over HTTP on loopback.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// One request: the path, and what is signed.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) payload: Value,
}

/// An answer: status, more headers, body.
pub(crate) type Said = (u16, String, Vec<u8>);

/// It listens until the test ends.
pub(crate) struct Authority {
    pub(crate) directory: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Authority {
    /// Answers by `say`, and what that leaves open as RFC 8555 has it: the directory, nonces, an account.
    pub(crate) fn start(say: impl Fn(&Asked, &str) -> Option<Said> + Send + Sync + 'static) -> Authority {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (directory, asked) = (format!("{base}/dir"), Arc::<Mutex<Vec<Asked>>>::default());
        let (say, seen) = (Arc::new(say), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (say, seen, base) = (Arc::clone(&say), Arc::clone(&seen), base.clone());
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(stream);
                    while let Some(asked) = read(&mut reader) {
                        seen.lock().unwrap().push(asked.clone());
                        let (status, headers, body) = say(&asked, &base).unwrap_or_else(|| usual(&asked, &base));
                        let head = format!(
                            "HTTP/1.1 {status} X\r\nReplay-Nonce: bm9uY2U\r\nContent-Length: {}\r\n{headers}\r\n",
                            body.len()
                        );
                        if write(reader.get_mut(), head.as_bytes(), &body).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Authority { directory, asked }
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn write(stream: &mut TcpStream, head: &[u8], body: &[u8]) -> std::io::Result<()> {
    stream.write_all(head)?;
    stream.write_all(body)
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Asked> {
    let (mut first, mut length, mut is_head) = (String::new(), 0, false);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim().to_ascii_lowercase();
        match (first.is_empty(), line.is_empty()) {
            (true, _) => (first, is_head) = (line.clone(), line.starts_with("head ")),
            (false, true) => break,
            (false, false) => {}
        }
        if let Some(given) = line.strip_prefix("content-length:") {
            length = given.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let signed: Value = serde_json::from_slice(&body).unwrap_or_default();
    let payload = BASE64_URL_SAFE_NO_PAD.decode(signed["payload"].as_str().unwrap_or_default()).unwrap();
    let payload = serde_json::from_slice(&payload).unwrap_or_default();
    assert!(is_head || length > 0 || first.starts_with("get "));
    Some(Asked { path: first.split(' ').nth(1).unwrap().to_owned(), payload })
}

fn usual(asked: &Asked, base: &str) -> Said {
    match asked.path.as_str() {
        "/dir" => said(
            200,
            "",
            &json!({
                "newNonce": format!("{base}/nonce"),
                "newAccount": format!("{base}/account"),
                "newOrder": format!("{base}/order"),
                "renewalInfo": format!("{base}/advice"),
            }),
        ),
        "/nonce" => (200, String::new(), Vec::new()),
        "/account" => said(201, &format!("Location: {base}/account/1\r\n"), &json!({ "status": "valid" })),
        _ => problem("malformed", "nothing is here", ""),
    }
}

pub(crate) fn said(status: u16, headers: &str, body: &Value) -> Said {
    (status, format!("Content-Type: application/json\r\n{headers}"), body.to_string().into_bytes())
}

pub(crate) fn problem(kind: &str, detail: &str, headers: &str) -> Said {
    let body = json!({ "type": format!("urn:ietf:params:acme:error:{kind}"), "detail": detail });
    (403, format!("Content-Type: application/problem+json\r\n{headers}"), body.to_string().into_bytes())
}
