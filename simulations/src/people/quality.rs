//! Which model answers: evidence of questions with known answers, which adds up until it says something.
//!
//! A smaller model is wrong a little more often; one odd answer proves nothing. So right and wrong answers add to a sum
//! (E. S. Page, "Continuous Inspection Schemes", Biometrika 41, 1954): what speaks for the smaller model raises it, what
//! speaks for the listed one lowers it, never below zero, so that a provider who begins to lie late is found as soon.
//!
//! Shares of right answers are those of MMLU as their maker gives them (Llama 3 8B and 70B Instruct, 68.4 and 82.0 %,
//! April 2024); the medium model's is an assumption between the two. The shipped consumer asks no such questions: this is a
//! defence to be judged.

use serde::{Deserialize, Serialize};

use super::popularity::ModelSize;
use crate::engine::Random;

/// The sum at which a provider is found, in thousandths: `ln 10,000`. By Wald's bound an honest one reaches it once in
/// 10,000 starts from zero at most.
pub const FOUND_AT: i32 = 9_210;

/// The share of questions that a model answers rightly, in parts of a thousand.
#[must_use]
pub const fn right_per_mille(model: ModelSize) -> u64 {
    match model {
        ModelSize::Small => 684,
        ModelSize::Medium => 760,
        ModelSize::Large => 820,
    }
}

/// Whether a model answers a question rightly.
#[must_use]
pub fn answers_rightly(model: ModelSize, random: &mut Random) -> bool {
    random.below(1_000) < right_per_mille(model)
}

/// What a consumer knows of a provider's model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    sum: i32,
    questions: u32,
}

impl Evidence {
    /// A question was answered by somebody who lists this model.
    pub fn answered(&mut self, listed: ModelSize, is_right: bool) {
        // Thousandths of the logarithm of how much likelier the answer is of the small model than of the listed one.
        let (right, wrong) = match listed {
            ModelSize::Small => (0, 0),
            ModelSize::Medium => (-105, 275),
            ModelSize::Large => (-181, 563),
        };
        self.sum = self
            .sum
            .saturating_add(if is_right { right } else { wrong })
            .max(0);
        self.questions = self.questions.saturating_add(1);
    }

    /// Whether the provider is found to have a smaller model than it lists.
    #[must_use]
    pub const fn is_found(&self) -> bool {
        self.sum >= FOUND_AT
    }

    /// How many questions it was asked.
    #[must_use]
    pub const fn questions(&self) -> u32 {
        self.questions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After how many questions a provider is found, on average over many; and how many were found within 2,000.
    fn found(listed: ModelSize, serves: ModelSize) -> (f64, u32) {
        let (mut questions, mut found) = (0, 0);
        for provider in 0..500 {
            let mut random = Random::of_purpose(7, "questions", provider);
            let mut evidence = Evidence::default();
            while !evidence.is_found() && evidence.questions() < 2_000 {
                evidence.answered(listed, answers_rightly(serves, &mut random));
            }
            questions += evidence.questions();
            found += u32::from(evidence.is_found());
        }
        (f64::from(questions) / 500.0, found)
    }

    #[test]
    fn a_smaller_model_is_found_after_some_hundred_questions_and_an_honest_one_hardly_ever() {
        let (questions, caught) = found(ModelSize::Large, ModelSize::Small);
        assert_eq!(caught, 500);
        // The threshold over the mean gain of a question: 9.21 / 0.054.
        assert!((130.0..200.0).contains(&questions), "{questions}");
        let (_, caught) = found(ModelSize::Large, ModelSize::Large);
        assert!(caught <= 15, "{caught}");
        assert_eq!(found(ModelSize::Small, ModelSize::Small).1, 0);
    }
}
