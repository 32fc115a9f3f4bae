//! Challenges of hardware: the desk answers at once, and wakes when something is due.

use super::Coordinator;
use crate::people::hardware::{Call, Outcome, ProverCall, Told};
use crate::world::event::{Message, Timer};
use crate::world::scene::Scene;

/// The shortest time between two looks at what is due.
const LOOK_MIN_MS: u64 = 50;

impl Coordinator {
    /// A provider calls about its hardware.
    pub(super) fn hear_prover(&mut self, call: Call, said: ProverCall, scene: &mut Scene<'_, '_>) {
        if let Some(desk) = &mut self.desk {
            let told = desk.hear(&scene.keypair(), call, said, scene.now_ms());
            self.follow(told, scene);
        }
    }

    /// Something may be due.
    pub(super) fn challenges_wake(&mut self, scene: &mut Scene<'_, '_>) {
        if let (Some(desk), None) = (&mut self.desk, self.down_since_ms) {
            let told = desk.tick(&scene.keypair(), scene.now_ms());
            self.follow(told, scene);
        }
    }

    /// After an outage challenges begin anew; certificates hold as they were.
    pub(super) fn challenges_begin_anew(&mut self, scene: &mut Scene<'_, '_>) {
        if let Some(desk) = &mut self.desk {
            let told = desk.restart(&scene.keypair(), scene.now_ms());
            self.follow(told, scene);
        }
    }

    fn follow(&mut self, told: Vec<Told>, scene: &mut Scene<'_, '_>) {
        for told in told {
            match told {
                Told::Answer(Call { node, number }, answer) => {
                    scene.send(node, Message::FromDesk { number, answer });
                }
                Told::Over(node, outcome) => {
                    scene.trace(CHALLENGED, u64::from(node));
                    scene.tell(None, || match outcome {
                        Outcome::Shown { score, .. } => {
                            format!("Node {node} has shown its hardware: a score of {score}.")
                        }
                        Outcome::Refused(code) => format!("Node {node} has not shown its hardware: {code}."),
                    });
                }
            }
        }
        self.plan_challenges(scene);
    }

    fn plan_challenges(&mut self, scene: &mut Scene<'_, '_>) {
        let now_ms = scene.now_ms();
        let wake_ms = self
            .desk
            .as_mut()
            .and_then(|desk| desk.wake_ms(&scene.keypair(), now_ms));
        let Some(wake_ms) = wake_ms.map(|wake_ms| wake_ms.max(now_ms + LOOK_MIN_MS)) else {
            return;
        };
        let is_planned = self.desk_wakes_ms > now_ms && self.desk_wakes_ms <= wake_ms;
        if !is_planned {
            self.desk_wakes_ms = wake_ms;
            scene.at_ms(wake_ms, Timer::Desk);
        }
    }
}

/// What a trace says of a challenge's end.
const CHALLENGED: u64 = 7;
