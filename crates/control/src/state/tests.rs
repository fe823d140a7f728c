//! Properties of the state under any sequence of commands, and what each command does.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message as _;
use tidegate_proto::v1::{
    AdvanceRollout, Applied, Change, Command, CreateKey, EditKey, Expire, Key, KeySecret, LiftOverride, MemberMeta, Override,
    OverrideAction, PutCredential, PutMember, PutOverride, RefusalCode, Refused, Reply, Resource, ResourceId, RevertRollout, RevokeKeys,
    RewrapCredentials, RewrappedKey, Rollback, RolloutStage, RotateKey, SealedCredential, command, reply,
};
use tidegate_proto::{Kind, ResourceMap};

use super::*;

fn id(kind: Kind, name: &str) -> ResourceId {
    (&Id::new(kind, name)).into()
}

fn resource(kind: Kind, name: &str, body: &str) -> Resource {
    Resource { id: Some(id(kind, name)), body: Bytes::copy_from_slice(body.as_bytes()), revision: 0 }
}

fn command(body: command::Body) -> Command {
    Command { leader_time_ms: 1_000, actor: "ann".into(), reason: "because".into(), body: Some(body), ..Command::default() }
}

fn change(upserts: &[(Kind, &str, &str)], removes: &[(Kind, &str)], immediate: bool) -> Command {
    command(command::Body::Change(Change {
        upserts: upserts.iter().map(|(kind, name, body)| resource(*kind, name, body)).collect(),
        removes: removes.iter().map(|(kind, name)| id(*kind, name)).collect(),
        immediate,
        ..Change::default()
    }))
}

fn key(public_id: &str) -> Key {
    let secret = KeySecret { digest: vec![7; 32].into(), label: "tg…x".into(), ..KeySecret::default() };
    Key { public_id: public_id.into(), name: public_id.into(), secrets: vec![secret], ..Key::default() }
}

/// A state with a log of its own.
#[derive(Default)]
struct Cluster {
    state: State,
    index: u64,
}

impl Cluster {
    fn send(&mut self, command: &Command) -> Reply {
        self.index += 1;
        self.state.apply(self.index, 1, command)
    }

    #[track_caller]
    fn done(&mut self, command: &Command) -> Applied {
        match self.send(command).outcome {
            Some(reply::Outcome::Applied(applied)) => applied,
            other => panic!("not applied: {other:?}"),
        }
    }

    #[track_caller]
    fn refused(&mut self, command: &Command) -> Refused {
        match self.send(command).outcome {
            Some(reply::Outcome::Refused(refused)) => refused,
            other => panic!("not refused: {other:?}"),
        }
    }

    fn body(&self, kind: Kind, name: &str) -> Option<String> {
        self.state.get(kind, name).map(|resource| String::from_utf8_lossy(&resource.body).into_owned())
    }

    fn body_for(&self, edge: &str, kind: Kind, name: &str) -> Option<String> {
        self.state.for_edge(edge).get(&Id::new(kind, name)).map(|resource| String::from_utf8_lossy(&resource.body).into_owned())
    }

    fn advance(&mut self, from: RolloutStage, to: RolloutStage, cohort: &[&str]) -> Applied {
        let revision = self.state.rollouts().running().unwrap().revision;
        let cohort = cohort.iter().map(|name| (*name).to_owned()).collect();
        let body = AdvanceRollout { revision, from: from.into(), to: to.into(), note: "baked".into(), cohort };
        self.done(&command(command::Body::AdvanceRollout(body)))
    }
}

#[test]
fn a_change_is_one_revision_and_what_is_so_already_is_none() {
    let mut cluster = Cluster::default();
    let both = change(&[(Kind::Model, "a/b", "{}"), (Kind::Preset, "p", "{}")], &[], true);
    assert_eq!(cluster.done(&both), Applied { revision: 1, changed: 2, ..Applied::default() });
    assert_eq!(cluster.done(&both), Applied { revision: 1, changed: 0, ..Applied::default() });
    assert_eq!(cluster.state.history().revisions().count(), 1);
    let gone = change(&[], &[(Kind::Preset, "p")], true);
    assert_eq!(cluster.done(&gone), Applied { revision: 3, changed: 1, ..Applied::default() });
    assert_eq!(cluster.body(Kind::Preset, "p"), None);
}

