//! What each side says once the handshake is done: "come in", or why not.
//!
//! With TLS 1.3 the dialling side finishes its handshake before its certificate was looked at, and a refusal would reach it as a
//! broken connection some time later. So, under the application protocol [`ALPN_MESH`], the accepting side first sends its verdict,
//! and the dialling side answers with its own in front of its first bytes. It costs one half round trip on connections that live an
//! hour. Other protocols (`h2`, `http/1.1`, for ordinary tools) go without.
//!
//! Wire: one byte `1` for "come in"; or `2`, a length in two bytes (big-endian, at most [`LONGEST`]) and as much UTF-8.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Name and version of this exchange in the TLS handshake.
pub(super) const ALPN_MESH: &[u8] = b"tidegate-mesh/1";

/// Longest text, bytes.
const LONGEST: usize = 1_024;
const COME_IN: u8 = 1;
const REFUSED: u8 = 2;

/// Sends a verdict; `Err` holds the reason.
pub(super) async fn send<W: AsyncWrite + Unpin>(io: &mut W, verdict: Result<(), &str>) -> io::Result<()> {
    match verdict {
        Ok(()) => io.write_all(&[COME_IN]).await?,
        Err(text) => {
            let text = &text.as_bytes()[..text.floor_char_boundary(LONGEST)];
            let mut frame = vec![REFUSED];
            // `LONGEST` fits two bytes.
            frame.extend_from_slice(&(text.len() as u16).to_be_bytes());
            frame.extend_from_slice(text);
            io.write_all(&frame).await?;
        }
    }
    io.flush().await
}

/// Reads the other side's verdict; the inner `Err` holds its reason.
pub(super) async fn read<R: AsyncRead + Unpin>(io: &mut R) -> io::Result<Result<(), String>> {
    match io.read_u8().await? {
        COME_IN => Ok(Ok(())),
        REFUSED => {
            let length = usize::from(io.read_u16().await?);
            if length > LONGEST {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the reason of a refusal is too long"));
            }
            let mut text = vec![0; length];
            io.read_exact(&mut text).await?;
            // It goes into our log and errors: nothing that could pass for another line.
            Ok(Err(String::from_utf8_lossy(&text).replace(char::is_control, " ")))
        }
        other => Err(io::Error::new(io::ErrorKind::InvalidData, format!("{other} is no verdict"))),
    }
}

/// Gives the other side time to read what was sent: a socket that is closed with unread bytes resets the connection, and the reset
/// may overtake the reason. Bounded in time and bytes, as the other side may do neither: leave or listen.
pub(super) async fn linger<S: AsyncRead + AsyncWrite + Unpin>(io: &mut S) {
    let leave = async {
        let _ = io.shutdown().await;
        let mut rest = [0; 512];
        for _ in 0..64 {
            match io.read(&mut rest).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    };
    // What ends it makes no difference: the connection is closed next.
    let _ = tokio::time::timeout(LINGER, leave).await;
}

/// Three round trips around the world.
const LINGER: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    async fn over_the_wire(verdict: Result<(), &str>) -> io::Result<Result<(), String>> {
        let (mut one, mut other) = tokio::io::duplex(4 * LONGEST);
        send(&mut one, verdict).await.unwrap();
        drop(one);
        read(&mut other).await
    }

    #[tokio::test]
    async fn verdicts_arrive_cut_and_cleaned() {
        assert_eq!(over_the_wire(Ok(())).await.unwrap(), Ok(()));
        assert_eq!(over_the_wire(Err("no business\nhere")).await.unwrap(), Err("no business here".to_owned()));
        let long = over_the_wire(Err(&"\u{e9}".repeat(LONGEST))).await.unwrap().unwrap_err();
        assert_eq!(long, "\u{e9}".repeat(LONGEST / 2));
    }

    #[tokio::test]
    async fn what_is_no_verdict_is_an_error() {
        for bytes in [&[][..], &[0], b"H", &[2], &[2, 0, 5, b'a'], &[2, 0xff, 0xff]] {
            assert!(read(&mut &*bytes).await.is_err(), "{bytes:?}");
        }
    }
}
