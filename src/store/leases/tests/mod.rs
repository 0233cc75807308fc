//! The algorithm against a model of the store, and the model against a real one.

mod fleet;
mod model;
mod redis;
mod scale;

use proptest::collection::vec;
use proptest::prelude::*;

use super::node::{Node, Terms, WAIT_MICROS};
use crate::policy::{Quotas, WithoutShare};
use crate::user::User;

use fleet::{Fleet, Step};

fn step() -> impl Strategy<Value = Step> {
    let server = 0..4_u8;
    prop_oneof![
        6 => (1..3_000_u32).prop_map(Step::Wait),
        3 => (3_000..90_000_u32).prop_map(Step::Wait),
        12 => (server.clone(), proptest::option::weighted(0.1, 1..5_u8))
            .prop_map(|(server, stricter)| Step::Allocate { server, stricter }),
        6 => (server.clone(), any::<u8>()).prop_map(|(server, which)| Step::End { server, which }),
        14 => any::<u8>().prop_map(Step::CarryOut),
        1 => any::<u8>().prop_map(Step::CarryOutTwice),
        14 => any::<u8>().prop_map(Step::Answer),
        1 => any::<u8>().prop_map(Step::LoseAnswer),
        2 => server.clone().prop_map(Step::CutOff),
        2 => server.clone().prop_map(Step::Join),
        1 => server.prop_map(Step::Die),
        1 => Just(Step::Pause),
        2 => Just(Step::Resume),
        1 => Just(Step::Flush),
        1 => Just(Step::SetForward),
    ]
}

/// What goes on while a store answers.
fn usual_step() -> impl Strategy<Value = Step> {
    let server = 0..4_u8;
    prop_oneof![
        6 => (1..20_000_u32).prop_map(Step::Wait),
        12 => server.clone().prop_map(|server| Step::Allocate { server, stricter: None }),
        6 => (server, any::<u8>()).prop_map(|(server, which)| Step::End { server, which }),
        8 => any::<u8>().prop_map(Step::CarryOut),
        8 => any::<u8>().prop_map(Step::Answer),
    ]
}

