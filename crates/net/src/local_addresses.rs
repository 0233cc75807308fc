//! Which addresses are this host's own: those of its interfaces, and whatever else the kernel delivers locally, such as a network
//! with a local route (AnyIP). The kernel is asked, and says when it changes.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use ipnet::IpNet;
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::netlink::{self, Dump, GROUPS, RouteKind, Told};
use super::sys;
use turnstone_turn::addr::Family;

/// The kernel answers at once; a dump that takes longer has gone wrong.
const DUMP_LIMIT: Duration = Duration::from_secs(5);
/// A dump is made again when something changed under way, at most so often.
const DUMP_TRIES: u32 = 10;
const BUFFER_BYTES: usize = 64 << 10;
/// Receives per look at the changes; what is left is looked at next time.
const RECEIVES_MAX: usize = 64;

/// The addresses of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalAddresses {
    /// Those of the interfaces, in order.
    pub interfaces: Vec<IpAddr>,
    /// Networks of which every address is delivered to this host though no interface has it, in order.
    pub networks: Vec<IpNet>,
}

impl LocalAddresses {
    /// Asks the kernel.
    ///
    /// # Errors
    /// What the kernel says; `AddressFamilyNotSupported` or a missing permission where a sandbox forbids AF_NETLINK.
    pub fn read() -> io::Result<Self> {
        let socket = socket(0)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(DUMP_LIMIT))?;
        // The kernel then sends only the kinds of routes that are asked for, and not every route there is (Linux 4.20).
        let _ = sys::set_netlink_strict(socket.as_fd());
        let mut dumps = vec![Dump::Addresses];
        for family in Family::ALL {
            dumps.extend(RouteKind::ALL.map(|kind| Dump::Routes(family, kind)));
        }
        let mut local = Self::default();
        for (sequence, dump) in (1..).zip(dumps) {
            match local.take(&socket, dump, sequence) {
                // A kernel that does not know such routes has none.
                Err(error) if dump != Dump::Addresses && error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
                taken => taken?,
            }
        }
        local.interfaces.sort_unstable();
        local.interfaces.dedup();
        let Self { interfaces, networks } = &mut local;
        let is_host = |network: &IpNet| network.prefix_len() == network.max_prefix_len();
        networks.retain(|network| !(is_host(network) && interfaces.binary_search(&network.addr()).is_ok()));
        networks.sort_unstable();
        networks.dedup();
        Ok(local)
    }

    /// Whether the kernel delivers what is sent to this address to this host.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.interfaces.contains(&ip) || self.networks.iter().any(|network| network.contains(&ip))
    }

    fn take(&mut self, socket: &OwnedFd, dump: Dump, sequence: u32) -> io::Result<()> {
        let before = (self.interfaces.len(), self.networks.len());
        for attempt in 0..DUMP_TRIES {
            // Each attempt has a number of its own: what is left of the one before is not taken for an answer.
            let sequence = sequence * DUMP_TRIES + attempt;
            rustix::net::send(socket, &netlink::request(dump, sequence), SendFlags::empty())?;
            if self.receive(socket, sequence)? {
                return Ok(());
            }
            self.interfaces.truncate(before.0);
            self.networks.truncate(before.1);
        }
        Err(io::Error::other("the addresses change faster than they can be listed"))
    }

    /// Takes a dump's answers to its end; whether it is consistent.
    fn receive(&mut self, socket: &OwnedFd, wanted: u32) -> io::Result<bool> {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut is_consistent = true;
        loop {
            let (_, len) = match rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty()) {
                Err(Errno::INTR) => continue,
                received => received?,
            };
            let mut is_done = false;
            for (sequence, told) in netlink::read(buffer.get(..len).unwrap_or_default()) {
                match told {
                    _ if sequence != wanted => {}
                    Told::Address(ip) => self.interfaces.push(ip.to_canonical()),
                    Told::Delivered(network) => self.networks.push(network),
                    Told::Way => {}
                    Told::Interrupted => is_consistent = false,
                    Told::Refused(error) => return Err(io::Error::from_raw_os_error(error)),
                    Told::Done(unchanged) => {
                        is_done = true;
                        is_consistent &= unchanged;
                    }
                }
            }
            if is_done {
                return Ok(is_consistent);
            }
        }
    }
}

/// Hears of changes of addresses, interfaces and routes. It becomes readable; [`take_changes`] says whether one matters.
///
/// # Errors
/// As [`LocalAddresses::read`].
pub fn subscribe_to_addresses() -> io::Result<OwnedFd> {
    let socket = socket(GROUPS)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    Ok(socket)
}

/// What [`take_changes`] has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changes {
    /// Whether one of them may have changed the addresses of this host, or the way to the outside.
    pub matter: bool,
    /// Whether there may be more to read.
    pub more: bool,
}

/// Reads changes, not without end.
///
/// # Errors
/// What receiving says, but for `WouldBlock`, after which there are no more, and for lost messages, which count as a change.
pub fn take_changes(subscription: BorrowedFd<'_>) -> io::Result<Changes> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut matter = false;
    for _ in 0..RECEIVES_MAX {
        match rustix::net::recv(subscription, &mut buffer[..], RecvFlags::empty()) {
            Ok((_, len)) => matter |= netlink::read(buffer.get(..len).unwrap_or_default()).next().is_some(),
            // More changes than the socket's buffer holds: what they were is not known.
            Err(Errno::NOBUFS) => matter = true,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(Changes { matter, more: false }),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Changes { matter, more: true })
}

fn socket(groups: u32) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_local_as_an_address_and_as_a_network() {
        let local = LocalAddresses::read().unwrap();
        assert!(local.interfaces.contains(&"127.0.0.1".parse().unwrap()), "{local:?}");
        assert!(local.networks.contains(&"127.0.0.0/8".parse().unwrap()), "{local:?}");
        assert!(local.contains("127.3.2.1".parse().unwrap()) && !local.contains("192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn a_look_at_the_changes_does_not_wait_for_one() {
        let subscription = subscribe_to_addresses().unwrap();
        assert!(!take_changes(subscription.as_fd()).unwrap().more);
    }
}
