//! What an application answers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use turnstone::hook::read_answer;

fuzz_target!(|answer: (u16, &[u8])| {
    let (status, body) = answer;
    match read_answer(status, body) {
        Ok(known) => assert_eq!(known.is_some(), status == 200),
        // What is wrong is said without a word of it.
        Err(error) => assert!(error.to_string().len() < 400),
    }
    let _ = read_answer(200, body);
});
