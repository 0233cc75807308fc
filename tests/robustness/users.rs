//! Files of users, and the keys in them.

use turnstone::auth::{StoredKeys, Users};

use crate::mutate::{Rng, mutate};
use crate::users_model::check;

const SEEDS: &[&str] = &[
    "# realm: realm\nuser:0x8493fbc53ba582fb4c044c456bdc40eb\nplain:password\r\n\nlast:p:q",
    "a:0x8493fbc53ba582fb4c044c456bdc40eb,0x8493fbc53ba582fb4c044c456bdc40eb8493fbc53ba582fb4c044c456bdc40eb\n# realm: other\n",
    "a:b\na:c\n1735689600:x:y\nzo\u{eb}:p\u{3000}q\nnocolon\n:empty\nempty:\n#\n0x:0x\nb:0x8493fbc53ba582fb4c044c456bdc40e\n",
];

#[test]
fn mutated_files_of_users_are_read_line_by_line_or_refused_with_the_line() {
    let mut rng = Rng(crate::seed() ^ 7);
    let corpus: Vec<Vec<u8>> = SEEDS.iter().map(|seed| seed.as_bytes().to_vec()).collect();
    let (mut added, mut refused) = (0, 0);
    for _ in 0..crate::inputs(1) {
        let mut bytes = rng.pick(&corpus).clone();
        mutate(&mut rng, &mut bytes, &corpus);
        let (of_these, problems) = check(&bytes);
        (added, refused) = (added + of_these, refused + problems);
    }
    assert!(added > 0 && refused > 0, "{added} added, {refused} refused");
}

#[test]
fn lines_of_any_length_are_whole_or_refused() {
    for len in [4094, 4095, 4096, 4097, 4098, 4099, 8192, 70_000] {
        for end in ["", "\n", "\r\n"] {
            let next = if end.is_empty() { "" } else { "b:c\n" };
            let line = format!("a:{}{end}{next}", "x".repeat(len - 2));
            let (_, problems) = check(line.as_bytes());
            assert_eq!(problems, usize::from(len > 4096), "{len} {end:?}");
        }
    }
}

#[test]
fn a_user_of_a_key_is_the_one_of_the_password() {
    let keys = StoredKeys::of_password("user", "realm", "pass").unwrap();
    let mut users = Users::of_realm("realm");
    users.insert_keys("user", &keys).unwrap();
    let by_password = Users::from_pairs("realm", [("user", "pass")]).unwrap();
    assert_eq!(users.changes(&by_password), (0, 0, 0));
}
