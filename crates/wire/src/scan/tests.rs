use proptest::prelude::*;

use super::*;

fn accepts(text: &[u8]) -> bool {
    check(text).is_ok()
}

#[test]
fn the_corners_of_the_grammar() {
    for good in [
        "{}",
        "[]",
        " [ ] ",
        "{\"a\":{}}",
        "[[],{}]",
        "0",
        "-0",
        "1.5e+9",
        "\"\"",
        "\"\\u00e9\\n\"",
        "true",
        "null",
        "[1,2]",
        "{\"a\":1,\"b\":[null]}",
        "\"\\ud800\"",
    ] {
        assert!(accepts(good.as_bytes()), "{good}");
    }
    for bad in [
        "",
        " ",
        "{",
        "[",
        "]",
        "{]",
        "[}",
        "[1,]",
        "{\"a\":1,}",
        "{,}",
        "[,1]",
        "{\"a\"}",
        "{\"a\":}",
        "{a:1}",
        "01",
        "1.",
        ".5",
        "-",
        "1e",
        "+1",
        "tru",
        "nul",
        "\"",
        "\"\\x\"",
        "\"\\u12g4\"",
        "\"a\nb\"",
        "1 2",
        "{} {}",
        "[1 2]",
        "{\"a\" 1}",
        "{\"a\":1 \"b\":2}",
        "[[1]",
        "\u{feff}{}",
    ] {
        assert!(!accepts(bad.as_bytes()), "{bad}");
    }
}

#[test]
fn depth_is_bounded() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(accepts(nested(64).as_bytes()));
    assert_eq!(check(nested(65).as_bytes()).unwrap_err().reason, "nested too deeply");
    let objects = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    assert!(accepts(objects(64).as_bytes()));
    assert!(!accepts(objects(65).as_bytes()));
}

#[test]
fn invalid_encoding_is_found_anywhere() {
    assert_eq!(check(b"[\"a\xff\"]").unwrap_err(), ScanError { at: 3, reason: "invalid UTF-8" });
}

#[test]
fn wrong_text_is_said_before_wrong_structure_however_far_behind() {
    let far = "x".repeat(10_000);
    for (wrong, reason) in [(&b"\xff"[..], "invalid UTF-8"), (b"\\x", "invalid escape"), (b"\xed\xa0\x80", "invalid UTF-8")] {
        let text = [b"[1 2,\"", far.as_bytes(), wrong, b"\"]"].concat();
        assert_eq!(check(&text).unwrap_err(), ScanError { at: 6 + far.len(), reason });
    }
    assert_eq!(check(b"[1 2]").unwrap_err(), ScanError { at: 3, reason: "expected `,` or `]`" });
}

#[test]
fn strings_decode() {
    let text = br#""a\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00\ud800x""#;
    let token = Cursor::open(text).unwrap().string().unwrap();
    assert_eq!(token.decode(text), "a\"\\/\u{8}\u{c}\n\r\t\u{e9}\u{1f600}\u{fffd}x");
    assert_eq!(token.outer(), Span { start: 0, end: text.len() });
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(5, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(serde_json::Value::Array),
            prop::collection::vec((any::<String>(), inner), 0..6)
                .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn every_document_is_accepted(value in json(), pretty: bool) {
        let text = if pretty { serde_json::to_vec_pretty(&value) } else { serde_json::to_vec(&value) }.unwrap();
        prop_assert_eq!(check(&text), Ok(Span { start: 0, end: text.len() }));
    }

    #[test]
    fn damaged_documents_are_judged_as_serde_json_judges_them(
        value in json(),
        // What is looked at in one go may end anywhere in it.
        before in prop_oneof![3 => Just(0), 1 => 1_500..2_500_usize],
        at in any::<prop::sample::Index>(),
        damage in prop_oneof![Just(None), any::<u8>().prop_map(Some), "[\\[\\]{},:\"0-9eE.tfn \\\\-]".prop_map(|s| s.bytes().next())],
    ) {
        let value = serde_json::to_vec(&value).unwrap();
        let mut text = [b"[\"", &*vec![b'x'; before], b"\",", &value, b"]"].concat();
        let index = text.len() - 1 - at.index(value.len());
        match damage {
            Some(byte) => text[index] = byte,
            None => { text.remove(index); }
        }
        // serde_json also refuses what JSON allows: numbers beyond f64. `RawValue` does not convert numbers, so ask it.
        let theirs = std::str::from_utf8(&text).is_ok_and(|s| serde_json::from_str::<&serde_json::value::RawValue>(s).is_ok());
        prop_assert_eq!(accepts(&text), theirs, "{}", String::from_utf8_lossy(&text));
    }

    #[test]
    fn pulling_members_agrees_with_skipping(members in prop::collection::vec((any::<String>(), json()), 0..6)) {
        let mut text = b"{".to_vec();
        for (index, (key, value)) in members.iter().enumerate() {
            if index > 0 { text.push(b','); }
            text.extend(serde_json::to_vec(key).unwrap());
            text.push(b':');
            text.extend(serde_json::to_vec(value).unwrap());
        }
        text.push(b'}');
        let mut cursor = Cursor::open(&text).unwrap();
        let mut object = cursor.enter_object().unwrap();
        let mut seen = Vec::new();
        while let Some(key) = cursor.next_key(&mut object).unwrap() {
            let value = cursor.skip().unwrap();
            seen.push((key.decode(&text).into_owned(), value.text(&text).to_owned()));
        }
        cursor.finish().unwrap();
        let expected: Vec<_> = members.iter().map(|(key, value)| (key.clone(), value.to_string())).collect();
        prop_assert_eq!(seen, expected);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = check(&bytes);
    }
}
