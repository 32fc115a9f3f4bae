use super::*;
use proptest::prelude::*;

fn text(text: &str) -> Part {
    Part::Text(text.to_owned())
}

fn call(name: &str) -> Part {
    Part::Call(name.to_owned())
}

fn arguments(text: &str) -> Part {
    Part::Arguments(text.to_owned())
}

/// The parts of an answer that comes in these pieces, with neighbours of a kind joined.
fn read(syntax: ToolSyntax, pieces: &[&str]) -> (Vec<Part>, usize) {
    let mut reader = CallReader::new(syntax, vec!["f".to_owned(), "g".to_owned()], Certainty::Open);
    let mut parts: Vec<Part> = pieces.iter().flat_map(|piece| reader.push(piece)).collect();
    parts.extend(reader.finish());
    let mut joined: Vec<Part> = Vec::new();
    for part in parts {
        match (joined.last_mut(), part) {
            (Some(Part::Text(text)), Part::Text(more)) => text.push_str(&more),
            (Some(Part::Arguments(text)), Part::Arguments(more)) => text.push_str(&more),
            (_, part) => joined.push(part),
        }
    }
    (joined, reader.complete())
}

const TWO_CALLS: &str = "Let me see.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"}\\\"{\", \"b\": [1, {}]}}\n</tool_call>\n<tool_call>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_call>\n";

#[test]
fn calls_between_markers_are_told_from_text() {
    let expected = [
        text("Let me see."),
        call("f"),
        arguments("{\"a\": \"}\\\"{\", \"b\": [1, {}]}"),
        call("g"),
        arguments("{}"),
    ];
    assert_eq!(read(ToolSyntax::Marked, &[TWO_CALLS]), (expected.to_vec(), 2));
}

#[test]
fn a_bare_call_is_the_whole_answer() {
    let answer = " {\"type\": \"function\", \"name\": \"f\", \"parameters\": {\"a\": 1}}";
    assert_eq!(
        read(ToolSyntax::Bare, &[answer]),
        (vec![call("f"), arguments("{\"a\": 1}")], 1)
    );
}

#[test]
fn what_only_looks_like_a_call_is_text_as_it_was_written() {
    for answer in [
        "",
        "a < b",
        "x <tool",
        "<tool_call>",
        "<tool_call>\nno JSON</tool_call>",
        "<tool_call>\n{\"name\": \"unknown\", \"arguments\": {}}\n</tool_call>",
        "<tool_call>{\"arguments\": {}, \"name\": \"f\"}</tool_call> and on",
        "<tool_call>{\"name\": \"f\"",
        "so\n\n<tool_call>{\"name\": \"f\"",
        "so \n<tool_call>but no",
    ] {
        let parts = if answer.is_empty() {
            vec![]
        } else {
            vec![text(answer)]
        };
        assert_eq!(read(ToolSyntax::Marked, &[answer]), (parts, 0), "{answer}");
    }
    for answer in [
        "plain {",
        "{\"a\": 1}",
        "{\"name\": \"h\", \"parameters\": {}}",
        "{\"name\"",
    ] {
        assert_eq!(
            read(ToolSyntax::Bare, &[answer]),
            (vec![text(answer)], 0),
            "{answer}"
        );
    }
    let endless = format!("{{\"name\": \"{}", "x".repeat(2 * HEAD_MAX_BYTES));
    assert_eq!(read(ToolSyntax::Bare, &[&endless]), (vec![text(&endless)], 0));
}

#[test]
fn a_call_that_is_cut_off_is_not_complete() {
    let (parts, complete) = read(
        ToolSyntax::Marked,
        &["<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": "],
    );
    assert_eq!((parts, complete), (vec![call("f"), arguments("{\"a\": ")], 0));
}

#[test]
fn the_beginning_of_a_certain_call_is_never_text() {
    let cut = |syntax, certainty, piece: &str| {
        let mut reader = CallReader::new(syntax, vec!["f".to_owned()], certainty);
        let mut parts = reader.push(piece);
        parts.extend(reader.finish());
        parts
    };
    let (marked, bare) = ("so\n<tool_call>\n{\"na", "{\"na");
    assert_eq!(cut(ToolSyntax::Marked, Certainty::Marked, marked), [text("so")]);
    // Short of the whole marker it may be text still.
    let begun = &marked[..9];
    assert_eq!(
        cut(ToolSyntax::Marked, Certainty::Marked, begun),
        [text("so"), text(&begun[2..])]
    );
    assert_eq!(cut(ToolSyntax::Marked, Certainty::WholeAnswer, &begun[2..]), []);
    assert_eq!(cut(ToolSyntax::Bare, Certainty::WholeAnswer, bare), []);
    assert_eq!(cut(ToolSyntax::Bare, Certainty::Open, bare), [text(bare)]);
}

#[test]
fn a_begun_call_can_be_seen() {
    let mut reader = CallReader::new(ToolSyntax::Marked, vec!["f".to_owned()], Certainty::Open);
    reader.push("so <tool_ca");
    assert_eq!(reader.begun_call(), None);
    reader.push("ll>\n{");
    assert_eq!(reader.begun_call(), Some("\n{"));
    reader.push("\"name\": \"f\", \"arguments\": {");
    assert_eq!(reader.begun_call(), None);
}

proptest! {
    #[test]
    fn how_an_answer_is_cut_makes_no_difference(cuts in prop::collection::vec(0..TWO_CALLS.len(), 0..20)) {
        let mut cuts = cuts;
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut start = 0;
        for cut in cuts {
            pieces.push(&TWO_CALLS[start..cut]);
            start = cut;
        }
        pieces.push(&TWO_CALLS[start..]);
        prop_assert_eq!(read(ToolSyntax::Marked, &pieces), read(ToolSyntax::Marked, &[TWO_CALLS]));
    }

    #[test]
    fn no_answer_breaks_the_reader(pieces in prop::collection::vec("([ab{}\"\\\\\n:,]|<tool_call>|</tool_call>|\"name\": \"f\"|\"arguments\": ){0,6}", 0..8)) {
        let pieces: Vec<_> = pieces.iter().map(String::as_str).collect();
        for syntax in [ToolSyntax::Marked, ToolSyntax::Bare] {
            let whole = pieces.concat();
            prop_assert_eq!(read(syntax, &pieces), read(syntax, &[&whole]));
        }
    }
}
