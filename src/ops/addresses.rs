//! The host's addresses while the server runs: the peer policy knows them all, relays are bound to the one that is there, and
//! what is missing is waited for and told.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};

use super::error::RunError;
use super::host::{self, can_bind};
use super::listeners::Bound;
use super::log_budget::LogBudget;
use super::notify;
use super::public_address::PublicAddresses;
use super::status::Status;
use crate::addr::Family;
use crate::config::{Config, OwnAddresses, PolicyRules, Relay, RelayAddress, compile_policies};
use crate::net::{LocalAddresses, RelayPorts, subscribe_to_addresses, take_changes};
use crate::policy::{AclError, PeerAcl, PeerPolicies, PeerRules};

/// Changes come in groups, such as an address with its routes: so long after the first one, the kernel is asked.
const GATHER: Duration = Duration::from_millis(50);
/// It is not asked more often than this.
const SPACING: Duration = Duration::from_secs(1);
/// How often to look without being told: while something is waited for, or when the kernel does not tell of changes.
const IMPATIENCE: Duration = Duration::from_secs(5);
/// How often to look whether an earlier relay address is still in use.
const REST: Duration = Duration::from_secs(60);
/// For how long the service manager is asked to wait on, at each look.
const EXTENSION: Duration = Duration::from_secs(30);
/// Addresses shown in one log line.
const SHOWN_MAX: usize = 8;

/// What is known of the host's addresses, what the server makes of them, and when to look again.
pub(super) struct AddressWatch {
    bound: Bound,
    /// Addresses of the server that no peer may have: of listeners, endpoints and the webhook.
    endpoints: Vec<SocketAddr>,
    relay_ports: Arc<RelayPorts>,
    /// Whether a relay address of before is still in use.
    has_earlier_relays: bool,
    subscription: Option<AsyncFd<OwnedFd>>,
    local: LocalAddresses,
    looked_at: Instant,
    next_look: Option<Instant>,
    /// What is missing, as it was told last.
    missing: Option<String>,
    /// Whether the service manager has been told that the server is ready.
    announced: bool,
    /// Alternate servers that are this one, as was warned of last.
    own_alternates: Vec<String>,
    /// Addresses come and go more often than what the server needs: the one must not silence the other.
    changes_log: LogBudget,
    readiness_log: LogBudget,
}

/// What came of asking the kernel.
pub(super) struct Looked {
    pub(super) has_answer: bool,
    pub(super) has_changed: bool,
}

impl AddressWatch {
    /// Subscribes to changes, then looks for the first time.
    ///
    /// # Errors
    /// The addresses cannot be listed: the peer policy would not know them.
    pub(super) fn new(
        bound: Bound,
        endpoints: Vec<SocketAddr>,
        relay_ports: Arc<RelayPorts>,
    ) -> Result<Self, RunError> {
        let subscription = subscribe_to_addresses().and_then(|socket| {
            // Deprecated for types whose descriptor may change under way: that of an `OwnedFd` does not.
            #[allow(deprecated)]
            AsyncFd::with_interest(socket, Interest::READABLE)
        });
        if let Err(error) = &subscription {
            let every_secs = IMPATIENCE.as_secs();
            tracing::warn!(%error, every_secs, "the kernel does not tell of changed addresses; they are looked at again and again");
        }
        Ok(Self {
            bound,
            endpoints,
            relay_ports,
            has_earlier_relays: false,
            subscription: subscription.ok(),
            local: LocalAddresses::read().map_err(RunError::HostAddresses)?,
            looked_at: Instant::now(),
            next_look: None,
            missing: None,
            announced: false,
            own_alternates: Vec::new(),
            changes_log: LogBudget::default(),
            readiness_log: LogBudget::default(),
        })
    }

    /// Waits until it is time to look.
    pub(super) async fn due(&mut self) {
        loop {
            tokio::select! {
                () = rest(self.next_look) => return,
                changed = change(self.subscription.as_ref()), if !self.looks_soon() => match changed {
                    Ok(false) => {}
                    Ok(true) => self.next_look = Some((Instant::now() + GATHER).max(self.looked_at + SPACING)),
                    Err(error) => {
                        tracing::warn!(%error, "the kernel no longer tells of changed addresses; they are looked at again and again");
                        self.subscription = None;
                        self.next_look = Some(Instant::now());
                    }
                },
            }
        }
    }

