//! HTTP endpoints: sockets, the seats of their connections, bodies of bounded length, answers. What is asked and answered there is others'.
//! And for those who ask: a bound on what is read for one answer.

mod answer;
mod body;
mod bounded;
mod limits;
mod listener;
mod seats;

pub(crate) use answer::{Answer, JSON, json, response};
pub(crate) use body::{BadBody, read_body};
pub(crate) use bounded::{Allowance, Bounded};
pub(crate) use limits::Limits;
pub(crate) use listener::{Caller, EndpointListener, Handler, Tls};
pub(crate) use seats::network_of;
