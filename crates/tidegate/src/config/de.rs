//! Serde over the spanned tree: errors know the value they are about, and speak to people.
//!
//! Texts are given as written when a field asks for a text, so `0.10` reaches a price as `0.10` and not as a rounded float.

use std::fmt;

use serde::de::{self, DeserializeSeed, Expected, IntoDeserializer, Unexpected, Visitor};

use super::suggest;
use super::tree::{Node, Span, Value, is_null_text, join};

/// Why a value could not be read.
#[derive(Debug)]
pub(crate) struct ReadError {
    /// First line of what went wrong; further lines are advice.
    message: String,
    /// Where, once known: set by the innermost value.
    place: Option<Place>,
    kind: Kind,
}

#[derive(Debug)]
struct Place {
    span: Span,
    path: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Value,
    MissingField(&'static str),
}

/// What the caller needs of a [`ReadError`].
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) span: Span,
    /// Key path of the value that spoils the reading; taking it out lets the reading go on.
    pub(crate) path: String,
    pub(crate) message: String,
    pub(crate) help: Vec<String>,
    /// The key that is missing in the mapping at `path`.
    pub(crate) missing: Option<&'static str>,
}

impl ReadError {
    fn new(message: impl fmt::Display) -> ReadError {
        ReadError { message: message.to_string(), place: None, kind: Kind::Value }
    }

    fn about(mut self, node: &Node) -> ReadError {
        self.place.get_or_insert_with(|| Place { span: node.span.clone(), path: node.path.clone() });
        self
    }

    fn wrong_kind(expected: &dyn fmt::Display, node: &Node) -> ReadError {
        ReadError::new(format_args!("expected {expected}, found {}", node.kind())).about(node)
    }

    /// The error in parts; one without a place is about `root`.
    pub(crate) fn into_failure(self, root: &Node) -> Failure {
        let error = self.about(root);
        let mut lines = error.message.lines().map(str::to_owned);
        let message = lines.next().unwrap_or_default();
        let help = lines.collect();
        let (span, path) = error.place.map(|place| (place.span, place.path)).unwrap_or((root.span.clone(), String::new()));
        let missing = match error.kind {
            Kind::MissingField(field) => Some(field),
            Kind::Value => None,
        };
        Failure { span, path, message, help, missing }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ReadError {}

impl de::Error for ReadError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        ReadError::new(message)
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        ReadError::new(format_args!("expected {}, found {}", Wanted(expected), Found(unexpected)))
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        ReadError::invalid_type(unexpected, expected)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let mut message = format!("unknown value `{variant}`");
        let advice = match suggest::nearest(variant, expected.iter().copied()) {
            Some(name) => format!("did you mean `{name}`? Allowed: {}", suggest::quoted(expected)),
            None => format!("allowed: {}", suggest::quoted(expected)),
        };
        message.push('\n');
        message.push_str(&advice);
        ReadError::new(message)
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let mut message = format!("unknown key `{field}`");
        if let Some(advice) = suggest::advice(field, expected) {
            message.push('\n');
            message.push_str(&advice);
        }
        ReadError::new(message)
    }

    fn missing_field(field: &'static str) -> Self {
        ReadError {
            message: format!("`{field}` is missing\nadd `{field}: …`; it has no default"),
            place: None,
            kind: Kind::MissingField(field),
        }
    }
}

/// Serde's names of expected types, for people.
struct Wanted<'a>(&'a dyn Expected);

impl fmt::Display for Wanted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        match text.as_str() {
            "u8" => write!(f, "a whole number from 0 to {}", u8::MAX),
            "u16" => write!(f, "a whole number from 0 to {}", u16::MAX),
            "u32" => write!(f, "a whole number from 0 to {}", u32::MAX),
            "u64" | "usize" => f.write_str("a whole number that is not negative"),
            "i64" | "i32" => f.write_str("a whole number"),
            "f32" | "f64" => f.write_str("a number"),
            "a string" | "a borrowed string" => f.write_str("a text"),
            "a boolean" => f.write_str("`true` or `false`"),
            "a sequence" => f.write_str("a list"),
            "a map" => f.write_str("a mapping"),
            other => f.write_str(other),
        }
    }
}

/// What was found, for people. Texts are not repeated: they may be secrets, and the caret shows them.
struct Found<'a>(Unexpected<'a>);

impl fmt::Display for Found<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Unexpected::Unit | Unexpected::Option => f.write_str("nothing"),
            Unexpected::Bool(value) => write!(f, "{value}"),
            Unexpected::Unsigned(value) => write!(f, "{value}"),
            Unexpected::Signed(value) => write!(f, "{value}"),
            Unexpected::Float(value) => write!(f, "{value}"),
            Unexpected::Str(_) => f.write_str("a text"),
            Unexpected::Seq => f.write_str("a list"),
            Unexpected::Map => f.write_str("a mapping"),
            other => other.fmt(f),
        }
    }
}

/// The scalar as the YAML core schema resolves it.
enum Resolved<'a> {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(&'a str),
}

