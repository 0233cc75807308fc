//! Quotas that hold over several servers: an Allocate whose user has no share left waits for it, briefly, and whoever has one is answered
//! at once.

use turnstone::auth::{AskPolicy, KnownCredential};
use turnstone::policy::{QuotaLimits, Share, WithoutShare};
use turnstone::reject::Reason;
use turnstone::stun::{AttributeType, Method};
use turnstone::turn::{Answer as Told, Ask, Client, Outcome, Question};
use turnstone::user::User;

use crate::harness::*;

const LIMIT: u32 = 6;

fn world(without: WithoutShare) -> World {
    let world = World::with(|options| {
        options.quota = QuotaLimits { fleet_per_user: Some(LIMIT), ..QuotaLimits::default() };
        options.username_limits = true;
    });
    world.shared.quotas.set_without_share(without);
    world.shared.quotas.set_fleet(false, 2);
    world
}

fn alice() -> User {
    User::fixed("alice")
}

impl World {
    /// Nothing, if it waits.
    fn try_share(&mut self, login: &Login) -> Option<Reply> {
        let bytes = login.request(self.transaction_id(), Method::ALLOCATE, |request| {
            request.attribute(AttributeType::REQUESTED_TRANSPORT, &UDP);
        });
        match self.hand_in(login.client, &bytes) {
            Answer::Waits => None,
            answer => Some(answer.reply()),
        }
    }

    /// The one question there is.
    fn share_asked(&mut self) -> Ask {
        let ask = self.server.poll_ask().expect("a question");
        assert_eq!(self.server.poll_ask(), None);
        ask
    }

    fn set_share(&mut self, allocations: u32) -> Share {
        let share = Share { allocations, limit: LIMIT, until_micros: self.now.micros + 50_000_000, is_over: false };
        self.shared.quotas.set_share(&alice(), share);
        share
    }

    fn late_reply(&mut self) -> Option<(Client, Reply)> {
        let mut reply = Vec::new();
        let late = self.server.poll_late(self.now, &mut self.relays, &mut reply)?;
        assert_eq!(late.outcome, Outcome::Reply);
        Some((late.client, Reply::read(reply)))
    }

    /// The code of a late answer; there is no other one.
    fn late_code(&mut self) -> Option<u16> {
        let (_, reply) = self.late_reply().expect("a late answer");
        assert!(self.late_reply().is_none());
        reply.code()
    }

    fn wait_millis(&mut self, millis: u64) {
        self.pass_millis(millis);
        self.server.handle_timeout(self.now, &mut self.relays);
    }

    fn another(&mut self, n: u16) -> Login {
        self.login(client(n), "alice", "wonderland")
    }
}

#[test]
fn the_first_allocate_of_a_user_waits_for_the_share_and_the_next_ones_are_answered_at_once() {
    let mut world = world(WithoutShare::Refuse);
    let login = world.alice(client(1));
    assert!(world.try_share(&login).is_none());
    let ask = world.share_asked();
    assert_eq!(ask.question, Question::Share { user: alice(), limit: LIMIT });
    assert_eq!(ask.deadline_micros, world.now.micros + 200_000);
    world.set_share(3);
    assert!(world.server.answer(world.now, ask.id, Told::ShareSet));
    let (to, reply) = world.late_reply().unwrap();
    assert_eq!((to, reply.code()), (login.client, None));
    assert!(reply.is_signed_by(&login));
    for n in 2..4 {
        let login = world.another(n);
        assert_eq!(world.try_share(&login).expect("an answer at once").code(), None);
    }
    let login = world.another(4);
    assert!(world.try_share(&login).is_none(), "the share is used up");
    world.check_books();
}

