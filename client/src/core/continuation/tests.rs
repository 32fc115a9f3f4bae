//! Tests of what is bought to complete an answer.

use super::*;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

fn request(fields: Value) -> ProgramRequest {
    let mut body = json!({"model": "guide", "messages": [{"role": "user", "content": "Hi"}]});
    body.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    ProgramRequest::parse(JobKind::ChatCompletions, Bytes::from(body.to_string())).unwrap()
}

fn exact() -> ProgramRequest {
    request(json!({"temperature": 0, "max_tokens": 50}))
}

/// An answer of words, each a token.
fn partial(text: &str) -> PartialAnswer {
    let mut partial = PartialAnswer::default();
    for (word, tokens) in text.split_inclusive(' ').zip(1..) {
        partial.observe_text(0, word);
        partial.count_tokens(tokens);
    }
    partial
}

fn delta(text: &str) -> Map<String, Value> {
    Map::from_iter([("content".to_owned(), json!(text))])
}

fn sent(continuation: &Continuation) -> Value {
    serde_json::from_slice::<Value>(&continuation.request.body).unwrap()["messages"][1].clone()
}

#[test]
fn an_exact_answer_is_cut_back_to_a_word_and_compared() {
    let continuation = plan(&exact(), &partial("A market of GPUs"), None, Joining::Compared).unwrap();
    assert_eq!(
        sent(&continuation),
        json!({"role": "assistant", "content": "A market of"})
    );
    assert_eq!(
        continuation.junction.content,
        Seam::over(" GPUs", OnDifference::Refuse)
    );
    assert_eq!(continuation.junction.reasoning, [Seam::Ended, Seam::Ended]);
    // "of " ended the third token.
    assert_eq!(
        (continuation.tokens_before, continuation.request.output_tokens_max),
        (2, Some(48))
    );
    assert!(continuation.needs_continuation);
    assert!(continuation.request.needs.contains_key(&Capability::Continuation));
}

#[test]
fn other_answers_go_on_where_they_stand() {
    for (request, joining) in [
        (request(json!({})), Joining::Compared),
        (request(json!({"temperature": 0.7, "seed": 5})), Joining::Compared),
        (exact(), Joining::AsItComes),
    ] {
        let continuation = plan(&request, &partial("A market of GP"), Some(90), joining).unwrap();
        assert_eq!(sent(&continuation)["content"], "A market of GP");
        assert_eq!(continuation.junction.content, Seam::Open);
        assert_eq!(continuation.tokens_before, 4);
        let blank = plan(&request, &partial("A market \n"), None, joining).unwrap();
        assert_eq!(sent(&blank)["content"], "A market");
        assert_eq!(blank.junction.content, Seam::over(" \n", OnDifference::PassOn));
    }
}

#[test]
fn what_has_no_words_yet_is_asked_for_anew() {
    let continuation = plan(&exact(), &partial("Gristmi"), None, Joining::Compared).unwrap();
    assert_eq!(continuation.request, exact());
    assert!(!continuation.needs_continuation);
    assert_eq!(
        continuation.junction.content,
        Seam::over("Gristmi", OnDifference::Refuse)
    );
    let mut thinking = PartialAnswer::default();
    thinking.observe(0, json!({"reasoning": "hm"}).as_object().unwrap());
    thinking.count_tokens(5);
    let continuation = plan(&request(json!({})), &thinking, None, Joining::Compared).unwrap();
    assert_eq!(
        (continuation.tokens_before, continuation.needs_continuation),
        (0, false)
    );
    assert_eq!(
        continuation.junction.reasoning,
        [Seam::Open, Seam::over("hm", OnDifference::LeaveOut)]
    );
    let nothing = plan(
        &request(json!({"n": 3, "logprobs": true})),
        &PartialAnswer::default(),
        None,
        Joining::Compared,
    );
    assert!(!nothing.unwrap().needs_continuation, "nothing was said yet");
}

#[test]
fn a_text_without_blanks_is_only_compared_as_far_as_a_short_one() {
    let text = "磨".repeat(CUT_MAX_BYTES);
    let continuation = plan(&exact(), &partial(&text), None, Joining::Compared).unwrap();
    assert_eq!(sent(&continuation)["content"], text.as_str());
    assert_eq!(continuation.junction.content, Seam::Open);
    assert_eq!(cut("磨磨", true), ("", "磨磨"));
}

