//! What has to be true of whatever a certificate authority answers, and of whatever is read back of it.

use turnstone::acme::{Record, read_problem, retry_after, usable};

const NOW_UNIX: u64 = 1_800_000_000;
const DAY_SECS: u64 = 86_400;

/// Checks bytes as one of what there is, and says whether they could be used.
pub(crate) fn check(what: u8, bytes: &[u8]) -> bool {
    match what % 4 {
        0 => check_record(bytes),
        1 => match read_problem(bytes) {
            Some(text) => {
                assert!(text.chars().count() < 700, "{text}");
                assert!(!text.chars().any(char::is_control), "{text:?}");
                true
            }
            None => false,
        },
        2 => usable(bytes, "turn.example.org").is_ok(),
        _ => std::str::from_utf8(bytes).ok().and_then(retry_after).is_some(),
    }
}

/// Whatever is noted, the next attempt is due within a week, and what is set right stays so.
fn check_record(bytes: &[u8]) -> bool {
    let Ok(mut record) = Record::read(bytes) else { return false };
    for directory in ["https://one.example/dir", "https://other.example/dir", "https://one.example/dir"] {
        record.turn_to(directory, NOW_UNIX);
        assert!(record.due_unix() <= NOW_UNIX + 7 * DAY_SECS, "{record:?}");
        let again = Record::read(&record.written().unwrap()).unwrap();
        assert_eq!(again, record);
        let mut turned = again;
        turned.turn_to(directory, NOW_UNIX);
        assert_eq!(turned, record);
    }
    true
}
