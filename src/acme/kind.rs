//! The kinds of failures, each with its name in metrics and what an operator can do.

/// What kind of failure it is: a closed list, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The authority cannot be reached.
    Unreachable,
    /// The authority's own certificate is not trusted.
    Untrusted,
    /// The authority was asked too often.
    RateLimited,
    /// The authority finds no address of the name.
    Dns,
    /// The authority cannot connect to the name.
    Connection,
    /// What answers at the name is not this server.
    WrongAnswer,
    /// The name's owner has allowed other authorities only.
    Caa,
    /// The authority does not want to.
    Rejected,
    /// The account is no good to the authority.
    Account,
    /// The authority fails, or does not speak ACME.
    Authority,
    /// Nothing here can be asked by the authority.
    NothingToAsk,
    /// It cannot be kept.
    Disk,
}

impl Kind {
    pub(crate) const ALL: [Self; 12] = [
        Self::Unreachable,
        Self::Untrusted,
        Self::RateLimited,
        Self::Dns,
        Self::Connection,
        Self::WrongAnswer,
        Self::Caa,
        Self::Rejected,
        Self::Account,
        Self::Authority,
        Self::NothingToAsk,
        Self::Disk,
    ];

    /// Its name in metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Untrusted => "untrusted",
            Self::RateLimited => "rate-limited",
            Self::Dns => "dns",
            Self::Connection => "connection",
            Self::WrongAnswer => "wrong-answer",
            Self::Caa => "caa",
            Self::Rejected => "rejected",
            Self::Account => "account",
            Self::Authority => "authority",
            Self::NothingToAsk => "nothing-to-ask",
            Self::Disk => "disk",
        }
    }

    /// Whether it may be so for every name, and not for one: when it comes before a name was looked at.
    pub(super) fn may_be_of_all(self) -> bool {
        match self {
            Self::Unreachable | Self::Untrusted | Self::RateLimited | Self::Account | Self::Authority | Self::Disk => {
                true
            }
            Self::Dns | Self::Connection | Self::WrongAnswer | Self::Caa | Self::Rejected | Self::NothingToAsk => false,
        }
    }

    /// By the type of a problem document (RFC 8555 section 6.7).
    pub(super) fn of_problem(kind: &str) -> Self {
        match kind.strip_prefix("urn:ietf:params:acme:error:").unwrap_or_default() {
            "rateLimited" => Self::RateLimited,
            "dns" => Self::Dns,
            "connection" => Self::Connection,
            // What is no TLS, or another certificate, is another server, too.
            "unauthorized" | "incorrectResponse" | "tls" => Self::WrongAnswer,
            "caa" => Self::Caa,
            "rejectedIdentifier" | "unsupportedIdentifier" | "orderNotReady" | "badCSR" => Self::Rejected,
            "accountDoesNotExist"
            | "externalAccountRequired"
            | "invalidContact"
            | "unsupportedContact"
            | "userActionRequired"
            | "badPublicKey" => Self::Account,
            _ => Self::Authority,
        }
    }

    pub(super) fn remedy(self) -> &'static str {
        match self {
            Self::Unreachable => "let this host reach it by HTTPS (its resolver, a firewall for what goes out)",
            Self::Untrusted => {
                "the root of a private authority goes into acme-ca in [tls]; for a public one, look at this host's clock and ca-certificates"
            }
            Self::RateLimited => {
                "nothing is to be done but to wait; for trials an authority has a staging directory (acme-directory in [tls])"
            }
            Self::Dns => {
                "give the name an A record with the public address of this server, and an AAAA record only if it has one of IPv6"
            }
            Self::Connection => {
                "open that port to everybody, in this host's firewall and the provider's, or forward it; and have every A and AAAA record lead here"
            }
            Self::WrongAnswer => {
                "have every A and AAAA record of the name lead here, and nothing in between that ends TLS or answers HTTP"
            }
            Self::Caa => "have the name's CAA records allow this authority, or remove them",
            Self::Rejected => {
                "this authority gives no certificate for that name; choose another in acme-directory, or another name"
            }
            Self::Account => "look at acme-email, acme-eab-key-id and acme-agree-to-terms in [tls]",
            Self::Authority => "it is for the authority to mend, and asked again",
            Self::NothingToAsk => "have a tls listener at port 443, or acme-http in [tls], and restart the server",
            Self::Disk => "let the server's user write there",
        }
    }
}
