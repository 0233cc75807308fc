//! The load generator behind `turnstone bench`: TURN clients and their peers in one thread, every packet checked.
//!
//! It drives any server over UDP, TCP or TLS. It measures what arrives and how late, and what that costs the server: CPU
//! time, context switches and memory of its process, when that runs on the same machine. It also says how busy it is
//! itself, so that its own limit is not taken for the server's.

mod cycles;
mod error;
mod forwarder;
mod hold;
mod leg;
mod measure;
mod options;
mod payload;
mod poll;
mod process;
mod progress;
mod relay;
mod report;
mod requests;
mod session;
mod stats;

pub use crate::client::tls::{Roots, Trust};
pub use error::BenchError;
pub use forwarder::forward;
pub use options::{Mode, Options, OptionsError};
pub use progress::Progress;
pub use report::{Generator, Hold, Latency, Report, Server};

use std::io;
use std::sync::Arc;

use rustls::pki_types::ServerName;

use crate::addr::Transport;
use crate::client::tls;
use crate::net::sys;

use leg::Dial;
use measure::{Clock, Run};

/// Makes one measurement. `progress` is called about twice a second.
///
/// # Errors
/// When the options do not fit, a socket fails, or the server refuses what the measurement needs.
pub fn run(options: &Options, progress: &mut dyn FnMut(&Progress)) -> Result<Report, BenchError> {
    options.check()?;
    let open_files = sys::raise_open_files();
    if open_files < u64::from(options.clients) + 64 {
        return Err(OptionsError::OpenFiles { clients: options.clients, limit: open_files }.into());
    }
    sys::sharpen_timers();
    let dial = dial(options)?;
    let clock = Clock::start();
    if options.mode == Mode::Hold {
        return hold::run(options, &dial, clock, progress);
    }
    if options.mode.relays() {
        let mut relay = relay::Relay::set_up(options, &dial, clock, progress)?;
        let mut run = Run::start(options, clock, progress);
        relay.run(&mut run)?;
        return Ok(Report::of(options, &run));
    }
    let mut run = Run::start(options, clock, progress);
    match options.mode {
        Mode::Allocate => cycles::run(options, &dial, &mut run)?,
        _ => requests::run(options, &dial, &mut run)?,
    }
    Ok(Report::of(options, &run))
}

fn dial(options: &Options) -> Result<Dial, BenchError> {
    Ok(match options.transport {
        Transport::Udp => Dial::Udp { gro: options.gro },
        Transport::Tcp => Dial::Tcp,
        Transport::Dtls => return Err(OptionsError::Dtls.into()),
        Transport::Tls => {
            let config = tls::client_config(&options.trust).map_err(io::Error::other);
            let config = config.map_err(BenchError::io("TLS settings"))?;
            let name = ServerName::try_from(options.server_name.clone())
                .map_err(|error| OptionsError::ServerName { name: options.server_name.clone(), error })?;
            Dial::Tls { config: Arc::clone(&config), name }
        }
    })
}
