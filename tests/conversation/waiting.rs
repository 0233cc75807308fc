//! Requests that wait for the credential of their user, with whoever knows it answering late, wrongly, never, twice, and after the client
//! has gone or asked again.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use proptest::prelude::*;

use turnstone::addr::{ClientAddr, Transport};
use turnstone::auth::{AskPolicy, KnownCredential};
use turnstone::reject::Reason;
use turnstone::stun::{AttributeType, Encoder, Key, Message, Method, PasswordAlgorithm, TransactionId};
use turnstone::turn::{
    AllocationFilter, Answer as Told, Ask, Client, Event, Late, Outcome, Question, WaitCounts, Waiting,
};
use turnstone::user::User;

use crate::harness::*;

mod hostile;
mod limits;

/// That of some reloads.
const OTHER_REALM: &str = "example.net";

fn asking() -> World {
    asking_within(|_| {})
}

fn asking_within(change: impl FnOnce(&mut AskPolicy)) -> World {
    let mut policy = AskPolicy::default();
    change(&mut policy);
    World::with(|options| options.asks = Some(policy))
}

/// Whoever it is, he knows his password.
fn known(username: &str) -> Told {
    Told::Known(KnownCredential::from_password(&password(username)).unwrap())
}

fn password(username: &str) -> String {
    format!("password of {username}")
}

fn plain(request: &mut Encoder<'_>) {
    request.attribute(AttributeType::REQUESTED_TRANSPORT, &UDP);
}

fn late_of(late: Late, reply: Vec<u8>) -> (Client, Answer) {
    let answer = match late.outcome {
        Outcome::Reply => Answer::Reply(Reply::read(reply)),
        Outcome::Dropped(dropped) => Answer::Dropped(dropped),
        other => panic!("{other:?}"),
    };
    (late.client, answer)
}

impl World {
    fn someone(&mut self, client: Client, username: &str) -> Login {
        self.login(client, username, &password(username))
    }

    fn allocation_of(&mut self, login: &Login) -> Vec<u8> {
        login.request(self.transaction_id(), Method::ALLOCATE, plain)
    }

    /// An Allocate that waits.
    fn wait_for(&mut self, login: &Login) -> Vec<u8> {
        let bytes = self.allocation_of(login);
        assert!(matches!(self.hand_in(login.client, &bytes), Answer::Waits));
        bytes
    }

    /// The one question there is.
    fn asked(&mut self) -> Ask {
        let ask = self.server.poll_ask().expect("a question");
        assert_eq!(self.server.poll_ask(), None);
        ask
    }

    fn tell(&mut self, ask: &Ask, answer: Told) -> bool {
        self.server.answer(self.now, ask.id, answer)
    }

    fn next_late(&mut self) -> Option<(Client, Answer)> {
        let mut reply = Vec::new();
        let late = self.server.poll_late(self.now, &mut self.relays, &mut reply)?;
        Some(late_of(late, reply))
    }

    /// The one late answer there is.
    fn late(&mut self) -> (Client, Reply) {
        let (client, answer) = self.next_late().expect("a late answer");
        assert!(self.next_late().is_none(), "a second late answer");
        (client, answer.reply())
    }
}

fn username(ask: &Ask) -> String {
    let Question::Credential { username, realm } = &ask.question else { panic!("asked something else") };
    assert!([REALM, OTHER_REALM].contains(&&**realm));
    username.to_string()
}

/// A client with an address of the test's choice.
fn client_at(address: SocketAddr) -> Client {
    let mut client = client(1);
    client.five_tuple.client = ClientAddr::new(address);
    client
}

#[test]
fn what_waits_on_the_5_tuple_of_an_allocation_that_moves_is_not_answered_where_it_was() {
    let mut world = asking();
    world.split();
    let alice = world.allocated(1);
    let carol = world.someone(client(1), "carol");
    let bytes = world.wait_for(&carol);
    let ask = world.asked();
    let id = world.list(&AllocationFilter::default(), None, 1)[0].id;
    world.move_over(id, alice.client);
    assert!(matches!(world.hand_in(carol.client, &bytes), Answer::Waits), "a copy waits where the allocation is");
    world.other_side();
    assert_eq!(world.server.waiting().requests, 0);
    world.tell(&ask, known("carol"));
    assert!(world.next_late().is_none());
    world.other_side();
    let ask = world.asked();
    assert!(world.tell(&ask, known("carol")));
    assert_eq!(world.late().1.code(), Some(437), "the 5-tuple has an allocation");
}

