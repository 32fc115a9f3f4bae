//! Brings streamed tool calls into OpenAI's form: every delta has an index; the first one of a call has its id, type
//! and name, later ones do not repeat them. Clients append strings, so a repeated id would become a doubled one.
//!
//! Servers differ: some repeat id and name in every delta, some send nulls, some give every call the index 0, some
//! give none, some send arguments as an object.

use serde_json::{Map, Value, json};

/// Most tool calls in one answer.
const CALLS_MAX: usize = 1_024;

/// The tool calls of one choice so far.
#[derive(Clone, Debug, Default)]
pub struct ToolCalls {
    calls: Vec<Call>,
}

#[derive(Clone, Debug)]
struct Call {
    /// The index by which the server speaks of it.
    server_index: Option<u64>,
    id: String,
    name: String,
}

/// More tool calls than anybody could want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyCalls;

impl ToolCalls {
    /// One delta's tool calls in OpenAI's form. `id_prefix` begins the ids of calls that came without.
    ///
    /// # Errors
    /// [`TooManyCalls`] where the answer has too many.
    pub fn normalise(&mut self, deltas: Vec<Value>, id_prefix: &str) -> Result<Vec<Value>, TooManyCalls> {
        deltas
            .into_iter()
            .filter_map(|delta| match delta {
                Value::Object(delta) => Some(self.normalise_one(delta, id_prefix)),
                _ => None,
            })
            .collect()
    }

    fn normalise_one(
        &mut self,
        mut delta: Map<String, Value>,
        id_prefix: &str,
    ) -> Result<Value, TooManyCalls> {
        let server_index = delta.remove("index").as_ref().and_then(Value::as_u64);
        let id = delta.remove("id").and_then(text).unwrap_or_default();
        let kind = delta.remove("type").and_then(text);
        let mut function = match delta.remove("function") {
            Some(Value::Object(function)) => function,
            _ => Map::new(),
        };
        function.retain(|_, value| !value.is_null());
        let name = function.remove("name").and_then(text);
        let arguments = function.remove("arguments").map(arguments_text);
        delta.retain(|_, value| !value.is_null());
        if let Some(index) = self.find(server_index, &id) {
            let call = &mut self.calls[index];
            if let Some(name) = name.filter(|name| *name != call.name) {
                call.name.push_str(&name);
                function.insert("name".into(), name.into());
            }
            function.extend(arguments.map(|arguments| ("arguments".to_owned(), arguments)));
            let mut normalised = Map::from_iter([("index".to_owned(), json!(index))]);
            normalised.extend(delta);
            normalised.insert("function".into(), function.into());
            return Ok(normalised.into());
        }
        let index = self.calls.len();
        if index >= CALLS_MAX {
            return Err(TooManyCalls);
        }
        let id = if id.is_empty() {
            format!("call_{id_prefix}_{index}")
        } else {
            id
        };
        let name = name.unwrap_or_default();
        let mut normalised = Map::from_iter([
            ("index".to_owned(), json!(index)),
            ("id".to_owned(), json!(id)),
            (
                "type".to_owned(),
                json!(kind.unwrap_or_else(|| "function".into())),
            ),
        ]);
        normalised.extend(delta);
        let mut whole = Map::from_iter([("name".to_owned(), json!(name))]);
        whole.insert("arguments".into(), arguments.unwrap_or_else(|| json!("")));
        whole.extend(function);
        normalised.insert("function".into(), whole.into());
        self.calls.push(Call {
            server_index,
            id,
            name,
        });
        Ok(normalised.into())
    }

    /// The call that a delta continues, if it does not begin one.
    fn find(&self, server_index: Option<u64>, id: &str) -> Option<usize> {
        if !id.is_empty() {
            return self.calls.iter().position(|call| call.id == id);
        }
        match server_index {
            Some(place) => self
                .calls
                .iter()
                .rposition(|call| call.server_index == server_index)
                // Some begin a call without an index, and name its place later.
                .or_else(|| self.begun_without_index(place)),
            None => self.calls.len().checked_sub(1),
        }
    }

