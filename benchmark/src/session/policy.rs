//! The numbers that a coordinator goes by.

/// Bounds and times of challenges. Times are in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Units of each stage that are opened, and as many of what stayed in memory.
    pub openings: u32,
    /// How long the last stage of a processor should take at the claimed rate, at most. It fills the claimed memory.
    pub last_stage_of_processor_ms: u64,
    /// The same of any other device, which has more memory for its speed.
    pub last_stage_ms: u64,
    /// How long a stage should take at the claimed rate, at least: long against a hiccup of the network.
    pub stage_ms: u64,
    /// Echoes that are timed.
    pub echoes: u32,
    /// How long all the echoes may take.
    pub echo_within_ms: u64,
    /// The largest part of a measured time that is put down to the way to and fro.
    pub credit_max_ms: u64,
    /// How long the matrices may take.
    pub prepare_within_ms: u64,
    /// How long a group stays open after the last device joined it, once all of them are ready.
    pub settle_ms: u64,
    /// How long a device that is ready waits for certified ones that have to take part.
    pub together_within_ms: u64,
    /// How long a group gathers from its first member on, whoever joins it. Then those begin that are ready, and the
    /// others gather anew. Longer than a device needs to be ready and waits for others, so that no owner's devices are
    /// parted without need.
    pub gather_within_ms: u64,
    /// What the fold of the memory may take beyond the time in which the results could be computed anew.
    pub residency_slack_ms: u64,
    /// How long the proof may take.
    pub proof_within_ms: u64,
    /// How long a call is held where there is nothing to do yet.
    pub hold_ms: u64,
    /// How long the outcome of a challenge is kept for callers that ask again.
    pub keep_outcome_ms: u64,
    /// Least share of the memory asked for that has to be shown, in percent.
    pub memory_share_percent: u64,
    /// Most challenges at once, in all.
    pub open_max: usize,
    /// Most challenges of one account at once.
    pub open_per_account_max: usize,
    /// Most challenges from one address at once.
    pub open_per_address_max: usize,
    /// Most challenges that begin in an hour, in all.
    pub starts_per_hour_max: usize,
    /// Most challenges of one account that begin in an hour.
    pub starts_per_hour_per_account_max: usize,
    /// Most challenges from one address that begin in an hour.
    pub starts_per_hour_per_address_max: usize,
    /// Most devices that are remembered as certified.
    pub devices_max: usize,
    /// The earliest that a device is challenged again by chance.
    pub again_after_ms: u64,
    /// How old what a certificate shows may be when the certificate expires: a day.
    pub shown_life_ms: u64,
    /// How long a device's fingerprint is remembered after its certificate expired.
    pub remember_ms: u64,
}

impl Default for Policy {
    fn default() -> Self {
        const MINUTE_MS: u64 = 60_000;
        const HOUR_MS: u64 = 60 * MINUTE_MS;
        Self {
            // 20 ln 2 / -ln 0.95 = 270.3: one in 2^20 who skips 5 % is missed.
            openings: 271,
            last_stage_of_processor_ms: 10_000,
            last_stage_ms: 30_000,
            stage_ms: 3_000,
            echoes: 4,
            echo_within_ms: 20_000,
            credit_max_ms: 250,
            prepare_within_ms: 2 * MINUTE_MS,
            settle_ms: 1_000,
            together_within_ms: 10 * MINUTE_MS,
            gather_within_ms: 15 * MINUTE_MS,
            residency_slack_ms: 5_000,
            proof_within_ms: 2 * MINUTE_MS,
            hold_ms: 4_000,
            keep_outcome_ms: 10 * MINUTE_MS,
            memory_share_percent: 50,
            open_max: 128,
            open_per_account_max: 64,
            open_per_address_max: 64,
            starts_per_hour_max: 4_096,
            starts_per_hour_per_account_max: 128,
            starts_per_hour_per_address_max: 128,
            devices_max: 100_000,
            again_after_ms: 10 * MINUTE_MS,
            shown_life_ms: 24 * HOUR_MS,
            remember_ms: 30 * 24 * HOUR_MS,
        }
    }
}