#[test]
fn who_is_told_of_and_then_waits_for_a_share_is_asked_about_between_the_same_two_messages() {
    let mut world = World::with(|options| {
        options.quota = QuotaLimits { fleet_per_user: Some(LIMIT), ..QuotaLimits::default() };
        options.asks = Some(AskPolicy::default());
    });
    world.shared.quotas.set_without_share(WithoutShare::Refuse);
    world.shared.quotas.set_fleet(false, 2);
    let login = world.login(client(1), "dora", "explorer");
    assert!(world.try_share(&login).is_none());
    let credential = world.share_asked();
    assert!(matches!(credential.question, Question::Credential { .. }));
    // As the documentation of `poll_ask` has it: answers, what goes on by them, and what is to be asked then.
    let known = KnownCredential::from_password("explorer").unwrap();
    assert!(world.server.answer(world.now, credential.id, Told::Known(known)));
    assert!(!world.server.has_ask());
    assert!(world.late_reply().is_none());
    assert!(world.server.has_ask(), "nobody may sleep now");
    let share = world.share_asked();
    assert!(!world.server.has_ask());
    let dora = User::asked("dora");
    assert_eq!(share.question, Question::Share { user: dora.clone(), limit: LIMIT });
    assert_eq!(share.deadline_micros, world.now.micros + 200_000);
    let until_micros = world.now.micros + 50_000_000;
    world.shared.quotas.set_share(&dora, Share { allocations: 1, limit: LIMIT, until_micros, is_over: false });
    assert!(world.server.answer(world.now, share.id, Told::ShareSet));
    assert_eq!(world.late_code(), None);
    world.check_books();
}

#[test]
fn a_share_that_is_over_makes_no_new_allocation_and_those_there_are_go_on() {
    let mut world = world(WithoutShare::Refuse);
    world.set_share(3);
    let login = world.another(1);
    assert_eq!(world.try_share(&login).unwrap().code(), None);
    world.pass(51);
    let second = world.another(2);
    assert!(world.try_share(&second).is_none());
    assert_eq!(world.refresh(&login, None).code(), None);
    assert_eq!(world.permit(&login, &[peer(1)]).code(), None);
}

#[test]
fn nobody_says_and_after_200_ms_it_goes_by_what_is_configured() {
    for (without, codes) in [
        (WithoutShare::Refuse, [Some(500); 7]),
        (WithoutShare::LocalShare, [None, None, None, Some(500), Some(500), Some(500), Some(500)]),
        (WithoutShare::Allow, [None, None, None, None, None, None, Some(486)]),
    ] {
        let mut world = world(without);
        for (n, code) in (1..).zip(codes) {
            let login = world.another(n);
            let before = world.now.micros;
            match world.try_share(&login) {
                None => {
                    assert_eq!(world.next_timeout(), Some(before + 200_000));
                    world.wait_millis(200);
                    assert_eq!(world.late_code(), code, "{without:?} {n}");
                }
                Some(reply) => assert_eq!((reply.code(), code), (Some(486), Some(486)), "{without:?} {n}"),
            }
        }
        let refused = codes.iter().flatten().map(|code| match code {
            486 => Reason::FleetQuota,
            _ => Reason::FleetUnavailable,
        });
        assert_eq!(refusals(&world.events()), refused.collect::<Vec<_>>());
        world.check_books();
    }
}

#[test]
fn while_it_is_known_that_nobody_can_say_nobody_waits() {
    let mut world = world(WithoutShare::LocalShare);
    world.shared.quotas.set_fleet(true, 3);
    for (n, code) in [(1, None), (2, None), (3, Some(500))] {
        let login = world.another(n);
        assert_eq!(world.try_share(&login).expect("an answer at once").code(), code);
    }
    assert_eq!(world.server.poll_ask(), None);
    // More than a fleet of which nothing was ever heard is shared by: one each.
    let quotas = world.shared.quotas.clone();
    quotas.set_fleet(true, 0);
    let bob = world.login(client(9), "bob", "builder");
    assert_eq!(world.try_share(&bob).unwrap().code(), None);
    let bob = world.login(client(10), "bob", "builder");
    assert_eq!(world.try_share(&bob).unwrap().code(), Some(500));
    // Whoever shares out hears of all that were made so.
    assert_eq!(quotas.share_totals().made_without, 3);
    assert_eq!(quotas.take_changed_shares(), [alice(), User::fixed("bob")].into());
}

#[test]
fn users_who_come_and_go_while_nobody_can_be_told_leave_nothing_behind() {
    let mut world = world(WithoutShare::LocalShare);
    world.shared.quotas.set_fleet(true, 2);
    for n in 0..200 {
        let login = world.guest(client(1), &format!("user {n}"), 3600);
        assert_eq!(world.try_share(&login).unwrap().code(), None);
        assert_eq!(world.refresh(&login, Some(0)).code(), None);
    }
    assert_eq!(world.shared.quotas.share_totals().users, 0);
    assert!(world.shared.quotas.take_changed_shares().is_empty());
}