#[test]
fn what_can_t_be_continued_is_told() {
    for (fields, obstacle) in [
        (json!({"n": 2}), Obstacle::ManyChoices),
        (json!({"logprobs": true}), Obstacle::Logprobs),
        (
            json!({"response_format": {"type": "json_object"}}),
            Obstacle::StructuredOutput,
        ),
        (json!({"best_of": 2}), Obstacle::ManyChoices),
        (
            json!({"messages": [{"role": "assistant", "content": "A"}]}),
            Obstacle::EndsWithAssistant,
        ),
    ] {
        let planned = plan(&request(fields.clone()), &partial("A b"), None, Joining::Compared);
        assert_eq!(planned, Err(obstacle), "{fields}");
    }
    let mut with_call = partial("Let me see");
    with_call.observe(0, json!({"tool_calls": [{"index": 0}]}).as_object().unwrap());
    let planned = plan(&exact(), &with_call, None, Joining::Compared);
    assert_eq!(planned, Err(Obstacle::ToolCall));
    assert!(may_continue(&exact()) && !may_continue(&request(json!({"n": 2}))));
}

#[test]
fn offers_have_to_say_that_they_can_and_have_the_same_weights() {
    let offer = |capabilities: Vec<Capability>, weights_digest| Offer {
        kind: JobKind::ChatCompletions,
        model: "guide".into(),
        weights_digest,
        quantization: String::new(),
        context_length: 100,
        capabilities,
        price: gristmill_protocol::usage::Price::default(),
    };
    let able = |digest| offer(vec![Capability::Continuation], digest);
    let continuation = plan(&exact(), &partial("A b"), None, Joining::Compared).unwrap();
    let anew = plan(&exact(), &partial("A"), None, Joining::Compared).unwrap();
    assert!(continuation.suits(&able(None), &able(Some([1; 32]))));
    assert!(continuation.suits(&able(Some([1; 32])), &able(Some([1; 32]))));
    assert!(!continuation.suits(&able(Some([2; 32])), &able(Some([1; 32]))));
    let upstream = offer(vec![Capability::Passthrough], None);
    assert!(!continuation.suits(&upstream, &able(None)) && anew.suits(&upstream, &able(None)));
    let other = Offer {
        model: "other".into(),
        ..able(None)
    };
    assert!(!anew.suits(&other, &able(None)));
}

/// Takes the texts of an answer's deltas as a program gets them.
fn joined(
    partial: &mut PartialAnswer,
    continuation: &Continuation,
    pieces: &[&str],
    ends: bool,
) -> Result<(), SeamError> {
    let mut junction = continuation.junction.clone();
    partial.go_on(continuation.tokens_before);
    for (piece, written) in pieces.iter().zip(1..) {
        let mut delta = delta(piece);
        junction.apply(&mut delta, false)?;
        partial.observe(0, &delta);
        partial.count_tokens(written);
    }
    if ends {
        let mut last = Map::new();
        junction.apply(&mut last, true)?;
        partial.observe(0, &last);
    }
    Ok(())
}

#[test]
fn a_second_break_in_the_middle_of_the_repetition_loses_nothing() {
    let mut partial = partial("A market of GPUs");
    let first = plan(&exact(), &partial, None, Joining::Compared).unwrap();
    joined(&mut partial, &first, &[" G"], false).unwrap();
    assert_eq!(
        (partial.content(), partial.tokens_at(16)),
        ("A market of GPUs", 4)
    );
    let second = plan(&exact(), &partial, None, Joining::Compared).unwrap();
    assert_eq!(first, second);
    joined(&mut partial, &second, &[" GPUs", " for", " all"], true).unwrap();
    assert_eq!(
        (partial.content(), partial.tokens_at(24)),
        ("A market of GPUs for all", 5)
    );
}

proptest! {
    /// Wherever an answer breaks off and however its rest is cut into pieces: whole is whole.
    #[test]
    fn the_joined_answer_is_the_unbroken_one(
        text in "([a-zé磨]{1,8}[ \n]{0,2}){1,40}",
        cuts in proptest::collection::vec(0usize..300, 1..4),
        piece in 1usize..9,
        temperature in 0u8..2,
    ) {
        let request = request(json!({"temperature": temperature}));
        let letters: Vec<char> = text.chars().collect();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % letters.len()).collect();
        cuts.sort_unstable();
        cuts.push(letters.len());
        let mut partial = PartialAnswer::default();
        let text_of = |from: usize, to: usize| letters[from..to].iter().collect::<String>();
        partial.observe(0, &delta(&text_of(0, cuts[0])));
        for window in cuts.windows(2) {
            let continuation = plan(&request, &partial, None, Joining::Compared).unwrap();
            let prefix = match continuation.needs_continuation {
                true => sent(&continuation)["content"].as_str().unwrap().to_owned(),
                false => String::new(),
            };
            prop_assert!(text.starts_with(&prefix) && prefix.trim_end() == prefix);
            let from = prefix.chars().count();
            let pieces: Vec<String> = (from..window[1])
                .step_by(piece)
                .map(|at| text_of(at, window[1].min(at + piece)))
                .collect();
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            prop_assert_eq!(joined(&mut partial, &continuation, &pieces, window[1] == letters.len()), Ok(()));
        }
        prop_assert_eq!(partial.content(), text.as_str());
    }
}
