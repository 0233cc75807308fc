//! What an application answers to the questions of `[hook]`.

use turnstone::hook::{Verdict, read_answer, read_event_answer};

use crate::mutate::{Rng, mutate};

const SEEDS: &[&str] = &[
    r#"{"password": "s3cret", "user": "tenant", "expires": 1800000000, "ttl": 60}"#,
    r#"{"password": "s3cret", "bw": "2M", "alloc": 4, "peers": "sfu"}"#,
    r#"{"key": "0x15fe1d291db14ef2a00c206559e9d387,0x0000000000000000000000000000000000000000000000000000000000000000"}"#,
    r#"{"password": null, "bw": 1e9, "alloc": "18446744073709551616"}"#,
];

#[test]
fn mutated_answers_are_used_or_refused_and_no_refusal_quotes_them_at_length() {
    let mut rng = Rng(crate::seed() ^ 12);
    let corpus: Vec<Vec<u8>> = SEEDS.iter().map(|seed| seed.as_bytes().to_vec()).collect();
    let (mut used, mut refused) = (0, 0);
    for _ in 0..crate::inputs(2) {
        let mut bytes = rng.pick(&corpus).clone();
        mutate(&mut rng, &mut bytes, &corpus);
        match read_answer(200, &bytes) {
            Ok(known) => {
                assert!(known.is_some());
                used += 1;
            }
            Err(error) => {
                let told = error.to_string();
                assert!(told.len() < 400 && !told.contains("s3cret"), "{told}");
                refused += 1;
            }
        }
        assert!(read_answer(404, &bytes).is_ok_and(|known| known.is_none()));
    }
    assert!(used > 0 && refused > 0, "{used} {refused}");
}

const EVENT_SEEDS: &[&str] =
    &[r#"{"end": true}"#, r#"{"end": false}"#, "{}", " \r\n", r#"{"end": "true"}"#, "<html>403</html>"];

#[test]
fn mutated_answers_to_events_end_an_allocation_by_nothing_but_the_right_words() {
    let mut rng = Rng(crate::seed() ^ 14);
    let corpus: Vec<Vec<u8>> = EVENT_SEEDS.iter().map(|seed| seed.as_bytes().to_vec()).collect();
    let (mut ended, mut noted, mut refused) = (0, 0, 0);
    for _ in 0..crate::inputs(1) {
        let mut bytes = rng.pick(&corpus).clone();
        mutate(&mut rng, &mut bytes, &corpus);
        match read_event_answer(200, &bytes) {
            Ok(Verdict::End) => {
                let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
                assert_eq!(value, serde_json::json!({ "end": true }));
                ended += 1;
            }
            Ok(Verdict::Noted) => noted += 1,
            Err(error) => {
                assert!(error.to_string().len() < 400);
                refused += 1;
            }
        }
        assert!(read_event_answer(403, &bytes).is_err());
    }
    assert!(ended > 0 && noted > 0 && refused > 0, "{ended} {noted} {refused}");
}
