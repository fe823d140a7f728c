use tidegate_proto::v1::{KeySecret, SnapshotBegin, SnapshotChunk, SnapshotEnd};

use super::*;
use crate::config::KeyPolicy;

fn replica() -> Replica {
    let read: ReadPolicy = Arc::new(|text| if text == b"bad" { Err("not a policy".to_owned()) } else { Ok(KeyPolicy::default()) });
    Replica::new(None, read)
}

fn id(kind: Kind, name: &str) -> ResourceId {
    ResourceId { kind: kind.as_str().to_owned(), name: name.to_owned() }
}

fn model(name: &str, revision: u64) -> Resource {
    Resource { id: Some(id(Kind::Model, name)), body: "{}".into(), revision }
}

fn key(name: &str, policy: &'static str, revision: u64) -> Resource {
    let secret = KeySecret { digest: crate::auth::digest(name, None).to_vec().into(), ..KeySecret::default() };
    let key = Key { public_id: name.to_owned(), secrets: vec![secret], policy: policy.into(), ..Key::default() };
    Resource { id: Some(id(Kind::Key, name)), body: key.encode_to_vec().into(), revision }
}

fn position(index: u64, resources: &[Resource]) -> Position {
    let mut digest = Digest::default();
    for resource in resources {
        digest.add(resource.id.as_ref().unwrap(), resource.revision);
    }
    Position { index, digest: digest.to_bytes().to_vec().into() }
}

fn begin(index: u64) -> Snapshot {
    Snapshot { part: Some(snapshot::Part::Begin(SnapshotBegin { index, ..SnapshotBegin::default() })) }
}

fn chunk(resources: &[Resource]) -> Snapshot {
    Snapshot { part: Some(snapshot::Part::Chunk(SnapshotChunk { resources: resources.to_vec() })) }
}

fn end(position: Position) -> Snapshot {
    Snapshot { part: Some(snapshot::Part::End(SnapshotEnd { position: Some(position) })) }
}

/// A replica that took this in as a snapshot.
fn holding(index: u64, resources: &[Resource]) -> Replica {
    let mut replica = replica();
    replica.snapshot(begin(index)).unwrap();
    replica.snapshot(chunk(resources)).unwrap();
    let taken = replica.snapshot(end(position(index, resources))).unwrap();
    assert!(taken.current && taken.keys);
    replica
}

fn delta(from: u64, to: Position, upserts: Vec<Resource>, removes: Vec<ResourceId>) -> Delta {
    Delta { from, to: Some(to), upserts, removes, ..Delta::default() }
}

#[test]
fn nothing_of_a_snapshot_shows_before_its_end() {
    let mut replica = replica();
    let resources = [model("m", 1), key("k", "", 2)];
    replica.snapshot(begin(5)).unwrap();
    assert_eq!(replica.snapshot(chunk(&resources)).unwrap(), Taken::default());
    assert!(!replica.serves("k") && replica.position().is_none() && replica.mesh().is_empty());
    replica.disconnected();
    assert!(replica.snapshot(end(position(5, &resources))).is_err(), "what came before the interruption is gone");
    let replica = holding(5, &resources);
    assert!(replica.serves("k"));
    assert_eq!((replica.index(), replica.position()), (5, Some(position(5, &resources))));
}

#[test]
fn a_difference_with_another_digest_changes_nothing_and_asks_for_everything() {
    let mut replica = holding(5, &[model("m", 1), key("k", "", 2)]);
    let wrong = Position { digest: vec![1; 16].into(), ..position(6, &[]) };
    let error = replica.delta(delta(5, wrong, vec![], vec![id(Kind::Key, "k")])).unwrap_err();
    assert!(matches!(error, Divergence::Digest { index: 6, .. }));
    assert!(replica.serves("k") && replica.position().is_none());
    assert_eq!(replica.index(), 5);
}

#[test]
fn a_gap_and_a_snapshot_of_the_past_are_refused() {
    let resources = [model("m", 1)];
    let mut ours = holding(5, &resources);
    assert!(matches!(ours.delta(delta(4, position(6, &resources), vec![], vec![])), Err(Divergence::Gap { from: 4, held: Some(5) })));
    assert!(matches!(ours.snapshot(begin(4)), Err(Divergence::Behind { index: 4, floor: 5 })));
    assert!(ours.snapshot(begin(5)).is_ok(), "the same again is no step back");
}

