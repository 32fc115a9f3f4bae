//! Requests that are forms: audio that becomes text.

use bytes::Bytes;
use gristmill_protocol::form::{Form, FormError, FormField};
use gristmill_protocol::job::JobKind;

use crate::core::failure::ApiFailure;
use crate::core::request::ProgramRequest;
use crate::core::request::read::{check_model, missing, wrong_type};

/// A body that had to be a form and is none.
pub(super) fn not_a_form() -> ApiFailure {
    ApiFailure::invalid_request(
        "send this request as a form: 'Content-Type: multipart/form-data; boundary=…'",
    )
}

impl From<FormError> for ApiFailure {
    fn from(error: FormError) -> Self {
        match error {
            FormError::ContentType => not_a_form(),
            FormError::Repeated(ref field) => Self::invalid_request(error.to_string()).at(field),
            FormError::Malformed(_) | FormError::TooManyFields => Self::invalid_request(error.to_string()),
        }
    }
}

impl ProgramRequest {
    /// Reads a request whose body is a form.
    ///
    /// # Errors
    /// [`ApiFailure`] with status 400 that names the field at fault.
    pub fn parse_form(kind: JobKind, content_type: &str, body: Bytes) -> Result<Self, ApiFailure> {
        let form = Form::parse(content_type, &body)?;
        let text = |field: &FormField| {
            std::str::from_utf8(&body[field.value.clone()])
                .map(str::to_owned)
                .map_err(|_| wrong_type(&field.name, "a text"))
        };
        let model = text(form.only("model")?.ok_or_else(|| missing("model"))?)?;
        check_model(&model)?;
        let file = form.only("file")?.ok_or_else(|| missing("file"))?;
        if !file.is_file || file.value.is_empty() {
            return Err(wrong_type("file", "a file that is not empty"));
        }
        let stream = form.only("stream")?.map(text).transpose()?;
        let mut request = Self::new(kind, model);
        request.stream = match stream.as_deref() {
            None | Some("false" | "False" | "0" | "") => false,
            Some("true" | "True" | "1") => true,
            Some(_) => return Err(wrong_type("stream", "true or false")),
        };
        request.content_type = content_type.to_owned();
        request.body = body;
        Ok(request)
    }

    /// What makes two requests the same, for bodies whose bytes differ each time they are written: the boundary of a
    /// form is drawn at random.
    ///
    /// # Errors
    /// [`ApiFailure`] where the form can't be read.
    pub fn canonical_form(content_type: &str, body: &[u8]) -> Result<Vec<u8>, ApiFailure> {
        let mut canonical = Vec::with_capacity(body.len());
        for field in Form::parse(content_type, body)?.fields {
            let value = &body[field.value];
            canonical.extend_from_slice(&(field.name.len() as u64).to_le_bytes());
            canonical.extend_from_slice(field.name.as_bytes());
            canonical.extend_from_slice(&(value.len() as u64).to_le_bytes());
            canonical.extend_from_slice(value);
        }
        Ok(canonical)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=b";

    fn body(boundary: &str, fields: &[(&str, &str)]) -> Bytes {
        let mut text = String::new();
        for (name, value) in fields {
            let file = if *name == "file" {
                "; filename=\"a.wav\""
            } else {
                ""
            };
            text.push_str(&format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n{value}\r\n"
            ));
        }
        text.push_str(&format!("--{boundary}--\r\n"));
        text.into()
    }

    #[test]
    fn a_form_is_read_for_its_model_and_travels_as_it_is() {
        let body = body("b", &[("model", "whisper"), ("file", "RIFF"), ("stream", "true")]);
        let request = ProgramRequest::parse_form(JobKind::AudioTranscriptions, TYPE, body.clone()).unwrap();
        assert_eq!((request.model.as_str(), request.stream), ("whisper", true));
        assert_eq!((request.content_type.as_str(), &request.body), (TYPE, &body));
    }

    #[test]
    fn what_is_missing_is_named() {
        for (fields, param) in [
            (&[("file", "x")][..], "model"),
            (&[("model", "w")], "file"),
            (&[("model", "w"), ("file", "")], "file"),
            (&[("model", ""), ("file", "x")], "model"),
            (&[("model", "w"), ("model", "v"), ("file", "x")], "model"),
            (&[("model", "w"), ("file", "x"), ("stream", "maybe")], "stream"),
        ] {
            let failure = ProgramRequest::parse_form(JobKind::AudioTranscriptions, TYPE, body("b", fields))
                .unwrap_err();
            assert_eq!(
                (failure.status, failure.param.as_deref()),
                (400, Some(param)),
                "{fields:?}"
            );
        }
        let json = ProgramRequest::parse_form(JobKind::AudioTranscriptions, "application/json", Bytes::new());
        assert_eq!(json.unwrap_err().status, 400);
    }

    #[test]
    fn two_boundaries_are_one_request() {
        let fields = [("model", "w"), ("file", "x")];
        let canonical = |boundary: &str| {
            let content_type = format!("multipart/form-data; boundary={boundary}");
            ProgramRequest::canonical_form(&content_type, &body(boundary, &fields)).unwrap()
        };
        assert_eq!(canonical("one"), canonical("another"));
    }
}