#[test]
fn a_user_whom_nobody_configured_waits_and_allocates_once_its_credential_is_known() {
    let mut world = asking();
    let carol = world.someone(client(1), "carol");
    let bytes = world.wait_for(&carol);
    assert_eq!((world.server.allocations(), world.relays.taken_ports()), (0, 0));
    assert!(world.next_late().is_none() && world.events().is_empty());
    let ask = world.asked();
    assert_eq!((username(&ask), ask.deadline_micros), ("carol".to_owned(), world.now.micros + 5_000_000));

    world.pass(1);
    assert!(world.tell(&ask, known("carol")));
    let mut reply = Vec::new();
    let late = world.server.poll_late(world.now, &mut world.relays, &mut reply).unwrap();
    assert_eq!((&late.client, &*late.request), (&carol.client, &*bytes));
    let reply = Reply::read(reply);
    assert!(reply.is_signed_by(&carol) && reply.code().is_none());
    assert_eq!(reply.transaction_id, Message::parse(&bytes).unwrap().transaction_id());
    assert!(world.next_late().is_none());

    // From here on it is a client like any other: its key is with its allocation, and with who comes next of the same name.
    assert_eq!(world.refresh(&carol, None).code(), None);
    assert_eq!(world.permit(&carol, &[peer(1)]).code(), None);
    let sha256 = world.someone(client(2), "carol").with_sha256();
    world.allocate(&sha256);
    assert_eq!((world.server.poll_ask(), world.server.allocations()), (None, 2));
    world.check_books();
}

#[test]
fn by_default_nobody_is_asked() {
    let mut world = World::new();
    let carol = world.someone(client(1), "carol");
    let bytes = world.allocation_of(&carol);
    assert_eq!(world.hand_in(carol.client, &bytes).reply().code(), Some(401));
    assert_eq!((world.server.poll_ask(), world.server.waiting()), (None, Waiting::default()));
    assert_eq!(world.server.next_timeout(), None);
}

#[test]
fn nothing_waits_before_its_nonce_is_fresh_and_its_own() {
    let mut world = asking();
    let carol = world.someone(client(1), "carol");
    let bytes = world.allocation_of(&carol);
    assert_eq!(world.hand_in(client(2), &bytes).reply().code(), Some(438), "another client's nonce");
    let mut abroad = carol.clone();
    abroad.realm = "elsewhere".to_owned();
    let bytes = world.allocation_of(&abroad);
    assert_eq!(world.hand_in(carol.client, &bytes).reply().code(), Some(401));
    let nobody = Login { username: "ev\u{202e}il".to_owned(), ..carol.clone() };
    let bytes = world.allocation_of(&nobody);
    assert_eq!(world.hand_in(carol.client, &bytes).reply().code(), Some(401), "a name that nobody is asked about");
    world.pass(3601);
    let bytes = world.allocation_of(&carol);
    assert_eq!(world.hand_in(carol.client, &bytes).reply().code(), Some(438), "too old");
    assert_eq!((world.server.poll_ask(), world.server.waiting()), (None, Waiting::default()));
}

#[test]
fn static_and_time_limited_users_wait_for_nobody() {
    let mut world = asking();
    let alice = world.alice(client(1));
    world.allocate(&alice);
    let guest = world.guest(client(2), "carol", 60);
    world.allocate(&guest);
    for (name, password) in [("alice", "wrong"), ("1700009999:carol", "wrong")] {
        let wrong = world.login(client(3), name, password);
        let bytes = world.allocation_of(&wrong);
        assert_eq!(world.hand_in(wrong.client, &bytes).reply().code(), Some(401));
    }
    assert_eq!((world.server.poll_ask(), world.server.waiting()), (None, Waiting::default()));
}