    fn begun_without_index(&self, place: u64) -> Option<usize> {
        let place = usize::try_from(place).ok()?;
        let call = self.calls.get(place)?;
        call.server_index.is_none().then_some(place)
    }
}

/// A text that says something.
fn text(value: Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text),
        _ => None,
    }
}

/// Arguments as the text that OpenAI sends.
fn arguments_text(arguments: Value) -> Value {
    match arguments {
        Value::String(_) => arguments,
        other => Value::String(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normalised(deltas: &[Value]) -> Vec<Value> {
        let mut calls = ToolCalls::default();
        deltas
            .iter()
            .flat_map(|delta| calls.normalise(delta.as_array().unwrap().clone(), "r").unwrap())
            .collect()
    }

    fn begun(index: u64, id: &str, name: &str, arguments: &str) -> Value {
        json!({"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
    }

    #[test]
    fn openais_own_form_stays_as_it_is() {
        let deltas = [
            json!([begun(0, "call_a", "f", "")]),
            json!([{"index": 0, "function": {"arguments": "{\"a\""}}]),
            json!([begun(1, "call_b", "g", "")]),
            json!([{"index": 1, "function": {"arguments": "{}"}}]),
        ];
        let flat: Vec<Value> = deltas
            .iter()
            .flat_map(|delta| delta.as_array().unwrap().clone())
            .collect();
        assert_eq!(normalised(&deltas), flat);
    }

    #[test]
    fn repeated_and_null_names_are_left_out_of_later_deltas() {
        let deltas = [
            json!([begun(0, "call_a", "f", "{")]),
            json!([begun(0, "call_a", "f", "\"a\":1")]),
            json!([{"index": 0, "id": null, "type": null, "function": {"name": null, "arguments": "}"}}]),
            json!([{"index": 0, "id": "", "function": {"name": "", "arguments": " "}}]),
        ];
        let later = |arguments: &str| json!({"index": 0, "function": {"arguments": arguments}});
        assert_eq!(
            normalised(&deltas),
            [
                begun(0, "call_a", "f", "{"),
                later("\"a\":1"),
                later("}"),
                later(" ")
            ]
        );
    }

    #[test]
    fn calls_that_share_an_index_or_have_none_are_told_apart() {
        let shared = [
            json!([begun(0, "a", "f", "{}")]),
            json!([begun(0, "b", "f", "{}")]),
        ];
        assert_eq!(
            normalised(&shared),
            [begun(0, "a", "f", "{}"), begun(1, "b", "f", "{}")]
        );
        let none = [json!([
            {"function": {"name": "f", "arguments": {"x": 1}}},
            {"id": "b", "function": {"name": "g"}}
        ])];
        assert_eq!(
            normalised(&none),
            [begun(0, "call_r_0", "f", "{\"x\":1}"), begun(1, "b", "g", "")]
        );
    }

    #[test]
    fn an_index_may_come_late() {
        let deltas = [
            json!([{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{"}}]),
            json!([{"index": 0, "id": null, "function": {"name": null, "arguments": "}"}}]),
            json!([{"index": 1, "id": "b", "function": {"name": "g"}}]),
        ];
        assert_eq!(
            normalised(&deltas),
            [
                begun(0, "a", "f", "{"),
                json!({"index": 0, "function": {"arguments": "}"}}),
                begun(1, "b", "g", "")
            ]
        );
    }

    #[test]
    fn names_may_come_in_pieces_and_calls_are_bounded() {
        let deltas = [
            json!([begun(0, "a", "get_", "")]),
            json!([{"index": 0, "function": {"name": "weather"}}]),
        ];
        assert_eq!(
            normalised(&deltas)[1],
            json!({"index": 0, "function": {"name": "weather"}})
        );
        let mut calls = ToolCalls::default();
        let one = |index: usize| vec![json!({"index": index, "id": format!("c{index}")})];
        for index in 0..CALLS_MAX {
            calls.normalise(one(index), "r").unwrap();
        }
        assert_eq!(calls.normalise(one(CALLS_MAX), "r"), Err(TooManyCalls));
    }
}
