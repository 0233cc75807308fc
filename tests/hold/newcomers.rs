//! Honest clients that come while others attack: over each transport one after the other, each makes an allocation and ends it.

use std::fmt;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use turnstone::client::Request;

use crate::calls::TRANSPORTS;
use crate::client::{Client, PATIENCE, Target};
use crate::support::Transport;

const PAUSE: Duration = Duration::from_millis(300);
/// An address that no hostile client has, and a network that some of them forge.
const FROM: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 9, 9, 9), Ipv4Addr::new(127, 64, 200, 9)];

#[derive(Default)]
pub(crate) struct Newcomers {
    times: Vec<(Transport, Duration)>,
    failed: Vec<String>,
    again: u32,
}

pub(crate) fn come(target: &Target, stop: &AtomicBool) -> Newcomers {
    let mut newcomers = Newcomers::default();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (transport, from) = (TRANSPORTS[number % 3], FROM[number / 3 % 2]);
        let start = Instant::now();
        let connect = || {
            let client = Client::connect(target, transport, &format!("newcomer-{number}"), from);
            client.and_then(|mut client| Ok((client.allocate()?, client)))
        };
        // A connection may have to make room for another one; a client tries again then.
        let mut got_in = connect();
        while got_in.is_err() && start.elapsed() < PATIENCE && !stop.load(Ordering::Relaxed) {
            newcomers.again += 1;
            got_in = connect();
        }
        match got_in {
            Ok((Ok(_), mut client)) => {
                newcomers.times.push((transport, start.elapsed()));
                let _ = client.ask(Request::Refresh { lifetime_secs: 0 });
            }
            Ok((Err(code), _)) => {
                newcomers.failed.push(format!("{} from {from}: refused with {code}", transport.name()))
            }
            // It could not try long enough.
            Err(_) if stop.load(Ordering::Relaxed) => {}
            Err(error) => newcomers.failed.push(format!("{} from {from}: {error}", transport.name())),
        }
        std::thread::sleep(PAUSE);
    }
    newcomers
}

impl Newcomers {
    pub(crate) fn assert_all_got_in(&self) {
        for transport in TRANSPORTS {
            let came = self.times.iter().any(|(of, _)| *of == transport);
            assert!(came, "nobody got in over {}: {:#?}", transport.name(), self.failed);
        }
        assert!(self.failed.is_empty(), "{:#?}", self.failed);
    }
}

impl fmt::Display for Newcomers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (in_all, failed) = (self.times.len(), self.failed.len());
        write!(f, "{in_all} newcomers got in, {failed} did not, {} tries were vain; at most", self.again)?;
        for transport in TRANSPORTS {
            let most = self.times.iter().filter(|(of, _)| *of == transport).map(|(_, time)| *time).max();
            write!(f, " {} {:?}", transport.name(), most.unwrap_or_default())?;
        }
        Ok(())
    }
}
