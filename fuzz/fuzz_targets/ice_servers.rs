//! `iceServers` as they are pasted from a page's code, or answered by an API.
#![no_main]

use libfuzzer_sys::fuzz_target;
use turnstone::probe::IceServers;

fuzz_target!(|text: &str| {
    match IceServers::read(text) {
        Ok(servers) => assert!(text.len() <= 64 * 1024 && format!("{servers:?}").len() <= 8 * text.len() + 256),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
