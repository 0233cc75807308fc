//! Why a request is refused or a packet dropped: one closed list that answers, logs and metrics share.

use std::net::SocketAddr;

use crate::policy_name::PolicyName;
use turnstone_stun::ErrorCode;

/// A refusal: the reason, which has an error code on the wire, and the peer it is about, which the wire does not carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reject {
    /// The reason, for logs and metrics.
    pub reason: Reason,
    /// The peer that was denied, or that no relayed address reaches.
    pub peer: Option<SocketAddr>,
    /// The name of the peer policy that denied it; the default one has none.
    pub policy: Option<PolicyName>,
}

/// A peer that may not be reached, and which policy says so: the default one where there is no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeniedPeer {
    /// Why.
    pub reason: Reason,
    /// The name of the policy.
    pub policy: Option<PolicyName>,
}

impl Reject {
    /// A refusal because of a peer.
    pub fn of_peer(reason: Reason, peer: SocketAddr) -> Self {
        Self { reason, peer: Some(peer), policy: None }
    }

    /// A refusal because a policy denies a peer.
    pub(crate) fn of_denied(denied: DeniedPeer, peer: SocketAddr) -> Self {
        Self { reason: denied.reason, peer: Some(peer), policy: denied.policy }
    }

    /// The STUN error code sent.
    pub fn code(self) -> ErrorCode {
        self.reason.code()
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:ident, $label:literal;)*) => {
        /// The closed list of refusal reasons.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// Every reason, for metrics that start at zero.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The error code this reason is answered with.
            pub fn code(self) -> ErrorCode {
                match self { $(Self::$name => ErrorCode::$code,)* }
            }

            /// The stable name used as a metric label and in logs.
            pub fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

reasons! {
    /// A required attribute is missing.
    MissingAttribute = BAD_REQUEST, "missing-attribute";
    /// An attribute's value cannot be decoded.
    MalformedAttribute = BAD_REQUEST, "malformed-attribute";
    /// Attributes that exclude each other (RFC 8656 section 7.2).
    ConflictingAttributes = BAD_REQUEST, "conflicting-attributes";
    /// MESSAGE-INTEGRITY without USERNAME/USERHASH, REALM or NONCE.
    IncompleteCredential = BAD_REQUEST, "incomplete-credential";
    /// PASSWORD-ALGORITHM(S) differ from what the challenge offered (bid-down protection).
    PasswordAlgorithmMismatch = BAD_REQUEST, "password-algorithm-mismatch";
    /// USERNAME has a character that no name needs (RFC 8265 OpaqueString): a control character, or one that deceives.
    MalformedUsername = BAD_REQUEST, "malformed-username";
    /// Channel number outside 0x4000-0x4FFF, or bound to another peer, or the peer to another channel.
    ChannelConflict = BAD_REQUEST, "channel-conflict";
    /// MOBILITY-TICKET in a Refresh is not one that this run of the server has made.
    InvalidTicket = BAD_REQUEST, "invalid-ticket";
    /// The mobility ticket has been used before, and this is no retransmission.
    UsedTicket = BAD_REQUEST, "used-ticket";
    /// MOBILITY-TICKET in a Refresh from where the allocation is already (RFC 8016 section 3.2.2).
    TicketNotNeeded = BAD_REQUEST, "ticket-not-needed";
    /// Allocate for TCP, Connect or ConnectionBind that did not come over TCP or TLS (RFC 6062 sections 5.1 and 5.4).
    ConnectionNeeded = BAD_REQUEST, "connection-needed";
    /// Connect on an allocation whose relays are UDP, or ChannelBind on one whose relays are TCP.
    WrongRelayTransport = BAD_REQUEST, "wrong-relay-transport";
    /// CONNECTION-ID names no connection that waits to be bound (RFC 6062 section 5.4).
    UnknownConnection = BAD_REQUEST, "unknown-connection";
    /// No MESSAGE-INTEGRITY: the challenge of every first request.
    MissingIntegrity = UNAUTHENTICATED, "missing-integrity";
    /// USERNAME or USERHASH names nobody.
    UnknownUser = UNAUTHENTICATED, "unknown-user";
    /// REALM is not ours.
    WrongRealm = UNAUTHENTICATED, "wrong-realm";
    /// MESSAGE-INTEGRITY does not match: wrong password or wrong shared secret.
    WrongPassword = UNAUTHENTICATED, "wrong-password";
    /// The user is stored as a key by another password algorithm than the request's.
    NoKeyOfAlgorithm = UNAUTHENTICATED, "no-key-of-algorithm";
    /// The time-limited credential has expired.
    CredentialExpired = UNAUTHENTICATED, "credential-expired";
    /// The time-limited credential's timestamp counts milliseconds: it would practically never expire.
    TimestampInMilliseconds = UNAUTHENTICATED, "timestamp-in-milliseconds";
    /// Both sides of the time-limited username's colon are numbers, and the expiry is not to be told from the user.
    AmbiguousExpiry = UNAUTHENTICATED, "ambiguous-expiry";
    /// The time-limited credential is good for longer than any may be.
    ExpiryTooFar = UNAUTHENTICATED, "expiry-too-far";
    /// The credential is right, and has been revoked.
    Revoked = UNAUTHENTICATED, "revoked";
    /// The access token is of a key that is not configured (RFC 7635).
    UnknownTokenKey = UNAUTHENTICATED, "unknown-token-key";
    /// The key of the access token is not good yet or any more.
    TokenKeyExpired = UNAUTHENTICATED, "token-key-expired";
    /// USERNAME is the id of a key of access tokens, and there is no ACCESS-TOKEN.
    TokenMissing = UNAUTHENTICATED, "token-missing";
    /// The access token is not of the form of RFC 7635 section 6.2.
    TokenMalformed = UNAUTHENTICATED, "token-malformed";
    /// The access token cannot be opened: it is of another key or algorithm, or for another server.
    TokenUnreadable = UNAUTHENTICATED, "token-unreadable";
    /// The access token has expired, or is from the future.
    TokenExpired = UNAUTHENTICATED, "token-expired";
    /// MESSAGE-INTEGRITY is not by the session key in the access token.
    WrongSessionKey = UNAUTHENTICATED, "wrong-session-key";
    /// What follows the `;` in the time-limited username cannot be read as limits.
    UsernameLimits = UNAUTHENTICATED, "username-limits";
    /// The peer address is denied by a configured rule.
    PeerDenied = FORBIDDEN, "peer-denied";
    /// The peer address is in a range denied by default (private, loopback, multicast, ...).
    PeerDeniedByDefault = FORBIDDEN, "peer-denied-by-default";
    /// The peer address is one of this server's own listeners or interface addresses.
    PeerIsServer = FORBIDDEN, "peer-is-server";
    /// The peer address is of a form no peer has (IPv4-mapped, port 0).
    PeerForm = FORBIDDEN, "peer-form";
    /// The port of the peer is denied.
    PeerPortDenied = FORBIDDEN, "peer-port-denied";
    /// The client asks for mobility, or shows a ticket of it, and the configuration does not offer it.
    MobilityForbidden = MOBILITY_FORBIDDEN, "mobility-forbidden";
    /// The peer policy that the credential or its realm names is not there.
    UnknownPeerPolicy = FORBIDDEN, "unknown-peer-policy";
    /// The user is suspended, for peers that were denied: no new allocation, and no new peer.
    Suspended = FORBIDDEN, "suspended";
    /// Comprehension-required attributes we do not know.
    UnknownAttribute = UNKNOWN_ATTRIBUTE, "unknown-attribute";
    /// The 5-tuple has an allocation already, or has none.
    AllocationMismatch = ALLOCATION_MISMATCH, "allocation-mismatch";
    /// The nonce is not one of ours, is another client's, or is too old.
    StaleNonce = STALE_NONCE, "stale-nonce";
    /// No relay of the requested address family.
    FamilyUnsupported = ADDRESS_FAMILY_NOT_SUPPORTED, "family-unsupported";
    /// The username is not the one that made the allocation.
    WrongUser = WRONG_CREDENTIALS, "wrong-user";
    /// REQUESTED-TRANSPORT is neither UDP nor, where TCP is offered, TCP.
    TransportUnsupported = UNSUPPORTED_TRANSPORT, "transport-unsupported";
    /// The peer's family is not that of any relayed address of the allocation.
    PeerFamilyMismatch = PEER_FAMILY_MISMATCH, "peer-family-mismatch";
    /// The allocation has a connection to this peer already, or is making one (RFC 6062 section 5.2).
    ConnectionExists = CONNECTION_ALREADY_EXISTS, "connection-exists";
    /// The peer refused the connection, cannot be reached, or did so within the last 10 seconds.
    ConnectionFailed = CONNECTION_FAILURE, "connection-failed";
    /// The peer did not answer within 30 seconds.
    ConnectionTimedOut = CONNECTION_FAILURE, "connection-timed-out";
    /// The user has as many connections to peers as allowed.
    UserConnections = QUOTA_REACHED, "user-connections";
    /// The user has as many allocations as allowed.
    UserQuota = QUOTA_REACHED, "user-quota";
    /// The realm has as many allocations as allowed.
    RealmQuota = QUOTA_REACHED, "realm-quota";
    /// The server has as many allocations as allowed.
    TotalQuota = QUOTA_REACHED, "total-quota";
    /// The user has as many allocations as allowed on all servers that share the limit.
    FleetQuota = QUOTA_REACHED, "fleet-quota";
    /// The user makes allocations faster than allowed.
    UserRate = QUOTA_REACHED, "user-rate";
    /// The user has as many reserved ports as allowed that were not redeemed yet.
    UserReservations = QUOTA_REACHED, "user-reservations";
    /// As many ports are reserved as may be.
    NoReservation = INSUFFICIENT_CAPACITY, "no-reservation";
    /// No relay port is free.
    NoPort = INSUFFICIENT_CAPACITY, "no-port";
    /// The relay address is not on this host at this moment.
    NoRelayAddress = INSUFFICIENT_CAPACITY, "no-relay-address";
    /// EVEN-PORT or RESERVATION-TOKEN, where allocations share their relay ports.
    SharedPorts = INSUFFICIENT_CAPACITY, "shared-ports";
    /// On a shared relay port, another allocation has the peer's address and port.
    PeerEndpointTaken = INSUFFICIENT_CAPACITY, "peer-endpoint-taken";
    /// RESERVATION-TOKEN is unknown, expired or another user's.
    UnknownReservation = INSUFFICIENT_CAPACITY, "unknown-reservation";
    /// The allocation has as many permissions or channels as allowed.
    TooManyPeers = INSUFFICIENT_CAPACITY, "too-many-peers";
    /// The allocation moves faster than allowed, or as many moves are pending, of the user or in all, as may be.
    TooManyMoves = INSUFFICIENT_CAPACITY, "too-many-moves";
    /// The user has as many peers as allowed, over all allocations.
    UserPeers = INSUFFICIENT_CAPACITY, "user-peers";
    /// The user names new peers faster than allowed.
    UserNewPeers = INSUFFICIENT_CAPACITY, "user-new-peers";
    /// The allocation has as many connections to peers as allowed.
    TooManyConnections = INSUFFICIENT_CAPACITY, "too-many-connections";
    /// The operating system refused. To the client it is a lack of capacity like the others.
    SystemError = INSUFFICIENT_CAPACITY, "system-error";
    /// As many requests wait for an answer from outside as may, in all, of the client's network or of the client; or the request is too
    /// long to wait.
    TooManyWaiting = INSUFFICIENT_CAPACITY, "too-many-waiting";
    /// Whoever knows the user's credential could not say, or did not in time.
    CredentialUnavailable = SERVER_ERROR, "credential-unavailable";
    /// Nobody could say, or did not in time, what is left for the user of a limit that several servers share.
    FleetUnavailable = SERVER_ERROR, "fleet-unavailable";
    /// The server is draining.
    Draining = INSUFFICIENT_CAPACITY, "draining";
    /// The server is draining, or shares its load with others, and names another one.
    Redirected = TRY_ALTERNATE, "redirected";
}

impl From<Reason> for Reject {
    fn from(reason: Reason) -> Self {
        Self { reason, peer: None, policy: None }
    }
}

/// Why a packet was dropped without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dropped {
    /// Not STUN, not ChannelData, or malformed.
    Malformed,
    /// No allocation on the 5-tuple.
    NoAllocation,
    /// The channel is not bound or has expired.
    NoChannel,
    /// No permission for the peer, or it has expired.
    NoPermission,
    /// On a shared relay port, more than one allocation has a permission for the address of a peer that none has sent to.
    SeveralPermissions,
    /// On a shared relay port, another allocation has the peer's address and port, or this one has as many as it may.
    PeerEndpointTaken,
    /// Peer policy.
    PeerDenied,
    /// The allocation's or the user's bandwidth is used up.
    Bandwidth,
    /// The budget for answers to unauthenticated requests is used up.
    RateLimited,
    /// A method we do not implement or do not offer, such as those of RFC 6062 by default, or a request of a method that has only indications.
    UnknownMethod,
    /// A DTLS record of a client that has no session, as after a restart of the server.
    NoSession,
    /// The allocation of the 5-tuple is on its way here from another worker, and no room is left for what waits for it.
    Moving,
    /// A connection of a peer to a TCP relay whose allocation, or its user, has as many as allowed, or one to this very peer.
    TooManyConnections,
    /// One of our own relays has sent it to one of our own listeners.
    OwnRelay,
    /// It has gone round a loop, which is cut with it; or has been wrapped by more servers than there can be on its way.
    Loop,
    /// A well-formed message that asks for nothing: a response, or an indication without effect here.
    Ignored,
}

