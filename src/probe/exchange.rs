//! Data from one allocation to another's relayed address, by Send indications or ChannelData, and compared.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::client::data::{self, Received};

use super::session::Session;
use super::verdict::Failure;

/// The first wait before data is sent again, as UDP may lose it; it doubles each time.
const FIRST_WAIT: Duration = Duration::from_millis(300);

/// A client with its relayed address.
pub(super) struct Party {
    pub(super) session: Session,
    pub(super) relayed: SocketAddr,
    /// Where the server sees it.
    pub(super) mapped: SocketAddr,
}

/// How data is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Indication,
    Channel,
}

/// Why data did not come across.
pub(super) enum Lost {
    /// Nothing came; so often was it sent.
    Silent(u32),
    /// Something came that is not what was sent, or from a wrong address.
    Damaged(&'static str),
    Failed(Failure),
}

/// Sends `len` random bytes from one to the other and waits for them, repeating within `timeout`.
///
/// # Errors
/// [`Lost`].
pub(super) fn carry(from: &mut Party, to: &mut Party, by: By, len: usize, timeout: Duration) -> Result<(), Lost> {
    let mut payload = vec![0; len];
    getrandom::fill(&mut payload).map_err(|error| Lost::Failed(Failure::Io(std::io::Error::other(error))))?;
    let mut frame = Vec::new();
    match by {
        By::Indication => {
            // The transaction id of an indication is nobody's key: nothing answers it.
            let number = payload.iter().fold(0_u64, |number, byte| number.rotate_left(8) ^ u64::from(*byte));
            data::send_indication(to.relayed, number, &mut frame, |out| out.extend_from_slice(&payload));
        }
        By::Channel => {
            let framing = from.session.link.framing();
            data::channel_data(len, framing, &mut frame, |out| out.extend_from_slice(&payload));
        }
    }
    let deadline = Instant::now() + timeout;
    let (mut wait, mut sends, mut doubt) = (FIRST_WAIT, 0, None);
    loop {
        from.session.link.send(&frame, deadline).map_err(Lost::Failed)?;
        sends += 1;
        let wait_until = deadline.min(Instant::now() + wait);
        wait *= 2;
        while let Some(bytes) = to.session.link.recv(wait_until).map_err(Lost::Failed)? {
            match data::payload(&bytes, from.relayed) {
                Received::Payload(received) if received == payload => return Ok(()),
                Received::Payload(_) => doubt = Some("other bytes than were sent"),
                Received::WrongSource => doubt = Some("data that names another peer than the one that sent it"),
                Received::Damaged => doubt = Some("something that is neither ChannelData nor a Data indication"),
                Received::Response => {}
            }
        }
        if Instant::now() >= deadline {
            return Err(doubt.map_or(Lost::Silent(sends), Lost::Damaged));
        }
    }
}
