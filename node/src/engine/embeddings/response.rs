//! The embeddings response. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

#[derive(Serialize)]
struct Response<'a> {
    object: &'static str,
    data: Vec<Entry>,
    model: &'a str,
    usage: TokenCounts,
}

#[derive(Serialize)]
struct Entry {
    object: &'static str,
    index: usize,
    embedding: Embedding,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Embedding {
    Numbers(Vec<f32>),
    Base64(String),
}

#[derive(Serialize)]
struct TokenCounts {
    prompt_tokens: u64,
    total_tokens: u64,
}

/// Writes the whole response; base64 is of little-endian single-precision numbers.
pub(super) fn write(model: &str, vectors: Vec<Vec<f32>>, base64: bool, tokens: u64) -> Vec<u8> {
    let encode = |vector: Vec<f32>| {
        if base64 {
            let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
            Embedding::Base64(STANDARD.encode(bytes))
        } else {
            Embedding::Numbers(vector)
        }
    };
    let entry = |(index, vector)| Entry {
        object: "embedding",
        index,
        embedding: encode(vector),
    };
    let response = Response {
        object: "list",
        data: vectors.into_iter().enumerate().map(entry).collect(),
        model,
        usage: TokenCounts {
            prompt_tokens: tokens,
            total_tokens: tokens,
        },
    };
    // Strings and numbers always have a JSON form.
    serde_json::to_vec(&response).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn both_encodings_say_the_same() {
        let vectors = vec![vec![0.1, -2.0], vec![1e-7, 3.5]];
        let parse =
            |base64| serde_json::from_slice::<Value>(&write("m", vectors.clone(), base64, 9)).unwrap();
        let expected = json!({
            "object": "list", "model": "m", "usage": {"prompt_tokens": 9, "total_tokens": 9},
            "data": [
                {"object": "embedding", "index": 0, "embedding": [0.1, -2.0]},
                {"object": "embedding", "index": 1, "embedding": [1e-7, 3.5]},
            ],
        });
        assert_eq!(parse(false), expected);
        for (index, vector) in vectors.iter().enumerate() {
            let text = parse(true)["data"][index]["embedding"]
                .as_str()
                .unwrap()
                .to_owned();
            let bytes = STANDARD.decode(text).unwrap();
            let numbers: Vec<f32> = bytes
                .chunks_exact(4)
                .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
                .collect();
            assert_eq!(&numbers, vector);
        }
    }
}
