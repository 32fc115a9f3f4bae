//! Tells the calls of tools in an answer from its text, as it comes. Pure.

use serde_json::Value;

use super::tool_syntax::{CALL_END, CALL_START, ToolSyntax};

/// Most bytes before the arguments of a call; what goes on longer is no call.
const HEAD_MAX_BYTES: usize = 512;

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Text.
    Text(String),
    /// A call of this function begins.
    Call(String),
    /// More of the arguments of the call that began last.
    Arguments(String),
}

/// How sure it is that what looks like a call is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Certainty {
    /// A begun call may turn out to be text.
    Open,
    /// What is marked as a call is held to be one.
    Marked,
    /// The whole answer is held to be calls.
    WholeAnswer,
}

enum State {
    /// Before anything was written.
    Fresh,
    /// Text; held is what may begin a call.
    Text,
    /// A call up to its arguments.
    Head,
    /// Its arguments.
    Arguments(Nesting),
    /// What is left of it.
    Tail,
    /// Nothing but text follows.
    OnlyText,
}

/// Reads an answer piece by piece. How it is cut into pieces makes no difference to the parts, joined.
pub(super) struct CallReader {
    syntax: ToolSyntax,
    names: Vec<String>,
    certainty: Certainty,
    state: State,
    /// What is not understood yet.
    held: String,
    /// The white space before the call that is being read.
    space: String,
    /// Whether a call was just read, and no text since.
    is_after_call: bool,
    calls: usize,
    complete: usize,
}

impl CallReader {
    /// A reader for an answer that may call functions of these names.
    pub(super) const fn new(syntax: ToolSyntax, names: Vec<String>, certainty: Certainty) -> Self {
        Self {
            syntax,
            names,
            certainty,
            state: State::Fresh,
            held: String::new(),
            space: String::new(),
            is_after_call: false,
            calls: 0,
            complete: 0,
        }
    }

    /// Goes on after text that is out already.
    pub(super) fn go_on_after_text(&mut self) {
        self.state = match self.syntax {
            ToolSyntax::Marked => State::Text,
            ToolSyntax::Bare => State::OnlyText,
        };
    }

    /// How many calls began.
    pub(super) const fn calls(&self) -> usize {
        self.calls
    }

    /// How many calls are whole.
    pub(super) const fn complete(&self) -> usize {
        self.complete
    }

    /// What was written since a call's beginning was marked, where its head is not whole yet.
    pub(super) fn begun_call(&self) -> Option<&str> {
        let is_head = matches!((&self.state, self.syntax), (State::Head, ToolSyntax::Marked));
        is_head.then_some(self.held.as_str())
    }

    /// Takes a piece in.
    pub(super) fn push(&mut self, piece: &str) -> Vec<Part> {
        self.held.push_str(piece);
        let mut parts = Vec::new();
        while self.advance(&mut parts) {}
        parts
    }

    /// What was held back, where the answer is over.
    pub(super) fn finish(&mut self) -> Vec<Part> {
        let held = std::mem::take(&mut self.held);
        let is_certain = match (self.certainty, &self.state) {
            (Certainty::WholeAnswer, _) => true,
            (Certainty::Marked, State::Head) => self.syntax == ToolSyntax::Marked,
            _ => false,
        };
        let text = match self.state {
            // A call that was cut off before its name.
            State::Fresh | State::Text | State::OnlyText | State::Head if is_certain => String::new(),
            // White space after a call is none of the answer's.
            State::Fresh | State::Text | State::OnlyText if self.is_after_call => held.trim().to_owned(),
            State::Fresh | State::Text | State::OnlyText => held,
            State::Head if self.syntax == ToolSyntax::Marked => format!("{}{CALL_START}{held}", self.space),
            State::Head => held,
            State::Tail if self.syntax == ToolSyntax::Bare => {
                self.complete = self.calls;
                String::new()
            }
            _ => String::new(),
        };
        if text.is_empty() {
            Vec::new()
        } else {
            vec![Part::Text(text)]
        }
    }

    /// Understands some more of what is held; false where that takes more text.
    fn advance(&mut self, parts: &mut Vec<Part>) -> bool {
        match &mut self.state {
            State::Fresh => self.begin(),
            State::Text => self.read_text(parts),
            State::Head => self.read_head(parts),
            State::Arguments(nesting) => {
                let (end, is_over) = nesting.read(&self.held);
                let rest = self.held.split_off(end);
                let arguments = std::mem::replace(&mut self.held, rest);
                if !arguments.is_empty() {
                    parts.push(Part::Arguments(arguments));
                }
                if is_over {
                    self.state = State::Tail;
                }
                is_over
            }
            State::Tail => self.read_tail(),
            State::OnlyText => {
                let text = std::mem::take(&mut self.held);
                if !text.is_empty() {
                    parts.push(Part::Text(text));
                }
                false
            }
        }
    }

    fn begin(&mut self) -> bool {
        if self.syntax == ToolSyntax::Marked {
            self.state = State::Text;
            return true;
        }
        let start = self.held.trim_start();
        if start.is_empty() {
            return false;
        }
        self.state = if start.starts_with('{') {
            State::Head
        } else {
            State::OnlyText
        };
        true
    }

