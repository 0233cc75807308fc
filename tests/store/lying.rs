//! A store that does not answer as it should: it costs a bounded amount of memory, and no call.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{TestServer, wait_until};
use crate::{LIMIT, allocate, store_status, with_store};

/// What it does with commands that are no PING.
#[derive(Clone, Copy, Debug)]
enum Lie {
    /// An array of numbers without end.
    Numbers,
    /// A text without end.
    Text,
    /// A number each, whatever was asked for.
    Number,
    /// Nothing.
    Silence,
}

/// Listens, and answers each connection in a thread of its own.
fn lie(lie: Lie) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || drop(answer(stream, lie)));
        }
    });
    port
}

fn answer(mut stream: TcpStream, lie: Lie) -> std::io::Result<()> {
    let mut commands = BufReader::new(stream.try_clone()?);
    loop {
        let name = command(&mut commands)?;
        match lie {
            _ if name == "PING" => stream.write_all(b"+PONG\r\n")?,
            Lie::Numbers => {
                stream.write_all(b"*2000000000\r\n")?;
                let some = b":1\r\n".repeat(16_384);
                loop {
                    stream.write_all(&some)?;
                }
            }
            Lie::Text => {
                stream.write_all(b"$2000000000\r\n")?;
                loop {
                    stream.write_all(&[b'a'; 65_536])?;
                }
            }
            Lie::Number => stream.write_all(b":7\r\n")?,
            Lie::Silence => {}
        }
    }
}

/// Reads a command, and returns its name.
fn command(from: &mut BufReader<TcpStream>) -> std::io::Result<String> {
    let mut number = || -> std::io::Result<(usize, Vec<u8>)> {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let number = line[1..].trim().parse().map_err(std::io::Error::other)?;
        let mut rest = vec![0; if line.starts_with('$') { number + 2 } else { 0 }];
        from.read_exact(&mut rest)?;
        rest.truncate(number);
        Ok((number, rest))
    };
    let (count, _) = number()?;
    let parts = (0..count).map(|_| number()).collect::<Result<Vec<_>, _>>()?;
    Ok(String::from_utf8_lossy(&parts[0].1).to_ascii_uppercase())
}

fn resident_bytes(server: &TestServer) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/statm", server.process_id())).unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[test]
fn a_store_that_lies_fills_no_memory_and_ends_no_call() {
    for what in [Lie::Numbers, Lie::Text, Lie::Number, Lie::Silence] {
        let port = lie(what);
        let store = format!(
            "url = \"redis://127.0.0.1:{port}\"\ntimeout = \"500ms\"\n[quota]\nfleet-allocations-per-user = 4\n"
        );
        let server = with_store(&store).start();
        let mut call = allocate(&server, &server.credentials("alice")).unwrap();
        let (begun, mut most) = (Instant::now(), 0);
        while begun.elapsed() < Duration::from_secs(4) {
            most = most.max(resident_bytes(&server));
            thread::sleep(Duration::from_millis(5));
        }
        // Of an array, the parser makes some fifty bytes of three.
        assert!(most < 250 << 20, "{what:?}: {most} bytes");
        assert!(call.refresh().is_ok(), "{what:?}");
        assert!(allocate(&server, &server.credentials("bob")).is_ok(), "{what:?}: on-loss has it");
        let expected = match what {
            Lie::Numbers | Lie::Text => "no answer to anything",
            Lie::Number => "something else than is expected",
            Lie::Silence => "in time",
        };
        wait_until(&format!("{what:?} to be told"), LIMIT, || {
            let status = store_status(&server);
            status.to_string().contains(expected).then_some(())
        });
        server.wait_for_log(expected);
        // However long it goes on.
        let lines = server.log().lines().count();
        assert!(lines < 60, "{what:?}: {lines} lines: {}", server.log());
    }
}
