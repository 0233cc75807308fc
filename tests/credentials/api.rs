//! A client of the API.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use crate::document::Document;
use crate::support::{Credentials, TestServer, credentials_endpoint, tls_over};
use crate::{KEY, LIMIT};

/// Where the API of a server is.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) address: String,
    authority: Option<String>,
}

/// An answer.
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Answered {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The code of a refusal.
    pub(crate) fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_else(|| panic!("{}", self.body)).to_owned()
    }

    pub(crate) fn message(&self) -> String {
        self.json()["error"]["message"].as_str().unwrap_or_else(|| panic!("{}", self.body)).to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

impl Api {
    /// That of a server which speaks plain HTTP.
    pub(crate) fn of(server: &TestServer) -> Api {
        Api { address: credentials_endpoint(server, LIMIT), authority: None }
    }

    /// That of a server which speaks TLS.
    pub(crate) fn over_tls(server: &TestServer) -> Api {
        Api { address: credentials_endpoint(server, LIMIT), authority: Some(server.file("authority.pem")) }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    }

    /// Sends these bytes and reads to the end. The answer to what the document has is held against it.
    pub(crate) fn raw(&self, request: &str) -> Answered {
        let stream = self.connect();
        let response = match &self.authority {
            None => exchange(stream, request),
            Some(authority) => exchange(tls_over(stream, authority), request),
        };
        let answered = parse(&response);
        let mut line = request.split(' ');
        let (method, target) = (line.next().unwrap(), line.next().unwrap_or_default());
        // Those of other services are not in it.
        if target.starts_with("/v1/") && !target.starts_with("/v1/turn/") {
            Document::read().check(method, target, answered.status, &answered.body);
        }
        answered
    }

    /// One request with these headers, each with its line end.
    pub(crate) fn send(&self, method: &str, target: &str, headers: &str, body: &str) -> Answered {
        let length = body.len();
        self.raw(&format!(
            "{method} {target} HTTP/1.1\r\nHost: turn.example.org\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
        ))
    }

    /// Asks for a credential with a key.
    pub(crate) fn ask_with(&self, key: &str, more_headers: &str, body: &str) -> Answered {
        let headers = format!("Authorization: Bearer {key}\r\nContent-Type: application/json\r\n{more_headers}");
        self.send("POST", "/v1/credentials", &headers, body)
    }

    pub(crate) fn ask(&self, body: &str) -> Answered {
        self.ask_with(KEY, "", body)
    }
}

/// The credential in an answer.
pub(crate) fn credentials(answer: &Value) -> Credentials {
    let text = |name: &str| answer[name].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
    Credentials { username: text("username"), password: text("credential") }
}

fn exchange(mut stream: impl Read + Write, request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = Vec::new();
    let ended = stream.read_to_end(&mut response);
    assert!(ended.is_ok() || !response.is_empty(), "{ended:?}");
    String::from_utf8(response).unwrap()
}

fn parse(response: &str) -> Answered {
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {response:?}"));
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or_else(|| panic!("{head}"));
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    Answered { status, headers, body: body.to_owned() }
}
