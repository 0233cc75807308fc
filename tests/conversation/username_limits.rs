//! Limits in time-limited usernames: they tighten what the configuration grants, and never widen it.

use proptest::prelude::*;
use turnstone::auth::UsernameLimits;
use turnstone::policy::{BandwidthLimits, PeerRules, QuotaLimits};
use turnstone::reject::{Dropped, Reason};
use turnstone::stun::{AttributeType, Method};
use turnstone::turn::Event;
use turnstone::user::User;

use crate::harness::*;

fn world(change: impl FnOnce(&mut Options)) -> World {
    World::with(|options| {
        options.username_limits = true;
        change(options);
    })
}

fn try_allocate(world: &mut World, login: &Login) -> Option<u16> {
    world
        .request(login, Method::ALLOCATE, |request| {
            request.attribute(AttributeType::REQUESTED_TRANSPORT, &UDP);
        })
        .code()
}

fn sfu(allowed: &str) -> PeerRules {
    let allowed = vec![allowed.to_owned()];
    PeerRules { default_deny_all: true, deny_relays: true, allowed, ..PeerRules::default() }
}

#[test]
fn limits_are_no_part_of_the_user_and_clients_carry_them_unchanged() {
    let mut world = world(|_| {});
    let login = world.guest(client(1), "carol;bw=2M;alloc=4", 3600);
    world.allocate(&login);
    let events = world.events();
    let Some(Event::Allocated { user, username, .. }) = events.first() else { panic!("{events:?}") };
    assert_eq!((user, &**username), (&User::time_limited("carol"), &*login.username));
    assert_eq!(UsernameLimits::text_of(username, user.name()), Some("bw=2M;alloc=4"));
    assert_eq!(world.refresh(&login, Some(600)).code(), None);
    assert_eq!(world.permit(&login, &[peer(1)]).code(), None);
    assert_eq!(world.bind(&login, 0x4000, peer(1)).code(), None);
    assert_eq!(world.refresh(&login, Some(0)).code(), None);
    world.check_books();
}

#[test]
fn where_they_are_not_read_what_follows_is_the_name_as_before() {
    let mut world = World::new();
    let login = world.guest(client(1), "weird;user", 3600);
    world.allocate(&login);
    let events = world.events();
    let Some(Event::Allocated { user, username, .. }) = events.first() else { panic!("{events:?}") };
    assert_eq!(user, &User::time_limited("weird;user"));
    assert_eq!(UsernameLimits::text_of(username, user.name()), None);
}

#[test]
fn what_cannot_be_read_is_401_with_a_reason_of_its_own_and_only_if_the_secret_has_signed_it() {
    let mut world = world(|_| {});
    for limits in ["pps=5", "bw=fast", "alloc=1;alloc=2", "", "peers=a b"] {
        let login = world.guest(client(1), &format!("carol;{limits}"), 3600);
        assert_eq!(try_allocate(&mut world, &login), Some(401), "{limits}");
        assert_eq!(refusals(&world.events()), [Reason::UsernameLimits], "{limits}");
    }
    // Appended or taken away by somebody who does not have the secret.
    let mut login = world.guest(client(1), "carol;alloc=1", 3600);
    login.username = login.username.replace(";alloc=1", "");
    assert_eq!(try_allocate(&mut world, &login), Some(401));
    login.username += ";alloc=9";
    assert_eq!(try_allocate(&mut world, &login), Some(401));
    assert_eq!(refusals(&world.events()), [Reason::WrongPassword, Reason::WrongPassword]);
}

#[test]
fn the_count_of_allocations_is_the_user_s_and_the_stricter_of_its_credential_applies() {
    let mut world = world(|options| options.quota = QuotaLimits { per_user: Some(3), ..QuotaLimits::default() });
    let strict = |world: &mut World, n| world.guest(client(n), "carol;alloc=2", 3600);
    let [first, second] = [strict(&mut world, 1), strict(&mut world, 2)];
    world.allocate(&first);
    let free = world.guest(client(3), "carol", 3600);
    world.allocate(&free);
    assert_eq!(try_allocate(&mut world, &second), Some(486));
    let wide = world.guest(client(4), "carol;alloc=100", 3600);
    world.allocate(&wide);
    let another = world.guest(client(5), "carol;alloc=100", 3600);
    assert_eq!(try_allocate(&mut world, &another), Some(486), "no more than the configuration grants");
    let dave = world.guest(client(6), "dave;alloc=1", 3600);
    world.allocate(&dave);
    assert_eq!(refusals(&world.events()), [Reason::UserQuota, Reason::UserQuota]);
}

#[test]
fn bandwidth_is_the_user_s_over_all_allocations_of_such_credentials() {
    let mut world = world(|_| {});
    // 800 kbit/s are 100,000 bytes a second.
    let logins = [1, 2].map(|n| world.guest(client(n), "carol;bw=800K", 3600));
    for login in &logins {
        world.allocate(login);
        assert_eq!(world.bind(login, 0x4000, peer(1)).code(), None);
    }
    let other = world.guest(client(3), "dave", 3600);
    world.allocate(&other);
    assert_eq!(world.bind(&other, 0x4000, peer(1)).code(), None);
    let mut passed = 0;
    for n in 0..1000 {
        let login = &logins[n % 2];
        match world.channel_data(login.client, 0x4000, &[0; 972]) {
            Ok(_) => passed += 1000,
            Err(dropped) => assert_eq!(dropped, Dropped::Bandwidth),
        }
        assert!(world.channel_data(other.client, 0x4000, &[0; 972]).is_ok());
        world.pass_millis(2);
    }
    // Two seconds, and the burst of one.
    assert!((290_000..=310_000).contains(&passed), "{passed}");
    // A reload without caps does not lift it.
    world.reload(|options| {
        options.bandwidth = BandwidthLimits { per_user: Some(1_000_000), ..BandwidthLimits::default() }
    });
    assert!((0..500).filter(|_| world.channel_data(logins[0].client, 0x4000, &[0; 972]).is_ok()).count() < 110);
}

