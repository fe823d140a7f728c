use proptest::prelude::*;

use super::*;

fn saw(samples: f64, failed: f64) -> Reporter {
    Reporter { samples, failed, pointing_at_us: 0.0, confidence: 1.0, open: false }
}

fn verdict(reporters: &[Reporter], active: usize) -> RegionVerdict {
    judge(reporters, active, &VerdictRules::default()).verdict
}

#[test]
fn a_quorum_with_enough_samples_ejects() {
    let failing = [saw(7.0, 7.0); 4];
    assert_eq!(verdict(&failing, 4), RegionVerdict::Ejected);
    assert_eq!(verdict(&failing, 13), RegionVerdict::Healthy, "four of thirteen may all be faulty");
    assert_eq!(verdict(&failing, 12), RegionVerdict::Ejected);
    assert_eq!(verdict(&[saw(4.0, 4.0); 4], 4), RegionVerdict::Healthy, "16 samples");
    assert_eq!(verdict(&[saw(10.0, 4.9); 4], 4), RegionVerdict::Healthy, "49 %");
}

#[test]
fn one_loud_edge_is_cut_to_a_fifth() {
    let mut reporters = vec![saw(20.0, 0.0); 9];
    reporters.push(saw(100_000.0, 100_000.0));
    let finding = judge(&reporters, 10, &VerdictRules::default());
    assert!((finding.failure_ratio - 0.2).abs() < 1e-9, "{finding:?}");
    assert_eq!(finding.verdict, RegionVerdict::Healthy);
}

#[test]
fn with_fewer_than_five_reporters_all_weigh_the_same() {
    let finding = judge(&[saw(1_000.0, 1_000.0), saw(10.0, 0.0), saw(10.0, 0.0), saw(10.0, 0.0)], 4, &VerdictRules::default());
    assert!((finding.failure_ratio - 0.25).abs() < 1e-9, "{finding:?}");
}

#[test]
fn fewer_than_four_edges_only_degrade_and_only_together() {
    assert_eq!(verdict(&[saw(10.0, 10.0), saw(10.0, 10.0), saw(3.0, 0.0)], 3), RegionVerdict::Degraded, "three samples have no say");
    assert_eq!(verdict(&[saw(10.0, 10.0), saw(10.0, 0.0)], 2), RegionVerdict::Healthy);
    assert_eq!(verdict(&[saw(9.0, 9.0)], 1), RegionVerdict::Healthy);
    assert_eq!(verdict(&[saw(10.0, 9.0)], 1), RegionVerdict::Degraded);
    let finding = judge(&[saw(10.0, 10.0)], 1, &VerdictRules::default());
    assert_eq!(finding.rule, Rule::FewEdges);
    assert!((finding.confidence - 1.0 / 3.0).abs() < 1e-9);
}

#[test]
fn who_does_not_trust_itself_has_no_say() {
    let doubtful = [Reporter { confidence: 0.0, ..saw(50.0, 50.0) }; 6];
    assert_eq!(judge(&doubtful, 6, &VerdictRules::default()), Finding::default());
    let new_build = [Reporter { confidence: 0.5, ..saw(50.0, 50.0) }; 5];
    assert_eq!(verdict(&new_build, 9), RegionVerdict::Healthy, "five new builds weigh 2.5 of 3");
}

#[test]
fn failures_to_connect_point_at_us() {
    let connect = [Reporter { pointing_at_us: 6.0, ..saw(10.0, 10.0) }; 4];
    assert!(judge(&connect, 4, &VerdictRules::default()).ours);
    assert!(!judge(&[saw(10.0, 10.0); 4], 4, &VerdictRules::default()).ours);
}

#[test]
fn bad_luck_of_an_honest_edge_does_not_complete_the_faulty_ones_quorum() {
    // Three liars and an honest edge whose only request failed are four of ten, and hold most of the weight.
    let mut reporters = vec![saw(1_000.0, 1_000.0); 3];
    reporters.push(saw(1.0, 1.0));
    reporters.extend([saw(3.0, 0.0); 6]);
    let finding = judge(&reporters, 10, &VerdictRules::default());
    assert!(finding.failure_ratio >= 0.5, "{finding:?}");
    assert_eq!(finding.verdict, RegionVerdict::Healthy);
}

/// What an edge knows whose breaker opened after so many failures in a row.
fn opened(failed: f64) -> Reporter {
    Reporter { open: true, ..saw(failed, failed) }
}

