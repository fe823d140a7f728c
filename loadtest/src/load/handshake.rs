//! Full TLS handshakes, one after the other.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Plan;
use super::transport::Transport;

/// How long the server may take to close after we did.
const CLOSE: Duration = Duration::from_secs(1);

/// Connects, handshakes, says goodbye and waits for the server to do so, which proves that it has read our last flight.
pub(super) async fn once(plan: &Plan) -> Result<()> {
    let mut transport = Transport::connect(&plan.target, plan.tls.as_ref()).await?;
    transport.shutdown().await.context("close the connection")?;
    let mut rest = [0; 1024];
    let drained = async { while !matches!(transport.read(&mut rest).await, Ok(0) | Err(_)) {} };
    // A server that keeps its side open costs us a second, not the measurement.
    let _ = tokio::time::timeout(CLOSE, drained).await;
    Ok(())
}
