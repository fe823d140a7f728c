//! The API's token counts, which leave thoughts out of the candidates.

use serde::Deserialize;

use crate::{canonical::Text, usage::Usage};

/// The `usageMetadata` object. In a stream every chunk has one, cumulative: the last counts.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Reported<'a> {
    #[serde(default)]
    prompt_token_count: Option<u64>,
    #[serde(default)]
    tool_use_prompt_token_count: Option<u64>,
    #[serde(default)]
    cached_content_token_count: Option<u64>,
    #[serde(default)]
    candidates_token_count: Option<u64>,
    #[serde(default)]
    thoughts_token_count: Option<u64>,
    #[serde(borrow, default)]
    prompt_tokens_details: Option<Vec<ByModality<'a>>>,
    #[serde(borrow, default)]
    candidates_tokens_details: Option<Vec<ByModality<'a>>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ByModality<'a> {
    #[serde(borrow, default)]
    modality: Option<Text<'a>>,
    #[serde(default)]
    token_count: Option<u64>,
}

impl Reported<'_> {
    /// Our counts; `images` were generated so far.
    pub(super) fn usage(&self, images: u64) -> Usage {
        let thoughts = self.thoughts_token_count.unwrap_or(0);
        let prompt = self.prompt_token_count.unwrap_or(0);
        Usage {
            prompt_tokens: prompt.saturating_add(self.tool_use_prompt_token_count.unwrap_or(0)),
            cached_tokens: self.cached_content_token_count.unwrap_or(0).min(prompt),
            completion_tokens: self.candidates_token_count.unwrap_or(0).saturating_add(thoughts),
            reasoning_tokens: thoughts,
            image_count: images,
            audio_tokens: self.audio(),
            ..Usage::default()
        }
    }

    fn audio(&self) -> u64 {
        let details = [&self.prompt_tokens_details, &self.candidates_tokens_details];
        let entries = details.into_iter().flatten().flatten();
        let audio = entries.filter(|entry| entry.modality.as_deref() == Some("AUDIO"));
        audio.filter_map(|entry| entry.token_count).fold(0, u64::saturating_add)
    }
}
