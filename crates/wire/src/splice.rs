//! Edits to a document's bytes: what is not named by an edit is forwarded as it came.
//!
//! The result is a list of segments. A short body is copied into one buffer; of a long one, the untouched stretches are slices of
//! the caller's own bytes.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::scan::Span;

/// Bodies up to this length are copied. Measured on a busy two-core machine: encoding 15 KB with the copy takes 0.9 µs, 17 KB in
/// three segments 0.7 µs; the difference is less than what one buffer saves later, when head and body leave in a single write.
const CONTIGUOUS: usize = 16 * 1024;

/// Untouched stretches below this are copied into the segment before them rather than made segments of their own.
const WORTH_A_SLICE: usize = 2048;

/// A set of edits that do not overlap.
#[derive(Debug, Default)]
pub(crate) struct Edits {
    list: SmallVec<[Edit; 12]>,
}

#[derive(Debug)]
struct Edit {
    span: Span,
    text: Vec<u8>,
}

impl Edits {
    /// Puts `text` in the place of `span`.
    pub(crate) fn replace(&mut self, span: Span, text: impl Into<Vec<u8>>) {
        self.list.push(Edit { span, text: text.into() });
    }

    /// Takes `span` out.
    pub(crate) fn remove(&mut self, span: Span) {
        self.replace(span, Vec::new());
    }

    /// Puts `text` before the byte at `at`; after what is replaced there, if anything ends there.
    pub(crate) fn insert(&mut self, at: usize, text: impl Into<Vec<u8>>) {
        self.replace(Span { start: at, end: at }, text);
    }

    /// The edited `body` in order. Edits that lie outside of it or overlap an earlier one are ignored.
    pub(crate) fn apply(mut self, body: &Bytes) -> SmallVec<[Bytes; 4]> {
        let mut segments = SmallVec::new();
        if self.list.is_empty() {
            segments.push(body.clone());
            return segments;
        }
        // Stable, and by end second: an insertion follows the removal that ends where it stands.
        self.list.sort_by_key(|edit| (edit.span.start, edit.span.end));
        let added: usize = self.list.iter().map(|edit| edit.text.len()).sum();
        let slices = body.len() > CONTIGUOUS;
        let mut buffer = Vec::with_capacity(added + if slices { 2 * WORTH_A_SLICE } else { body.len() });
        let mut at = 0;
        for Edit { span, text } in self.list {
            if span.start < at || span.end > body.len() {
                continue;
            }
            keep(body, at, span.start, slices, &mut buffer, &mut segments);
            buffer.extend_from_slice(&text);
            at = span.end;
        }
        keep(body, at, body.len(), slices, &mut buffer, &mut segments);
        if !buffer.is_empty() {
            segments.push(buffer.into());
        }
        segments
    }
}

fn keep(body: &Bytes, start: usize, end: usize, slices: bool, buffer: &mut Vec<u8>, segments: &mut SmallVec<[Bytes; 4]>) {
    if !slices || end - start < WORTH_A_SLICE {
        buffer.extend_from_slice(&body[start..end]);
        return;
    }
    if !buffer.is_empty() {
        segments.push(std::mem::take(buffer).into());
    }
    segments.push(body.slice(start..end));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn flat(segments: &[Bytes]) -> Vec<u8> {
        segments.concat()
    }

    #[test]
    fn an_unedited_body_is_the_body_itself() {
        let body = Bytes::from_static(b"{\"a\":1}");
        let segments = Edits::default().apply(&body);
        assert_eq!(segments[0].as_ptr(), body.as_ptr());
    }

    #[test]
    fn long_stretches_are_slices_of_the_body() {
        let body = Bytes::from(vec![b'x'; 100_000]);
        let mut edits = Edits::default();
        edits.replace(Span { start: 10, end: 12 }, *b"yy");
        edits.insert(99_999, *b"z");
        let segments = edits.apply(&body);
        assert_eq!(segments.len(), 3);
        assert_eq!(segments[1].as_ptr(), body[12..].as_ptr());
        assert_eq!(flat(&segments).len(), 100_001);
    }

    proptest! {
        #[test]
        fn segments_join_to_what_plain_edits_give(
            length in prop_oneof![0..200_usize, 16_000..60_000_usize],
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
        ) {
            let body: Vec<u8> = (0..length).map(|index| (index % 251) as u8).collect();
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(length + 1)).collect();
            at.sort_unstable();
            at.dedup();
            let mut edits = Edits::default();
            let mut expected = body.clone();
            for (number, pair) in at.chunks_exact(2).enumerate().rev() {
                let text = number.to_string().into_bytes();
                edits.replace(Span { start: pair[0], end: pair[1] }, text.clone());
                expected.splice(pair[0]..pair[1], text);
            }
            prop_assert_eq!(flat(&edits.apply(&body.into())), expected);
        }
    }
}
