//! What a store of a fleet holds: users, secrets, keys of coturn, and what servers have revoked.

use turnstone::store::{
    EntryId, RevocationEvent, entry_of_line, line_of_entry, read_changes, read_coturn_key, read_secret, read_user,
};

use crate::mutate::{Rng, mutate};

const VALUES: &[&str] = &[
    "s3cret-s3cret-s3cret",
    "0x15fe1d291db14ef2a00c206559e9d387,0x0000000000000000000000000000000000000000000000000000000000000000",
    "15fe1d291db14ef2a00c206559e9d387",
    r#"{"password": "s3cret", "alloc": 4, "ttl": 60}"#,
    r#"{"secret": "s3cret-s3cret-s3cret", "valid_until": 1800000000}"#,
];
const ANSWERS: &[&str] = &[
    "*1\r\n*2\r\n$3\r\nlog\r\n*2\r\n*2\r\n$3\r\n1-1\r\n*4\r\n$5\r\nentry\r\n$39\r\n{\"user\":\"ann\",\"realm\":\"turn.test\"} 0a1b\r\n$2\r\nis\r\n$24\r\n1 0 1800000000 0 0 0 0 0\r\n\
     *2\r\n$3\r\n1-2\r\n*2\r\n$6\r\nremove\r\n$14\r\n{\"user\":\"bob\"}\r\n",
    "*-1\r\n",
    "-NOPERM no\r\n",
];

#[test]
fn mutated_values_are_used_or_refused_and_no_refusal_quotes_them() {
    let mut rng = Rng(crate::seed() ^ 21);
    let corpus: Vec<Vec<u8>> = VALUES.iter().map(|seed| seed.as_bytes().to_vec()).collect();
    let mut counts = [[0_u64; 2]; 3];
    for _ in 0..crate::inputs(2) {
        let mut bytes = rng.pick(&corpus).clone();
        mutate(&mut rng, &mut bytes, &corpus);
        let secret = read_secret("main", bytes.clone().into());
        if let Ok(stored) = &secret {
            assert!((16..=1024).contains(&stored.secret.bytes.len()) && stored.secret.id == "main");
        }
        let told = [
            read_user(&bytes).map(drop).map_err(|error| error.to_string()),
            read_coturn_key(&bytes).map(drop).map_err(|error| error.to_string()),
            secret.map(drop),
        ];
        for (told, counts) in told.into_iter().zip(&mut counts) {
            counts[usize::from(told.is_ok())] += 1;
            if let Err(told) = told {
                assert!(told.len() < 200 && !told.contains("s3cret"), "{told}");
            }
        }
    }
    assert!(counts.as_flattened().iter().all(|count| *count > 0), "{counts:?}");
}

#[test]
fn mutated_streams_of_revocations_are_taken_or_refused_whole() {
    let mut rng = Rng(crate::seed() ^ 22);
    let corpus: Vec<Vec<u8>> = ANSWERS.iter().map(|seed| seed.as_bytes().to_vec()).collect();
    let (mut taken, mut revoked) = (0, 0);
    for _ in 0..crate::inputs(1) {
        let mut bytes = rng.pick(&corpus).clone();
        mutate(&mut rng, &mut bytes, &corpus);
        let Ok(answer) = redis::parse_redis_value(&bytes) else { continue };
        let Ok(changes) = read_changes(answer) else { continue };
        taken += 1;
        for (_, event) in changes {
            let Some(RevocationEvent::Changed(id, Some(entry))) = event else { continue };
            assert!(id.len() <= 4100);
            if let Ok(read) = EntryId::of_text(&id) {
                // What is put there again, or into the state directory, is the same.
                assert!(read.text() == id, "{id}");
                let line = line_of_entry(&read, &entry);
                assert!(entry_of_line(&line) == Some(Ok((read, entry))), "{line}");
                revoked += 1;
            }
        }
    }
    assert!(taken > 0 && revoked > 0, "{taken} {revoked}");
}
