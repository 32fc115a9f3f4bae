//! Publishes listings and does nothing else: the load of a large market on gossip.

use gristmill_protocol::credits::Credits;
use gristmill_protocol::job::JobKind;
use gristmill_protocol::listing::{Capability, Listing, Offer, PrivacyTier};
use gristmill_protocol::usage::Price;
use serde::{Deserialize, Serialize};

use crate::engine::Breach;
use crate::world::event::Timer;
use crate::world::scene::Scene;

/// How long listings hold, as nodes say: two minutes.
pub(super) const TTL_MS: u64 = 120_000;

/// A node that publishes.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Publisher {
    published: u32,
}

impl Publisher {
    pub(crate) fn timer(&mut self, scene: &mut Scene<'_, '_>) -> Result<(), Breach> {
        let config = &scene.world.config.publishers;
        let (offers, every_us) = (config.offers.get(), config.publish_every_s.get() * 1_000_000);
        let sequence = self.published;
        self.published += 1;
        let names: Vec<String> = (0..offers)
            .map(|number| format!("model-{number}-8b-instruct"))
            .collect();
        let price = Price::per_million_tokens(Credits::micro(100_000), Credits::micro(400_000));
        let offered: Vec<_> = names.iter().map(|name| (name.as_str(), price.clone())).collect();
        let listing = listing(scene, &offered, (4, 4), TTL_MS, &[]);
        publish(scene, sequence, listing)?;
        let jitter_us = scene.random().below(1_000_000);
        scene.after(every_us + jitter_us, Timer::Listing);
        Ok(())
    }
}

/// What a provider says of itself now. Its address names its node.
pub(super) fn listing(
    scene: &Scene<'_, '_>,
    offers: &[(&str, Price)],
    (slots, free_slots): (u16, u16),
    ttl_ms: u64,
    certificates: &[String],
) -> Listing {
    let offer = |(model, price): &(&str, Price)| Offer {
        kind: JobKind::ChatCompletions,
        model: (*model).to_owned(),
        weights_digest: None,
        quantization: "q4_k_m".to_owned(),
        context_length: 131_072,
        capabilities: vec![
            Capability::Tools,
            Capability::StructuredOutput,
            Capability::Continuation,
        ],
        price: price.clone(),
    };
    Listing {
        provider: scene.account(),
        sequence: scene.now_ms(),
        issued_at_ms: scene.now_ms(),
        ttl_ms,
        addresses: vec![format!("/memory/{}", scene.node())],
        coordinators: vec![scene.world.coordinator_account()],
        region: String::new(),
        privacy: PrivacyTier::Standard,
        offers: offers.iter().map(offer).collect(),
        slots,
        free_slots,
        certificates: certificates.to_vec(),
    }
}

/// Signs and publishes a listing as the node's so-manieth.
pub(super) fn publish(scene: &mut Scene<'_, '_>, sequence: u32, listing: Listing) -> Result<(), Breach> {
    let sealed = listing
        .seal(&scene.keypair())
        .map_err(|error| scene.breach("own listing", error.to_string()))?;
    scene.publish(sequence, sealed, true);
    Ok(())
}
