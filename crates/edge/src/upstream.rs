//! The way to a provider: origins, connections, and one request over them.
//!
//! Every worker thread has its own [`Pool`], so that taking and returning a connection never crosses threads. There is no retry and no
//! choice here: the plan decides where the next attempt goes. The one exception is a kept-alive connection that the provider closed
//! while we were writing to it; that says nothing about the provider, and the request goes out once more on a fresh connection.

mod address;
mod body;
mod connect;
mod http1;
mod origin;
mod outgoing;
mod pool;

pub(crate) use body::{ResponseBody, SegmentBody};
pub(crate) use http1::{Broken, Head};
pub(crate) use origin::Origin;
pub(crate) use outgoing::Outgoing;
pub(crate) use pool::{Pool, SendError};
