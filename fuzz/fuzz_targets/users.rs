//! Files of users, and the keys in them.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/robustness/users_model.rs"]
mod users_model;

fuzz_target!(|file: &[u8]| {
    users_model::check(file);
});
