use proptest::prelude::*;

use super::*;
use crate::generation::tests::generation;

fn record(hour: u64, model: &str, key: &str, charged: i64) -> Generation {
    let charged = Money::from_picodollars(i128::from(charged));
    Generation { created_ms: hour * HOUR_MS + 5, model: model.into(), key: key.into(), charged, ..generation() }
}

#[test]
fn a_generation_counts_in_its_hour_its_day_and_for_ever() {
    let mut rollups = Rollups::default();
    rollups.add(&record(49, "a", "k", 3));
    rollups.add(&record(50, "a", "k", 4));
    rollups.add(&record(50, "b", "other", 5));
    let k = Filter { key: Some("k".to_owned()), ..Filter::default() };
    assert_eq!(rollups.hours(&Filter { from: 50, until: 51, ..k.clone() })[0].sums.charged.picodollars(), 4);
    let day = rollups.days(&Filter { from: 2, until: 3, ..k.clone() });
    assert_eq!((day.len(), day[0].sums.charged.picodollars(), day[0].sums.requests), (1, 7, 2));
    assert_eq!(rollups.total(&k).charged.picodollars(), 7);
    assert_eq!(rollups.total(&Filter::default()).charged.picodollars(), 12);
    rollups.expire(Retention { hours: 1, days: 1 }, 51 * HOUR_MS);
    assert_eq!(rollups.hours(&Filter::default()).len(), 2, "hour 49 is forgotten");
    rollups.expire(Retention { hours: 1, days: 1 }, 300 * HOUR_MS);
    assert!(rollups.days(&Filter::default()).is_empty());
    assert_eq!(rollups.total(&k).charged.picodollars(), 7, "what was spent is never forgotten");
}

#[test]
fn applications_are_bounded_and_nothing_is_lost() {
    let mut rollups = Rollups::default();
    let count = MOST_ROWS as u64 + 50;
    for number in 0..count {
        rollups.add(&Generation { app_title: Some(number.to_string()), ..record(1, "a", "k", 1) });
    }
    let rows = rollups.hours(&Filter::default());
    assert_eq!(rows.len(), MOST_ROWS + 1);
    assert_eq!(Row::sum(&rows).requests, count);
    assert!(rows.iter().any(|row| &*row.facets.app == OTHER && row.sums.requests == 50));
}

#[test]
fn groups_are_sorted_and_hold_what_was_asked() {
    let mut rollups = Rollups::default();
    for (model, key) in [("b", "x"), ("a", "y"), ("a", "x")] {
        rollups.add(&record(1, model, key, 1));
    }
    let groups = Row::grouped(rollups.days(&Filter::default()), &[Facet::Model]);
    let shown: Vec<(&str, &str, u64)> = groups.iter().map(|row| (&*row.facets.model, &*row.facets.key, row.sums.requests)).collect();
    assert_eq!(shown, [("a", "", 2), ("b", "", 1)]);
}

proptest! {
    #[test]
    fn many_at_once_are_counted_as_one_after_the_other(
        records in proptest::collection::vec((49u64..51, 0usize..12, 0usize..3, any::<i64>(), any::<bool>()), 0..80),
    ) {
        // As on an edge: names of one endpoint or key are the same text at the same address, mostly.
        let (endpoints, keys) = (std::array::from_fn::<Arc<str>, 12, _>(|at| format!("e{at}").into()), ["k", "l", "m"].map(Arc::<str>::from));
        let base = generation();
        let records: Vec<Generation> = records
            .into_iter()
            .map(|(hour, endpoint, key, charged, apart)| {
                let charged = Money::from_picodollars(i128::from(charged));
                let key = if apart { keys[key].to_string().into() } else { Arc::clone(&keys[key]) };
                Generation { created_ms: hour * HOUR_MS, endpoint: Arc::clone(&endpoints[endpoint]), key, charged, ..base.clone() }
            })
            .collect();
        let (mut together, mut alone) = (Rollups::default(), Rollups::default());
        together.add_all(&records);
        records.iter().for_each(|record| alone.add(record));
        let sorted = |rollups: &Rollups| Row::grouped(rollups.rows(), &Facet::ALL);
        prop_assert_eq!(sorted(&together), sorted(&alone));
    }
}

proptest! {
    #[test]
    fn records_hours_days_and_totals_have_one_sum(
        records in proptest::collection::vec((0u64..100, 0usize..3, 0usize..3, any::<i64>()), 0..60),
    ) {
        let mut rollups = Rollups::default();
        let mut exact = Sums::default();
        for (hour, model, key, charged) in records {
            let record = record(hour, ["a", "b", "c"][model], ["x", "y", "z"][key], charged);
            exact += Sums::of(&record);
            rollups.add(&record);
        }
        prop_assert_eq!(Row::sum(&rollups.hours(&Filter::default())), exact);
        prop_assert_eq!(Row::sum(&rollups.days(&Filter::default())), exact);
        prop_assert_eq!(rollups.total(&Filter::default()), exact);
        prop_assert_eq!(Row::sum(&Row::grouped(rollups.days(&Filter::default()), &[Facet::Key])), exact);
        // What is written out and read back is the same.
        let mut again = Rollups::default();
        for row in rollups.rows() {
            again.merge(row);
        }
        let sorted = |rollups: &Rollups| Row::grouped(rollups.rows(), &Facet::ALL);
        prop_assert_eq!(sorted(&again), sorted(&rollups));
    }
}
