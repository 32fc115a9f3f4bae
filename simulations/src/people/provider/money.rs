//! Vouchers: to the own disk a moment later, and to the coordinator in batches.

use gristmill_protocol::credits::Credits;
use gristmill_protocol::ids::ChannelId;

use super::Provider;
use crate::world::event::{Message, Timer};
use crate::world::scene::Scene;

/// How long a voucher may wait for the disk, in microseconds: what the market's protocol allows.
const PERSISTED_AFTER_US: u64 = 100_000;
/// Most vouchers of one hand-in.
const BATCH_MAX: usize = 256;

impl Provider {
    pub(super) fn plan_persisting(&mut self, scene: &mut Scene<'_, '_>) {
        if !self.is_persisting {
            self.is_persisting = true;
            scene.after(PERSISTED_AFTER_US, Timer::Persist);
        }
    }

    pub(super) fn persist(&mut self, _scene: &mut Scene<'_, '_>) {
        self.is_persisting = false;
        for channel in self.channels.values_mut() {
            if channel.persisted.as_ref() != channel.account.highest_voucher() {
                channel.persisted = channel.account.highest_voucher().cloned();
            }
        }
    }

    /// The first hand-in comes at a random time, so that not all come at once.
    pub(crate) fn begin_hand_ins(&mut self, scene: &mut Scene<'_, '_>) {
        let every_us = self.config(scene).hand_in_every_s.get() * 1_000_000;
        let first_us = 1 + scene.random().below(every_us);
        self.hands_in_us = scene.now_us() + first_us;
        scene.after(first_us, Timer::HandIn);
    }

    /// Hands in what is promised, on the disk and not paid yet, and forgets channels that have ended.
    pub(super) fn hand_in(&mut self, scene: &mut Scene<'_, '_>) {
        let every_us = self.config(scene).hand_in_every_s.get() * 1_000_000;
        if scene.now_us() < self.hands_in_us {
            // Planned before a crash; another one is planned since.
            return;
        }
        self.hands_in_us = scene.now_us() + every_us;
        scene.after(every_us, Timer::HandIn);
        self.forget_ended(scene);
        let unpaid = self.channels.values().filter_map(|channel| {
            let voucher = channel.persisted.as_ref()?;
            (voucher.content_unchecked().cumulative > channel.settled).then(|| voucher.clone())
        });
        let vouchers: Vec<_> = unpaid.take(BATCH_MAX).collect();
        if !vouchers.is_empty() {
            scene.tell(None, || format!("It hands in {} vouchers.", vouchers.len()));
            scene.send(0, Message::HandIn { vouchers });
        }
    }

    fn forget_ended(&mut self, scene: &mut Scene<'_, '_>) {
        let now_ms = scene.now_ms();
        let used: std::collections::BTreeSet<ChannelId> = self.jobs.values().map(|job| job.channel).collect();
        let (unpaid, bounds) = (&mut scene.tally.unpaid, &mut self.bounds);
        self.channels.retain(|id, channel| {
            // The coordinator may have given more time; a day covers that.
            let is_paid = channel.account.vouchered() <= channel.settled;
            let ended_ms = channel.ticket.redeem_by_ms + if is_paid { 0 } else { 86_400_000 };
            let stays = now_ms < ended_ms || used.contains(id);
            if !stays {
                *unpaid += bounds.closed(id).microcredits();
            }
            stays
        });
    }

    /// What the coordinator says of each voucher.
    pub(super) fn paid(&mut self, paid: Vec<(ChannelId, Option<Credits>)>) {
        for (id, settled) in paid {
            if let (Some(channel), Some(settled)) = (self.channels.get_mut(&id), settled) {
                let more = settled.saturating_sub(channel.settled);
                self.settled += more.microcredits();
                channel.settled = channel.settled.saturating_add(more);
            }
        }
    }
}
