//! A hand-written relay on tokio and httparse: what the machine allows when bytes are forwarded as they come.
//!
//! Heads are parsed only for the framing, bodies are never re-framed, upstream connections are pooled per thread. It has no
//! features, checks nothing, and trusts both ends.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use anyhow::{Result, bail};
use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::http1::{BodyReader, Framing, Head};
use crate::serve;

/// Room for the usual request or answer in one read.
const BUFFER: usize = 16 * 1024;
/// Room for one read of a large body.
const LARGE_BUFFER: usize = 256 * 1024;

/// Arguments of `raw`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Address to listen on; port 0 picks a free one, which is printed.
    #[arg(long, default_value = "127.0.0.1:9300", value_parser = crate::loopback::address)]
    pub(crate) listen: SocketAddr,
    /// Address of the upstream.
    #[arg(long, default_value = "127.0.0.1:9100", value_parser = crate::loopback::address)]
    pub(crate) upstream: SocketAddr,
    /// Threads; one per core when not given.
    #[arg(long)]
    pub(crate) threads: Option<usize>,
}

/// Idle upstream connections of one thread; bounded by the number of downstream connections that ever were busy at once.
type Pool = RefCell<Vec<TcpStream>>;

/// Serves until the process ends.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let upstream = arguments.upstream;
    serve::per_core(arguments.listen, serve::threads(arguments.threads), Pool::default, move |stream, pool| async move {
        // Either end may leave at any time; closing the other is all there is to do.
        let _ = connection(stream, &pool, upstream).await;
    })
}

async fn connection(mut downstream: TcpStream, pool: &Rc<Pool>, address: SocketAddr) -> Result<()> {
    let mut request = BytesMut::with_capacity(BUFFER);
    let mut response = BytesMut::with_capacity(BUFFER);
    loop {
        let Some(head) = read_head(&mut downstream, &mut request, |bytes| Ok(Head::request(bytes)?.map(|(head, _)| head))).await? else {
            return Ok(());
        };
        let pooled = pool.borrow_mut().pop();
        let mut upstream = match pooled {
            Some(upstream) => upstream,
            None => {
                let upstream = TcpStream::connect(address).await?;
                upstream.set_nodelay(true)?;
                upstream
            }
        };
        forward(&mut downstream, &mut upstream, &mut request, head).await?;
        let Some(answer) = read_head(&mut upstream, &mut response, Head::response).await? else {
            bail!("upstream closed before its answer");
        };
        forward(&mut upstream, &mut downstream, &mut response, answer).await?;
        if head.keep_alive && answer.keep_alive && response.is_empty() {
            pool.borrow_mut().push(upstream);
        }
        if !head.keep_alive || !answer.keep_alive {
            return Ok(());
        }
    }
}

async fn read_head(from: &mut TcpStream, buffer: &mut BytesMut, parse: impl Fn(&[u8]) -> Result<Option<Head>>) -> Result<Option<Head>> {
    loop {
        if !buffer.is_empty()
            && let Some(head) = parse(buffer)?
        {
            return Ok(Some(head));
        }
        buffer.reserve(BUFFER);
        if from.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

/// Forwards a message whose head is at the start of `buffer`: one write for each read.
async fn forward(from: &mut TcpStream, to: &mut TcpStream, buffer: &mut BytesMut, head: Head) -> Result<()> {
    let mut body = BodyReader::new(head.framing);
    let mut ready = head.length + body.feed(&buffer[head.length..], |_| {})?;
    loop {
        to.write_all(&buffer[..ready]).await?;
        buffer.advance(ready);
        if body.done() {
            return Ok(());
        }
        // What filled the buffer is likely to go on.
        buffer.reserve(if ready >= BUFFER { LARGE_BUFFER } else { BUFFER });
        if from.read_buf(buffer).await? == 0 {
            if head.framing == Framing::UntilClose {
                return Ok(());
            }
            bail!("connection ended inside a body");
        }
        ready = body.feed(buffer, |_| {})?;
    }
}
