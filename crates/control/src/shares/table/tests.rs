use tidegate_proto::limit_ref;
use tidegate_proto::v1::{Change, Command, Resource, ResourceId, command};
use tidegate_quota::{Dimension, Window};

use super::*;

const SECOND: Micros = 1_000_000;
const NOW_US: u64 = 1_795_824_000_000_000;

struct World {
    state: State,
    table: ShareTable,
    index: u64,
}

/// A body is `limit=AMOUNT` or `regions=a,b`.
fn read(kind: Kind, body: &[u8]) -> Declared {
    let text = std::str::from_utf8(body).unwrap();
    match (kind, text.split_once('=')) {
        (Kind::Defaults, Some(("regions", names))) => {
            Declared { regions: names.split(',').map(str::to_owned).collect(), limits: Vec::new() }
        }
        (_, Some((dimension, amount))) => {
            let dimension = Dimension::from_word(dimension).unwrap();
            let limit = Limit { global: true, ..Limit::new(Scope::Organisation, dimension, amount.parse().unwrap()) };
            Declared { limits: vec![limit], regions: Vec::new() }
        }
        _ => Declared::default(),
    }
}

impl World {
    fn new() -> Self {
        let mut world = Self { state: State::default(), table: ShareTable::new(Arc::new(read), 1, 2 * SECOND, 0), index: 0 };
        world.put(Kind::Defaults, "mesh", "regions=eu,us");
        world.put(Kind::Organisation, "acme", "rpm=600");
        world.put(Kind::Organisation, "blue", "spend_day=100000000");
        world
    }

    fn apply(&mut self, body: command::Body) {
        self.index += 1;
        let command = Command { leader_time_ms: NOW_US / 1_000, body: Some(body), ..Command::default() };
        self.state.apply(self.index, 1, &command);
    }

    fn put(&mut self, kind: Kind, name: &str, body: &str) {
        let id = Some(ResourceId { kind: kind.as_str().to_owned(), name: name.to_owned() });
        let upserts = vec![Resource { id, body: body.as_bytes().to_vec().into(), revision: 0 }];
        self.apply(command::Body::Change(Change { upserts, immediate: true, ..Change::default() }));
    }

    fn report(&mut self, region: &str, name: &LimitName, report: &tidegate_quota::ShareReport, now: Micros) -> Assign {
        let from = ShareReports { region: region.into(), edge: "e".into(), shared_store: true, ..ShareReports::default() };
        let reports = [ShareReport::of(name, report)];
        self.table.report(&self.state, &Reporter::of(&from), &reports, now, NOW_US)
    }

    /// What waits is agreed on; how many grants that were.
    fn agree(&mut self, now: Micros) -> usize {
        let Some(batch) = self.table.pending(now) else { return 0 };
        self.apply(command::Body::GrantBatch(batch.clone()));
        self.table.agreed(&batch, &self.state);
        batch.grants.len()
    }
}

fn name(owner: &str, dimension: Dimension) -> LimitName {
    let period = dimension.window().map(|window| Period::containing(NOW_US, window, 0));
    LimitName { scope: Scope::Organisation, owner: owner.into(), dimension, model: None, provider: None, period }
}

#[test]
fn a_rate_is_what_the_agreed_state_says_and_unknown_limits_are_named() {
    let mut world = World::new();
    let report = tidegate_quota::ShareReport { id: 7, demand: 10, ..Default::default() };
    let rate = name("acme", Dimension::RequestsPerMinute);
    let answer = world.report("eu", &rate, &report, SECOND);
    assert_eq!((answer.shares[0].amount, answer.shares[0].floor), (570, 30), "all but the other region's floor");
    for unknown in [name("nobody", Dimension::RequestsPerMinute), name("acme", Dimension::Concurrent)] {
        assert_eq!(world.report("eu", &unknown, &report, SECOND).unknown, [7]);
    }
    world.put(Kind::Organisation, "acme", "rpm=60");
    let answer = world.report("eu", &rate, &report, 2 * SECOND);
    assert_eq!((answer.shares[0].amount, answer.shares[0].floor), (57, 3));
    // A message that names a limit in words of another version.
    let mut strange = ShareReport::of(&rate, &report);
    strange.limit = Some(tidegate_proto::v1::LimitRef { dimension: "rps".into(), ..limit_ref(&rate) });
    let from = ShareReports { region: "eu".into(), ..ShareReports::default() };
    let answer = world.table.report(&world.state, &Reporter::of(&from), &[strange], SECOND, NOW_US);
    assert_eq!(answer.unknown, [7]);
}

#[test]
fn nobody_is_told_of_a_grant_before_it_is_agreed_on_and_a_new_leader_knows_it() {
    let mut world = World::new();
    let budget = name("blue", Dimension::Spend(Window::Day));
    let report = tidegate_quota::ShareReport { id: 7, demand: 1, wanted: 500_000, ..Default::default() };
    assert_eq!(world.report("eu", &budget, &report, SECOND).shares[0].amount, 0);
    assert_eq!(world.agree(SECOND), 1);
    let granted = world.report("eu", &budget, &report, 2 * SECOND).shares[0].amount;
    assert_eq!(granted, 1_500_000, "what waits, and a dollar ahead");
    // A leader that has only the log: the other region gets what is left, at most.
    world.table = ShareTable::new(Arc::new(read), 2, 2 * SECOND, 10 * SECOND);
    let greedy = tidegate_quota::ShareReport { wanted: 1_000_000_000, ..report.clone() };
    world.report("us", &budget, &greedy, 11 * SECOND);
    world.agree(11 * SECOND);
    let rest = world.report("us", &budget, &greedy, 12 * SECOND).shares[0].amount;
    assert_eq!(rest, 100_000_000 - granted);
    assert_eq!(world.agree(13 * SECOND), 0, "nothing waits, nothing is proposed");
    // The first region has spent a little and rests: the rest comes back, and goes on.
    let holding = world.report("eu", &budget, &report, 30 * SECOND).shares[0].sequence;
    let resting = tidegate_quota::ShareReport { id: 8, holding, spent: 200_000, ..Default::default() };
    let told = world.report("eu", &budget, &resting, 31 * SECOND).shares[0];
    assert_eq!(told.amount, 200_000);
    let confirmed = tidegate_quota::ShareReport { holding: told.sequence, ..resting };
    world.report("eu", &budget, &confirmed, 32 * SECOND);
    assert_eq!(world.agree(32 * SECOND), 1);
    world.report("us", &budget, &greedy, 33 * SECOND);
    world.agree(33 * SECOND);
    assert_eq!(world.report("us", &budget, &greedy, 34 * SECOND).shares[0].amount, 99_800_000);
}

#[test]
fn a_period_that_is_not_now_is_no_period() {
    let mut world = World::new();
    let report = tidegate_quota::ShareReport { id: 7, demand: 1, ..Default::default() };
    let mut budget = name("blue", Dimension::Spend(Window::Day));
    budget.period = Some(Period::containing(NOW_US + 2 * 86_400 * SECOND, Window::Day, 0));
    assert_eq!(world.report("eu", &budget, &report, SECOND).unknown, [7]);
    budget.period = Some(Period { end: u64::MAX / 2, ..Period::containing(NOW_US, Window::Day, 0) });
    assert_eq!(world.report("eu", &budget, &report, SECOND).unknown, [7]);
}
