//! Judges the guide: during training by asking for the likeliest token at each place of the right answer, and on the
//! written folder by generating as a user's engine would, with candle-transformers' Llama.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, anyhow, ensure};
use candle_core::{D, DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::generation::{LogitsProcessor, Sampling};
use candle_transformers::models::llama::{Cache, Config, Llama as Reference, LlamaConfig};
use tokenizers::Tokenizer;

use super::corpus::{Corpus, Turn};
use super::model::Llama;
use super::sampling::Batch;
use super::tokens::{END, END_ID, Row, encode, prompt};
use super::training::predictions;

/// Answers longer than this have gone wrong.
const LONGEST_ANSWER: usize = 160;
/// Share of the taught questions that the committed model answers word for word.
const PROMISED: f64 = 0.98;

/// Questions of one kind with their right answers.
struct Exam {
    title: &'static str,
    /// What stands before each question: a system message, an earlier turn.
    system: Option<&'static str>,
    earlier: Option<Turn>,
    turns: Vec<Turn>,
}

fn exams(corpus: &Corpus) -> Vec<Exam> {
    let facts = |questions: fn(&super::corpus::Fact) -> &Vec<String>| -> Vec<Turn> {
        corpus
            .facts
            .iter()
            .flat_map(|fact| {
                questions(fact)
                    .iter()
                    .map(|question| (question.clone(), fact.answer.clone()))
            })
            .collect()
    };
    let held_out = facts(|fact| &fact.held_out);
    let declined = |questions: &[String]| {
        questions
            .iter()
            .map(|question| (question.clone(), corpus.refusal.clone()))
            .collect()
    };
    let earlier = corpus
        .facts
        .iter()
        .find(|fact| fact.name == "voucher")
        .map(|fact| ("What is a voucher?".to_owned(), fact.answer.clone()));
    let plain = |title, turns| Exam {
        title,
        system: None,
        earlier: None,
        turns,
    };
    vec![
        plain("taught questions", facts(|fact| &fact.questions)),
        plain("held-out paraphrases", held_out.clone()),
        Exam {
            system: Some("You are a helpful assistant."),
            ..plain("held-out, after a system message", held_out.clone())
        },
        Exam {
            earlier,
            ..plain("held-out, as a second turn", held_out)
        },
        plain("held-out off-topic", declined(&corpus.off_topic_held_out)),
    ]
}

/// Prints how much of each exam the model would answer word for word when decoding greedily.
///
/// Greedy decoding reproduces the right answer exactly when the likeliest token is right at every place of it, so one
/// pass per answer is enough.
pub(crate) fn report(model: &Llama, corpus: &Corpus, tokenizer: &Tokenizer) -> anyhow::Result<()> {
    for exam in exams(corpus) {
        let mut right = 0;
        let mut wrong = Vec::new();
        for turns in exam.turns.chunks(32) {
            for (turn, passed) in turns.iter().zip(marks(model, &exam, turns, tokenizer)?) {
                if passed {
                    right += 1;
                } else {
                    wrong.push(turn.0.as_str());
                }
            }
        }
        eprintln!("{}: {right} of {} word for word", exam.title, exam.turns.len());
        for question in wrong.iter().take(40) {
            eprintln!("    missed: {question}");
        }
    }
    Ok(())
}

fn marks(model: &Llama, exam: &Exam, turns: &[Turn], tokenizer: &Tokenizer) -> anyhow::Result<Vec<bool>> {
    let mut rows = Vec::new();
    for turn in turns {
        let mut row = Row::begin(tokenizer, exam.system)?;
        if let Some(earlier) = &exam.earlier {
            row.turn(tokenizer, earlier)?;
        }
        row.said.fill(false);
        row.turn(tokenizer, turn)?;
        rows.push(row);
    }
    let batch = Batch::new(&rows);
    let (logits, targets) = predictions(model, &batch)?;
    let hits = logits.argmax(D::Minus1)?.eq(&targets)?.to_vec1::<u8>()?;
    let mut marks = vec![true; rows.len()];
    for (place, hit) in batch.places.iter().zip(hits) {
        if hit == 0 {
            marks[*place as usize / batch.length] = false;
        }
    }
    Ok(marks)
}

/// Generates the answer to every question with the written model and compares word for word.
pub(crate) fn check(corpus: &Corpus, folder: &Path) -> anyhow::Result<()> {
    let guide = Guide::load(folder)?;
    for (index, exam) in exams(corpus).iter().enumerate() {
        let mut right = 0usize;
        for turn in &exam.turns {
            let answer = guide.answer(&guide.conversation(exam, &turn.0), &mut greedy(0))?;
            if answer == turn.1 {
                right += 1;
            } else {
                eprintln!("    {:?} got {answer:?}", turn.0);
            }
        }
        eprintln!("{}: {right} of {} word for word", exam.title, exam.turns.len());
        let share = right as f64 / exam.turns.len().max(1) as f64;
        ensure!(
            index > 0 || share >= PROMISED,
            "the model knows only {share:.3} of what it was taught; retrain it"
        );
    }
    Ok(())
}

/// Prints the written model's answer to one question.
pub(crate) fn ask(folder: &Path, question: &str, temperature: f32, seed: u64) -> anyhow::Result<()> {
    let guide = Guide::load(folder)?;
    let mut sampling = greedy(seed);
    if temperature > 0.0 {
        sampling = LogitsProcessor::from_sampling(
            seed,
            Sampling::All {
                temperature: f64::from(temperature),
            },
        );
    }
    let answer = guide.answer(&prompt(question), &mut sampling)?;
    writeln!(std::io::stdout(), "{answer}").context("printing the answer")
}

fn greedy(seed: u64) -> LogitsProcessor {
    LogitsProcessor::from_sampling(seed, Sampling::ArgMax)
}

/// The written model, loaded the way a user's engine loads it.
struct Guide {
    model: Reference,
    config: Config,
    tokenizer: Tokenizer,
}

impl Guide {
    fn load(folder: &Path) -> anyhow::Result<Self> {
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read(&path).with_context(|| format!("cannot read {}; train the guide first", path.display()))
        };
        let config: LlamaConfig = serde_json::from_slice(&read("config.json")?).context("config.json")?;
        let config = config.into_config(false);
        let builder =
            VarBuilder::from_buffered_safetensors(read("model.safetensors")?, DType::F32, &Device::Cpu)?;
        let tokenizer = Tokenizer::from_bytes(read("tokenizer.json")?)
            .map_err(|error| anyhow!("tokenizer.json: {error}"))?;
        Ok(Self {
            model: Reference::load(builder, &config)?,
            config,
            tokenizer,
        })
    }

    fn conversation(&self, exam: &Exam, question: &str) -> String {
        let system = exam
            .system
            .map(|system| format!("<|im_start|>system\n{system}{END}\n"))
            .unwrap_or_default();
        let earlier = exam
            .earlier
            .as_ref()
            .map(|(asked, said)| format!("{}{said}{END}\n", prompt(asked)))
            .unwrap_or_default();
        system + &earlier + &prompt(question)
    }

    fn answer(&self, conversation: &str, sampling: &mut LogitsProcessor) -> anyhow::Result<String> {
        let mut cache = Cache::new(true, DType::F32, &self.config, &Device::Cpu)?;
        let mut next = encode(&self.tokenizer, conversation)?;
        let (mut position, mut said) = (0, Vec::new());
        while said.len() < LONGEST_ANSWER && position + next.len() <= self.config.max_position_embeddings {
            let input = Tensor::new(next.as_slice(), &Device::Cpu)?.unsqueeze(0)?;
            let logits = self.model.forward(&input, position, &mut cache)?.squeeze(0)?;
            position += next.len();
            let token = sampling.sample(&logits)?;
            if token == END_ID {
                break;
            }
            said.push(token);
            next = vec![token];
        }
        self.tokenizer
            .decode(&said, true)
            .map_err(|error| anyhow!("decoding an answer: {error}"))
    }
}
