//! Running the server as a service: start, logs, signals.

pub mod log;
pub mod run;
