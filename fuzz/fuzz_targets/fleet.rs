//! What a name server and another node of a fleet answer.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(targets) = turnstone::fleet::targets_in(data) {
        assert!(targets.iter().all(|(host, port)| !host.is_empty() && host.len() <= 253 && *port > 0));
    }
    turnstone::fleet::is_report(data);
});
