//! What the budgets give, and to whom.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::clock::SECOND;

const LIMIT: RateLimit = RateLimit { per_second: 10, burst: 20 };

fn limiter(limit: Option<RateLimit>) -> RateLimiter {
    RateLimiter::new(limit, Arc::default())
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The /64 of this number in 2001:db8::/48.
fn network(number: u16) -> IpAddr {
    Ipv6Addr::from([0x2001, 0xdb8, 0, number, 0, 0, 0, 1]).into()
}

fn answers(limiter: &RateLimiter, now_micros: u64, ip: IpAddr, requests: u32) -> u32 {
    (0..requests).map(|_| u32::from(limiter.allow(now_micros, ip))).sum()
}

#[test]
fn a_prefix_gets_its_burst_and_then_its_rate() {
    let limiter = limiter(Some(LIMIT));
    assert_eq!(answers(&limiter, 0, ip("192.0.2.1"), 100), 20);
    assert_eq!(answers(&limiter, SECOND, ip("192.0.2.1"), 100), 10);
    assert_eq!(answers(&limiter, 100 * SECOND, ip("192.0.2.1"), 100), 20);
}

#[test]
fn hosts_of_one_prefix_share_the_budget_and_neighbours_have_their_own() {
    let limiter = limiter(Some(LIMIT));
    assert_eq!(answers(&limiter, 0, ip("192.0.2.1"), 20), 20);
    for same in ["192.0.2.0", "192.0.2.255", "::ffff:192.0.2.7"] {
        assert!(!limiter.allow(0, ip(same)), "{same}");
    }
    for other in ["192.0.1.255", "192.0.3.0", "::c000:0201"] {
        assert!(limiter.allow(0, ip(other)), "{other}");
    }
    assert_eq!(answers(&limiter, 0, ip("2001:db8:0:1::"), 30), 20);
    assert!(!limiter.allow(0, ip("2001:db8:0:1:ffff:ffff:ffff:ffff")));
    assert!(limiter.allow(0, ip("2001:db8::ffff:ffff:ffff:ffff")));
    assert!(limiter.allow(0, ip("2001:db8:0:2::")));
}

#[test]
fn all_workers_together_have_one_budget() {
    let budgets = Arc::<AnswerBudgets>::default();
    let workers = [(); 8].map(|()| RateLimiter::new(Some(LIMIT), Arc::clone(&budgets)));
    let answered: u32 = workers.iter().map(|worker| answers(worker, 0, ip("192.0.2.1"), 15)).sum();
    assert_eq!(answered, 20);
    // At the same moment, too: what a race lets through is no more than an answer a worker and bucket.
    let answered: u32 = std::thread::scope(|scope| {
        let at_once = |worker| scope.spawn(move || answers(worker, SECOND, ip("192.0.2.1"), 10_000));
        let threads: Vec<_> = workers.iter().map(at_once).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert!((10..=10 + 8).contains(&answered), "{answered}");
}

#[test]
fn no_limit_answers_everything_without_a_table() {
    let limiter = limiter(None);
    assert_eq!(answers(&limiter, 0, ip("192.0.2.1"), 1000), 1000);
    assert!(limiter.budgets.tables.get().is_none());
}

#[test]
fn a_limit_of_zero_answers_nothing() {
    for limit in [RateLimit { per_second: 0, burst: 5 }, RateLimit { per_second: 5, burst: 0 }] {
        let limiter = limiter(Some(limit));
        assert_eq!(answers(&limiter, 0, ip("192.0.2.1"), 10), 0);
        assert_eq!(answers(&limiter, 60 * SECOND, ip("192.0.2.1"), 10), 0);
    }
}

#[test]
fn a_new_limit_holds_at_once_and_an_equal_one_forgives_nothing() {
    let budgets = Arc::<AnswerBudgets>::default();
    let mut workers = [(); 2].map(|()| RateLimiter::new(Some(LIMIT), Arc::clone(&budgets)));
    let [first, second] = &mut workers;
    assert_eq!(answers(first, 0, ip("192.0.2.1"), 100), 20);
    first.set_limit(Some(LIMIT));
    assert_eq!(answers(first, 0, ip("192.0.2.1"), 100), 0);
    let changed = Some(RateLimit { per_second: 1, burst: 3 });
    first.set_limit(changed);
    assert_eq!(answers(first, 0, ip("192.0.2.1"), 100), 3);
    // It was the first to hear of the change.
    second.set_limit(changed);
    assert_eq!(answers(second, 0, ip("192.0.2.1"), 100), 0);
    first.set_limit(None);
    assert_eq!(answers(first, 0, ip("192.0.2.1"), 100), 100);
}

#[test]
fn a_million_sources_free_nobody_and_cost_no_memory() {
    // The wider budgets are so large here that it depends on the table of /24 and /64 alone.
    let huge = RateLimit { per_second: 10_000_000, burst: 10_000_000 };
    let paces = Paces { near: Pace::new(LIMIT, 1, 1), ..Paces::new(huge) };
    let limiter = RateLimiter { paces: Some(paces), budgets: Arc::default() };
    let size = |table: &Table| size_of_val(&*table.0);
    let tables = || {
        let tables = limiter.budgets.tables();
        [&tables.near, &tables.wide, &tables.far].map(|table| (table.0.as_ptr(), size(table)))
    };
    let before = tables();
    assert_eq!(before.map(|(_, size)| size), [256 * 1024, 64 * 1024, 16 * 1024]);
    let victim = ip("198.51.100.1");
    let sources = 1_000_000_u32;
    let (mut victims_answers, mut sources_refused) = (0, 0);
    for source in 0..sources {
        let network = u128::from(source) << 64 | 0x2a00 << 112;
        // A million requests in one second, and as many that claim to come from the victim.
        let now_micros = u64::from(source);
        sources_refused += u32::from(!limiter.allow(now_micros, IpAddr::V6(Ipv6Addr::from_bits(network))));
        victims_answers += u32::from(limiter.allow(now_micros, victim));
    }
    assert_eq!(sources_refused, 0, "each source asked only once");
    let budget = LIMIT.burst + LIMIT.per_second;
    let freed = sources / (NEAR_SETS * BUCKETS_PER_SET) as u32;
    assert!(victims_answers >= budget - 1, "{victims_answers}");
    assert!(victims_answers <= budget + 2 * freed, "{victims_answers}");
    assert_eq!(tables(), before);
}

/// Forged from all of a /48, a /16 or a /32: `seconds` of one request a millisecond and more.
fn attack(limiter: &RateLimiter, seconds: u64, per_milli: u32, source: impl Fn(u32) -> IpAddr) -> u32 {
    let requests = seconds * 1000 * u64::from(per_milli);
    let at = |request: u64| (request * 1000 / u64::from(per_milli), source(request as u32));
    (0..requests).map(at).map(|(now_micros, ip)| u32::from(limiter.allow(now_micros, ip))).sum()
}

#[test]
fn a_wide_prefix_gets_ten_times_and_an_ipv6_32_a_hundred_times_what_one_network_gets() {
    type Sources<'s> = &'s dyn Fn(u32) -> IpAddr;
    const SECONDS: u64 = 20;
    let at_most = |times: u32| times * (LIMIT.burst + SECONDS as u32 * LIMIT.per_second);
    let within_48 = |n: u32| network(n as u16);
    let within_16 = |n: u32| Ipv4Addr::from([198, 51, n as u8, 1]).into();
    let within_32 = |n: u32| Ipv6Addr::from([0x2001, 0xdb8, n as u16, (n >> 16) as u16, 0, 0, 0, 1]).into();
    let anywhere = |n: u32| Ipv4Addr::from_bits(n.wrapping_mul(0x9e37_79b1)).into();
    let attacks: [(&str, u32, Sources<'_>); 4] = [
        ("/48", RateLimit::WIDE, &within_48),
        ("/16", RateLimit::WIDE, &within_16),
        ("/32", RateLimit::FAR, &within_32),
        ("everywhere", RateLimit::ALL, &anywhere),
    ];
    for (what, times, source) in attacks {
        let limiter = limiter(Some(LIMIT));
        let answered = attack(&limiter, SECONDS, 20, source);
        println!("{what}: {answered} of {} answered", 20 * 1000 * SECONDS);
        assert!(answered <= at_most(times) + 8, "{what}: {answered}");
        assert!(answered >= at_most(times) * 3 / 4, "a part is for who is quiet; {what}: {answered}");
    }
}

/// Whether each place for one of the wider prefixes around somebody has been taken, and is in debt.
fn has_a_crowded_set(limiter: &RateLimiter, now_micros: u64, ip: IpAddr) -> bool {
    let (tables, key) = (limiter.budgets.tables(), &limiter.budgets.key);
    let is_crowded = |table: &Table, hash: u64| {
        let Set(buckets) = &table.0[(hash % table.0.len() as u64) as usize];
        buckets.iter().all(|bucket| bucket.paid_until_nanos.load(Relaxed) > now_micros * 1000)
    };
    let either_share = |table: &Table, prefix: u64| {
        [Share::Open, Share::Reserve].iter().any(|share| is_crowded(table, key.hash_one((*share as u8, prefix))))
    };
    prefixes(ip).1.into_iter().flatten().any(|prefix| match prefix {
        Wider::Wide(prefix) => either_share(&tables.wide, prefix),
        Wider::Far(prefix) => either_share(&tables.far, prefix),
        Wider::All => false,
    })
}

#[test]
fn who_is_outside_of_an_attacked_prefix_notices_nothing() {
    const NEWCOMERS: [&str; 5] = ["203.0.113.9", "203.0.114.9", "2a00:1::1", "2a00:1:0:1::1", "198.51.100.7"];
    // The /48s of one /32, and two hundred /16s, which spend the budget for all.
    let source = |n: u32| match n % 2 {
        0 => Ipv6Addr::from([0x2001, 0xdb8, (n / 2) as u16, 0, 0, 0, 0, 1]).into(),
        _ => Ipv4Addr::from([(n / 2 % 200) as u8, 7, (n >> 9) as u8, 1]).into(),
    };
    let now = 10 * SECOND;
    // Where four of the attackers' budgets share a set with somebody's, which the keys decide, he has one answer left.
    let (mut attackers, mut unharmed) = (0, 0);
    for _ in 0..10 {
        let limiter = limiter(Some(LIMIT));
        attack(&limiter, 10, 100, source);
        attackers += (0..200).filter(|n| limiter.allow(now, Ipv4Addr::from([*n, 7, 99, 1]).into())).count();
        for newcomer in NEWCOMERS {
            let is_crowded = has_a_crowded_set(&limiter, now, ip(newcomer));
            let answers = answers(&limiter, now, ip(newcomer), 10);
            assert!(answers == 10 || (is_crowded && answers >= 1), "{newcomer}: {answers}");
            unharmed += usize::from(answers == 10);
        }
    }
    println!("{attackers} of 2000 attackers are answered, {unharmed} of 50 newcomers notice nothing");
    assert!(attackers < 50, "the budget for all is not spent: {attackers}");
    assert!(unharmed >= 47, "{unharmed} of 50 notice nothing");
}

#[test]
fn the_neighbours_of_a_few_that_ask_too_much_are_answered_out_of_the_reserve() {
    let limiter = limiter(Some(LIMIT));
    // Fifty /64s ask for 200 a second each, and spend the budget of their /48.
    attack(&limiter, 30, 10, |n| network(n as u16 % 50));
    assert!((0..50).filter(|n| limiter.allow(30 * SECOND, network(*n))).count() <= 1);
    let neighbours = (100..130).filter(|n| limiter.allow(30 * SECOND, network(*n))).count();
    assert_eq!(neighbours, 30);
}

#[test]
fn who_has_been_answered_keeps_a_share_beside_any_number_of_newcomers() {
    let limiter = limiter(Some(LIMIT));
    let (mut now, mut tried, mut answered, mut random) = (0, 0, 0, 1_u32);
    for newcomer in 0..60_000_u32 {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // A millisecond on average.
        now += u64::from(random >> 16) * 2000 / 65_536;
        match random % 65_521 % 250 {
            0 => {
                tried += 1;
                answered += u32::from(limiter.allow(now, network(7)));
            }
            // Each of the others asks once in a minute.
            _ => {
                limiter.allow(now, network(1000 + newcomer as u16));
            }
        }
    }
    println!("{answered} of {tried} tries beside 60,000, for some 6000 answers in that time");
    assert!(answered * 20 > tried, "{answered} of {tried}");
}

fn any_limit() -> impl Strategy<Value = RateLimit> {
    (1..200_u32, 1..300_u32).prop_map(|(per_second, burst)| RateLimit { per_second, burst })
}

proptest! {
    #[test]
    fn no_prefix_gets_more_than_its_budget_whoever_asks_in_which_order(
        limit in any_limit(),
        asks in prop::collection::vec((0..3000_u64, 0..4_u16, 0..4_u16, 0..4_u16, 1..40_u32), 1..300),
    ) {
        let limiter = limiter(Some(limit));
        let mut now = 0;
        let mut answered = std::collections::HashMap::<(u8, u128), u32>::new();
        for (pause_micros, far, wide, near, times) in asks {
            now += pause_micros;
            let ip = Ipv6Addr::from([0x2001, far, wide, near, 0, 0, 0, 1]);
            let given = answers(&limiter, now, ip.into(), times);
            for length in [0, 32, 48, 64] {
                let prefix = ip.to_bits().checked_shr(128 - length).unwrap_or(0);
                *answered.entry((length as u8, prefix)).or_default() += given;
            }
        }
        for ((length, _), given) in answered {
            let times = match length {
                64 => 1,
                48 => RateLimit::WIDE,
                32 => RateLimit::FAR,
                _ => RateLimit::ALL,
            };
            // Whole nanoseconds make an answer up to one part in 10,000 cheaper here.
            let most = u64::from(times) * (u64::from(limit.burst) + now * u64::from(limit.per_second) / SECOND + 1);
            prop_assert!(u64::from(given) <= most + most / 1000, "{given} of a /{length} that may have {most}");
        }
    }

    #[test]
    fn a_network_that_asks_within_its_own_budget_is_answered_while_no_wider_one_is_spent(
        (limit, seconds) in (any_limit(), 0..100_u64),
        networks in prop::collection::hash_set(0..1_u32 << 24, 1..100),
    ) {
        // 8 bursts of a /16 are at least a hundred answers.
        let limit = RateLimit { burst: limit.burst.max(13), ..limit };
        let limiter = limiter(Some(limit));
        for network in networks {
            let given = answers(&limiter, seconds * SECOND, Ipv4Addr::from_bits(network << 8).into(), 1);
            prop_assert_eq!(given, 1);
        }
    }
}
