//! The least of a STUN client (RFC 8489): a Binding request, and the addresses in what comes back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const LIMIT: Duration = Duration::from_secs(5);

/// The address that `server` sees `socket` send from; `socket` may be connected to the server or not.
pub(crate) fn reflexive_address(socket: &UdpSocket, server: SocketAddr) -> SocketAddr {
    let request = binding_request();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut buffer = [0_u8; 1500];
    let deadline = Instant::now() + LIMIT;
    while Instant::now() < deadline {
        if socket.peer_addr().is_ok() { socket.send(&request) } else { socket.send_to(&request, server) }.unwrap();
        let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
        let answer = &buffer[..len];
        if from == server && answer[..2] == [0x01, 0x01] && answer[4..20] == request[4..20] {
            return mapped_address(answer);
        }
    }
    panic!("no Binding response from {server} came to {}", socket.local_addr().unwrap());
}

pub(crate) fn binding_request() -> [u8; 20] {
    let mut request = [0_u8; 20];
    request[1] = 0x01;
    request[4..8].copy_from_slice(&MAGIC_COOKIE);
    getrandom::fill(&mut request[8..]).unwrap();
    request
}

/// XOR-MAPPED-ADDRESS (RFC 8489 section 14.2).
fn mapped_address(message: &[u8]) -> SocketAddr {
    let mut rest = &message[20..];
    while let [type_high, type_low, len_high, len_low, value @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([*len_high, *len_low]));
        if u16::from_be_bytes([*type_high, *type_low]) == XOR_MAPPED_ADDRESS {
            let mask = &message[4..20];
            let port = u16::from_be_bytes([value[2] ^ mask[0], value[3] ^ mask[1]]);
            let unmasked: Vec<u8> = value[4..len].iter().zip(mask).map(|(byte, mask)| byte ^ mask).collect();
            let ip = match value[1] {
                1 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(unmasked).unwrap())),
                _ => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(unmasked).unwrap())),
            };
            return SocketAddr::new(ip, port);
        }
        rest = &value[len.next_multiple_of(4)..];
    }
    panic!("no XOR-MAPPED-ADDRESS in {message:02x?}");
}

/// A Binding response that tells this address.
pub(crate) fn binding_answer(request: &[u8], seen: SocketAddr) -> Vec<u8> {
    let SocketAddr::V4(seen) = seen else { panic!("IPv4 only") };
    let mut answer = [&[0x01, 0x01, 0, 12], &request[4..20]].concat();
    let mask = &request[4..8];
    answer.extend(XOR_MAPPED_ADDRESS.to_be_bytes());
    answer.extend([0, 8, 0, 1]);
    answer.extend(seen.port().to_be_bytes().iter().zip(mask).map(|(byte, mask)| byte ^ mask));
    answer.extend(seen.ip().octets().iter().zip(mask).map(|(byte, mask)| byte ^ mask));
    answer
}
