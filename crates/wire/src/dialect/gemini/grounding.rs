//! Sources of an answer that rests on a search.

use serde::Deserialize;

use crate::canonical::{Annotation, JsonStr, Source};

/// `groundingMetadata`: pages, and which stretch of the answer rests on which of them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Grounding<'a> {
    #[serde(borrow, default)]
    grounding_chunks: Vec<GroundingChunk<'a>>,
    #[serde(borrow, default)]
    grounding_supports: Vec<GroundingSupport<'a>>,
}

#[derive(Debug, Deserialize)]
struct GroundingChunk<'a> {
    #[serde(borrow, default)]
    web: Option<WebPage<'a>>,
}

#[derive(Debug, Deserialize)]
struct WebPage<'a> {
    #[serde(borrow, default)]
    uri: Option<JsonStr<'a>>,
    #[serde(borrow, default)]
    title: Option<JsonStr<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct GroundingSupport<'a> {
    #[serde(borrow, default)]
    segment: Option<Segment<'a>>,
    #[serde(default)]
    grounding_chunk_indices: Vec<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Segment<'a> {
    /// In bytes of the answer's text.
    #[serde(default)]
    start_index: usize,
    #[serde(default)]
    end_index: usize,
    #[serde(borrow, default)]
    text: Option<JsonStr<'a>>,
}

impl<'a> Grounding<'a> {
    /// The pages that the answer rests on. Places are counted in `text`, as far as it is known.
    pub(super) fn annotations(&self, text: &str) -> Vec<Annotation<'a>> {
        let characters = |end: usize| text.get(..end).map(|before| before.chars().count() as u64);
        let mut annotations = Vec::new();
        for support in &self.grounding_supports {
            let segment = support.segment.as_ref();
            let range = segment.and_then(|s| Some((characters(s.start_index)?, characters(s.end_index)?)));
            for page in support.grounding_chunk_indices.iter().filter_map(|&at| self.grounding_chunks.get(at)) {
                let Some(WebPage { uri: Some(uri), title }) = &page.web else { continue };
                annotations.push(Annotation {
                    source: Source::Url(*uri),
                    title: *title,
                    quote: segment.and_then(|segment| segment.text),
                    range: range.unwrap_or_default(),
                });
            }
        }
        annotations
    }
}
