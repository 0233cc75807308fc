//! The end of a client's connection as one of messages: it becomes that of a peer's data (RFC 6062 section 4.3).

use super::Clients;
use super::place::State;
use super::streams::Reading;
use crate::addr::Transport;
use crate::stream::DataConnection;
use crate::worker::observers::Observers;

impl Clients {
    /// Takes out the connection that was read. One whose client has not read what it was answered before is closed: it would not
    /// know where its data begins.
    pub(in crate::worker) fn take_for_data(
        &mut self,
        reading: &Reading,
        observers: &Observers,
    ) -> Option<(DataConnection, Transport)> {
        let id = reading.id();
        let holds = self.streams.lasting_mut(id)?.holds;
        let epoll = if holds { &*self.epoll } else { &self.strangers };
        let _ = epoll.remove(self.streams.fd(id)?);
        let place = self.streams.remove(id)?;
        observers.counters().connections.set(self.streams.open() as u64);
        let State::Arrived(stream) = place.state else { return None };
        let transport = stream.client.five_tuple.transport;
        match stream.connection.into_data(place.permit?) {
            Ok(data) => Some((data, transport)),
            Err(connection) => {
                connection.close();
                None
            }
        }
    }
}
