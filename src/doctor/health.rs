//! Whether the endpoint of `[metrics]` answers, and what it says of the server's health.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::config::Endpoint;
use crate::net::connect_unix;
use crate::probe::{Status, Step};

/// More than this is no answer of ours.
const ANSWER_BYTES_MAX: usize = 65_536;

/// Asks `/healthz` and `/readyz`.
pub(super) fn judge(listen: &Endpoint, timeout: Duration) -> Vec<Step> {
    if matches!(listen, Endpoint::Tcp(address) if address.port() == 0) {
        return Vec::new();
    }
    let paths = [("/healthz", "healthy"), ("/readyz", "ready for new allocations")];
    let mut steps = Vec::new();
    for (path, good) in paths {
        let started = Instant::now();
        let answer = ask(listen, path, timeout);
        let failed = answer.is_err();
        let (status, message) = match answer.as_deref().map(read_status) {
            Ok(Some((200, _))) => (Status::Ok, format!("{path} at {listen}: {good}")),
            Ok(Some((503, body))) if path == "/readyz" => {
                (Status::Warn, format!("{path} at {listen}: no new allocations are made: {body}"))
            }
            Ok(Some((code, body))) => (Status::Fail, format!("{path} at {listen} says {code}: {body}")),
            Ok(None) => (Status::Fail, format!("{path} at {listen}: the answer is not HTTP; is it another program?")),
            Err(error) => (Status::Fail, format!("{path} at {listen} does not answer: {error}")),
        };
        steps.push(Step::new("health", status, started.elapsed(), message));
        if failed {
            break;
        }
    }
    steps
}

pub(crate) fn ask(listen: &Endpoint, path: &str, timeout: Duration) -> std::io::Result<Vec<u8>> {
    ask_as(listen, "localhost", path, timeout)
}

/// The same under a name.
pub(super) fn ask_as(listen: &Endpoint, host: &str, path: &str, timeout: Duration) -> std::io::Result<Vec<u8>> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let deadline = Instant::now() + timeout;
    match listen {
        Endpoint::Tcp(address) => {
            let stream = TcpStream::connect_timeout(&reachable(*address), timeout)?;
            stream.set_write_timeout(Some(timeout))?;
            exchange(&stream, &request, deadline, |left| stream.set_read_timeout(Some(left)))
        }
        Endpoint::Unix(path) => {
            let stream = connect_unix(path, timeout)?;
            stream.set_write_timeout(Some(timeout))?;
            exchange(&stream, &request, deadline, |left| stream.set_read_timeout(Some(left)))
        }
    }
}

/// Sends the request, and reads the answer to its end, which has to come by the deadline however slowly it drips.
fn exchange<S: Read + Write>(
    mut stream: S,
    request: &str,
    deadline: Instant,
    wait_at_most: impl Fn(Duration) -> std::io::Result<()>,
) -> std::io::Result<Vec<u8>> {
    stream.write_all(request.as_bytes())?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    while answer.len() < ANSWER_BYTES_MAX {
        let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero());
        wait_at_most(left.ok_or(std::io::ErrorKind::TimedOut)?)?;
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => answer.extend_from_slice(buffer.get(..len).unwrap_or_default()),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(answer)
}

/// What an answer has behind its headers.
pub(crate) fn body(answer: &[u8]) -> Option<&[u8]> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    answer.get(end + 4..)
}

/// An address of this host in place of the unspecified one.
pub(crate) fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), address.port()),
        _ => address,
    }
}

/// The code and the first line of the body.
pub(crate) fn read_status(answer: &[u8]) -> Option<(u16, String)> {
    let text = String::from_utf8_lossy(answer);
    let code = text.strip_prefix("HTTP/1.")?.split_whitespace().nth(1)?.parse().ok()?;
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Some((
        code,
        body.lines().next().unwrap_or_default().chars().take(200).collect::<String>().escape_debug().to_string(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_drips_is_waited_for_no_longer_than_one_that_does_not_come() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let dripping = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // Until nobody reads any more.
            let began = Instant::now();
            while stream.write_all(b"a").is_ok() && began.elapsed() < Duration::from_secs(60) {
                std::thread::sleep(Duration::from_millis(20));
            }
            began.elapsed()
        });
        let timeout = Duration::from_millis(200);
        let error = ask(&Endpoint::Tcp(address), "/healthz", timeout).unwrap_err();
        assert!(matches!(error.kind(), std::io::ErrorKind::TimedOut | std::io::ErrorKind::WouldBlock), "{error}");
        assert!(dripping.join().unwrap() < Duration::from_secs(60));
    }

    #[test]
    fn a_socket_without_room_for_another_connection_is_given_up_in_time() {
        use socket2::{Domain, SockAddr, Socket, Type};
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("full.sock");
        let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        listener.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        listener.listen(0).unwrap();
        // Nobody accepts: after these there is no room.
        let mut waiting = Vec::new();
        while let Ok(stream) = connect_unix(&path, Duration::from_millis(50)) {
            waiting.push(stream);
            assert!(waiting.len() < 10);
        }
        let began = Instant::now();
        let error = ask(&Endpoint::Unix(path), "/v1/status", Duration::from_millis(300)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "{error}");
        assert!(
            (Duration::from_millis(250)..Duration::from_secs(30)).contains(&began.elapsed()),
            "{:?}",
            began.elapsed()
        );
    }

    #[test]
    fn answers_are_read_by_their_code() {
        let read = |text: &str| read_status(text.as_bytes());
        assert_eq!(read("HTTP/1.1 200 OK\r\nA: b\r\n\r\nok\nmore"), Some((200, "ok".to_owned())));
        assert_eq!(read("HTTP/1.0 503 x\r\n\r\n\u{7}"), Some((503, "\\u{7}".to_owned())));
        for text in ["", "SSH-2.0-x\r\n", "HTTP/1.1", "HTTP/1.1 abc\r\n\r\n"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
