//! The store of `[store]`: whether what it is reached with can be read, and whether it answers.

use std::fs::File;
use std::time::Duration;

use super::finding;
use crate::config::{StoreConfig, StoreLayout, StoredSecrets};
use crate::probe::{Status, Step};
use crate::store::{ProbeError, Probed, Wanted, probe};

/// Judges the files of its certificates.
pub fn judge_files(config: &StoreConfig) -> Vec<Step> {
    let mut problems = Vec::new();
    let certificate = config.certificate.as_ref();
    for path in config.ca.iter().chain(certificate.map(|pair| &pair.certificate)) {
        if let Err(error) = File::open(path) {
            problems.push(format!("cannot read {}: {error}", path.display()));
        }
    }
    problems.extend(certificate.and_then(|pair| pair.read_key().err()).map(|error| error.to_string()));
    let url = &config.url;
    if problems.is_empty() {
        let under = match config.layout {
            StoreLayout::Own => format!("under {}:", config.prefix),
            StoreLayout::Coturn => format!("users and secrets under turn/realm/, all else under {}:", config.prefix),
        };
        return vec![finding("store", Status::Ok, format!("{url}, {under}"))];
    }
    let failed = |problem| finding("store", Status::Fail, format!("{url} cannot be reached: {problem}"));
    problems.into_iter().map(failed).collect()
}

/// Connects with it, and has it do what servers ask of it that want this.
///
/// Returns the secrets that it has, too.
pub(super) fn judge(config: &StoreConfig, wanted: &Wanted, timeout: Duration) -> (Step, StoredSecrets) {
    let mut probed = probe(config, wanted, timeout);
    let secrets = probed.as_mut().map(|probed| std::mem::take(&mut probed.secrets)).unwrap_or_default();
    (judge_probed(config, wanted, probed), secrets)
}

fn judge_probed(config: &StoreConfig, wanted: &Wanted, probed: Result<Probed, ProbeError>) -> Step {
    let url = &config.url;
    match probed {
        Ok(probed) => {
            let took = probed.took.as_secs_f64() * 1e3;
            if !probed.unusable.is_empty() {
                let message = format!(
                    "{url} answers in {took:.1} ms, but {}; servers that knew something else before go on with that, and those that start have nothing \
                     (docs/store.md)",
                    probed.unusable.join("; ")
                );
                return finding("store", Status::Fail, message);
            }
            let mut empty = probed.empty;
            // Those whose users are known to nobody else.
            empty.retain(|realm| wanted.without_secrets.iter().any(|(name, has_others)| name == realm && !has_others));
            if !empty.is_empty() {
                let names: Vec<_> = empty.iter().map(|realm| format!("{realm:?}")).collect();
                let message = format!(
                    "{url} answers in {took:.1} ms, but has neither a secret nor a user for the realm {}, and the configuration neither: nobody can \
                     allocate; if the store was emptied, put them back (docs/store.md)",
                    names.join(", ")
                );
                return finding("store", Status::Warn, message);
            }
            if let Some(problem) = probed.differing_clocks {
                return finding("store", Status::Warn, format!("{url} answers in {took:.1} ms, but {problem}"));
            }
            finding("store", Status::Ok, format!("{url} answers in {took:.1} ms, and does what servers ask of it"))
        }
        Err(error @ ProbeError::Refused(_)) => {
            let message = format!(
                "{url} answers, but {error}; docs/store.md has the rights that its user needs, and a store that is full or read-only cannot be used"
            );
            finding("store", Status::Fail, message)
        }
        Err(ProbeError::Connect(error)) => {
            let message = format!(
                "{}; a server that starts now knows nothing of it, and one that runs goes on with what it knew",
                error.of(url)
            );
            finding("store", Status::Fail, message)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::super::tests::config;
    use super::*;

    #[test]
    fn a_store_that_is_not_there_or_whose_files_are_not_is_told() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let of = |text: &str| config(&format!("[relay]\nipv4 = \"5.44.1.1\"\n[store]\n{text}\n")).store.unwrap();
        let gone = of(&format!("url = \"redis://127.0.0.1:{port}\"\npassword = \"hunter2\""));
        let wanted = Wanted { realms: Vec::new(), nonce_key: true, without_secrets: Vec::new() };
        let (step, _) = judge(&gone, &wanted, Duration::from_secs(5));
        assert!(step.status == Status::Fail && step.message.contains("refused"), "{}", step.message);
        assert!(!step.message.contains("hunter2"));
        for (layout, under) in [("turnstone", "under fleet:"), ("coturn", "under turn/realm/, all else under fleet:")] {
            let text = format!("url = \"redis://127.0.0.1:{port}\"\nprefix = \"fleet\"\nlayout = \"{layout}\"");
            match &*judge_files(&of(&text)) {
                [step] => assert!(step.status == Status::Ok && step.message.ends_with(under), "{}", step.message),
                steps => panic!("{} steps", steps.len()),
            }
        }
        let files = of("url = \"rediss://a.example\"\nca = \"/nowhere/ca.pem\"");
        assert!(
            judge_files(&files)
                .iter()
                .all(|step| step.status == Status::Fail && step.message.contains("/nowhere/ca.pem"))
        );
    }
}
