//! Socket addresses in the kernel's form.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Room for an IPv4 or IPv6 socket address.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) union Name {
    family: libc::sa_family_t,
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

/// The length the kernel may fill.
pub(super) const NAME_LEN: libc::socklen_t = size_of::<Name>() as libc::socklen_t;

impl Name {
    pub(super) fn empty() -> Self {
        // SAFETY: all-zero bytes are a valid sockaddr_in6.
        unsafe { std::mem::zeroed() }
    }

    /// The kernel's form of an address and its length.
    pub(super) fn new(addr: SocketAddr) -> (Self, libc::socklen_t) {
        let mut name = Self::empty();
        match addr {
            SocketAddr::V4(addr) => {
                name.v4 = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: addr.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(addr.ip().octets()) },
                    sin_zero: [0; 8],
                };
                (name, size_of::<libc::sockaddr_in>() as libc::socklen_t)
            }
            SocketAddr::V6(addr) => {
                name.v6 = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: addr.port().to_be(),
                    sin6_flowinfo: 0,
                    sin6_addr: libc::in6_addr { s6_addr: addr.ip().octets() },
                    sin6_scope_id: addr.scope_id(),
                };
                (name, size_of::<libc::sockaddr_in6>() as libc::socklen_t)
            }
        }
    }

    /// The address the kernel wrote; `None` for another family.
    pub(super) fn get(&self) -> Option<SocketAddr> {
        // SAFETY: every variant begins with the family, and the union is always initialised (`empty` zeroes it).
        match i32::from(unsafe { self.family }) {
            libc::AF_INET => {
                // SAFETY: the family says that this is the variant in use.
                let v4 = unsafe { self.v4 };
                let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
                Some(SocketAddr::V4(SocketAddrV4::new(ip, u16::from_be(v4.sin_port))))
            }
            libc::AF_INET6 => {
                // SAFETY: as above.
                let v6 = unsafe { self.v6 };
                let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
                // The scope is kept for link-local clients: answers must leave by the same interface.
                let scope = if ip.is_unicast_link_local() { v6.sin6_scope_id } else { 0 };
                Some(SocketAddr::V6(SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), 0, scope)))
            }
            _ => None,
        }
    }
}

/// A control-message buffer, aligned as the kernel wants it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct Control<const N: usize>(pub(super) [u8; N]);

/// Walks control messages: level, type and data of each.
pub(super) fn control_messages(control: &[u8]) -> impl Iterator<Item = (i32, i32, &[u8])> {
    const HEADER: usize = size_of::<libc::cmsghdr>();
    let mut rest = control;
    std::iter::from_fn(move || {
        let header = rest.get(..HEADER)?;
        // SAFETY: `header` holds size_of::<cmsghdr>() bytes, and any bytes are a valid cmsghdr; the read is unaligned.
        let header = unsafe { header.as_ptr().cast::<libc::cmsghdr>().read_unaligned() };
        let len = header.cmsg_len;
        let data = rest.get(HEADER..len)?;
        rest = rest.get(len.next_multiple_of(align_of::<libc::cmsghdr>())..).unwrap_or_default();
        Some((header.cmsg_level, header.cmsg_type, data))
    })
}

/// Appends one control message to `buffer` at `used`; returns the new length, or `used` when it does not fit.
pub(super) fn push_control(buffer: &mut [u8], used: usize, level: i32, kind: i32, data: &[u8]) -> usize {
    const HEADER: usize = size_of::<libc::cmsghdr>();
    let len = HEADER + data.len();
    let padded = len.next_multiple_of(align_of::<libc::cmsghdr>());
    let Some(room) = buffer.get_mut(used..used + padded) else { return used };
    // SAFETY: cmsghdr is plain old data; all-zero is valid.
    let mut header: libc::cmsghdr = unsafe { std::mem::zeroed() };
    header.cmsg_len = len as _;
    header.cmsg_level = level;
    header.cmsg_type = kind;
    // SAFETY: `room` is at least HEADER bytes long, the write is unaligned, and cmsghdr has no drop.
    unsafe { room.as_mut_ptr().cast::<libc::cmsghdr>().write_unaligned(header) };
    if let Some(body) = room.get_mut(HEADER..len) {
        body.copy_from_slice(data);
    }
    used + padded
}

/// The IP address in a pktinfo control message.
pub(super) fn pktinfo_ip(level: i32, kind: i32, data: &[u8]) -> Option<IpAddr> {
    match (level, kind) {
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            // struct in_pktinfo: ifindex, spec_dst, addr. The local address is spec_dst.
            let octets: [u8; 4] = data.get(4..8)?.try_into().ok()?;
            Some(IpAddr::V4(Ipv4Addr::from(octets)))
        }
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
            let octets: [u8; 16] = data.get(..16)?.try_into().ok()?;
            Some(IpAddr::V6(Ipv6Addr::from(octets)))
        }
        _ => None,
    }
}
