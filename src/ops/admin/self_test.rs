//! What a browser needs to try the URLs of every realm.

use serde_json::{Value, json};

use super::super::orders::Order;
use super::super::self_test::TestServers;
use super::api::Api;
use super::error::Refused;

/// `POST /v1/self-test`
pub(super) async fn prepare(api: &Api) -> Result<Value, Refused> {
    let TestServers { user, servers, now_unix, expires_unix } = api.order(Order::SelfTest).await?;
    tracing::info!(user, expires_unix, "a credential for a self-test was made by the admin API");
    Ok(json!({ "user": user, "now_unix": now_unix, "expires_unix": expires_unix, "servers": servers }))
}
