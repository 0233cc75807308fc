//! Running the server as a service: start, logs, signals.

pub mod counters;
pub mod log;
pub mod run;
