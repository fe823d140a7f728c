//! Server-sent events: an incremental parser that borrows from the chunk it is fed.
//!
//! Follows the event stream format of the HTML standard (any of CR, LF and CRLF ends a line, comments, multi-line data, a
//! leading byte order mark), with two differences: an event has a size bound, and an event that the end of the body leaves
//! without its blank line is still delivered by [`SseParser::finish`], because several vendors end with `data: [DONE]` and
//! nothing after it. Events that lie within one chunk are not copied.

/// Largest event in bytes, its field names included.
pub const MAX_EVENT: usize = 1 << 20;

/// One event with data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// The `event` field; empty when absent, which means `message`.
    pub name: &'a [u8],
    /// The `data` lines, joined by line feeds.
    pub data: &'a [u8],
    /// The `id` field; empty when absent.
    pub id: &'a [u8],
}

/// An event outgrew [`MAX_EVENT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stream event is larger than {MAX_EVENT} bytes")]
pub struct TooLong;

/// The parser's state between two chunks.
#[derive(Debug, Default)]
pub struct SseParser {
    /// The start of an event whose end has not come yet.
    pending: Vec<u8>,
    /// How far `pending` has been searched.
    progress: Progress,
    /// The last chunk ended with CR: a leading LF of the next belongs to it.
    after_cr: bool,
    /// The first block has been seen, so no byte order mark can follow.
    started: bool,
    /// Data of an event with several data lines.
    joined: Vec<u8>,
}

/// Offsets within the event being read.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    line_start: usize,
    searched: usize,
}

impl SseParser {
    /// Reads a chunk and hands over every event that it completes. Stops at the first error of `on_event`.
    pub fn push<E: From<TooLong>>(&mut self, mut chunk: &[u8], mut on_event: impl FnMut(Event<'_>) -> Result<(), E>) -> Result<(), E> {
        if chunk.is_empty() {
            return Ok(());
        }
        if std::mem::take(&mut self.after_cr) && chunk[0] == b'\n' {
            chunk = &chunk[1..];
        }
        if self.pending.is_empty() {
            let consumed = self.blocks(chunk, &mut on_event)?;
            self.pending.extend_from_slice(&chunk[consumed..]);
        } else {
            let mut buffer = std::mem::take(&mut self.pending);
            buffer.extend_from_slice(chunk);
            let consumed = self.blocks(&buffer, &mut on_event)?;
            buffer.drain(..consumed);
            self.pending = buffer;
        }
        if self.pending.len() > MAX_EVENT { Err(TooLong.into()) } else { Ok(()) }
    }

    /// The body has ended: hands over what an unfinished last event holds.
    pub fn finish<E>(&mut self, mut on_event: impl FnMut(Event<'_>) -> Result<(), E>) -> Result<(), E> {
        let rest = std::mem::take(&mut self.pending);
        self.progress = Progress::default();
        self.block(&rest, &mut on_event)
    }

    /// Delivers the complete events of `buffer`; gives the length of what they cover.
    fn blocks<E: From<TooLong>>(&mut self, buffer: &[u8], on_event: &mut impl FnMut(Event<'_>) -> Result<(), E>) -> Result<usize, E> {
        let mut start = 0;
        let Progress { mut line_start, mut searched } = self.progress;
        while let Some(index) = memchr::memchr2(b'\n', b'\r', &buffer[searched..]) {
            let line_end = searched + index;
            let mut next = line_end + 1;
            if buffer[line_end] == b'\r' {
                match buffer.get(next) {
                    Some(b'\n') => next += 1,
                    Some(_) => {}
                    None => self.after_cr = true,
                }
            }
            if line_end == line_start {
                if line_start - start > MAX_EVENT {
                    return Err(TooLong.into());
                }
                self.block(&buffer[start..line_start], on_event)?;
                start = next;
            }
            line_start = next;
            searched = next;
        }
        self.progress = Progress { line_start: line_start - start, searched: buffer.len() - start };
        Ok(start)
    }

    /// Delivers the event of one block of lines, if it has data.
    fn block<E>(&mut self, mut block: &[u8], on_event: &mut impl FnMut(Event<'_>) -> Result<(), E>) -> Result<(), E> {
        if !std::mem::replace(&mut self.started, true) {
            block = block.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(block);
        }
        let mut name: &[u8] = b"";
        let mut id: &[u8] = b"";
        let mut data: Option<&[u8]> = None;
        let mut several = false;
        while !block.is_empty() {
            let line = next_line(&mut block);
            if let Some(value) = field(line, b"data") {
                match data {
                    None => data = Some(value),
                    Some(first) => {
                        if !several {
                            several = true;
                            self.joined.clear();
                            self.joined.extend_from_slice(first);
                        }
                        self.joined.push(b'\n');
                        self.joined.extend_from_slice(value);
                    }
                }
            } else if let Some(value) = field(line, b"event") {
                name = value;
            } else if let Some(value) = field(line, b"id") {
                id = value;
            }
        }
        match data {
            None => Ok(()),
            Some(_) if several => on_event(Event { name, data: &self.joined, id }),
            Some(data) => on_event(Event { name, data, id }),
        }
    }
}

fn next_line<'a>(block: &mut &'a [u8]) -> &'a [u8] {
    let whole = *block;
    let Some(end) = memchr::memchr2(b'\n', b'\r', whole) else {
        *block = b"";
        return whole;
    };
    let crlf = whole[end..].starts_with(b"\r\n");
    *block = &whole[end + 1 + usize::from(crlf)..];
    &whole[..end]
}

/// The value of a line whose field has this name. One space after the colon is not part of it.
fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    match line.strip_prefix(name)? {
        [] => Some(b""),
        [b':', b' ', value @ ..] | [b':', value @ ..] => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
