use proptest::prelude::*;
use prost::Message;
use tidegate_ledger::{Facets, Period, PriceTable, Rate, Rollups, Row, Sums, charge_for};

use super::*;

fn record() -> Generation {
    let usage = Usage { prompt_tokens: 1_200, cached_tokens: 1_000, completion_tokens: 34, reasoning_tokens: 10, ..Usage::default() };
    let prices = PriceTable {
        prompt: Rate::per_million_usd("0.15").unwrap(),
        completion: Rate::per_million_usd("0.6").unwrap(),
        ..PriceTable::default()
    };
    let charge = charge_for(Ending::Completed, Some("stop"), &usage, &prices, 0);
    Generation {
        id: "gen-1".into(),
        upstream_id: Some("up".to_owned()),
        request_id: "gen-1".into(),
        session_id: Some("session".to_owned()),
        created_ms: 1_795_410_218_250,
        model: "a/b".into(),
        provider_name: "A".into(),
        endpoint: "a/b@a".into(),
        router: Some("auto".into()),
        api_type: ApiType::Completions,
        streamed: true,
        ending: Ending::Cut,
        first_token_us: Some(1),
        generation_us: None,
        finish_reason: Some("stop".into()),
        native_finish_reason: Some("end_turn".to_owned()),
        usage,
        usage_estimated: true,
        charge,
        fee: Money::from_picodollars(-7),
        charged: Money::from_picodollars(3 * PICO + 5),
        upstream_cost: charge.total,
        is_byok: true,
        service_tier: Some("flex".to_owned()),
        data_region: Some("eu".into()),
        region: "local".into(),
        origin: Some("o".to_owned()),
        http_referer: Some("r".to_owned()),
        app_title: Some("t".to_owned()),
        user_agent: Some("u".to_owned()),
        external_user: Some("e".to_owned()),
        preset_id: Some("p".into()),
        key: "ci".into(),
        organisation: Some("org".into()),
        workspace: Some("ws".into()),
        error_type: "timeout".into(),
        recovered: true,
        attempts: vec![AttemptRecord {
            number: 2,
            provider_name: "A".into(),
            model: "a/b".into(),
            endpoint: "a/b@a".into(),
            status: Some(503),
            outcome: "server".into(),
            latency_us: 9,
            service_tier: Some("flex".to_owned()),
            upstream_id: Some("x".to_owned()),
            is_byok: true,
        }],
    }
}

#[test]
fn a_record_comes_back_whole() {
    let bytes = v1::GenerationRecord::from(&record()).encode_to_vec();
    let read = v1::GenerationRecord::decode(bytes.as_slice()).unwrap();
    let again = Generation::try_from(read).unwrap();
    // Every field is shown, so that one that is forgotten in a conversion is seen here.
    assert_eq!(format!("{again:?}"), format!("{:?}", record()));
}

#[test]
fn what_a_newer_version_wrote_is_reported() {
    let newer = v1::GenerationRecord { ending: "paused".to_owned(), ..(&record()).into() };
    assert!(matches!(Generation::try_from(newer), Err(RecordError::Unknown { what: "ending", .. })));
}

#[test]
fn a_sum_comes_back_whole() {
    let mut rollups = Rollups::default();
    rollups.add(&record());
    for row in rollups.rows() {
        let bytes = v1::RollupRow::from(&row).encode_to_vec();
        assert_eq!(Row::from(v1::RollupRow::decode(bytes.as_slice()).unwrap()), row);
    }
    let empty = Row { period: Period::Total, facets: Facets::default(), sums: Sums::default() };
    assert_eq!(Row::from(v1::RollupRow::from(&empty)), empty);
}

/// What the generated code reads from an entry that was written straight.
fn read_straight(record: &Generation, reservation: &[u8], attempt: &[u8]) -> v1::GenerationRecord {
    let mut bytes = Vec::new();
    encode_ended(record, reservation, attempt, &mut bytes);
    let entry = v1::JournalEntry::decode(bytes.as_slice()).unwrap().entry;
    let Some(v1::journal_entry::Entry::Ended(read)) = entry else { panic!("{entry:?}") };
    read
}

#[test]
fn an_entry_that_is_written_straight_is_the_record() {
    let long = "x".repeat(70_000);
    let bare = Generation {
        upstream_id: None,
        session_id: Some(String::new()),
        router: None,
        first_token_us: Some(0),
        attempts: Vec::new(),
        charged: Money::ZERO,
        organisation: None,
        recovered: false,
        usage: Usage::default(),
        charge: Charge::default(),
        ..record()
    };
    let large = Generation { user_agent: Some(long), charged: Money::from_picodollars(i128::MAX / 3), ..record() };
    for record in [record(), bare, large] {
        for (reservation, attempt) in [(&b""[..], &b""[..]), (b"{}", b""), (b"held", b"held, too")] {
            let made = v1::GenerationRecord {
                reservation: reservation.to_vec().into(),
                attempt_reservation: attempt.to_vec().into(),
                ..(&record).into()
            };
            assert_eq!(read_straight(&record, reservation, attempt), made);
        }
    }
}

proptest! {
    #[test]
    fn amounts_are_exact(high in any::<i64>(), low in 0i128..1_000_000_000_000) {
        let amount = Money::from_picodollars(i128::from(high / 1_000) * PICO + low * i128::from(high.signum()));
        prop_assert_eq!(Money::from(&v1::Amount::from(amount)), amount);
    }
}
