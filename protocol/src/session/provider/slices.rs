//! Cuts what an engine gives into pieces that are paid for one by one.

use crate::channel::window_part;
use crate::codec::PAYLOAD_MAX_BYTES;
use crate::credits::Credits;
use crate::usage::{Price, PriceError, Unit, Usage};

/// Most slices that one engine message is cut into so that its parts are paid for one by one.
const SLICES_MAX: u64 = 4_096;

/// A piece of a message that is paid for as a whole.
#[derive(Clone, Debug)]
pub(super) struct Slice {
    pub(super) payload: Vec<u8>,
    pub(super) ends_message: bool,
    pub(super) meter: Usage,
    /// What the job costs once this slice is delivered.
    pub(super) total: Credits,
}

/// What a meter grew by.
pub(super) struct Growth<'a> {
    pub(super) from: &'a Usage,
    pub(super) to: Usage,
    /// What the job costs with everything that came before.
    pub(super) planned: Credits,
}

impl Growth<'_> {
    /// The slices of a message with which the meter grew so: at most a part of the window each. None where there is
    /// neither anything to send nor to pay.
    ///
    /// # Errors
    /// [`PriceError`] where the meter comes to more than the largest amount there is.
    pub(super) fn slices(
        &self,
        message: &[u8],
        ends_message: bool,
        price: &Price,
        window: Credits,
    ) -> Result<Vec<Slice>, PriceError> {
        let (cost_from, cost_to) = (price.cost(self.from)?, price.cost(&self.to)?);
        // A job that used nothing still owes the constant of its price, so the cost decides, not the usage.
        if message.is_empty() && !ends_message && self.to == *self.from && cost_to == self.planned {
            return Ok(Vec::new());
        }
        let grown = cost_to.saturating_sub(cost_from).microcredits();
        let by_cost = grown.div_ceil(window_part(window).microcredits()).min(SLICES_MAX);
        let by_size = message.len().div_ceil(PAYLOAD_MAX_BYTES) as u64;
        let slices = by_cost.max(by_size).max(1);
        let position =
            |index| usize::try_from(share(message.len() as u64, index, slices)).unwrap_or(message.len());
        let slice = |index| {
            let meter = self.meter_at(index, slices);
            Slice {
                payload: message[position(index - 1)..position(index)].to_vec(),
                ends_message: ends_message && index == slices,
                total: price.cost(&meter).unwrap_or(cost_to),
                meter,
            }
        };
        Ok((1..=slices).map(slice).collect())
    }

    /// The meter when so many of the slices are delivered.
    fn meter_at(&self, index: u64, slices: u64) -> Usage {
        let grown = |(unit, count): (Unit, u64)| {
            let before = self.from.count(unit);
            (unit, before + share(count - before, index, slices))
        };
        let counts = self.to.iter().map(grown);
        counts.fold(Usage::new(), |meter, (unit, count)| meter.with(unit, count))
    }
}

/// `index` of `parts` equal parts of a whole, rounded down.
fn share(whole: u64, index: u64, parts: u64) -> u64 {
    let part = u128::from(whole) * u128::from(index) / u128::from(parts);
    u64::try_from(part).unwrap_or(whole)
}
