//! Made-up text: a few sentences that depend only on a seed and the question, already in tokens.
//!
//! A token here is a word with the blank before it. Real tokenizers cut finer; what matters is that the numbers agree: as many tokens
//! are counted as pieces are sent.

use std::hash::{DefaultHasher, Hash, Hasher};

/// An answer to a question. The first sentence repeats how the question begins, so that one can see that it arrived.
pub(crate) fn answer(seed: u64, question: &str) -> Vec<String> {
    let mut random = generator(seed, question);
    let mut text = format!("You asked about \"{}\".", beginning(question));
    for _ in 0..random.usize(3..=5) {
        text.push(' ');
        text.push_str(&sentence(&mut random));
    }
    tokens(&text)
}

/// What one might think before answering.
pub(crate) fn reasoning(seed: u64, question: &str) -> Vec<String> {
    let mut random = generator(seed ^ 0x7e_a50, question);
    let mut text = format!("The question is about \"{}\".", beginning(question));
    for _ in 0..random.usize(2..=3) {
        text.push_str(" First, ");
        text.push_str(&sentence(&mut random).to_lowercase());
    }
    tokens(&text)
}

/// Words with the blank before them; joined they are the text again.
pub(crate) fn tokens(text: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    for piece in text.split_inclusive(' ') {
        // The blank belongs to the next word, as tokenizers have it.
        let (word, blank) = match piece.strip_suffix(' ') {
            Some(word) => (word, " "),
            None => (piece, ""),
        };
        match tokens.last_mut() {
            Some(last) => last.push_str(word),
            None => tokens.push(word.to_owned()),
        }
        if !blank.is_empty() {
            tokens.push(blank.to_owned());
        }
    }
    tokens.retain(|token| !token.is_empty());
    tokens
}

/// Pieces of about four characters, for JSON and code.
pub(crate) fn pieces(text: &str) -> Vec<String> {
    let letters: Vec<char> = text.chars().collect();
    letters.chunks(4).map(|piece| piece.iter().collect()).collect()
}

/// Random numbers that depend on nothing else.
pub(crate) fn generator(seed: u64, question: &str) -> fastrand::Rng {
    let mut hasher = DefaultHasher::new();
    (seed, question).hash(&mut hasher);
    fastrand::Rng::with_seed(hasher.finish())
}

/// A pronounceable noun.
pub(crate) fn noun(random: &mut fastrand::Rng) -> &'static str {
    pick(random, &NOUNS)
}

fn sentence(random: &mut fastrand::Rng) -> String {
    format!(
        "{} {} {} the {} {}.",
        pick(random, &OPENINGS),
        pick(random, &NOUNS),
        pick(random, &VERBS),
        pick(random, &ADJECTIVES),
        pick(random, &NOUNS)
    )
}

fn beginning(question: &str) -> String {
    let words: Vec<&str> = question.split_whitespace().take(8).collect();
    let mut text: String = words.join(" ").chars().take(80).collect();
    if text.is_empty() {
        text.push_str("nothing");
    }
    text
}

fn pick(random: &mut fastrand::Rng, words: &[&'static str]) -> &'static str {
    words.get(random.usize(..words.len())).copied().unwrap_or("water")
}

const OPENINGS: [&str; 6] = ["In short, the", "Usually the", "At low water the", "As a rule the", "Seen from here the", "By evening the"];
const NOUNS: [&str; 12] =
    ["river", "gate", "harbour", "current", "lock", "basin", "estuary", "channel", "beacon", "pilot", "shore", "moon"];
const VERBS: [&str; 8] = ["follows", "carries", "meets", "explains", "leaves", "guides", "balances", "precedes"];
const ADJECTIVES: [&str; 8] = ["quiet", "northern", "narrow", "patient", "rising", "distant", "familiar", "measured"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_questions_get_equal_answers() {
        assert_eq!(answer(1, "why?"), answer(1, "why?"));
        assert_ne!(answer(1, "why?"), answer(2, "why?"));
        assert_ne!(answer(1, "why?"), answer(1, "how?"));
        assert!(answer(1, "why is it so").concat().starts_with("You asked about \"why is it so\"."));
    }

    #[test]
    fn tokens_join_to_the_text_again() {
        for text in ["", "one", "one two", " lead", "trail ", "a  b", "grüße an alle"] {
            assert_eq!(tokens(text).concat(), text);
            assert_eq!(pieces(text).concat(), text);
        }
        assert_eq!(tokens("one two three"), ["one", " two", " three"]);
    }
}
