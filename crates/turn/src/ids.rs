//! Ids of allocations. One never stands for another allocation, wherever it moves: neither in another worker nor in a process that
//! goes on with the run of this one.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Bits of the count of allocations that one worker has made: enough for ninety years at 100,000 a second.
const NUMBER_BITS: u32 = u64::BITS - u16::BITS;

/// An allocation, by the worker that made it and that worker's count. Written as `WORKER-NUMBER`, as in the admin API and in usage
/// records: a number of JSON would not hold all of it. An allocation that has moved is no more with the worker in its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AllocationId(u64);

impl AllocationId {
    /// The id of a worker's allocation; `None` when no worker can have made so many.
    pub fn new(worker: u16, number: u64) -> Option<Self> {
        (number < 1 << NUMBER_BITS).then_some(Self(u64::from(worker) << NUMBER_BITS | number))
    }

    /// The worker that has made it.
    pub fn worker(self) -> u16 {
        (self.0 >> NUMBER_BITS) as u16
    }

    /// Which of that worker's it is.
    pub fn number(self) -> u64 {
        self.0 & ((1 << NUMBER_BITS) - 1)
    }

    /// As one number, for tickets.
    pub(super) fn to_bits(self) -> u64 {
        self.0
    }

    pub(super) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The one after it in the order of ids.
    pub(super) fn following(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for AllocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.worker(), self.number())
    }
}

/// A text is not the id of an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("expected an id of an allocation, such as 0-17")]
pub struct NoAllocationId;

impl FromStr for AllocationId {
    type Err = NoAllocationId;

    fn from_str(text: &str) -> Result<Self, NoAllocationId> {
        let (worker, number) = text.split_once('-').ok_or(NoAllocationId)?;
        // `parse` alone would also take a sign.
        let are_digits = worker.bytes().chain(number.bytes()).all(|byte| byte.is_ascii_digit());
        let worker = worker.parse().map_err(|_| NoAllocationId)?;
        let number = number.parse().map_err(|_| NoAllocationId)?;
        Self::new(worker, number).filter(|_| are_digits).ok_or(NoAllocationId)
    }
}

/// Makes the ids of one server. Who goes on with its run in another process gives them to the server there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllocationIds {
    next: AllocationId,
}

impl AllocationIds {
    /// The ids of a worker that has made no allocation yet. No two servers of a process may be the same worker.
    pub fn of_worker(worker: u16) -> Self {
        Self { next: AllocationId(u64::from(worker) << NUMBER_BITS | 1) }
    }

    /// The ids of a worker from this one on.
    pub fn from(next: AllocationId) -> Self {
        Self { next }
    }

    /// The id that the next allocation will have.
    pub fn next(&self) -> AllocationId {
        self.next
    }

    /// Takes the next id.
    pub(super) fn take(&mut self) -> AllocationId {
        let id = self.next;
        self.next = id.following();
        id
    }

    /// Does not make this one, which has come from elsewhere: whoever put it in may not have said where these ids go on.
    pub(super) fn leave_out(&mut self, id: AllocationId) {
        if (self.next..self.end()).contains(&id) {
            self.next = id.following();
        }
    }

    /// The lowest id that no allocation of this worker can have.
    pub(super) fn end(&self) -> AllocationId {
        AllocationId(self.next.0 | ((1 << NUMBER_BITS) - 1)).following()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written_and_nothing_else_is_one() {
        let largest = AllocationId::new(u16::MAX, (1 << 48) - 1).unwrap();
        for (worker, number, text) in
            [(0, 17, "0-17"), (3, 1, "3-1"), (u16::MAX, (1 << 48) - 1, "65535-281474976710655")]
        {
            let id = AllocationId::new(worker, number).unwrap();
            assert_eq!((id.worker(), id.number(), id.to_string().as_str()), (worker, number, text));
            assert_eq!(text.parse(), Ok(id));
            assert!(id <= largest);
        }
        assert_eq!(AllocationId::new(0, 1 << 48), None);
        for text in ["", "-", "17", "1-", "-17", "+1-17", "1-+17", "1-17-2", "65536-1", "0-281474976710656", "1- 7"] {
            assert_eq!(text.parse::<AllocationId>(), Err(NoAllocationId), "{text}");
        }
    }

    #[test]
    fn workers_make_ids_of_their_own_and_another_process_goes_on_with_them() {
        let (mut first, mut second) = (AllocationIds::of_worker(0), AllocationIds::of_worker(1));
        assert_eq!((first.take().to_string(), second.take().to_string()), ("0-1".to_owned(), "1-1".to_owned()));
        let mut later = AllocationIds::from(first.next());
        assert_eq!((later.take().to_string(), later.take().to_string()), ("0-2".to_owned(), "0-3".to_owned()));
        assert!(later.next() < later.end() && later.end() <= second.next());
    }
}
