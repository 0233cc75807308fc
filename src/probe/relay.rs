//! The steps of one relay family: two clients allocate, permit each other's relayed address and send each other data; a peer of this
//! host's own sends to one; what a safe relay refuses is asked for; both allocations are given back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::addr::Family;
use crate::client::data::CHANNEL;
use crate::client::{Answer, Credential, Request};
use crate::stun::ErrorCode;

use super::dial::{Dialer, Unopened};
use super::exchange::{By, Lost, Party, carry};
use super::reach;
use super::report::{Recorder, Status, Step};
use super::verdict::{Failure, not_public, with_code};

/// Bytes of data: a small odd size, which needs padding, and that of a full packet of media.
const SIZES: [usize; 2] = [173, 1200];
/// Peers on this machine, in its network and at its cloud's metadata service.
const PRIVATE_V4: [Ipv4Addr; 3] = [Ipv4Addr::LOCALHOST, Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(169, 254, 169, 254)];
const PRIVATE_V6: [Ipv6Addr; 2] = [Ipv6Addr::LOCALHOST, Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254)];
/// The port of a permission means nothing (RFC 8656 section 9).
const ANY_PORT: u16 = 9;
const NO_PEERS: &str = "the server does not let its clients talk to each other, so that no data was relayed: ";
/// How often a client comes again from another port that was sent elsewhere.
const ATTEMPTS_MAX: u32 = 16;
/// How long a server may take to end an allocation after Refresh 0, and how often it is asked.
const RELEASE_PATIENCE: Duration = Duration::from_millis(1500);
const RELEASE_POLL: Duration = Duration::from_millis(200);

/// How a family did.
pub(super) enum Outcome {
    /// There is a relay, whatever was found on it.
    Relays,
    /// The server has none of this family.
    NotOffered,
    /// There is no use in going on.
    Failed,
}

/// Takes all steps of a family and records each.
pub(super) fn probe(
    dialer: &Dialer<'_>,
    credential: &Credential,
    family: Family,
    recorder: &mut Recorder<'_>,
) -> Outcome {
    let mut relay = Relay { dialer, credential, family, recorder };
    let mut first = match relay.allocate() {
        Ok(party) => party,
        Err(outcome) => return outcome,
    };
    relay.judge_address(first.relayed);
    if let Some(mut second) = relay.allocate_second(first.relayed) {
        if relay.permit(&mut first, &mut second) {
            let is_let = relay.echo("echo-send", By::Indication, &mut first, &mut second);
            if is_let && relay.bind_channels(&mut first, &mut second) {
                relay.echo("echo-channel", By::Channel, &mut first, &mut second);
            }
        }
        relay.reach_and_judge(&mut first);
        relay.release(&mut [&mut first, &mut second]);
        relay.judge_signatures(&[&first, &second]);
    } else {
        relay.reach_and_judge(&mut first);
        relay.release(&mut [&mut first]);
        relay.judge_signatures(&[&first]);
    }
    Outcome::Relays
}

struct Relay<'a, 'p> {
    dialer: &'a Dialer<'a>,
    credential: &'a Credential,
    family: Family,
    recorder: &'a mut Recorder<'p>,
}

/// Why there is no allocation.
enum Denied {
    Failure(Failure),
    Useless(Useless),
}

/// What is no answer to an Allocate.
#[derive(Debug, Error)]
enum Useless {
    #[error("{0}")]
    Unopened(Unopened),
    #[error("{} was asked for and {given} given", family_name(*wanted))]
    OtherFamily { wanted: Family, given: SocketAddr },
    #[error("an answer to another request")]
    OtherAnswer,
}

impl Relay<'_, '_> {
    fn allocate(&mut self) -> Result<Party, Outcome> {
        let started = Instant::now();
        let failure = match self.try_allocate() {
            Ok((party, lifetime_secs)) => {
                let message = format!("relayed address {}, for {lifetime_secs} s", party.relayed);
                let step = self.step("allocate", Status::Ok, started, message);
                self.recorder.add(step.fact("relayed", party.relayed.to_string()).fact("lifetime_secs", lifetime_secs));
                return Ok(party);
            }
            Err(Denied::Useless(why)) => {
                self.add("allocate", Status::Fail, started, why.to_string());
                return Err(Outcome::Failed);
            }
            Err(Denied::Failure(failure)) => failure,
        };
        // A server of RFC 5766 does not know the attribute that asks for IPv6.
        let unknown = self.family == Family::V6 && failure.code() == Some(ErrorCode::UNKNOWN_ATTRIBUTE);
        if unknown || failure.code() == Some(ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED) {
            let message = format!("the server has no {} relay ({})", family_name(self.family), self.words(&failure));
            let step = with_code(self.step("allocate", Status::Note, started, message), &failure);
            self.recorder.add(step);
            return Err(Outcome::NotOffered);
        }
        self.add_failure("allocate", Status::Fail, started, "", &failure);
        Err(Outcome::Failed)
    }

