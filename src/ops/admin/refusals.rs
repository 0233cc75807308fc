//! Why clients were refused: the last refusals of every worker, each explained in words.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde_json::{Value, json};

use super::api::Api;
use super::error::Refused;
use super::input::Query;
use super::last_ends;
use super::realms::{Realm, asked};
use super::revocations;
use crate::addr::Reach;
use crate::auth::{TimeLimited, UsernameLimits};
use crate::clock::span;
use crate::policy::{Allowance, Denial, PeerAcl, PeerPolicies, PolicyName};
use crate::reject::Reason;
use crate::stun::Method;
use crate::turn::{Excerpt, Refusal};
use crate::user::RealmId;
use crate::worker::{Command, LastEnd, REFUSALS_KEPT};

pub(super) const KEYS: &[&str] = &["user", "realm", "address", "limit"];

const LIMIT_DEFAULT: usize = 50;
const LIMIT_MAX: usize = 1000;
/// Ports of one address that are judged each by itself.
const PORTS_MAX: usize = 16;

/// `GET /v1/refusals`: the newest first.
pub(super) async fn list(api: &Api, query: &Query) -> Result<Value, Refused> {
    let user = query.text("user")?;
    let realm = asked(api, query)?.as_ref().map(Realm::id);
    let address: Option<Address> = query.parsed("address", "an IP address, or ADDRESS:PORT of a client or peer")?;
    let limit = query.limit(LIMIT_DEFAULT, LIMIT_MAX)?;
    let ends = last_ends::of(api, user, address.map(Address::ip), realm).await?;
    let of_workers = api.workers.ask_all(Command::Refusals).await?;
    // A worker whose ring is full knows nothing of what was before; the others remember everything since the start.
    let started_unix = api.status.started_unix_secs() as u64;
    let kept_since = |kept: &Vec<Refusal>| match kept.first() {
        Some(oldest) if kept.len() >= REFUSALS_KEPT => oldest.unix_secs,
        _ => started_unix,
    };
    let kept_since_unix = of_workers.iter().map(kept_since).max();
    let mut found: Vec<Refusal> = of_workers.into_iter().flat_map(|kept| kept.into_iter().rev()).collect();
    found.retain(|refusal| {
        user.is_none_or(|user| is_of(&refusal.username, user))
            && realm.is_none_or(|realm| realm == refusal.realm)
            && address.is_none_or(|address| address.is_in(refusal))
    });
    found.sort_by_key(|refusal| Reverse(refusal.unix_secs));
    let settings = api.status.settings();
    let policies = settings.as_deref().map(|settings| &**settings.peer_policies());
    let realm_of = |refusal: &Refusal| {
        let beside_default = Some(refusal.realm).filter(|realm| *realm != RealmId::DEFAULT)?;
        settings.as_deref()?.realm_name(beside_default)
    };
    let several = settings.as_deref().filter(|settings| settings.has_realms());
    let beside = several.and_then(|settings| settings.realm_name(RealmId::DEFAULT));
    let shown = found.iter().take(limit).map(|refusal| {
        let mut shown = shown(refusal, realm_of(refusal), beside, policies);
        let end = ends.iter().find(|end| is_of_client(end, refusal));
        if let (Some(end), Some(explanation)) = (end, shown.get_mut("explanation"))
            && is_without_allocation(refusal)
        {
            *explanation =
                format!("the client has no allocation any more: {}", last_ends::explanation(end.reason)).into();
        }
        if refusal.reason == Reason::CredentialUnavailable
            && let Some(explanation) = shown.get_mut("explanation")
        {
            *explanation = why_nobody_could_say(api, refusal).into();
        }
        shown
    });
    let mut answer = json!({ "refusals": shown.collect::<Vec<_>>(), "kept_since_unix": kept_since_unix });
    if let Value::Object(fields) = &mut answer {
        if let (Some(address), Some(policies)) = (address, policies) {
            fields.insert("as_peer".to_owned(), as_peer_of_all(address, &found, policies));
        }
        if user.is_some() || address.is_some() {
            let ends = ends.iter().take(limit).map(|end| last_ends::shown(api, end));
            fields.insert("ended".to_owned(), ends.collect());
        }
        if let Some(user) = user {
            fields.insert("revoked".to_owned(), revocations::of(api, user, realm, limit));
        }
    }
    Ok(answer)
}