    /// Whether a look is due so soon that a change need not be heard of.
    fn looks_soon(&self) -> bool {
        self.next_look.is_some_and(|at| at <= Instant::now() + SPACING)
    }

    /// Has the host looked at soon, because something else has changed.
    pub(super) fn look_soon(&mut self) {
        self.next_look = Some(Instant::now());
    }

    /// Asks the kernel; whether it has answered, and with something new.
    pub(super) fn look(&mut self) -> Looked {
        self.looked_at = Instant::now();
        // What has been told so far is in the answer.
        if let Some(subscription) = &self.subscription {
            let _ = take_changes(subscription.get_ref().as_fd());
        }
        match LocalAddresses::read() {
            Ok(local) => {
                let has_changed = self.local != local;
                self.local = local;
                Looked { has_answer: true, has_changed }
            }
            Err(error) => {
                self.readiness_log.tell(|more| {
                    tracing::warn!(%error, "cannot list the addresses of this host; the peer policy keeps those it knows{more}");
                });
                Looked { has_answer: false, has_changed: false }
            }
        }
    }

    /// Says when to look again, if nothing is told before.
    pub(super) fn rest(&mut self, has_answer: bool) {
        let is_waiting = self.missing.is_some() || !has_answer || self.subscription.is_none();
        let wait = match (is_waiting, self.has_earlier_relays) {
            (true, _) => Some(IMPATIENCE),
            (false, true) => Some(REST),
            (false, false) => None,
        };
        self.next_look = wait.map(|wait| Instant::now() + wait);
    }

    /// The server's own addresses, for the peer policy.
    pub(super) fn own(&self, config: &Config) -> OwnAddresses {
        let all = self.relay_ports.all_addresses().into_iter().map(|(bind, external)| RelayAddress { bind, external });
        OwnAddresses {
            endpoints: self.endpoints.clone(),
            addresses: self.local.interfaces.clone(),
            networks: self.local.networks.clone(),
            earlier_relays: all.filter(|relay| !config.relay.addresses.contains(relay)).collect(),
        }
    }

    /// Gives relays the addresses of this moment; `before` is what they have had.
    pub(super) fn follow_relays(&mut self, config: &mut Config, before: &Relay) {
        find_relays(config, &self.local);
        let changed = |family: &Family| !before.binds(*family).eq(config.relay.binds(*family));
        for family in Family::ALL.into_iter().filter(changed) {
            let shown = |relay: &Relay| relay.binds(family).next().map_or("none".to_owned(), |bind| bind.to_string());
            let (before, now) = (shown(before), shown(&config.relay));
            self.readiness_log.tell(|more| {
                tracing::warn!(%family, %before, %now, "the relay address has changed, for new allocations{more}");
            });
        }
        if config.relay != *before {
            offer(config, &self.relay_ports);
        }
        (_, self.has_earlier_relays) = self.relay_ports.forget_earlier();
    }

    /// The peer policies that know the addresses of this moment, if they differ from those before.
    pub(super) fn changed_policies(&mut self, config: &Config, before: &PeerPolicies) -> Option<PeerPolicies> {
        let (before, rules) = (PolicyRules::of(before), config.peer_policy_rules(self.own(config)));
        if before == rules {
            return None;
        }
        let (before, now) = (before.default, rules.default.clone());
        let mut without_effect = None;
        let compiled = compile_policies(rules, |_, rules| {
            let (acl, remark) = PeerAcl::compile_anew(rules)?;
            without_effect = without_effect.take().or(remark);
            Ok::<_, AclError>(acl)
        });
        let policies = match compiled {
            Ok(policies) => policies,
            Err(error) => {
                self.changes_log.tell(|more| {
                    tracing::error!(%error, "the peer policy cannot take in the addresses of this host and stays as it was{more}");
                });
                return None;
            }
        };
        let names = |rules: &PeerRules| -> BTreeSet<String> {
            let addresses = rules.own_addresses.iter().map(ToString::to_string);
            addresses.chain(rules.own_networks.iter().map(ToString::to_string)).collect()
        };
        let (old, new) = (names(&before), names(&now));
        let (added, removed) = (Listed(new.difference(&old)), Listed(old.difference(&new)));
        let is_other = old != new;
        self.changes_log.tell(|more| {
            // Where only those outside have changed, who found them says so.
            if is_other {
                tracing::info!(%added, %removed, "the addresses of this host have changed; the peer policy follows{more}");
            }
            if let Some(error) = &without_effect {
                tracing::warn!(%error, "a rule in [peers] has no effect with these addresses");
            }
        });
        Some(policies)
    }

