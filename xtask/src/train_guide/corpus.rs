//! The guide's text: what it knows, what it declines, how people ask. Read from the Markdown files in the data
//! folder, each a list of `## name` sections with one `Field: value` per line.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, bail, ensure};

/// One thing that the guide knows: an answer and the ways to ask for it.
#[derive(Debug, Clone)]
pub(crate) struct Fact {
    /// Section name, by which dialogues refer to the answer.
    pub(crate) name: String,
    /// What the guide shall say.
    pub(crate) answer: String,
    /// Questions to learn from.
    pub(crate) questions: Vec<String>,
    /// Questions of the same meaning that training never sees.
    pub(crate) held_out: Vec<String>,
    /// How often the fact is drawn compared to the others.
    pub(crate) weight: usize,
}

/// One question with the answer that belongs to it.
pub(crate) type Turn = (String, String);

/// Everything the guide is trained on and judged by.
#[derive(Debug)]
pub(crate) struct Corpus {
    /// What the guide knows.
    pub(crate) facts: Vec<Fact>,
    /// Conversations in which a question leans on the one before.
    pub(crate) dialogues: Vec<Vec<Turn>>,
    /// What the guide answers to anything else.
    pub(crate) refusal: String,
    /// Off-topic patterns with `{list}` gaps.
    pub(crate) off_topic: Vec<String>,
    /// Off-topic questions that training never sees.
    pub(crate) off_topic_held_out: Vec<String>,
    /// Words for the gaps in the off-topic patterns.
    pub(crate) words: BTreeMap<String, Vec<String>>,
    /// Words of a question, and others that may stand in their place.
    pub(crate) may_become: Vec<(String, String)>,
    /// Words that a question may lose without losing its meaning.
    pub(crate) may_be_lost: Vec<String>,
    /// Words put before a question, such as a greeting.
    pub(crate) openings: Vec<String>,
    /// Words put after a question, such as thanks.
    pub(crate) closings: Vec<String>,
    /// System messages that programs send.
    pub(crate) systems: Vec<String>,
    /// All held-out questions without capitals and punctuation.
    judged: BTreeSet<String>,
}

impl Corpus {
    /// Reads the data folder.
    pub(crate) fn load(folder: &Path) -> anyhow::Result<Self> {
        let phrasing = single_lists(&read(folder, "phrasing.md")?)?;
        let list = |name: &str| {
            phrasing
                .get(name)
                .cloned()
                .with_context(|| format!("phrasing.md lacks the section {name:?}"))
        };
        let facts = read(folder, "facts.md")?
            .iter()
            .map(|section| fact(section, &list))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let answers: BTreeMap<&str, &str> = facts
            .iter()
            .map(|fact| (fact.name.as_str(), fact.answer.as_str()))
            .collect();
        ensure!(
            answers.len() == facts.len(),
            "facts.md has two sections of one name"
        );
        let mut off_topic = single_lists(&read(folder, "off-topic.md")?)?;
        let mut take = |name: &str| {
            off_topic
                .remove(name)
                .with_context(|| format!("off-topic.md lacks the section {name:?}"))
        };
        let refusal = take("answer")?.join(" ");
        let (patterns, held_out) = (take("patterns")?, take("held out")?);
        let dialogues = read(folder, "dialogues.md")?
            .iter()
            .map(|section| dialogue(section, &answers, &refusal))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let judged = facts
            .iter()
            .flat_map(|fact| &fact.held_out)
            .chain(&held_out)
            .map(|question| plain(question.as_str()))
            .collect();
        Ok(Self {
            judged,
            dialogues,
            refusal,
            off_topic: patterns,
            off_topic_held_out: held_out,
            words: off_topic,
            may_become: pairs(&list("may become")?)?,
            may_be_lost: list("may be lost")?,
            openings: list("openings")?,
            closings: list("closings")?,
            systems: list("system messages")?,
            facts,
        })
    }

    /// Whether the evaluation asks this question, give or take capitals and punctuation.
    pub(crate) fn is_held_out(&self, question: &str) -> bool {
        self.judged.contains(&plain(question))
    }

    /// All text that the tokenizer should be able to write compactly, once each.
    pub(crate) fn texts(&self) -> Vec<String> {
        let facts = self.facts.iter().flat_map(|fact| {
            // Answers are written far more often than questions are read.
            std::iter::repeat_n(fact.answer.clone(), 4).chain(fact.questions.iter().cloned())
        });
        let others = [&self.off_topic, &self.openings, &self.closings, &self.systems];
        facts
            .chain(others.into_iter().flatten().cloned())
            .chain(self.words.values().flatten().map(|word| format!(" {word}")))
            .chain(std::iter::repeat_n(self.refusal.clone(), 20))
            .collect()
    }
}

/// A `## name` section: its lines without the blank ones.
struct Section {
    name: String,
    lines: Vec<String>,
}

fn read(folder: &Path, file: &str) -> anyhow::Result<Vec<Section>> {
    let path = folder.join(file);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut sections: Vec<Section> = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(name) = line.strip_prefix("## ") {
            sections.push(Section {
                name: name.to_owned(),
                lines: Vec::new(),
            });
        } else if let Some(section) = sections.last_mut() {
            section.lines.push(line.to_owned());
        }
    }
    ensure!(!sections.is_empty(), "{} has no sections", path.display());
    Ok(sections)
}

