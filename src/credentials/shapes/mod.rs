//! Requests and answers as other services have them, so that back ends which already call one of those go on with another URL.

mod cloudflare;
mod metered;
mod turn_rest;
mod twilio;

use hyper::Method;
use serde_json::json;

use super::issuer::Issuer;
use super::refused::Refused;
use super::reply::Reply;
use super::request::Asked;
use super::stats::Outcome;
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
    /// Of the key with this id; the username as it stands in the path.
    CloudflareRevoke {
        id: &'p str,
        username: &'p str,
    },
    MeteredFetch,
    MeteredCreate,
    MeteredDisable,
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
            "/api/v1/turn/credential/disable" if has(Shape::Metered) => Some(Self::MeteredDisable),
            _ if has(Shape::Cloudflare) && path.starts_with(KEYS) => {
                let list = between(KEYS, "/credentials/generate-ice-servers").map(|id| (id, true));
                let made = list.or_else(|| Some((between(KEYS, "/credentials/generate")?, false)));
                if let Some((id, is_list)) = made {
                    return Some(Self::Cloudflare { id, is_list });
                }
                let inner = path.strip_prefix(KEYS)?.strip_suffix("/revoke")?;
                let (id, username) = inner.split_once("/credentials/")?;
                let is_fit = ![id, username].iter().any(|part| part.is_empty() || part.contains('/'));
                is_fit.then_some(Self::CloudflareRevoke { id, username })
            }
            _ if has(Shape::Twilio) => {
                between("/2010-04-01/Accounts/", "/Tokens.json").map(|account| Self::Twilio { account })
            }
            _ => None,
        }
    }

    pub(super) fn method(&self) -> Method {
        match self {
            Self::Cloudflare { .. }
            | Self::CloudflareRevoke { .. }
            | Self::Twilio { .. }
            | Self::MeteredCreate
            | Self::MeteredDisable => Method::POST,
            Self::MeteredFetch | Self::TurnRest | Self::StunnerIce => Method::GET,
        }
    }

    /// What comes of a request.
    pub(super) fn carry_out(&self, issuer: &Issuer, asked: &Asked<'_>, origin: Option<&str>) -> Result<Reply, Refused> {
        let issued = match *self {
            Self::CloudflareRevoke { id, username } => {
                return cloudflare::revoke(issuer, asked, origin, id, username);
            }
            Self::MeteredDisable => return metered::disable(issuer, asked, origin),
            Self::Cloudflare { id, is_list } => cloudflare::issue(issuer, asked, origin, id, is_list),
            Self::Twilio { account } => twilio::issue(issuer, asked, origin, account),
            Self::MeteredFetch => metered::fetch(issuer, asked, origin),
            Self::MeteredCreate => metered::create(issuer, asked, origin),
            Self::TurnRest => turn_rest::issue(issuer, asked, origin),
            Self::StunnerIce => turn_rest::ice(issuer, asked, origin),
        };
        issued.map(|answer| Reply { answer, outcome: Outcome::Issued, revokes: None })
    }

    /// A refusal.
    pub(super) fn refuse(&self, refused: &Refused) -> Answer {
        match self {
            Self::Twilio { .. } => twilio::refuse(refused),
            Self::MeteredFetch | Self::MeteredCreate | Self::MeteredDisable => {
                refused.answer_as(&json!({ "message": refused.message }), "Bearer")
            }
            Self::Cloudflare { .. } | Self::CloudflareRevoke { .. } | Self::TurnRest | Self::StunnerIce => {
                refused.answer()
            }
        }
    }
}