#[test]
fn a_change_that_expects_another_revision_changes_nothing() {
    let mut cluster = Cluster::default();
    cluster.done(&change(&[(Kind::Model, "a/b", "1")], &[], true));
    let mut late = change(&[(Kind::Model, "a/b", "2")], &[], true);
    let Some(command::Body::Change(body)) = &mut late.body else { unreachable!() };
    body.expected_revision = Some(0);
    let refused = cluster.refused(&late);
    assert_eq!((refused.code(), refused.revision), (RefusalCode::Conflict, 1));
    assert_eq!(cluster.body(Kind::Model, "a/b").as_deref(), Some("1"));
    assert_eq!(cluster.state.applied(), 2);
}

#[test]
fn an_edit_of_a_key_that_has_changed_since_changes_nothing() {
    let mut cluster = Cluster::default();
    let created = cluster.done(&command(command::Body::CreateKey(CreateKey { key: Some(key("k1")), expected_revision: None }))).revision;
    let rename = |name: &str, expected_revision| {
        let name = Some(name.to_owned());
        command(command::Body::EditKey(EditKey { public_id: "k1".into(), name, expected_revision, ..EditKey::default() }))
    };
    // What happens to other things does not matter.
    cluster.done(&change(&[(Kind::Model, "a/b", "1")], &[], true));
    let renamed = cluster.done(&rename("first", Some(created))).revision;
    let refused = cluster.refused(&rename("second", Some(created)));
    assert_eq!((refused.code(), refused.revision), (RefusalCode::Conflict, renamed), "{}", refused.message);
    cluster.done(&rename("third", Some(renamed)));
    cluster.done(&rename("fourth", None));
    let body = cluster.state.get(Kind::Key, "k1").unwrap().body.clone();
    assert_eq!(<Key as prost::Message>::decode(body).unwrap().name, "fourth");
}

#[test]
fn keys_cannot_be_declared() {
    let mut cluster = Cluster::default();
    assert_eq!(cluster.refused(&change(&[(Kind::Key, "k", "{}")], &[], true)).code(), RefusalCode::Malformed);
}

#[test]
fn a_request_sent_again_is_answered_again_and_not_done_again() {
    let mut cluster = Cluster::default();
    let mut create = command(command::Body::CreateKey(CreateKey { key: Some(key("k1")), expected_revision: None }));
    create.request_id = "r-1".into();
    create.request_digest = vec![1; 32].into();
    let first = cluster.done(&create);
    let again = cluster.done(&create);
    assert_eq!(again, Applied { replayed: true, ..first });
    create.request_digest = vec![2; 32].into();
    assert_eq!(cluster.refused(&create).code(), RefusalCode::RequestReused);
    create.request_id = "r-2".into();
    assert_eq!(cluster.refused(&create).code(), RefusalCode::Exists);
}

#[test]
fn only_the_newest_requests_are_remembered() {
    let mut cluster = Cluster::default();
    let numbered = |number: usize| Command {
        request_id: number.to_string(),
        request_digest: vec![1; 32].into(),
        ..command(command::Body::PutMember(PutMember { member: Some(MemberMeta { node_id: 1, ..MemberMeta::default() }) }))
    };
    for number in 0..=REQUESTS_KEPT {
        cluster.done(&numbered(number));
    }
    assert!(cluster.done(&numbered(1)).replayed);
    assert!(!cluster.done(&numbered(0)).replayed);
}

