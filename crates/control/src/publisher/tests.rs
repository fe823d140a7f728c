use tidegate_proto::v1::{Change, Command, CreateKey, KeySecret, Resource, ResourceId, RevokeKeys, command, snapshot};

use super::*;
use crate::state::REMEMBERED_CHANGES;

fn command(body: command::Body) -> Command {
    Command { leader_time_ms: 1_000, actor: "test".to_owned(), body: Some(body), ..Command::default() }
}

fn preset(name: &str, size: usize) -> Resource {
    let id = ResourceId { kind: Kind::Preset.as_str().to_owned(), name: name.to_owned() };
    Resource { id: Some(id), body: vec![b'x'; size].into(), revision: 0 }
}

fn put(upserts: Vec<Resource>) -> Command {
    command(command::Body::Change(Change { upserts, immediate: true, ..Change::default() }))
}

fn key(id: &str) -> Command {
    let secret = KeySecret { digest: blake3::hash(id.as_bytes()).as_bytes().to_vec().into(), ..KeySecret::default() };
    let key = Key { public_id: id.to_owned(), name: id.to_owned(), secrets: vec![secret], ..Key::default() };
    command(command::Body::CreateKey(CreateKey { key: Some(key), ..CreateKey::default() }))
}

fn revoke(id: &str, kill_streams: bool) -> Command {
    command(command::Body::RevokeKeys(RevokeKeys { public_ids: vec![id.to_owned()], kill_streams }))
}

/// A state after these commands, at indices 1, 2, ….
fn state(commands: &[Command]) -> Arc<State> {
    let mut state = State::default();
    for (index, command) in (1..).zip(commands) {
        let reply = state.apply(index, 1, command);
        assert!(matches!(reply.outcome, Some(tidegate_proto::v1::reply::Outcome::Applied(_))), "{reply:?}");
    }
    Arc::new(state)
}

/// Everything that is sent until there is nothing to say.
fn drain(cursor: &mut Cursor, state: &Arc<State>, now_ms: u64) -> Vec<control_message::Body> {
    let mut sent = Vec::new();
    loop {
        match cursor.next(state, now_ms) {
            Step::Send(message) => sent.extend(message.body),
            Step::NeedsSnapshot => cursor.begin_snapshot(state),
            Step::Idle { .. } => return sent,
        }
    }
}

fn at(state: &State) -> Position {
    position(state.applied(), state.digest())
}

