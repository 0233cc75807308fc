//! Access tokens (RFC 7635): as they come from anybody, and what is under the seal of one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use turnstone::auth::TokenDiagnosis;

#[path = "../../tests/robustness/sealing.rs"]
mod sealing;

use sealing::{NOW, seal, seconds_left, tokens};

fuzz_target!(|input: &[u8]| {
    let of = tokens();
    let forged = of.diagnose(NOW, input);
    assert!(!matches!(forged, TokenDiagnosis::Valid { .. }), "a forgery");
    if let TokenDiagnosis::Valid { seconds_left: left, .. } = of.diagnose(NOW, &seal(input)) {
        assert_eq!(seconds_left(input), Some(left));
    }
});
