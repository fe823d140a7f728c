//! Strings as they stand in JSON.
//!
//! Most text only passes through: a prompt or a delta enters as a JSON string and leaves as one. Copying the
//! literal with its quotes and escapes costs one scan and no allocation; decoding happens only where the
//! meaning of the characters matters.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde_json::value::RawValue;

/// A JSON string exactly as the sender wrote it, quotes and escapes included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct JsonStr<'a>(&'a str);

impl<'a> JsonStr<'a> {
    /// The literal with its quotes.
    pub(crate) fn literal(self) -> &'a str {
        self.0
    }

    /// The literal without its quotes, still escaped.
    pub(crate) fn inner(self) -> &'a str {
        // Both ends are ASCII quotes: `from_raw` is the only constructor and checks them.
        &self.0[1..self.0.len() - 1]
    }

    /// True for `""`.
    pub(crate) fn is_empty(self) -> bool {
        self.inner().is_empty()
    }

    /// True when nothing but white space would be left after decoding; such text several upstreams refuse.
    pub(crate) fn is_blank(self) -> bool {
        let inner = self.inner();
        // White space in JSON text is short and starts with a space or an escape; anything else decides at once.
        match inner.as_bytes().first() {
            None => true,
            Some(b' ' | b'\\') => self.decode().trim().is_empty(),
            Some(_) => false,
        }
    }

    /// The characters that the literal stands for.
    pub(crate) fn decode(self) -> Cow<'a, str> {
        if !self.0.as_bytes().contains(&b'\\') {
            return Cow::Borrowed(self.inner());
        }
        match serde_json::from_str::<String>(self.0) {
            Ok(text) => Cow::Owned(text),
            // Only a lone surrogate escape gets past the scan and fails here; its literal is the best there is.
            Err(_) => Cow::Borrowed(self.inner()),
        }
    }

    /// `raw` as a string, or `None` when it is another kind of value.
    pub(crate) fn from_raw(raw: &'a RawValue) -> Option<JsonStr<'a>> {
        let text = raw.get();
        (text.len() >= 2 && text.starts_with('"') && text.ends_with('"')).then_some(JsonStr(text))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for JsonStr<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&'a RawValue>::deserialize(deserializer)?;
        JsonStr::from_raw(raw).ok_or_else(|| de::Error::custom("expected a string"))
    }
}

/// A short decoded string (a role, a type tag, an identifier), borrowed unless it held an escape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Text<'a>(pub(crate) Cow<'a, str>);

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Cow<'de, str>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string")
            }

            fn visit_borrowed_str<E: de::Error>(self, value: &'de str) -> Result<Self::Value, E> {
                Ok(Cow::Borrowed(value))
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Self::Value, E> {
                Ok(Cow::Owned(value.to_owned()))
            }

            fn visit_string<E: de::Error>(self, value: String) -> Result<Self::Value, E> {
                Ok(Cow::Owned(value))
            }
        }

        deserializer.deserialize_str(TextVisitor).map(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(source: &str) -> JsonStr<'_> {
        serde_json::from_str(source).unwrap()
    }

    #[test]
    fn literal_keeps_escapes_and_decodes_on_demand() {
        let text = literal(r#""a\n\"b\" \u00e9""#);
        assert_eq!(text.inner(), r#"a\n\"b\" \u00e9"#);
        assert_eq!(text.decode(), "a\n\"b\" é");
        assert!(matches!(literal("\"plain\"").decode(), Cow::Borrowed("plain")));
    }

    #[test]
    fn blank_text_is_recognised_through_escapes() {
        assert!(literal(r#""""#).is_blank());
        assert!(literal(r#"" \n\t""#).is_blank());
        assert!(!literal(r#"" x""#).is_blank());
        assert!(!literal(r#""\u0041""#).is_blank());
    }

    #[test]
    fn other_values_are_refused() {
        assert!(serde_json::from_str::<JsonStr<'_>>("1").is_err());
        assert!(serde_json::from_str::<Option<JsonStr<'_>>>("null").unwrap().is_none());
    }
}
