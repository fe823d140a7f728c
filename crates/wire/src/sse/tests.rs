use proptest::prelude::*;

use super::*;

type Owned = (Vec<u8>, Vec<u8>, Vec<u8>);

fn events(chunks: &[&[u8]]) -> Result<Vec<Owned>, TooLong> {
    let mut parser = SseParser::default();
    let mut seen = Vec::new();
    let mut keep = |event: Event<'_>| {
        seen.push((event.name.to_vec(), event.data.to_vec(), event.id.to_vec()));
        Ok(())
    };
    for chunk in chunks {
        parser.push(chunk, &mut keep)?;
    }
    parser.finish(&mut keep)?;
    Ok(seen)
}

fn data(stream: &str) -> Vec<String> {
    let seen = events(&[stream.as_bytes()]).unwrap();
    seen.into_iter().map(|(_, data, _)| String::from_utf8(data).unwrap()).collect()
}

#[test]
fn every_line_ending_and_field_form() {
    assert_eq!(data("data: a\n\ndata:b\r\n\r\ndata:  c\r\rdata\n\n"), ["a", "b", " c", ""]);
    assert_eq!(data("\u{feff}data: a\n\n\u{feff}data: b\n\n"), ["a"]);
    assert_eq!(data(": comment\n\n:\n\nretry: 5\n\nevent: x\n\ndatax: no\n\n"), Vec::<String>::new());
    assert_eq!(data("data: a\ndata: b\n\ndata: c\n\n"), ["a\nb", "c"]);
    assert_eq!(data("\n\n\ndata: a\n\n\n\n"), ["a"]);
}

#[test]
fn the_last_event_needs_no_blank_line() {
    assert_eq!(data("data: a\n\ndata: [DONE]"), ["a", "[DONE]"]);
    assert_eq!(data("data: a\n\ndata: [DONE]\n"), ["a", "[DONE]"]);
}

#[test]
fn names_and_ids_belong_to_their_event() {
    let seen = events(&[b"event: ping\nid: 7\ndata: {}\n\ndata: x\n\n"]).unwrap();
    assert_eq!(seen[0], (b"ping".to_vec(), b"{}".to_vec(), b"7".to_vec()));
    assert_eq!(seen[1], (Vec::new(), b"x".to_vec(), Vec::new()));
}

#[test]
fn an_event_may_not_outgrow_the_bound() {
    let fits = [b"data: ".to_vec(), vec![b'x'; MAX_EVENT - 7], b"\n\n".to_vec()].concat();
    assert_eq!(events(&[&fits]).unwrap().len(), 1);
    let long = [b"data: ".to_vec(), vec![b'x'; MAX_EVENT], b"\n\n".to_vec()].concat();
    assert_eq!(events(&[&long]), Err(TooLong));
    let pieces: Vec<&[u8]> = long.chunks(1000).collect();
    assert_eq!(events(&pieces), Err(TooLong));
}

proptest! {
    #[test]
    fn any_split_gives_the_same_events(
        lines in prop::collection::vec("(data: ?|event:|id: |: |x|\u{feff})?[a-z{}\u{e9}]{0,6}(\n|\r|\r\n){1,3}", 0..24),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let stream = lines.concat().into_bytes();
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        at.extend([0, stream.len()]);
        at.sort_unstable();
        let pieces: Vec<&[u8]> = at.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect();
        let whole = events(&[&stream]).unwrap();
        prop_assert_eq!(&events(&pieces).unwrap(), &whole);
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        prop_assert_eq!(&events(&bytes).unwrap(), &whole);
    }
}
