//! HTTP endpoints: sockets, the seats of their connections, bodies of bounded length, answers. What is asked and answered there is others'.

mod answer;
mod body;
mod listener;
mod seats;

pub(crate) use answer::{Answer, JSON, json, response};
pub(crate) use body::{BadBody, read_body};
pub(crate) use listener::{Caller, EndpointListener, Handler, Limits, Tls};
