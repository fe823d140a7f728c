//! The SSE parser against a reference that sees the whole body at once and knows nothing of chunks, buffers or offsets:
//! both must deliver the same events, however the bytes are split.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_wire::sse::{Event, SseParser, TooLong};

fuzz_target!(|input: (u16, &[u8])| {
    let (split, body) = input;
    let expected = reference(body);
    assert_eq!(parse(&[body]), expected, "in one piece");
    assert_eq!(parse(&body.chunks(1).collect::<Vec<_>>()), expected, "byte by byte");
    let size = usize::from(split).max(1);
    assert_eq!(parse(&body.chunks(size).collect::<Vec<_>>()), expected, "in pieces of {size}");
});

/// Name, data and id of an event.
type Owned = (Vec<u8>, Vec<u8>, Vec<u8>);

fn parse(chunks: &[&[u8]]) -> Vec<Owned> {
    let mut parser = SseParser::default();
    let mut events = Vec::new();
    let mut keep = |event: Event<'_>| {
        events.push((event.name.to_vec(), event.data.to_vec(), event.id.to_vec()));
        Ok::<(), TooLong>(())
    };
    for chunk in chunks {
        parser.push(chunk, &mut keep).expect("inputs are far below the bound");
    }
    parser.finish(&mut keep).expect("inputs are far below the bound");
    events
}

fn reference(body: &[u8]) -> Vec<Owned> {
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    let mut events = Vec::new();
    let (mut name, mut data, mut id) = (Vec::new(), None::<Vec<u8>>, Vec::new());
    for line in lines(body).chain([&b""[..]]) {
        if line.is_empty() {
            let event = (std::mem::take(&mut name), data.take(), std::mem::take(&mut id));
            if let (name, Some(data), id) = event {
                events.push((name, data, id));
            }
            continue;
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (field, value) = match colon {
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (line, &b""[..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"event" => name = value.to_vec(),
            b"id" => id = value.to_vec(),
            b"data" => match &mut data {
                None => data = Some(value.to_vec()),
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
            },
            _ => {}
        }
    }
    events
}

/// Lines ended by CR, LF or CRLF; an unfinished last line counts.
fn lines(mut body: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        if body.is_empty() {
            return None;
        }
        let end = body.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
        let line = &body[..end.unwrap_or(body.len())];
        body = match end {
            None => b"",
            Some(end) if body[end..].starts_with(b"\r\n") => &body[end + 2..],
            Some(end) => &body[end + 1..],
        };
        Some(line)
    })
}
