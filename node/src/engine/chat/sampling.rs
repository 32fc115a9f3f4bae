//! Which token comes next: a choice from logits by temperature, nucleus, penalties and a seed. Pure.

use std::collections::BTreeMap;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// How tokens are chosen.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sampling {
    /// Zero takes the likeliest token always.
    pub(super) temperature: f64,
    /// The likeliest tokens that together have this probability are chosen from.
    pub(super) top_p: f64,
    /// Taken from a token's logit once for each time it was written.
    pub(super) frequency_penalty: f64,
    /// Taken from a token's logit once it was written.
    pub(super) presence_penalty: f64,
    /// Added to the logits of tokens.
    pub(super) bias: Vec<(u32, f32)>,
}

/// The logits hold nothing to choose from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NothingToChoose;

/// Chooses the tokens of one answer.
pub(super) struct Sampler {
    sampling: Sampling,
    random: ChaCha12Rng,
    written: BTreeMap<u32, u32>,
}

impl Sampler {
    /// The same seed chooses the same tokens from the same logits.
    pub(super) fn new(sampling: Sampling, seed: u64) -> Self {
        Self {
            sampling,
            random: ChaCha12Rng::seed_from_u64(seed),
            written: BTreeMap::new(),
        }
    }

    /// Which token would come next, were it chosen now. Choosing again without [recording](Self::record) chooses
    /// the same.
    ///
    /// # Errors
    /// [`NothingToChoose`] where no logit is a number.
    pub(super) fn choose(&self, mut logits: Vec<f32>) -> Result<u32, NothingToChoose> {
        self.penalize(&mut logits);
        let likeliest = likeliest(&logits).ok_or(NothingToChoose)?;
        if self.is_greedy() {
            return Ok(likeliest);
        }
        Ok(self.draw(&logits, likeliest))
    }

    /// Goes on to the next token: remembers this one for the penalties, and uses its share of randomness up.
    pub(super) fn record(&mut self, token: u32) {
        if !self.is_greedy() {
            self.random.next_u64();
        }
        *self.written.entry(token).or_insert(0) += 1;
    }

    fn is_greedy(&self) -> bool {
        self.sampling.temperature <= 0.0
    }

    #[expect(clippy::cast_possible_truncation, reason = "logits are of single precision")]
    fn penalize(&self, logits: &mut [f32]) {
        for (token, bias) in &self.sampling.bias {
            if let Some(logit) = logits.get_mut(*token as usize) {
                *logit += bias;
            }
        }
        let Sampling {
            frequency_penalty,
            presence_penalty,
            ..
        } = self.sampling;
        if frequency_penalty == 0.0 && presence_penalty == 0.0 {
            return;
        }
        for (token, count) in &self.written {
            if let Some(logit) = logits.get_mut(*token as usize) {
                *logit -= (f64::from(*count) * frequency_penalty + presence_penalty) as f32;
            }
        }
    }

    fn draw(&self, logits: &[f32], likeliest: u32) -> u32 {
        let top = f64::from(logits[likeliest as usize]);
        let weight = |logit: f32| {
            if logit.is_nan() {
                0.0
            } else {
                ((f64::from(logit) - top) / self.sampling.temperature).exp()
            }
        };
        let total: f64 = logits.iter().map(|logit| weight(*logit)).sum();
        let all = (0u32..).zip(logits.iter().map(|logit| weight(*logit)));
        // 53 random bits are the fraction of a double.
        let point = |random: u64| (random >> 11) as f64 / (1u64 << 53) as f64;
        let point = point(self.random.clone().next_u64());
        if self.sampling.top_p >= 1.0 {
            return pick(all, point * total).unwrap_or(likeliest);
        }
        let nucleus = nucleus(all, logits.len(), total, self.sampling.top_p);
        let kept: f64 = nucleus.iter().map(|(_, weight)| weight).sum();
        pick(nucleus.into_iter(), point * kept).unwrap_or(likeliest)
    }
}

/// The likeliest tokens whose weights together reach `top_p` of the total; at least one.
fn nucleus(
    weights: impl Iterator<Item = (u32, f64)>,
    count: usize,
    total: f64,
    top_p: f64,
) -> Vec<(u32, f64)> {
    // All tokens lighter than this together are lighter than what may be left out, so they need no sorting.
    #[expect(
        clippy::cast_precision_loss,
        reason = "vocabularies are far smaller than 2^52"
    )]
    let lightest = (1.0 - top_p) * total / count as f64;
    let mut candidates: Vec<_> = weights
        .filter(|(_, weight)| *weight >= lightest && *weight > 0.0)
        .collect();
    candidates.sort_unstable_by(|(a, a_weight), (b, b_weight)| b_weight.total_cmp(a_weight).then(a.cmp(b)));
    let mut reached = 0.0;
    let enough = candidates.iter().position(|(_, weight)| {
        reached += weight;
        reached >= top_p * total
    });
    candidates.truncate(enough.map_or(candidates.len(), |last| last + 1));
    candidates
}

/// The token in whose stretch of the summed weights the point falls.
fn pick(weights: impl Iterator<Item = (u32, f64)>, point: f64) -> Option<u32> {
    let mut reached = 0.0;
    let mut last = None;
    for (token, weight) in weights {
        if weight > 0.0 {
            last = Some(token);
            reached += weight;
            if point < reached {
                break;
            }
        }
    }
    last
}