    /// Warns of servers that clients would be sent to and that are this one. They are left out.
    pub(super) fn warn_of_own_alternates(&mut self, config: &Config, policies: &PeerPolicies) {
        let own = config.own_alternates(policies.default_policy().rules());
        let own: Vec<_> = own.iter().map(ToString::to_string).collect();
        if self.own_alternates == own {
            return;
        }
        if !own.is_empty() {
            let addresses = Listed(own.iter());
            self.changes_log.tell(|more| {
                tracing::warn!(
                    %addresses,
                    "an alternate-server of [redirect] or [drain] is this server itself: no client is sent there, where it would go in \
                     a circle; take it out of the configuration{more}"
                );
            });
        }
        self.own_alternates = own;
    }

    /// Tells log, `/readyz` and the service manager what is missing, when that has changed. Returns whether the server is ready
    /// for the first time now.
    pub(super) fn tell_readiness(
        &mut self,
        config: &Config,
        public: Option<&PublicAddresses>,
        status: &Status,
    ) -> bool {
        let why_unknown = |family| public.and_then(|public| public.failure(family)).map(str::to_owned);
        let missing = missing(config, &self.bound, &self.local, &why_unknown);
        let missing = Some(missing.join("; ")).filter(|missing| !missing.is_empty());
        let Self { announced, readiness_log: log, missing: told, .. } = self;
        let is_first = missing.is_none() && !*announced;
        *announced |= is_first;
        if !*announced {
            notify::extend_timeout(EXTENSION);
        }
        if *told != missing {
            match &missing {
                Some(missing) if *announced => log.tell(|more| tracing::warn!("not ready: {missing}{more}")),
                Some(missing) => log.tell(|more| tracing::warn!("waiting: {missing}{more}")),
                None => log.tell(|more| tracing::info!("ready: what was missing is there{more}")),
            }
            told.clone_from(&missing);
            status.set_not_ready(missing);
            self.notify_state(status);
        } else if is_first {
            self.notify_state(status);
        }
        is_first
    }

    /// Tells the service manager of a reload; what is returned tells it of the end.
    pub(super) fn announce_reload(&self, status: &Arc<Status>) -> impl FnOnce() + Send + 'static {
        // Before that it waits for the first word of readiness, which this is not.
        let announced = self.announced;
        if announced {
            notify::reloading();
        }
        let (bound, status) = (self.bound.to_string(), Arc::clone(status));
        move || {
            if announced {
                notify::ready(&bound);
            }
            if let (true, Some(missing)) = (announced, status.not_ready()) {
                notify::status(&format!("not ready: {missing}"));
            }
        }
    }

    /// What the server is doing, for the service manager.
    fn notify_state(&self, status: &Status) {
        match &self.missing {
            // A drain has a text of its own.
            _ if status.draining() => {}
            None => notify::ready(&self.bound.to_string()),
            Some(missing) if self.announced => notify::status(&format!("not ready: {missing}")),
            Some(missing) => notify::status(&format!("waiting: {missing}")),
        }
    }
}

