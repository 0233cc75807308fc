//! What a store of a fleet holds and answers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use turnstone::store::{EntryId, RevocationEvent, entry_of_line, read_changes, read_coturn_key, read_secret, read_user};

fuzz_target!(|bytes: &[u8]| {
    // What is wrong is said without a word of it.
    if let Err(error) = read_user(bytes) {
        assert!(error.to_string().len() < 200);
    }
    let _ = read_coturn_key(bytes);
    match read_secret("main", bytes.to_vec().into()) {
        Ok(stored) => assert!((16..=1024).contains(&stored.secret.bytes.len())),
        Err(why) => assert!(why.len() < 200),
    }
    if let Ok(line) = std::str::from_utf8(bytes) {
        let _ = entry_of_line(line);
    }
    let Ok(answer) = redis::parse_redis_value(bytes) else { return };
    let Ok(changes) = read_changes(answer) else { return };
    for (_, event) in changes {
        if let Some(RevocationEvent::Changed(id, _)) = event
            && let Ok(read) = EntryId::of_text(&id)
        {
            assert!(read.text() == id);
        }
    }
});