#[test]
fn an_edge_with_nothing_gets_a_snapshot_in_small_parts() {
    let state = state(&[put((0..40).map(|number| preset(&format!("p{number:02}"), 4_000)).collect())]);
    let sent = drain(&mut Cursor::resume("e", None, &state), &state, 0);
    let parts: Vec<_> = sent
        .iter()
        .map(|body| match body {
            control_message::Body::Snapshot(snapshot) => snapshot.part.as_ref().unwrap(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(matches!(parts[0], snapshot::Part::Begin(begin) if begin.resources == 40 && begin.index == 1));
    assert!(matches!(parts.last(), Some(snapshot::Part::End(end)) if end.position == Some(at(&state))));
    assert!(parts.len() > 5, "{} parts", parts.len());
    for message in &sent {
        assert!(ControlMessage { body: Some(message.clone()) }.encoded_len() < 40 * 1024);
    }
}

#[test]
fn what_changed_is_sent_once_and_as_it_is_now() {
    let mut commands = vec![put(vec![preset("a", 10), preset("b", 10)])];
    let before = state(&commands);
    commands.push(put(vec![preset("a", 20)]));
    commands.push(put(vec![preset("a", 30)]));
    commands.push(command(command::Body::Change(Change {
        removes: vec![ResourceId { kind: "preset".to_owned(), name: "b".to_owned() }],
        immediate: true,
        ..Change::default()
    })));
    let after = state(&commands);
    let mut cursor = Cursor::resume("e", Some(&at(&before)), &after);
    let sent = drain(&mut cursor, &after, 0);
    let [control_message::Body::Delta(delta)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!((delta.from, delta.to.clone(), delta.more), (1, Some(at(&after)), false));
    assert_eq!(delta.upserts.iter().map(|resource| resource.body.len()).collect::<Vec<_>>(), [30]);
    assert_eq!(delta.removes.len(), 1);
    assert_eq!(cursor.sent(), 4);
}

#[test]
fn a_large_difference_comes_in_parts_that_end_together() {
    let mut commands = vec![put(vec![preset("z", 1)])];
    let before = state(&commands);
    commands.push(put((0..1_500).map(|number| preset(&format!("{number:04}"), 100)).collect()));
    let after = state(&commands);
    let mut cursor = Cursor::resume("e", Some(&at(&before)), &after);
    let sent = drain(&mut cursor, &after, 0);
    let deltas: Vec<_> = sent
        .iter()
        .map(|body| match body {
            control_message::Body::Delta(delta) => delta,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(deltas.len() > 4);
    assert_eq!(deltas.iter().map(|delta| delta.upserts.len()).sum::<usize>(), 1_500);
    assert!(deltas.iter().rev().skip(1).all(|delta| delta.more) && !deltas.last().unwrap().more);
}

#[test]
fn resuming_from_something_else_begins_anew() {
    let state = state(&[put(vec![preset("a", 10)])]);
    for resume in [Position { digest: vec![7; 16].into(), ..at(&state) }, Position { digest: Bytes::new(), ..at(&state) }] {
        let mut cursor = Cursor::resume("e", Some(&resume), &state);
        assert!(matches!(cursor.next(&state, 0), Step::NeedsSnapshot), "{resume:?}");
    }
    let mut cursor = Cursor::resume("e", Some(&at(&state)), &state);
    assert!(matches!(cursor.next(&state, 0), Step::Send(message) if matches!(message.body, Some(control_message::Body::Bookmark(_)))));
}

#[test]
fn an_edge_that_is_ahead_of_this_node_gets_signs_of_life_only() {
    let mut commands = vec![put(vec![preset("a", 10)]), put(vec![preset("b", 10)])];
    let (behind, ahead) = (state(&commands[..1]), state(&commands));
    let mut cursor = Cursor::resume("e", Some(&at(&ahead)), &behind);
    let sent = drain(&mut cursor, &behind, 0);
    assert!(matches!(&sent[..], [control_message::Body::Bookmark(bookmark)] if bookmark.at == Some(at(&behind))), "{sent:?}");
    commands.push(put(vec![preset("c", 10)]));
    let caught_up = state(&commands);
    let sent = drain(&mut cursor, &caught_up, 1);
    assert!(matches!(&sent[..], [control_message::Body::Delta(delta)] if delta.from == 2 && delta.upserts.len() == 1), "{sent:?}");
}

#[test]
fn bookmarks_come_every_two_seconds_of_silence() {
    let state = state(&[put(vec![preset("a", 10)])]);
    let mut cursor = Cursor::resume("e", Some(&at(&state)), &state);
    assert_eq!(drain(&mut cursor, &state, 0).len(), 1);
    assert!(matches!(cursor.next(&state, 1_999), Step::Idle { until_ms: 2_000 }));
    assert_eq!(drain(&mut cursor, &state, 2_000).len(), 1);
}

#[test]
fn a_revocation_goes_ahead_of_a_snapshot_that_is_on_its_way() {
    let mut commands = vec![put((0..40).map(|number| preset(&format!("p{number:02}"), 4_000)).collect()), key("k1"), key("k2")];
    let before = state(&commands);
    let mut cursor = Cursor::resume("e", None, &before);
    cursor.begin_snapshot(&before);
    for _ in 0..2 {
        assert!(matches!(cursor.next(&before, 0), Step::Send(_)));
    }
    commands.push(revoke("k1", true));
    let after = state(&commands);
    let Step::Send(message) = cursor.next(&after, 0) else { panic!("nothing to send") };
    let Some(control_message::Body::Revoke(revoke)) = message.body else { panic!("{message:?}") };
    assert_eq!((revoke.public_ids, revoke.index, revoke.kill_streams), (vec!["k1".to_owned()], 4, true));
    let rest = drain(&mut cursor, &after, 0);
    assert!(matches!(&rest[rest.len() - 1], control_message::Body::Delta(delta) if delta.from == 3 && delta.removes.len() == 1));
    assert!(!rest.iter().any(|body| matches!(body, control_message::Body::Revoke(_))), "it is sent once");
}

#[test]
fn revocations_with_and_without_cutting_are_not_mixed() {
    let mut commands = vec![key("a"), key("b"), key("c")];
    let before = state(&commands);
    commands.extend([revoke("a", false), revoke("b", true), revoke("c", true)]);
    let after = state(&commands);
    let mut cursor = Cursor::resume("e", Some(&at(&before)), &after);
    let revokes: Vec<_> = drain(&mut cursor, &after, 0)
        .into_iter()
        .filter_map(|body| match body {
            control_message::Body::Revoke(revoke) => Some((revoke.public_ids, revoke.kill_streams, revoke.index)),
            _ => None,
        })
        .collect();
    assert_eq!(revokes, [(vec!["a".to_owned()], false, 4), (vec!["b".to_owned(), "c".to_owned()], true, 6)]);
}

#[test]
fn a_key_that_was_made_and_revoked_meanwhile_is_revoked_as_of_its_revocation() {
    let mut commands = vec![put(vec![preset("a", 10)])];
    let before = state(&commands);
    commands.extend([key("k"), revoke("k", true)]);
    let after = state(&commands);
    let sent = drain(&mut Cursor::resume("e", Some(&at(&before)), &after), &after, 0);
    let control_message::Body::Revoke(revoke) = &sent[0] else { panic!("{sent:?}") };
    assert_eq!((revoke.index, revoke.kill_streams), (3, true));
    assert!(!sent[1..].iter().any(|body| matches!(body, control_message::Body::Revoke(_))));
}

#[test]
fn an_edge_that_was_away_too_long_gets_a_snapshot() {
    let mut state = State::default();
    state.apply(1, 1, &put(vec![preset("a", 1)]));
    let held = at(&state);
    for index in 0..=(REMEMBERED_CHANGES as u64 / 1_000) {
        let upserts = (0..1_000).map(|number| preset(&number.to_string(), 1 + index as usize)).collect();
        state.apply(2 + index, 1, &put(upserts));
    }
    let state = Arc::new(state);
    let mut cursor = Cursor::resume("e", Some(&held), &state);
    assert!(matches!(cursor.next(&state, 0), Step::NeedsSnapshot));
}

#[tokio::test]
async fn whoever_waits_for_a_revocation_is_told_who_has_not_confirmed() {
    let followers = Followers::default();
    let introduction = |edge: &str| Introduction {
        edge: edge.to_owned(),
        region: String::new(),
        build: String::new(),
        address: String::new(),
        instance: 1,
    };
    let (one, two) = (followers.join(introduction("one"), 0), followers.join(introduction("two"), 0));
    let ack = tidegate_proto::v1::Ack { revoked: 7, ..Default::default() };
    followers.acknowledged(&one, ack, 0);
    assert_eq!(followers.revoked(7, std::time::Duration::from_millis(1)).await, ["two"]);
    let waiting = followers.revoked(7, std::time::Duration::from_secs(60));
    let confirming = async { followers.acknowledged(&two, ack, 0) };
    assert!(tokio::join!(waiting, confirming).0.is_empty());
    followers.leave(&one, 0);
    assert_eq!(followers.len(), 1);
}