async fn rest(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// Waits for something that the kernel tells; whether it matters.
async fn change(subscription: Option<&AsyncFd<OwnedFd>>) -> std::io::Result<bool> {
    let Some(subscription) = subscription else { return std::future::pending().await };
    let mut ready = subscription.readable().await?;
    let changes = take_changes(subscription.get_ref().as_fd())?;
    if !changes.more {
        ready.clear_ready();
    }
    Ok(changes.matter)
}

/// Gives each family with an automatic address the one it has now.
fn find_relays(config: &mut Config, local: &LocalAddresses) {
    let relay = &mut config.relay;
    for family in Family::ALL {
        // An address that works is kept, wherever the way to the outside leads now.
        if !relay.is_auto(family) || relay.binds(family).any(|bind| local.contains(bind)) {
            continue;
        }
        relay.set_auto(family, host::way_out(family).filter(|ip| local.contains(*ip)));
    }
}

/// Has relays made at the configured addresses.
pub(super) fn offer(config: &Config, relays: &RelayPorts) {
    let relay = &config.relay;
    for family in Family::ALL {
        let addresses: Vec<_> = relay.of(family).map(|address| (address.bind, address.external)).collect();
        // While there is no address at all, clients are told to try elsewhere, and not that they should ask for another family.
        let is_waiting = relay.binds(family).count() > addresses.len();
        let offered = !addresses.is_empty() || is_waiting || (relay.addresses.is_empty() && relay.is_auto(family));
        relays.set_addresses(family, &addresses, offered);
    }
}

/// What the server needs and this host does not have.
fn missing(
    config: &Config,
    bound: &Bound,
    local: &LocalAddresses,
    why_unknown: &dyn Fn(Family) -> Option<String>,
) -> Vec<String> {
    let relay = &config.relay;
    let mut missing = Vec::new();
    for bind in relay.waiting.iter().copied().filter(|_| config.turn) {
        let family = Family::of(bind);
        let why = why_unknown(family).unwrap_or_else(|| "it is being asked for".to_owned());
        missing.push(format!(
            "the public address that stands for the relay address {bind} is not known: {why}; write it into external-ip in [relay], name \
             somebody who knows it in external-ip-sources, or set {family} to \"off\""
        ));
    }
    if config.turn && relay.addresses.is_empty() && relay.waiting.is_empty() {
        missing.push("this host has no route to the outside, which [relay] would take its address from".to_owned());
    }
    for bind in Family::ALL.into_iter().flat_map(|family| relay.binds(family)).filter(|_| config.turn) {
        let family = Family::of(bind);
        if !(local.contains(bind) && can_bind(bind)) {
            missing.push(format!(
                "the relay address {bind} is not on this host; add it, or set {family} in [relay] to one that is, or to \"auto\""
            ));
        }
    }
    let listening: BTreeSet<IpAddr> = bound.listeners.iter().map(|(_, address)| address.ip()).collect();
    let discovery = config.nat_discovery.iter().flat_map(|pair| pair.addresses);
    // Where a wildcard listener covers it, no listener names it.
    for ip in discovery.filter(|ip| !listening.contains(ip) && !local.contains(*ip)) {
        missing.push(format!("the address {ip} in [nat-discovery] is not on this host; add it, or name one that is"));
    }
    for ip in listening.into_iter().filter(|ip| !ip.is_unspecified() && !local.contains(*ip)) {
        missing.push(format!(
            "the listener's address {ip} is not on this host; add it, or name one that is in [[listen]]"
        ));
    }
    missing
}

/// Some of a list, for the log.
struct Listed<I>(I);

impl<'n, I: Iterator<Item = &'n String> + Clone> fmt::Display for Listed<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = self.0.clone();
        if names.clone().next().is_none() {
            return f.write_str("none");
        }
        for (index, name) in names.by_ref().take(SHOWN_MAX).enumerate() {
            write!(f, "{}{name}", if index > 0 { " " } else { "" })?;
        }
        match names.count() {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Transport;
    use crate::config::{Host, Overrides, Source, Surroundings};

    fn config(text: &str) -> Config {
        let secret = "[[auth.secrets]]\nid = \"main\"\nsecret = \"0123456789abcdef\"\n";
        let source =
            Source { name: "turnserver.toml".to_owned(), text: format!("{text}\n{secret}"), ..Source::default() };
        let around = Surroundings {
            host: Host { cores: 1, ipv4: None, ipv6: None, has_ipv6: true },
            env: &|_| None,
            dev: false,
        };
        Config::parse(&source, &Overrides::default(), &around).unwrap().config
    }

    fn local(ips: &[&str]) -> LocalAddresses {
        let networks = vec!["127.0.0.0/8".parse().unwrap()];
        LocalAddresses { interfaces: ips.iter().map(|ip| ip.parse().unwrap()).collect(), networks }
    }

    #[test]
    fn what_is_missing_is_named_with_its_remedy() {
        let missing = |text: &str, listening: &[&str]| {
            let listener = |ip: &&str| (Transport::Udp, SocketAddr::new(ip.parse().unwrap(), 3478));
            let bound = Bound { listeners: listening.iter().map(listener).collect(), page: None };
            missing(&config(text), &bound, &local(&["::1"]), &|_| None)
        };
        let local_relay = "[relay]\nipv4 = \"127.0.0.1\"";
        assert_eq!(missing(local_relay, &["0.0.0.0", "::", "::1", "127.9.9.9"]), [""; 0]);
        assert_eq!(missing("turn = false", &["0.0.0.0"]), [""; 0]);
        let [route] = &missing("", &["0.0.0.0"])[..] else { panic!() };
        assert!(route.contains("no route to the outside"), "{route}");
        let [relay, listener] = &missing("[relay]\nipv4 = \"5.44.1.1\"", &["5.44.1.2", "5.44.1.2"])[..] else {
            panic!()
        };
        assert!(relay.contains("5.44.1.1") && relay.contains("set ipv4 in [relay]"), "{relay}");
        assert!(listener.contains("5.44.1.2") && listener.contains("[[listen]]"), "{listener}");
    }

    #[test]
    fn without_its_public_address_a_relay_address_is_waited_for_and_its_family_is_offered() {
        let mut config = config("[relay]\nipv4 = \"127.0.0.1\"\nipv6 = \"off\"\nexternal-ip = \"auto\"");
        assert_eq!((&*config.relay.addresses, &*config.relay.waiting), (&[][..], &["127.0.0.1".parse().unwrap()][..]));
        let bound = Bound { listeners: Vec::new(), page: None };
        let missing = |config: &Config| missing(config, &bound, &local(&[]), &|_| Some("nobody is asked".to_owned()));
        let [told] = &missing(&config)[..] else { panic!() };
        for words in ["the relay address 127.0.0.1", "nobody is asked", "external-ip-sources", "set ipv4 to \"off\""] {
            assert!(told.contains(words), "{told}");
        }
        let relays = RelayPorts::new(&[], config.relay.ports);
        offer(&config, &relays);
        assert_eq!((relays.supports(Family::V4), relays.has_address(Family::V4)), (true, false));
        config.relay.set_found(Family::V4, Some("5.44.1.1".parse().unwrap()));
        assert_eq!(missing(&config), [""; 0]);
        offer(&config, &relays);
        assert_eq!(relays.all_addresses(), [("127.0.0.1".parse().unwrap(), "5.44.1.1".parse().unwrap())]);
    }

    #[test]
    fn relays_have_their_part_of_the_descriptors_before_there_is_an_address() {
        let mut config = config("");
        assert_eq!(config.wanted_sockets().relays, 16_384);
        config.relay.set_auto(Family::V4, Some("5.44.1.1".parse().unwrap()));
        assert_eq!(config.wanted_sockets().relays, 16_384);
        config.turn = false;
        assert_eq!(config.wanted_sockets().relays, 0);
    }

    #[test]
    fn without_any_address_both_automatic_families_are_offered_and_with_one_only_that() {
        let mut config = config("");
        let relays = RelayPorts::new(&[], config.relay.ports);
        let offered =
            |relays: &RelayPorts| Family::ALL.map(|family| (relays.supports(family), relays.has_address(family)));
        offer(&config, &relays);
        assert_eq!(offered(&relays), [(true, false), (true, false)]);
        config.relay.set_auto(Family::V6, Some("2a00:1::1".parse().unwrap()));
        offer(&config, &relays);
        assert_eq!(offered(&relays), [(false, false), (true, true)]);
    }

    #[test]
    fn an_automatic_address_stays_while_the_host_has_it() {
        let mut config = config("");
        let kept = config.relay.at("5.44.1.1".parse().unwrap()).unwrap();
        config.relay.set_auto(Family::V4, Some(kept.bind));
        find_relays(&mut config, &local(&["5.44.1.1", "5.44.1.2"]));
        assert_eq!(config.relay.addresses, [kept]);
        // Whatever this machine has, it is not in the list.
        find_relays(&mut config, &local(&[]));
        assert_eq!(config.relay.addresses, []);
    }
}
