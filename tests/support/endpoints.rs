//! What a server serves beside STUN and TURN, as it is asked for it.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::{TestServer, wait_until};

/// The value of the first metric that begins so, of a server that shows them at `metrics.sock` in its folder.
pub fn metric(server: &TestServer, name: &str) -> f64 {
    let mut stream = UnixStream::connect(server.file("metrics.sock")).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// Where the credentials API is served on 127.0.0.1, as the log says.
pub fn credentials_endpoint(server: &TestServer, limit: Duration) -> String {
    let line = wait_until("the endpoint in the log", limit, || {
        let log = server.log().replace('\u{1b}', "");
        log.lines().find(|line| line.contains("serving the credentials API")).map(str::to_owned)
    });
    let port: String = line.split("127.0.0.1:").nth(1).unwrap().chars().take_while(char::is_ascii_digit).collect();
    format!("127.0.0.1:{port}")
}
