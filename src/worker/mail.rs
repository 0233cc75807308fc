//! A worker's mail: what others have put into its mailbox, and payload for the allocations of other workers.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::mailbox::{Between, Command, Handover, HandoverBatch, Mailbox, Taken};
use super::moving::Moving;
use super::room::Room;
use super::tcp_relays::ClientSide;
use crate::turn::ConnectionId;

/// The mailbox of this worker, what was taken out of it, and what is to go into those of the others.
pub(super) struct Mail {
    own: Option<Arc<Mailbox>>,
    taken: Taken,
    outgoing: Vec<(Arc<Mailbox>, HandoverBatch)>,
}

impl Mail {
    pub(super) fn new(worker: u16, mailboxes: &[Arc<Mailbox>]) -> Self {
        Self {
            own: mailboxes.get(usize::from(worker)).cloned(),
            taken: Taken::default(),
            outgoing: mailboxes.iter().map(|mailbox| (Arc::clone(mailbox), HandoverBatch::default())).collect(),
        }
    }

    /// What becomes readable when something has come.
    pub(super) fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        self.own.as_ref().map(|own| own.wake_fd().as_fd())
    }

    /// Takes everything that has come; returns the orders and questions.
    pub(super) fn take(&mut self) -> Vec<Command> {
        let commands = self.own.as_ref().map(|own| own.take_commands()).unwrap_or_default();
        self.take_payload();
        commands
    }

    /// Takes what other workers have said of allocations that move.
    pub(super) fn take_moving(&mut self) -> Vec<Moving> {
        self.own.as_ref().map(|own| own.take_moving()).unwrap_or_default()
    }

    /// Says something of an allocation that moves to another worker; whether it has room for it.
    pub(super) fn pass_on(&self, worker: u16, moving: Moving) -> bool {
        self.outgoing.get(usize::from(worker)).is_some_and(|(mailbox, _)| mailbox.pass_on(moving))
    }

    /// Takes the clients' connections that have come.
    pub(super) fn take_clients(&self) -> Vec<(ConnectionId, ClientSide)> {
        self.own.as_ref().map(|own| own.take_clients()).unwrap_or_default()
    }

    /// Hands a client's connection over to the worker that has the peer's; without one, it is closed.
    pub(super) fn hand_client_over(&self, worker: u16, id: ConnectionId, client: ClientSide) {
        if let Some((mailbox, _)) = self.outgoing.get(usize::from(worker)) {
            mailbox.hand_client_over(id, client);
        }
    }

    /// Takes the payload that has come, if what was taken before has been worked off.
    pub(super) fn take_payload(&mut self) {
        if let Some(own) = &self.own {
            own.take_handover(&mut self.taken);
        }
    }

    /// Whether payload waits to be worked off.
    pub(super) fn has_payload(&self) -> bool {
        !self.taken.is_empty()
    }

    /// The next payload from another worker.
    pub(super) fn next_payload(&mut self) -> Option<(Handover, &[u8])> {
        let (packet, range) = self.taken.next()?;
        Some((packet, self.taken.bytes(range)))
    }

    /// Gathers payload for an allocation of another worker.
    pub(super) fn add(&mut self, worker: u16, between: Between, tos: u8, payload: &[u8]) -> Room {
        let Some((_, batch)) = self.outgoing.get_mut(usize::from(worker)) else { return Room::Left };
        batch.push(between, tos, payload);
        if batch.is_full() { Room::MailFull } else { Room::Left }
    }

    /// Hands over what has been gathered; returns how many packets found no room.
    pub(super) fn send(&mut self) -> usize {
        let gathered = self.outgoing.iter_mut().filter(|(_, batch)| !batch.is_empty());
        gathered.map(|(mailbox, batch)| mailbox.hand_over(batch)).sum()
    }
}
