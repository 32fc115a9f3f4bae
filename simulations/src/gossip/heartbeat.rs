//! What a peer does once a second, and when it can sleep through: most heartbeats of a quiet peer change nothing.

use rand::Rng;
use rand::seq::SliceRandom;

use super::memory::Memory;
use super::peer::{NEVER, Peer};
use super::scores::whole;
use super::{Effect, Ids, Link, Links, Payload, Step};

impl Peer {
    /// A heartbeat that this peer asked for. One that it does not wait for any more does nothing.
    pub fn heartbeat<R: Rng>(&mut self, beat: u32, step: &mut Step<'_, R>) {
        if beat != self.waiting_for {
            return;
        }
        self.waiting_for = NEVER;
        self.blame_broken_promises(beat, step);
        let before = self.mesh();
        let mut pruned = self.drop_the_blamed(beat, step);
        let good = self.with_score(self.neighbours, 0.0, beat, step.settings);
        let candidates = good.filter(|link| !self.is_backed_off(link, beat));
        self.fill(beat, candidates, step);
        pruned = pruned.or(self.trim(beat, step));
        self.reach_out(beat, candidates.without(pruned), step);
        self.improve(beat, candidates.without(pruned), step);
        self.tell_of_recent(beat, step);
        for link in self.mesh().without(before).iter() {
            self.send(link, Payload::Graft, step);
        }
        for link in pruned.iter() {
            self.prune(link, step);
        }
        self.forget(beat, step);
        self.plan(step);
    }

    fn blame_broken_promises<R>(&mut self, beat: u32, step: &Step<'_, R>) {
        let Some(memory) = &mut self.memory else { return };
        let broken: Vec<Link> = memory
            .promises
            .extract_if(.., |promise| promise.until_us < step.now_us)
            .map(|promise| promise.link)
            .collect();
        for link in broken {
            self.judge(link, beat, step.settings, |standing| {
                standing.bad_manners += 1.0;
            });
        }
    }

    fn drop_the_blamed<R>(&mut self, beat: u32, step: &Step<'_, R>) -> Links {
        let mesh = self.mesh();
        let blamed = mesh.without(self.with_score(mesh, 0.0, beat, step.settings));
        for link in blamed.iter() {
            self.ungraft(link);
        }
        blamed
    }

    /// Too few: more at random.
    fn fill<R: Rng>(&mut self, beat: u32, candidates: Links, step: &mut Step<'_, R>) {
        let config = &step.settings.config;
        let count = u64::from(self.mesh().len());
        if count < config.mesh_low.get() {
            let missing = config.mesh.get().saturating_sub(count);
            self.graft_some(missing, candidates, beat, step);
        }
    }

    fn graft_some<R: Rng>(&mut self, count: u64, candidates: Links, beat: u32, step: &mut Step<'_, R>) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let chosen = candidates.without(self.mesh()).choose(count, step.random);
        for link in chosen.iter() {
            self.graft(link, beat);
        }
    }

    /// Too many: all but the best few in random order, with enough left that this peer dialled itself.
    fn trim<R: Rng>(&mut self, beat: u32, step: &mut Step<'_, R>) -> Links {
        let config = &step.settings.config;
        let count = u64::from(self.mesh().len());
        if count < config.mesh_high.get() {
            return Links::of_none();
        }
        let mut order: Vec<Link> = self.mesh().iter().collect();
        order.shuffle(step.random);
        order.sort_by(|one, other| {
            let score = |link: &Link| self.score(*link, beat, step.settings);
            score(one).total_cmp(&score(other))
        });
        let retained = usize::try_from(config.retain_best.get()).unwrap_or(usize::MAX);
        let shuffled = order.len().saturating_sub(retained);
        order[..shuffled].shuffle(step.random);
        let mut excess = count.saturating_sub(config.mesh.get());
        let mut outbound = u64::from(self.mesh().and(self.outbound).len());
        let mut pruned = Links::of_none();
        for link in order {
            let dialled = self.outbound.contains(link);
            if excess == 0 || (dialled && outbound <= config.mesh_outbound_min.get()) {
                continue;
            }
            outbound -= u64::from(dialled);
            excess -= 1;
            self.ungraft(link);
            pruned.insert(link);
        }
        pruned
    }

    /// Too few that this peer has dialled itself.
    fn reach_out<R: Rng>(&mut self, beat: u32, candidates: Links, step: &mut Step<'_, R>) {
        let config = &step.settings.config;
        let outbound = u64::from(self.mesh().and(self.outbound).len());
        let missing = config.mesh_outbound_min.get().saturating_sub(outbound);
        if u64::from(self.mesh().len()) >= config.mesh_low.get() && missing > 0 {
            self.graft_some(missing, candidates.and(self.outbound), beat, step);
        }
    }

    /// A mesh of strangers and idlers: now and then some that are better than its middle.
    fn improve<R: Rng>(&mut self, beat: u32, candidates: Links, step: &mut Step<'_, R>) {
        let config = &step.settings.config;
        if !u64::from(beat).is_multiple_of(config.opportunistic_beats.get())
            || self.mesh().len() < 2
            || !config.judge
        {
            return;
        }
        let median = self.median_score(beat, step.settings);
        if median < whole(config.scores.opportunistic_below.get()) {
            let better = candidates.filter(|link| self.score(link, beat, step.settings) > median);
            self.graft_some(config.opportunistic_peers.get(), better, beat, step);
        }
    }

    /// Neighbours to whom this peer might say what it has.
    fn listeners<R>(&self, beat: u32, step: &Step<'_, R>) -> Links {
        let below = -whole(step.settings.config.scores.gossip_below.get());
        let others = self.neighbours.without(self.mesh());
        self.with_score(others, below, beat, step.settings)
    }

