//! Bodies of type `multipart/form-data` (RFC 7578, RFC 2046 section 5.1): where each field's value stands.
//!
//! A consumer reads the model and a provider replaces it, byte for byte, without touching the audio beside it. Both
//! read with this module, so that no form is two requests.

use std::ops::Range;

use memchr::memmem;
use thiserror::Error;

/// Most fields of a form.
pub const FORM_FIELDS_MAX: usize = 128;
/// Most bytes of a boundary: RFC 2046 section 5.1.1.
const BOUNDARY_MAX_BYTES: usize = 70;
/// Most bytes above the value of one field.
const FIELD_HEAD_MAX_BYTES: usize = 8 * 1024;
/// Most bytes of the name of a field.
const NAME_MAX_BYTES: usize = 256;

/// A form that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FormError {
    /// The media type is another one, or names no boundary.
    #[error(
        "the content type is not 'multipart/form-data' with a boundary of 1 to {BOUNDARY_MAX_BYTES} characters"
    )]
    ContentType,
    /// The body is not a form with this boundary.
    #[error("the body is not a form: {0}")]
    Malformed(&'static str),
    /// It has too many fields.
    #[error("the form has more than {FORM_FIELDS_MAX} fields")]
    TooManyFields,
    /// A field that has to stand once stands again.
    #[error("the form has the field '{0}' twice")]
    Repeated(String),
}

/// One field of a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormField {
    /// Its name.
    pub name: String,
    /// Whether it is a file.
    pub is_file: bool,
    /// Where in the body its value stands.
    pub value: Range<usize>,
}

/// The fields of a form, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// The fields.
    pub fields: Vec<FormField>,
}

impl Form {
    /// Reads a form.
    ///
    /// # Errors
    /// [`FormError`] saying what is wrong with it.
    pub fn parse(content_type: &str, body: &[u8]) -> Result<Self, FormError> {
        let boundary = boundary(content_type).ok_or(FormError::ContentType)?;
        let first = format!("--{boundary}");
        let delimiter = format!("\r\n--{boundary}");
        // Text before the first delimiter belongs to no field.
        let mut at = if body.starts_with(first.as_bytes()) {
            first.len()
        } else {
            let found = memmem::find(body, delimiter.as_bytes());
            found.ok_or(FormError::Malformed("it does not begin with its boundary"))? + delimiter.len()
        };
        let finder = memmem::Finder::new(&delimiter);
        let mut fields = Vec::new();
        loop {
            if body[at..].starts_with(b"--") {
                return Ok(Self { fields });
            }
            let blanks = body[at..]
                .iter()
                .take_while(|byte| matches!(byte, b' ' | b'\t'))
                .count();
            at += blanks;
            if !body[at..].starts_with(b"\r\n") {
                return Err(FormError::Malformed("a boundary does not end its line"));
            }
            if fields.len() == FORM_FIELDS_MAX {
                return Err(FormError::TooManyFields);
            }
            // The line end stays: a field without any header has an empty line right after it.
            let head = &body[at..body.len().min(at + FIELD_HEAD_MAX_BYTES)];
            let head_length = memmem::find(head, b"\r\n\r\n")
                .ok_or(FormError::Malformed("a field has no end of its head"))?;
            let (name, is_file) = disposition(&head[..head_length])?;
            let begin = at + head_length + 4;
            let length = finder
                .find(&body[begin..])
                .ok_or(FormError::Malformed("its last boundary is missing"))?;
            fields.push(FormField {
                name,
                is_file,
                value: begin..begin + length,
            });
            at = begin + length + delimiter.len();
        }
    }

    /// The field of a name that must not stand twice.
    ///
    /// # Errors
    /// [`FormError::Repeated`] where it does.
    pub fn only(&self, name: &str) -> Result<Option<&FormField>, FormError> {
        let mut named = self.fields.iter().filter(|field| field.name == name);
        match (named.next(), named.next()) {
            (_, Some(_)) => Err(FormError::Repeated(name.to_owned())),
            (field, None) => Ok(field),
        }
    }
}

