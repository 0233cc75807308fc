//! Figures over the last minutes.

use serde_json::Value;

use super::api::Api;
use super::error::Refused;
use super::input::Query;

pub(super) const KEYS: &[&str] = &["after"];

/// `GET /v1/history`: the oldest first.
pub(super) fn list(api: &Api, query: &Query) -> Result<Value, Refused> {
    let after = query.parsed("after", "the number of a sample")?.unwrap_or(0);
    let history = api.history.as_ref();
    let history =
        history.ok_or_else(|| Refused::not_found("no figures are kept; page = true in [admin] has them kept"))?;
    Ok(history.after(after))
}
