//! What an answer grants, who is told to whom it is about, and what never waits.

use turnstone::auth::UsernameLimits;
use turnstone::reject::Dropped;

use super::*;

fn limits(text: &str) -> UsernameLimits {
    UsernameLimits::split(text).unwrap().1
}

#[test]
fn an_answer_limits_its_user_as_a_username_does() {
    let mut world = asking();
    let [first, second] = [1, 2].map(|n| world.someone(client(n), "erin"));
    world.wait_for(&first);
    let ask = world.asked();
    assert_eq!(
        (ask.client, ask.question.clone()),
        (client(1).five_tuple, Question::Credential { username: "erin".into(), realm: REALM.into() })
    );
    let Told::Known(credential) = known("erin") else { unreachable!() };
    assert!(world.tell(&ask, Told::Known(credential.counting_on("tenant").limited_to(limits(";alloc=1")))));
    assert_eq!(world.next_late().unwrap().1.reply().code(), None);
    let request = world.allocation_of(&second);
    assert_eq!(world.hand_in(second.client, &request).reply().code(), Some(486));
    let refused = refusals(&world.events());
    assert_eq!(refused, [Reason::UserQuota]);
}

#[test]
fn a_peer_policy_that_is_not_there_is_refused_though_the_application_names_it() {
    let mut world = asking();
    let login = world.someone(client(1), "erin");
    world.wait_for(&login);
    let ask = world.asked();
    let Told::Known(credential) = known("erin") else { unreachable!() };
    world.tell(&ask, Told::Known(credential.limited_to(limits(";peers=gone"))));
    assert_eq!(world.next_late().unwrap().1.reply().code(), Some(403));
    assert_eq!(refusals(&world.events()), [Reason::UnknownPeerPolicy]);
}

#[test]
fn a_connection_bind_never_waits_and_goes_by_the_credential_of_its_allocation() {
    let mut world = World::with(|options| {
        options.asks = Some(AskPolicy::default());
        options.tcp_relays = Some(turnstone::turn::TcpRelays::default());
    });
    let login = world.someone(client_over(Transport::Tcp, 1), "erin");
    let request = login.request(world.transaction_id(), Method::CONNECTION_BIND, |request| {
        request.u32(AttributeType::CONNECTION_ID, 7);
    });
    assert_eq!(world.hand_in(login.client, &request).reply().code(), Some(401));
    assert_eq!((world.server.poll_ask(), world.server.waiting().requests), (None, 0));
}

#[test]
fn a_request_that_another_worker_has_passed_on_is_not_asked_about() {
    let mut world = asking();
    let login = world.someone(client(1), "erin");
    let request = world.allocation_of(&login);
    let mut reply = Vec::new();
    let outcome =
        world.server.handle_passed_on(world.now, &login.client, Some(1), &request, &mut world.relays, &mut reply);
    assert_eq!((outcome, world.server.poll_ask()), (Outcome::Reply, None));
    assert_eq!(Reply::read(reply).code(), Some(401));
    let answer = world.channel_data(client(1), 0x4000, b"x");
    assert_eq!(answer.unwrap_err(), Dropped::NoAllocation);
}
