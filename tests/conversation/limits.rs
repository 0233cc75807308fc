//! Bandwidth caps on the data path.

use turnstone::addr::Family;
use turnstone::policy::BandwidthLimits;
use turnstone::reject::Dropped;
use turnstone::turn::Event;

use crate::harness::*;

/// Sends packets of 1000 bytes until one is dropped; how many passed.
fn until_dropped(mut send: impl FnMut() -> Result<(), Dropped>) -> usize {
    for passed in 0..10_000 {
        if let Err(dropped) = send() {
            assert_eq!(dropped, Dropped::Bandwidth);
            return passed;
        }
    }
    panic!("nothing was dropped");
}

#[test]
fn each_direction_of_an_allocation_has_its_own_cap_over_channels_and_indications() {
    let limits = BandwidthLimits { per_allocation: Some(100_000), per_user: None, ..BandwidthLimits::default() };
    let mut world = World::with(|options| options.bandwidth = limits);
    let login = world.allocated(1);
    let relay = world.relay(Family::V4);
    world.bind(&login, 0x4000, peer(1));
    let payload = [0; 1000];
    let up = until_dropped(|| world.channel_data(login.client, 0x4000, &payload).map(|_| ()));
    assert!((50..=200).contains(&up), "{up} packets of 1000 bytes");
    assert_eq!(world.send(login.client, peer(1), &payload).dropped(), Dropped::Bandwidth);
    let down = until_dropped(|| world.inbound(relay, peer(1), 1000).map(|_| ()));
    assert_eq!(up, down);

    world.pass(1);
    let again = until_dropped(|| world.channel_data(login.client, 0x4000, &payload).map(|_| ()));
    assert!((95..=105).contains(&again), "{again} packets after one second");

    let other = world.allocated(2);
    world.bind(&other, 0x4000, peer(1));
    world.channel_data(other.client, 0x4000, &payload).unwrap();

    world.events();
    world.refresh(&login, Some(0));
    let events = world.events();
    let Some(Event::Ended(summary)) = events.last() else { panic!("{events:?}") };
    assert_eq!(summary.throttled, 4);
    assert_eq!(summary.to_peers, traffic((up + again) as u64, (up + again) as u64 * 1000));
    assert_eq!(summary.to_client, traffic(down as u64, down as u64 * 1000));
}

#[test]
fn a_user_s_cap_holds_over_all_allocations_of_the_user() {
    let limits = BandwidthLimits { per_allocation: None, per_user: Some(100_000), ..BandwidthLimits::default() };
    let mut world = World::with(|options| options.bandwidth = limits);
    let first = world.allocated(1);
    let second = world.allocated(2);
    let bob = world.login(client(3), "bob", "builder");
    world.allocate(&bob);
    for login in [&first, &second, &bob] {
        world.bind(login, 0x4000, peer(1));
    }
    until_dropped(|| world.channel_data(first.client, 0x4000, &[0; 1000]).map(|_| ()));
    assert_eq!(world.channel_data(second.client, 0x4000, &[0; 1000]).unwrap_err(), Dropped::Bandwidth);
    world.channel_data(bob.client, 0x4000, &[0; 1000]).unwrap();
    // A new allocation does not come with a new bucket.
    world.refresh(&first, Some(0));
    world.refresh(&second, Some(0));
    let again = world.allocated(4);
    world.bind(&again, 0x4000, peer(1));
    assert_eq!(world.channel_data(again.client, 0x4000, &[0; 1000]).unwrap_err(), Dropped::Bandwidth);
}

#[test]
fn packets_without_payload_pass_a_cap_no_more_than_others_do() {
    let limits = BandwidthLimits { per_allocation: Some(100_000), ..BandwidthLimits::default() };
    let mut world = World::with(|options| options.bandwidth = limits);
    let login = world.allocated(1);
    let relay = world.relay(Family::V4);
    world.bind(&login, 0x4000, peer(1));
    let up = until_dropped(|| world.channel_data(login.client, 0x4000, &[]).map(|_| ()));
    assert_eq!(up, 100_000 / 128, "800 kbit/s is so many packets a second");
    assert_eq!(world.send(login.client, peer(1), &[]).dropped(), Dropped::Bandwidth);
    assert_eq!(until_dropped(|| world.inbound(relay, peer(1), 0).map(|_| ())), up);
    world.pass(1);
    assert_eq!(until_dropped(|| world.channel_data(login.client, 0x4000, &[]).map(|_| ())), up);
}
