//! MOBILITY-TICKETs (RFC 8016 section 3.3): which allocation a client comes back to, sealed so that only this process can make or read
//! one.
//!
//! A ticket is the number of its key (2 bytes, of the hour of its making), 8 random bytes of nonce, and AES-256-GCM, with a tag of 96 bits,
//! of the allocation's id and of the ticket's number among those of the allocation. Keys are derived from one master key, so that a ticket can
//! be opened for as long as its allocation lives, while no key seals more than an hour's.
//!
//! It has 32 bytes, and none of them is zero: coturn's client keeps it as a string of C, with room for no more. A nonce that leads to a
//! zero, as one of nine does, is thrown away.

use std::fmt;
use std::sync::{Arc, OnceLock};

use aes_gcm::aead::AeadInOut;
use aes_gcm::aead::consts::U12;
use aes_gcm::aes::Aes256;
use aes_gcm::{AesGcm, KeyInit};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::ids::AllocationId;

/// How long one key is used for sealing.
const EPOCH_SECS: u64 = 3600;
const EPOCH_LEN: usize = 2;
const NONCE_LEN: usize = 8;
const STATE_LEN: usize = 10;
const TAG_LEN: usize = 12;
/// How many nonces are tried. That all of them lead to a zero happens once in 10^30 tickets.
const TRIES_MAX: usize = 32;
/// Every ticket is as long as this.
pub(super) const TICKET_LEN: usize = EPOCH_LEN + NONCE_LEN + STATE_LEN + TAG_LEN;

type Cipher = AesGcm<Aes256, U12, U12>;

/// What a ticket says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) allocation: AllocationId,
    /// Which of the allocation's tickets it is.
    pub(super) serial: u16,
}

/// What MOBILITY-TICKET in a Refresh comes to.
#[derive(Clone, Copy)]
pub(super) enum Shown {
    /// There is none.
    Nothing,
    /// It is not one of ours.
    Invalid,
    /// It is one of ours.
    Ticket(Ticket),
}

/// The key of the tickets, which all workers share: a client may come back to any of them.
#[derive(Default)]
pub struct TicketKey(OnceLock<Zeroizing<[u8; 32]>>);

impl TicketKey {
    /// The key of a process whose allocations move to this one.
    pub fn new(key: [u8; 32]) -> Self {
        Self(Zeroizing::new(key).into())
    }

    /// The key; `None` as long as there is no server.
    pub fn get(&self) -> Option<&[u8; 32]> {
        self.0.get().map(|key| &**key)
    }
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKey(..)")
    }
}

/// Seals and opens the tickets of one server.
pub(super) struct Sealer {
    master: Arc<TicketKey>,
    /// The key used last: nearly always the one that the next ticket needs, too.
    last: Option<([u8; EPOCH_LEN], Box<Cipher>)>,
}

impl Sealer {
    /// The first server takes the master key from the CSPRNG.
    pub(super) fn new(master: Arc<TicketKey>, fill_random: &mut dyn FnMut(&mut [u8])) -> Self {
        master.0.get_or_init(|| {
            let mut key = Zeroizing::new([0; 32]);
            fill_random(&mut *key);
            key
        });
        Self { master, last: None }
    }

    /// The value of MOBILITY-TICKET; `None` when the cipher refuses, which it never does for so few bytes.
    pub(super) fn seal(
        &mut self,
        unix_secs: u64,
        ticket: Ticket,
        fill_random: &mut dyn FnMut(&mut [u8]),
    ) -> Option<[u8; TICKET_LEN]> {
        let epoch = epoch_of(unix_secs);
        (0..TRIES_MAX).find_map(|_| {
            let mut nonce = [0; NONCE_LEN];
            fill_random(&mut nonce);
            self.seal_with(epoch, nonce, ticket).filter(|sealed| !sealed.contains(&0))
        })
    }

    fn seal_with(
        &mut self,
        epoch: [u8; EPOCH_LEN],
        nonce: [u8; NONCE_LEN],
        ticket: Ticket,
    ) -> Option<[u8; TICKET_LEN]> {
        let mut state = [0; STATE_LEN];
        let (id, serial) = state.split_at_mut(8);
        id.copy_from_slice(&ticket.allocation.to_bits().to_be_bytes());
        serial.copy_from_slice(&ticket.serial.to_be_bytes());
        let cipher = self.cipher(epoch)?;
        let tag = cipher.encrypt_inout_detached(&padded(nonce).into(), &epoch, state.as_mut_slice().into()).ok()?;
        let mut sealed = [0; TICKET_LEN];
        let parts: [&[u8]; 4] = [&epoch, &nonce, &state, &tag];
        for (to, from) in sealed.iter_mut().zip(parts.into_iter().flatten()) {
            *to = *from;
        }
        Some(sealed)
    }

