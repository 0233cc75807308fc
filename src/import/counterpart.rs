//! What stands here for a directive of coturn, for who looks it up by the name that he knows.

use super::table::{self, Treatment};
use Counterpart::{Keys, Told};

/// What becomes of a directive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counterpart {
    /// The keys, or tables, that do the same.
    Keys(&'static [&'static str]),
    /// None does, and why.
    Told(&'static str),
}

/// What stands here for a directive, if coturn has it.
pub fn counterpart(directive: &str) -> Option<Counterpart> {
    let (name, _, treatment) = table::find(directive)?;
    Some(match treatment {
        Treatment::Read(_) => KEYS.iter().find(|(known, _)| *known == name)?.1,
        Treatment::Part(part) => Told(part.why),
        Treatment::Always(why) | Treatment::Missing(why) | Treatment::Without(why) | Treatment::Needless(why) => {
            Told(why)
        }
    })
}

/// For each directive that is read.
const KEYS: &[(&str, Counterpart)] = &[
    ("listening-port", Keys(&["listen.address"])),
    ("tls-listening-port", Keys(&["listen.address", "listen.transport"])),
    ("alt-listening-port", Keys(&["nat-discovery.ports"])),
    ("alt-tls-listening-port", Keys(&["listen.address", "listen.transport"])),
    ("tcp-proxy-port", Keys(&["listen.proxy-from"])),
    ("listening-ip", Keys(&["listen.address"])),
    ("aux-server", Keys(&["listen.address"])),
    ("no-udp", Keys(&["listen.transport"])),
    ("no-tcp", Keys(&["listen.transport"])),
    ("no-tls", Keys(&["listen.transport"])),
    ("no-dtls", Keys(&["listen.transport"])),
    ("dtls", Keys(&["listen.transport"])),
    ("relay-ip", Keys(&["relay.ipv4", "relay.ipv6"])),
    ("external-ip", Keys(&["relay.external-ip"])),
    ("relay-threads", Keys(&["workers"])),
    ("cpus", Keys(&["workers"])),
    ("min-port", Keys(&["relay.ports"])),
    ("max-port", Keys(&["relay.ports"])),
    ("no-udp-relay", Keys(&["relay.tcp"])),
    ("no-tcp-relay", Keys(&["relay.tcp"])),
    ("multiplex-peer", Keys(&["relay.ports"])),
    ("multiplex-peer-port", Keys(&["relay.ports"])),
    ("multiplex-peer-max-peers", Keys(&["limits.peers-per-allocation"])),
    ("keep-address-family", Keys(&["relay.address-family"])),
    ("allocation-default-address-family", Keys(&["relay.address-family"])),
    ("mobility", Keys(&["mobility"])),
    ("lt-cred-mech", Keys(&["auth.users", "auth.secrets"])),
    ("no-auth", Told("an open relay, for everybody on the Internet; every client needs a credential here")),
    ("use-auth-secret", Keys(&["auth.secrets"])),
    ("static-auth-secret", Keys(&["auth.secrets"])),
    ("rest-api-separator", Told("the expiry and the name in a username are separated by `:`")),
    ("user", Keys(&["auth.users", "auth.users-file"])),
    ("realm", Keys(&["auth.realm", "realm"])),
    ("server-name", Keys(&["auth.server-name", "auth.public-host"])),
    ("oauth", Keys(&["auth.token-keys"])),
    ("stale-nonce", Keys(&["auth.nonce-lifetime"])),
    ("userdb", Keys(&["auth.users-file"])),
    ("db", Keys(&["auth.users-file"])),
    ("redis-userdb", Keys(&["store.url", "store.layout"])),
    ("redis-statsdb", Keys(&["usage"])),
    ("user-quota", Keys(&["quota.allocations-per-user"])),
    ("total-quota", Keys(&["quota.allocations-total"])),
    ("max-bps", Keys(&["bandwidth.per-allocation"])),
    ("max-allocate-lifetime", Keys(&["lifetimes.allocation-max"])),
    ("channel-lifetime", Told("channels live for 10 minutes, as RFC 8656 has it")),
    ("permission-lifetime", Told("permissions live for 5 minutes, as RFC 8656 has it")),
    ("max-allocate-timeout", Keys(&["streams.idle-timeout"])),
    ("unauthorized-ratelimit-rps", Keys(&["limits.unauthenticated-replies-per-second"])),
    ("allowed-peer-ip", Keys(&["peers.allowed", "peers.own-services"])),
    ("denied-peer-ip", Keys(&["peers.denied"])),
    ("stun-only", Keys(&["turn"])),
    ("software-attribute", Keys(&["software"])),
    ("rfc5780", Keys(&["nat-discovery"])),
    ("no-rfc5780", Keys(&["nat-discovery"])),
    ("stun-backward-compatibility", Keys(&["compatibility.rfc3489"])),
    ("no-stun-backward-compatibility", Keys(&["compatibility.rfc3489"])),
    ("rfc3489-compatibility", Keys(&["compatibility.rfc3489"])),
    ("rfc5766-channel-numbers", Keys(&["rfc5766-channel-numbers"])),
    ("cert", Keys(&["tls.certificate"])),
    ("pkey", Keys(&["tls.key"])),
    ("no-tlsv1_2", Keys(&["tls.min-version"])),
    ("verbose", Keys(&["log.level"])),
    ("Verbose", Keys(&["log.level"])),
    ("log-min-level", Keys(&["log.level"])),
    ("prometheus", Keys(&["metrics.listen"])),
    ("prometheus-port", Keys(&["metrics.listen"])),
    ("prometheus-address", Keys(&["metrics.listen"])),
    ("prometheus-path", Told("metrics are at /metrics of [metrics] listen")),
    ("alternate-server", Keys(&["redirect.alternate-server", "drain.alternate-server"])),
    ("tls-alternate-server", Keys(&["redirect.alternate-server", "drain.alternate-server"])),
    ("udp-alternate-server", Keys(&["redirect.alternate-server", "drain.alternate-server"])),
    ("tcp-alternate-server", Keys(&["redirect.alternate-server", "drain.alternate-server"])),
    ("cli", Keys(&["admin.listen"])),
    ("no-cli", Keys(&["admin.listen"])),
    ("cli-password", Keys(&["admin.token-file"])),
    ("web-admin", Keys(&["admin.page"])),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_directive_has_a_counterpart_or_a_reason_why_not() {
        for (name, _) in table::all() {
            assert!(counterpart(name).is_some(), "{name}");
        }
        for (name, _) in KEYS {
            assert!(matches!(table::find(name), Some((_, _, Treatment::Read(_)))), "{name} is not read");
        }
        assert_eq!(counterpart("denied-peer-ip"), Some(Keys(&["peers.denied"])));
        assert_eq!(counterpart("no-loopback-peers"), Some(Told("loopback is always denied")));
        assert_eq!(counterpart("nothing"), None);
    }
}
