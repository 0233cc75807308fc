//! Third-party authorization (RFC 7635): access tokens in conversations.

use turnstone::auth::{AccessTokens, IssuedBefore, Revocation, Revoked, SessionKey, TokenAlgorithm, TokenKey};
use turnstone::reject::Reason;
use turnstone::stun::{AttributeType, Encoder, Key, Method};
use turnstone::turn::{Client, Event, OnExpiry};
use turnstone::user::UserKind;

use crate::harness::*;

const SERVER: &str = "turn.example.org";
const OLD: &[u8; 32] = b"the first key of the long-term 1";
const NEW: &[u8; 32] = b"the second key of the long-term2";

fn key(id: &str, bytes: &[u8]) -> TokenKey {
    TokenKey::new(id, TokenAlgorithm::A256Gcm, bytes).unwrap()
}

fn tokens() -> AccessTokens {
    AccessTokens { server_name: SERVER.to_owned(), keys: vec![key("old", OLD), key("new", NEW)] }
}

fn world() -> World {
    World::with(|options| options.tokens = tokens())
}

/// A client with a token, and what it says in its requests.
struct Holder {
    login: Login,
    token: Vec<u8>,
}

impl World {
    /// A client that has asked its authorization server for a token of this key.
    fn holder(&mut self, client: Client, key_id: &str, secret: u8, lifetime_secs: u32) -> Holder {
        let (realm, nonce) = self.challenge(client);
        let session = [secret; 20];
        let of = tokens();
        let key = of.keys.iter().find(|key| key.id() == key_id).unwrap();
        let made = SessionKey { key: &session, made_unix: self.now.unix_secs, lifetime_secs };
        let token = key.seal(SERVER, [secret; 12], &made).unwrap();
        let (key, sha256_key) = (Key::short_term(&session), Key::short_term(&session));
        let algorithm = turnstone::stun::PasswordAlgorithm::Md5;
        let login = Login { client, username: key_id.to_owned(), realm, nonce, key, sha256_key, algorithm };
        Holder { login, token }
    }

