//! What a request came to, provider by provider: one answer may be paid to several.

use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::ids::ChannelId;
use gristmill_protocol::usage::{Unit, Usage};
use serde_json::{Value, json};

/// Every unit that is counted.
const UNITS: [Unit; 5] = [
    Unit::InputToken,
    Unit::OutputToken,
    Unit::GpuMillisecond,
    Unit::ByteIn,
    Unit::ByteOut,
];

/// What one provider was paid for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BillItem {
    /// Who delivered.
    pub provider: AccountId,
    /// The channel that pays.
    pub channel: ChannelId,
    /// What was delivered and found plausible.
    pub usage: Usage,
    /// What that costs.
    pub cost: Credits,
}

/// What all providers of a request were paid, in the order in which they were asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bill {
    items: Vec<BillItem>,
}

impl Bill {
    /// Adds what a provider delivered; nothing where that was nothing. Jobs on one channel are one item.
    pub fn add(&mut self, item: BillItem) {
        if item.cost.is_zero() && item.usage == Usage::new() {
            return;
        }
        let known = self
            .items
            .iter_mut()
            .find(|known| (known.provider, known.channel) == (item.provider, item.channel));
        match known {
            Some(known) => {
                known.usage = sum(&known.usage, &item.usage);
                known.cost = known.cost.saturating_add(item.cost);
            }
            None => self.items.push(item),
        }
    }

    /// Who was paid, and what.
    #[must_use]
    pub fn items(&self) -> &[BillItem] {
        &self.items
    }

    /// What the request cost in all.
    #[must_use]
    pub fn cost(&self) -> Credits {
        let costs = self.items.iter().map(|item| item.cost);
        costs.fold(Credits::ZERO, Credits::saturating_add)
    }

    /// The items as they stand beside an answer.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let items = self.items.iter().map(|item| {
            json!({
                "provider": item.provider,
                "channel": item.channel,
                "usage": item.usage,
                "cost": item.cost,
            })
        });
        items.collect()
    }
}

/// Two usages together.
#[must_use]
pub fn sum(one: &Usage, other: &Usage) -> Usage {
    UNITS.into_iter().fold(Usage::new(), |usage, unit| {
        usage.with(unit, one.count(unit).saturating_add(other.count(unit)))
    })
}

/// What a usage has grown by since an earlier one.
#[must_use]
pub fn difference(usage: &Usage, earlier: &Usage) -> Usage {
    UNITS.into_iter().fold(Usage::new(), |grown, unit| {
        grown.with(unit, usage.count(unit).saturating_sub(earlier.count(unit)))
    })
}

/// The usage of an answer that several providers wrote: the prompt counts once, as the first one counted it, and what
/// was written again at a seam does not count. `tokens_before` is what others than the last had written of it.
#[must_use]
pub fn joined(earlier: &Usage, tokens_before: u64, last: &Usage) -> Usage {
    let input = match earlier.count(Unit::InputToken) {
        0 => last.count(Unit::InputToken),
        input => input,
    };
    let output = tokens_before.saturating_add(last.count(Unit::OutputToken));
    sum(earlier, last)
        .with(Unit::InputToken, input)
        .with(Unit::OutputToken, output)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(byte: u8, usage: Usage, cost: u32) -> BillItem {
        BillItem {
            provider: AccountId::from_public_key([byte; 32]),
            channel: ChannelId::from_bytes([byte; 16]),
            usage,
            cost: Credits::micro(cost),
        }
    }

    #[test]
    fn everybody_who_delivered_stands_on_the_bill_once() {
        let mut bill = Bill::default();
        bill.add(item(1, Usage::tokens(3, 2), 5));
        bill.add(item(2, Usage::new(), 0));
        bill.add(item(3, Usage::tokens(4, 1), 7));
        bill.add(item(1, Usage::tokens(3, 1), 4));
        let shown: Vec<_> = bill
            .items()
            .iter()
            .map(|item| (item.usage.clone(), item.cost.microcredits()))
            .collect();
        assert_eq!(shown, [(Usage::tokens(6, 3), 9), (Usage::tokens(4, 1), 7)]);
        assert_eq!(bill.cost(), Credits::micro(16));
        let json = bill.to_json();
        assert_eq!(json[1]["usage"], json!({"input_token": 4, "output_token": 1}));
        assert_eq!(
            (&json[1]["cost"], json[0]["provider"].is_string()),
            (&json!(7), true)
        );
    }

    #[test]
    fn what_a_usage_has_grown_by_and_what_it_was_are_the_whole() {
        let (earlier, whole) = (Usage::tokens(6, 3), Usage::tokens(6, 9).with(Unit::ByteOut, 2));
        assert_eq!(sum(&earlier, &difference(&whole, &earlier)), whole);
        assert_eq!(difference(&whole, &whole), Usage::new());
    }

    #[test]
    fn the_prompt_and_what_is_written_again_count_once() {
        let earlier = Usage::tokens(10, 6).with(Unit::GpuMillisecond, 5);
        let last = Usage::tokens(15, 4).with(Unit::GpuMillisecond, 2);
        let whole = Usage::tokens(10, 9).with(Unit::GpuMillisecond, 7);
        assert_eq!(joined(&earlier, 5, &last), whole);
        assert_eq!(joined(&Usage::new(), 0, &last), last);
    }
}
