//! What happens because time goes by, and because all of a group are ready.

use gristmill_protocol::ids::ChallengeId;
use rand::Rng;

use super::super::course::Phase;
use super::super::event::{Answer, Effect};
use super::super::group::Turn;
use super::super::refusal::Refusal;
use super::Challenges;

/// How often devices that need not be remembered are looked for.
const FORGET_EVERY_MS: u64 = 60 * 60_000;
/// Most devices that are forgotten at once: each is a file to remove, and the others wait for the next look.
const FORGET_AT_ONCE: usize = 64;
/// How soon the next look is where more are left.
const FORGET_MORE_MS: u64 = 1_000;

impl Challenges {
    /// Ends what is overdue, begins what is ready, answers what was held.
    pub(super) fn pass_time(&mut self, now_ms: u64, rng: &mut dyn Rng) {
        let overdue = self.courses.iter().filter_map(|(name, course)| {
            let refusal = course.overdue(now_ms)?;
            Some((*name, refusal))
        });
        for (challenge, refusal) in overdue.collect::<Vec<_>>() {
            self.end(challenge, Err(refusal), now_ms);
        }
        self.advance_groups(now_ms, rng);
        self.certify_groups(now_ms, rng);
        self.answer_held(now_ms);
        let keep_ms = self.policy.keep_outcome_ms;
        self.courses.retain(|_, course| match course.phase {
            Phase::Over { at_ms, .. } => now_ms < at_ms.saturating_add(keep_ms),
            _ => true,
        });
        self.forget_devices(now_ms);
    }

    fn advance_groups(&mut self, now_ms: u64, rng: &mut dyn Rng) {
        for name in self.groups.keys().copied().collect::<Vec<_>>() {
            // Those that are left may be all that a group waited for. Each turn ends one, so there is a last one.
            while let Turn::GiveUp(members) = self.rule().turn(name, now_ms) {
                for (member, missing) in members {
                    self.end(member, Err(Refusal::Together { missing }), now_ms);
                }
            }
            match self.rule().turn(name, now_ms) {
                Turn::Wait | Turn::GiveUp(_) => {}
                Turn::Begin(members) => self.begin(name, members, now_ms, rng),
                Turn::Part { begin, later } => {
                    if let Some(group) = self.groups.get_mut(&name) {
                        group.members.retain(|member| !later.contains(member));
                    }
                    self.begin(name, begin, now_ms, rng);
                    if !later.is_empty() {
                        self.gather(later, now_ms, now_ms);
                    }
                }
                Turn::End => {
                    self.groups.remove(&name);
                }
            }
        }
    }

    fn begin(&mut self, group: u64, members: Vec<ChallengeId>, now_ms: u64, rng: &mut dyn Rng) {
        if let Some(group) = self.groups.get_mut(&group) {
            group.is_running = true;
        }
        for member in members {
            if let Some(course) = self.courses.get_mut(&member) {
                course.begin(&self.policy, now_ms, rng);
            }
        }
    }

    fn answer_held(&mut self, now_ms: u64) {
        let held: Vec<ChallengeId> = self
            .courses
            .iter()
            .filter(|(_, course)| course.held.is_some())
            .map(|(name, _)| *name)
            .collect();
        for challenge in held {
            let Some(course) = self.courses.get_mut(&challenge) else {
                continue;
            };
            let Some((call, until_ms)) = course.held else {
                continue;
            };
            match course.next_step(now_ms) {
                Some(next) => {
                    course.held = None;
                    self.answer(call, Ok(Answer::Next(next)));
                }
                None if now_ms >= until_ms => {
                    course.held = None;
                    self.answer_wait(call, challenge, now_ms);
                }
                None => {}
            }
        }
    }

    fn forget_devices(&mut self, now_ms: u64) {
        if now_ms < self.forget_at_ms {
            return;
        }
        let mut forgotten = self.register.forgotten(self.policy.remember_ms, now_ms);
        let again_ms = match forgotten.len() > FORGET_AT_ONCE {
            true => FORGET_MORE_MS,
            false => FORGET_EVERY_MS,
        };
        self.forget_at_ms = now_ms.saturating_add(again_ms);
        forgotten.truncate(FORGET_AT_ONCE);
        for device in forgotten {
            self.register.remove(&device);
            self.effects.push(Effect::Forget(device));
        }
    }
}
