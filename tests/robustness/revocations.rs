//! Revocations as they are written in a file, a request, and the state directory.

use turnstone::auth::{Revocation, Revocations};
use turnstone::config::{
    Config, Host, Overrides, Source, Surroundings, WrittenBy, WrittenRevocation, read_listed, revocation,
};

use crate::mutate::{Rng, mutate};

const NOW: u64 = 1_700_000_000;
const SEEDS: &[&str] = &[
    "# who left\n{\"user\": \"alice\"}\n{\"username\": \"1700003600:bob;bw=2M\"}\r\n\n",
    "{\"key\": \"main\", \"issued_before\": \"2026-11-27T10:00:00Z\", \"lifetime_secs\": 86400}",
    "{\"everybody\": true, \"issued_before\": 1700000000, \"lifetime_secs\": 60, \"realm\": \"turnstone\"}\n",
    "{\"user\": \"\\u0061\\\\\\\"\", \"until\": 1700086400}\n{\"usr\": 1}\n\u{fffd}",
];

#[test]
fn mutated_lists_are_read_in_one_way_or_refused_with_a_place_each() {
    let config = config();
    let mut rng = Rng(crate::seed() ^ 11);
    let corpus: Vec<Vec<u8>> = SEEDS.iter().map(|seed| seed.as_bytes().to_vec()).collect();
    let (mut listed, mut refused) = (0, 0);
    for _ in 0..crate::inputs(2) {
        let mut bytes = rng.pick(&corpus).clone();
        mutate(&mut rng, &mut bytes, &corpus);
        let mut problems = Vec::new();
        let found =
            read_listed(&*bytes, "list", &mut problems, |written| revocation(&config, written, WrittenBy::File, NOW));
        assert!(problems.len() <= 21 && problems.iter().all(|problem| problem.to_string().starts_with("list:")));
        check(&config, &found);
        (listed, refused) = (listed + found.len(), refused + problems.len());
    }
    assert!(listed > 0 && refused > 0, "{listed} {refused}");
}

/// What is written is read again as the same, and can be put in force.
fn check(config: &Config, listed: &[Revocation]) {
    for listed in listed {
        let line = WrittenRevocation::from(listed).line();
        let again = WrittenRevocation::of_line(&line).unwrap();
        let by = if listed.until_unix == u64::MAX { WrittenBy::File } else { WrittenBy::Server };
        assert_eq!(revocation(config, &again, by, NOW).as_ref(), Ok(listed), "{line}");
    }
    let revocations = Revocations::default();
    revocations.replace_listed(listed).unwrap();
    assert!(revocations.len() <= listed.len());
    revocations.forget_what_is_over(u64::MAX);
    assert!(revocations.is_empty());
}

fn config() -> Config {
    let text = "[relay]\nipv4 = \"192.88.100.1\"\n[[auth.secrets]]\nsecret = \"0123456789abcdef\"\n";
    let source = Source { name: "f.toml".to_owned(), text: text.to_owned(), ..Source::default() };
    let host = Host { cores: 1, ipv4: None, ipv6: None, has_ipv6: false };
    let around = Surroundings { host, env: &|_| None, dev: false };
    Config::parse(&source, &Overrides::default(), &around).unwrap().config
}
