//! ClientHellos on a port that is shared with a web server: whole, and byte by byte.
#![no_main]

use libfuzzer_sys::fuzz_target;
use turnstone::stream::{Heard, Hello};

fn hear(parts: &mut dyn Iterator<Item = &[u8]>) -> &'static str {
    let names = ["turn.example.org".to_owned()];
    let mut hello = Hello::default();
    let mut taken = 0;
    for part in parts {
        taken += part.len();
        hello = match hello.hear(part, &names, |_| false) {
            Heard::Part(part) => {
                assert_eq!(part.received(), taken);
                part
            }
            Heard::Ours(_) => return "ours",
            Heard::Web(bytes) => {
                assert_eq!(bytes.len(), taken);
                return "web";
            }
            Heard::Refused(_) => return "refused",
        };
    }
    "part"
}

fuzz_target!(|bytes: &[u8]| {
    let whole = hear(&mut std::iter::once(bytes));
    let in_pieces = hear(&mut bytes.chunks(1));
    // What is behind a complete one may spoil it only when it is there at once.
    assert!(whole == in_pieces || whole == "refused", "{whole}, in pieces {in_pieces}");
});
