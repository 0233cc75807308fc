//! Places that are counted over all workers, each under a number of its own and with something in it: the connections of TCP relays.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::user::User;

/// Places that are gone and still count for their users; beyond, the one counts no more that would have been over first.
const COOLING_MAX: usize = 65_536;

/// The places of all workers, and how many each user has.
pub(crate) struct Places<V>(Mutex<Held<V>>);

struct Held<V> {
    by_number: HashMap<u32, Option<V>>,
    /// Those that are cooling among them.
    by_user: HashMap<User, usize>,
    /// Places that are gone, by the time until which they count, and the numbers that they had.
    cooling: BTreeMap<(u64, u32), User>,
}

impl<V> Default for Held<V> {
    fn default() -> Self {
        Self { by_number: HashMap::new(), by_user: HashMap::new(), cooling: BTreeMap::new() }
    }
}

impl<V> Default for Places<V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<V> Places<V> {
    /// How many there are, those not counted that are cooling.
    pub(crate) fn len(&self) -> usize {
        self.lock().by_number.len()
    }

    /// A place for a user who may have `most`, under the first of the numbers that is free; `None` when there are as many, or
    /// have been a moment ago.
    pub(crate) fn hold(
        self: &Arc<Self>,
        user: &User,
        most: usize,
        now_micros: u64,
        mut number: impl FnMut() -> u32,
    ) -> Option<Place<V>> {
        let mut held = self.lock();
        held.forget_cooled(now_micros);
        let of_user = held.by_user.get(user).copied().unwrap_or_default();
        if of_user >= most {
            return None;
        }
        let number = loop {
            let number = number();
            if !held.by_number.contains_key(&number) {
                break number;
            }
        };
        held.by_number.insert(number, None);
        held.by_user.insert(user.clone(), of_user + 1);
        Some(Place { places: Arc::clone(self), number, user: user.clone(), counts_until_micros: None })
    }

    /// Looks into a place, and may change what is in it; `None` when there is none.
    pub(crate) fn look<R>(&self, number: u32, look: impl FnOnce(&mut Option<V>) -> R) -> Option<R> {
        self.lock().by_number.get_mut(&number).map(look)
    }

    fn lock(&self) -> MutexGuard<'_, Held<V>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V> Held<V> {
    /// Lets what has been gone long enough count no more.
    fn forget_cooled(&mut self, now_micros: u64) {
        while self.cooling.first_key_value().is_some_and(|((until, _), _)| *until <= now_micros) {
            self.forget_first_cooling();
        }
    }

    fn forget_first_cooling(&mut self) {
        if let Some((_, user)) = self.cooling.pop_first() {
            self.count_down(&user);
        }
    }

    fn cool(&mut self, until_micros: u64, number: u32, user: User) {
        // Another one of this number and time is as good as over.
        if let Some(other) = self.cooling.insert((until_micros, number), user) {
            self.count_down(&other);
        }
        if self.cooling.len() > COOLING_MAX {
            self.forget_first_cooling();
        }
    }

    fn count_down(&mut self, user: &User) {
        if let Some(count) = self.by_user.get_mut(user) {
            *count -= 1;
            if *count == 0 {
                self.by_user.remove(user);
            }
        }
        if self.by_number.is_empty() && self.cooling.is_empty() {
            *self = Self::default();
        }
    }
}

impl<V> fmt::Debug for Places<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Places({})", self.len())
    }
}

/// A place; dropping it gives it back.
pub(crate) struct Place<V> {
    places: Arc<Places<V>>,
    number: u32,
    user: User,
    counts_until_micros: Option<u64>,
}

impl<V> Place<V> {
    /// Its number.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Puts something in.
    pub(crate) fn put(&self, value: V) {
        self.places.look(self.number, |content| *content = Some(value));
    }

    /// Gives it back, but lets it count for its user until then.
    pub(crate) fn cool(mut self, until_micros: u64) {
        self.counts_until_micros = Some(until_micros);
    }
}

impl<V> Drop for Place<V> {
    fn drop(&mut self) {
        let mut held = self.places.lock();
        held.by_number.remove(&self.number);
        match self.counts_until_micros {
            Some(until_micros) => held.cool(until_micros, self.number, self.user.clone()),
            None => held.count_down(&self.user),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_one_place_and_comes_back_with_its_user_s_count() {
        let places = Arc::new(Places::<&str>::default());
        let user = User::fixed("ann");
        let mut numbers = [7, 7, 7, 8].into_iter();
        let first = places.hold(&user, 2, 0, || numbers.next().unwrap()).unwrap();
        let second = places.hold(&user, 2, 0, || numbers.next().unwrap()).unwrap();
        assert_eq!((first.number(), second.number()), (7, 8));
        assert!(places.hold(&user, 2, 0, || 9).is_none(), "the user has as many as allowed");
        first.put("here");
        assert_eq!(places.look(7, Option::take), Some(Some("here")));
        assert_eq!(places.look(9, Option::take), None);
        drop((first, second));
        assert!(places.len() == 0 && places.lock().by_user.is_empty());
    }

    #[test]
    fn a_place_that_cools_has_no_number_and_counts_for_its_user_until_its_time() {
        let places = Arc::new(Places::<()>::default());
        let (ann, bob) = (User::fixed("ann"), User::fixed("bob"));
        places.hold(&ann, 2, 0, || 1).unwrap().cool(20);
        places.hold(&ann, 2, 0, || 1).unwrap().cool(10);
        assert_eq!(places.len(), 0);
        assert!(places.hold(&ann, 2, 9, || 1).is_none() && places.hold(&bob, 1, 9, || 1).is_some());
        let again = places.hold(&ann, 2, 10, || 1).unwrap();
        assert!(places.hold(&ann, 2, 19, || 2).is_none());
        // Two of one number and time.
        again.cool(30);
        places.hold(&ann, 2, 20, || 1).unwrap().cool(30);
        drop(places.hold(&ann, 1, 30, || 2).unwrap());
        assert!(places.lock().by_user.is_empty() && places.lock().cooling.is_empty());
    }

    #[test]
    fn what_cools_is_bounded_over_all_users() {
        let places = Arc::new(Places::<()>::default());
        let first = User::fixed("first");
        places.hold(&first, 1, 0, || 1).unwrap().cool(10);
        for number in 0..COOLING_MAX as u32 {
            assert!(places.hold(&first, 1, 0, || 1).is_none());
            places.hold(&User::fixed(number.to_string()), 1, 0, || number).unwrap().cool(11);
        }
        assert!(places.hold(&first, 1, 0, || 1).is_some());
        assert_eq!(places.lock().cooling.len(), COOLING_MAX);
    }
}