#[test]
fn a_quorum_of_open_breakers_needs_no_twenty_samples() {
    assert_eq!(verdict(&[opened(5.0); 2], 4), RegionVerdict::Ejected, "two of four, and nobody contradicts");
    assert_eq!(verdict(&[saw(5.0, 5.0); 2], 4), RegionVerdict::Healthy, "ten samples without an open breaker");
    assert_eq!(verdict(&[opened(5.0)], 4), RegionVerdict::Healthy, "one may be faulty");
    assert_eq!(verdict(&[opened(1_000.0)], 4), RegionVerdict::Healthy, "however loud");
    assert_eq!(verdict(&[opened(5.0), opened(5.0), saw(9.0, 0.0), saw(9.0, 0.0), saw(9.0, 0.0)], 5), RegionVerdict::Healthy);
    assert_eq!(verdict(&[opened(5.0), opened(5.0), saw(9.0, 0.0), opened(5.0)], 5), RegionVerdict::Ejected);
    assert_eq!(verdict(&[opened(2.0); 2], 4), RegionVerdict::Healthy, "where the bar is low already, two in a row are little evidence");
    let by_peers = Reporter { open: true, ..saw(60.0, 12.0) };
    assert_eq!(verdict(&[by_peers; 4], 4), RegionVerdict::Healthy, "worse than its peers is not failing");
}

#[test]
fn an_open_breaker_of_few_edges_degrades_unless_another_edge_sees_otherwise() {
    assert_eq!(verdict(&[opened(5.0)], 1), RegionVerdict::Degraded);
    assert_eq!(verdict(&[opened(5.0), saw(4.0, 0.0)], 2), RegionVerdict::Degraded);
    assert_eq!(verdict(&[opened(5.0), saw(5.0, 0.0)], 2), RegionVerdict::Healthy);
    assert_eq!(verdict(&[opened(5.0), opened(5.0), saw(3.0, 3.0)], 3), RegionVerdict::Degraded);
}

#[test]
fn few_edges_are_not_judged_by_a_moment() {
    let (rules, second) = (VerdictRules::default(), Duration::from_secs);
    let moment = Seen { length: second(1), reporters: vec![opened(5.0)] };
    let whole = Seen { length: second(10), reporters: vec![opened(5.0), saw(20.0, 0.0)] };
    assert_eq!(judge_windows(&[moment.clone(), whole.clone()], 2, &rules).verdict, RegionVerdict::Healthy);
    assert_eq!(judge_windows(&[Seen { length: second(2), ..moment }, whole], 2, &rules).verdict, RegionVerdict::Degraded);
}

#[test]
fn a_short_window_sees_a_fault_behind_seconds_of_success() {
    let rules = VerdictRules::default();
    let window = |seconds, one| Seen { length: Duration::from_secs(seconds), reporters: vec![one; 8] };
    let (recent, whole) = (window(2, saw(6.0, 6.0)), window(10, saw(30.0, 6.0)));
    assert_eq!(judge(&whole.reporters, 8, &rules).verdict, RegionVerdict::Healthy);
    let finding = judge_windows(&[recent, whole.clone()], 8, &rules);
    assert_eq!((finding.verdict, finding.failure_ratio, finding.samples), (RegionVerdict::Ejected, 1.0, 240.0));
    let noisy = window(2, saw(3.0, 1.6));
    assert_eq!(judge_windows(&[noisy, whole], 8, &rules).verdict, RegionVerdict::Healthy, "24 samples at 53 % may be chance");
}

proptest! {
    /// `n ≥ 3f + 1`: whatever the faulty ones claim, a healthy endpoint stays, even when the honest ones see little of it.
    #[test]
    fn faulty_reporters_never_reach_the_quorum(
        faulty in prop::collection::vec((0.0_f64..1e6, 0.0_f64..=1.0, any::<bool>()), 1..12),
        honest in prop::collection::vec(0.0_f64..50.0, 25..60),
    ) {
        let n = 3 * faulty.len() + 1;
        let claimed = |(samples, ratio, open): &(f64, f64, bool)| Reporter { open: *open, ..saw(*samples, samples * ratio) };
        let mut reporters: Vec<Reporter> = faulty.iter().map(claimed).collect();
        reporters.extend(honest.iter().cycle().take(n - faulty.len()).map(|samples| saw(*samples, samples * 0.1)));
        let verdict = verdict(&reporters, n);
        prop_assert_ne!(verdict, RegionVerdict::Ejected);
    }

    #[test]
    fn nobody_has_more_than_the_cap(samples in prop::collection::vec(0.1_f64..1e4, 5..40), liar in 0_usize..40) {
        let liar = liar % samples.len();
        let reporters: Vec<Reporter> =
            samples.iter().enumerate().map(|(at, samples)| saw(*samples, if at == liar { *samples } else { 0.0 })).collect();
        let ratio = judge(&reporters, reporters.len(), &VerdictRules::default()).failure_ratio;
        prop_assert!(ratio <= 0.2 + 1e-9, "{}", ratio);
    }

    #[test]
    fn the_order_of_reporters_does_not_matter(mut counts in prop::collection::vec((0.0_f64..100.0, 0.0_f64..=1.0), 0..20), active in 0_usize..30) {
        let finding = |counts: &[(f64, f64)]| {
            let reporters: Vec<Reporter> = counts.iter().map(|(samples, ratio)| saw(*samples, samples * ratio)).collect();
            judge(&reporters, active, &VerdictRules::default())
        };
        let forward = finding(&counts);
        counts.reverse();
        let backward = finding(&counts);
        prop_assert_eq!(forward.verdict, backward.verdict);
        prop_assert!((forward.failure_ratio - backward.failure_ratio).abs() < 1e-9);
    }
}