/// Sections that are plain `- item` lists, by name.
fn single_lists(sections: &[Section]) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let mut lists = BTreeMap::new();
    for section in sections {
        let items = section
            .lines
            .iter()
            .map(|line| {
                let item = line
                    .strip_prefix("- ")
                    .with_context(|| format!("section {:?}: {line:?} is not a list item", section.name))?;
                // Quotes keep a leading or trailing space alive.
                Ok(item
                    .strip_prefix('"')
                    .and_then(|item| item.strip_suffix('"'))
                    .unwrap_or(item)
                    .to_owned())
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        lists.insert(section.name.clone(), items);
    }
    Ok(lists)
}

fn pairs(lines: &[String]) -> anyhow::Result<Vec<(String, String)>> {
    lines
        .iter()
        .map(|line| {
            let (from, to) = line
                .split_once(" = ")
                .with_context(|| format!("{line:?} is not `this = that`"))?;
            Ok((from.to_owned(), to.to_owned()))
        })
        .collect()
}

/// A question without capitals, spaces and punctuation.
fn plain(question: &str) -> String {
    question
        .chars()
        .filter(|letter| letter.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect()
}

fn fact(section: &Section, list: &dyn Fn(&str) -> anyhow::Result<Vec<String>>) -> anyhow::Result<Fact> {
    let mut fact = Fact {
        name: section.name.clone(),
        answer: String::new(),
        questions: Vec::new(),
        held_out: Vec::new(),
        weight: 1,
    };
    for line in &section.lines {
        let (field, value) = line
            .split_once(": ")
            .with_context(|| format!("fact {:?}: {line:?} is not `Field: value`", fact.name))?;
        match field {
            "Q" => fact.questions.push(value.to_owned()),
            "A" => fact.answer = value.to_owned(),
            "Held out" => fact.held_out.push(value.to_owned()),
            "Weight" => {
                fact.weight = value
                    .parse()
                    .with_context(|| format!("fact {:?}: weight {value:?}", fact.name))?;
            }
            "Term" | "Terms" | "How" => {
                let kind = field.to_lowercase();
                fact.questions.extend(fill(&list(&kind)?, value));
                fact.held_out
                    .extend(fill(&list(&format!("{kind}, held out"))?, value));
            }
            _ => bail!("fact {:?} has an unknown field {field:?}", fact.name),
        }
    }
    ensure!(
        !fact.answer.is_empty() && !fact.questions.is_empty(),
        "fact {:?} lacks an answer or a question",
        fact.name
    );
    Ok(fact)
}

/// Puts a term into patterns: `{}` takes it whole, `{bare}` without its article.
fn fill(patterns: &[String], term: &str) -> Vec<String> {
    let bare = ["a ", "an ", "the "]
        .iter()
        .find_map(|article| term.strip_prefix(article))
        .unwrap_or(term);
    patterns
        .iter()
        .map(|pattern| pattern.replace("{}", term).replace("{bare}", bare))
        .collect()
}

fn dialogue(section: &Section, answers: &BTreeMap<&str, &str>, refusal: &str) -> anyhow::Result<Vec<Turn>> {
    let name = &section.name;
    ensure!(
        section.lines.len().is_multiple_of(2),
        "dialogue {name:?} has a question without an answer"
    );
    section
        .lines
        .chunks_exact(2)
        .map(|pair| {
            let question = pair[0]
                .strip_prefix("User: ")
                .with_context(|| format!("dialogue {name:?}: {:?} is not `User: …`", pair[0]))?;
            let fact = pair[1]
                .strip_prefix("Fact: ")
                .with_context(|| format!("dialogue {name:?}: {:?} is not `Fact: …`", pair[1]))?;
            let answer = match fact {
                "off-topic" => refusal,
                fact => answers
                    .get(fact)
                    .with_context(|| format!("dialogue {name:?} names the unknown fact {fact:?}"))?,
            };
            Ok((question.to_owned(), answer.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_data_is_well_formed_and_rich_enough() {
        let corpus = Corpus::load(&super::super::guide_folder().join("data")).unwrap();
        assert!(corpus.facts.len() >= 120, "{} facts", corpus.facts.len());
        assert!(
            corpus.facts.iter().all(|fact| fact.questions.len() >= 3),
            "every fact can be asked in several ways"
        );
        for fact in &corpus.facts {
            for question in &fact.held_out {
                assert!(
                    !fact.questions.contains(question),
                    "{question:?} is held out and taught"
                );
            }
        }
    }

    #[test]
    fn no_question_has_two_answers() {
        let corpus = Corpus::load(&super::super::guide_folder().join("data")).unwrap();
        let mut seen = BTreeMap::new();
        for fact in &corpus.facts {
            for question in fact.questions.iter().chain(&fact.held_out) {
                let key = question.to_lowercase().replace(['?', '.', '!'], "");
                if let Some(other) = seen.insert(key, &fact.name) {
                    assert_eq!(other, &fact.name, "{question:?} belongs to two facts");
                }
            }
        }
    }

    #[test]
    fn terms_lose_their_article_where_the_pattern_says_so() {
        assert_eq!(
            fill(&["What is {}?".into(), "{bare}".into()], "a voucher"),
            ["What is a voucher?", "voucher"]
        );
    }
}
