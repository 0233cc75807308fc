//! What a certificate authority answers, and what was noted of it.

use crate::acme_model::check;
use crate::mutate::{Rng, mutate};

const RECORDS: &[&str] = &[
    r#"{"directory": "https://one.example/dir", "attempts-unix": [1800000000, 1799990000], "failures": 2, "failure": "why", "retry-unix": 1800000600}"#,
    r#"{"attempts-unix": [18446744073709551615], "tried-unix": 18446744073709551615, "wait-unix": 18446744073709551615, "wait-all-unix": 9999999999999, "retry-all-unix": 1, "uncounted": 4294967295, "failures": 4294967295}"#,
    r#"{"issued-by": "https://one.example/dir", "of-not-after-unix": 1, "renew-unix": 5, "window-unix": [5, 1], "advice-unix": 18446744073709551615, "elsewhere": [{"directory": "https://other.example/dir", "attempts-unix": [1799999999]}, {"directory": "https://other.example/dir"}]}"#,
];
const PROBLEMS: &[&str] = &[
    r#"{"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many", "status": 429}"#,
    r#"{"type": "urn:ietf:params:acme:error:dns", "detail": "\u001b[31m\u202e", "status": 400, "subproblems": [{"type": "urn:ietf:params:acme:error:caa", "detail": "no", "identifier": {"type": "dns", "value": "turn.example.org"}}]}"#,
    r#"{"type": "about:blank", "title": "x"}"#,
];
const WAITS: &[&str] = &["120", "Fri, 31 Dec 2027 23:59:59 GMT", "18446744073709551615", " 5 "];

#[test]
fn mutated_answers_of_an_authority_and_records_are_used_or_refused_and_block_nothing_for_longer_than_a_week() {
    let mut rng = Rng(crate::seed() ^ 13);
    let own = rcgen::generate_simple_self_signed(["turn.example.org".to_owned()]).unwrap();
    let pem = format!("{}{}", own.signing_key.serialize_pem(), own.cert.pem());
    let texts = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>();
    let corpora = [texts(RECORDS), texts(PROBLEMS), vec![pem.into_bytes()], texts(WAITS)];
    for (what, corpus) in (0..).zip(&corpora) {
        // A signature takes its time.
        let inputs = if what == 2 { crate::inputs(1).min(20_000) } else { crate::inputs(1) };
        let (mut used, mut refused) = (0, 0);
        corpus.iter().for_each(|seed| used += u64::from(check(what, seed)));
        assert_eq!(used, corpus.len() as u64, "{what}");
        for _ in 0..inputs {
            let mut bytes = rng.pick(corpus).clone();
            mutate(&mut rng, &mut bytes, corpus);
            match check(what, &bytes) {
                true => used += 1,
                false => refused += 1,
            }
        }
        assert!(used > corpus.len() as u64 && refused > 0, "{what}: {used} {refused}");
    }
}
