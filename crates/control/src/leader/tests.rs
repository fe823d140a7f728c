//! Rollouts step by step, and when leadership counts.

use proptest::prelude::*;
use tidegate_proto::v1::{AdvanceRollout, Rollout, RolloutStage, command};

use super::*;

fn rollout(stage: RolloutStage, cohort: &[&str]) -> Rollout {
    let cohort = cohort.iter().map(|name| (*name).to_owned()).collect();
    Rollout { revision: 10, stage: stage.into(), stage_ms: 1_000, stage_index: 12, cohort, ..Rollout::default() }
}

fn edges(per_region: &[(&str, usize)]) -> Vec<EdgeView> {
    let of = |(region, count): &(&str, usize)| {
        let region = (*region).to_owned();
        (0..*count)
            .map(move |number| EdgeView { name: format!("{region}-{number}"), region: region.clone(), applied: 12, ..EdgeView::default() })
            .collect::<Vec<_>>()
    };
    per_region.iter().flat_map(of).collect()
}

fn advanced(step: Step) -> AdvanceRollout {
    match step {
        Step::Do(command::Body::AdvanceRollout(advance), _) => advance,
        other => panic!("does not go on: {other:?}"),
    }
}

fn reverted(step: Step) -> String {
    match step {
        Step::Do(command::Body::RevertRollout(revert), _) => revert.cause,
        other => panic!("does not go back: {other:?}"),
    }
}

#[test]
fn one_edge_per_region_goes_first_then_a_tenth_then_all() {
    let edges = edges(&[("eu", 30), ("us", 5)]);
    let first = advanced(step(&rollout(RolloutStage::Waiting, &[]), &edges, 1_000, BAKE));
    assert_eq!((first.to(), first.cohort.len()), (RolloutStage::Canary, 2));
    let cohort: Vec<&str> = first.cohort.iter().map(String::as_str).collect();
    let canary = rollout(RolloutStage::Canary, &cohort);
    assert_eq!(step(&canary, &edges, 30_999, BAKE), Step::Wait);
    let second = advanced(step(&canary, &edges, 31_000, BAKE));
    assert_eq!((second.to(), second.cohort.len()), (RolloutStage::Tenth, 4));
    assert!(first.cohort.iter().all(|name| second.cohort.contains(name)), "who has it keeps it");
    let cohort: Vec<&str> = second.cohort.iter().map(String::as_str).collect();
    let third = advanced(step(&rollout(RolloutStage::Tenth, &cohort), &edges, 31_000, BAKE));
    assert_eq!(third.to(), RolloutStage::Done);
}

#[test]
fn without_edges_there_is_nothing_to_wait_for() {
    assert_eq!(advanced(step(&rollout(RolloutStage::Waiting, &[]), &[], 1_000, BAKE)).to(), RolloutStage::Done);
}

#[test]
fn a_small_mesh_skips_the_stage_that_would_prove_nothing_new() {
    let edges = edges(&[("eu", 3), ("us", 2)]);
    let canary = rollout(RolloutStage::Canary, &["eu-0", "us-1"]);
    assert_eq!(advanced(step(&canary, &edges, 31_000, BAKE)).to(), RolloutStage::Done);
}

#[test]
fn one_refusal_takes_it_back_at_once() {
    let mut edges = edges(&[("eu", 3)]);
    edges[0].refused = Some((9, "old news".into()));
    let canary = rollout(RolloutStage::Canary, &["eu-0"]);
    assert_eq!(step(&canary, &edges, 1_001, BAKE), Step::Wait, "a refusal of something older");
    edges[0].refused = Some((12, "no such dialect".into()));
    assert_eq!(reverted(step(&canary, &edges, 1_001, BAKE)), "edge `eu-0` refused it: no such dialect");
}

#[test]
fn more_failures_take_it_back_but_only_with_enough_of_them() {
    type Set = fn(&mut EdgeView, Outcomes);
    let judged: [(&str, Set); 2] = [
        ("requests of callers", |edge, outcomes| edge.requests = outcomes),
        ("attempts at providers", |edge, outcomes| edge.attempts = outcomes),
    ];
    for (what, set) in judged {
        let mut edges = edges(&[("eu", 3)]);
        let canary = rollout(RolloutStage::Canary, &["eu-0"]);
        set(&mut edges[0], Outcomes { all: 99, failed: 99 });
        set(&mut edges[1], Outcomes { all: 1_000, failed: 10 });
        assert_eq!(step(&canary, &edges, 2_000, BAKE), Step::Wait, "too few");
        set(&mut edges[0], Outcomes { all: 200, failed: 6 });
        assert_eq!(step(&canary, &edges, 2_000, BAKE), Step::Wait, "3 % here, 1 % there");
        set(&mut edges[0], Outcomes { all: 200, failed: 7 });
        assert_eq!(reverted(step(&canary, &edges, 2_000, BAKE)), format!("2.5 % more {what} fail on edges that have it"));
    }
}

#[test]
fn a_stage_bakes_only_while_it_is_used() {
    let mut edges = edges(&[("eu", 30)]);
    edges[0].applied = 11;
    let canary = rollout(RolloutStage::Canary, &["eu-0"]);
    assert_eq!(step(&canary, &edges, 60_000, BAKE), Step::Wait);
    assert_eq!(reverted(step(&canary, &edges, 121_000, BAKE)), "an edge does not use it after 120 s");
}

#[test]
fn when_the_first_edges_leave_others_try_it() {
    let edges = edges(&[("eu", 30)]);
    let next = advanced(step(&rollout(RolloutStage::Canary, &["gone"]), &edges, 60_000, BAKE));
    assert_eq!((next.to(), next.cohort.len()), (RolloutStage::Tenth, 1));
    assert_eq!(step(&rollout(RolloutStage::Canary, &["gone"]), &[], 60_000, BAKE), Step::Wait);
}

#[test]
fn a_leader_without_a_quorum_does_not_act() {
    let lease = Duration::from_millis(500);
    let leader = Status { role: Role::Leader, millis_since_quorum_ack: Some(499), ..Status::default() };
    assert!(leads(&leader, lease));
    assert!(!leads(&Status { millis_since_quorum_ack: Some(500), ..leader.clone() }, lease));
    assert!(!leads(&Status { millis_since_quorum_ack: None, ..leader.clone() }, lease));
    assert!(!leads(&Status { role: Role::Follower, ..leader.clone() }, lease));
    assert!(!leads(&Status { refusing: Some("disk".into()), ..leader }, lease));
}

proptest! {
    /// However many edges there are: a stage never reaches fewer edges than the one before, every region takes part in each, and it ends.
    #[test]
    fn every_rollout_ends_and_never_shrinks(eu in 0..200usize, us in 0..50usize, ap in 0..3usize) {
        let edges = edges(&[("eu", eu), ("us", us), ("ap", ap)]);
        let mut current = rollout(RolloutStage::Waiting, &[]);
        for _ in 0..4 {
            let next = advanced(step(&current, &edges, current.stage_ms + 30_000, BAKE));
            prop_assert!(next.to() > current.stage());
            if next.to() == RolloutStage::Done {
                return Ok(());
            }
            prop_assert!(current.cohort.iter().all(|name| next.cohort.contains(name)));
            for region in edges.iter().map(|edge| &edge.region) {
                prop_assert!(next.cohort.iter().any(|name| name.starts_with(region.as_str())));
            }
            current = Rollout { stage: next.to, cohort: next.cohort, ..current };
        }
        prop_assert!(false, "no end");
    }
}
