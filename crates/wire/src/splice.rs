//! Edits to a JSON object's bytes.
