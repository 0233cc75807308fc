//! A client of the API that trusts no answer: each must be as the OpenAPI document says, and have no secret in it.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use serde_json::Value;

use crate::LIMIT;
use crate::document::Document;
use crate::support::{TestServer, wait_until};

/// One way to the API.
pub(crate) struct Api {
    place: Place,
    token: Option<String>,
    document: Document,
    secrets: Vec<String>,
}

enum Place {
    Unix(String),
    Port(String),
}

/// What came back.
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Value,
}

impl Api {
    /// The socket of a server with `config`.
    pub(crate) fn of(server: &TestServer) -> Api {
        let secrets = vec![server.secret().to_owned()];
        Api { place: Place::Unix(server.file("admin.sock")), token: None, document: Document::read(), secrets }
    }

    /// The port of a server with `config_with_port`.
    pub(crate) fn at_port_of(server: &TestServer) -> Api {
        let line = wait_until("the admin API in the log", LIMIT, || {
            server.log().lines().find(|line| line.contains("serving the admin API")).map(str::to_owned)
        });
        let (_, port) = line.rsplit_once("127.0.0.1:").unwrap();
        let place = Place::Port(format!("127.0.0.1:{}", port.trim()));
        Api { place, token: Some(crate::TOKEN.to_owned()), ..Api::of(server) }
    }

    pub(crate) fn address(&self) -> &str {
        match &self.place {
            Place::Unix(path) => path,
            Place::Port(address) => address,
        }
    }

    /// No answer may have this in it.
    pub(crate) fn hide(&mut self, secret: &str) {
        self.secrets.push(secret.to_owned());
    }

    pub(crate) fn set_token(&mut self, token: Option<&str>) {
        self.token = token.map(str::to_owned);
    }

    /// The answer to a request that succeeds.
    pub(crate) fn get(&self, path: &str) -> Value {
        self.done("GET", path, None, 200)
    }

    pub(crate) fn delete(&self, path: &str) -> Value {
        self.done("DELETE", path, None, 200)
    }

    pub(crate) fn done(&self, method: &str, path: &str, body: Option<&str>, status: u16) -> Value {
        let response = self.call(method, path, body);
        assert_eq!(response.status, status, "{method} {path}: {}", response.body);
        response.body
    }

    /// The code of a refusal and its message.
    pub(crate) fn refused(&self, method: &str, path: &str, body: Option<&str>) -> (u16, String, String) {
        let response = self.call(method, path, body);
        let text =
            |key: &str| response.body["error"][key].as_str().unwrap_or_else(|| panic!("{}", response.body)).to_owned();
        (response.status, text("code"), text("message"))
    }

    /// A request with a JSON body, if any.
    pub(crate) fn call(&self, method: &str, path: &str, body: Option<&str>) -> Response {
        let mut headers = String::from("Host: localhost\r\n");
        if let Some(token) = &self.token {
            write!(headers, "Authorization: Bearer {token}\r\n").unwrap();
        }
        if body.is_some() {
            headers.push_str("Content-Type: application/json\r\n");
        }
        self.call_with(method, path, &headers, body.unwrap_or_default())
    }

    /// A request with just these headers and a length.
    pub(crate) fn call_with(&self, method: &str, path: &str, headers: &str, body: &str) -> Response {
        let text = format!("{method} {path} HTTP/1.1\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len());
        let raw = match &self.place {
            Place::Unix(path) => exchange(UnixStream::connect(path).unwrap(), &text),
            Place::Port(address) => exchange(TcpStream::connect(address).unwrap(), &text),
        };
        for secret in self.secrets.iter().chain(&self.token) {
            assert!(!raw.contains(secret.as_str()), "a secret is in the answer to {method} {path}: {raw}");
        }
        let (head, content) = raw.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{method} {path}: {raw:?}"));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("{raw}"));
        let head = head.to_lowercase();
        assert!(
            head.contains("\ncontent-type: application/json\r") || head.ends_with("content-type: application/json"),
            "{head}"
        );
        assert!(head.contains("cache-control: no-store"), "{head}");
        let body = serde_json::from_str(content).unwrap_or_else(|error| panic!("{error}: {content}"));
        self.document.check(method, path, status, &body);
        Response { status, head, body }
    }
}

fn exchange(mut stream: impl Read + Write, request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}
