//! The keys of `[fleet]`.

use super::super::fleet::FleetConfig;
use super::super::key::{CREDENTIAL, FILE, INLINE, Key, Kind, VARIABLE};
use super::super::shown::{boolean, text, texts};
use super::super::snapshot::Config;
use super::super::unshown::there;

pub(super) static KEYS: &[Key] = &[
    Key::new("fleet.name", Kind::Text("a name of at most 64 letters, digits, dots, dashes and underscores"))
        .shown(|c| text(fleet(c)?.name.as_deref()?)),
    Key::new(
        "fleet.listen",
        Kind::Text(r#"ADDRESS:PORT such as "203.0.113.5:9640", or a socket such as "unix:/run/turnstone/fleet.sock""#),
    )
    .shown(|c| text(fleet(c)?.listen.as_ref()?.to_string()))
    .after_restart(keep),
    Key::new("fleet.plain-http", Kind::Boolean)
        .default("false")
        .shown(|c| boolean(fleet(c)?.plain_http))
        .after_restart(keep),
    Key::new(
        "fleet.nodes",
        Kind::Texts(
            r#"URLs such as "https://turn1.example.org:9640", or a name of SRV records such as "_turnstone._tcp.example.org""#,
        ),
    )
    .shown(|c| texts(&fleet(c).filter(|fleet| !fleet.nodes.is_empty())?.nodes)),
    Key::new("fleet.token-credential", CREDENTIAL).after_restart(keep),
    Key::new("fleet.token-file", FILE).after_restart(keep),
    Key::new("fleet.token-env", VARIABLE).after_restart(keep),
    Key::new("fleet.token", INLINE).unshown(token_lines, token_change).after_restart(keep),
    Key::new("fleet.ca", Kind::Text("the path of a PEM file"))
        .shown(|c| text(fleet(c)?.ca.as_ref()?.to_string_lossy())),
    Key::new("fleet.certificate-name", Kind::Text("a host name or an IP address"))
        .shown(|c| text(fleet(c)?.certificate_name.as_deref()?)),
];

fn fleet(config: &Config) -> Option<&FleetConfig> {
    config.fleet.as_ref()
}

fn keep(new: &mut Config, running: &Config) {
    FleetConfig::keep_until_restart(&mut new.fleet, &running.fleet);
}

fn token_lines(config: &Config) -> String {
    let has_token = fleet(config).is_some_and(|fleet| fleet.token.is_some());
    if has_token { "# token: there is one\n".to_owned() } else { String::new() }
}

fn token_change(old: &Config, new: &Config) -> Option<(String, String)> {
    let (old, new) = (fleet(old)?, fleet(new)?);
    there(old.token.clone(), new.token.clone(), ["a token", "another token"])
}
