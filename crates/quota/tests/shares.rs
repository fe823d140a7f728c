//! Regional shares under partition, delay, loss, restarts and fail-over of the home region: at every virtual millisecond the shares in use
//! must not exceed the limit.
//!
//! 100 simulations by default; `TIDEGATE_QUOTA_SIMULATIONS=5000 cargo test -p tidegate-quota --test shares` for more, `TIDEGATE_QUOTA_SEED=…` for one.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidegate_quota::{Allocator, Assign, Holder, ShareReport, Shared};

const MS: u64 = 1_000;

enum Message {
    Report(usize, ShareReport),
    Assign(usize, Assign),
}

struct Edge {
    region: usize,
    name: Arc<str>,
    holder: Holder,
    demand: u64,
    next_report: u64,
    /// Its own clock is this far off, and this much faster (in thousandths).
    offset: u64,
    rate: i64,
    cut_until: u64,
    /// How much it has spent of a budget.
    spent: u64,
}

impl Edge {
    fn clock(&self, at: u64) -> u64 {
        self.offset + at.saturating_add_signed(at as i64 / 1_000 * self.rate)
    }
}

struct World {
    random: fastrand::Rng,
    kind: Shared,
    limit: u64,
    regions: Vec<Arc<str>>,
    edges: Vec<Edge>,
    home: Allocator,
    epoch: u32,
    mail: BTreeMap<(u64, u64), Message>,
    mails: u64,
    faults: bool,
    lives: u32,
}

impl World {
    fn new(seed: u64, kind: Shared) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let regions: Vec<Arc<str>> = (0..random.usize(1..6)).map(|region| format!("r{region}").into()).collect();
        let limit = match kind {
            Shared::Rate => random.u64(0..100_000),
            Shared::Spend => random.u64(0..500_000_000),
        };
        let mut edges = Vec::new();
        for region in 0..regions.len() {
            for edge in 0..random.usize(1..4) {
                edges.push(Edge {
                    region,
                    name: format!("r{region}e{edge}").into(),
                    holder: Holder::new(random.u64(..)),
                    demand: random.u64(0..1_000),
                    next_report: random.u64(0..3_000 * MS),
                    offset: random.u64(0..1 << 50),
                    rate: random.i64(-4..=4),
                    cut_until: 0,
                    spent: 0,
                });
            }
        }
        let home = Allocator::new(limit, kind, regions.iter().cloned(), 1, 0);
        Self { random, kind, limit, regions, edges, home, epoch: 1, mail: BTreeMap::new(), mails: 0, faults: true, lives: 0 }
    }

    fn send(&mut self, at: u64, message: Message) {
        let lost = self.faults && self.random.u8(0..10) == 0;
        let slow = self.faults && self.random.u8(0..8) == 0;
        let delay = if slow { self.random.u64(0..20_000) } else { self.random.u64(1..200) } * MS;
        let edge = match &message {
            Message::Report(edge, _) | Message::Assign(edge, _) => &self.edges[*edge],
        };
        if !lost && at >= edge.cut_until {
            self.mails += 1;
            self.mail.insert((at + delay, self.mails), message);
        }
    }

    fn step(&mut self, at: u64) {
        if at % (10_000 * MS) == 0 || (self.kind == Shared::Spend && at % (1_000 * MS) == 0) {
            self.home.allot(at);
        }
        if self.faults {
            self.fault(at);
        }
        for index in 0..self.edges.len() {
            if at >= self.edges[index].next_report {
                self.report(index, at);
            }
        }
        while let Some(entry) = self.mail.first_entry()
            && entry.key().0 <= at
        {
            match entry.remove() {
                Message::Report(index, report) => {
                    let (region, name) = (self.regions[self.edges[index].region].clone(), self.edges[index].name.clone());
                    if at < self.edges[index].cut_until {
                        continue;
                    }
                    if let Some(assign) = self.home.report(&region, &name, &report, at) {
                        self.send(at, Message::Assign(index, assign));
                    }
                }
                Message::Assign(index, assign) => {
                    if at >= self.edges[index].cut_until && self.edges[index].holder.take(&assign) {
                        self.report(index, at);
                    }
                }
            }
        }
    }

    fn report(&mut self, index: usize, at: u64) {
        let spent = self.spent(self.edges[index].region);
        let edge = &mut self.edges[index];
        edge.next_report = at + 3_000 * MS;
        let clock = edge.clock(at);
        let report = edge.holder.report(edge.demand, spent, clock);
        self.send(at, Message::Report(index, report));
    }

    fn fault(&mut self, at: u64) {
        if self.random.u32(0..4_000) == 0 {
            let index = self.random.usize(0..self.edges.len());
            let length = self.random.u64(1_000..60_000) * MS;
            let region = self.edges[index].region;
            let whole = self.random.bool();
            for (other, edge) in self.edges.iter_mut().enumerate() {
                if other == index || (whole && edge.region == region) {
                    edge.cut_until = at + length;
                }
            }
        }
        if self.random.u32(0..6_000) == 0 {
            let index = self.random.usize(0..self.edges.len());
            self.edges[index].demand = self.random.u64(0..1_000);
        }
        if self.random.u32(0..15_000) == 0 {
            // The process starts anew and knows nothing.
            let index = self.random.usize(0..self.edges.len());
            self.edges[index].holder = Holder::new(self.random.u64(..));
            self.lives += 1;
        }
        if self.random.u32(0..40_000) == 0 {
            self.epoch += 1;
            self.home = Allocator::new(self.limit, self.kind, self.regions.iter().cloned(), self.epoch, at);
        }
    }

    fn value(&self, region: usize, at: u64) -> u64 {
        self.edges.iter().filter(|edge| edge.region == region).map(|edge| edge.holder.value(edge.clock(at))).max().unwrap_or(0)
    }

    fn spent(&self, region: usize) -> u64 {
        self.edges.iter().filter(|edge| edge.region == region).map(|edge| edge.spent).sum()
    }

    fn in_use(&self, at: u64) -> u64 {
        (0..self.regions.len()).map(|region| self.value(region, at)).sum()
    }
}