    fn tell_of_recent<R: Rng>(&mut self, beat: u32, step: &mut Step<'_, R>) {
        let config = &step.settings.config;
        let windows = u32::try_from(config.history_gossip.get()).unwrap_or(NEVER);
        let Some(memory) = &self.memory else { return };
        let told = |memory: &Memory| {
            let recent = memory.recent.iter();
            recent
                .filter(|recent| beat <= recent.beat.saturating_add(windows))
                .map(|recent| recent.message.id)
                .collect()
        };
        let ids: Vec<_> = told(memory);
        if ids.is_empty() {
            return;
        }
        let listeners = self.listeners(beat, step);
        let share = config.lazy_share.get() * f64::from(listeners.len());
        let count = (0..listeners.len())
            .take_while(|count| f64::from(count + 1) <= share)
            .count();
        let lazy = u32::try_from(config.lazy.get()).unwrap_or(u32::MAX);
        let count = lazy.max(u32::try_from(count).unwrap_or(u32::MAX));
        for link in listeners.choose(count, step.random).iter() {
            self.send(link, Payload::IHave(Box::new(Ids(ids.clone()))), step);
        }
    }

    fn forget<R>(&mut self, beat: u32, step: &Step<'_, R>) {
        let kept_for = u32::try_from(step.settings.config.history_length.get()).unwrap_or(NEVER);
        if let Some(memory) = &mut self.memory {
            memory.forget(beat, step.now_us, kept_for);
            memory
                .standings
                .retain(|standing| !standing.faded(beat, step.settings).is_blank());
            if memory.is_empty(step.now_us) {
                self.memory = None;
            }
        }
    }

    /// Asks for the next heartbeat at which there is something to do, unless one as early is waited for.
    pub(super) fn plan<R>(&mut self, step: &mut Step<'_, R>) {
        let now = self.beat(step.now_us, step.settings);
        let due = self.due(now, step);
        if due < self.waiting_for {
            self.waiting_for = due;
            step.effects.push(Effect::Wake {
                at_us: self.beat_at_us(due, step.settings),
                beat: due,
            });
        }
    }

    fn due<R>(&self, now: u32, step: &Step<'_, R>) -> u32 {
        if self.mesh_wants_change(now, step) {
            return now.saturating_add(1);
        }
        let memory = self.memory.as_ref().map_or(NEVER, |memory| {
            self.memory_due(memory, now, step).max(now.saturating_add(1))
        });
        memory.min(self.improvement_due(now, step))
    }

    fn mesh_wants_change<R>(&self, now: u32, step: &Step<'_, R>) -> bool {
        let config = &step.settings.config;
        let mesh = self.mesh();
        let count = u64::from(mesh.len());
        if count >= config.mesh_high.get() && count > config.mesh.get() {
            return true;
        }
        if self.with_score(mesh, 0.0, now, step.settings) != mesh {
            return true;
        }
        let low = count < config.mesh_low.get();
        let outbound = u64::from(mesh.and(self.outbound).len());
        if !low && outbound >= config.mesh_outbound_min.get() {
            return false;
        }
        let others = self.neighbours.without(mesh);
        let others = if low { others } else { others.and(self.outbound) };
        let good = self.with_score(others, 0.0, now, step.settings);
        good.iter().any(|link| !self.is_backed_off(link, now))
    }

    fn memory_due<R>(&self, memory: &Memory, now: u32, step: &Step<'_, R>) -> u32 {
        let config = &step.settings.config;
        let beat_of = |us: u64| self.beat(us, step.settings).saturating_add(1);
        let windows = u32::try_from(config.history_gossip.get()).unwrap_or(NEVER);
        let kept_for = u32::try_from(config.history_length.get()).unwrap_or(NEVER);
        let told = |beat: u32| now < beat.saturating_add(windows);
        let mut due = NEVER;
        if let Some(latest) = memory.recent.iter().map(|recent| recent.beat).max() {
            let tells = told(latest) && !self.neighbours.without(self.mesh()).is_empty();
            due = if tells {
                now + 1
            } else {
                latest.saturating_add(kept_for)
            };
        }
        let promises = memory.promises.iter().map(|promise| beat_of(promise.until_us));
        let backoffs = memory.backoffs.iter().map(|backoff| backoff.free_at_beat);
        let unwanted = memory
            .unwanted
            .iter()
            .map(|unwanted| beat_of(unwanted.until_us))
            .max();
        due = promises.chain(backoffs).chain(unwanted).fold(due, u32::min);
        // Nothing happens when these are forgotten, but the room is given back.
        let standings = (!memory.standings.is_empty()).then(|| now.saturating_add(120));
        let seen = (!memory.seen.is_empty(step.now_us)).then(|| beat_of(memory.seen.all_forgotten_at_us()));
        due.min(standings.unwrap_or(NEVER)).min(seen.unwrap_or(NEVER))
    }

    /// The next look whether the mesh is worth improving, where time alone has not made it good.
    fn improvement_due<R>(&self, now: u32, step: &Step<'_, R>) -> u32 {
        let config = &step.settings.config;
        let others = self.neighbours.without(self.mesh());
        let nothing_to_gain = others.is_empty()
            || self.mesh().len() < 2
            || self
                .memory
                .as_ref()
                .is_none_or(|memory| memory.standings.is_empty());
        // Only who has brought messages, or is in the mesh, has a score above zero.
        if !config.judge || nothing_to_gain {
            return NEVER;
        }
        if self.median_score(now, step.settings) >= whole(config.scores.opportunistic_below.get()) {
            return NEVER;
        }
        let every = u32::try_from(config.opportunistic_beats.get()).unwrap_or(NEVER);
        (now / every + 1).saturating_mul(every)
    }
}
