//! A program on the server's host opens connections to `[metrics]` and `[admin]` and says nothing.

use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use super::Until;
use crate::client::Target;

const CONNECTIONS: usize = 100;

pub(super) fn silent(target: &Target, until: &Until<'_>) -> u64 {
    let mut opened = 0;
    while !until.is_over() {
        let silent: Vec<_> = (0..CONNECTIONS)
            .map(|_| (TcpStream::connect(target.metrics), UnixStream::connect(&target.admin)))
            .collect();
        opened += silent.len() as u64;
        until.rest(500);
    }
    opened
}