    fn read_text(&mut self, parts: &mut Vec<Part>) -> bool {
        let (end, is_call) = match self.held.find(CALL_START) {
            Some(start) => (start, true),
            None => (self.held.len() - begun_marker(&self.held), false),
        };
        // White space before a call, or between two, belongs to neither.
        let end_of_text = self.held[..end].trim_end().len();
        let mut text = &self.held[..end_of_text];
        if self.is_after_call {
            text = text.trim_start();
        }
        if !text.is_empty() {
            parts.push(Part::Text(text.to_owned()));
            self.is_after_call = false;
        }
        if is_call {
            self.held[end_of_text..end].clone_into(&mut self.space);
            self.held.drain(..end + CALL_START.len());
            self.state = State::Head;
        } else {
            self.held.drain(..end_of_text);
        }
        is_call
    }

    fn read_head(&mut self, parts: &mut Vec<Part>) -> bool {
        match read_head(&self.held) {
            Head::Unfinished if self.held.len() <= HEAD_MAX_BYTES => false,
            Head::Call { name, arguments_at } if self.names.contains(&name) => {
                self.held.drain(..arguments_at);
                self.calls += 1;
                self.state = State::Arguments(Nesting::default());
                parts.push(Part::Call(name));
                true
            }
            Head::Unfinished | Head::Call { .. } | Head::NoCall => {
                // Not a call after all: it goes out as it was written.
                if self.syntax == ToolSyntax::Marked {
                    let space = if self.is_after_call {
                        ""
                    } else {
                        self.space.as_str()
                    };
                    parts.push(Part::Text(format!("{space}{CALL_START}")));
                    self.is_after_call = false;
                    self.state = State::Text;
                } else {
                    self.state = State::OnlyText;
                }
                true
            }
        }
    }

    fn read_tail(&mut self) -> bool {
        match self.syntax {
            ToolSyntax::Bare => {
                let is_whole = self.held.trim_start().starts_with('}');
                if is_whole {
                    self.complete = self.calls;
                    self.held.clear();
                }
                false
            }
            ToolSyntax::Marked => {
                let Some(start) = self.held.find(CALL_END) else {
                    return false;
                };
                self.held.drain(..start + CALL_END.len());
                self.complete = self.calls;
                self.is_after_call = true;
                self.state = State::Text;
                true
            }
        }
    }
}

/// How many bytes at the end of a text may begin a call's marker, with the white space before it.
fn begun_marker(text: &str) -> usize {
    let longest = (1..CALL_START.len())
        .rev()
        .find(|length| text.ends_with(&CALL_START[..*length]))
        .unwrap_or(0);
    let before = &text[..text.len() - longest];
    longest + (before.len() - before.trim_end().len())
}

/// How deep a value in JSON is nested as it is read.
#[derive(Default)]
struct Nesting {
    depth: usize,
    in_string: bool,
    after_backslash: bool,
}

impl Nesting {
    /// Reads on; where the value ends in this text, or how long that is, and whether it ends.
    fn read(&mut self, text: &str) -> (usize, bool) {
        for (at, byte) in text.bytes().enumerate() {
            if self.in_string {
                match byte {
                    _ if self.after_backslash => self.after_backslash = false,
                    b'\\' => self.after_backslash = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return (at + 1, true);
                    }
                }
                _ => {}
            }
        }
        (text.len(), false)
    }
}

enum Head {
    Unfinished,
    NoCall,
    Call { name: String, arguments_at: usize },
}

/// Reads a call up to its arguments: an object whose text fields come first, and `name` among them.
fn read_head(text: &str) -> Head {
    let mut rest = text.trim_start();
    let mut name = None;
    let mut opening = '{';
    loop {
        match rest.strip_prefix(opening) {
            Some(after) => rest = after.trim_start(),
            None if rest.is_empty() => return Head::Unfinished,
            None => return Head::NoCall,
        }
        let key = match read_string(rest) {
            Ok((key, after)) => {
                rest = after.trim_start();
                key
            }
            Err(head) => return head,
        };
        match rest.strip_prefix(':') {
            Some(after) => rest = after.trim_start(),
            None if rest.is_empty() => return Head::Unfinished,
            None => return Head::NoCall,
        }
        if key == "arguments" || key == "parameters" {
            return match (name, rest.chars().next()) {
                (Some(name), Some('{')) => Head::Call {
                    name,
                    arguments_at: text.len() - rest.len(),
                },
                (Some(_), None) => Head::Unfinished,
                _ => Head::NoCall,
            };
        }
        match read_string(rest) {
            Ok((value, after)) => {
                rest = after.trim_start();
                if key == "name" {
                    name = Some(value);
                }
            }
            Err(head) => return head,
        }
        opening = ',';
    }
}

/// A string in JSON and what follows it.
fn read_string(text: &str) -> Result<(String, &str), Head> {
    let Some(inner) = text.strip_prefix('"') else {
        return Err(if text.is_empty() {
            Head::Unfinished
        } else {
            Head::NoCall
        });
    };
    let mut after_backslash = false;
    for (at, byte) in inner.bytes().enumerate() {
        match byte {
            _ if after_backslash => after_backslash = false,
            b'\\' => after_backslash = true,
            b'"' => {
                let (string, rest) = text.split_at(at + 2);
                return match serde_json::from_str::<Value>(string) {
                    Ok(Value::String(string)) => Ok((string, rest)),
                    _ => Err(Head::NoCall),
                };
            }
            _ => {}
        }
    }
    Err(Head::Unfinished)
}

#[cfg(test)]
mod tests;