#[test]
fn a_full_limit_is_486_for_a_second_without_another_question_and_a_laxer_one_is_asked_for() {
    let mut world = world(WithoutShare::Refuse);
    let strict = world.guest(client(1), "carol;alloc=2", 3600);
    assert!(world.try_share(&strict).is_none());
    let ask = world.share_asked();
    let carol = User::time_limited("carol");
    assert_eq!(ask.question, Question::Share { user: carol.clone(), limit: 2 });
    world.shared.quotas.refuse_share(&carol, 2, world.now.micros + 1_000_000);
    world.server.answer(world.now, ask.id, Told::ShareSet);
    assert_eq!(world.late_code(), Some(486));
    let strict = world.guest(client(2), "carol;alloc=1", 3600);
    assert_eq!(world.try_share(&strict).expect("an answer at once").code(), Some(486));
    let lax = world.guest(client(3), "carol", 3600);
    assert!(world.try_share(&lax).is_none());
    world.pass(1);
    let strict = world.guest(client(4), "carol;alloc=2", 3600);
    assert!(world.try_share(&strict).is_none());
    assert_eq!(refusals(&world.events())[..2], [Reason::FleetQuota, Reason::FleetQuota]);
}

#[test]
fn a_share_of_a_laxer_limit_is_not_for_a_stricter_credential() {
    let mut world = world(WithoutShare::Refuse);
    let carol = User::time_limited("carol");
    let until_micros = world.now.micros + 50_000_000;
    world.shared.quotas.set_share(&carol, Share { allocations: 3, limit: LIMIT, until_micros, is_over: false });
    let strict = world.guest(client(1), "carol;alloc=2", 3600);
    assert!(world.try_share(&strict).is_none());
    let lax = world.guest(client(2), "carol", 3600);
    assert_eq!(world.try_share(&lax).unwrap().code(), None);
}

#[test]
fn what_others_have_used_up_meanwhile_is_asked_for_again_within_the_same_200_ms() {
    let mut world = world(WithoutShare::Refuse);
    let logins = [1, 2].map(|n| world.another(n));
    for login in &logins {
        assert!(world.try_share(login).is_none());
    }
    let begun = world.now.micros;
    let ask = world.share_asked();
    world.wait_millis(150);
    world.set_share(1);
    world.server.answer(world.now, ask.id, Told::ShareSet);
    assert_eq!(world.late_code(), None);
    let again = world.share_asked();
    assert_eq!((again.question.clone(), again.deadline_micros), (ask.question, begun + 200_000));
    assert_ne!(again.id, ask.id);
    // A copy of it does not ask either.
    world.wait_millis(50);
    assert_eq!(world.late_code(), Some(500));
}

#[test]
fn what_is_over_the_limit_is_not_replaced_when_it_ends() {
    let mut world = world(WithoutShare::Refuse);
    let mut share = world.set_share(3);
    let logins = [1, 2].map(|n| world.another(n));
    for login in &logins {
        assert_eq!(world.try_share(login).unwrap().code(), None);
    }
    share.is_over = true;
    world.shared.quotas.set_share(&alice(), share);
    assert_eq!(world.refresh(&logins[0], Some(0)).code(), None);
    assert!(world.try_share(&logins[0]).is_none());
    let kept = world.shared.quotas.keep_of_share(&alice(), world.now.micros, (5, LIMIT));
    assert_eq!((kept.live, kept.kept), (1, 1));
}

#[test]
fn a_share_is_given_back_but_what_is_in_use_and_what_is_to_be_kept() {
    let mut world = world(WithoutShare::Refuse);
    world.set_share(5);
    let login = world.another(1);
    assert_eq!(world.try_share(&login).unwrap().code(), None);
    let quotas = world.shared.quotas.clone();
    let keep = |world: &World, spare| quotas.keep_of_share(&alice(), world.now.micros, (spare, LIMIT)).kept;
    assert_eq!([keep(&world, 9), keep(&world, 2), keep(&world, 9), keep(&world, 0)], [5, 3, 3, 1]);
    let second = world.another(2);
    assert!(world.try_share(&second).is_none());
    assert!(!quotas.drop_share(&alice(), world.now.micros));
    world.pass(60);
    assert_eq!(keep(&world, 9), 1, "what is over is only what is in use");
    assert_eq!(world.refresh(&login, Some(0)).code(), None);
    assert_eq!(keep(&world, 0), 0);
    assert!(!quotas.drop_share(&alice(), world.now.micros), "that it has ended was not taken yet");
    assert_eq!(quotas.take_changed_shares(), [alice()].into());
    assert!(quotas.drop_share(&alice(), world.now.micros));
    assert_eq!(quotas.share_totals().users, 0);
}
