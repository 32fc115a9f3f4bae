//! Draws training rows: conversations of several unrelated questions, some with a system message, filled up to a length.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tokenizers::Tokenizer;

use super::corpus::{Corpus, Turn};
use super::phrasing::{choose, off_topic, vary};
use super::tokens::{PADDING_ID, Row};

/// Share of off-topic questions among all that are drawn.
const OFF_TOPIC: f64 = 0.26;
/// How often one more off-topic sentence follows in the same message.
const LONGER: f64 = 0.12;
/// Share of dialogues whose later questions lean on earlier ones.
const DIALOGUES: f64 = 0.07;
/// Share of conversations that begin with a system message.
const WITH_SYSTEM: f64 = 0.3;

/// Places at the beginning of an answer, which decide what will be said.
const OPENING: usize = 3;
/// How much more a place at the beginning of an answer counts than one further on.
const OPENING_WEIGHT: f32 = 4.0;

/// Rows of equal length: what goes in, what shall come out, and which places count.
pub(crate) struct Batch {
    /// Token ids, row after row.
    pub(crate) inputs: Vec<u32>,
    /// Indices into `inputs`, flattened, after which an answer's token follows.
    pub(crate) places: Vec<u32>,
    /// The token that follows each place.
    pub(crate) targets: Vec<u32>,
    /// How much each target counts.
    pub(crate) weights: Vec<f32>,
    /// Number of rows.
    pub(crate) rows: usize,
    /// Tokens per row.
    pub(crate) length: usize,
}

impl Batch {
    /// Pads rows to the longest one.
    pub(crate) fn new(rows: &[Row]) -> Self {
        let length = rows
            .iter()
            .map(|row| row.ids.len().saturating_sub(1))
            .max()
            .unwrap_or(0);
        let mut batch = Self {
            inputs: Vec::new(),
            places: Vec::new(),
            targets: Vec::new(),
            weights: Vec::new(),
            rows: rows.len(),
            length,
        };
        for row in rows {
            let start = batch.inputs.len();
            batch
                .inputs
                .extend(row.ids.iter().take(row.ids.len().saturating_sub(1)));
            batch.inputs.resize(start + length, PADDING_ID);
            let mut spoken = 0;
            for (index, (id, said)) in row.ids.iter().zip(&row.said).enumerate().skip(1) {
                if *said {
                    batch
                        .places
                        .push(u32::try_from(start + index - 1).unwrap_or(u32::MAX));
                    batch.targets.push(*id);
                    batch
                        .weights
                        .push(if spoken < OPENING { OPENING_WEIGHT } else { 1.0 });
                    spoken += 1;
                } else {
                    spoken = 0;
                }
            }
        }
        batch
    }
}

/// Draws conversations from the corpus.
pub(crate) struct Sampler<'a> {
    corpus: &'a Corpus,
    tokenizer: &'a Tokenizer,
    /// Index of each fact, as often as its weight says.
    weighted: Vec<usize>,
}

impl<'a> Sampler<'a> {
    /// Prepares to draw.
    pub(crate) fn new(corpus: &'a Corpus, tokenizer: &'a Tokenizer) -> Self {
        let weighted = corpus
            .facts
            .iter()
            .enumerate()
            .flat_map(|(index, fact)| std::iter::repeat_n(index, fact.weight))
            .collect();
        Self {
            corpus,
            tokenizer,
            weighted,
        }
    }

    /// A batch of fresh conversations of at most `length` tokens.
    pub(crate) fn batch(&self, rows: usize, length: usize, rng: &mut ChaCha8Rng) -> anyhow::Result<Batch> {
        let rows = (0..rows)
            .map(|_| self.row(length, rng))
            .collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Batch::new(&rows))
    }

    fn row(&self, length: usize, rng: &mut ChaCha8Rng) -> anyhow::Result<Row> {
        let system = rng.random_bool(WITH_SYSTEM).then(|| self.system(rng));
        let mut row = Row::begin(self.tokenizer, system.as_deref())?;
        let mut misses = 0;
        while misses < 3 {
            let mut longer = row.clone();
            for turn in self.turns(rng) {
                longer.turn(self.tokenizer, &turn)?;
            }
            if longer.ids.len() <= length {
                row = longer;
            } else {
                misses += 1;
            }
        }
        Ok(row)
    }

    fn turns(&self, rng: &mut ChaCha8Rng) -> Vec<Turn> {
        let kind = rng.random::<f64>();
        if kind < OFF_TOPIC {
            let mut question = off_topic(self.corpus, rng);
            while rng.random_bool(LONGER) {
                question = format!("{question} {}", off_topic(self.corpus, rng));
            }
            vec![(vary(&question, self.corpus, rng), self.corpus.refusal.clone())]
        } else if kind < OFF_TOPIC + DIALOGUES {
            let dialogue = choose(&self.corpus.dialogues, rng);
            dialogue
                .iter()
                .map(|(question, answer)| (vary(question, self.corpus, rng), answer.clone()))
                .collect()
        } else {
            let fact = &self.corpus.facts[*choose(&self.weighted, rng)];
            let question = choose(&fact.questions, rng);
            vec![(vary(question, self.corpus, rng), fact.answer.clone())]
        }
    }

    fn system(&self, rng: &mut ChaCha8Rng) -> String {
        // Programs send system messages of any content and length; the guide must read past all of them.
        let count = rng.random_range(1..=3);
        let sentence = |_| match rng.random_bool(0.3) {
            true => off_topic(self.corpus, rng),
            false => choose::<String>(&self.corpus.systems, rng).clone(),
        };
        (0..count).map(sentence).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_asks_only_for_what_is_said() {
        let row = |ids: &[u32], said: &[u8]| Row {
            ids: ids.to_vec(),
            said: said.iter().map(|&bit| bit == 1).collect(),
        };
        let batch = Batch::new(&[row(&[5, 6, 7, 8], &[0, 0, 1, 1]), row(&[5, 9], &[0, 1])]);
        assert_eq!((batch.rows, batch.length), (2, 3));
        assert_eq!(batch.inputs, [5, 6, 7, 5, PADDING_ID, PADDING_ID]);
        assert_eq!(batch.places, [1, 2, 3]);
        assert_eq!(batch.targets, [7, 8, 9]);
        assert_eq!(batch.weights, [OPENING_WEIGHT; 3]);
    }
}