    /// What a ticket says; `None` when this process has not made it.
    pub(super) fn open(&mut self, sealed: &[u8]) -> Option<Ticket> {
        let sealed: &[u8; TICKET_LEN] = sealed.try_into().ok()?;
        let (epoch, rest) = sealed.split_first_chunk::<EPOCH_LEN>()?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE_LEN>()?;
        let (state, tag) = rest.split_first_chunk::<STATE_LEN>()?;
        let tag: &[u8; TAG_LEN] = tag.try_into().ok()?;
        let mut state = *state;
        let cipher = self.cipher(*epoch)?;
        let (nonce, tag) = (padded(*nonce).into(), (*tag).into());
        cipher.decrypt_inout_detached(&nonce, epoch, state.as_mut_slice().into(), &tag).ok()?;
        let (id, serial) = state.split_first_chunk::<8>()?;
        let allocation = AllocationId::from_bits(u64::from_be_bytes(*id));
        Some(Ticket { allocation, serial: u16::from_be_bytes(serial.try_into().ok()?) })
    }

    fn cipher(&mut self, epoch: [u8; EPOCH_LEN]) -> Option<&Cipher> {
        if self.last.as_ref().is_none_or(|(last, _)| *last != epoch) {
            let mut mac = Hmac::<Sha256>::new_from_slice(self.master.get()?).ok()?;
            mac.update(b"mobility ticket");
            mac.update(&epoch);
            let key = Zeroizing::new(<[u8; 32]>::from(mac.finalize().into_bytes()));
            self.last = Some((epoch, Box::new(Cipher::new_from_slice(&*key).ok()?)));
        }
        self.last.as_ref().map(|(_, cipher)| &**cipher)
    }
}

/// The number of the hour, in two digits from 1 to 255. It comes again after seven years.
fn epoch_of(unix_secs: u64) -> [u8; EPOCH_LEN] {
    let hours = unix_secs / EPOCH_SECS;
    [hours / 255, hours].map(|digit| (digit % 255 + 1) as u8)
}

/// The nonce as the cipher wants it.
fn padded(nonce: [u8; NONCE_LEN]) -> [u8; 12] {
    let mut padded = [0; 12];
    for (to, from) in padded.iter_mut().zip(nonce) {
        *to = from;
    }
    padded
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn sealer(master: &Arc<TicketKey>) -> Sealer {
        Sealer::new(Arc::clone(master), &mut counting())
    }

    fn counting() -> impl FnMut(&mut [u8]) {
        let mut count = 0u32;
        move |bytes: &mut [u8]| {
            count += 1;
            let digits = count.to_le_bytes();
            bytes.iter_mut().zip(digits.iter().cycle()).for_each(|(to, from)| *to = *from | 0x40);
        }
    }

    fn ticket(serial: u16) -> Ticket {
        Ticket { allocation: AllocationId::new(3, 77).unwrap(), serial }
    }

    #[test]
    fn every_worker_opens_what_one_has_sealed_for_as_long_as_the_process_lives() {
        let master = Arc::default();
        let (mut one, mut other) = (sealer(&master), sealer(&master));
        let mut random = counting();
        let sealed = one.seal(NOW, ticket(9), &mut random).unwrap();
        other.seal(NOW + 30 * EPOCH_SECS, ticket(9), &mut random).unwrap();
        assert_eq!(other.open(&sealed), Some(ticket(9)), "with the key of its hour");
        assert_eq!(sealer(&Arc::new(TicketKey::new([9; 32]))).open(&sealed), None, "another process");
        assert_ne!(one.seal(NOW, ticket(9), &mut random).unwrap(), sealed, "two tickets are never the same");
    }

    #[test]
    fn no_ticket_of_any_hour_has_a_zero_byte() {
        let (mut sealer, mut random) = (sealer(&Arc::default()), counting());
        for hour in 0..2000 {
            let sealed =
                sealer.seal(NOW + hour * EPOCH_SECS, ticket(hour as u16), &mut random).expect("a nonce that does");
            assert!(!sealed.contains(&0), "{sealed:?}");
            assert_eq!(sealer.open(&sealed), Some(ticket(hour as u16)));
        }
    }

    #[test]
    fn what_was_changed_cut_or_made_by_others_says_nothing() {
        let mut sealer = sealer(&Arc::default());
        let sealed = sealer.seal(NOW, ticket(1), &mut counting()).unwrap();
        for bit in 0..TICKET_LEN * 8 {
            let mut changed = sealed;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(sealer.open(&changed), None, "bit {bit}");
        }
        for len in 0..TICKET_LEN {
            assert_eq!(sealer.open(&sealed[..len]), None);
        }
        assert_eq!(sealer.open(&[sealed.as_slice(), &[0]].concat()), None);
        assert_eq!(sealer.open(&[0; TICKET_LEN]), None);
        assert!(sealer.open(&sealed).is_some());
    }
}
