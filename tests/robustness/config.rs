//! Mutated text into the configuration parser.

use turnstone::config::{Config, Host, Overrides, Source, Surroundings};

use crate::mutate::{Rng, mutate};

/// Keys with values that reach deep into the parser; the examples of the reference add others.
const SEEDS: &[&str] = &[
    include_str!("../../turnserver.toml"),
    "workers = 2\n[[listen]]\naddress = \"*:3478\"\ntransport = [\"udp\", \"tcp\"]\n",
    "[relay]\nexternal-ip = [\"auto\"]\nexternal-ip-sources = [\"metadata:aws\", \"stun:[2001:db8::1]:3479\"]\nexternal-ip-interval = \"1m\"\n",
    "[relay]\nipv4 = \"192.0.2.1\"\nexternal-ip = [\"198.51.100.1\"]\nports = \"49152-65535\"\n",
    "[auth]\nrealm = \"example.org\"\non-expiry = \"cut\"\n[[auth.secrets]]\nid = \"a\"\nenv = \"A_SECRET\"\n",
    "[[auth.users]]\nname = \"alice\"\npassword-env = \"A_SECRET\"\n",
    "[peers]\ndenied = [\"10.0.0.0/8\", \"192.0.2.1-192.0.2.9\"]\nallowed = [\"2001:db8::/32 override\"]\n",
    "[bandwidth]\nper-user = \"2Mbit/s\"\n[quota]\nper-user = 10\ntotal = 1000\n",
    "listen = [{ address = \"[::]:443\", transport = \"tls\" }]\ntls = { certificate = \"c.pem\", key = \"k.pem\" }\n",
];

fn host() -> Host {
    Host { cores: 2, ipv4: Some([192, 0, 2, 1].into()), ipv6: None, has_ipv6: true }
}

#[test]
fn no_mutated_configuration_upsets_the_parser_and_every_refusal_says_where() {
    let mut rng = Rng(crate::seed() ^ 4);
    let reference = include_str!("../../docs/reference.md").split("```toml\n").skip(1);
    let examples = reference.filter_map(|rest| rest.split_once("```")).map(|(example, _)| example);
    let corpus: Vec<Vec<u8>> = SEEDS.iter().copied().chain(examples).map(|text| text.as_bytes().to_vec()).collect();
    assert!(corpus.len() > 40, "{} seeds", corpus.len());
    let env = |name: &str| (name == "A_SECRET").then(|| "a secret of enough bytes".to_owned());
    // Files named in a mutated text are looked for here, where there are none.
    let nowhere = tempfile::tempdir().unwrap();
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..crate::inputs(2) {
        let mut bytes = rng.pick(&corpus).clone();
        mutate(&mut rng, &mut bytes, &corpus);
        let source = Source {
            name: "turnserver.toml".to_owned(),
            text: String::from_utf8_lossy(&bytes).into_owned(),
            mode: Some(0o600),
            directory: nowhere.path().to_owned(),
        };
        let around = Surroundings { host: host(), env: &env, dev: rng.chance(2) };
        match Config::parse(&source, &Overrides::default(), &around) {
            Ok(loaded) => {
                let config = loaded.config;
                assert!(config.workers >= 1 && !config.listeners.is_empty(), "{}", source.text);
                assert!(config.relay.ports.0 <= config.relay.ports.1, "{}", source.text);
                accepted += 1;
            }
            Err(error) => {
                assert!(!error.problems.is_empty());
                for problem in &error.problems {
                    assert!(!problem.message.is_empty());
                    assert!(!problem.to_string().contains(|c: char| c.is_control()), "{problem:?}");
                }
                refused += 1;
            }
        }
    }
    assert!(accepted > 0 && refused > 0, "{accepted} accepted, {refused} refused");
}