/// The boundary that a media type names.
fn boundary(content_type: &str) -> Option<&str> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("boundary").then(|| value.trim())
    })?;
    let boundary = boundary
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or(boundary);
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&byte);
    let is_one = (1..=BOUNDARY_MAX_BYTES).contains(&boundary.len()) && boundary.bytes().all(fits);
    (is_one && !boundary.ends_with(' ')).then_some(boundary)
}

/// The name of a field and whether it is a file, from the lines above it.
fn disposition(head: &[u8]) -> Result<(String, bool), FormError> {
    let head =
        std::str::from_utf8(head).map_err(|_| FormError::Malformed("the head of a field is not UTF-8"))?;
    let mut found = None;
    for line in head.split("\r\n").filter(|line| !line.is_empty()) {
        let (header, value) = line
            .split_once(':')
            .ok_or(FormError::Malformed("a line above a field has no colon"))?;
        if !header.trim().eq_ignore_ascii_case("content-disposition") {
            continue;
        }
        if found.is_some() {
            return Err(FormError::Malformed("a field has two dispositions"));
        }
        found = Some(parameters(value)?);
    }
    found.ok_or(FormError::Malformed("a field has no name"))
}

/// The parameters `name` and `filename` of a disposition.
fn parameters(value: &str) -> Result<(String, bool), FormError> {
    let (kind, mut rest) = value.split_once(';').unwrap_or((value, ""));
    if !kind.trim().eq_ignore_ascii_case("form-data") {
        return Err(FormError::Malformed("a field is no form data"));
    }
    let (mut name, mut is_file) = (None, false);
    while let Some((key, after)) = rest.split_once('=') {
        let (value, after) = parameter_value(after)?;
        let key = key.trim();
        if key.eq_ignore_ascii_case("name") {
            if name.replace(value).is_some() {
                return Err(FormError::Malformed("a field has two names"));
            }
        } else if key.eq_ignore_ascii_case("filename") || key.eq_ignore_ascii_case("filename*") {
            is_file = true;
        }
        rest = after.trim_start().strip_prefix(';').unwrap_or(after);
    }
    let name = name
        .filter(|name| !name.is_empty() && name.len() <= NAME_MAX_BYTES)
        .ok_or(FormError::Malformed("a field has no name"))?;
    Ok((name, is_file))
}