#[test]
fn a_rollback_brings_back_what_was_declared_and_leaves_keys_revoked() {
    let mut cluster = Cluster::default();
    cluster.done(&change(&[(Kind::Model, "a/b", "1")], &[], true));
    cluster.done(&command(command::Body::CreateKey(CreateKey { key: Some(key("k1")), expected_revision: None })));
    cluster.done(&change(&[(Kind::Model, "a/b", "2"), (Kind::Model, "a/c", "1")], &[], true));
    cluster.done(&command(command::Body::RevokeKeys(RevokeKeys { public_ids: vec!["k1".into()], kill_streams: true })));
    cluster.done(&change(&[(Kind::Model, "a/b", "3")], &[], true));
    let applied = cluster.done(&command(command::Body::Rollback(Rollback { to: 2, ..Rollback::default() })));
    assert_eq!(applied, Applied { revision: 6, changed: 2, ..Applied::default() });
    assert_eq!(cluster.body(Kind::Model, "a/b").as_deref(), Some("1"));
    assert_eq!(cluster.body(Kind::Model, "a/c"), None);
    assert_eq!(cluster.body(Kind::Key, "k1"), None);
    let forward = cluster.refused(&command(command::Body::Rollback(Rollback { to: 7, ..Rollback::default() })));
    assert_eq!(forward.code(), RefusalCode::NotFound);
    // And back again: a rollback is a revision like any other.
    cluster.done(&command(command::Body::Rollback(Rollback { to: 5, ..Rollback::default() })));
    assert_eq!(cluster.body(Kind::Model, "a/b").as_deref(), Some("3"));
}

#[test]
fn history_is_bounded_and_says_so() {
    let mut cluster = Cluster::default();
    for number in 0..REVISIONS_KEPT + 2 {
        cluster.done(&change(&[(Kind::Model, "a/b", &number.to_string())], &[], true));
    }
    assert_eq!(cluster.state.history().revisions().count(), REVISIONS_KEPT);
    assert_eq!(cluster.state.history().floor(), 2);
    let too_old = cluster.refused(&command(command::Body::Rollback(Rollback { to: 1, ..Rollback::default() })));
    assert_eq!(too_old.code(), RefusalCode::TooOld);
    cluster.done(&command(command::Body::Rollback(Rollback { to: 2, ..Rollback::default() })));
    assert_eq!(cluster.body(Kind::Model, "a/b").as_deref(), Some("1"));
}

#[test]
fn a_risky_change_reaches_named_edges_first_and_then_everyone() {
    let mut cluster = Cluster::default();
    cluster.done(&change(&[(Kind::Endpoint, "e", "1")], &[], true));
    cluster.done(&change(&[(Kind::Endpoint, "e", "2"), (Kind::Workspace, "w", "1")], &[], false));
    assert_eq!(cluster.body_for("x", Kind::Endpoint, "e").as_deref(), Some("1"), "no edge is named yet");
    assert_eq!(cluster.body_for("x", Kind::Workspace, "w").as_deref(), Some("1"), "workspaces are not staged");
    cluster.advance(RolloutStage::Waiting, RolloutStage::Canary, &["x"]);
    assert_eq!(cluster.body_for("x", Kind::Endpoint, "e").as_deref(), Some("2"));
    assert_eq!(cluster.body_for("y", Kind::Endpoint, "e").as_deref(), Some("1"));
    let seen = cluster.state.changed_ids_since(2).unwrap();
    assert!(seen.contains(&Id::new(Kind::Endpoint, "e")), "edges look again when a stage begins");
    cluster.advance(RolloutStage::Canary, RolloutStage::Done, &[]);
    assert_eq!(cluster.body_for("y", Kind::Endpoint, "e").as_deref(), Some("2"));
    assert!(cluster.state.rollouts().running().is_none());
    assert_eq!(cluster.state.settled().digest(), cluster.state.newest().digest());
}

