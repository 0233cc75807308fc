//! Requests and answers as other services have them, so that back ends which already call one of those go on with another URL.

mod cloudflare;
mod metered;
mod turn_rest;
mod twilio;

use hyper::{Method, StatusCode};
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
    /// Makes or revokes a credential; in a project, that is with the key of this id, if there is one.
    MeteredCredential {
        project: Option<&'p str>,
    },
    MeteredDisable,
    /// Revokes all of a user.
    MeteredLabel {
        project: Option<&'p str>,
    },
    TurnRest {
        of_stunner: bool,
    },
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
        const PROJECTS: &str = "/api/v2/turn/project/";
        match path {
            "/" if has(Shape::TurnRest) || has(Shape::Stunner) => {
                Some(Self::TurnRest { of_stunner: has(Shape::Stunner) })
            }
            "/ice" if has(Shape::Stunner) => Some(Self::StunnerIce),
            "/api/v1/turn/credentials" if has(Shape::Metered) => Some(Self::MeteredFetch),
            "/api/v1/turn/credential" if has(Shape::Metered) => Some(Self::MeteredCredential { project: None }),
            "/api/v1/turn/credential/disable" if has(Shape::Metered) => Some(Self::MeteredDisable),
            "/api/v2/turn/credential/by_label" if has(Shape::Metered) => Some(Self::MeteredLabel { project: None }),
            _ if has(Shape::Metered) && path.starts_with(PROJECTS) => {
                let credential = between(PROJECTS, "/credential").map(Some);
                let label = || between(PROJECTS, "/credential/by_label").map(Some);
                credential
                    .map(|project| Self::MeteredCredential { project })
                    .or_else(|| label().map(|project| Self::MeteredLabel { project }))
            }
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

    pub(super) fn methods(&self) -> &'static [Method] {
        const POST: &[Method] = &[Method::POST];
        const GET: &[Method] = &[Method::GET];
        const DELETE: &[Method] = &[Method::DELETE];
        const POST_AND_DELETE: &[Method] = &[Method::POST, Method::DELETE];
        // Of the two, Janus prefers the latter; its query is in the path all the same.
        const GET_AND_POST: &[Method] = &[Method::GET, Method::POST];
        match self {
            Self::Cloudflare { .. } | Self::CloudflareRevoke { .. } | Self::Twilio { .. } | Self::MeteredDisable => {
                POST
            }
            Self::MeteredCredential { .. } => POST_AND_DELETE,
            Self::MeteredLabel { .. } => DELETE,
            Self::TurnRest { .. } => GET_AND_POST,
            Self::MeteredFetch | Self::StunnerIce => GET,
        }
    }

    /// What comes of a request.
    pub(super) fn carry_out(&self, issuer: &Issuer, asked: &Asked<'_>, origin: Option<&str>) -> Result<Reply, Refused> {
        let issued = match *self {
            Self::CloudflareRevoke { id, username } => {
                return cloudflare::revoke(issuer, asked, origin, id, username);
            }
            Self::MeteredDisable => {
                let answer = json!({ "message": "Turn credential disabled successfully" });
                return metered::revoke(issuer, asked, origin, None, &answer);
            }
            Self::MeteredLabel { project } => return metered::revoke_label(issuer, asked, origin, project),
            Self::MeteredCredential { project } if asked.head.method == Method::DELETE => {
                let answer = json!({ "success": true, "message": "credential removed" });
                return metered::revoke(issuer, asked, origin, project, &answer);
            }
            Self::Cloudflare { id, is_list } => cloudflare::issue(issuer, asked, origin, id, is_list),
            Self::Twilio { account } => twilio::issue(issuer, asked, origin, account),
            Self::MeteredFetch => metered::fetch(issuer, asked, origin),
            Self::MeteredCredential { project } => metered::create(issuer, asked, origin, project),
            Self::TurnRest { of_stunner } => turn_rest::issue(issuer, asked, origin, of_stunner),
            Self::StunnerIce => turn_rest::ice(issuer, asked, origin),
        };
        issued.map(|answer| Reply { answer, outcome: Outcome::Issued, revokes: None })
    }

    /// A refusal.
    pub(super) fn refuse(&self, refused: &Refused) -> Answer {
        match self {
            Self::Twilio { .. } => twilio::refuse(refused),
            Self::MeteredFetch => refused.answer_as(&json!({ "error": refused.message }), "Bearer"),
            Self::MeteredCredential { .. } | Self::MeteredDisable | Self::MeteredLabel { .. } => {
                let status = match refused.status {
                    // A wrong secretKey is a wrong field there.
                    StatusCode::UNAUTHORIZED => StatusCode::BAD_REQUEST,
                    status => status,
                };
                refused.answer_with(status, &json!({ "message": refused.message }))
            }
            Self::TurnRest { of_stunner: true } => refused.plain_answer("could not generate TURN auth token"),
            Self::StunnerIce => refused.plain_answer("could not generate ICE auth token"),
            // Nobody has written down what Cloudflare's look like, nor does the draft say.
            Self::Cloudflare { .. } | Self::CloudflareRevoke { .. } | Self::TurnRest { of_stunner: false } => {
                refused.answer()
            }
        }
    }
}
