//! Who speaks to whom: said first on every stream and in every call, and checked before anything else is looked at.
//!
//! Addresses are names that come to mean other machines: a pod is rescheduled, a cluster is made anew. Whoever is called by mistake must
//! say so instead of voting.

use tidegate_proto::v1::RaftHello;
use tidegate_runtime::mesh::{Peer, Role};
use tonic::Status;

/// A greeting from this node to another.
pub(crate) fn to(own: &RaftHello, receiver: u64) -> RaftHello {
    RaftHello { receiver, ..own.clone() }
}

/// The identity of a node as it is kept on disk and said in greetings.
pub(crate) fn identity(cluster_id: &str, node_id: u64) -> RaftHello {
    RaftHello { cluster_id: cluster_id.to_owned(), sender: node_id, receiver: 0, format: FORMAT }
}

/// Whether the greeting is for this node.
pub(crate) fn check(own: &RaftHello, greeting: Option<&RaftHello>) -> Result<(), Status> {
    let Some(greeting) = greeting else {
        return Err(Status::invalid_argument("the first message has no greeting"));
    };
    let RaftHello { cluster_id, sender, receiver, format } = greeting;
    let reason = if *format != FORMAT {
        format!("node {sender} speaks format {format} of the protocol, this node format {FORMAT}")
    } else if *cluster_id != own.cluster_id {
        format!("node {sender} is of cluster `{cluster_id}`, this node of cluster `{}`", own.cluster_id)
    } else if *receiver != own.sender {
        format!("node {sender} wants node {receiver}, this is node {}", own.sender)
    } else {
        return Ok(());
    };
    tracing::error!(reason, "refused a node that called this one by mistake");
    Err(Status::failed_precondition(reason))
}

/// Whether the other side of the connection may speak this protocol.
pub(crate) fn check_role<T>(request: &tonic::Request<T>) -> Result<(), Status> {
    match request.extensions().get::<Peer>().and_then(|peer| peer.name.as_ref()) {
        Some(name) if name.role() != Role::Control => {
            tracing::error!(peer = %name, "refused a caller that is no control node");
            Err(Status::permission_denied(format!("{name} is no control node")))
        }
        // Plain connections prove nothing; they are for development and simulation.
        _ => Ok(()),
    }
}

const FORMAT: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_receiver_of_the_right_cluster_listens() {
        let own = identity("north", 3);
        let good = to(&identity("north", 1), 3);
        assert!(check(&own, Some(&good)).is_ok());
        let table = [
            (None, "no greeting"),
            (Some(to(&identity("south", 1), 3)), "of cluster `south`, this node of cluster `north`"),
            (Some(to(&identity("north", 1), 4)), "wants node 4, this is node 3"),
            (Some(RaftHello { format: 2, ..good }), "speaks format 2"),
        ];
        for (greeting, reason) in table {
            let status = check(&own, greeting.as_ref()).unwrap_err();
            assert!(status.message().contains(reason), "{status}");
        }
    }
}