fn seeds(default: u64) -> std::ops::Range<u64> {
    let variable = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    match variable("TIDEGATE_QUOTA_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..variable("TIDEGATE_QUOTA_SIMULATIONS").unwrap_or(default),
    }
}

#[test]
fn shares_never_exceed_the_limit_and_follow_demand_when_the_faults_end() {
    for seed in seeds(100) {
        let mut world = World::new(seed, Shared::Rate);
        let end = 120_000;
        for ms in 0..end {
            let at = ms * MS;
            world.step(at);
            let sum = world.in_use(at);
            assert!(sum <= world.limit, "seed {seed}: {sum} of {} in use at {ms} ms", world.limit);
            assert!(world.home.may_be_in_use(at) <= world.limit, "seed {seed}: home's own account at {ms} ms");
        }
        world.faults = false;
        for edge in &mut world.edges {
            edge.cut_until = 0;
        }
        let demand: u64 = world.edges.iter().map(|edge| edge.demand).sum();
        // Leases of the last fault (15 s), the next allotment (10 s), the reports (3 s), once more for the growing ones.
        for ms in end..end + 60_000 {
            let at = ms * MS;
            world.step(at);
            let (sum, account) = (world.in_use(at), world.home.may_be_in_use(at));
            assert!(sum <= world.limit, "seed {seed}: {sum} of {} in use at {ms} ms, home counts {account}", world.limit);
        }
        let at = (end + 60_000) * MS;
        for region in 0..world.regions.len() {
            let own: u64 = world.edges.iter().filter(|edge| edge.region == region).map(|edge| edge.demand).sum();
            let due = if demand == 0 { 0 } else { world.limit * 9 / 10 * own / demand };
            let value = world.value(region, at);
            assert!(value + 10 >= due * 9 / 10, "seed {seed}: region {region} has {value}, its demand is worth {due}");
        }
        assert!(world.limit < 1_000 || world.in_use(at) >= world.limit * 95 / 100, "seed {seed}: shares lie idle");
    }
}

#[test]
fn a_region_that_is_cut_off_keeps_its_share_for_the_lease_and_then_its_floor() {
    let regions: [Arc<str>; 2] = ["a".into(), "b".into()];
    let mut home = Allocator::new(1_000, Shared::Rate, regions.clone(), 1, 0);
    let (edge, mut a, mut b): (Arc<str>, _, _) = ("e".into(), Holder::new(1), Holder::new(1));
    let mut at = 0;
    let exchange = |home: &mut Allocator, holder: &mut Holder, region: &str, demand: u64, at: u64| {
        let report = holder.report(demand, 0, at);
        holder.take(&home.report(region, &edge, &report, at).unwrap());
    };
    while at < 60_000_000 {
        exchange(&mut home, &mut a, "a", 300, at);
        exchange(&mut home, &mut b, "b", 100, at);
        home.allot(at);
        at += 1_000_000;
    }
    assert_eq!((a.value(at), b.value(at)), (50 + 675, 50 + 225));
    let cut = at - 1_000_000;
    while at < cut + 60_000_000 {
        assert_eq!(a.value(at), if at < cut + 15_000_000 { 725 } else { 50 }, "{} s after", (at - cut) / 1_000_000);
        exchange(&mut home, &mut b, "b", 100, at);
        home.allot(at);
        at += 1_000_000;
    }
    assert_eq!(b.value(at), 950, "all but the floor of the other");
}

#[test]
fn grants_never_exceed_the_budget_whatever_is_spent_where() {
    for seed in seeds(60) {
        let mut world = World::new(seed, Shared::Spend);
        // A new home of a budget asks the ledger before it grants; that is not what is tested here.
        for ms in 0..90_000 {
            let at = ms * MS;
            let epoch = world.epoch;
            world.step(at);
            if world.epoch != epoch {
                // It knows the true spend, and what was granted counts as spent until the regions tell otherwise.
                for region in 0..world.regions.len() {
                    let name = world.regions[region].clone();
                    let granted = world.edges.iter().filter(|edge| edge.region == region).map(|edge| edge.holder.value(edge.clock(at)));
                    let most = granted.max().unwrap_or(0).max(world.spent(region));
                    world.home.set_spent(&name, most);
                }
                world.mail.retain(|_, message| matches!(message, Message::Report(..)));
            }
            let index = world.random.usize(0..world.edges.len());
            let region = world.edges[index].region;
            let amount = world.random.u64(0..20_000);
            // The region's store checks its whole spend against the share that this edge knows.
            if world.spent(region) + amount <= world.edges[index].holder.value(world.edges[index].clock(at)) {
                world.edges[index].spent += amount;
            }
            let spent: u64 = (0..world.regions.len()).map(|region| world.spent(region)).sum();
            assert!(spent <= world.limit, "seed {seed}: {spent} of {} spent at {ms} ms", world.limit);
        }
    }
}