/// Who was asked about the user, and what came of it.
fn why_nobody_could_say(api: &Api, refusal: &Refusal) -> String {
    let health = api.status.hook.health();
    let store = api.status.store.get().map(|_| {
        "the store of [store] could not say who the user is, or did not in time; the log and `turnstone store status` say why"
    });
    let Some(hook) = health.view() else {
        return store.unwrap_or("nobody could say who the user is, or did not in time").to_owned();
    };
    let url = hook.url;
    match (health.problem_with(&text_of(&refusal.username), refusal.unix_secs), store) {
        (Some(problem), _) => format!("the application of [hook] ({url}) could not say who the user is: {problem}"),
        (None, None) => format!(
            "the application of [hook] ({url}) could not say who the user is, or did not in time; `turnstone status` and its own log say more"
        ),
        (None, Some(store)) => {
            format!("{store}; or so could not the application of [hook] ({url}): `turnstone status`")
        }
    }
}

/// An IP address, or one with a port.
#[derive(Clone, Copy)]
enum Address {
    Ip(IpAddr),
    Socket(SocketAddr),
}

impl FromStr for Address {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        text.parse().map(Self::Ip).or_else(|_| text.parse().map(Self::Socket)).map_err(drop)
    }
}

impl Address {
    fn ip(self) -> IpAddr {
        match self {
            Self::Ip(ip) => ip,
            Self::Socket(address) => address.ip(),
        }
    }

    /// Whether it is the client's or the peer's.
    fn is_in(self, refusal: &Refusal) -> bool {
        let mut known = [Some(refusal.client.get()), refusal.peer].into_iter().flatten();
        known.any(|known| match self {
            Self::Ip(ip) => known.ip() == ip,
            Self::Socket(address) => known == address,
        })
    }
}

/// Whether a username, of which the beginning is known, is this one, or that of a time-limited credential of this user.
fn is_of(username: &Excerpt, wanted: &str) -> bool {
    let text = text_of(username);
    let user = TimeLimited::parse(&text).map(|parsed| parsed.user);
    // Whether limits were read is not known here.
    let plain = TimeLimited::parse(UsernameLimits::plain(&text)).map(|parsed| parsed.user);
    match username.is_whole() {
        true => text == wanted || user == Some(wanted) || plain == Some(wanted),
        false => {
            wanted.starts_with(&text) || user.is_some_and(|user| wanted.starts_with(user)) || plain == Some(wanted)
        }
    }
}

