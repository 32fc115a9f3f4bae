//! What electricity costs: the price below which a provider loses by every job.

use gristmill_protocol::credits::Credits;

use crate::people::devices::DeviceClass;
use crate::people::popularity::ModelSize;

/// About what households paid for a kilowatt-hour in 2024, in microcredits of a US dollar, by ISO 3166 code. Round numbers
/// for orders of magnitude; exact ones are published by Eurostat (nrg_pc_204), the EIA (Electric Power Monthly) and
/// national statistics.
pub const POWER_PRICES: [(&str, u32); 10] = [
    ("DE", 420_000),
    ("FR", 300_000),
    ("SE", 240_000),
    ("GB", 360_000),
    ("US", 165_000),
    ("BR", 160_000),
    ("IN", 80_000),
    ("JP", 230_000),
    ("AU", 250_000),
    ("ZA", 190_000),
];

/// What a million output tokens of a model cost a device in electricity, at so many microcredits per kilowatt-hour and
/// with all of its slots in use, rounded up.
#[must_use]
pub fn floor_per_million(class: DeviceClass, model: ModelSize, kilowatt_hour: u32) -> Credits {
    let figures = class.figures();
    // A million tokens at so many microseconds each take as many seconds.
    let seconds = u128::from(class.output_token_us(model)) / u128::from(figures.slots.max(1));
    let watt_seconds = seconds * u128::from(figures.watts);
    let cost = (watt_seconds * u128::from(kilowatt_hour)).div_ceil(3_600_000);
    u64::try_from(cost)
        .ok()
        .and_then(|microcredits| Credits::from_microcredits(microcredits).ok())
        .unwrap_or(Credits::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floors_are_what_a_pocket_calculator_says() {
        // 7,812 s for a million tokens over 4 slots, 450 W, 0.165 per kWh: 0.0403.
        let floor = floor_per_million(DeviceClass::Rtx4090, ModelSize::Small, 165_000);
        assert!(floor.microcredits().abs_diff(40_280) < 20, "{floor}");
        let german = floor_per_million(DeviceClass::Rtx4090, ModelSize::Small, 420_000);
        assert!(german > floor);
        assert!(floor_per_million(DeviceClass::Processor, ModelSize::Small, 165_000) > german);
    }
}
