//! Gets a command agreed on, from whichever node it was given to.
//!
//! The leader stamps the time. A node that does not lead passes the command on; while nobody leads, or the outcome is not known, it tries
//! again under the same request id, which makes that safe.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use thiserror::Error;
use tidegate_consensus::{Member, ProposeError, Role};
use tidegate_proto::v1::{Applied, Command, Committed, NotLeading, Outdated, Proposed, Refused, Reply, proposed, reply};
use tidegate_runtime::Clock;
use tokio::time::{Instant, timeout_at};

use crate::agreement::Agreement;
use crate::published::Published;
use crate::relay::Peers;

/// Longest time for one command: two elections of the continental profile.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest time that this node waits to have applied what the leader has.
const CATCH_UP: Duration = Duration::from_secs(2);
/// Pause before a command is tried again while nothing changed.
const PAUSE: Duration = Duration::from_millis(100);

/// Why a command did not take effect, or may not have.
#[derive(Debug, Error)]
pub enum SubmitError {
    /// The state refused it.
    #[error("{}", .0.message)]
    Refused(Refused),
    /// Nobody leads, or the leader cannot be reached; nothing was done.
    #[error("no control node leads: {0}")]
    NoLeader(String),
    /// It may have taken effect. Asking again under the same request id tells.
    #[error("the outcome is not known yet: {0}")]
    Unknown(String),
    /// This node takes no commands.
    #[error("this node takes no commands: {0}")]
    Stopped(String),
    /// The leader is older than this node and would have lost a part of it; nothing was done.
    #[error(
        "the leader, control node `{}` of version {}, does not know all that this command says, and nothing was done: upgrade it, or \
         `tidegate control transfer-leader` to a node of this version", .0.node, .0.build
    )]
    Outdated(Outdated),
}

/// Clones share everything.
#[derive(Clone)]
pub struct Proposer {
    agreement: Agreement,
    published: Published,
    peers: Arc<Peers>,
    clock: Clock,
}

impl Proposer {
    /// A proposer for this node.
    pub fn new(agreement: Agreement, published: Published, peers: Arc<Peers>, clock: Clock) -> Proposer {
        Proposer { agreement, published, peers, clock }
    }

    /// What orders the commands.
    pub fn agreement(&self) -> &Agreement {
        &self.agreement
    }

    /// Gets a command agreed on. When it returns, this node has applied it, unless it lags behind for longer than two seconds.
    ///
    /// # Errors
    /// See [`SubmitError`]; a command without a request id that met `Unknown` must not be tried again.
    pub async fn submit(&self, command: Command) -> Result<Applied, SubmitError> {
        let deadline = Instant::now() + PATIENCE;
        let mut status = self.agreement.watch_status();
        let repeatable = !command.request_id.is_empty();
        let mut unknown = false;
        loop {
            // A status that changes while we ask is seen below.
            status.mark_unchanged();
            let last = match self.once(command.clone()).await {
                Outcome::Done(index, reply) => return self.answered(index, reply).await,
                Outcome::Stopped(why) => return Err(SubmitError::Stopped(why)),
                Outcome::Outdated(node) => return Err(SubmitError::Outdated(node)),
                Outcome::Unknown(why) if !repeatable => return Err(SubmitError::Unknown(why)),
                Outcome::Unknown(why) => {
                    unknown = true;
                    why
                }
                Outcome::NoLeader(why) => why,
            };
            if Instant::now() + PAUSE >= deadline {
                return Err(if unknown { SubmitError::Unknown(last) } else { SubmitError::NoLeader(last) });
            }
            // The pause also bounds how often a leader that is not one is asked. A closed channel ends in `Stopped` above.
            tokio::time::sleep(PAUSE).await;
            if self.agreement.status().leader.is_none() {
                let _ = timeout_at(deadline, status.changed()).await;
            }
        }
    }

    async fn answered(&self, index: u64, reply: Reply) -> Result<Applied, SubmitError> {
        let mut status = self.agreement.watch_status();
        // Dropping either wait is safe: both are levels. A node that stops applies nothing more, and must not keep its caller.
        tokio::select! {
            waited = tokio::time::timeout(CATCH_UP, self.published.reached(index)) => if waited.is_err() {
                tracing::debug!(index, "this node has not applied what the leader has");
            },
            _ = status.wait_for(|status| status.role == Role::Stopped) => {}
        }
        match reply.outcome {
            Some(reply::Outcome::Applied(applied)) => Ok(applied),
            Some(reply::Outcome::Refused(refused)) => Err(SubmitError::Refused(refused)),
            None => Err(SubmitError::Unknown("the answer of the state is empty".to_owned())),
        }
    }

