//! The few accounts, channels and names that one entry touches: so few that a list is faster than a tree.

use std::vec;

/// Values by key, in the order in which they were first touched.
#[derive(Debug)]
pub(super) struct Touched<K, V>(Vec<(K, V)>);

impl<K: Copy + PartialEq, V> Touched<K, V> {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Puts something here that was not touched before.
    pub(super) fn add(&mut self, key: K, value: V) {
        self.0.push((key, value));
    }

    /// The value to change; where it is touched for the first time, the one that `make` gives.
    pub(super) fn get_or_add<E>(&mut self, key: K, make: impl FnOnce() -> Result<V, E>) -> Result<&mut V, E> {
        let place = match self.0.iter().position(|(touched, _)| *touched == key) {
            Some(place) => place,
            None => {
                self.0.push((key, make()?));
                self.0.len() - 1
            }
        };
        Ok(&mut self.0[place].1)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter().map(|(key, value)| (key, value))
    }
}

impl<K, V> IntoIterator for Touched<K, V> {
    type Item = (K, V);
    type IntoIter = vec::IntoIter<(K, V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
