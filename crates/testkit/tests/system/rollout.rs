//! Staged rollouts with live edges: the leader's own task, the real state, edges over loopback.

use std::time::Duration;

use tidegate_proto::Kind;
use tidegate_proto::v1::{Change, Rollout, RolloutStage, command};
use tidegate_testkit::control::{Body, Following, FollowingEdge, id, until};
use tidegate_testkit::{Topology, chat};

fn two() -> Following {
    Topology::new().provider("a", |_| {}).provider("b", |p| p.price = "2".into()).under_control()
}

async fn ask(edge: &FollowingEdge) -> u16 {
    edge.post("/v1/chat/completions", &chat("m", "hello")).await.status
}

/// The rollout of a revision, once it is in this stage.
async fn until_stage(following: &Following, revision: u64, stage: RolloutStage) -> Rollout {
    until(|| {
        let state = following.node.published().load();
        let found = state.rollouts().iter().find(|rollout| rollout.revision == revision && rollout.stage() == stage);
        found.map(|rollout| rollout.as_ref().clone())
    })
    .await
}

fn refusals(edge: &FollowingEdge) -> f64 {
    edge.metric("tidegate_edge_refused_revisions_total", &[("stage", "compile")])
}

#[tokio::test]
async fn a_revision_that_one_edge_refuses_is_taken_back_before_others_see_it() {
    let following = two();
    let edges = [("e1", following.ready_edge("e1").await), ("e2", following.ready_edge("e2").await)];
    let wrong = Body { wrong: Some("blank".to_owned()), ..Body::default() };
    let revision = following.node.put_staged(&[(Kind::Endpoint, "a/m", wrong)]);
    let reverted = until_stage(&following, revision, RolloutStage::Reverted).await;
    let [canary] = reverted.cohort.as_slice() else { panic!("one edge goes first: {reverted:?}") };
    assert!(reverted.note.contains(&format!("edge `{canary}` refused it: blank")), "{reverted:?}");
    for (name, edge) in &edges {
        // With what is agreed now, everything is as it was; the refusal is forgotten.
        let status = following.node.until_applied(name, following.node.index()).await;
        until(|| following.node.edge(name).filter(|status| status.refused.is_none())).await;
        assert!(status.applied >= revision, "{status:?}");
        assert!((refusals(edge) - f64::from(u8::from(name == canary))).abs() < 0.1, "{name} with canary {canary}");
        assert_eq!(ask(edge).await, 200);
    }
    assert!(following.node.published().load().rollouts().running().is_none());
    for (_, edge) in edges {
        edge.edge.shutdown().await;
    }
}

/// No attempt at a provider fails for it, and no status is 5xx: only callers notice.
#[tokio::test]
async fn a_revision_that_callers_suffer_from_is_taken_back() {
    let mut following = Topology::new().model("other").provider("a", |_| {}).under_control();
    // Long enough to be noticed in; its end would be the end of the stage.
    following.link.bake = Duration::from_secs(60);
    following.node.bake(Duration::from_secs(60)).await;
    let edges = [("e1", following.ready_edge("e1").await), ("e2", following.ready_edge("e2").await)];
    let lost = Change { removes: vec![id(Kind::Endpoint, "a/m"), id(Kind::Model, "m")], ..Change::default() };
    let revision = following.node.agree(command::Body::Change(lost));
    let canary = until_stage(&following, revision, RolloutStage::Canary).await.cohort[0].clone();
    following.node.until_applied(&canary, revision).await;
    let attempts = following.sim("a").stats().requests;
    let mut refused = 0;
    let reverted = loop {
        for (name, edge) in &edges {
            for _ in 0..40 {
                let status = ask(edge).await;
                assert!(status == 200 || *name == canary, "{name}: {status}");
                refused += u64::from(status != 200);
            }
        }
        let state = following.node.published().load();
        let found = state.rollouts().iter().find(|rollout| rollout.revision == revision && rollout.stage() == RolloutStage::Reverted);
        if let Some(found) = found {
            break found.as_ref().clone();
        }
        assert!(refused < 20_000, "nobody takes it back: {:?}", state.rollouts().running());
    };
    assert!(reverted.note.contains("requests of callers"), "{reverted:?}");
    let answered = following.sim("a").stats();
    assert!(answered.by_status.keys().all(|status| *status == 200) && answered.requests > attempts, "{answered:?}");
    for (name, edge) in edges {
        following.node.until_applied(name, following.node.index()).await;
        assert_eq!(ask(&edge).await, 200);
        edge.edge.shutdown().await;
    }
}

#[tokio::test]
async fn a_revision_that_works_reaches_every_edge() {
    let following = two();
    let edges = [("e1", following.ready_edge("e1").await), ("e2", following.ready_edge("e2").await)];
    let drained = Body { drained: true, ..Body::default() };
    let revision = following.node.put_staged(&[(Kind::Endpoint, "a/m", drained)]);
    until_stage(&following, revision, RolloutStage::Done).await;
    let before = following.sim("b").stats().requests;
    for (name, edge) in &edges {
        following.node.until_applied(name, following.node.index()).await;
        assert_eq!(ask(edge).await, 200);
    }
    assert_eq!(following.sim("b").stats().requests, before + 2, "the other one is drained everywhere");
    for (_, edge) in edges {
        edge.edge.shutdown().await;
    }
}