/// A value, quoted or not, and what follows it. Browsers write quotes in names as `%22`, older libraries as `\"`.
fn parameter_value(text: &str) -> Result<(String, &str), FormError> {
    let text = text.trim_start();
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(';').unwrap_or(text.len());
        return Ok((text[..end].trim().to_owned(), &text[end..]));
    };
    let (mut value, mut escaped) = (String::new(), false);
    for (place, character) in quoted.char_indices() {
        match character {
            '"' if !escaped => return Ok((value, &quoted[place + 1..])),
            '\\' if !escaped => escaped = true,
            _ => {
                value.push(character);
                escaped = false;
            }
        }
    }
    Err(FormError::Malformed("a quoted text has no end"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TYPE: &str = "multipart/form-data; boundary=xYz";

    fn written(fields: &[(&str, Option<&str>, &[u8])]) -> Vec<u8> {
        let mut body = Vec::new();
        for (name, file, value) in fields {
            body.extend_from_slice(b"--xYz\r\n");
            let file = file
                .map(|file| format!("; filename=\"{file}\""))
                .unwrap_or_default();
            body.extend_from_slice(
                format!("Content-Disposition: form-data; name=\"{name}\"{file}\r\nContent-Type: x/y\r\n\r\n")
                    .as_bytes(),
            );
            body.extend_from_slice(value);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"--xYz--\r\n");
        body
    }

    #[test]
    fn fields_are_found_where_they_stand() {
        let body = written(&[
            ("model", None, b"whisper"),
            ("file", Some("a;b.wav"), b"RIFF\r\n--xY\0"),
        ]);
        let form = Form::parse(TYPE, &body).unwrap();
        let model = form.only("model").unwrap().unwrap();
        assert_eq!(
            (&body[model.value.clone()], model.is_file),
            (&b"whisper"[..], false)
        );
        let file = form.only("file").unwrap().unwrap();
        assert_eq!(
            (&body[file.value.clone()], file.is_file),
            (&b"RIFF\r\n--xY\0"[..], true)
        );
        assert_eq!(form.only("other"), Ok(None));
    }

    #[test]
    fn a_field_that_stands_twice_is_no_field() {
        let body = written(&[("model", None, b"a"), ("model", None, b"b")]);
        let form = Form::parse(TYPE, &body).unwrap();
        assert_eq!(form.only("model"), Err(FormError::Repeated("model".into())));
    }

    #[test]
    fn what_is_no_form_is_an_error() {
        for content_type in [
            "",
            "application/json",
            "multipart/form-data",
            "multipart/form-data; boundary=",
            "multipart/form-data; boundary=\"a\u{e9}\"",
        ] {
            assert_eq!(
                Form::parse(content_type, b""),
                Err(FormError::ContentType),
                "{content_type}"
            );
        }
        for body in [
            &b""[..],
            b"--xYz",
            b"--xYz\r\n",
            b"--xYzz\r\n\r\nA\r\n--xYz--",
            b"--xYz\r\n\r\nvalue without a name\r\n--xYz--",
            b"--xYz\r\nContent-Disposition: attachment; name=\"a\"\r\n\r\nx\r\n--xYz--",
            b"--xYz\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nx\r\n",
            b"--xYz\r\nContent-Disposition: form-data; name=\"a\r\n\r\nx\r\n--xYz--",
            b"--xYz\r\nContent-Disposition: form-data; name=\"a\"; name=\"b\"\r\n\r\nx\r\n--xYz--",
        ] {
            assert!(
                Form::parse(TYPE, body).is_err(),
                "{}",
                String::from_utf8_lossy(body)
            );
        }
        let many: Vec<_> = (0..=FORM_FIELDS_MAX).map(|_| ("a", None, &b"1"[..])).collect();
        assert_eq!(Form::parse(TYPE, &written(&many)), Err(FormError::TooManyFields));
        assert!(Form::parse(TYPE, &written(&many[1..])).is_ok());
    }

    #[test]
    fn quoted_boundaries_and_bare_names_are_read() {
        let body = b"preamble\r\n--a b\r\ncontent-disposition:form-data;name=x\r\n\r\n\r\n--a b--";
        let form = Form::parse("Multipart/Form-Data; charset=x; Boundary=\"a b\"", body).unwrap();
        assert_eq!(
            (form.fields[0].name.as_str(), form.fields[0].value.len()),
            ("x", 0)
        );
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read(values in proptest::collection::vec(("[a-z]{1,8}", proptest::collection::vec(any::<u8>(), 0..200)), 0..6)) {
            prop_assume!(values.iter().all(|(_, value)| memmem::find(value, b"--xYz").is_none()));
            let fields: Vec<_> = values.iter().map(|(name, value)| (name.as_str(), None, value.as_slice())).collect();
            let body = written(&fields);
            if fields.is_empty() {
                prop_assert_eq!(Form::parse(TYPE, &body).unwrap().fields.len(), 0);
            }
            let form = Form::parse(TYPE, &body).unwrap();
            let read: Vec<_> = form.fields.iter().map(|field| (field.name.as_str(), &body[field.value.clone()])).collect();
            let expected: Vec<_> = values.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn arbitrary_bytes_never_panic(head in "multipart/form-data; ?boundary=.{0,20}", body in proptest::collection::vec(prop_oneof![Just(b'-'), Just(b'\r'), Just(b'\n'), Just(b'x'), any::<u8>()], 0..200)) {
            let _ = Form::parse(&head, &body);
            let _ = Form::parse("multipart/form-data; boundary=x", &body);
        }
    }
}
