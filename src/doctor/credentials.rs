//! The credentials API: who could ask it for what, what it would hand out, and whether it answers.

use std::collections::HashSet;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::finding;
use super::health::{ask, reachable, read_status};
use crate::config::{Config, CredentialsApi, Endpoint, RealmConfig, WaysIn};
use crate::credentials::written_urls;
use crate::probe::{Status, Step};

const PATH: &str = "/v1/openapi.json";

/// Judges what the configuration says of it.
pub fn judge(config: &Config) -> Vec<Step> {
    let Some(api) = &config.credentials else { return Vec::new() };
    let step = |status, message: String| finding("credentials", status, message);
    let mut steps = Vec::new();
    let ways = WaysIn::new(config);
    for realm in realms_of(config, api) {
        let table = if realm.is_some() { "its [[realm]]" } else { "[auth]" };
        if written_urls(&ways, realm).is_empty() {
            let name = realm.map_or(&config.auth.realm, |realm| &realm.name);
            let message = format!(
                "no URL leads into the realm {name:?} as far as the configuration tells, so that answers have none; set public-host \
                 or urls in {table}"
            );
            steps.push(step(Status::Fail, message));
        }
    }
    for key in api.keys.iter().filter(|key| !key.origins.is_empty() && key.user_prefix.is_empty()) {
        let message = format!(
            "the key {:?} is for pages, whose readers know it, and has no user-prefix: any of them can make credentials in the name \
             of any user, and spend his quotas",
            key.id
        );
        steps.push(step(Status::Warn, message));
    }
    if steps.is_empty() {
        let how = if api.tls { "HTTPS" } else { "plain HTTP" };
        let keys = if api.keys.len() == 1 { "1 key".to_owned() } else { format!("{} keys", api.keys.len()) };
        steps.push(step(Status::Ok, format!("{how} at {}, {keys}", api.listen)));
    }
    steps
}

/// The realms that its keys make credentials for.
fn realms_of<'c>(config: &'c Config, api: &CredentialsApi) -> Vec<Option<&'c RealmConfig>> {
    let names: HashSet<_> = api.keys.iter().flat_map(|key| &key.realms).collect();
    let is_default = names.contains(&config.auth.realm) || api.keys.iter().any(|key| key.realms.is_empty());
    let default = is_default.then_some(None);
    default.into_iter().chain(config.realms.iter().filter(|realm| names.contains(&realm.name)).map(Some)).collect()
}

/// Asks the running one for what needs no key.
pub(super) fn judge_running(api: &CredentialsApi, timeout: Duration) -> Vec<Step> {
    let listen = &api.listen;
    let started = Instant::now();
    let answered = match listen {
        Endpoint::Tcp(address) if address.port() == 0 => return Vec::new(),
        // Its certificate is judged with those of the listeners.
        Endpoint::Tcp(address) if api.tls => TcpStream::connect_timeout(&reachable(*address), timeout).map(|_| None),
        _ => ask(listen, PATH, timeout).map(Some),
    };
    let (status, message) = match answered.as_ref().map(|answer| answer.as_deref().map(read_status)) {
        Ok(None) => (Status::Ok, format!("the credentials API at {listen} takes connections")),
        Ok(Some(Some((200, _)))) => (Status::Ok, format!("the credentials API at {listen} answers")),
        Ok(Some(Some((code, body)))) => (Status::Fail, format!("{PATH} at {listen} says {code}: {body}")),
        Ok(Some(None)) => (Status::Fail, format!("{PATH} at {listen}: the answer is not HTTP; is it another program?")),
        Err(error) => (Status::Fail, format!("the credentials API at {listen} does not answer: {error}")),
    };
    vec![Step::new("credentials", status, started.elapsed(), message)]
}

#[cfg(test)]
mod tests {
    use super::super::tests::config;
    use super::*;

    #[test]
    fn keys_for_everybody_and_answers_without_urls_are_told() {
        let found = |listen: &str, key: &str| {
            let text = format!(
                "[[listen]]\naddress = \"{listen}\"\ntransport = \"udp\"\n[relay]\nipv4 = \"5.44.1.1\"\nipv6 = \"off\"\n[credentials]\n\
                 listen = \"127.0.0.1:9643\"\ntls = false\n[[credentials.keys]]\nid = \"page\"\nsha256 = \"{}\"\n{key}",
                "0f".repeat(32)
            );
            judge(&config(&text)).into_iter().map(|step| step.status).collect::<Vec<_>>()
        };
        assert_eq!(found("0.0.0.0:3478", ""), [Status::Ok]);
        assert_eq!(found("[::]:3478", ""), [Status::Fail], "there is no relay of its family to name it by");
        assert_eq!(found("0.0.0.0:3478", "origins = \"*\"\n"), [Status::Warn]);
        assert_eq!(found("0.0.0.0:3478", "origins = \"*\"\nuser-prefix = \"page-\"\n"), [Status::Ok]);
    }
}