    /// The other end of the echo. A quota of one allocation is no fault of the server.
    fn allocate_second(&mut self, first: SocketAddr) -> Option<Party> {
        let started = Instant::now();
        let context = "the echo needs a second allocation: ";
        match self.try_allocate() {
            Ok((party, _)) => {
                let mut message = format!("relayed address {}", party.relayed);
                if party.relayed == first {
                    message += ", as the first one: the server's clients share its relay ports";
                }
                let step = self.step("allocate-second", Status::Ok, started, message);
                self.recorder.add(step.fact("relayed", party.relayed.to_string()));
                return Some(party);
            }
            Err(Denied::Useless(why)) => {
                self.add("allocate-second", Status::Fail, started, format!("{context}{why}"));
            }
            Err(Denied::Failure(failure)) => {
                let quota = failure.code() == Some(ErrorCode::QUOTA_REACHED);
                let status = if quota { Status::Warn } else { Status::Fail };
                self.add_failure("allocate-second", status, started, context, &failure);
            }
        }
        None
    }

    fn try_allocate(&self) -> Result<(Party, u32), Denied> {
        // IPv4 is what a server takes when nothing is said, and old ones do not know how to be asked for it.
        let family = (self.family == Family::V6).then_some(self.family);
        let request = Request::Allocate { family, lifetime_secs: None };
        let mut attempts = 0;
        let (mut session, reply) = loop {
            attempts += 1;
            let mut session = self.dialer.open().map_err(|error| Denied::Useless(Useless::Unopened(error)))?;
            match session.request(request) {
                Ok(reply) => break (session, reply),
                // A server that sends a share of its clients elsewhere decides by their ports.
                Err(failure) if failure.code() == Some(ErrorCode::TRY_ALTERNATE) && attempts < ATTEMPTS_MAX => {}
                Err(failure) => return Err(Denied::Failure(failure)),
            }
        };
        match reply.answer {
            Answer::Allocated { relayed, .. } if Family::of(relayed.ip()) != self.family => {
                let _ = session.request(Request::Refresh { lifetime_secs: 0 });
                Err(Denied::Useless(Useless::OtherFamily { wanted: self.family, given: relayed }))
            }
            Answer::Allocated { relayed, mapped, lifetime_secs } => {
                Ok((Party { session, relayed, mapped }, lifetime_secs))
            }
            _ => Err(Denied::Useless(Useless::OtherAnswer)),
        }
    }

    /// A relayed address that nobody outside can send to is of no use, unless the server is not meant for the outside.
    fn judge_address(&mut self, relayed: SocketAddr) {
        let server = self.dialer.address.ip();
        let started = Instant::now();
        let (status, message) = match (not_public(relayed.ip()), not_public(server)) {
            _ if relayed.ip().is_unspecified() || relayed.port() == 0 => {
                (Status::Fail, format!("{relayed} is no address that a peer could send to"))
            }
            (Some(kind), None) => (
                Status::Warn,
                format!(
                    "{} is {kind}, and the server is not: peers cannot reach it (external-ip is missing?)",
                    relayed.ip()
                ),
            ),
            (Some(kind), Some(other)) if kind != other => {
                (Status::Warn, format!("{} is {kind}, and the server was reached at {other}", relayed.ip()))
            }
            (Some(kind), Some(_)) => (Status::Ok, format!("{} is {kind}, as the server's", relayed.ip())),
            (None, _) if Family::of(server) == self.family && relayed.ip() != server => {
                (Status::Ok, format!("{} is public, and another address than {server}, which was asked", relayed.ip()))
            }
            (None, _) => (Status::Ok, format!("{} is public", relayed.ip())),
        };
        self.add("relayed-address", status, started, message);
    }

