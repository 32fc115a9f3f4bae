//! Which devices are challenged together, and when their stages begin.

use std::collections::{BTreeMap, BTreeSet};

use gristmill_protocol::ids::ChallengeId;

use super::certified::Register;
use super::course::{Course, Phase};
use super::link::{DeviceKey, Links};
use super::policy::Policy;

/// Challenges that run at one time.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) members: BTreeSet<ChallengeId>,
    /// Whether its first stage has begun: nobody joins it any more.
    pub(super) is_running: bool,
    /// When the first one joined.
    pub(super) began_ms: u64,
    /// When the last one joined.
    pub(super) joined_ms: u64,
}

/// What a group does now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing yet.
    Wait,
    /// These members begin what is next for them.
    Begin(Vec<ChallengeId>),
    /// These members have waited long enough for as many devices.
    GiveUp(Vec<(ChallengeId, usize)>),
    /// Gathering is over. The first begin, the others gather anew without them.
    Part {
        begin: Vec<ChallengeId>,
        later: BTreeSet<ChallengeId>,
    },
    /// Nobody is left in it.
    End,
}

/// All groups and challenges, as the rule sees them.
pub(super) struct Groups<'a> {
    pub(super) groups: &'a BTreeMap<u64, Group>,
    pub(super) courses: &'a BTreeMap<ChallengeId, Course>,
    pub(super) register: &'a Register,
    pub(super) policy: &'a Policy,
}

impl Groups<'_> {
    /// The groups that still gather and have a member with something in common.
    pub(super) fn to_join(&self, links: &Links) -> Vec<u64> {
        let gathering = self.groups.iter().filter(|(_, group)| !group.is_running);
        let is_linked = |group: &Group| {
            self.living(group)
                .any(|(_, course)| course.links.is_linked_to(links))
        };
        gathering
            .filter(|(_, group)| is_linked(group))
            .map(|(name, _)| *name)
            .collect()
    }

    /// What a group does now.
    pub(super) fn turn(&self, name: u64, now_ms: u64) -> Turn {
        let Some(group) = self.groups.get(&name) else {
            return Turn::End;
        };
        match self.living(group).next() {
            None => Turn::End,
            Some(_) if group.is_running => self.turn_of_running(group),
            Some(_) => self.turn_of_gathering(group, now_ms),
        }
    }

    fn turn_of_running(&self, group: &Group) -> Turn {
        let all_wait = self
            .living(group)
            .all(|(_, course)| course.waiting_since().is_some());
        if !all_wait {
            return Turn::Wait;
        }
        // A member with fewer stages waits for the others: what stays in memory is folded by all at one time.
        let has_stages = self.living(group).any(|(_, course)| course.has_stages_left());
        let begins = self
            .living(group)
            .filter(|(_, course)| course.has_stages_left() == has_stages);
        Turn::Begin(begins.map(|(name, _)| name).collect())
    }

    /// A group begins once all are there. Whoever joins, falls silent or stays away can put that off, so gathering has an
    /// end that nothing moves, and each member has one for the certified devices that it waits for.
    fn turn_of_gathering(&self, group: &Group, now_ms: u64) -> Turn {
        let (mut begin, mut later, mut given_up) = (Vec::new(), BTreeSet::new(), Vec::new());
        for (name, course) in self.living(group) {
            let Some(since_ms) = course.waiting_since() else {
                later.insert(name);
                continue;
            };
            match self.missing(group, course, now_ms).len() {
                0 => begin.push(name),
                missing if now_ms >= self.give_up_ms(since_ms) => given_up.push((name, missing)),
                _ => {
                    later.insert(name);
                }
            }
        }
        if !given_up.is_empty() {
            return Turn::GiveUp(given_up);
        }
        if now_ms >= self.gathered_ms(group) {
            return Turn::Part { begin, later };
        }
        match later.is_empty() && now_ms >= self.settled_ms(group) && !self.is_blocked(group) {
            true => Turn::Begin(begin),
            false => Turn::Wait,
        }
    }

    /// When a group that gathers has to be looked at again, where nothing else happens.
    pub(super) fn wake_ms(&self, group: &Group, now_ms: u64) -> Option<u64> {
        if group.is_running {
            return None;
        }
        let given_up = self
            .living(group)
            .filter_map(|(_, course)| course.waiting_since())
            .map(|since_ms| self.give_up_ms(since_ms));
        let ends = given_up.chain([self.settled_ms(group), self.gathered_ms(group)]);
        ends.filter(|end_ms| now_ms < *end_ms).min()
    }

    const fn settled_ms(&self, group: &Group) -> u64 {
        group.joined_ms.saturating_add(self.policy.settle_ms)
    }

    const fn gathered_ms(&self, group: &Group) -> u64 {
        group.began_ms.saturating_add(self.policy.gather_within_ms)
    }

    const fn give_up_ms(&self, since_ms: u64) -> u64 {
        since_ms.saturating_add(self.policy.together_within_ms)
    }

    /// The certified devices that have to take part beside a member and do not.
    pub(super) fn missing(&self, group: &Group, course: &Course, now_ms: u64) -> BTreeSet<DeviceKey> {
        let mut missing = self.register.linked(&course.links, now_ms);
        for (_, member) in self.living(group) {
            missing.remove(&member.device);
        }
        missing
    }

    /// How many devices a challenge waits for: certified ones that stay away, and members that are not ready.
    pub(super) fn waited_for(&self, course: &Course, now_ms: u64) -> usize {
        let Some(group) = self.groups.get(&course.group) else {
            return 0;
        };
        let unready = self
            .living(group)
            .filter(|(_, member)| !matches!(member.phase, Phase::Waiting { .. }))
            .count();
        match group.is_running {
            true => unready,
            false => unready + self.missing(group, course, now_ms).len(),
        }
    }

    /// Whether a certified device has to take part in a challenge that waits for it.
    pub(super) fn is_wanted(&self, device: &DeviceKey, links: &Links) -> bool {
        self.groups
            .values()
            .filter(|group| !group.is_running)
            .any(|group| {
                let (mut is_linked, mut takes_part) = (false, false);
                for (_, course) in self.living(group) {
                    is_linked |= course.links.is_linked_to(links);
                    takes_part |= course.device == *device;
                }
                is_linked && !takes_part
            })
    }

    /// Whether a running group has a challenge in it that should have been with this one.
    fn is_blocked(&self, group: &Group) -> bool {
        let running = || self.groups.values().filter(|other| other.is_running);
        self.living(group).any(|(_, course)| {
            running().any(|other| {
                self.living(other)
                    .any(|(_, member)| member.links.is_linked_to(&course.links))
            })
        })
    }

    fn living<'b>(&'b self, group: &'b Group) -> impl Iterator<Item = (ChallengeId, &'b Course)> {
        let courses = group
            .members
            .iter()
            .filter_map(|name| self.courses.get(name).map(|course| (*name, course)));
        courses.filter(|(_, course)| !course.is_over())
    }
}
