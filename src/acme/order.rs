//! One order (RFC 8555 section 7.4): a name is shown to lead here, and its certificate is had.

use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeHandle, ChallengeType, Error, Identifier, NewOrder,
    Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

use super::answers::{Answers, ExpectedToken};
use super::exchange::Exchange;
use super::failure::{Failure, Step};
use super::kept::{Usable, usable};
use super::kind::Kind;
use crate::config::{AtPort, Challenges};
use crate::stream::{Validation, Validations};

/// How an authority is asked whether it is done: after a second, and then less and less often.
const POLLING: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_secs(1)).backoff(1.5).timeout(Duration::from_secs(90));

/// Where what an authority asks is answered.
#[derive(Clone)]
pub(super) struct Places {
    pub(super) validations: Arc<Validations>,
    pub(super) answers: Arc<Answers>,
}

/// A certificate that was had.
pub(super) struct Issued {
    /// Key and chain, PEM.
    pub(super) pem: Zeroizing<Vec<u8>>,
    pub(super) usable: Usable,
}

/// What is wanted.
pub(super) struct Wanted<'w> {
    pub(super) name: &'w str,
    pub(super) challenges: Challenges,
    /// Attempts that have failed so far: where there are two ways, they take turns.
    pub(super) failures: u32,
    /// The certificate that it replaces, for an authority that gives advice (RFC 9773 section 5).
    pub(super) replaces: Option<CertificateIdentifier<'static>>,
}

/// What is shown, while the authority may look.
enum Shown {
    Tls(Validation),
    Http(ExpectedToken),
}

impl Shown {
    fn asked(&self) -> (u16, u64) {
        match self {
            Self::Tls(validation) => (443, validation.shown()),
            Self::Http(token) => (80, token.shown()),
        }
    }
}

/// Orders a certificate.
pub(super) async fn order(
    account: &Account,
    exchange: &Exchange,
    places: &Places,
    wanted: Wanted<'_>,
) -> Result<Issued, Failure> {
    let failure = |error| Failure::of(error, exchange.wait_unix());
    let identifiers = [Identifier::Dns(wanted.name.to_owned())];
    let mut new = NewOrder::new(&identifiers);
    if let Some(replaces) = wanted.replaces.clone() {
        new = new.replaces(replaces);
    }
    let mut order = account.new_order(&new).await.map_err(|error| failure(error).at(Step::Order))?;
    prove(&mut order, exchange, places, &wanted).await?;
    let invalid = |error: rcgen::Error| Failure::new(Kind::Authority, format_args!("no request can be made: {error}"));
    // A key of its own for each certificate.
    let key = KeyPair::generate().map_err(invalid)?;
    let mut params = CertificateParams::new([wanted.name.to_owned()]).map_err(invalid)?;
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key).map_err(invalid)?;
    order.finalize_csr(request.der()).await.map_err(failure)?;
    let chain = order.poll_certificate(&POLLING).await.map_err(failure)?;
    let key = Zeroizing::new(key.serialize_pem());
    let pem = Zeroizing::new([key.as_bytes(), chain.as_bytes()].concat());
    let usable = usable(&pem, wanted.name);
    let usable = usable.map_err(|problem| {
        Failure::new(Kind::Authority, format_args!("it has sent a certificate that is no good: {problem}"))
    })?;
    Ok(Issued { pem, usable })
}