    fn permit(&mut self, first: &mut Party, second: &mut Party) -> bool {
        let started = Instant::now();
        let permitted = first
            .session
            .request(Request::CreatePermission { peer: second.relayed })
            .and_then(|_| second.session.request(Request::CreatePermission { peer: first.relayed }));
        match permitted {
            Ok(_) => self.add("permission", Status::Ok, started, "each may be sent to by the other".into()),
            Err(failure) if failure.code() == Some(ErrorCode::FORBIDDEN) => {
                self.add_failure("permission", Status::Warn, started, NO_PEERS, &failure);
                return false;
            }
            Err(failure) => {
                self.add_failure("permission", Status::Fail, started, "", &failure);
                return false;
            }
        }
        true
    }

    fn bind_channels(&mut self, first: &mut Party, second: &mut Party) -> bool {
        let started = Instant::now();
        let bound = first
            .session
            .request(Request::ChannelBind { channel: CHANNEL, peer: second.relayed })
            .and_then(|_| second.session.request(Request::ChannelBind { channel: CHANNEL, peer: first.relayed }));
        match bound {
            Ok(_) => {
                self.add("channel", Status::Ok, started, format!("{CHANNEL:#06x} in both"));
                true
            }
            Err(failure) => {
                self.add_failure("channel", Status::Fail, started, "", &failure);
                false
            }
        }
    }

    /// Data of each size there and back; `false` when the server does not let it through.
    fn echo(&mut self, name: &'static str, by: By, first: &mut Party, second: &mut Party) -> bool {
        let started = Instant::now();
        let timeout = self.dialer.context.options.timeout;
        for len in SIZES {
            for direction in ["there", "back"] {
                let (from, to) =
                    if direction == "there" { (&mut *first, &mut *second) } else { (&mut *second, &mut *first) };
                let Err(lost) = carry(from, to, by, len, timeout) else { continue };
                // A permission is for an address. Where there is a service at it, ports are asked about by a channel.
                if matches!(lost, Lost::Silent(_))
                    && let Err(failure) =
                        from.session.request(Request::ChannelBind { channel: CHANNEL, peer: to.relayed })
                    && failure.code() == Some(ErrorCode::FORBIDDEN)
                {
                    self.add_failure(name, Status::Warn, started, NO_PEERS, &failure);
                    return false;
                }
                let way = format!("{len} bytes from {} to {}", from.relayed, to.relayed);
                let message = match lost {
                    Lost::Silent(sends) => format!(
                        "{way} did not arrive (sent {sends} times): a peer policy or a firewall of the server's host keeps its relays apart, or it \
                         does not reach its own public address"
                    ),
                    Lost::Damaged(what) => format!("{way}: {what} arrived"),
                    Lost::Failed(failure) => format!("{way}: {}", self.words(&failure)),
                };
                // Clients without ICE on one port: a server need not know which of them is meant.
                let is_shared = first.relayed == second.relayed;
                self.add(name, if is_shared { Status::Note } else { Status::Fail }, started, message);
                return true;
            }
        }
        let took = started.elapsed();
        let [small, large] = SIZES;
        let message = format!("{small} and {large} bytes there and back, unchanged");
        let round_trip_ms = took.as_secs_f64() * 1000.0 / SIZES.len() as f64;
        self.recorder.add(
            Step::new(name, Status::Ok, took, message)
                .of_relay(self.family)
                .fact("round_trip_ms", (round_trip_ms * 1000.0).round() / 1000.0),
        );
        true
    }

    /// Whether peers get through, and whom the relay reaches.
    fn reach_and_judge(&mut self, party: &mut Party) {
        let options = self.dialer.context.options;
        if options.relay_reach {
            let step = reach::probe(self.dialer, party, |failure| self.words(failure)).of_relay(self.family);
            self.recorder.add(step);
        }
        if options.safety {
            self.judge_safety(party);
        }
    }