#[test]
fn a_named_policy_must_allow_a_peer_as_well_by_every_method_and_the_refusal_names_it() {
    let mut world = world(|options| {
        options.rules.denied = vec!["8.8.8.9".to_owned()];
        options.policies = vec![("sfu", sfu("8.8.8.8-8.8.8.9"))];
    });
    let login = world.guest(client(1), "carol;peers=sfu", 3600);
    world.allocate(&login);
    world.events();
    assert_eq!(world.permit(&login, &[peer(8)]).code(), None);
    assert_eq!(world.permit(&login, &[peer(9)]).code(), Some(403), "the default policy still denies");
    assert_eq!(world.permit(&login, &[peer(1)]).code(), Some(403));
    assert_eq!(world.bind(&login, 0x4000, peer(1)).code(), Some(403));
    let policies: Vec<_> = world
        .events()
        .into_iter()
        .filter_map(|event| if let Event::Refused(refusal) = event { Some(refusal.policy) } else { None })
        .collect();
    let by_name = Some("sfu".parse().unwrap());
    assert_eq!(policies, [None, by_name, by_name]);
    // Relayed addresses of the server are no peers of it either.
    let own = peer_at(format!("{RELAY_V4}:50000").parse().unwrap());
    assert_eq!(world.permit(&login, &[own]).code(), Some(403));
    let free = world.guest(client(2), "carol", 3600);
    world.allocate(&free);
    assert_eq!(world.permit(&free, &[peer(1), own]).code(), None);
}

#[test]
fn a_policy_that_is_not_there_gets_no_allocation_and_one_that_goes_at_a_reload_leaves_no_peer() {
    let mut world = world(|options| options.policies = vec![("sfu", sfu("8.8.8.8"))]);
    let unknown = world.guest(client(1), "carol;peers=gone", 3600);
    assert_eq!(try_allocate(&mut world, &unknown), Some(403));
    assert_eq!(refusals(&world.events()), [Reason::UnknownPeerPolicy]);
    let login = world.guest(client(2), "carol;peers=sfu", 3600);
    world.allocate(&login);
    assert_eq!(world.bind(&login, 0x4000, peer(8)).code(), None);
    // Other places of the same names: the allocation keeps its own.
    world.reload(|options| options.policies.insert(0, ("other", sfu("8.8.8.1"))));
    assert!(world.channel_data(login.client, 0x4000, b"x").is_ok());
    assert_eq!(world.permit(&login, &[peer(1)]).code(), Some(403));
    world.reload(|options| options.policies.clear());
    assert_eq!(world.channel_data(login.client, 0x4000, b"x").unwrap_err(), Dropped::NoChannel);
    assert_eq!(world.permit(&login, &[peer(8)]).code(), Some(403));
}

#[test]
fn a_moved_allocation_keeps_its_limits() {
    let mut world = world(|options| options.policies = vec![("sfu", sfu("8.8.8.8"))]);
    world.split();
    let login = world.guest(client(1), "carol;peers=sfu;bw=800K", 3600);
    world.allocate(&login);
    assert_eq!(world.bind(&login, 0x4000, peer(8)).code(), None);
    let id = world.list(&Default::default(), None, 9)[0].id;
    for as_parts in [false, true] {
        match as_parts {
            false => world.move_over(id, login.client),
            true => world.move_as_parts(id, login.client),
        }
        assert_eq!(world.permit(&login, &[peer(1)]).code(), Some(403));
        assert_eq!(world.permit(&login, &[peer(8)]).code(), None);
        let passed = (0..500).filter(|_| world.channel_data(login.client, 0x4000, &[0; 972]).is_ok()).count();
        assert!(passed < 110, "{passed}");
        world.pass(5);
    }
}

proptest! {
    /// Whatever a username asks for, whoever has it can do no more than without.
    #[test]
    fn no_username_widens_what_the_configuration_grants(
        items in "(;(bw|alloc|peers|x)=?[0-9a-z]{0,12}[KMG]?){0,4}",
        per_user in 0..4_u32,
        peers in prop::collection::vec(0..20_u8, 1..6),
    ) {
        let options = |options: &mut Options| {
            options.quota = QuotaLimits { per_user: Some(per_user), ..QuotaLimits::default() };
            options.rules.denied = vec!["8.8.8.0/29".to_owned()];
            options.policies = vec![("a", sfu("8.8.8.0-8.8.8.9")), ("b", PeerRules::default())];
        };
        let (mut with, mut without) = (world(options), world(options));
        for n in 0..4 {
            let login = with.guest(client(n), &format!("carol{items}"), 3600);
            let plain = without.guest(client(n), "carol", 3600);
            let (made, granted) = (try_allocate(&mut with, &login), try_allocate(&mut without, &plain));
            prop_assert!(made.is_some() || granted.is_none(), "{items}: {made:?} {granted:?}");
            for at in &peers {
                let (one, other) = (with.permit(&login, &[peer(*at)]), without.permit(&plain, &[peer(*at)]));
                prop_assert!(one.code().is_some() || other.code().is_none(), "{items}: {at}");
            }
        }
    }
}