/// Shows that the name leads here, unless the authority knows that already.
async fn prove(order: &mut Order, exchange: &Exchange, places: &Places, wanted: &Wanted<'_>) -> Result<(), Failure> {
    let failure = |error| Failure::of(error, exchange.wait_unix());
    let mut shown: Vec<Shown> = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(failure)?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let ways = ways(wanted.challenges, wanted.failures);
        let offered = |way: &ChallengeType| authorization.challenges.iter().any(|challenge| challenge.r#type == *way);
        let Some(way) = ways.iter().find(|way| offered(way)).cloned() else {
            let (own, theirs): (Vec<_>, Vec<_>) =
                (ways, authorization.challenges.iter().map(|challenge| &challenge.r#type).collect());
            let said = format!("the authority asks in no way that is answered here: {theirs:?}, and not {own:?}");
            return Err(Failure::new(Kind::NothingToAsk, said));
        };
        let Some(mut challenge) = authorization.challenge(way.clone()) else { continue };
        let is_tls = way == ChallengeType::TlsAlpn01;
        shown.push(if is_tls { show(&challenge, places, wanted.name)? } else { answer(&challenge, places) });
        challenge.set_ready().await.map_err(failure)?;
    }
    if shown.is_empty() && order.state().status == OrderStatus::Ready {
        return Ok(());
    }
    let status = order.poll_ready(&POLLING).await;
    let (port, times) = shown.first().map_or((443, 0), Shown::asked);
    match status {
        Ok(OrderStatus::Ready) => Ok(()),
        Ok(_) | Err(Error::Api(_)) => Err(match why_not(order).await {
            Some(failure) => failure.asked_at(port, times),
            None => match status {
                Err(error) => failure(error),
                Ok(_) => Failure::new(Kind::Authority, "the order is invalid, and it does not say why"),
            },
        }),
        Err(error) => Err(failure(error).asked_at(port, times)),
    }
}

/// The ways to show it, the better first. One that has failed gives way to the other.
fn ways(challenges: Challenges, failures: u32) -> Vec<ChallengeType> {
    let tls = challenges.tls.map(|_| ChallengeType::TlsAlpn01);
    let http = challenges.http.map(|_| ChallengeType::Http01);
    let mut ways: Vec<_> = match challenges.tls {
        Some(AtPort::Other) => http.into_iter().chain(tls).collect(),
        _ => tls.into_iter().chain(http).collect(),
    };
    if failures % 2 == 1 {
        ways.reverse();
    }
    ways
}

/// A certificate with the key authorization's digest, for who asks by TLS (RFC 8737 section 3).
fn show(challenge: &ChallengeHandle<'_>, places: &Places, name: &str) -> Result<Shown, Failure> {
    let digest = challenge.key_authorization().digest();
    let certificate = validation_certificate(name, digest.as_ref());
    let certificate = certificate.map_err(|problem| {
        Failure::new(Kind::Authority, format_args!("the challenge cannot be answered: {problem}"))
    })?;
    Ok(Shown::Tls(places.validations.expect(name, certificate)))
}

fn validation_certificate(name: &str, digest: &[u8]) -> Result<CertifiedKey, String> {
    let text = |error: rcgen::Error| error.to_string();
    let key = KeyPair::generate().map_err(text)?;
    let mut params = CertificateParams::new([name.to_owned()]).map_err(text)?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let certificate = params.self_signed(&key).map_err(text)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let key = aws_lc_rs::default_provider().key_provider.load_private_key(key).map_err(|error| error.to_string())?;
    // Whether they belong together is not looked at: that takes a certificate without critical extensions that nobody knows.
    Ok(CertifiedKey::new(vec![certificate.der().clone()], key))
}

/// The key authorization, for who asks by HTTP.
fn answer(challenge: &ChallengeHandle<'_>, places: &Places) -> Shown {
    Shown::Http(places.answers.expect(&challenge.token, challenge.key_authorization().as_str()))
}

/// What the authority has found when it looked.
async fn why_not(order: &mut Order) -> Option<Failure> {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else { continue };
        if let Some(problem) = state.challenges.iter().find_map(|challenge| challenge.error.as_ref()) {
            return Some(Failure::of_problem(problem));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use x509_parser::prelude::{FromDer, X509Certificate};

    use super::*;

    #[test]
    fn two_ways_take_turns_and_the_one_at_its_port_goes_first() {
        let http = Some("0.0.0.0:80".parse().unwrap());
        let [tls_way, http_way] = [ChallengeType::TlsAlpn01, ChallengeType::Http01];
        let both = |tls| Challenges { tls: Some(tls), http };
        assert_eq!(ways(both(AtPort::Right), 0), [tls_way.clone(), http_way.clone()]);
        assert_eq!(ways(both(AtPort::Right), 1), [http_way.clone(), tls_way.clone()]);
        assert_eq!(ways(both(AtPort::Other), 2), [http_way.clone(), tls_way.clone()]);
        assert_eq!(ways(Challenges { tls: Some(AtPort::Other), http: None }, 1), [tls_way]);
        assert_eq!(ways(Challenges { tls: None, http }, 3), [http_way]);
        assert_eq!(ways(Challenges::default(), 0), []);
    }

    #[test]
    fn the_certificate_of_a_validation_has_the_digest_in_a_critical_extension() {
        let certificate = validation_certificate("turn.example.org", &[7; 32]).unwrap();
        let (_, parsed) = X509Certificate::from_der(certificate.cert.first().unwrap()).unwrap();
        let extension = parsed.extensions().iter().find(|of| of.oid.to_id_string() == "1.3.6.1.5.5.7.1.31").unwrap();
        assert!(extension.critical);
        // An OCTET STRING of 32 bytes (RFC 8737 section 3).
        assert_eq!(extension.value, [&[4, 32][..], &[7; 32]].concat());
        let names = parsed.subject_alternative_name().unwrap().unwrap();
        assert_eq!(names.value.general_names.len(), 1);
    }
}
