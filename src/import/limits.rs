//! Directives about limits, lifetimes, peers and the log, read into [`Conf`].

use super::conf::{At, Conf};
use super::findings::{FindingKind, Grade};
use super::range::PeerRange;
use super::syntax::Entry;

impl Conf {
    pub(super) fn user_quota(&mut self, entry: &Entry<'_>) {
        self.per_user = self.quota(entry);
        if self.per_user == Some(0) {
            self.unlimited_user(entry);
        }
    }

    /// It is what the file says, and what one credential could make of it is worth a word.
    pub(super) fn unlimited_user(&mut self, entry: &Entry<'_>) {
        self.per_user = Some(0);
        let message = "no limit for one user, and it stays so: a single credential can take every relay port; without \
                       allocations-per-user it is a quarter of them";
        self.find(Some(entry.spot), entry.name, FindingKind::Note, Grade::Security, message);
    }

    pub(super) fn total_quota(&mut self, entry: &Entry<'_>) {
        self.total = self.quota(entry);
    }

    /// 0 is unlimited.
    fn quota(&mut self, entry: &Entry<'_>) -> Option<u64> {
        let quota = self.number(entry)?;
        Some(quota.min(u64::from(u32::MAX)))
    }

    pub(super) fn max_bps(&mut self, entry: &Entry<'_>) {
        self.max_bytes_per_sec = None;
        match self.number(entry) {
            None | Some(0) => {}
            Some(bytes @ 1..1000) => {
                let message = format!("{bytes} bytes a second are less than one packet; left out (the unit is bytes)");
                self.lost(entry, &message);
            }
            Some(bytes) => {
                let message = "bytes a second, per direction; written as bits a second. Here a packet counts with its IP and \
                               UDP headers (28 or 48 bytes), and for at least 128 bytes";
                self.note(entry, message);
                self.max_bytes_per_sec = Some(bytes.min(1_000_000_000_000));
            }
        }
    }

    pub(super) fn max_allocate_lifetime(&mut self, entry: &Entry<'_>) {
        let secs = if entry.value.is_empty() { Some(3600) } else { self.number(entry) };
        let Some(secs) = secs.filter(|secs| *secs > 0) else { return };
        if !(10..=86_400).contains(&secs) {
            self.note(entry, "from 10 seconds to a day here; the nearest of these is taken");
        }
        self.allocation_max_secs = Some(secs.clamp(10, 86_400));
    }

    pub(super) fn channel_lifetime(&mut self, entry: &Entry<'_>) {
        self.fixed_lifetime(entry, 600, "channels live for 10 minutes, as RFC 8656 has it");
    }

    pub(super) fn permission_lifetime(&mut self, entry: &Entry<'_>) {
        self.fixed_lifetime(entry, 300, "permissions live for 5 minutes, as RFC 8656 has it");
    }

    fn fixed_lifetime(&mut self, entry: &Entry<'_>, secs: u64, message: &str) {
        let wanted = if entry.value.is_empty() { Some(secs) } else { self.number(entry) };
        match wanted {
            Some(wanted) if wanted != secs => self.lost(entry, message),
            _ => {}
        }
    }

    pub(super) fn max_allocate_timeout(&mut self, entry: &Entry<'_>) {
        if let Some(secs) = self.number(entry).filter(|secs| *secs > 0) {
            self.note(
                entry,
                "taken as idle-timeout in [streams]; over UDP nothing is kept before a client has proven itself",
            );
            self.idle_secs = Some(secs.clamp(1, 3600));
        }
    }

    pub(super) fn unauthorized_rps(&mut self, entry: &Entry<'_>) {
        match self.number(entry) {
            Some(rps @ 101..) => {
                self.unauthenticated_rps = Some(rps.min(1_000_000));
                self.note(entry, "counts per IPv4 /24 and IPv6 /64 here, not per address");
            }
            Some(_) => {
                let message = "coturn counts per address, this server per IPv4 /24 and IPv6 /64, with 100 a second: a \
                               smaller number would hit the clients behind a shared address; the default is kept";
                self.harmless(entry, message);
            }
            None => {}
        }
    }

    pub(super) fn denied_peer(&mut self, entry: &Entry<'_>) {
        match PeerRange::parse(entry.value) {
            Ok((value, is_network)) => {
                if is_network {
                    self.note(
                        entry,
                        "coturn 4.6 ignores a network in this form, and denies nothing; it is denied here",
                    );
                }
                self.denied.push(At { spot: entry.spot, value });
            }
            Err(problem) => self.invalid(entry, &format!("{problem}; nothing is denied by it, in coturn neither")),
        }
    }

    pub(super) fn allowed_peer(&mut self, entry: &Entry<'_>) {
        match PeerRange::parse(entry.value) {
            Ok((_, true)) => {
                let message = "coturn 4.6 ignores a network in this form, so that it is left out; write FIRST-LAST";
                self.lost(entry, message);
            }
            Ok((value, false)) => self.allowed.push(At { spot: entry.spot, value }),
            Err(problem) => self.invalid(entry, &format!("{problem}; left out")),
        }
    }

    pub(super) fn verbose(&mut self, entry: &Entry<'_>) {
        if self.switch(entry) == Some(true) {
            self.harmless(entry, "log.level info has a line per allocation; log.level = \"debug\" says more");
        }
    }

    pub(super) fn very_verbose(&mut self, entry: &Entry<'_>) {
        if self.switch(entry) == Some(true) {
            self.log_level = Some("debug");
        }
    }

    pub(super) fn log_min_level(&mut self, entry: &Entry<'_>) {
        self.log_level = match entry.value.to_ascii_lowercase().as_str() {
            "error" => Some("error"),
            "warn" | "warning" => Some("warn"),
            "info" | "control" => Some("info"),
            "debug" => Some("debug"),
            _ => return self.invalid(entry, "not a level; log.level stays at info"),
        };
    }
}