#[test]
fn a_user_of_nobody_is_401_and_so_is_the_next_for_some_seconds() {
    let mut world = asking();
    let carol = world.someone(client(1), "carol");
    world.wait_for(&carol);
    let ask = world.asked();
    world.tell(&ask, Told::Unknown);
    let (to, reply) = world.late();
    assert_eq!((to, reply.code()), (carol.client, Some(401)));
    assert_eq!(world.server.refused_with(), Some((Reason::UnknownUser, None)));
    assert!(reply.get(AttributeType::NONCE).is_some(), "a challenge like any other 401");
    assert_eq!(refusals(&world.events()), [Reason::UnknownUser]);

    let bytes = world.allocation_of(&carol);
    assert_eq!(world.hand_in(carol.client, &bytes).reply().code(), Some(401), "not asked about again");
    assert_eq!((world.server.waiting().requests, world.server.waiting().unknown), (0, 1));
    world.pass(5);
    world.wait_for(&carol);
    assert_ne!(world.asked().id, ask.id);
}

#[test]
fn a_credential_of_another_password_is_401_and_a_new_one_is_asked_for_when_it_is_not_valid_any_more() {
    let mut world = asking();
    let carol = world.someone(client(1), "carol");
    world.wait_for(&carol);
    let ask = world.asked();
    let other = KnownCredential::from_password("another").unwrap().valid_for_secs(30);
    world.tell(&ask, Told::Known(other));
    assert_eq!(world.late().1.code(), Some(401));
    assert_eq!(world.server.refused_with(), Some((Reason::WrongPassword, None)));
    world.pass(29);
    let bytes = world.allocation_of(&carol);
    assert_eq!(world.hand_in(carol.client, &bytes).reply().code(), Some(401));
    world.pass(1);
    world.wait_for(&carol);
    let ask = world.asked();
    world.tell(&ask, known("carol"));
    assert_eq!(world.late().1.code(), None);
}

