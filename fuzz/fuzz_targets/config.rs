//! Text into the configuration parser.
#![no_main]

use libfuzzer_sys::fuzz_target;
use turnstone::config::{Config, Host, Overrides, Source, Surroundings};

fuzz_target!(|text: &str| {
    let source = Source {
        name: "turnserver.toml".to_owned(),
        text: text.to_owned(),
        mode: Some(0o600),
        directory: "/nonexistent".into(),
    };
    let host = Host { cores: 2, ipv4: Some([192, 0, 2, 1].into()), ipv6: None, has_ipv6: true };
    let env = |name: &str| (name == "A_SECRET").then(|| "a secret of enough bytes".to_owned());
    for dev in [false, true] {
        match Config::parse(&source, &Overrides::default(), &Surroundings { host, env: &env, dev }) {
            Ok(loaded) => assert!(!loaded.config.listeners.is_empty()),
            Err(error) => assert!(!error.problems.is_empty()),
        }
    }
});