#[test]
fn a_reverted_rollout_leaves_everyone_with_what_was() {
    let mut cluster = Cluster::default();
    cluster.done(&change(&[(Kind::Endpoint, "e", "1")], &[], true));
    cluster.done(&change(&[(Kind::Endpoint, "e", "2"), (Kind::Endpoint, "f", "1")], &[], false));
    cluster.advance(RolloutStage::Waiting, RolloutStage::Canary, &["x"]);
    cluster.done(&command(command::Body::RevertRollout(RevertRollout { revision: 2, cause: "x refused it".into() })));
    for edge in ["x", "y"] {
        assert_eq!(cluster.body_for(edge, Kind::Endpoint, "e").as_deref(), Some("1"));
        assert_eq!(cluster.body_for(edge, Kind::Endpoint, "f"), None);
    }
    let last = cluster.state.rollouts().iter().next_back().unwrap();
    assert_eq!((last.stage(), last.note.as_str()), (RolloutStage::Reverted, "x refused it"));
    assert_eq!(cluster.state.settled().digest(), cluster.state.newest().digest());
    let again = cluster.refused(&command(command::Body::RevertRollout(RevertRollout { revision: 2, cause: String::new() })));
    assert_eq!(again.code(), RefusalCode::NotFound);
}

#[test]
fn a_second_risky_change_carries_what_the_first_had_not_finished() {
    let mut cluster = Cluster::default();
    cluster.done(&change(&[(Kind::Endpoint, "e", "1")], &[], false));
    cluster.advance(RolloutStage::Waiting, RolloutStage::Canary, &["x"]);
    cluster.done(&change(&[(Kind::Endpoint, "f", "1")], &[], false));
    let running = cluster.state.rollouts().running().unwrap();
    assert_eq!((running.revision, running.changes.len()), (3, 2));
    assert_eq!(cluster.body_for("x", Kind::Endpoint, "e"), None, "its edges are named anew");
    assert_eq!(cluster.state.rollouts().iter().next().unwrap().stage(), RolloutStage::Superseded);
    // A task that still thinks of the first one is refused.
    let late =
        AdvanceRollout { revision: 1, from: RolloutStage::Canary.into(), to: RolloutStage::Done.into(), ..AdvanceRollout::default() };
    assert_eq!(cluster.refused(&command(command::Body::AdvanceRollout(late))).code(), RefusalCode::NotFound);
}

#[test]
fn an_immediate_change_leaves_the_rest_of_a_rollout_running() {
    let mut cluster = Cluster::default();
    cluster.done(&change(&[(Kind::Endpoint, "e", "1"), (Kind::Endpoint, "f", "1")], &[], false));
    cluster.done(&change(&[(Kind::Endpoint, "e", "2")], &[], true));
    assert_eq!(cluster.body_for("y", Kind::Endpoint, "e").as_deref(), Some("2"));
    assert_eq!(cluster.state.rollouts().running().unwrap().revision, 1);
    cluster.done(&change(&[(Kind::Endpoint, "f", "1")], &[], true));
    assert!(cluster.state.rollouts().running().is_none());
}

#[test]
fn a_command_of_a_replaced_leader_is_refused() {
    let mut cluster = Cluster::default();
    let late = Command { term: 9, ..command(command::Body::Expire(Expire::default())) };
    assert_eq!(cluster.refused(&late).code(), RefusalCode::StaleTerm);
}

#[test]
fn a_rotated_key_has_two_secrets_until_the_older_one_ends() {
    let mut cluster = Cluster::default();
    cluster.done(&command(command::Body::CreateKey(CreateKey { key: Some(key("k1")), expected_revision: None })));
    let secret = |byte: u8| Some(KeySecret { digest: vec![byte; 32].into(), ..KeySecret::default() });
    let rotate =
        |byte, until| command(command::Body::RotateKey(RotateKey { public_id: "k1".into(), secret: secret(byte), previous_until: until }));
    let secrets = |cluster: &Cluster| {
        let body = cluster.state.get(Kind::Key, "k1").unwrap().body.clone();
        <Key as prost::Message>::decode(body).unwrap().secrets.iter().map(|secret| secret.digest[0]).collect::<Vec<_>>()
    };
    cluster.done(&rotate(8, 100));
    assert_eq!(secrets(&cluster), [7, 8]);
    cluster.done(&rotate(9, 100));
    assert_eq!(secrets(&cluster), [8, 9], "at most two");
    let expire =
        Command { leader_time_ms: 100_000, ..command(command::Body::Expire(Expire { keys: vec!["k1".into()], ..Expire::default() })) };
    cluster.done(&expire);
    assert_eq!(secrets(&cluster), [9]);
    cluster.done(&rotate(10, 0));
    assert_eq!(secrets(&cluster), [10], "at once");
}

