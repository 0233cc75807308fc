//! A total map from addresses to what becomes of them: sorted starts of ranges, looked up by binary search.

/// What the rules say of one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Reachable.
    Open,
    /// In an operator NAT64 prefix while only listed peers are reachable: the inner address must be listed.
    Translated,
    /// Not listed while only listed peers are reachable.
    Unlisted,
    /// Denied by a configured rule.
    Configured,
    /// Denied by default.
    Default,
    /// A form of address that no peer has.
    Form,
    /// An address of this server.
    Server,
    /// A relay address of this server.
    Relay,
}

/// Every address has exactly one class: each range lasts until the next one starts, and the first starts at zero.
#[derive(Debug)]
pub(super) struct RangeMap<T> {
    starts: Box<[T]>,
    classes: Box<[Class]>,
}

impl<T: Copy + Ord> RangeMap<T> {
    /// Takes the starts of ranges in ascending order, with their class; neighbours of the same class are merged.
    pub(super) fn new(ranges: impl IntoIterator<Item = (T, Class)>) -> Self {
        let mut starts = Vec::new();
        let mut classes: Vec<Class> = Vec::new();
        for (start, class) in ranges {
            debug_assert!(starts.last().is_none_or(|last| *last < start), "ranges must ascend");
            if classes.last() != Some(&class) {
                starts.push(start);
                classes.push(class);
            }
        }
        Self { starts: starts.into_boxed_slice(), classes: classes.into_boxed_slice() }
    }

    /// The class of an address. An address below the first range is denied, so that a hole could never open anything.
    pub(super) fn class(&self, address: T) -> Class {
        let ranges_up_to_address = self.starts.partition_point(|start| *start <= address);
        let range = ranges_up_to_address.checked_sub(1).and_then(|index| self.classes.get(index));
        range.copied().unwrap_or(Class::Default)
    }
}