impl Dropped {
    /// Every reason, for metrics that start at zero.
    pub const ALL: &'static [Self] = &[
        Self::Malformed,
        Self::NoAllocation,
        Self::NoChannel,
        Self::NoPermission,
        Self::SeveralPermissions,
        Self::PeerEndpointTaken,
        Self::PeerDenied,
        Self::Bandwidth,
        Self::RateLimited,
        Self::UnknownMethod,
        Self::NoSession,
        Self::Moving,
        Self::TooManyConnections,
        Self::OwnRelay,
        Self::Loop,
        Self::Ignored,
    ];

    /// The stable name used as a metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::NoAllocation => "no-allocation",
            Self::NoChannel => "no-channel",
            Self::NoPermission => "no-permission",
            Self::SeveralPermissions => "several-permissions",
            Self::PeerEndpointTaken => "peer-endpoint-taken",
            Self::PeerDenied => "peer-denied",
            Self::Bandwidth => "bandwidth",
            Self::RateLimited => "rate-limited",
            Self::UnknownMethod => "unknown-method",
            Self::NoSession => "no-session",
            Self::Moving => "moving",
            Self::TooManyConnections => "too-many-connections",
            Self::OwnRelay => "own-relay",
            Self::Loop => "loop",
            Self::Ignored => "ignored",
        }
    }
}
