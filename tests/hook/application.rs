//! An application that is asked, and can do everything wrong.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::support::TestAuthority;

/// What it does with a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behaviour {
    Answers,
    /// It takes the question and says nothing.
    Hangs,
    /// It accepts nothing, not even a question.
    IsDeaf,
    /// Its answer has no end.
    Floods,
    /// Its headers have no end.
    FloodsHead,
    /// It says a byte a second.
    Drips,
    /// What it says is no HTTP.
    Babbles,
    /// It says that it knows everybody, in a form that nobody has agreed on.
    Lies,
    Fails,
    Redirects,
    /// It hangs up.
    HangsUp,
    /// It says that it will say something, again and again.
    Promises,
    /// It hangs on users whose names begin so.
    HangsOnSome,
}

pub(crate) struct Application {
    address: Option<SocketAddr>,
    has_tls: bool,
    state: Arc<State>,
}

struct State {
    behaviour: Mutex<Behaviour>,
    asked: Mutex<Vec<(String, Value)>>,
    events: Mutex<Vec<Value>>,
}

trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

pub(crate) fn password(username: &str) -> String {
    format!("what {username} knows")
}

impl Application {
    pub(crate) fn start(behaviour: Behaviour) -> Application {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = State::new(behaviour);
        serve(Arc::clone(&state), move || Some(Box::new(listener.accept().ok()?.0) as Box<dyn Stream>));
        Application { address: Some(address), has_tls: false, state }
    }

    pub(crate) fn start_at(path: &Path, behaviour: Behaviour) -> Application {
        let listener = UnixListener::bind(path).unwrap();
        let state = State::new(behaviour);
        serve(Arc::clone(&state), move || Some(Box::new(listener.accept().ok()?.0) as Box<dyn Stream>));
        Application { address: None, has_tls: false, state }
    }

    pub(crate) fn start_with_tls(authority: &TestAuthority, behaviour: Behaviour) -> Application {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let chain = CertificateDer::pem_slice_iter(authority.certificate_pem.as_bytes()).collect::<Result<_, _>>();
        let key = PrivateKeyDer::from_pem_slice(authority.key_pem.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = Arc::new(config.with_no_client_auth().with_single_cert(chain.unwrap(), key).unwrap());
        let state = State::new(behaviour);
        serve(Arc::clone(&state), move || {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            Some(Box::new(StreamOwned::new(connection, listener.accept().ok()?.0)) as Box<dyn Stream>)
        });
        Application { address: Some(address), has_tls: true, state }
    }

    pub(crate) fn url(&self) -> String {
        let port = self.address.unwrap().port();
        if self.has_tls { format!("https://localhost:{port}") } else { format!("http://127.0.0.1:{port}") }
    }

    pub(crate) fn behave(&self, behaviour: Behaviour) {
        *self.state.behaviour.lock().unwrap() = behaviour;
    }

    /// The events that it has been sent, whatever it said to them.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.state.events.lock().unwrap().clone()
    }

    /// The head of each request, and the question in it.
    pub(crate) fn asked(&self) -> Vec<(String, Value)> {
        self.state.asked.lock().unwrap().clone()
    }
}

impl State {
    fn new(behaviour: Behaviour) -> Arc<State> {
        Arc::new(State { behaviour: Mutex::new(behaviour), asked: Mutex::default(), events: Mutex::default() })
    }

    fn now(&self) -> Behaviour {
        *self.behaviour.lock().unwrap()
    }
}

fn serve(state: Arc<State>, mut accept: impl FnMut() -> Option<Box<dyn Stream>> + Send + 'static) {
    std::thread::spawn(move || {
        while let Some(stream) = accept() {
            let state = Arc::clone(&state);
            std::thread::spawn(move || talk(&state, stream));
        }
    });
}

/// Answers as long as it is asked.
fn talk(state: &State, stream: Box<dyn Stream>) {
    let mut reader = BufReader::new(stream);
    loop {
        while state.now() == Behaviour::IsDeaf {
            std::thread::sleep(Duration::from_millis(20));
        }
        let Some(question) = read_question(state, &mut reader) else { return };
        let out = reader.get_mut();
        let mut say = |text: &str| out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok();
        let hangs = question["user"].as_str().is_some_and(|user| user.starts_with("hang"));
        let goes_on = match state.now() {
            Behaviour::HangsOnSome if hangs => {
                while state.now() == Behaviour::HangsOnSome {
                    std::thread::sleep(Duration::from_millis(20));
                }
                false
            }
            Behaviour::Promises => {
                while say(&"HTTP/1.1 100 Continue\r\n\r\n".repeat(100)) {}
                false
            }
            Behaviour::Answers | Behaviour::IsDeaf | Behaviour::HangsOnSome => say(&answer(&question)),
            Behaviour::Hangs => {
                while state.now() == Behaviour::Hangs {
                    std::thread::sleep(Duration::from_millis(20));
                }
                false
            }
            Behaviour::Floods => {
                let _ = say("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n");
                while say(&format!("10000\r\n{}\r\n", " ".repeat(0x10000))) {}
                false
            }
            Behaviour::FloodsHead => {
                let _ = say("HTTP/1.1 200 OK\r\n");
                while say(&format!("X-More: {}\r\n", "x".repeat(1000))) {}
                false
            }
            Behaviour::Drips => {
                for byte in answer(&question).chars() {
                    if !say(&byte.to_string()) {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(300));
                }
                false
            }
            Behaviour::Babbles => {
                say("I know everybody\r\n\r\n");
                false
            }
            Behaviour::Lies => say(&http(200, r#"{"everybody": "is known", "password": "any"}"#)),
            Behaviour::Fails => say(&http(500, "{}")),
            Behaviour::Redirects => {
                say("HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\r\n")
            }
            Behaviour::HangsUp => false,
        };
        if !goes_on {
            return;
        }
    }
}

fn read_question(state: &State, reader: &mut BufReader<Box<dyn Stream>>) -> Option<Value> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok())?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let question: Value = serde_json::from_slice(&body).unwrap();
    match question["type"].is_string() {
        true => state.events.lock().unwrap().push(question.clone()),
        false => state.asked.lock().unwrap().push((head, question.clone())),
    }
    Some(question)
}

fn answer(question: &Value) -> String {
    if let Some(kind) = question["type"].as_str() {
        return match (kind, question["user"].as_str().unwrap_or_default()) {
            ("start", "unwanted") => http(200, r#"{"end": true}"#),
            // Whatever these say, nothing ends.
            ("stop", "unwanted") => http(200, r#"{"end": true}"#),
            (_, "forbidden") => http(403, r#"{"end": true}"#),
            (_, "poison") => http(500, "{}"),
            _ => http(200, ""),
        };
    }
    let username = question["username"].as_str().unwrap();
    let password = password(username);
    let body = match username {
        boom if boom.starts_with("boom") => return http(500, "{}"),
        "nobody" => return http(404, "{}"),
        "limited" => json!({ "password": password, "user": "tenant", "alloc": 1, "bw": "1M" }),
        "short" => json!({ "password": password, "ttl": 0 }),
        "elsewhere" => json!({ "password": password, "peers": "gone" }),
        _ => json!({ "password": password }),
    };
    http(200, &body.to_string())
}

fn http(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}
