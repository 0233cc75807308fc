use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use proptest::prelude::*;
use turnstone::policy::{QuotaLimits, Quotas};
use turnstone::reject::Reason;
use turnstone::user::User;

proptest! {
    #[test]
    fn whatever_is_reserved_and_dropped_used_is_what_lives(
        steps in prop::collection::vec((0..4_usize, any::<bool>(), any::<prop::sample::Index>()), 0..200),
        per_user in prop::option::of(0..6_u32),
        total in prop::option::of(0..15_u32),
    ) {
        let users = [User::fixed("ann"), User::fixed("bob"), User::time_limited("ann"), User::time_limited("joe")];
        let limits = QuotaLimits { per_user, total, ..QuotaLimits::default() };
        let quotas = Arc::new(Quotas::default());
        let mut live = Vec::new();
        for (user, reserve, victim) in steps {
            if reserve {
                let of_user = live.iter().filter(|(owner, _)| *owner == user).count() as u32;
                let expected = if per_user.is_some_and(|limit| of_user >= limit) {
                    Err(Reason::UserQuota)
                } else if total.is_some_and(|limit| live.len() as u32 >= limit) {
                    Err(Reason::TotalQuota)
                } else {
                    Ok(())
                };
                let reserved = quotas.reserve(limits, &users[user], 0);
                prop_assert_eq!(reserved.as_ref().map(|_| ()).map_err(|reason| *reason), expected);
                live.extend(reserved.ok().map(|reservation| (user, reservation)));
            } else if !live.is_empty() {
                drop(live.swap_remove(victim.index(live.len())));
            }
            prop_assert_eq!(quotas.in_use() as usize, live.len());
            for (index, name) in users.iter().enumerate() {
                let of_user = live.iter().filter(|(owner, _)| *owner == index).count();
                prop_assert_eq!(quotas.in_use_by(name) as usize, of_user);
            }
            let owners: std::collections::BTreeSet<_> = live.iter().map(|(owner, _)| owner).collect();
            prop_assert_eq!(quotas.users(), owners.len());
        }
    }
}

#[test]
fn workers_that_race_never_exceed_a_limit_and_leave_nothing_behind() {
    let quotas = Arc::new(Quotas::default());
    let limits = QuotaLimits { per_user: Some(3), total: Some(5), ..QuotaLimits::default() };
    let (live, refused) = (AtomicU32::new(0), AtomicU32::new(0));
    thread::scope(|scope| {
        for worker in 0..8 {
            let (quotas, live, refused) = (&quotas, &live, &refused);
            let user = User::fixed(["ann", "bob"][worker % 2]);
            scope.spawn(move || {
                let mut held = Vec::new();
                for step in 0..5000 {
                    match quotas.reserve(limits, &user, 0) {
                        Ok(reservation) => {
                            assert!(live.fetch_add(1, Ordering::SeqCst) < 5);
                            held.push(reservation);
                        }
                        Err(_) => {
                            refused.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    if step % 3 == 0 && !held.is_empty() {
                        live.fetch_sub(1, Ordering::SeqCst);
                        held.pop();
                    }
                    if step % 64 == 0 {
                        thread::yield_now();
                    }
                }
                live.fetch_sub(held.len() as u32, Ordering::SeqCst);
            });
        }
    });
    assert!(refused.load(Ordering::Relaxed) > 0, "the limits were never reached");
    assert_eq!((quotas.in_use(), quotas.users()), (0, 0));
}