    async fn once(&self, command: Command) -> Outcome {
        let status = self.agreement.status();
        if status.role == Role::Leader || status.leader == Some(status.node_id) {
            match self.here(command.clone()).await {
                Here::Done(committed) => return Outcome::Done(committed.index, committed.reply.unwrap_or_default()),
                Here::NotLeader(Some(leader)) => return self.there(&leader.instance.address, command).await,
                Here::NotLeader(None) => return Outcome::NoLeader("this node has just lost the lead".to_owned()),
                Here::Unknown => return Outcome::Unknown("the leader changed".to_owned()),
                Here::Refused(why) | Here::Stopped(why) => return Outcome::Stopped(why),
            }
        }
        match status.leader_member() {
            Some(leader) => self.there(&leader.instance.address, command).await,
            None if status.cluster_id.is_empty() => {
                Outcome::Stopped("it belongs to no cluster yet: `tidegate control init` or `join`".to_owned())
            }
            None => Outcome::NoLeader("no leader is known; an election may be on its way".to_owned()),
        }
    }

    async fn there(&self, address: &str, command: Command) -> Outcome {
        let outcome = match self.peers.propose(address, command).await {
            Ok(proposed) => proposed.outcome,
            Err(status) if status.code() == tonic::Code::Unavailable => {
                return Outcome::NoLeader(format!("the leader at {address} cannot be reached: {}", status.message()));
            }
            Err(status) => return Outcome::Unknown(format!("the leader at {address} did not answer: {}", status.message())),
        };
        match outcome {
            Some(proposed::Outcome::Committed(committed)) => Outcome::Done(committed.index, committed.reply.unwrap_or_default()),
            Some(proposed::Outcome::NotLeading(_)) => Outcome::NoLeader(format!("{address} does not lead any more")),
            Some(proposed::Outcome::Refused(why)) => Outcome::Stopped(why),
            Some(proposed::Outcome::Unknown(why)) => Outcome::Unknown(why),
            Some(proposed::Outcome::Outdated(node)) => Outcome::Outdated(node),
            None => Outcome::Unknown(format!("{address} answered something that this version does not know")),
        }
    }

    /// Proposes on this node or not at all.
    ///
    /// # Errors
    /// As [`Proposer::submit`], but at once.
    pub async fn here_only(&self, command: Command) -> Result<(), SubmitError> {
        match self.here(command).await {
            Here::Done(Committed { reply: Some(Reply { outcome: Some(reply::Outcome::Refused(refused)) }), .. }) => {
                Err(SubmitError::Refused(refused))
            }
            Here::Done(_) => Ok(()),
            Here::NotLeader(_) => Err(SubmitError::NoLeader("this node does not lead".to_owned())),
            Here::Unknown => Err(SubmitError::Unknown("the leader changed".to_owned())),
            Here::Refused(why) | Here::Stopped(why) => Err(SubmitError::Stopped(why)),
        }
    }

    /// Proposes on this node, for another node that took it for the leader.
    pub(crate) async fn for_peer(&self, command: Command) -> Proposed {
        let outcome = match self.here(command).await {
            Here::Done(committed) => proposed::Outcome::Committed(committed),
            Here::NotLeader(leader) => {
                let leader_address = leader.map(|leader| leader.instance.address).unwrap_or_default();
                proposed::Outcome::NotLeading(NotLeading { leader_address })
            }
            Here::Unknown => proposed::Outcome::Unknown("the leader changed".to_owned()),
            Here::Refused(why) | Here::Stopped(why) => proposed::Outcome::Refused(why),
        };
        Proposed { outcome: Some(outcome) }
    }

    async fn here(&self, mut command: Command) -> Here {
        command.leader_time_ms = self.clock.unix_millis();
        match self.agreement.propose(command.encode_to_vec().into()).await {
            Ok(committed) => match Reply::decode(committed.response) {
                Ok(reply) => Here::Done(Committed { index: committed.index, term: committed.term, reply: Some(reply) }),
                Err(_) => Here::Unknown,
            },
            Err(ProposeError::NotLeader { leader }) => Here::NotLeader(leader),
            Err(ProposeError::Unknown) => Here::Unknown,
            Err(ProposeError::Refused(why)) => Here::Refused(why),
            Err(ProposeError::Stopped(why)) => Here::Stopped(why),
        }
    }
}

enum Here {
    Done(Committed),
    NotLeader(Option<Member>),
    Unknown,
    Refused(String),
    Stopped(String),
}

enum Outcome {
    Done(u64, Reply),
    NoLeader(String),
    Unknown(String),
    Stopped(String),
    Outdated(Outdated),
}
