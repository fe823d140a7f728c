//! "Did you mean …": the nearest known name.

/// The known name nearest to `given`, if it is near enough to be a slip of the finger.
pub(crate) fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A third of the letters may differ: `promt` finds `prompt`, `foo` finds nothing.
    let tolerance = given.chars().count().div_ceil(3).max(1);
    known
        .into_iter()
        .map(|name| (distance(&given.to_lowercase(), &name.to_lowercase()), name))
        .filter(|(distance, _)| *distance <= tolerance)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Advice for an unknown name: the nearest one, or all of them when they are few.
pub(crate) fn advice(given: &str, known: &[&str]) -> Option<String> {
    if let Some(name) = nearest(given, known.iter().copied()) {
        return Some(format!("did you mean `{name}`?"));
    }
    match known.len() {
        0 => None,
        1..=MOST_LISTED => Some(format!("expected one of {}", quoted(known))),
        more => Some(format!("expected one of {} and {} more", quoted(&known[..MOST_LISTED]), more - MOST_LISTED)),
    }
}

/// `a`, `b`, `c`.
pub(crate) fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// More names than this are not listed in one line.
const MOST_LISTED: usize = 12;

/// Edits (insert, delete, replace, swap neighbours) that turn `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before_last = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before_last[j - 2] + 1);
            }
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_edits() {
        for (a, b, edits) in [("", "abc", 3), ("prompt", "promt", 1), ("kitten", "sitting", 3), ("ab", "ba", 1), ("same", "same", 0)] {
            assert_eq!(distance(a, b), edits, "{a} {b}");
            assert_eq!(distance(b, a), edits, "{b} {a}");
        }
    }

    #[test]
    fn finds_slips_and_ignores_strangers() {
        let known = ["temperature", "tools", "top_p"];
        assert_eq!(nearest("temprature", known), Some("temperature"));
        assert_eq!(nearest("Tools", known), Some("tools"));
        assert_eq!(nearest("zebra", known), None);
        assert_eq!(advice("zebra", &known).unwrap(), "expected one of `temperature`, `tools`, `top_p`");
    }
}
