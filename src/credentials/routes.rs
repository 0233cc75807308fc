//! From a request to its answer: what there is, who may ask, and what pages may read.

use hyper::header::{HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};

use super::issuer::Issuer;
use super::refused::Refused;
use super::reply::Reply;
use super::request::Asked;
use super::shapes::Foreign;
use super::stats::Outcome;
use super::{cors, own};
use crate::http::{Answer, JSON, response};

const POST: &[Method] = &[Method::POST];
const GET: &[Method] = &[Method::GET];
const OPENAPI: &str = include_str!("../../docs/credentials-api.openapi.json");

/// What comes of a request.
pub(super) fn reply(issuer: &Issuer, asked: &Asked<'_>) -> Reply {
    let routed = route(issuer, asked);
    // Nobody else has a secret key: whoever floods from beside it costs its holder nothing.
    let taken = if asked.has_secret_key.get() { Ok(()) } else { issuer.take(asked.address, asked.now_micros) };
    match taken.and(routed) {
        Ok(reply) => Reply { answer: dressed(issuer, asked.head, reply.answer), ..reply },
        Err(refused) => refusal(issuer, asked.head, &refused),
    }
}

/// A refusal in the words in which was asked.
pub(super) fn refusal(issuer: &Issuer, head: &Parts, refused: &Refused) -> Reply {
    let foreign = Foreign::of(head.uri.path(), issuer.shapes());
    let answer = foreign.map_or_else(|| refused.answer(), |foreign| foreign.refuse(refused));
    Reply { answer: dressed(issuer, head, answer), outcome: refused.outcome, revokes: None }
}

/// The headers that every answer has.
fn dressed(issuer: &Issuer, head: &Parts, mut answer: Answer) -> Answer {
    cors::vary(&mut answer);
    answer.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(origin) = cors::origin_of(&head.headers).filter(|origin| issuer.any_key_is_for(origin)) {
        // The page may read why it is refused, too.
        cors::expose_to(&mut answer, origin);
    }
    answer
}

fn route(issuer: &Issuer, asked: &Asked<'_>) -> Result<Reply, Refused> {
    let reply = |answer, outcome| Reply { answer, outcome, revokes: None };
    let origin = cors::origin_of(&asked.head.headers);
    let foreign = Foreign::of(asked.head.uri.path(), issuer.shapes());
    let (path, method) = (asked.head.uri.path(), &asked.head.method);
    let allowed = match (path, &foreign) {
        (_, Some(foreign)) => foreign.methods(),
        ("/v1/credentials", _) => POST,
        ("/v1/openapi.json", _) => GET,
        _ => return Err(Refused::not_found(format!("no path {path:?}; GET /v1/openapi.json lists them"))),
    };
    if method == Method::OPTIONS {
        let may_ask = origin.is_some_and(|origin| issuer.any_key_is_for(origin));
        let answer = cors::preflight(origin, may_ask, &listed(allowed))?;
        return Ok(reply(answer, Outcome::Informed));
    }
    if !allowed.contains(method) {
        return Err(Refused::method(method, &listed(allowed)));
    }
    if let Some(foreign) = foreign {
        return foreign.carry_out(issuer, asked, origin);
    }
    if method == Method::GET {
        return Ok(reply(response(StatusCode::OK, JSON, OPENAPI), Outcome::Informed));
    }
    let key = issuer.authenticate(asked.bearer()?, origin, asked)?;
    own::issue(issuer, key, asked).map(|answer| reply(answer, Outcome::Issued))
}