    fn with_token(&mut self, holder: &Holder, method: Method, build: impl FnOnce(&mut Encoder<'_>)) -> Reply {
        self.request(&holder.login, method, |request| {
            request.attribute(AttributeType::ACCESS_TOKEN, &holder.token);
            build(request);
        })
    }

    fn allocate_by(&mut self, holder: &Holder) -> Reply {
        self.with_token(holder, Method::ALLOCATE, |request| {
            request.attribute(AttributeType::REQUESTED_TRANSPORT, &UDP).u32(AttributeType::LIFETIME, 3600);
        })
    }

    fn last_refusal(&mut self) -> Option<Reason> {
        refusals(&self.events()).pop()
    }
}

#[test]
fn the_challenge_names_the_server_to_the_authorization_server_where_tokens_are_taken() {
    let mut world = world();
    let request = world.bare(Method::ALLOCATE, |_| {});
    let reply = world.hand_in(client(1), &request).reply();
    assert_eq!(reply.get(AttributeType::THIRD_PARTY_AUTHORIZATION).unwrap(), SERVER.as_bytes());
    let mut world = World::new();
    let request = world.bare(Method::ALLOCATE, |_| {});
    assert_eq!(world.hand_in(client(1), &request).reply().get(AttributeType::THIRD_PARTY_AUTHORIZATION), None);
}

#[test]
fn a_key_s_id_without_a_token_is_told_from_an_unknown_user() {
    let mut world = world();
    let mut holder = world.holder(client(1), "old", 1, 900);
    let reply = world.request(&holder.login, Method::ALLOCATE, |request| {
        request.attribute(AttributeType::REQUESTED_TRANSPORT, &UDP);
    });
    assert_eq!((reply.code(), world.last_refusal()), (Some(401), Some(Reason::TokenMissing)));
    holder.token.truncate(20);
    assert_eq!((world.allocate_by(&holder).code(), world.last_refusal()), (Some(401), Some(Reason::TokenMalformed)));
    holder.login.username = "nobody".to_owned();
    let reply = world.request(&holder.login, Method::ALLOCATE, |request| {
        request.attribute(AttributeType::REQUESTED_TRANSPORT, &UDP);
    });
    assert_eq!((reply.code(), world.last_refusal()), (Some(401), Some(Reason::UnknownUser)));
}

#[test]
fn a_token_allocates_for_no_longer_than_it_is_good_and_its_key_signs_what_follows() {
    for policy in [OnExpiry::Keep, OnExpiry::NoRefresh, OnExpiry::Cut] {
        let mut world = world();
        world.reload(|options| options.on_expiry = policy);
        let holder = world.holder(client(1), "old", 1, 900);
        let reply = world.allocate_by(&holder);
        assert_eq!((reply.code(), reply.lifetime_secs()), (None, 900));
        assert_eq!(world.permit(&holder.login, &[peer(1)]).code(), None);
        assert_eq!(world.bind(&holder.login, 0x4000, peer(1)).code(), None);
        world.pass(600);
        assert_eq!(world.refresh(&holder.login, Some(3600)).lifetime_secs(), 300);
        world.pass(301);
        assert_eq!(world.allocations(), 0, "{policy:?}");
        world.check_books();
    }
}

#[test]
fn with_a_new_token_of_a_new_key_a_client_goes_on() {
    let mut world = world();
    let first = world.holder(client(1), "old", 1, 700);
    assert_eq!(world.allocate_by(&first).code(), None);
    world.pass(500);
    let second = world.holder(client(1), "new", 2, 3000);
    // Nobody knows the second key before its token has come.
    assert_eq!(world.permit(&second.login, &[peer(1)]).code(), Some(401));
    let reply = world.with_token(&second, Method::REFRESH, |request| {
        request.u32(AttributeType::LIFETIME, 3600);
    });
    assert_eq!((reply.code(), reply.lifetime_secs()), (None, 3000));
    assert_eq!(world.permit(&second.login, &[peer(1)]).code(), None);
    assert_eq!(world.permit(&first.login, &[peer(1)]).code(), Some(401));
    world.pass(2000);
    assert_eq!(world.allocations(), 1);
    let ended = world.refresh(&second.login, Some(0));
    assert_eq!(ended.code(), None);
    let user = world.events().into_iter().find_map(|event| match event {
        Event::Ended(summary) => Some(summary.user),
        _ => None,
    });
    let user = user.unwrap();
    assert!(
        user.kind() == UserKind::Token && user.name().starts_with("old/"),
        "quotas count on who has made it: {user:?}"
    );
    world.check_books();
}

#[test]
fn an_expired_token_refreshes_nothing_though_its_key_is_known() {
    let mut world = world();
    let holder = world.holder(client(1), "old", 1, 650);
    world.reload(|options| options.lifetimes.allocation_default_secs = 600);
    assert_eq!(world.allocate_by(&holder).code(), None);
    world.pass_unattended(649);
    assert_eq!(world.refresh(&holder.login, None).lifetime_secs(), 1);
    world.pass_unattended(1);
    let fresh = world.holder(client(1), "old", 1, 650);
    let stale = Holder { login: Login { nonce: fresh.login.nonce, ..holder.login }, token: holder.token };
    let code = world.with_token(&stale, Method::ALLOCATE, |request| {
        request.attribute(AttributeType::REQUESTED_TRANSPORT, &UDP);
    });
    world.pass_unattended(10);
    let again = world.with_token(&stale, Method::ALLOCATE, |request| {
        request.attribute(AttributeType::REQUESTED_TRANSPORT, &UDP);
    });
    // Within the five seconds of Delta it is good for a moment more.
    assert!(code.code().is_none() && code.lifetime_secs() <= 5, "{:?}", code.code());
    assert_eq!((again.code(), world.last_refusal()), (Some(401), Some(Reason::TokenExpired)));
}

#[test]
fn tokens_and_names_do_not_mix() {
    let mut world = World::with(|options| {
        options.tokens = AccessTokens { server_name: SERVER.to_owned(), keys: vec![key("alice", OLD)] };
    });
    let alice = world.alice(client(1));
    world.allocate(&alice);
    let session = [3; 20];
    let made = SessionKey { key: &session, made_unix: world.now.unix_secs, lifetime_secs: 600 };
    let token = key("alice", OLD).seal(SERVER, [1; 12], &made).unwrap();
    let same_name = Holder { login: Login { key: Key::short_term(&session), ..alice.clone() }, token };
    let reply = world.with_token(&same_name, Method::REFRESH, |_| {});
    assert_eq!(reply.code(), Some(441), "the key's id is nobody's name");
    assert_eq!(world.refresh(&alice, None).code(), None);
    let reply = world.with_token(
        &Holder { login: Login { client: client(2), ..same_name.login }, token: same_name.token },
        Method::REFRESH,
        |_| {},
    );
    assert_eq!(reply.code(), Some(438), "before the token, the nonce");
}

#[test]
fn each_token_has_a_quota_of_its_own() {
    let mut world = world();
    world.reload(|options| options.quota.per_user = Some(1));
    for (n, secret, expected) in [(1, 1, None), (2, 1, Some(486)), (3, 2, None)] {
        let holder = world.holder(client(n), "old", secret, 600);
        assert_eq!(world.allocate_by(&holder).code(), expected);
    }
}

#[test]
fn without_keys_a_token_is_an_unknown_attribute_once_the_nonce_is_fresh() {
    let mut world = World::new();
    let holder = world.holder(client(1), "old", 1, 600);
    let reply = world.request_unsigned(&holder);
    assert_eq!(reply.code(), Some(420));
    assert_eq!(reply.get(AttributeType::UNKNOWN_ATTRIBUTES).unwrap(), [0, 0x1B]);
    let stale = Holder { login: Login { nonce: b"made up".to_vec(), ..holder.login }, token: holder.token };
    assert_eq!(world.request_unsigned(&stale).code(), Some(438));
}

impl World {
    fn request_unsigned(&mut self, holder: &Holder) -> Reply {
        let id = self.transaction_id();
        let request = holder.login.request(id, Method::ALLOCATE, |request| {
            request.attribute(AttributeType::ACCESS_TOKEN, &holder.token);
        });
        self.hand_in(holder.login.client, &request).reply()
    }
}

#[test]
fn an_allocation_by_a_token_moves_with_its_key() {
    let mut world = world();
    world.split();
    let holder = world.holder(client(1), "old", 1, 900);
    assert_eq!(world.allocate_by(&holder).code(), None);
    let id = world.list(&Default::default(), None, 10)[0].id;
    world.move_over(id, client(1));
    assert_eq!(world.permit(&holder.login, &[peer(1)]).code(), None);
    world.check_books();
}

#[test]
fn a_token_is_revoked_by_its_key_and_by_when_it_was_made() {
    let mut world = world();
    let first = world.holder(client(1), "old", 1, 3000);
    assert_eq!(world.allocate_by(&first).code(), None);
    world.pass(100);
    let second = world.holder(client(2), "old", 2, 900);
    assert_eq!(world.allocate_by(&second).code(), None);
    let of_new = world.holder(client(3), "new", 3, 3000);
    assert_eq!(world.allocate_by(&of_new).code(), None);
    let revocation = |whose: &str, issued_before| Revocation {
        realm: None,
        whose: Revoked::Key(whose.into()),
        issued_before,
        until_unix: u64::MAX,
    };
    let before = IssuedBefore { unix: world.now.unix_secs, lifetime_secs: 3600 };
    assert_eq!(world.revoke(revocation("old", Some(before))), [client(1)]);
    assert_eq!(world.allocate_by(&first).code(), Some(401));
    assert_eq!(world.last_refusal(), Some(Reason::Revoked));
    assert_eq!(world.refresh(&second.login, None).code(), None);
    assert_eq!(world.revoke(revocation("new", None)), [client(3)]);
    assert_eq!(world.allocate_by(&of_new).code(), Some(401));
}

#[test]
fn a_reload_without_the_key_takes_no_new_tokens_and_leaves_those_who_are_there() {
    let mut world = world();
    let holder = world.holder(client(1), "old", 1, 900);
    assert_eq!(world.allocate_by(&holder).code(), None);
    world.reload(|options| options.tokens.keys.retain(|key| key.id() == "new"));
    assert_eq!(world.refresh(&holder.login, None).code(), None);
    let late = world.holder(client(2), "old", 2, 900);
    assert_eq!((world.allocate_by(&late).code(), world.last_refusal()), (Some(401), Some(Reason::UnknownTokenKey)));
}
