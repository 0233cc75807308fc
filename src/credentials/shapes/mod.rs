//! Requests and answers as other services have them, so that back ends which already call one of those go on with another URL.

mod cloudflare;
mod metered;
mod turn_rest;
mod twilio;

use hyper::Method;
use serde_json::json;

use super::issuer::Issuer;
use super::refused::Refused;
use super::request::Asked;
use crate::config::Shape;
use crate::http::Answer;

/// What a path asks for in the words of another service.
pub(super) enum Foreign<'p> {
    /// Of the key with this id: entries with several URLs, or the one entry of before.
    Cloudflare {
        id: &'p str,
        is_list: bool,
    },
    /// Of this account.
    Twilio {
        account: &'p str,
    },
    MeteredFetch,
    MeteredCreate,
    TurnRest,
    StunnerIce,
}

impl<'p> Foreign<'p> {
    /// What a path means in one of these shapes.
    pub(super) fn of(path: &'p str, shapes: &[Shape]) -> Option<Self> {
        let has = |shape| shapes.contains(&shape);
        let between = |before: &str, after: &str| {
            let inner = path.strip_prefix(before)?.strip_suffix(after)?;
            (!inner.is_empty() && !inner.contains('/')).then_some(inner)
        };
        const KEYS: &str = "/v1/turn/keys/";
        match path {
            "/" if has(Shape::TurnRest) || has(Shape::Stunner) => Some(Self::TurnRest),
            "/ice" if has(Shape::Stunner) => Some(Self::StunnerIce),
            "/api/v1/turn/credentials" if has(Shape::Metered) => Some(Self::MeteredFetch),
            "/api/v1/turn/credential" if has(Shape::Metered) => Some(Self::MeteredCreate),
            _ if has(Shape::Cloudflare) && path.starts_with(KEYS) => {
                let list = between(KEYS, "/credentials/generate-ice-servers").map(|id| (id, true));
                let (id, is_list) = list.or_else(|| Some((between(KEYS, "/credentials/generate")?, false)))?;
                Some(Self::Cloudflare { id, is_list })
            }
            _ if has(Shape::Twilio) => {
                between("/2010-04-01/Accounts/", "/Tokens.json").map(|account| Self::Twilio { account })
            }
            _ => None,
        }
    }

    pub(super) fn method(&self) -> Method {
        match self {
            Self::Cloudflare { .. } | Self::Twilio { .. } | Self::MeteredCreate => Method::POST,
            Self::MeteredFetch | Self::TurnRest | Self::StunnerIce => Method::GET,
        }
    }

    /// The credential in an answer.
    pub(super) fn issue(&self, issuer: &Issuer, asked: &Asked<'_>, origin: Option<&str>) -> Result<Answer, Refused> {
        match *self {
            Self::Cloudflare { id, is_list } => cloudflare::issue(issuer, asked, origin, id, is_list),
            Self::Twilio { account } => twilio::issue(issuer, asked, origin, account),
            Self::MeteredFetch => metered::fetch(issuer, asked, origin),
            Self::MeteredCreate => metered::create(issuer, asked, origin),
            Self::TurnRest => turn_rest::issue(issuer, asked, origin),
            Self::StunnerIce => turn_rest::ice(issuer, asked, origin),
        }
    }

    /// A refusal.
    pub(super) fn refuse(&self, refused: &Refused) -> Answer {
        match self {
            Self::Twilio { .. } => twilio::refuse(refused),
            Self::MeteredFetch | Self::MeteredCreate => {
                refused.answer_as(&json!({ "message": refused.message }), "Bearer")
            }
            Self::Cloudflare { .. } | Self::TurnRest | Self::StunnerIce => refused.answer(),
        }
    }
}
