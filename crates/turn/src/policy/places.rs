//! Places that are counted over all workers, each under a number of its own and with something in it: the connections of TCP relays.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::user::User;

/// The places of all workers, and how many each user has.
pub(crate) struct Places<V>(Mutex<Held<V>>);

struct Held<V> {
    by_number: HashMap<u32, Option<V>>,
    by_user: HashMap<User, usize>,
}

impl<V> Default for Held<V> {
    fn default() -> Self {
        Self { by_number: HashMap::new(), by_user: HashMap::new() }
    }
}

impl<V> Default for Places<V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<V> Places<V> {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.lock().by_number.len()
    }

    /// A place for a user who may have `most`, under the first of the numbers that is free; `None` when there are as many.
    pub(crate) fn hold(
        self: &Arc<Self>,
        user: &User,
        most: usize,
        mut number: impl FnMut() -> u32,
    ) -> Option<Place<V>> {
        let mut held = self.lock();
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
        Some(Place { places: Arc::clone(self), number, user: user.clone() })
    }

    /// Looks into a place, and may change what is in it; `None` when there is none.
    pub(crate) fn look<R>(&self, number: u32, look: impl FnOnce(&mut Option<V>) -> R) -> Option<R> {
        self.lock().by_number.get_mut(&number).map(look)
    }

    fn lock(&self) -> MutexGuard<'_, Held<V>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
}

impl<V> Drop for Place<V> {
    fn drop(&mut self) {
        let mut held = self.places.lock();
        held.by_number.remove(&self.number);
        if let Some(count) = held.by_user.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                held.by_user.remove(&self.user);
            }
        }
        if held.by_number.is_empty() {
            *held = Held::default();
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
        let first = places.hold(&user, 2, || numbers.next().unwrap()).unwrap();
        let second = places.hold(&user, 2, || numbers.next().unwrap()).unwrap();
        assert_eq!((first.number(), second.number()), (7, 8));
        assert!(places.hold(&user, 2, || 9).is_none(), "the user has as many as allowed");
        first.put("here");
        assert_eq!(places.look(7, Option::take), Some(Some("here")));
        assert_eq!(places.look(9, Option::take), None);
        drop((first, second));
        assert!(places.len() == 0 && places.lock().by_user.is_empty());
    }
}
