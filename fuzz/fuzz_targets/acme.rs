//! What a certificate authority answers, and what was noted of it.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/robustness/acme_model.rs"]
mod acme_model;

fuzz_target!(|input: (u8, &[u8])| {
    let (what, bytes) = input;
    acme_model::check(what, bytes);
});