#[test]
fn time_never_runs_backwards() {
    let mut cluster = Cluster::default();
    cluster.done(&Command { leader_time_ms: 50_000, ..change(&[(Kind::Preset, "p", "1")], &[], true) });
    let create = command(command::Body::CreateKey(CreateKey { key: Some(key("k1")), expected_revision: None }));
    cluster.done(&Command { leader_time_ms: 20_000, ..create });
    let body = cluster.state.get(Kind::Key, "k1").unwrap().body.clone();
    assert_eq!(<Key as prost::Message>::decode(body).unwrap().created_at, 50);
}

#[test]
fn overrides_name_what_they_force_and_end_when_they_say() {
    let mut cluster = Cluster::default();
    let drain = |region: &str, expires_at| {
        command(command::Body::PutOverride(PutOverride {
            value: Some(Override {
                target: Some(id(Kind::Provider, "groq")),
                action: OverrideAction::Drain.into(),
                region: region.into(),
                expires_at,
                ..Override::default()
            }),
        }))
    };
    assert_eq!(cluster.refused(&drain("", 0)).code(), RefusalCode::NotFound);
    cluster.done(&change(&[(Kind::Provider, "groq", "{}")], &[], true));
    assert_eq!(cluster.done(&drain("", 0)).name, "provider/groq");
    assert_eq!(cluster.done(&drain("eu", 60)).name, "provider/groq@eu");
    let names = || vec!["provider/groq".to_owned(), "provider/groq@eu".to_owned()];
    let expire =
        |now| Command { leader_time_ms: now, ..command(command::Body::Expire(Expire { overrides: names(), ..Expire::default() })) };
    assert_eq!(cluster.done(&expire(59_000)).changed, 0);
    assert_eq!(cluster.done(&expire(60_000)).changed, 1);
    assert_eq!(cluster.body(Kind::Override, "provider/groq@eu"), None);
    cluster.done(&command(command::Body::LiftOverride(LiftOverride { name: "provider/groq".into() })));
    assert_eq!(cluster.state.newest().of_kind(Kind::Override).count(), 0);
}

#[test]
fn data_keys_are_rewrapped_all_or_none_and_only_as_they_were_read() {
    let mut cluster = Cluster::default();
    cluster.done(&change(&[(Kind::Provider, "groq", "{}")], &[], true));
    for name in ["one", "two"] {
        let sealed = SealedCredential {
            provider: "groq".into(),
            credential: name.into(),
            version: 1,
            kek_id: "old".into(),
            ciphertext: name.as_bytes().to_vec().into(),
            ..SealedCredential::default()
        };
        cluster.done(&command(command::Body::PutCredential(PutCredential { credential: Some(sealed) })));
    }
    let key = |name: &str, version| RewrappedKey {
        provider: "groq".into(),
        credential: name.into(),
        version,
        from_kek: "old".into(),
        kek_id: "new".into(),
        wrapped_dek: vec![7; 80].into(),
    };
    let rewrap = |keys| command(command::Body::RewrapCredentials(RewrapCredentials { keys }));
    let kek = |cluster: &Cluster, name: &str| {
        let body = cluster.state.get(Kind::Credential, name).expect("it is there").body.clone();
        let sealed = SealedCredential::decode(body).unwrap();
        (sealed.kek_id, sealed.version, sealed.ciphertext.len())
    };
    assert_eq!(cluster.refused(&rewrap(vec![key("one", 1), key("two", 2)])).code(), RefusalCode::Conflict);
    assert_eq!(cluster.refused(&rewrap(vec![key("three", 1)])).code(), RefusalCode::NotFound);
    assert_eq!(kek(&cluster, "groq/one"), ("old".into(), 1, 3));
    cluster.done(&rewrap(vec![key("one", 1), key("two", 1)]));
    assert_eq!(kek(&cluster, "groq/one"), ("new".into(), 1, 3));
    assert_eq!(kek(&cluster, "groq/two"), ("new".into(), 1, 3));
    assert_eq!(cluster.refused(&rewrap(vec![key("one", 1)])).code(), RefusalCode::Conflict, "it is under another key now");
    assert_eq!(cluster.refused(&rewrap(vec![key("one", 1); 501])).code(), RefusalCode::Limit);
}

