//! A client of XMPP that asks for relays (XEP-0215), and no more.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;

use crate::LIMIT;
use crate::support::wait_until;

/// What a server announces: the attributes of each service.
pub(crate) fn services(port: u16, domain: &str) -> Vec<HashMap<String, String>> {
    let stream = wait_until("the server of XMPP", LIMIT, || TcpStream::connect(("127.0.0.1", port)).ok());
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut client = Client(stream);
    let header = format!(
        "<?xml version='1.0'?><stream:stream to='{domain}' version='1.0' xmlns='jabber:client' \
         xmlns:stream='http://etherx.jabber.org/streams'>"
    );
    client.ask(&header, "</stream:features>");
    client.ask("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='ANONYMOUS'/>", "<success");
    client.ask(&header, "</stream:features>");
    client.ask("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>", "</iq>");
    let question = format!("<iq type='get' id='s' to='{domain}'><services xmlns='urn:xmpp:extdisco:2'/></iq>");
    let answer = client.ask(&question, "</iq>");
    let found = answer.split("<service ").skip(1).map(|rest| attributes(rest.split('>').next().unwrap())).collect();
    client.0.write_all(b"</stream:stream>").unwrap();
    found
}

struct Client(TcpStream);

impl Client {
    /// Says something, and reads until this has come.
    fn ask(&mut self, text: &str, end: &str) -> String {
        self.0.write_all(text.as_bytes()).unwrap();
        let mut answer = String::new();
        let mut buffer = [0; 4096];
        while !answer.contains(end) {
            let length = self.0.read(&mut buffer).unwrap_or_else(|error| panic!("{error} after {answer}"));
            assert!(length > 0, "no {end} in {answer}");
            answer += std::str::from_utf8(&buffer[..length]).unwrap();
        }
        answer
    }
}

/// `name='value'`, in either quotes.
fn attributes(tag: &str) -> HashMap<String, String> {
    let mut found = HashMap::new();
    let mut rest = tag;
    while let Some((name, after)) = rest.split_once('=') {
        let quote = after.chars().next().unwrap();
        let (value, after) = after[1..].split_once(quote).unwrap();
        found.insert(name.trim().to_owned(), value.to_owned());
        rest = after;
    }
    found
}
