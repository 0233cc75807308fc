//! A webhook: an HTTP server that answers as told and keeps what it was sent.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::LIMIT;
use crate::schema::Record;
use crate::support::wait_until;

/// What to answer.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Status(u16),
    /// With a header.
    With(u16, String),
    /// Reads the request and says nothing until the webhook is dropped.
    Hang,
}

/// One request as it came in.
#[derive(Clone, Debug)]
pub(crate) struct Post {
    pub(crate) path: String,
    /// Lines with lower-case names.
    pub(crate) headers: Vec<String>,
    pub(crate) body: String,
    pub(crate) reply: u16,
}

impl Post {
    pub(crate) fn records(&self) -> Vec<Record> {
        assert!(self.body.ends_with('\n'), "{:?}", self.body);
        self.body.lines().map(Record::parse).collect()
    }
}

pub(crate) struct Hook {
    pub(crate) address: SocketAddr,
    posts: Arc<Mutex<Vec<Post>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Hook {
    /// `answer` is given the number of the request, from 0 on.
    pub(crate) fn start(answer: impl Fn(usize) -> Reply + Send + 'static) -> Hook {
        Hook::on(TcpListener::bind("127.0.0.1:0").unwrap(), answer)
    }

    /// `answer` is given the body of the request.
    pub(crate) fn judging(answer: impl Fn(&str) -> Reply + Send + 'static) -> Hook {
        Hook::with(TcpListener::bind("127.0.0.1:0").unwrap(), move |_, body| answer(body))
    }

    pub(crate) fn on(listener: TcpListener, answer: impl Fn(usize) -> Reply + Send + 'static) -> Hook {
        Hook::with(listener, move |number, _| answer(number))
    }

    fn with(listener: TcpListener, answer: impl Fn(usize, &str) -> Reply + Send + 'static) -> Hook {
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let (posts, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (kept, stopped) = (Arc::clone(&posts), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut hanging = Vec::new();
            let mut number = 0;
            while !stopped.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        stream.set_nonblocking(false).unwrap();
                        let Some(mut post) = read(&stream) else { continue };
                        let reply = answer(number, &post.body);
                        number += 1;
                        post.reply = write(&stream, &reply);
                        kept.lock().unwrap().push(post);
                        if matches!(reply, Reply::Hang) {
                            hanging.push(stream);
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        });
        Hook { address, posts, stop, thread: Some(thread) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/usage", self.address)
    }

    pub(crate) fn posts(&self) -> Vec<Post> {
        self.posts.lock().unwrap().clone()
    }

    /// The records of all requests that were answered with success.
    pub(crate) fn taken(&self) -> Vec<Record> {
        self.posts().iter().filter(|post| (200..300).contains(&post.reply)).flat_map(Post::records).collect()
    }

    /// Waits until so many records of a kind were taken, and returns all.
    pub(crate) fn wait_for(&self, kind: &str, count: usize) -> Vec<Record> {
        wait_until(&format!("{count} records of type {kind}"), LIMIT, || {
            let taken = self.taken();
            (taken.iter().filter(|record| record.kind() == kind).count() >= count).then_some(taken)
        })
    }

    pub(crate) fn wait_for_posts(&self, count: usize) -> Vec<Post> {
        wait_until(&format!("{count} requests"), LIMIT, || Some(self.posts()).filter(|posts| posts.len() >= count))
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}

fn read(stream: &TcpStream) -> Option<Post> {
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    read_request(&mut BufReader::new(stream))
}

/// `None` when the connection ends before a request is there.
pub(crate) fn read_request(reader: &mut impl BufRead) -> Option<Post> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.strip_prefix("POST ")?.split(' ').next()?.to_owned();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push(format!("{}:{value}", name.to_ascii_lowercase()));
    }
    let len = headers.iter().find_map(|header| header.strip_prefix("content-length: ")?.parse().ok())?;
    let mut body = vec![0; len];
    reader.read_exact(&mut body).ok()?;
    Some(Post { path, headers, body: String::from_utf8(body).unwrap(), reply: 0 })
}

fn write(mut stream: &TcpStream, reply: &Reply) -> u16 {
    let (status, header) = match reply {
        Reply::Status(status) => (*status, String::new()),
        Reply::With(status, header) => (*status, format!("{header}\r\n")),
        Reply::Hang => return 0,
    };
    let text = format!("HTTP/1.1 {status} Reply\r\n{header}Content-Length: 2\r\nConnection: close\r\n\r\nok");
    let _ = stream.write_all(text.as_bytes());
    status
}