#[test]
fn a_credential_counts_up_and_leaves_with_its_provider() {
    let mut cluster = Cluster::default();
    let put = |version| {
        let sealed = SealedCredential { provider: "groq".into(), credential: "main".into(), version, ..SealedCredential::default() };
        command(command::Body::PutCredential(PutCredential { credential: Some(sealed) }))
    };
    assert_eq!(cluster.refused(&put(1)).code(), RefusalCode::NotFound);
    cluster.done(&change(&[(Kind::Provider, "groq", "{}")], &[], true));
    cluster.done(&put(1));
    assert_eq!(cluster.refused(&put(1)).code(), RefusalCode::Conflict);
    cluster.done(&put(2));
    cluster.done(&change(&[], &[(Kind::Provider, "groq")], false));
    assert_eq!(cluster.state.newest().of_kind(Kind::Credential).count(), 1, "edges outside of the rollout still need it");
    cluster.advance(RolloutStage::Waiting, RolloutStage::Done, &[]);
    assert_eq!(cluster.state.newest().of_kind(Kind::Credential).count(), 0);
}

#[test]
fn prices_are_remembered_when_they_change_and_only_then() {
    let mut cluster = Cluster::default();
    for body in [r#"{"prices":{"prompt":1}}"#, r#"{"prices":{"prompt":1},"region":"eu"}"#, r#"{"prices":{"prompt":2}}"#] {
        cluster.done(&change(&[(Kind::Endpoint, "e", body)], &[], true));
    }
    cluster.done(&change(&[], &[(Kind::Endpoint, "e")], true));
    let changes: Vec<_> = cluster.state.prices().of("e").map(|change| (change.index, String::from_utf8_lossy(&change.prices))).collect();
    assert_eq!(changes, [(1, r#"{"prompt":1}"#.into()), (3, r#"{"prompt":2}"#.into()), (4, "".into())]);
}

#[test]
fn the_audit_chain_finds_a_changed_and_a_missing_line() {
    let mut cluster = Cluster::default();
    for number in 0..5 {
        cluster.done(&change(&[(Kind::Model, "a/b", &number.to_string())], &[], true));
    }
    let lines: Vec<_> = cluster.state.audit().entries().map(|entry| entry.as_ref().clone()).collect();
    assert_eq!(lines.len(), 5);
    assert_eq!((lines[0].actor.as_str(), lines[0].reason.as_str(), lines[0].action.as_str()), ("ann", "because", "change"));
    assert_eq!(verify_audit(&[], &lines), Ok(()));
    let mut altered = lines.clone();
    altered[2].actor = "bob".into();
    assert_eq!(verify_audit(&[], &altered), Err(BrokenChain::Altered(3)));
    let mut short = lines.clone();
    short.remove(2);
    assert_eq!(verify_audit(&[], &short), Err(BrokenChain::Unlinked(4)));
}

#[test]
fn the_audit_log_is_bounded_and_its_chain_goes_on() {
    let mut cluster = Cluster::default();
    for number in 0..AUDIT_KEPT + 3 {
        cluster.done(&change(&[(Kind::Workspace, "w", &number.to_string())], &[], true));
    }
    let audit = cluster.state.audit();
    assert_eq!((audit.entries().count(), audit.dropped()), (AUDIT_KEPT, 3));
    assert_eq!(verify_audit(audit.anchor(), audit.entries().map(AsRef::as_ref)), Ok(()));
}

#[test]
fn a_snapshot_with_a_part_that_is_not_known_is_refused() {
    let mut sections = State::default().to_sections();
    sections.push(("horoscope".into(), Bytes::new()));
    assert!(matches!(State::from_sections(sections), Err(SectionError::Unknown(name)) if name == "horoscope"));
    let mut sections = State::default().to_sections();
    sections.retain(|(name, _)| name != "audit");
    assert!(matches!(State::from_sections(sections), Err(SectionError::Missing("audit"))));
}

/// Any command, valid or not, over few names so that they meet.
fn any_command() -> impl Strategy<Value = Command> {
    let kinds = prop::sample::select(vec![Kind::Provider, Kind::Endpoint, Kind::Model, Kind::Workspace, Kind::Key]);
    let declared = (kinds, 0..3u8, 0..4u8).prop_map(|(kind, name, body)| (kind, name.to_string(), body.to_string()));
    let changes = (prop::collection::vec(declared.clone(), 0..4), prop::collection::vec(declared, 0..2), any::<bool>());
    let body = prop_oneof![
        6 => changes.prop_map(|(upserts, removes, immediate)| command::Body::Change(Change {
            upserts: upserts.iter().map(|(kind, name, body)| resource(*kind, name, body)).collect(),
            removes: removes.iter().map(|(kind, name, _)| id(*kind, name)).collect(),
            immediate,
            ..Change::default()
        })),
        1 => (0..60u64, any::<bool>()).prop_map(|(to, staged)| command::Body::Rollback(Rollback { to, staged, expected_revision: None })),
        2 => (0..3u8).prop_map(|name| command::Body::CreateKey(CreateKey { key: Some(key(&name.to_string())), expected_revision: None })),
        1 => (0..3u8, any::<Option<bool>>()).prop_map(|(name, disabled)| {
            command::Body::EditKey(EditKey { public_id: name.to_string(), disabled, ..EditKey::default() })
        }),
        1 => (0..3u8).prop_map(|name| command::Body::RevokeKeys(RevokeKeys { public_ids: vec![name.to_string()], kill_streams: false })),
        1 => (0..3u8, 1..4u32).prop_map(|(name, version)| {
            let sealed = SealedCredential { provider: name.to_string(), credential: "c".into(), version, ..SealedCredential::default() };
            command::Body::PutCredential(PutCredential { credential: Some(sealed) })
        }),
        1 => (0..3u8, 0..40u64).prop_map(|(name, expires_at)| command::Body::PutOverride(PutOverride {
            value: Some(Override {
                target: Some(id(Kind::Provider, &name.to_string())),
                action: OverrideAction::Drain.into(),
                expires_at,
                ..Override::default()
            }),
        })),
        1 => (0..3u8).prop_map(|name| command::Body::Expire(Expire { overrides: vec![format!("provider/{name}")], keys: Vec::new() })),
        3 => (0..60u64, 1..4i32, 2..5i32).prop_map(|(revision, from, to)| {
            command::Body::AdvanceRollout(AdvanceRollout { revision, from, to, note: String::new(), cohort: vec!["x".into()] })
        }),
        1 => (0..60u64).prop_map(|revision| command::Body::RevertRollout(RevertRollout { revision, cause: "worse".into() })),
    ];
    (body, 0..40_000u64, prop::option::of(0..5u8)).prop_map(|(body, leader_time_ms, request)| Command {
        leader_time_ms,
        request_id: request.map(|request| request.to_string()).unwrap_or_default(),
        ..command(body)
    })
}

/// Rollouts are named by revision, which random numbers rarely hit: aims half of the commands at the running one.
fn aimed(state: &State, command: &Command, aim: bool) -> Command {
    let mut command = command.clone();
    if let (true, Some(running)) = (aim, state.rollouts().running()) {
        match &mut command.body {
            Some(command::Body::AdvanceRollout(advance)) => {
                (advance.revision, advance.from) = (running.revision, running.stage.max(1));
            }
            Some(command::Body::RevertRollout(revert)) => revert.revision = running.revision,
            _ => {}
        }
    }
    command
}

/// What an edge holds that follows by change records.
#[derive(Default)]
struct Follower {
    map: ResourceMap,
    at: u64,
}

impl Follower {
    fn follow(&mut self, name: &str, state: &State) {
        let side = state.for_edge(name);
        for id in state.changed_ids_since(self.at).unwrap() {
            match side.get(&id) {
                Some(resource) => self.map.upsert(resource.as_ref().clone()),
                None => {
                    self.map.remove(&(&id).into());
                }
            }
        }
        self.at = state.applied();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// The same entries give the same state to the byte, also across a snapshot in the middle; edges that follow by change records, whenever
    /// they look, hold what they should; and what was refused left no trace.
    #[test]
    fn states_agree(
        commands in prop::collection::vec((any_command(), any::<bool>(), any::<bool>()), 1..60),
        cut in any::<prop::sample::Index>(),
    ) {
        let (mut one, mut other) = (State::default(), State::default());
        let (mut named, mut unnamed) = (Follower::default(), Follower::default());
        let cut = cut.index(commands.len());
        for (position, (command, aim, look)) in commands.iter().enumerate() {
            let index = position as u64 + 1;
            let command = aimed(&one, command, *aim);
            let before = one.to_sections();
            let reply = one.apply(index, 1, &command);
            prop_assert_eq!(&reply, &other.apply(index, 1, &command));
            if let Some(reply::Outcome::Refused(_)) = reply.outcome {
                let differs: Vec<_> = before.iter().zip(one.to_sections()).filter(|(before, after)| *before != after).map(|(before, _)| before.0.clone()).collect();
                prop_assert_eq!(differs, ["meta"], "only the applied index may have moved");
            }
            if *look {
                named.follow("x", &one);
                unnamed.follow("y", &one);
                prop_assert_eq!(named.map.digest(), one.for_edge("x").digest());
                prop_assert_eq!(unnamed.map.digest(), one.for_edge("y").digest());
                prop_assert_eq!(named.map.len(), one.for_edge("x").len());
            }
            let digests = one.digests_at(index).unwrap();
            prop_assert_eq!((digests.newest, digests.settled), (one.newest().digest(), one.settled().digest()));
            if position == cut {
                other = State::from_sections(other.to_sections()).unwrap();
            }
            if one.rollouts().running().is_none() {
                prop_assert_eq!(one.newest().digest(), one.settled().digest());
            }
        }
        prop_assert_eq!(one.to_sections(), other.to_sections());
        prop_assert_eq!(verify_audit(one.audit().anchor(), one.audit().entries().map(AsRef::as_ref)), Ok(()));
    }

    /// What is declared at each revision is what a rollback to it brings back.
    #[test]
    fn rollback_is_exact(commands in prop::collection::vec(any_command(), 1..40), to in any::<prop::sample::Index>()) {
        let mut state = State::default();
        let declared = |state: &State| -> BTreeMap<Id, Bytes> {
            state.newest().iter().filter(|(id, _)| draft::is_declared(id)).map(|(id, resource)| (id.clone(), resource.body.clone())).collect()
        };
        let mut versions = vec![declared(&state)];
        for (position, command) in commands.iter().enumerate() {
            state.apply(position as u64 + 1, 1, command);
            versions.push(declared(&state));
        }
        let to = to.index(versions.len());
        let back = command(command::Body::Rollback(Rollback { to: (to as u64).min(state.revision()), ..Rollback::default() }));
        let reply = state.apply(versions.len() as u64, 1, &back);
        prop_assert!(matches!(reply.outcome, Some(reply::Outcome::Applied(_))), "{:?}", reply);
        prop_assert_eq!(declared(&state), versions[to.min(versions.len() - 1)].clone());
    }
}