    /// Whether the relay may be used to reach what is behind it.
    fn judge_safety(&mut self, party: &mut Party) {
        let started = Instant::now();
        let peers: Vec<IpAddr> = match self.family {
            Family::V4 => PRIVATE_V4.map(IpAddr::V4).into(),
            Family::V6 => PRIVATE_V6.map(IpAddr::V6).into(),
        };
        let (mut reached, mut refused) = (Vec::new(), Vec::new());
        // On a relay at such an address the permission is about other clients' relays.
        for peer in peers.into_iter().filter(|peer| *peer != party.relayed.ip()) {
            match party.session.request(Request::CreatePermission { peer: SocketAddr::new(peer, ANY_PORT) }) {
                Ok(_) => reached.push(peer.to_string()),
                Err(failure) if failure.code().is_some() => refused.push(peer.to_string()),
                Err(failure) => {
                    let context = format!("whether {peer} is refused cannot be told: ");
                    self.add_failure("safety", Status::Warn, started, &context, &failure);
                    return;
                }
            }
        }
        let (status, message) = if reached.is_empty() {
            (Status::Ok, format!("refuses {}", refused.join(", ")))
        } else {
            let list = reached.join(", ");
            (
                Status::Warn,
                format!("the relay reaches private networks: it grants permission for {list}; deny such peers"),
            )
        };
        let step = self.step("safety", status, started, message);
        self.recorder.add(step.fact("permitted", reached).fact("refused", refused));
    }

    /// Refresh with lifetime 0, and a look whether the first allocation is really gone (437).
    fn release(&mut self, parties: &mut [&mut Party]) {
        let started = Instant::now();
        for party in parties.iter_mut() {
            match party.session.request(Request::Refresh { lifetime_secs: 0 }) {
                Ok(reply) if reply.answer == (Answer::Refreshed { lifetime_secs: 0 }) => {}
                Ok(_) => {
                    self.add("release", Status::Warn, started, "Refresh 0 was answered with another lifetime".into());
                    return;
                }
                Err(failure) => {
                    self.add_failure(
                        "release",
                        Status::Warn,
                        started,
                        "the allocations run on until they expire: ",
                        &failure,
                    );
                    return;
                }
            }
        }
        if let Some(first) = parties.first_mut()
            && !is_gone(first)
        {
            let message = "Refresh 0 succeeded, but requests on the allocation are still answered";
            self.add("release", Status::Note, started, message.into());
            return;
        }
        self.add("release", Status::Ok, started, "given back by Refresh 0".into());
    }

    fn judge_signatures(&mut self, parties: &[&Party]) {
        let verified: u32 = parties.iter().map(|party| party.session.verified).sum();
        let unsigned: Vec<String> = parties.iter().flat_map(|party| party.session.unsigned.clone()).collect();
        let (status, message) = if unsigned.is_empty() {
            (Status::Ok, format!("all {verified} responses are signed with the key of the password"))
        } else {
            let list = unsigned.join(", ");
            (Status::Warn, format!("responses without MESSAGE-INTEGRITY, which anybody could forge: {list}"))
        };
        let step = Step::new("integrity", status, Duration::ZERO, message).of_relay(self.family);
        self.recorder.add(step.fact("verified", verified).fact("unsigned", unsigned));
    }

    fn words(&self, failure: &Failure) -> String {
        failure.advice(self.dialer.socket_kind(), Some(self.credential), self.dialer.context.now_unix)
    }

    fn add_failure(&mut self, name: &'static str, status: Status, started: Instant, context: &str, failure: &Failure) {
        let step = self.step(name, status, started, format!("{context}{}", self.words(failure)));
        self.recorder.add(with_code(step, failure));
    }

    fn add(&mut self, name: &'static str, status: Status, started: Instant, message: String) {
        let step = self.step(name, status, started, message);
        self.recorder.add(step);
    }

    fn step(&self, name: &'static str, status: Status, started: Instant, message: String) -> Step {
        Step::new(name, status, started.elapsed(), message).of_relay(self.family)
    }
}

/// Whether requests on the allocation are answered with 437 or not at all. Some servers take a second to end it.
fn is_gone(party: &mut Party) -> bool {
    let deadline = Instant::now() + RELEASE_PATIENCE;
    loop {
        match party.session.request(Request::CreatePermission { peer: party.relayed }) {
            Err(failure) if failure.code().is_none_or(|code| code == ErrorCode::ALLOCATION_MISMATCH) => return true,
            _ if Instant::now() >= deadline => return false,
            _ => std::thread::sleep(RELEASE_POLL),
        }
    }
}

fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}