/// The text of a username; what is not UTF-8 in it is replaced, and a character that was cut in two is left away.
fn text_of(username: &Excerpt) -> String {
    let mut text = String::with_capacity(username.as_bytes().len());
    let mut chunks = username.as_bytes().utf8_chunks().peekable();
    while let Some(chunk) = chunks.next() {
        text.push_str(chunk.valid());
        let is_cut = chunks.peek().is_none() && !username.is_whole();
        if !chunk.invalid().is_empty() && !is_cut {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    text
}

/// `realm` is named unless it is that of `[auth]`, `beside` is that one where there are others.
fn shown(refusal: &Refusal, realm: Option<&str>, beside: Option<&str>, policies: Option<&PeerPolicies>) -> Value {
    let username = text_of(&refusal.username);
    let denial = policies.and_then(|policies| denial(refusal, policies.get(refusal.policy)?));
    let explanation = explanation(refusal, &username, denial.as_ref());
    // Who has come in by the wrong door has a credential that is good at another one.
    let is_of_realm = matches!(refusal.reason, Reason::WrongPassword | Reason::UnknownUser | Reason::NoKeyOfAlgorithm);
    let in_realm = match realm.or(beside).filter(|_| is_of_realm) {
        Some(realm) => format!(" (it came into the realm {realm:?}, by the listener or the server name)"),
        None => String::new(),
    };
    json!({
        "at_unix": refusal.unix_secs,
        "code": refusal.reason.code().value(),
        "reason": refusal.reason.label(),
        "method": refusal.method.name(),
        "client": refusal.client.to_string(),
        "transport": refusal.transport.name(),
        "realm": realm,
        "explanation": explanation + &in_realm,
        "username": username,
        "username_complete": refusal.username.is_whole(),
        "peer": refusal.peer.map(|peer| peer.to_string()),
        "policy": refusal.policy.map(|policy| policy.to_string()),
        "times": refusal.times,
        "normal": refusal.reason == Reason::StaleNonce || is_host_candidate(refusal),
    })
}

/// Whether a client asked about an allocation that it does not have.
fn is_without_allocation(refusal: &Refusal) -> bool {
    refusal.reason == Reason::AllocationMismatch && refusal.method != Method::ALLOCATE
}

/// Whether what ended was that of the client that was refused.
fn is_of_client(end: &LastEnd, refusal: &Refusal) -> bool {
    end.client == refusal.client && end.transport == refusal.transport && last_ends::realm_of(end) == refusal.realm
}

/// Whether clients may have an address as a peer now, by the default policy and by each of the others.
fn as_peer_of_all(address: Address, found: &[Refusal], policies: &PeerPolicies) -> Value {
    let mut answer = as_peer(address, found, policies.default_policy());
    let named = policies.named().map(|(name, acl)| {
        let mut answer = match address {
            Address::Socket(address) => verdict(acl.explain(address), || acl.allowance_of(address), Some(name)),
            Address::Ip(ip) => verdict(acl.explain_ip(ip), || acl.allowance_of_ip(ip), Some(name)),
        };
        if let Value::Object(fields) = &mut answer {
            fields.insert("policy".to_owned(), name.to_string().into());
        }
        answer
    });
    let named: Vec<_> = named.collect();
    if let (false, Value::Object(fields)) = (named.is_empty(), &mut answer) {
        fields.insert("policies".to_owned(), named.into());
    }
    answer
}

/// By one policy; of an address without a port, also the ports that refusals of it are about.
fn as_peer(address: Address, found: &[Refusal], acl: &PeerAcl) -> Value {
    let ip = match address {
        Address::Socket(address) => return verdict(acl.explain(address), || acl.allowance_of(address), None),
        Address::Ip(ip) => ip,
    };
    let mut answer = verdict(acl.explain_ip(ip), || acl.allowance_of_ip(ip), None);
    let peers = found.iter().filter(|refusal| has_port(refusal)).filter_map(|refusal| refusal.peer);
    let asked: BTreeSet<u16> = peers.filter(|peer| peer.ip() == ip).map(|peer| peer.port()).collect();
    let ports = asked.into_iter().take(PORTS_MAX).map(|port| {
        let peer = SocketAddr::new(ip, port);
        let mut answer = verdict(acl.explain(peer), || acl.allowance_of(peer), None);
        if let Value::Object(fields) = &mut answer {
            fields.insert("port".to_owned(), port.into());
        }
        answer
    });
    let ports: Vec<_> = ports.collect();
    if let (false, Value::Object(fields)) = (ports.is_empty(), &mut answer) {
        fields.insert("ports".to_owned(), ports.into());
    }
    answer
}

fn verdict(denial: Option<Denial>, allowance: impl Fn() -> Allowance, policy: Option<PolicyName>) -> Value {
    let explanation = denial.as_ref().map_or_else(|| allowance().told(policy), |denial| denial.told(policy));
    json!({ "allowed": denial.is_none(), "explanation": explanation })
}

/// Permissions have no port (RFC 8656 section 9).
fn has_port(refusal: &Refusal) -> bool {
    refusal.method != Method::CREATE_PERMISSION
}

/// What denies the peer now.
fn denial(refusal: &Refusal, acl: &PeerAcl) -> Option<Denial> {
    let peer = refusal.peer?;
    if has_port(refusal) { acl.explain(peer) } else { acl.explain_ip(peer.ip()) }
}

/// Browsers ask for permissions for every candidate of the other side, those of its private network included (RFC 8445).
fn is_host_candidate(refusal: &Refusal) -> bool {
    refusal.reason == Reason::PeerDeniedByDefault
        && refusal.peer.is_some_and(|peer| Reach::is_host_candidate(peer.ip()))
}

fn explanation(refusal: &Refusal, username: &str, denial: Option<&Denial>) -> String {
    let time_limited = TimeLimited::parse(username);
    let text = match refusal.reason {
        Reason::CredentialExpired => match time_limited {
            Some(credential) => {
                let ago = span(refusal.unix_secs.saturating_sub(credential.expires_unix));
                return format!("the credential had expired {ago} before");
            }
            None => "the credential had expired",
        },
        Reason::TimestampInMilliseconds => "the expiry in the username counts milliseconds; it must be in seconds",
        Reason::AmbiguousExpiry => {
            "both sides of the colon in the username are numbers, and the first would be an expiry years away; the form is \
             EXPIRY:USER"
        }
        Reason::MalformedUsername => "the username has a control character or an invisible one",
        Reason::UsernameLimits => match UsernameLimits::split(username) {
            Err(error) => {
                return format!(
                    "the limits in the username (EXPIRY:USER;bw=2M;alloc=4;peers=NAME) cannot be read: {error}"
                );
            }
            Ok(_) => "the limits in the username could not be read",
        },
        Reason::ExpiryTooFar => {
            "the credential would be good for longer than [auth] credential-lifetime-max allows: issue it for less"
        }
        Reason::Revoked => "the credential has been revoked: turnstone revoke --list shows by what",
        Reason::WrongPassword if time_limited.is_some() => {
            "wrong password, or made with another secret (or with a line end behind it): turnstone credentials verify USERNAME PASSWORD says more"
        }
        Reason::NoKeyOfAlgorithm => {
            "the user is stored as a SHA-256 key only, and the client uses MD5, as clients of RFC 5389 do: turnstone credentials hash makes both keys"
        }
        Reason::WrongPassword => "wrong password",
        // With a secret it would have been judged by it.
        Reason::UnknownUser if time_limited.is_some() => {
            "it has the form of a time-limited credential's username (EXPIRY:USER), but there was no shared secret to judge it by: neither in \
             the configuration nor in the store, if there is one; nor is it the name of a user"
        }
        Reason::UnknownUser => {
            "no static user has this name, it is not the username of a time-limited credential (EXPIRY:USER), and neither the store nor the application of [hook], if there is one, knows it"
        }
        Reason::WrongRealm => {
            "the client answered the challenge of another realm: it had it from another server, or by another listener or server name of \
             this one"
        }
        Reason::UnknownTokenKey => "the access token's key, which the username names, is none of [[auth.token-keys]]",
        Reason::TokenKeyExpired => {
            "the access token's key is not good yet or any more: see not-before and not-after in [[auth.token-keys]]"
        }
        Reason::TokenMissing => {
            "the username is the id of one of [[auth.token-keys]], and the request has no access token with it (ACCESS-TOKEN), which every \
             request needs"
        }
        Reason::TokenMalformed => "the access token is not of the form of RFC 7635 section 6.2, or is not whole",
        Reason::TokenUnreadable => {
            "the access token does not open with the key that the username names: another key has sealed it, or another algorithm, or it is \
             for another server than [auth] server-name"
        }
        Reason::TokenExpired => "the access token had expired, or the authorization server's clock is far ahead",
        Reason::WrongSessionKey => {
            "the request is not signed by the session key in its access token: client and authorization server differ (turnstone \
             credentials token --verify judges a token)"
        }
        Reason::MissingIntegrity => "the first request of every client: it is told realm and nonce and comes again",
        Reason::PeerDenied | Reason::PeerDeniedByDefault | Reason::PeerForm => {
            return match denial {
                Some(Denial::Default { range, .. }) if is_host_candidate(refusal) => {
                    format!("private host candidate ({range}): normal in ICE")
                }
                Some(denial @ Denial::Rule { .. }) => format!("denied by {}", denial.told(refusal.policy)),
                Some(denial) => format!("denied: {}", denial.told(refusal.policy)),
                None => "denied by the rules at that time; those in force now allow it".to_owned(),
            };
        }
        Reason::PeerIsServer => {
            "the peer is an address of this server; [peers] own-services lifts that for programs beside it"
        }
        Reason::PeerPortDenied => match denial {
            Some(denial) => return format!("denied: {}", denial.told(refusal.policy)),
            None => "denied by [peers] denied-ports",
        },
        Reason::UnknownPeerPolicy => {
            "the username (peers=NAME) names a peer policy that is not in the configuration as [[peers.policy]], so that no \
             peer may be reached"
        }
        Reason::Suspended => {
            "the user is suspended for peers that were denied ([guard] suspend-after); turnstone suspensions --lift USER ends that"
        }
        Reason::UserPeers => "the user has as many peers, over all allocations, as [guard] peers-per-user allows",
        Reason::UserNewPeers => "the user names new peers faster than [guard] new-peers-per-minute allows",
        Reason::StaleNonce => "the nonce was too old or another client's; the client is told a new one and goes on",
        Reason::AllocationMismatch if refusal.method == Method::ALLOCATE => "the client has an allocation already",
        Reason::AllocationMismatch => {
            "the client has no allocation (any more): it expired, was ended, or the server was started anew"
        }
        Reason::WrongUser => "another user's credential than the one that made the allocation",
        Reason::UserQuota => {
            "the user has as many allocations as [quota] allocations-per-user allows, or alloc= in the username"
        }
        Reason::RealmQuota => "the realm has as many allocations as allocations-total in its [realm.quota] allows",
        Reason::TotalQuota => "the server has as many allocations as [quota] allocations-total allows",
        Reason::FleetQuota => {
            "the user has as many allocations on all servers together as [quota] fleet-allocations-per-user allows, or alloc= in the username"
        }
        Reason::FleetUnavailable => {
            "the store of [store] could not say how many allocations the user has on other servers, and on-loss in [store] allows no more \
             here meanwhile; turnstone store status says what is wrong with it"
        }
        Reason::UserRate => {
            "the user makes allocations faster than [quota] allocations-per-user-per-second and -burst allow"
        }
        Reason::UserReservations => {
            "the user has as many reserved ports (EVEN-PORT) as [quota] reservations-per-user allows"
        }
        Reason::NoReservation => "a quarter of the relay ports is reserved (EVEN-PORT), which is as many as may be",
        Reason::NoPort => "no relay port is free; widen [relay] ports",
        Reason::SharedPorts => "EVEN-PORT and reservations are not to be had where [relay] ports are shared",
        Reason::PeerEndpointTaken => {
            "another client has this peer on the same shared relay port, and the peer could not tell the two apart; open more \
             [relay] ports"
        }
        Reason::NoRelayAddress => "the relay address was not on this host at that moment; the log and /readyz say why",
        Reason::UnknownReservation => "the reservation token is unknown, expired or another user's",
        Reason::TooManyPeers => "the allocation has as many peers as [limits] peers-per-allocation allows",
        Reason::SystemError => "the operating system gave no socket; look at the limit of open files (LimitNOFILE)",
        Reason::TooManyWaiting => {
            "as many requests as may were waiting for the application of [hook] or the store of [store] to say who their users are, or for the store \
             to say what is left of their quota"
        }
        Reason::CredentialUnavailable => {
            "the store or the application of [hook] could not say who the user is, or did not in time; `turnstone status` says more"
        }
        Reason::Draining => {
            "the server is draining and takes no new allocation; [drain] alternate-server could name another"
        }
        Reason::Redirected => "the server is draining, or [redirect] shares its load, and it named an alternate server",
        Reason::FamilyUnsupported => "the server has no relay address of the address family asked for; see [relay]",
        Reason::PeerFamilyMismatch => "the peer's address family is not that of the allocation",
        Reason::TransportUnsupported => {
            "the client asked for a relayed transport other than UDP; TCP (RFC 6062) is offered with tcp = true in [relay]"
        }
        Reason::ConnectionNeeded => {
            "TCP relays (RFC 6062) are for clients that come over TCP or TLS, not over datagrams"
        }
        Reason::WrongRelayTransport => {
            "Connect is for allocations with TCP relays, ChannelBind for those with UDP relays (RFC 6062)"
        }
        Reason::UnknownConnection => {
            "no connection with a peer waits under this CONNECTION-ID: it ended, was bound already, or waited longer than 30 s"
        }
        Reason::ConnectionExists => "the allocation has a connection with this peer already, or is making one",
        Reason::ConnectionFailed => {
            "the peer refused the connection or could not be reached; it is not tried again for 10 s"
        }
        Reason::ConnectionTimedOut => "the peer did not answer the connection within 30 s",
        Reason::UserConnections => {
            "the user has as many connections with peers as [relay] tcp-connections-per-user allows"
        }
        Reason::TooManyConnections => {
            "the allocation has as many connections with peers as [relay] tcp-connections-per-allocation allows"
        }
        Reason::ChannelConflict => {
            "the channel number is out of range (see rfc5766-channel-numbers) or bound to another peer"
        }
        Reason::MobilityForbidden => "the client asks for mobility (RFC 8016), which is off; mobility = true offers it",
        Reason::InvalidTicket => {
            "the mobility ticket is not of this run of this server: after a restart every client allocates anew, and a load balancer must send a \
             client that has moved to the server that it came from"
        }
        Reason::UsedTicket => {
            "the mobility ticket has been used before; the client has missed the one that replaced it, and allocates anew"
        }
        Reason::TicketNotNeeded => {
            "the client shows its mobility ticket at the address that its allocation is at already"
        }
        Reason::TooManyMoves => {
            "the allocation moves more than once a second, or too many moves of the user are pending; the client may try again in a second"
        }
        Reason::UnknownAttribute => "an attribute that the server would have to understand and does not",
        Reason::MissingAttribute => "the request lacks an attribute that it must have",
        Reason::MalformedAttribute => "an attribute of the request cannot be decoded",
        Reason::ConflictingAttributes => "the request has attributes that exclude each other",
        Reason::IncompleteCredential => "the request is signed, but lacks the username, the realm or the nonce",
        Reason::PasswordAlgorithmMismatch => {
            "the request's password algorithms are not those that the server had offered"
        }
    };
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{ClientAddr, Transport};
    use crate::policy::PeerRules;

    fn refusal(reason: Reason, username: &[u8], peer: Option<&str>) -> Refusal {
        Refusal {
            unix_secs: 1_735_689_600,
            reason,
            method: Method::CREATE_PERMISSION,
            client: ClientAddr::new(([192, 0, 2, 1], 4711).into()),
            transport: Transport::Udp,
            realm: RealmId::DEFAULT,
            username: Excerpt::of(username),
            peer: peer.map(|peer| peer.parse().unwrap()),
            policy: None,
            times: 1,
        }
    }

    fn told(refusal: &Refusal) -> (String, bool) {
        let acl =
            PeerAcl::compile(&PeerRules { denied: vec!["8.8.8.0/24".to_owned()], ..PeerRules::default() }).unwrap();
        let shown = shown(refusal, None, None, Some(&PeerPolicies::new(acl.into())));
        (shown["explanation"].as_str().unwrap().to_owned(), shown["normal"].as_bool().unwrap())
    }

    #[test]
    fn expired_credentials_say_how_long_before() {
        for (expiry, text) in [
            (1_735_689_600 - 5, "the credential had expired 5 s before"),
            (1_735_689_600 - 180, "the credential had expired 3 min before"),
            (1_735_689_600 - 7200, "the credential had expired 2 h before"),
            (1_735_689_600 - 864_000, "the credential had expired 10 days before"),
        ] {
            let name = format!("{expiry}:alice");
            assert_eq!(told(&refusal(Reason::CredentialExpired, name.as_bytes(), None)), (text.to_owned(), false));
        }
    }

    #[test]
    fn denied_peers_name_their_range_and_only_private_candidates_are_normal() {
        let told = |reason, peer| told(&refusal(reason, b"alice", Some(peer)));
        let candidate = "private host candidate (10.0.0.0/8, private use): normal in ICE";
        assert_eq!(told(Reason::PeerDeniedByDefault, "10.0.0.1:9"), (candidate.to_owned(), true));
        for peer in ["192.168.1.1:9", "172.16.0.1:9", "100.64.0.1:9", "[fd00::1]:9", "[fe80::1]:9"] {
            assert!(told(Reason::PeerDeniedByDefault, peer).1, "{peer}");
        }
        for peer in [
            "169.254.169.254:80",
            "[fd00:ec2::254]:80",
            "127.0.0.1:80",
            "224.0.0.1:9",
            "[::1]:9",
            "[2002::1]:9",
            "192.0.2.1:9",
        ] {
            let (text, normal) = told(Reason::PeerDeniedByDefault, peer);
            assert!(!normal && text.starts_with("denied: "), "{peer}: {text}");
        }
        let rule = "denied by the rule \"8.8.8.0/24\" in [peers] denied";
        assert_eq!(told(Reason::PeerDenied, "8.8.8.8:9"), (rule.to_owned(), false));
        assert!(told(Reason::PeerDenied, "8.8.4.4:9").0.contains("those in force now allow it"));
    }

    #[test]
    fn where_there_are_several_realms_it_is_told_which_one_did_not_know_a_credential() {
        let told = |reason, realm, beside| {
            let shown = shown(&refusal(reason, b"1735689600:bob", None), realm, beside, None);
            shown["explanation"].as_str().unwrap().to_owned()
        };
        let text = told(Reason::WrongPassword, None, Some("example.org"));
        assert!(
            text.ends_with("says more (it came into the realm \"example.org\", by the listener or the server name)"),
            "{text}"
        );
        assert!(told(Reason::UnknownUser, Some("b"), Some("example.org")).contains("the realm \"b\""));
        assert!(!told(Reason::WrongPassword, None, None).contains("realm"));
        assert!(!told(Reason::CredentialExpired, None, Some("example.org")).contains("realm"));
    }

    #[test]
    fn a_time_limited_username_that_no_secret_was_there_for_is_not_said_to_be_none() {
        let told = |name: &str| told(&refusal(Reason::UnknownUser, name.as_bytes(), None)).0;
        let without_secret = told("1735689600:bob");
        assert!(without_secret.contains("there was no shared secret to judge it by"), "{without_secret}");
        assert!(!without_secret.contains("it is not the username"), "{without_secret}");
        assert!(told("bob").contains("it is not the username of a time-limited credential"));
    }

    #[test]
    fn every_reason_has_an_explanation_of_its_own() {
        let mut texts: Vec<_> = Reason::ALL
            .iter()
            .map(|reason| told(&refusal(*reason, b"1735689000:alice", Some("10.0.0.1:0"))).0)
            .collect();
        assert!(texts.iter().all(|text| text.len() > 10), "{texts:?}");
        texts.sort_unstable();
        texts.dedup();
        // PeerDenied, PeerForm and PeerPortDenied tell what denies the peer now.
        assert!(texts.len() >= Reason::ALL.len() - 3, "{texts:?}");
    }

    #[test]
    fn usernames_are_text_whatever_they_were() {
        assert_eq!(text_of(&Excerpt::of("zo\u{eb}\n".as_bytes())), "zo\u{eb}\n");
        assert_eq!(text_of(&Excerpt::of(b"\xffa\xfe")), "\u{fffd}a\u{fffd}");
        let long = format!("1735689600:{}", "\u{e4}".repeat(100));
        let excerpt = Excerpt::of(long.as_bytes());
        assert_eq!(text_of(&excerpt), format!("1735689600:{}", "\u{e4}".repeat(42)));
        assert!(is_of(&excerpt, &"\u{e4}".repeat(100)) && is_of(&excerpt, &long));
        assert!(!is_of(&excerpt, "bob"));
        let whole = Excerpt::of(b"1735689600:alice");
        assert!(is_of(&whole, "alice") && is_of(&whole, "1735689600:alice") && !is_of(&whole, "alice2"));
    }
}