fn without() -> impl Strategy<Value = WithoutShare> {
    prop_oneof![
        3 => Just(WithoutShare::Refuse),
        2 => Just(WithoutShare::LocalShare),
        1 => Just(WithoutShare::Allow),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn whatever_fails_no_more_is_granted_than_is_documented_and_all_comes_back(
        limit in 1..12_u32,
        speeds in vec(900..1100_u64, 2..5),
        without in without(),
        steps in vec(step(), 1..250),
    ) {
        let mut fleet = Fleet::new(limit, &speeds, without);
        for step in &steps {
            fleet.take(step);
        }
        // What died, was cut off or forgotten is made good within two terms: what is noted is what there is.
        fleet.recover();
        prop_assert_eq!(fleet.noted(), fleet.live());
        // And what is left can be had, at any server.
        let before = fleet.live();
        for n in 0..u64::from(limit) + 2 {
            fleet.allocate(n as usize % speeds.len(), None);
            fleet.settle();
            fleet.take(&Step::Wait(0));
        }
        prop_assert!(fleet.live() >= before);
        if before <= u64::from(limit) {
            fleet.recover();
            for n in 0..u64::from(limit) {
                fleet.allocate(n as usize % speeds.len(), None);
                fleet.settle();
            }
            prop_assert_eq!(fleet.live(), u64::from(limit));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// The rows of the table in docs/store.md, as numbers: L, and L more for each server that is cut off and for each time that the store forgets.
    #[test]
    fn each_server_that_is_cut_off_and_each_loss_costs_the_limit_once_more_at_most(
        limit in 1..12_u32,
        cut_off in 0..4_u8,
        losses in 0..3_usize,
        without in without(),
        steps in vec(usual_step(), 3..200),
    ) {
        let mut fleet = Fleet::new(limit, &[1000, 950, 1050, 1000], without);
        let (mut bound, mut most) = (1, 0);
        for (n, step) in steps.iter().enumerate() {
            if n == steps.len() / 3 {
                (0..cut_off).for_each(|server| fleet.take(&Step::CutOff(server)));
                bound += u64::from(cut_off);
            }
            if n >= steps.len() / 2 && n < steps.len() / 2 + losses {
                fleet.take(&Step::Flush);
                bound += 1;
            }
            match step {
                // Who is not cut off is answered in time.
                Step::Wait(millis) => {
                    for piece in (0..*millis).step_by(400) {
                        fleet.settle();
                        fleet.take(&Step::Wait((millis - piece).min(400)));
                    }
                }
                step => fleet.take(step),
            }
            most = most.max(fleet.live());
            prop_assert!(fleet.live() <= bound * u64::from(limit), "{} of {bound} times {limit}", fleet.live());
        }
        prop_assert!(most <= 4 * u64::from(limit), "no server has more than the limit");
    }
}

/// A user has all of his limit at one server, whose calls get lost in between: how many there are in the end, at two servers.
fn after_a_late_return(believes_late_calls: bool) -> u64 {
    let mut fleet = Fleet::new(4, &[1000, 1000], WithoutShare::Refuse);
    (fleet.store.believes_late_calls, fleet.is_checked) = (believes_late_calls, false);
    fleet.fill(0);
    assert_eq!(fleet.live(), 4);
    for _ in 0..4 {
        fleet.take(&Step::End { server: 0, which: 0 });
    }
    // The return is under way. The server hears nothing, and tries again with success.
    fleet.take(&Step::Wait(2_100));
    fleet.carry_out_last();
    fleet.fill(0);
    assert_eq!(fleet.live(), 4);
    // Now the first one is carried out, which says that there is nothing at this server.
    fleet.settle();
    fleet.fill(1);
    fleet.live()
}

#[test]
fn a_return_that_is_carried_out_late_would_pass_the_limit_if_it_had_no_number() {
    assert_eq!(after_a_late_return(false), 4);
    assert!(after_a_late_return(true) > 4);
}

#[test]
fn what_is_over_the_limit_is_not_replaced() {
    let mut fleet = Fleet::new(4, &[1000, 1000], WithoutShare::Refuse);
    fleet.fill(0);
    fleet.take(&Step::CutOff(0));
    fleet.take(&Step::Wait(70_000));
    fleet.fill(1);
    assert_eq!(fleet.live(), 8);
    fleet.take(&Step::Join(0));
    fleet.take(&Step::Wait(5_000));
    fleet.settle();
    for left in [7, 6, 5, 4] {
        fleet.take(&Step::End { server: 0, which: 0 });
        fleet.take(&Step::Allocate { server: 0, stricter: None });
        fleet.settle();
        fleet.take(&Step::Wait(1_500));
        assert_eq!(fleet.live(), left);
    }
    fleet.take(&Step::End { server: 1, which: 0 });
    fleet.settle();
    fleet.take(&Step::Allocate { server: 0, stricter: None });
    fleet.settle();
    assert_eq!(fleet.live(), 4);
}

#[test]
fn what_a_server_that_has_died_had_is_free_within_a_term() {
    let mut fleet = Fleet::new(4, &[1000, 1000], WithoutShare::Refuse);
    fleet.fill(0);
    fleet.take(&Step::Wait(30_000));
    fleet.settle();
    fleet.take(&Step::Die(0));
    fleet.take(&Step::Wait(1_000));
    fleet.fill(1);
    assert_eq!(fleet.live(), 0);
    fleet.take(&Step::Wait(60_000));
    fleet.fill(1);
    assert_eq!(fleet.live(), 4);
}

#[test]
fn of_more_than_can_be_asked_about_in_time_the_last_are_and_nobody_asks_for_who_waits_no_more() {
    let quotas = std::sync::Arc::new(Quotas::default());
    quotas.set_fleet(false, 2);
    let mut node = Node::new(quotas, Terms { term_micros: fleet::TERM_MICROS });
    let begin = 1_000_000_000;
    // One each ten milliseconds.
    for n in 0..30 {
        node.ask(begin + n * 10_000, &User::fixed(format!("u{n}")), 10, n).unwrap();
    }
    let now = begin + 290_000;
    let asked: Vec<_> = node.poll_calls(now, 2).into_iter().map(|call| call.user).collect();
    assert_eq!(asked, [29, 28].map(|n| User::fixed(format!("u{n}"))));
    let asked = node.poll_calls(now, usize::MAX).len() as u64;
    assert_eq!((asked, node.counts().late), (WAIT_MICROS / 10_000 + 1 - 2, 9));
    // Nothing is left of those.
    assert_eq!(node.totals().0, 21);
}
