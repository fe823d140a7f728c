//! Random work for the log, and what must be found of it after a crash.

use futures_util::FutureExt as _;
use openraft::EntryPayload;
use openraft::storage::{IOFlushed, RaftLogStorage as _};
use openraft::type_config::TypeConfigExt as _;
use openraft::vote::RaftLeaderId as _;

use super::super::database::LogDatabase;
use super::super::{LogStore, TailLimits};
use super::disk::{Disk, Fault};
use crate::types::{Command, Entry, LeaderId, LogId, Tokio, Vote};

/// What is on the disk, or should be.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Model {
    pub(super) vote: Option<Vote>,
    pub(super) purged: Option<LogId>,
    pub(super) entries: Vec<Entry>,
}

impl Model {
    fn last(&self) -> Option<LogId> {
        self.entries.last().map(|entry| entry.log_id).or(self.purged)
    }

    /// What a disk holds after a loss of power, read as a start would read it. The power may go again during the start.
    pub(super) fn found_after_power_loss(disk: &Disk, random: &mut fastrand::Rng) -> std::io::Result<Self> {
        let mut disk = disk.pull_the_plug(random);
        while random.u8(0..3) == 0 {
            disk.fail_at(random.u64(0..12), Fault::PowerLoss);
            drop(LogDatabase::open(disk.clone(), 1, 1));
            disk = disk.pull_the_plug(random);
        }
        Self::found_on(disk)
    }

    /// What a disk holds, read as a start would read it.
    pub(super) fn found_on(disk: Disk) -> std::io::Result<Self> {
        let (database, found) = LogDatabase::open(disk, usize::MAX, usize::MAX)?;
        let entries = database.read(0..u64::MAX, usize::MAX)?;
        assert_eq!(entries, found.tail);
        assert!(found.committed <= entries.last().map(|entry| entry.log_id).or(found.purged), "committed is behind the end");
        Ok(Self { vote: found.vote, purged: found.purged, entries })
    }
}

/// One change of the script, as the core would ask for it.
#[derive(Debug, Clone)]
enum Step {
    Vote(Vote),
    Append(Vec<Entry>),
    TruncateAfter(Option<LogId>),
    Purge(LogId),
    Committed(LogId),
}

/// Random work in batches, each to be one transaction.
#[derive(Debug)]
pub(super) struct Script {
    batches: Vec<Vec<Step>>,
    /// The disk after each batch; the first is before all.
    pub(super) models: Vec<Model>,
}

impl Script {
    pub(super) fn random(random: &mut fastrand::Rng, batches: usize) -> Self {
        let mut model = Model::default();
        let mut term = 1;
        let mut this = Self { batches: Vec::new(), models: vec![model.clone()] };
        for _ in 0..batches {
            let mut batch = Vec::new();
            for _ in 0..random.usize(1..4) {
                let step = random_step(random, &model, &mut term);
                step.play(&mut model);
                batch.push(step);
            }
            this.batches.push(batch);
            this.models.push(model.clone());
        }
        this
    }

    /// Plays the script on a disk, until the end or an error. Returns how many batches were acknowledged in full, and panics when a step was
    /// acknowledged behind one that was not.
    pub(super) fn play(&self, disk: &Disk) -> Played {
        let limits = TailLimits { entries: 4, bytes: 1 << 20 };
        let opened = LogStore::<Tokio>::open_without_writer(disk.clone(), limits, Box::new(|_| {}));
        let Ok((mut log, mut writer, mut queue)) = opened else {
            return Played { acknowledged: 0, failed: true };
        };
        let mut acknowledged = 0;
        let mut failed = false;
        for (number, batch) in self.batches.iter().enumerate() {
            let mut waiting: Vec<Answer> = batch.iter().filter_map(|step| step.ask(&mut log)).collect();
            let mut jobs = Vec::new();
            while let Ok(job) = queue.try_recv() {
                jobs.push(job);
            }
            writer.execute(&mut jobs);
            let answers: Vec<bool> = waiting.iter_mut().map(|answer| matches!(answer.now_or_never(), Some(Ok(())))).collect();
            assert!(answers.is_sorted_by(|a, b| a >= b), "acknowledged out of order: {answers:?}");
            if answers.iter().any(|answer| !answer) {
                failed = true;
            } else if !failed {
                acknowledged = number + 1;
            } else {
                assert!(answers.is_empty(), "batch {number} was acknowledged after the disk had failed");
            }
        }
        Played { acknowledged, failed }
    }
}

/// How far a script came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Played {
    pub(super) acknowledged: usize,
    pub(super) failed: bool,
}

fn random_step(random: &mut fastrand::Rng, model: &Model, term: &mut u64) -> Step {
    let last = model.last();
    match random.u8(0..10) {
        0 | 1 => {
            *term += 1;
            Step::Vote(Vote { leader_id: LeaderId::new(*term, random.u64(1..4)), committed: random.bool() })
        }
        2 if !model.entries.is_empty() => {
            let keep = random.usize(0..model.entries.len());
            let last = if keep == 0 { model.purged } else { Some(model.entries[keep - 1].log_id) };
            *term += 1;
            Step::TruncateAfter(last)
        }
        3 if !model.entries.is_empty() => Step::Purge(model.entries[random.usize(0..model.entries.len())].log_id),
        4 if last.is_some() => Step::Committed(last.unwrap()),
        _ => {
            let first = last.map_or(0, |last| last.index + 1);
            let entries = (first..first + random.u64(1..6)).map(|index| Entry {
                log_id: LogId::new(LeaderId::new(*term, 1), index),
                payload: EntryPayload::Normal(Command::Application(vec![index as u8; random.usize(0..1_500)].into())),
            });
            Step::Append(entries.collect())
        }
    }
}

impl Step {
    fn play(&self, model: &mut Model) {
        match self {
            Self::Vote(vote) => model.vote = Some(*vote),
            Self::Append(entries) => model.entries.extend(entries.iter().cloned()),
            Self::TruncateAfter(last) => model.entries.retain(|entry| Some(entry.log_id.index) <= last.map(|last| last.index)),
            Self::Purge(upto) => {
                model.purged = Some(*upto);
                model.entries.retain(|entry| entry.log_id.index > upto.index);
            }
            Self::Committed(_) => {}
        }
    }

    /// Asks the log for the step and gives what tells when it is durable.
    fn ask(&self, log: &mut LogStore<Tokio>) -> Option<Answer> {
        let mut log = log.clone();
        let mut answer: Answer = match self.clone() {
            Self::Append(entries) => {
                let (flushed, answer) = Tokio::oneshot();
                let read = async {
                    log.append(entries.clone(), IOFlushed::signal(flushed)).await.unwrap();
                    let mut reader = log.get_log_reader().await;
                    <_ as openraft::RaftLogReader<Tokio>>::try_get_log_entries(&mut reader, entries[0].log_id.index..).await.unwrap()
                };
                assert_eq!(read.now_or_never().unwrap(), entries, "entries are readable as soon as they are appended");
                async move { answer.await.unwrap() }.boxed()
            }
            Self::Committed(committed) => {
                log.save_committed(Some(committed)).now_or_never().unwrap().unwrap();
                return None;
            }
            Self::Vote(vote) => async move { log.save_vote(&vote).await }.boxed(),
            Self::TruncateAfter(last) => async move { log.truncate_after(last).await }.boxed(),
            Self::Purge(upto) => async move { log.purge(upto).await }.boxed(),
        };
        assert!((&mut answer).now_or_never().is_none(), "answered before the writer has run");
        Some(answer)
    }
}

type Answer = futures_util::future::BoxFuture<'static, std::io::Result<()>>;
