//! Names that somebody may have meant.

/// Most names that are looked at; a network with more is searched in part.
const NAMES_MAX: usize = 4_096;
/// How many near names are worth showing.
const SHOWN_MAX: usize = 3;

/// The names nearest to `wanted`, nearest first: those that contain it or are contained in it, and those few edits
/// away.
pub fn near_names<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let wanted = wanted.to_lowercase();
    let edits_max = (wanted.chars().count() / 3).max(2);
    let mut near: Vec<(usize, &str)> = names
        .take(NAMES_MAX)
        .filter_map(|name| {
            let folded = name.to_lowercase();
            let edits = edit_distance(&wanted, &folded);
            let related = wanted.len() >= 3 && folded.contains(&wanted)
                || folded.len() >= 3 && wanted.contains(&folded);
            (edits <= edits_max || related).then_some((edits, name))
        })
        .collect();
    near.sort();
    near.dedup();
    near.into_iter()
        .take(SHOWN_MAX)
        .map(|(_, name)| name.to_owned())
        .collect()
}

/// How many characters have to be inserted, removed or replaced to get from one text to the other (Levenshtein).
fn edit_distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, letter) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn distances_are_levenshteins() {
        for (from, to, distance) in [
            ("", "", 0),
            ("kitten", "sitting", 3),
            ("guide", "guide", 0),
            ("", "abc", 3),
            ("flaw", "lawn", 2),
        ] {
            assert_eq!(edit_distance(from, to), distance, "{from} {to}");
        }
    }

    #[test]
    fn typing_errors_and_parts_are_found() {
        let names = ["guide", "qwen2.5-7b-instruct", "all-minilm-l6-v2", "llama3.2:3b"];
        let near = |wanted| near_names(wanted, names.into_iter());
        assert_eq!(near("Guid"), ["guide"]);
        assert_eq!(near("qwen2.5"), ["qwen2.5-7b-instruct"]);
        assert_eq!(near("llama3.2:1b"), ["llama3.2:3b"]);
        assert_eq!(near("gpt-4o"), Vec::<String>::new());
    }

    proptest! {
        #[test]
        fn distance_is_symmetric_and_zero_only_for_the_same(a in ".{0,12}", b in ".{0,12}") {
            prop_assert_eq!(edit_distance(&a, &b), edit_distance(&b, &a));
            prop_assert_eq!(edit_distance(&a, &b) == 0, a == b);
        }
    }
}
