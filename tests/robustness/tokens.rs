//! Mutated access tokens, from outside and under their seal.

use turnstone::auth::TokenDiagnosis;

use crate::mutate::{Rng, mutate};
use crate::sealing::{NOW, seal, seconds_left, tokens};

#[test]
fn no_mutated_token_upsets_the_server_and_what_is_under_the_seal_is_read_as_the_rfc_says() {
    let mut rng = Rng(crate::seed() ^ 7);
    let of = tokens();
    let inside = [&[0, 20][..], &[9; 20], &(NOW.unix_secs << 16).to_be_bytes(), &600_u32.to_be_bytes()].concat();
    let corpus = vec![inside.clone(), seal(&inside), vec![0; 14]];
    let (mut good, mut bad) = (0, 0);
    for _ in 0..crate::inputs(2) {
        let mut under = inside.clone();
        mutate(&mut rng, &mut under, &corpus);
        let mut token = seal(&under);
        match of.diagnose(NOW, &token) {
            TokenDiagnosis::Valid { seconds_left: left, .. } => {
                assert_eq!(seconds_left(&under), Some(left), "{under:02x?}");
                good += 1;
            }
            _ => {
                // A lifetime of nothing is over at once.
                assert!(seconds_left(&under).is_none_or(|left| left == 0), "{under:02x?}");
                bad += 1;
            }
        }
        let before = token.clone();
        mutate(&mut rng, &mut token, &corpus);
        if token != before && !corpus.contains(&token) {
            assert!(matches!(of.diagnose(NOW, &token), TokenDiagnosis::Unreadable { .. }), "{token:02x?}");
        }
    }
    assert!(good > 0 && bad > 0, "{good} good, {bad} bad");
}
