//! What an application answers, to a question and to an event.
#![no_main]

use libfuzzer_sys::fuzz_target;
use turnstone::hook::{Verdict, read_answer, read_event_answer};

fuzz_target!(|answer: (u16, &[u8])| {
    let (status, body) = answer;
    match read_answer(status, body) {
        Ok(known) => assert_eq!(known.is_some(), status == 200),
        // What is wrong is said without a word of it.
        Err(error) => assert!(error.to_string().len() < 400),
    }
    let _ = read_answer(200, body);
    match read_event_answer(status, body) {
        // Nothing but these words ends an allocation.
        Ok(Verdict::End) => assert!((200..300).contains(&status) && body.windows(5).any(|word| word == b"\"end\"")),
        Ok(Verdict::Noted) => assert!((200..300).contains(&status)),
        Err(error) => assert!(error.to_string().len() < 400),
    }
});