/// The token with the highest logit, the first of several; none where there is no number.
fn likeliest(logits: &[f32]) -> Option<u32> {
    let numbers = (0u32..)
        .zip(logits)
        .filter(|(_, logit)| !logit.is_nan() && **logit > f32::NEG_INFINITY);
    numbers
        .reduce(|best, candidate| if candidate.1 > best.1 { candidate } else { best })
        .map(|(token, _)| token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GREEDY: Sampling = Sampling {
        temperature: 0.0,
        top_p: 1.0,
        frequency_penalty: 0.0,
        presence_penalty: 0.0,
        bias: Vec::new(),
    };
    const PLAIN: Sampling = Sampling {
        temperature: 1.0,
        top_p: 1.0,
        frequency_penalty: 0.0,
        presence_penalty: 0.0,
        bias: Vec::new(),
    };

    fn draws(sampling: Sampling, logits: &[f32], seed: u64, count: usize) -> Vec<u32> {
        let mut sampler = Sampler::new(sampling, seed);
        let mut draw = || {
            let token = sampler.choose(logits.to_vec()).unwrap();
            assert_eq!(sampler.choose(logits.to_vec()).unwrap(), token);
            sampler.record(token);
            token
        };
        (0..count).map(|_| draw()).collect()
    }

    #[test]
    fn greedy_takes_the_first_of_the_likeliest() {
        assert_eq!(draws(GREEDY, &[0.0, 3.0, 3.0, -1.0], 1, 3), [1, 1, 1]);
    }

    #[test]
    fn nothing_finite_is_an_error() {
        for logits in [vec![], vec![f32::NAN; 3], vec![f32::NEG_INFINITY; 2]] {
            assert_eq!(Sampler::new(PLAIN, 1).choose(logits), Err(NothingToChoose));
        }
    }

    #[test]
    fn infinite_and_missing_numbers_do_no_harm() {
        for logits in [
            vec![f32::NAN, 1.0, 2.0],
            vec![f32::NEG_INFINITY, 1.0],
            vec![f32::INFINITY, 1.0, 2.0],
        ] {
            for sampling in [GREEDY, PLAIN, Sampling { top_p: 0.5, ..PLAIN }] {
                let token = Sampler::new(sampling, 3).choose(logits.clone()).unwrap();
                assert!((token as usize) < logits.len() && !logits[token as usize].is_nan());
            }
        }
    }

    #[test]
    fn frequencies_follow_the_softmax() {
        let logits = [1f32.ln(), 2f32.ln(), 7f32.ln()];
        let drawn = draws(PLAIN, &logits, 42, 20_000);
        for (token, share) in [(0, 0.1), (1, 0.2), (2, 0.7)] {
            let seen = drawn.iter().filter(|drawn| **drawn == token).count() as f64 / 20_000.0;
            assert!((seen - share).abs() < 0.015, "{token}: {seen}");
        }
    }

    #[test]
    fn the_nucleus_is_the_fewest_tokens_that_reach_top_p() {
        let logits = [1f32.ln(), 2f32.ln(), 7f32.ln()];
        let kept = |top_p: f64| {
            let mut tokens = draws(Sampling { top_p, ..PLAIN }, &logits, 7, 2_000);
            tokens.sort_unstable();
            tokens.dedup();
            tokens
        };
        assert_eq!(kept(0.0), [2]);
        assert_eq!(kept(0.69), [2]);
        assert_eq!(kept(0.71), [1, 2]);
        assert_eq!(kept(0.95), [0, 1, 2]);
    }

    #[test]
    fn penalties_push_written_tokens_away() {
        let presence = Sampling {
            presence_penalty: 1.0,
            ..GREEDY
        };
        assert_eq!(draws(presence, &[1.0, 0.5], 1, 4), [0, 1, 0, 0]);
        let frequency = Sampling {
            frequency_penalty: 0.4,
            ..GREEDY
        };
        assert_eq!(draws(frequency, &[1.0, 0.5], 1, 5), [0, 0, 1, 0, 1]);
    }

    #[test]
    fn biases_push_and_ban_tokens() {
        let biased = |bias: f32| Sampling {
            bias: vec![(0, bias), (9, 1.0)],
            ..GREEDY
        };
        assert_eq!(draws(biased(0.4), &[1.0, 1.5], 1, 1), [1]);
        assert_eq!(draws(biased(0.6), &[1.0, 1.5], 1, 1), [0]);
        let banned = Sampling {
            temperature: 1.0,
            ..biased(-100.0)
        };
        assert_eq!(draws(banned, &[1.0, 1.5], 1, 50), [1; 50]);
    }

    proptest! {
        #[test]
        fn every_choice_is_a_token_and_seeds_repeat(
            logits in prop::collection::vec(-50f32..50.0, 1..200),
            temperature in 0f64..2.0,
            top_p in 0f64..=1.0,
            seed: u64,
        ) {
            let sampling = Sampling { temperature, top_p, ..GREEDY };
            let first = draws(sampling.clone(), &logits, seed, 20);
            prop_assert!(first.iter().all(|token| (*token as usize) < logits.len()));
            prop_assert_eq!(first, draws(sampling, &logits, seed, 20));
        }

        #[test]
        fn leaving_out_light_tokens_early_changes_nothing(
            weights in prop::collection::vec(0f64..1.0, 1..100),
            top_p in 0f64..0.999,
        ) {
            let total: f64 = weights.iter().sum();
            prop_assume!(total > 0.0);
            let mut sorted: Vec<_> = (0u32..).zip(weights.iter().copied()).filter(|(_, w)| *w > 0.0).collect();
            sorted.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            let mut reached = 0.0;
            let mut expected = Vec::new();
            for (token, weight) in sorted {
                reached += weight;
                expected.push(token);
                if reached >= top_p * total {
                    break;
                }
            }
            let found = nucleus((0u32..).zip(weights.iter().copied()), weights.len(), total, top_p);
            prop_assert_eq!(found.iter().map(|(token, _)| *token).collect::<Vec<_>>(), expected);
        }
    }
}
