//! Makes questions look as people type them: greetings around them, no capitals, no question mark, typing errors.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::corpus::Corpus;

/// Draws one item of a list that is known not to be empty.
pub(crate) fn choose<'a, T>(items: &'a [T], rng: &mut ChaCha8Rng) -> &'a T {
    &items[rng.random_range(0..items.len())]
}

/// Rewrites a question the way another, hurried person might have typed it; often leaves it alone.
pub(crate) fn vary(question: &str, corpus: &Corpus, rng: &mut ChaCha8Rng) -> String {
    let text = dress(&reword(question, corpus, rng), corpus, rng);
    if corpus.is_held_out(&text) {
        question.to_owned()
    } else {
        text
    }
}

/// Changes how a question looks, not what it says.
fn dress(question: &str, corpus: &Corpus, rng: &mut ChaCha8Rng) -> String {
    let mut text = question.to_owned();
    if rng.random_bool(0.3) {
        text = text.trim_end_matches(['?', '.', '!']).to_owned();
    }
    if rng.random_bool(0.15) {
        text += choose::<String>(&corpus.closings, rng);
    }
    if rng.random_bool(0.2) {
        text = format!(
            "{}{}",
            choose::<String>(&corpus.openings, rng),
            lower_first(&text)
        );
    }
    if rng.random_bool(0.3) {
        text = text.to_lowercase();
    } else if rng.random_bool(0.03) {
        text = text.to_uppercase();
    }
    if rng.random_bool(0.12) {
        text = mistype(&text, rng);
    }
    text
}

/// Says a question in other words, or loses a small one.
fn reword(question: &str, corpus: &Corpus, rng: &mut ChaCha8Rng) -> String {
    let mut text = question.to_owned();
    while rng.random_bool(0.35) {
        let fitting: Vec<_> = corpus
            .may_become
            .iter()
            .filter(|(from, _)| holds_words(&text, from))
            .collect();
        if fitting.is_empty() {
            break;
        }
        let (from, to) = choose(&fitting, rng);
        text = replace_words(&text, from, to);
    }
    if rng.random_bool(0.1) {
        let lost: &String = choose(&corpus.may_be_lost, rng);
        text = replace_words(&text, lost, "");
    }
    text
}

/// Whether a text contains whole words.
fn holds_words(text: &str, words: &str) -> bool {
    format!(" {text} ").contains(&format!(" {words} "))
}

/// Replaces whole words, once.
fn replace_words(text: &str, from: &str, to: &str) -> String {
    let replaced = format!(" {text} ").replacen(&format!(" {from} "), &format!(" {to} "), 1);
    replaced.replace("  ", " ").trim().to_owned()
}

/// Fills the gaps of an off-topic pattern.
pub(crate) fn off_topic(corpus: &Corpus, rng: &mut ChaCha8Rng) -> String {
    let mut text = choose::<String>(&corpus.off_topic, rng).clone();
    for (name, words) in &corpus.words {
        let gap = format!("{{{name}}}");
        while text.contains(&gap) {
            text = text.replacen(&gap, choose::<String>(words, rng), 1);
        }
    }
    while text.contains("{invented}") {
        text = text.replacen("{invented}", &invented_word(rng), 1);
    }
    text
}

/// A word that means nothing, so that the guide learns to decline whatever it has never seen.
fn invented_word(rng: &mut ChaCha8Rng) -> String {
    const ONSETS: [&str; 24] = [
        "b", "br", "c", "ch", "d", "dr", "f", "fl", "g", "gl", "h", "j", "k", "l", "m", "n", "p", "qu", "s",
        "st", "t", "v", "w", "z",
    ];
    const ENDS: [&str; 20] = [
        "a", "an", "ar", "e", "el", "en", "er", "i", "in", "ip", "o", "on", "or", "u", "um", "us", "ax",
        "ed", "ing", "ish",
    ];
    (0..rng.random_range(1..=3))
        .map(|_| format!("{}{}", choose(&ONSETS, rng), choose(&ENDS, rng)))
        .collect()
}

fn lower_first(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(characters).collect()
    })
}

/// Drops, doubles or swaps one letter.
fn mistype(text: &str, rng: &mut ChaCha8Rng) -> String {
    let mut letters: Vec<char> = text.chars().collect();
    if letters.len() < 6 {
        return text.to_owned();
    }
    let at = rng.random_range(1..letters.len() - 1);
    match rng.random_range(0..3) {
        0 => {
            letters.remove(at);
        }
        1 => letters.insert(at, letters[at]),
        _ => letters.swap(at, at + 1),
    }
    letters.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn a_typing_error_changes_at_most_one_place() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for _ in 0..200 {
            let typed = mistype("What is Gristmill?", &mut rng);
            assert!(typed.chars().count().abs_diff(18) <= 1, "{typed}");
        }
        assert_eq!(mistype("why?", &mut rng), "why?");
    }

    #[test]
    fn only_whole_words_are_replaced() {
        assert_eq!(replace_words("What is this?", "is", "was"), "What was this?");
        assert_eq!(replace_words("What is the is?", "the", ""), "What is is?");
        assert_eq!(replace_words("this", "is", "was"), "this");
    }

    #[test]
    fn held_out_questions_are_never_taught() {
        let corpus = Corpus::load(&super::super::guide_folder().join("data")).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        for fact in &corpus.facts {
            for question in fact
                .questions
                .iter()
                .flat_map(|question| std::iter::repeat_n(question, 30))
            {
                let varied = vary(question, &corpus, &mut rng);
                assert!(!corpus.is_held_out(&varied), "{varied:?} is held out");
            }
        }
    }

    #[test]
    fn the_same_seed_varies_the_same_way() {
        let corpus = Corpus::load(&super::super::guide_folder().join("data")).unwrap();
        let draw = |seed| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            (0..50)
                .map(|_| off_topic(&corpus, &mut rng) + &vary("What is a voucher?", &corpus, &mut rng))
                .collect::<Vec<_>>()
        };
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
        assert!(
            draw(3).iter().all(|text| !text.contains('{')),
            "a pattern names a list that does not exist: {:?}",
            draw(3)
        );
    }
}
