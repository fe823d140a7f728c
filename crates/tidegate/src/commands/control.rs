//! `tidegate control`: runs a control node, or tells the cluster what to do.

mod audit;
mod cluster;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueHint};
use prometheus::Registry;
use tidegate_control::{Node, NodeServices};
use tidegate_proto::Problem;
use tidegate_proto::v1::Resource;
use tidegate_runtime::logging;
use tidegate_runtime::ops::{BuildInfo, register_build_info, register_process_metrics};
use tidegate_runtime::signals::{StopSignals, reload_signals};

use super::{BAD_CONFIG, edge, show_problems};
use crate::admin_client::{ControlPlane, Reason};
use crate::cli::Global;
use crate::config::lower::{Agreed, ControlNode, agreed, key_policy, shared_limits};
use crate::config::{self, Environment, Secrets};
use crate::output::Output;

/// `tidegate control`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = "\
A node that belongs to no cluster yet waits: `tidegate control init` founds one, `tidegate control join` asks for a place in one.
Founding is explicit, so that a second cluster cannot come up by accident.

Examples:
  tidegate control --config control.yaml
  tidegate control init --cluster-id mesh-1
  tidegate control join --control http://127.0.0.1:7213
  tidegate control status")]
pub(crate) struct ControlArgs {
    /// The configuration.
    #[arg(long, short, value_name = "FILE", env = "TIDEGATE_CONTROL_CONFIG", required = true, value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<ControlCommand>,
}

/// `tidegate control …`. Each can be given again: what is so already stays so.
#[derive(Debug, Subcommand)]
pub(crate) enum ControlCommand {
    /// Found a cluster with the node that is asked as its first voter.
    Init {
        /// Name of the cluster; never to be used for another one.
        #[arg(long, value_name = "NAME")]
        cluster_id: String,
        #[command(flatten)]
        reason: Reason,
        #[command(flatten)]
        plane: ControlPlane,
    },
    /// Let the node that is asked take a place in a cluster.
    Join {
        /// Raft addresses of nodes of the cluster. Without it: `raft.peers` of its configuration.
        #[arg(long, value_name = "HOST:PORT")]
        peer: Vec<String>,
        #[command(flatten)]
        reason: Reason,
        #[command(flatten)]
        plane: ControlPlane,
    },
    /// Show the node that is asked, and the members of its cluster.
    Status {
        #[command(flatten)]
        plane: ControlPlane,
    },
    /// Hand leadership over.
    TransferLeader {
        /// Node to lead. Without it: the one that is best placed.
        #[arg(long, value_name = "ID")]
        to: Option<u64>,
        #[command(flatten)]
        reason: Reason,
        #[command(flatten)]
        plane: ControlPlane,
    },
    /// Make a member that only follows a voter.
    Promote {
        /// Node id.
        id: u64,
        #[command(flatten)]
        reason: Reason,
        #[command(flatten)]
        plane: ControlPlane,
    },
    /// Take a member out. Stop its process afterwards.
    Remove {
        /// Node id.
        id: u64,
        #[command(flatten)]
        reason: Reason,
        #[command(flatten)]
        plane: ControlPlane,
    },
    /// Make a member a voter in another's place, in one change.
    Replace {
        /// Node id that leaves.
        old: u64,
        /// Node id that takes its place.
        new: u64,
        #[command(flatten)]
        reason: Reason,
        #[command(flatten)]
        plane: ControlPlane,
    },
    /// Show who did what and why, and check that the log is whole: each line carries a hash of itself and of the line before it.
    ///
    /// Ends with code 1 when the chain does not hold.
    Audit {
        /// Newest lines to show; all that the cluster keeps are checked.
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: usize,
        /// Hash that an earlier run showed: the log must still go back to it, or it was cut.
        #[arg(long, value_name = "HASH")]
        since: Option<String>,
        #[command(flatten)]
        plane: ControlPlane,
    },
    /// Write the agreed state to a file. Secrets in it stay sealed.
    Backup {
        /// Where to.
        #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
        output: PathBuf,
        #[command(flatten)]
        plane: ControlPlane,
    },
    /// Found a new cluster from a backup, on the empty node that is asked.
    Restore {
        /// The backup.
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// Name of the new cluster.
        #[arg(long, value_name = "NAME")]
        cluster_id: String,
        #[command(flatten)]
        reason: Reason,
        #[command(flatten)]
        plane: ControlPlane,
    },
}

/// Threads beside the two of consensus.
const THREADS: usize = 2;
/// Time for handing over and for answers that are being written.
const STOP: Duration = Duration::from_secs(15);

pub(super) fn run(args: &ControlArgs, global: &Global, output: &mut Output) -> anyhow::Result<ExitCode> {
    if let Some(command) = &args.command {
        return cluster::run(command, output);
    }
    let Some(path) = &args.config else { bail!("give a configuration: `tidegate control --config control.yaml`") };
    let (control, report) = config::load_control(path, &Environment::of_process(), Secrets::Required);
    show_problems(&report, output);
    let Some(control) = control else { return Ok(ExitCode::from(BAD_CONFIG)) };
    let _log = logging::init(&edge::log_config(&control.log, global)).context("start logging")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("tidegate")
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(serve(control))
}

async fn serve(control: ControlNode) -> anyhow::Result<ExitCode> {
    let mut stops = StopSignals::install().context("listen for stop signals")?;
    let registry = Registry::new();
    register_process_metrics(&registry).context("register metrics")?;
    let build = BuildInfo { version: env!("CARGO_PKG_VERSION"), commit: "unknown", rustc: "unknown" };
    register_build_info(&registry, &build).context("register metrics")?;
    let services = NodeServices {
        registry,
        validate: Arc::new(validate),
        validate_policy: Arc::new(|policy| key_policy(policy).map(drop)),
        read_limits: Arc::new(shared_limits),
        build: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let node = Node::start(control.node, services).await.context("start the control node")?;
    let bound = node.bound();
    for (listener, address) in [("raft", bound.raft), ("sync", bound.sync), ("admin", bound.admin)] {
        tracing::info!(listener, %address, "listening");
    }
    if let Some(address) = bound.operations {
        tracing::info!(%address, "operations port");
    }
    let mut hangups = reload_signals().context("listen for SIGHUP")?;
    let failed = loop {
        // Losing a branch is safe: signals stay pending, and a node that failed stays failed.
        tokio::select! {
            signal = stops.next() => {
                tracing::info!(signal, "stopping: leadership is handed over, edges go elsewhere");
                break false;
            }
            Some(()) = hangups.next() => node.refresh_files(),
            why = node.failed() => {
                tracing::error!(why, "stopping: this node can no longer be trusted");
                break true;
            }
        }
    };
    node.shutdown(STOP).await;
    tracing::info!("stopped");
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The rules of the file, over a set of resources.
fn validate(resources: &[Resource]) -> Result<(), Vec<Problem>> {
    let options = Agreed { revision: 1, region: None, open: None, pepper: None };
    agreed(resources.iter(), options).map(drop)
}
