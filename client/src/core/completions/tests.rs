//! Tests of the answers to completions.

use super::*;
use crate::core::sse;
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::ids::ChannelId;
use gristmill_protocol::usage::Usage;
use proptest::prelude::*;

fn summary() -> JobSummary {
    JobSummary {
        request_id: RequestId::from_random([7; 16]),
        provider: AccountId::from_public_key([1; 32]),
        channel: ChannelId::from_bytes([2; 16]),
        usage: Usage::tokens(12, 3),
        cost: Credits::micro(9),
        bill: crate::core::bill::Bill::default(),
    }
}

fn answer(stream_with_usage: Option<bool>) -> CompletionAnswer {
    CompletionAnswer::new(
        RequestId::from_random([7; 16]),
        "base".into(),
        5,
        stream_with_usage,
    )
}

fn run(stream_with_usage: Option<bool>, messages: &[&str]) -> Result<String, ApiFailure> {
    let (mut answer, mut out) = (answer(stream_with_usage), Vec::new());
    for message in messages {
        answer.message(message.as_bytes(), &mut out)?;
    }
    answer.complete(&summary(), &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

const TEXT: &str = r#"{"choices":[{"text":"Hi"}]}"#;
const FINISH: &str = r#"{"choices":[{"text":"!","finish_reason":"stop"}],"usage":{"prompt_tokens":99}}"#;

#[test]
fn a_stream_is_byte_for_byte_as_clients_expect() {
    let head = "data: {\"id\":\"cmpl-req_07070707070707070707070707070707\",\"object\":\"text_completion\",\
                \"created\":5,\"model\":\"base\",\"choices\":";
    let gristmill = format!(",\"gristmill\":{}", summary().to_json());
    let first =
        format!("{head}[{{\"text\":\"Hi\",\"index\":0,\"logprobs\":null,\"finish_reason\":null}}]}}\n\n");
    let last = format!("{head}[{{\"text\":\"!\",\"index\":0,\"logprobs\":null,\"finish_reason\":\"stop\"}}]");
    let expected = format!("{first}{last}{gristmill}}}\n\ndata: [DONE]\n\n");
    assert_eq!(run(Some(false), &[TEXT, FINISH]).unwrap(), expected);
    let usage = "\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":3,\"total_tokens\":15}";
    let expected = format!("{first}{last}}}\n\n{head}[],{usage}{gristmill}}}\n\ndata: [DONE]\n\n");
    assert_eq!(run(Some(true), &[TEXT, FINISH]).unwrap(), expected);
}

#[test]
fn a_whole_answer_has_every_prompt_in_order_with_its_logprobs() {
    let text = run(
        None,
        &[
            r#"{"id":"x","created":7,"choices":[{"index":1,"text":"b","logprobs":{"tokens":["b"],"token_logprobs":[-0.5]}}]}"#,
            r#"{"choices":[{"index":0,"text":"a","finish_reason":"length","stop_reason":null}]}"#,
            r#"{"choices":[{"index":1,"text":"c","logprobs":{"tokens":["c"],"token_logprobs":[-0.25]},"finish_reason":"stop"}]}"#,
        ],
    );
    let value: Value = serde_json::from_str(&text.unwrap()).unwrap();
    assert_eq!(
        (&value["id"], &value["created"], &value["object"]),
        (&json!("x"), &json!(7), &json!("text_completion"))
    );
    assert_eq!(
        value["choices"],
        json!([
            {"text": "a", "index": 0, "logprobs": null, "finish_reason": "length"},
            {"text": "bc", "index": 1, "finish_reason": "stop",
                "logprobs": {"tokens": ["b", "c"], "token_logprobs": [-0.5, -0.25]}},
        ])
    );
    assert_eq!(
        (&value["usage"]["total_tokens"], &value["gristmill"]["cost"]),
        (&json!(15), &json!(9))
    );
}

#[test]
fn what_is_not_whole_or_no_chunk_is_a_failure() {
    for form in [None, Some(false)] {
        assert_eq!(run(form, &[TEXT]).unwrap_err().code, "provider_failed");
        assert_eq!(run(form, &[]).unwrap_err().status, 502);
        for message in [
            "",
            "5",
            r#"{"choices":5}"#,
            r#"{"choices":[5]}"#,
            r#"{"choices":[{"text":5}]}"#,
            r#"{"choices":[{"index":2048}]}"#,
        ] {
            assert_eq!(run(form, &[message]).unwrap_err().status, 502, "{message}");
        }
        let error = run(form, &[r#"{"error":{"message":"no memory","code":507}}"#]).unwrap_err();
        assert_eq!((error.status, error.message.as_str()), (507, "no memory"));
    }
}

#[test]
fn a_broken_stream_ends_with_a_nested_error() {
    let (mut broken, mut out) = (answer(Some(false)), Vec::new());
    broken.message(TEXT.as_bytes(), &mut out).unwrap();
    let end = broken.broken_off(&ApiFailure::provider_failed("gone")).unwrap();
    let end = String::from_utf8(end).unwrap();
    assert!(
        end.starts_with("data: {\"error\":{\"message\":\"gone\"") && end.ends_with("data: [DONE]\n\n"),
        "{end}"
    );
    assert_eq!(answer(None).broken_off(&ApiFailure::internal()), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// However long the pieces are, lines stay short and the text comes out whole.
    #[test]
    fn long_texts_are_cut_into_lines(pieces in proptest::collection::vec((".{1,8}", 1usize..30_000), 1..3)) {
        let (mut answer, mut out) = (answer(Some(false)), Vec::new());
        let mut expected = String::new();
        for (piece, times) in pieces {
            let piece = piece.repeat(times);
            answer.message(json!({"choices": [{"text": piece}]}).to_string().as_bytes(), &mut out).unwrap();
            expected.push_str(&piece);
        }
        answer.message(FINISH.as_bytes(), &mut out).unwrap();
        answer.complete(&summary(), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let mut found = String::new();
        for line in text.split("\n\n").filter(|line| !line.is_empty() && *line != "data: [DONE]") {
            prop_assert!(line.len() < sse::LINE_LIMIT_BYTES);
            let chunk: Value = serde_json::from_str(line.strip_prefix("data: ").unwrap()).unwrap();
            found.push_str(chunk["choices"][0]["text"].as_str().unwrap());
        }
        prop_assert_eq!(found, expected + "!");
    }
}