#[test]
fn an_answer_may_be_keys_may_expire_and_says_whom_quotas_count_on() {
    let mut world = asking();
    let key = |algorithm| {
        Key::long_term(algorithm, b"carol", REALM.as_bytes(), password("carol").as_bytes()).as_bytes().to_vec()
    };
    let md5: [u8; 16] = key(PasswordAlgorithm::Md5).try_into().unwrap();
    let sha256: [u8; 32] = key(PasswordAlgorithm::Sha256).try_into().unwrap();
    let expires = world.now.unix_secs + 10;
    let credential =
        KnownCredential::from_keys(md5, sha256).counting_on("tenant").expiring_at(expires).valid_for_secs(60);
    let logins = [world.someone(client(1), "carol"), world.someone(client(2), "carol").with_sha256()];
    for login in &logins {
        world.wait_for(login);
    }
    let ask = world.asked();
    world.tell(&ask, Told::Known(credential));
    for login in &logins {
        let (to, answer) = world.next_late().unwrap();
        assert!(to == login.client && answer.reply().is_signed_by(login));
    }
    let users: Vec<User> = world
        .events()
        .into_iter()
        .map(|event| match event {
            Event::Allocated { user, username, .. } if &*username == "carol" => user,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(users, [User::asked("tenant"), User::asked("tenant")]);

    world.pass(11);
    assert_eq!(world.refresh(&logins[0], None).code(), None, "an allocation outlives its credential");
    let third = world.someone(client(3), "carol");
    world.wait_for(&third);
    let ask = world.asked();
    world.tell(&ask, Told::Known(KnownCredential::from_keys(md5, sha256).expiring_at(expires)));
    assert_eq!(world.late().1.code(), Some(401));
    assert_eq!(world.server.refused_with(), Some((Reason::CredentialExpired, None)));
    let bytes = world.allocation_of(&third);
    assert_eq!(world.hand_in(third.client, &bytes).reply().code(), Some(401), "not asked for again at once");
    world.pass(5);
    world.wait_for(&third);
    let ask = world.asked();
    let renewed = KnownCredential::from_keys(md5, sha256).expiring_at(world.now.unix_secs + 3600);
    world.tell(&ask, Told::Known(renewed));
    assert_eq!(world.late().1.code(), None, "it was renewed");
}

#[test]
fn a_credential_for_once_serves_those_who_wait_and_nobody_else() {
    let mut world = asking();
    let carol = world.someone(client(1), "carol");
    world.wait_for(&carol);
    let ask = world.asked();
    world.tell(&ask, Told::Known(KnownCredential::from_password(&password("carol")).unwrap().valid_for_secs(0)));
    assert_eq!(world.late().1.code(), None);
    assert_eq!(world.server.waiting(), Waiting::default());
    let again = world.someone(client(2), "carol");
    world.wait_for(&again);
}

#[test]
fn nobody_who_could_say_is_500_and_the_next_asks_anew() {
    let mut world = asking();
    let carol = world.someone(client(1), "carol");
    world.wait_for(&carol);
    let ask = world.asked();
    world.tell(&ask, Told::Failed);
    let (to, reply) = world.late();
    assert_eq!((to, reply.code()), (carol.client, Some(500)));
    assert_eq!(world.server.refused_with(), Some((Reason::CredentialUnavailable, None)));
    assert_eq!(refusals(&world.events()), [Reason::CredentialUnavailable]);
    assert_eq!(world.server.waiting(), Waiting::default());
    world.wait_for(&carol);
    assert_ne!(world.asked().id, ask.id);
}

#[test]
fn who_is_never_answered_gets_500_at_the_deadline_and_the_timer_says_when() {
    let mut world = asking_within(|policy| policy.deadline_millis = 200);
    let carol = world.someone(client(1), "carol");
    world.wait_for(&carol);
    let _unanswered = world.asked();
    assert_eq!(world.server.next_timeout(), Some(world.now.micros + 200_000));
    world.pass_millis(199);
    world.server.handle_timeout(world.now, &mut world.relays);
    assert!(world.next_late().is_none());
    world.pass_millis(1);
    world.server.handle_timeout(world.now, &mut world.relays);
    assert_eq!(world.late().1.code(), Some(500));
    assert_eq!(world.server.next_timeout(), None);
    let counts = world.server.wait_counts();
    assert_eq!((counts.parked, counts.asked, counts.timed_out, counts.answered), (1, 1, 1, 0));
}

#[test]
fn a_late_answer_serves_the_next_and_one_that_never_came_is_asked_for_again() {
    let mut world = asking();
    let carol = world.someone(client(1), "carol");
    let bytes = world.wait_for(&carol);
    let ask = world.asked();
    world.pass(5);
    assert_eq!(world.late().1.code(), Some(500));
    // The client discards the 500, which nobody signed, and sends its request again (RFC 8489 section 9.2.5).
    assert!(matches!(world.hand_in(carol.client, &bytes), Answer::Waits));
    let again = world.asked();
    assert_eq!((again.id, &again.question), (ask.id, &ask.question), "the same question");
    world.pass(5);
    assert_eq!(world.late().1.code(), Some(500));
    assert!(world.tell(&ask, known("carol")), "late, but an answer");
    assert!(world.next_late().is_none());
    assert_eq!(world.server.wait_counts().late_answers, 1);
    assert_eq!(world.hand_in(carol.client, &bytes).reply().code(), None);
    assert_eq!(world.server.poll_ask(), None);
}

#[test]
fn answers_to_no_question_are_ignored_and_counted() {
    let mut world = asking();
    let carol = world.someone(client(1), "carol");
    world.wait_for(&carol);
    let ask = world.asked();
    assert!(world.tell(&ask, known("carol")));
    assert!(!world.tell(&ask, Told::Unknown), "answered before");
    assert_eq!(world.late().1.code(), None);
    assert!(!world.tell(&ask, Told::Unknown));
    let again = world.someone(client(2), "carol");
    world.allocate(&again);
    let counts = world.server.wait_counts();
    assert_eq!((counts.answered, counts.late_answers, counts.stray_answers), (1, 0, 2));
}

#[test]
fn copies_of_a_request_that_waits_get_one_answer_and_later_ones_the_same_again() {
    let mut world = asking();
    let carol = world.someone(client(1), "carol");
    let bytes = world.wait_for(&carol);
    for _ in 0..5 {
        world.pass_millis(500);
        assert!(matches!(world.hand_in(carol.client, &bytes), Answer::Waits));
    }
    assert_eq!((world.server.waiting().requests, world.server.waiting().questions), (1, 1));
    let ask = world.asked();
    world.tell(&ask, known("carol"));
    assert!(matches!(world.hand_in(carol.client, &bytes), Answer::Waits), "its answer is on its way");
    let (_, reply) = world.late();
    assert_eq!(reply.code(), None);
    assert_eq!(world.hand_in(carol.client, &bytes).reply().bytes, reply.bytes);
    let counts = world.server.wait_counts();
    assert_eq!((counts.parked, counts.repeated, counts.answered, world.server.allocations()), (1, 6, 1, 1));
}

#[test]
fn another_request_of_the_same_transaction_takes_the_place_of_the_one_that_waits() {
    let mut world = asking();
    let carol = world.someone(client(1), "carol");
    let id = world.transaction_id();
    let first = carol.request(id, Method::ALLOCATE, plain);
    assert!(matches!(world.hand_in(carol.client, &first), Answer::Waits));
    let second = carol.request(id, Method::ALLOCATE, |request| {
        plain(request);
        request.u32(AttributeType::LIFETIME, 900);
    });
    assert!(matches!(world.hand_in(carol.client, &second), Answer::Waits));
    let ask = world.asked();
    world.tell(&ask, known("carol"));
    assert_eq!(world.late().1.lifetime_secs(), 900);
    // One that is answered at once takes it as well.
    let dave = world.someone(client(2), "dave");
    let bytes = world.wait_for(&dave);
    let id = Message::parse(&bytes).unwrap().transaction_id();
    let bare = message(turnstone::stun::Class::Request, Method::ALLOCATE, id, plain);
    assert_eq!(world.hand_in(dave.client, &bare).reply().code(), Some(401));
    assert!(world.tell_all(known).is_empty());
    assert_eq!(world.server.wait_counts().replaced, 2);
}

impl World {
    /// Answers what is asked, and takes what comes of it.
    fn tell_all(&mut self, answer: impl Fn(&str) -> Told) -> Vec<(Client, Answer)> {
        while let Some(ask) = self.server.poll_ask() {
            let answer = answer(&username(&ask));
            assert!(self.tell(&ask, answer));
        }
        std::iter::from_fn(|| self.next_late()).collect()
    }
}

#[test]
fn a_client_that_asked_again_meanwhile_gets_what_it_would_get_without_waiting() {
    let mut world = asking();
    // Twice by the same user, in two transactions: the first makes the allocation, and the second finds it there.
    let carol = world.someone(client(1), "carol");
    let transactions: Vec<TransactionId> =
        (0..2).map(|_| Message::parse(&world.wait_for(&carol)).unwrap().transaction_id()).collect();
    let answers: Vec<Reply> = world.tell_all(known).into_iter().map(|(_, answer)| answer.reply()).collect();
    assert_eq!(answers.iter().map(|reply| reply.transaction_id).collect::<Vec<_>>(), transactions);
    assert_eq!(answers.iter().map(Reply::code).collect::<Vec<_>>(), [None, Some(437)]);

    // By a user who is known, and was quicker.
    let dave = world.someone(client(2), "dave");
    world.wait_for(&dave);
    let alice = world.alice(client(2));
    world.allocate(&alice);
    let answers = world.tell_all(known);
    assert_eq!(answers.into_iter().map(|(_, answer)| answer.reply().code()).collect::<Vec<_>>(), [Some(437)]);
    assert_eq!(world.server.allocations(), 2);
    world.check_books();
}

#[test]
fn requests_of_one_client_go_on_in_their_order() {
    let mut world = asking();
    let carol = world.someone(client(1), "carol");
    world.wait_for(&carol);
    for method in [Method::CREATE_PERMISSION, Method::REFRESH] {
        let bytes = carol.request(world.transaction_id(), method, |request| {
            if method == Method::CREATE_PERMISSION {
                request.xor_address(AttributeType::XOR_PEER_ADDRESS, peer(1).get());
            }
        });
        assert!(matches!(world.hand_in(carol.client, &bytes), Answer::Waits));
    }
    let answers: Vec<_> = world.tell_all(known).into_iter().map(|(_, answer)| answer.reply()).collect();
    let expected = [Method::ALLOCATE, Method::CREATE_PERMISSION, Method::REFRESH].map(|method| (method, None));
    assert_eq!(answers.iter().map(|reply| (reply.method, reply.code())).collect::<Vec<_>>(), expected);
    assert!(world.send(carol.client, peer(1), b"x").into_peer().1 == b"x");
}

#[test]
fn a_connection_that_has_closed_is_not_answered_nor_is_the_next_one_of_its_address() {
    let mut world = asking();
    let before = client_over(Transport::Tcp, 1);
    let mut after = client_over(Transport::Tcp, 2);
    after.five_tuple = before.five_tuple;
    assert_ne!(before.path, after.path);
    let carol = world.someone(before, "carol");
    world.wait_for(&carol);
    let ask = world.asked();
    world.server.client_gone(world.now, &before.five_tuple, &mut world.relays);
    assert_eq!(world.server.next_timeout(), None);
    let dave = world.someone(after, "dave");
    world.wait_for(&dave);
    assert!(world.tell(&ask, known("carol")));
    assert!(world.next_late().is_none(), "carol is gone");
    let answers = world.tell_all(known);
    assert!(answers.len() == 1 && answers[0].0 == after);
    // Gone between the answer and its being taken.
    let erin = world.someone(client_over(Transport::Tcp, 3), "erin");
    world.wait_for(&erin);
    let ask = world.asked();
    assert!(world.tell(&ask, known("erin")));
    world.server.client_gone(world.now, &erin.client.five_tuple, &mut world.relays);
    assert!(world.next_late().is_none());
    let counts = world.server.wait_counts();
    assert_eq!((counts.parked, counts.gone, counts.answered, counts.late_answers), (3, 2, 1, 1));
    assert_eq!((world.server.allocations(), world.server.waiting().requests), (1, 0));
}

#[test]
fn nobody_is_asked_for_a_client_that_has_gone_before_the_question_was_taken() {
    let mut world = asking();
    let carol = world.someone(client_over(Transport::Tls, 1), "carol");
    world.wait_for(&carol);
    world.server.client_gone(world.now, &carol.client.five_tuple, &mut world.relays);
    assert_eq!((world.server.poll_ask(), world.server.waiting()), (None, Waiting::default()));
}

#[test]
fn a_reload_may_end_the_asking_with_requests_that_wait() {
    let mut world = asking();
    let [carol, dave] = [(1, "carol"), (2, "dave")].map(|(n, name)| world.someone(client(n), name));
    world.wait_for(&carol);
    let ask = world.asked();
    world.wait_for(&dave);
    world.reload(|options| options.asks = None);
    world.tell(&ask, known("carol"));
    assert_eq!(world.late().1.code(), Some(401), "as anybody whom nobody configured");
    world.pass(5);
    assert_eq!(world.late().1.code(), Some(500));
    let bytes = world.allocation_of(&dave);
    assert_eq!(world.hand_in(dave.client, &bytes).reply().code(), Some(401));
    assert_eq!(world.server.waiting().requests, 0);
}

#[test]
fn a_network_that_fills_its_share_leaves_the_others_able_to_wait() {
    let mut world = asking_within(|policy| {
        policy.waiting_max = 400;
        policy.waiting_per_network_max = 8;
    });
    let ask_from = |world: &mut World, address: SocketAddr| {
        let carol = world.someone(client_at(address), "carol");
        let bytes = world.allocation_of(&carol);
        match world.hand_in(carol.client, &bytes) {
            Answer::Waits => None,
            other => other.reply().code(),
        }
    };
    // One /24; then a whole /16 around it; then a /48, with a network for each address.
    let results: Vec<_> = (0..20).map(|n| ask_from(&mut world, SocketAddr::from(([91, 20, 5, n], 4000)))).collect();
    assert!(results[..8].iter().all(Option::is_none) && results[8..].iter().all(|code| *code == Some(508)));
    assert_eq!(world.server.refused_with(), Some((Reason::TooManyWaiting, None)));
    let of_16 = (0..200).filter(|n| ask_from(&mut world, SocketAddr::from(([91, 20, *n, 1], 4000))).is_none()).count();
    assert_eq!(of_16, 72);
    let of_48 = (0..200)
        .filter(|n| ask_from(&mut world, SocketAddr::from(([0x2a03, 1, 2, *n, 0, 0, 0, 1], 4000))).is_none())
        .count();
    assert_eq!(of_48, 80);
    // Everybody else.
    let others = (0..100_u8).filter(|n| ask_from(&mut world, SocketAddr::from(([100 + n, 1, 1, 1], 4000))).is_none());
    assert_eq!(others.count(), 100);
    assert_eq!(world.server.waiting().requests, 260);
    assert_eq!(world.server.wait_counts().refused, 12 + 128 + 120);
    // Their places are free again with their answers.
    assert_eq!(world.tell_all(|_| Told::Failed).len(), 260);
    assert_eq!(ask_from(&mut world, SocketAddr::from(([91, 20, 5, 99], 4000))), None);
}

#[test]
fn a_request_longer_than_any_needs_to_be_does_not_wait() {
    let mut world = asking();
    let carol = world.someone(client_over(Transport::Tcp, 1), "carol");
    let bytes = carol.request(world.transaction_id(), Method::ALLOCATE, |request| {
        plain(request);
        request.attribute(AttributeType::SOFTWARE, &[b'x'; 3000]);
    });
    assert_eq!(world.hand_in(carol.client, &bytes).reply().code(), Some(508));
    assert_eq!(world.server.waiting(), Waiting::default());
}

#[test]
fn a_flood_of_requests_that_would_wait_keeps_memory_flat() {
    const SOURCES: u32 = 100_000;
    let mut world = asking();
    let template = world.someone(client(1), "mallory");
    let mut most = Waiting::default();
    for n in 0..SOURCES {
        // As many networks as there can be, and a name of its own each, as long as names may be; nonces are fresh.
        let [a, b, c, d] = n.wrapping_mul(40_503 * 65_537).to_be_bytes();
        let client = client_at(SocketAddr::from(([a | 1, b, c, d], 1024 + (n % 60_000) as u16)));
        let (_, nonce) = world.challenge(client);
        let username = format!("{n:x>508}");
        let login = Login { client, nonce, username, ..template.clone() };
        let bytes = world.allocation_of(&login);
        match world.hand_in(client, &bytes) {
            Answer::Waits => {}
            answer => assert_eq!(answer.reply().code(), Some(508)),
        }
        if n % 3 == 0 {
            world.server.poll_ask();
        }
        if n % 1000 == 0 {
            // Time passes: some give up, some are told that they are nobody.
            world.pass_millis(1000);
            world.server.handle_timeout(world.now, &mut world.relays);
            while world.next_late().is_some() {}
            if let Some(ask) = world.server.poll_ask() {
                world.tell(&ask, Told::Unknown);
            }
            world.events();
        }
        let now = world.server.waiting();
        most.requests = most.requests.max(now.requests);
        most.bytes = most.bytes.max(now.bytes);
        most.questions = most.questions.max(now.questions);
        most.unknown = most.unknown.max(now.unknown);
    }
    let policy = AskPolicy::default();
    assert_eq!(most.requests, policy.waiting_max);
    assert!(most.bytes <= policy.waiting_max * 2304 && most.questions <= 2 * policy.waiting_max, "{most:?}");
    assert!(most.unknown <= policy.unknown_max);
    // It leaves nothing behind but a bounded number of questions that may still be answered.
    world.pass(5);
    world.server.handle_timeout(world.now, &mut world.relays);
    while world.next_late().is_some() {}
    let left = world.server.waiting();
    assert_eq!((left.requests, left.bytes), (0, 0));
    assert!(left.questions <= 2 * policy.waiting_max);
    let carol = world.someone(client(1), "carol");
    world.wait_for(&carol);
    check_counts(&world);
}

/// Every request that has begun to wait is somewhere.
fn check_counts(world: &World) -> WaitCounts {
    let counts = world.server.wait_counts();
    let over = counts.answered + counts.timed_out + counts.gone + counts.replaced;
    assert_eq!(counts.parked, over + world.server.waiting().requests as u64, "{counts:?}");
    counts
}

#[derive(Clone, Debug)]
enum Step {
    /// A client sends an Allocate of one of its users in a new transaction, over a stream if its number is odd.
    Send {
        client: u16,
        user: usize,
    },
    /// It sends its last one again.
    Repeat {
        client: u16,
    },
    Gone {
        client: u16,
    },
    Poll,
    Answer {
        which: prop::sample::Index,
        how: u8,
    },
    AnswerAgain {
        which: prop::sample::Index,
    },
    Pass {
        millis: u64,
    },
    /// Nobody is asked any more, or somebody again, in this realm or in another one.
    Reload {
        asks: bool,
        is_other_realm: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let client = 0..6_u16;
    prop_oneof![
        4 => (client.clone(), 0..3_usize).prop_map(|(client, user)| Step::Send { client, user }),
        2 => client.clone().prop_map(|client| Step::Repeat { client }),
        1 => client.prop_map(|client| Step::Gone { client }),
        3 => Just(Step::Poll),
        3 => (any::<prop::sample::Index>(), 0..4_u8).prop_map(|(which, how)| Step::Answer { which, how }),
        1 => any::<prop::sample::Index>().prop_map(|which| Step::AnswerAgain { which }),
        2 => (0..4_000_u64).prop_map(|millis| Step::Pass { millis }),
        1 => (prop::bool::weighted(0.7), prop::bool::weighted(0.3))
            .prop_map(|(asks, is_other_realm)| Step::Reload { asks, is_other_realm }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn in_any_order_of_events_each_transaction_has_one_late_answer_at_most_and_it_goes_to_its_client(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut world = asking_within(|policy| {
            policy.known_secs = 3;
            policy.waiting_max = 8;
            policy.waiting_per_network_max = 4;
        });
        let policy = world.options.asks;
        let clients: Vec<Client> = (0..6).map(|n| match n % 2 {
            0 => client(n),
            _ => client_over(Transport::Tcp, n),
        }).collect();
        let names = ["carol", "dave", "alice"];
        let logins: Vec<Vec<Login>> = clients.iter().map(|client| {
            names.iter().map(|name| match *name {
                "alice" => world.alice(*client),
                name => world.someone(*client, name),
            }).collect()
        }).collect();
        let mut last: HashMap<u16, Vec<u8>> = HashMap::new();
        // Those that wait, as the clients know it: their transaction and who has sent it.
        let mut waits: HashMap<TransactionId, Client> = HashMap::new();
        let mut late = HashSet::new();
        let mut asks: Vec<Ask> = Vec::new();
        let mut open = HashSet::new();
        let id_of = |bytes: &[u8]| Message::parse(bytes).unwrap().transaction_id();
        for step in steps {
            match step {
                Step::Send { client, user } => {
                    let login = &logins[usize::from(client)][user];
                    let bytes = world.allocation_of(login);
                    if matches!(world.hand_in(login.client, &bytes), Answer::Waits) {
                        prop_assert_ne!(names[user], "alice");
                        waits.insert(id_of(&bytes), login.client);
                    }
                    last.insert(client, bytes);
                }
                Step::Repeat { client } => if let Some(bytes) = last.get(&client) {
                    let to = clients[usize::from(client)];
                    let waited = waits.contains_key(&id_of(bytes));
                    let waits_now = matches!(world.hand_in(to, bytes), Answer::Waits);
                    prop_assert!(waits_now || !waited, "a copy is answered, and the request still waits");
                    if waits_now && !waited {
                        late.remove(&id_of(bytes));
                        waits.insert(id_of(bytes), to);
                    }
                },
                Step::Gone { client } => {
                    let gone = clients[usize::from(client)];
                    world.server.client_gone(world.now, &gone.five_tuple, &mut world.relays);
                    waits.retain(|_, to| *to != gone);
                }
                Step::Poll => while let Some(ask) = world.server.poll_ask() {
                    open.insert(ask.id);
                    asks.push(ask);
                },
                Step::Answer { which, how } => if !asks.is_empty() {
                    let ask = which.get(&asks).clone();
                    let answer = match how {
                        0 => Told::Unknown,
                        1 => Told::Failed,
                        2 => Told::Known(KnownCredential::from_password("wrong").unwrap()),
                        _ => known(&username(&ask)),
                    };
                    let was_open = open.remove(&ask.id);
                    prop_assert!(!world.tell(&ask, answer) || was_open);
                },
                Step::AnswerAgain { which } => if !asks.is_empty() {
                    let ask = which.get(&asks).clone();
                    if !open.contains(&ask.id) {
                        prop_assert!(!world.tell(&ask, known(&username(&ask))));
                    }
                },
                Step::Pass { millis } => {
                    world.pass_millis(millis);
                    world.server.handle_timeout(world.now, &mut world.relays);
                }
                Step::Reload { asks, is_other_realm } => world.reload(|options| {
                    options.asks = policy.filter(|_| asks);
                    options.realm = if is_other_realm { OTHER_REALM } else { REALM };
                }),
            }
            while let Some((to, answer)) = world.next_late() {
                let reply = answer.reply();
                prop_assert_eq!(waits.remove(&reply.transaction_id), Some(to), "nobody waits for this");
                prop_assert!(late.insert(reply.transaction_id), "a second answer");
            }
            prop_assert_eq!(world.server.waiting().requests, waits.len());
            check_counts(&world);
            world.check_books();
        }
        world.pass(5);
        world.server.handle_timeout(world.now, &mut world.relays);
        while world.next_late().is_some() {}
        prop_assert_eq!((world.server.waiting().requests, world.server.waiting().bytes), (0, 0));
        check_counts(&world);
    }
}