fn listed(methods: &[Method]) -> String {
    methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hyper::Request;
    use proptest::prelude::*;

    use super::super::api_keys::ApiKeyText;
    use super::super::issuer::Lasting;
    use super::*;
    use crate::addr::Transport;
    use crate::config::{Config, Host, Overrides, Source, Surroundings};

    const KEY: &str = "tsk_only-this-one";

    fn issuer() -> Issuer {
        let sha256 = ApiKeyText::existing(KEY.to_owned().into()).unwrap().sha256_text();
        let text = format!(
            "[relay]\nipv4 = \"203.0.113.5\"\nipv6 = \"off\"\n[credentials]\nlisten = \"unix:/c\"\nshapes = [\"cloudflare\", \"twilio\", \
             \"metered\", \"turn-rest\", \"stunner\"]\n[[credentials.keys]]\nid = \"a\"\nsha256 = \"{sha256}\"\norigins = \
             [\"https://a.example\"]\n[[auth.secrets]]\nsecret = \"0123456789abcdef\"\n"
        );
        let source = Source { name: "f.toml".to_owned(), text, mode: Some(0o100600), ..Source::default() };
        let host = Host { cores: 1, ipv4: None, ipv6: None, has_ipv6: false };
        let around = Surroundings { host, env: &|_| None, dev: false };
        let config = Config::parse(&source, &Overrides::default(), &around).unwrap().config;
        let api = config.credentials.as_ref().unwrap();
        let listeners = [(Transport::Udp, "203.0.113.5:3478".parse().unwrap())];
        Issuer::new(api, &config, &listeners, &Lasting::new(Arc::default()))
    }

    fn targets() -> impl Strategy<Value = String> {
        let paths = prop::sample::select(vec![
            "/",
            "/ice",
            "/v1/credentials",
            "/v1/openapi.json",
            "/v1/turn/keys/a/credentials/generate",
            "/v1/turn/keys/a/credentials/generate-ice-servers",
            "/v1/turn/keys/a/credentials/1700000000:a/revoke",
            "/v1/turn/keys/%41/credentials/%zz%ff/revoke",
            "/2010-04-01/Accounts/a/Tokens.json",
            "/api/v1/turn/credentials",
            "/api/v1/turn/credential",
            "/api/v1/turn/credential/disable",
            "/api/v2/turn/credential/by_label",
            "/api/v2/turn/project/a/credential",
            "/api/v2/turn/project/a/credential/by_label",
        ]);
        let queries = prop::sample::select(vec![
            "",
            "?service=turn&key=tsk_no",
            "?service=turn&username=%00%ff",
            "?apiKey=tsf_YQ.YQ.YQ",
            "?apiKey=tsf_.%.=",
            "?secretKey=",
            "?secretKey=a&secretKey=b",
            "?projectApiKey=a&label=b",
            "?key=%&ttl=99999999999999999999",
        ]);
        (paths, "[a-z0-9/.%:-]{0,6}", queries).prop_map(|(path, more, query)| format!("{path}{more}{query}"))
    }

    proptest! {
        #[test]
        fn no_request_without_the_key_gets_or_revokes_anything(
            target in targets(),
            method in prop::sample::select(vec!["GET", "POST", "OPTIONS", "PUT", "HEAD", "DELETE"]),
            authorization in "(Bearer |Basic |Bearer|)[ -~]{0,24}",
            origin in prop::sample::select(vec!["https://a.example", "https://b.example", "null", "\u{e9}", ""]),
            media_type in prop::sample::select(vec!["application/json", "application/x-www-form-urlencoded", "", ";"]),
            body in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let Ok(request) = Request::builder()
                .method(method)
                .uri(&target)
                .header("authorization", authorization)
                .header("origin", origin)
                .header("content-type", media_type)
                .body(())
            else {
                return Ok(());
            };
            let (head, ()) = request.into_parts();
            let asked = Asked { head: &head, body: &body, address: None, now_micros: 1, now_unix: 1_700_000_000, has_secret_key: false.into() };
            let Reply { answer, outcome, revokes } = reply(&issuer(), &asked);
            prop_assert!(!matches!(outcome, Outcome::Issued | Outcome::Revoked) && revokes.is_none(), "{target}");
            let status = answer.status();
            prop_assert!(status.is_client_error() || outcome == Outcome::Informed, "{status} {target}");
            let exposed = answer.headers().get("access-control-allow-origin");
            prop_assert!(exposed.is_none_or(|exposed| exposed == "https://a.example"), "{exposed:?}");
        }
    }

    #[test]
    fn the_same_with_the_key_gets_it() {
        let request = Request::post("/v1/credentials").header("authorization", format!("Bearer {KEY}"));
        let (head, ()) = request.header("content-type", "application/json").body(()).unwrap().into_parts();
        let body = br#"{"user":"a"}"#;
        let asked = Asked {
            head: &head,
            body,
            address: None,
            now_micros: 1,
            now_unix: 1_700_000_000,
            has_secret_key: false.into(),
        };
        assert_eq!(reply(&issuer(), &asked).outcome, Outcome::Issued);
    }
}
