//! Salts for the records, drawn some at a time.

use crate::entry::Salt;
use crate::store::random_salts;

const DRAWN_AT_ONCE: usize = 256;

/// Salts that were drawn and not used yet.
#[derive(Default)]
pub(super) struct Salts(Vec<Salt>);

impl Salts {
    /// A salt that was never given before.
    pub(super) fn next(&mut self) -> Result<Salt, String> {
        if self.0.is_empty() {
            self.0 = random_salts(DRAWN_AT_ONCE)?;
        }
        self.0.pop().ok_or_else(|| "no salt was drawn".into())
    }
}
