use std::io::Write;

use tidegate_ledger::{Filter, Row};
use tidegate_proto::v1::JournalEntry;

use super::super::frame;
use super::super::sums::Requests;
use super::*;

fn begun(id: &str) -> Entry {
    Entry::Begun(Begun { id: id.to_owned(), created_ms: 1_700_000_000_000, key: "k".to_owned(), streamed: true, ..Begun::default() })
}

fn delivered(id: &str, micros: i64) -> Entry {
    let amount = Some(Money::from_picodollars(i128::from(micros) * 1_000_000).into());
    Entry::Delivered(Delivered { id: id.to_owned(), model: "m".to_owned(), charged: amount, ..Delivered::default() })
}

fn ended(id: &str) -> Entry {
    let Entry::Begun(begun) = begun(id) else { unreachable!("a beginning") };
    let record = record_of(&begun, None);
    Entry::Ended(GenerationRecord { reservation: b"{}".to_vec().into(), ..(&record).into() })
}

fn bytes(entries: Vec<Entry>) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        frame::append(&mut out, &JournalEntry { entry: Some(entry) });
    }
    out
}

fn write(directory: &Path, number: u64, bytes: &[u8]) {
    segment::create(directory, number).unwrap().write_all(bytes).unwrap();
}

fn ids(open: &[(Begun, Option<Delivered>)]) -> Vec<&str> {
    open.iter().map(|(begun, _)| begun.id.as_str()).collect()
}

#[test]
fn open_requests_are_found_with_what_they_had_delivered_last() {
    let directory = tempfile::tempdir().unwrap();
    let entries = vec![begun("a"), begun("b"), delivered("a", 1), begun("c"), ended("b"), delivered("a", 5)];
    write(directory.path(), 1, &bytes(entries));
    let found = recover(directory.path()).unwrap();
    assert_eq!(ids(&found.open), ["a", "c"]);
    assert_eq!(found.unsettled.len(), 1);
    let a = record_of(&found.open[0].0, found.open[0].1.as_ref());
    assert_eq!((a.ending, a.charged.picodollars(), a.recovered), (Ending::Cut, 5_000_000, true));
    let c = record_of(&found.open[1].0, None);
    assert_eq!((c.ending, c.charged), (Ending::Failed, Money::ZERO), "nothing was delivered");
    assert_eq!(found.rollups.total(&Filter::default()).requests, 1);
}

#[test]
fn what_attempts_hold_is_known_for_as_long_as_their_request_is_open() {
    let holding = |id: &str, provider: &str| {
        Entry::Holding(Holding { id: id.to_owned(), provider_name: provider.to_owned(), reservation: b"{}".to_vec().into() })
    };
    let directory = tempfile::tempdir().unwrap();
    let entries = vec![begun("a"), holding("a", "x"), begun("b"), holding("b", "x"), holding("a", "y"), ended("b"), holding("gone", "x")];
    write(directory.path(), 1, &bytes(entries));
    let found = recover(directory.path()).unwrap();
    let of = |id: &str| found.holding.get(id).into_iter().flatten().map(|held| held.provider_name.as_str()).collect::<Vec<_>>();
    assert_eq!((of("a"), found.holding.len()), (vec!["x", "y"], 1));
    // The file of sums keeps them too.
    let requests = Requests { open: vec![found.open[0].0.clone()], holding: found.holding["a"].clone(), ..Requests::default() };
    sums::replace(directory.path(), &sums::encode(&found.rollups, requests, found.end, 0)).unwrap();
    let again = recover(directory.path()).unwrap();
    assert_eq!(again.holding["a"], found.holding["a"]);
}

#[test]
fn a_tail_torn_anywhere_is_cut_off_and_what_is_before_it_counts() {
    let whole = bytes(vec![ended("a"), ended("b"), ended("c")]);
    let one = bytes(vec![ended("a")]).len();
    for cut in 0..=whole.len() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), 7, &whole[..cut]);
        let found = recover(directory.path()).unwrap();
        let expected = (cut / one) as u64;
        assert_eq!(found.rollups.total(&Filter::default()).requests, expected, "cut at {cut}");
        assert_eq!(found.torn_bytes, (cut % one) as u64, "cut at {cut}");
        let again = recover(directory.path()).unwrap();
        assert_eq!((again.torn_bytes, again.rollups.total(&Filter::default()).requests), (0, expected), "cut at {cut}");
    }
}

#[test]
fn sums_and_the_journal_after_them_are_the_whole() {
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = (bytes(vec![begun("a"), begun("x"), ended("a")]), bytes(vec![begun("b"), ended("b"), ended("x")]));
    write(directory.path(), 1, &[first.clone(), second].concat());
    write(directory.path(), 2, &bytes(vec![ended("d"), begun("e")]));
    let from_scratch = recover(directory.path()).unwrap();
    let position = Position { segment: 1, offset: segment::HEAD + first.len() as u64 };
    let partly = {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), 1, &first);
        recover(directory.path()).unwrap()
    };
    let open = partly.open.into_iter().map(|(begun, _)| begun).collect();
    let requests = Requests { open, unsettled: partly.unsettled, ..Requests::default() };
    sums::replace(directory.path(), &sums::encode(&partly.rollups, requests, position, 0)).unwrap();
    // Proof that the file is used: what is before its place may be gone.
    let text = std::fs::read(segment::path(directory.path(), 1)).unwrap();
    let mut holed = text.clone();
    holed[8..8 + first.len()].fill(0);
    std::fs::write(segment::path(directory.path(), 1), holed).unwrap();
    let found = recover(directory.path()).unwrap();
    assert_eq!(found.rollups.total(&Filter::default()), from_scratch.rollups.total(&Filter::default()));
    assert_eq!(Row::sum(&found.rollups.days(&Filter::default())).requests, 4);
    assert_eq!((ids(&found.open), found.unsettled.len()), (vec!["e"], 4));
    // A file of sums that does not hold is not used.
    std::fs::write(segment::path(directory.path(), 1), text).unwrap();
    let path = directory.path().join("sums.tgr");
    let mut damaged = std::fs::read(&path).unwrap();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    std::fs::write(&path, damaged).unwrap();
    assert_eq!(recover(directory.path()).unwrap().rollups.total(&Filter::default()).requests, 4);
}

#[test]
fn a_damaged_segment_is_named_and_the_rest_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let mut damaged = bytes(vec![ended("a"), ended("b")]);
    let middle = damaged.len() - 3;
    damaged[middle] ^= 1;
    write(directory.path(), 1, &damaged);
    write(directory.path(), 2, &bytes(vec![ended("c")]));
    let found = recover(directory.path()).unwrap();
    assert_eq!((found.damaged, found.torn_bytes), (vec![1], 0));
    assert_eq!(found.rollups.total(&Filter::default()).requests, 2);
}

#[test]
fn a_directory_is_held_by_one_process() {
    let directory = tempfile::tempdir().unwrap();
    let held = segment::Directory::lock(directory.path()).unwrap();
    let refused = segment::Directory::lock(directory.path()).unwrap_err();
    assert!(refused.to_string().contains("another edge uses it"), "{refused}");
    drop(held);
    segment::Directory::lock(directory.path()).unwrap();
}