#[test]
fn parts_of_a_difference_count_together() {
    let (m, k) = (model("m", 1), key("k", "", 2));
    let mut replica = holding(5, std::slice::from_ref(&m));
    let to = position(9, &[m.clone(), model("n", 8), k.clone()]);
    let first = Delta { more: true, ..delta(5, to.clone(), vec![model("n", 8)], vec![]) };
    assert_eq!(replica.delta(first.clone()).unwrap(), Taken::default());
    assert_eq!(replica.index(), 5);
    // Sent anew from its beginning, up to a later index.
    let later = position(10, &[m, model("n", 10), k.clone()]);
    let taken = replica.delta(delta(5, later, vec![model("n", 10), k], vec![])).unwrap();
    assert!(taken.mesh && taken.keys && taken.current);
    assert_eq!(replica.index(), 10);
}

#[test]
fn a_bookmark_moves_the_index_on_or_finds_a_divergence() {
    let resources = [model("m", 1)];
    let mut replica = holding(5, &resources);
    let bookmark = |at| Bookmark { at: Some(at), ..Bookmark::default() };
    assert!(replica.bookmark(&bookmark(position(7, &resources))).unwrap().current);
    assert_eq!(replica.position(), Some(position(7, &resources)));
    assert!(!replica.bookmark(&bookmark(position(6, &[]))).unwrap().current, "of a node that is behind");
    assert_eq!(replica.index(), 7);
    assert!(replica.bookmark(&bookmark(position(8, &[]))).is_err());
}

#[test]
fn a_key_that_cannot_be_used_is_part_of_the_state_all_the_same() {
    let bad = key("bad-key", "bad", 3);
    let mut replica = replica();
    replica.snapshot(begin(5)).unwrap();
    let taken = replica.snapshot(chunk(std::slice::from_ref(&bad))).unwrap();
    assert_eq!(taken.unusable, [("bad-key".to_owned(), "not a policy".to_owned())]);
    replica.snapshot(end(position(5, &[bad]))).unwrap();
    assert!(!replica.serves("bad-key"));
    let better = key("bad-key", "", 6);
    replica.delta(delta(5, position(6, std::slice::from_ref(&better)), vec![better], vec![])).unwrap();
    assert!(replica.serves("bad-key"));
}

#[test]
fn a_revocation_holds_at_once_and_over_a_snapshot_that_is_older() {
    let k = key("k", "", 2);
    let mut replica = holding(5, std::slice::from_ref(&k));
    let revoke = Revoke { public_ids: vec!["k".to_owned()], index: 8, kill_streams: true, leader_time_ms: 0 };
    replica.snapshot(begin(7)).unwrap();
    replica.snapshot(chunk(std::slice::from_ref(&k))).unwrap();
    let taken = replica.revoke(&revoke);
    assert!(taken.keys && taken.cut == ["k"]);
    assert!(!replica.serves("k"));
    replica.snapshot(end(position(7, std::slice::from_ref(&k)))).unwrap();
    assert!(!replica.serves("k"), "the snapshot is of before the revocation");
    assert_eq!(replica.newest_revocation(), 8);
    replica.snapshot(begin(7)).unwrap();
    replica.snapshot(chunk(std::slice::from_ref(&k))).unwrap();
    replica.snapshot(end(position(7, std::slice::from_ref(&k)))).unwrap();
    assert!(!replica.serves("k"), "also when all of it comes after");
    let again = key("k", "", 9);
    replica.delta(delta(7, position(9, std::slice::from_ref(&again)), vec![again], vec![])).unwrap();
    assert!(replica.serves("k"), "a key that was made anew is another one");
}

#[test]
fn what_was_kept_goes_on_where_it_was() {
    let resources = [model("m", 1), key("k", "", 2)];
    let kept = |position| Restored {
        position,
        floor: 5,
        mesh: vec![resources[0].clone()],
        keys: vec![resources[1].clone()],
        newest_revocation: 3,
    };
    let mut ours = replica();
    ours.restore(kept(Some(position(5, &resources))));
    assert!(ours.serves("k"));
    assert_eq!(ours.position(), Some(position(5, &resources)));
    let mut other = replica();
    other.restore(kept(Some(position(5, &[]))));
    assert!(other.serves("k") && other.position().is_none(), "served, but not trusted to be the same");
}
