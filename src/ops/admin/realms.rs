//! The realm in questions and answers. In a question each has its name; in an answer, that of `[auth]` is null.

use super::api::Api;
use super::error::Refused;
use super::input::Query;
use crate::user::RealmId;

/// The realm of users who are asked for: `None` is that of `[auth]`.
pub(super) struct Realm(pub(super) Option<String>);

impl Realm {
    /// What clients know it by.
    pub(super) fn id(&self) -> RealmId {
        self.0.as_deref().map(RealmId::of).unwrap_or_default()
    }
}

/// The realm that a question is about, if it is about one.
pub(super) fn asked(api: &Api, query: &Query) -> Result<Option<Realm>, Refused> {
    let (Some(name), Some(settings)) = (query.text("realm")?, api.status.settings()) else { return Ok(None) };
    if name == settings.credentials().realm() {
        return Ok(Some(Realm(None)));
    }
    match settings.realms().iter().any(|realm| realm.credentials().realm() == name) {
        true => Ok(Some(Realm(Some(name.to_owned())))),
        false => Err(Refused::bad_request(format!("realm {name:?}: there is none of this name; /v1/config has them"))),
    }
}
