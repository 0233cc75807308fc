//! `docs/scale.md`: what becomes of a store, its servers and their users where there are a thousand servers with ten million allocations.
//!
//! The test plays it and compares the figures and the plot of the page with what comes out. To write them anew:
//! `TURNSTONE_WRITE_REFERENCE=1 cargo test --lib --features dtls scale`.

mod page;
mod plan;
mod plot;
mod spread;
mod world;

use crate::policy::WithoutShare;
use plan::{
    BEAT_OF_ALL_MICROS, CALL_MICROS, CUT_OFF_ONE_OF, DIE, END, FILL_SECS, FLEET, FORGET, GREED, LOSE, MANY, Most,
    RETURN, SETTLE_SECS, SHARDS, START, TIMES,
};
use plot::{Field, Line};
use world::{Fault, Plan, Second, World};

#[test]
fn the_page_about_scale_has_the_figures_and_the_plot_of_the_simulation() {
    let on_loss = [WithoutShare::Refuse, WithoutShare::LocalShare, WithoutShare::Allow];
    let (fleet, (fixed, greed, spreads)) = std::thread::scope(|scope| {
        let rest = scope.spawn(|| {
            let spreads = [spread::by_chance(1), spread::by_resolvers(1), spread::by_anycast(1)];
            (fixed_window(), on_loss.map(greed), spreads)
        });
        (fleet(), rest.join().unwrap())
    });

    // What is true whatever the figures are. The store bears it, and recovers.
    let calls = |second: &Second| second.asked + second.kept;
    let capacity = 1_000_000 * SHARDS as u64 / CALL_MICROS / TIMES;
    assert!(fleet[20..DIE].iter().all(|second| calls(second) < capacity && second.late + second.without == 0));
    for after in [RETURN + 30, FORGET + 30] {
        let settled = &fleet[after..after + 20];
        assert!(settled.iter().all(|second| second.lost + second.without + second.late == 0), "{settled:?}");
    }
    assert!(fleet[LOSE + 3..RETURN].iter().all(|second| calls(second) == 0 && second.lost == FLEET.nodes as u64));
    // With as many calls as possible at once, it does not.
    assert!(fixed.iter().any(|second| second.failed > 0), "{fixed:?}");
    // Nobody gets more than docs/store.md promises.
    let cut_off = (GREED.nodes / CUT_OFF_ONE_OF) as u64;
    for most in &greed {
        assert!(most.usual <= GREED.limit.into() && most.cut_off <= (1 + cut_off) * u64::from(GREED.limit), "{most:?}");
        assert!(most.forgotten <= 2 * u64::from(GREED.limit), "{most:?}");
    }

    page::compare(&page::tables(&fleet, &fixed, &greed, &spreads), &picture(&fleet));
}

fn fleet() -> Vec<Second> {
    let mut world = World::new(FLEET, 1, FILL_SECS);
    pass(&mut world, SETTLE_SECS);
    let seconds = (0..END).map(|second| {
        match second {
            DIE => world.happens(Fault::Die { one_of: 10 }),
            START => world.happens(Fault::Start),
            LOSE => world.happens(Fault::Lose),
            RETURN => world.happens(Fault::Return { is_empty: false }),
            FORGET => world.happens(Fault::Return { is_empty: true }),
            _ => {}
        }
        world.second()
    });
    seconds.collect()
}

/// The minute after a store has come back to servers that each send as many calls at once as they may.
fn fixed_window() -> Vec<Second> {
    let plan = Plan { fixed_window: Some(MANY), beat_micros: BEAT_OF_ALL_MICROS * TIMES, ..FLEET };
    let mut world = World::new(plan, 1, FILL_SECS);
    pass(&mut world, 60);
    world.happens(Fault::Lose);
    pass(&mut world, 10);
    world.happens(Fault::Return { is_empty: false });
    (0..60).map(|_| world.second()).collect()
}

fn pass(world: &mut World, seconds: usize) {
    for _ in 0..seconds {
        world.second();
    }
}

fn greed(without: WithoutShare) -> Most {
    let mut world = World::new(Plan { without, ..GREED }, 1, 20);
    let most = |world: &mut World, secs: u64| (0..secs).map(|_| world.second().most).max().unwrap_or_default();
    pass(&mut world, 60);
    let usual = most(&mut world, 40);
    world.happens(Fault::CutOff { one_of: CUT_OFF_ONE_OF });
    let cut_off = most(&mut world, 140);
    world.happens(Fault::Join);
    pass(&mut world, 130);
    world.happens(Fault::Return { is_empty: true });
    let forgotten = most(&mut world, 40);
    Most { usual, cut_off, forgotten }
}

fn picture(fleet: &[Second]) -> String {
    let values = |of: fn(&Second) -> u64| fleet.iter().map(|second| of(second) * TIMES).collect::<Vec<_>>();
    let capacity = 1_000_000 * SHARDS as u64 / CALL_MICROS;
    let events = [
        (DIE, "a tenth dies"),
        (START, "they start"),
        (LOSE, "no store"),
        (RETURN, "back"),
        (FORGET, "store forgets all"),
    ];
    let store = Field {
        title: "calls of the store each second",
        most: (capacity * 6 / 5).next_multiple_of(40_000),
        across: Some(("what eight shards can do", capacity)),
        lines: vec![
            Line { name: "renewed and given back", class: "a", values: values(|second| second.kept) },
            Line { name: "asked for an Allocate", class: "c", values: values(|second| second.asked) },
        ],
    };
    let allocations = Field {
        title: "new allocations each second",
        most: 160_000,
        across: None,
        lines: vec![
            Line { name: "by a share", class: "a", values: values(|second| second.made) },
            Line { name: "without one", class: "d", values: values(|second| second.without) },
            Line { name: "refused", class: "c", values: values(|second| second.refused) },
        ],
    };
    plot::plot("A thousand servers, ten million allocations, and their store", &[store, allocations], &events)
}
