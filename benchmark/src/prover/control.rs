//! How an owner holds a running prover: a token that stops it, a gate that must be open while it runs, and the
//! events that tell how far it is. The prover asks between strips of a product, which take a fraction of a second.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gristmill_protocol::hardware::Precision;

/// Stops a prover from any thread. Clones stop together.
#[derive(Clone, Debug, Default)]
pub struct StopToken(Arc<AtomicBool>);

impl StopToken {
    /// Tells everyone who holds a clone to stop. There is no way back.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether [`Self::stop`] was called.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Says whether a prover may use the device now. A node closes it as long as a job is served.
pub trait Gate: Send + Sync {
    /// Whether the device is free. Asked many times a second: it must not block.
    fn is_open(&self) -> bool;
}

/// A gate that is always open: for a machine that does nothing else.
#[derive(Clone, Copy, Debug, Default)]
pub struct AlwaysOpen;

impl Gate for AlwaysOpen {
    fn is_open(&self) -> bool {
        true
    }
}

/// Why a prover did not go on. Neither is a failure: the owner wanted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Interruption {
    /// The stop token was used.
    #[error("the challenge was stopped by its owner")]
    Stopped,
    /// The gate closed.
    #[error("the challenge gave way to a job on this device; it is tried again later")]
    GateClosed,
}

/// What a prover is busy with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Makes the two matrices on the host and brings them onto the device.
    Expanding,
    /// Compares products of the device with exact integers.
    Checking(Precision),
    /// Multiplies for a stage of the challenge, counted from 0.
    Stage {
        /// Which stage.
        index: usize,
        /// What its inputs and results are held in.
        precision: Precision,
    },
    /// Folds everything that was kept on the device once more.
    Residency,
}

impl fmt::Display for Phase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expanding => formatter.pad("expanding the matrices"),
            Self::Checking(precision) => formatter.pad(&format!("checking {precision}")),
            Self::Stage { precision, .. } => formatter.pad(&format!("multiplying in {precision}")),
            Self::Residency => formatter.pad("folding what is resident"),
        }
    }
}

/// How far a prover is with what it is busy with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Of which of the devices that are challenged together, counted from 0.
    pub device: usize,
    /// With what.
    pub phase: Phase,
    /// Parts that are done.
    pub done: u64,
    /// All parts of this phase.
    pub of: u64,
}

/// Who hears of progress: called on the prover's thread, so it must not block.
pub type Listener = Arc<dyn Fn(Progress) + Send + Sync>;

/// The hold of an owner on one prover.
#[derive(Clone)]
pub struct Control {
    stop: StopToken,
    gate: Arc<dyn Gate>,
    listener: Option<Listener>,
    device: usize,
}

impl fmt::Debug for Control {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Control")
            .field("stop", &self.stop)
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

impl Default for Control {
    fn default() -> Self {
        Self::new(StopToken::default(), Arc::new(AlwaysOpen))
    }
}

impl Control {
    /// A hold by a token and a gate.
    #[must_use]
    pub fn new(stop: StopToken, gate: Arc<dyn Gate>) -> Self {
        Self {
            stop,
            gate,
            listener: None,
            device: 0,
        }
    }

    /// The same, with someone who hears of progress.
    #[must_use]
    pub fn with_listener(self, listener: Listener) -> Self {
        Self {
            listener: Some(listener),
            ..self
        }
    }

    /// The same hold for one of several devices, whose number the events carry.
    #[must_use]
    pub fn for_device(&self, device: usize) -> Self {
        Self {
            device,
            ..self.clone()
        }
    }

    /// Whether the prover may go on.
    ///
    /// # Errors
    /// Where it may not, and why.
    pub fn check(&self) -> Result<(), Interruption> {
        if self.stop.is_stopped() {
            return Err(Interruption::Stopped);
        }
        if !self.gate.is_open() {
            return Err(Interruption::GateClosed);
        }
        Ok(())
    }

    /// Tells the listener, if there is one.
    pub(super) fn tell(&self, phase: Phase, done: usize, of: usize) {
        if let Some(listener) = &self.listener {
            listener(Progress {
                device: self.device,
                phase,
                done: done as u64,
                of: of as u64,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Door(AtomicBool);

    impl Gate for Door {
        fn is_open(&self) -> bool {
            self.0.load(Ordering::Acquire)
        }
    }

    #[test]
    fn a_stop_outweighs_a_closed_gate_and_reaches_every_clone() {
        let (stop, door) = (StopToken::default(), Arc::new(Door(AtomicBool::new(true))));
        let control = Control::new(stop.clone(), door.clone());
        let second = control.for_device(1);
        assert_eq!(control.check(), Ok(()));
        door.0.store(false, Ordering::Release);
        assert_eq!(second.check(), Err(Interruption::GateClosed));
        stop.stop();
        assert_eq!(second.check(), Err(Interruption::Stopped));
        assert_eq!(control.check(), Err(Interruption::Stopped));
    }

    #[test]
    fn a_listener_hears_which_device_got_how_far() {
        let heard = Arc::new(std::sync::Mutex::new(Vec::new()));
        let ears = heard.clone();
        let control =
            Control::default().with_listener(Arc::new(move |progress| ears.lock().unwrap().push(progress)));
        control.tell(Phase::Expanding, 1, 2);
        control.for_device(3).tell(Phase::Residency, 2, 2);
        let heard = heard.lock().unwrap();
        assert_eq!((heard[0].device, heard[0].done, heard[0].of), (0, 1, 2));
        assert_eq!((heard[1].device, heard[1].phase), (3, Phase::Residency));
    }
}