fn resolve(text: &str, plain: bool) -> Resolved<'_> {
    if !plain {
        return Resolved::Text(text);
    }
    if is_null_text(text) {
        return Resolved::Null;
    }
    match text {
        "true" | "True" | "TRUE" => return Resolved::Bool(true),
        "false" | "False" | "FALSE" => return Resolved::Bool(false),
        _ => {}
    }
    if let Ok(number) = text.parse() {
        return Resolved::Unsigned(number);
    }
    if let Ok(number) = text.parse() {
        return Resolved::Signed(number);
    }
    match text.parse::<f64>() {
        // "nan", "infinity" and the like are words.
        Ok(number) if number.is_finite() && text.contains(|c: char| c.is_ascii_digit()) => Resolved::Float(number),
        _ => Resolved::Text(text),
    }
}

macro_rules! numbers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
            self.number(visitor)
        }
    )*};
}

impl<'de> Node {
    fn number<V: Visitor<'de>>(&'de self, visitor: V) -> Result<V::Value, ReadError> {
        let result = match &self.value {
            // A number in quotes is a number: environment variables and templates put quotes everywhere.
            Value::Scalar { text, .. } => match resolve(text, true) {
                Resolved::Unsigned(number) => visitor.visit_u64(number),
                Resolved::Signed(number) => visitor.visit_i64(number),
                Resolved::Float(number) => visitor.visit_f64(number),
                _ => Err(ReadError::wrong_kind(&Wanted(&visitor), self)),
            },
            _ => Err(ReadError::wrong_kind(&Wanted(&visitor), self)),
        };
        result.map_err(|error| error.about(self))
    }

    fn texted<V: Visitor<'de>>(&'de self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.value {
            Value::Scalar { text, .. } if !self.is_null() => visitor.visit_borrowed_str(text),
            _ => Err(ReadError::wrong_kind(&Wanted(&visitor), self)),
        }
        .map_err(|error| error.about(self))
    }
}

impl<'de> de::Deserializer<'de> for &'de Node {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.value {
            Value::Scalar { text, plain } => match resolve(text, *plain) {
                Resolved::Null => visitor.visit_unit(),
                Resolved::Bool(value) => visitor.visit_bool(value),
                Resolved::Unsigned(number) => visitor.visit_u64(number),
                Resolved::Signed(number) => visitor.visit_i64(number),
                Resolved::Float(number) => visitor.visit_f64(number),
                Resolved::Text(text) => visitor.visit_borrowed_str(text),
            },
            Value::Sequence(items) => visitor.visit_seq(Items { rest: items.iter() }),
            Value::Mapping(_) => visitor.visit_map(Entries::of(self)),
        }
        .map_err(|error| error.about(self))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.value {
            Value::Scalar { text, .. } => match resolve(text, true) {
                Resolved::Bool(value) => visitor.visit_bool(value),
                _ => Err(ReadError::wrong_kind(&"`true` or `false`", self)),
            },
            _ => Err(ReadError::wrong_kind(&"`true` or `false`", self)),
        }
        .map_err(|error| error.about(self))
    }

    numbers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
        deserialize_f32 deserialize_f64
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.texted(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.texted(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.texted(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.texted(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.texted(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        if self.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }.map_err(|error| error.about(self))
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        if self.is_null() {
            return visitor.visit_unit();
        }
        Err(ReadError::wrong_kind(&"nothing", self))
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_newtype_struct(self).map_err(|error| error.about(self))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.value {
            Value::Sequence(items) => visitor.visit_seq(Items { rest: items.iter() }).map_err(|error| error.about(self)),
            _ if self.is_null() => visitor.visit_seq(Items { rest: [].iter() }).map_err(|error| error.about(self)),
            _ => Err(ReadError::wrong_kind(&"a list", self)),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(self, _: &'static str, _: usize, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.value {
            Value::Mapping(_) => visitor.visit_map(Entries::of(self)).map_err(|error| error.about(self)),
            // `section:` with nothing below it is an empty section.
            _ if self.is_null() => visitor.visit_map(Entries::of(self)).map_err(|error| error.about(self)),
            _ => Err(ReadError::wrong_kind(&"a mapping", self)),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(self, _: &'static str, _: &'static [&'static str], visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        match &self.value {
            Value::Scalar { text, .. } if !self.is_null() => {
                visitor.visit_enum(text.as_str().into_deserializer()).map_err(|error: ReadError| error.about(self))
            }
            _ => Err(ReadError::wrong_kind(&format_args!("one of {}", suggest::quoted(variants)), self)),
        }
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.texted(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_unit()
    }
}

struct Items<'de> {
    rest: std::slice::Iter<'de, Node>,
}

impl<'de> de::SeqAccess<'de> for Items<'de> {
    type Error = ReadError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, ReadError> {
        self.rest.next().map(|item| seed.deserialize(item)).transpose()
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

struct Entries<'de> {
    mapping: &'de Node,
    next: usize,
}

impl<'de> Entries<'de> {
    fn of(mapping: &'de Node) -> Self {
        Entries { mapping, next: 0 }
    }
}

impl<'de> de::MapAccess<'de> for Entries<'de> {
    type Error = ReadError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ReadError> {
        let Some(entry) = self.mapping.entries().get(self.next) else { return Ok(None) };
        self.next += 1;
        let result: Result<K::Value, ReadError> = seed.deserialize(entry.key.as_str().into_deserializer());
        result.map(Some).map_err(|mut error| {
            let path = join(&self.mapping.path, &entry.key);
            error.place.get_or_insert(Place { span: entry.key_span.clone(), path });
            error
        })
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ReadError> {
        // Serde asks for a value only after its key.
        let entry = &self.mapping.entries()[self.next - 1];
        seed.deserialize(&entry.node)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.mapping.entries().len() - self.next)
    }
}
