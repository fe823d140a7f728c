//! Gateways from package registries, installed once into a cache: LiteLLM with pip, Portkey with npm.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::launch::find_program;
use super::tidegate::SAME_DIALECT;
use crate::console;
use crate::scenario::Scenario;

/// LiteLLM's proxy: two workers, no database, no logging.
pub(crate) fn litellm(
    listen: SocketAddr,
    upstream: SocketAddr,
    scenarios: &[Scenario],
    workers: usize,
    directory: &Path,
) -> Result<Command> {
    let venv = cache()?.join("litellm");
    let program = venv.join("bin/litellm");
    if !program.is_file() {
        let Some(python) = find_program("python3") else { bail!("LiteLLM needs python3") };
        console::progress(format!("installing LiteLLM into {} (once)", venv.display()));
        must(Command::new(python).args(["-m", "venv"]).arg(&venv))?;
        must(Command::new(venv.join("bin/pip")).args(["install", "--quiet", "litellm[proxy]"]))?;
    }
    let file = directory.join("litellm.yaml");
    fs::write(&file, litellm_config(upstream, scenarios)).with_context(|| format!("write {}", file.display()))?;
    let mut command = Command::new(program);
    command.arg("--config").arg(file).args(["--host", "127.0.0.1", "--num_workers", &workers.to_string()]);
    command.args(["--port", &listen.port().to_string()]);
    command.env("LITELLM_LOG", "ERROR").env("LITELLM_MASTER_KEY", super::fleet::PEER_KEY).env("LITELLM_LOCAL_MODEL_COST_MAP", "True");
    command.env("PATH", path_with(&venv.join("bin"))).env("DISABLE_ADMIN_UI", "True");
    Ok(command)
}

/// Portkey's open gateway; the upstream is named by headers of each request.
pub(crate) fn portkey(listen: SocketAddr) -> Result<Command> {
    let folder = cache()?.join("portkey");
    let server = folder.join("node_modules/@portkey-ai/gateway/build/start-server.js");
    let Some(node) = find_program("node") else { bail!("Portkey needs node") };
    if !server.is_file() {
        let Some(npm) = find_program("npm") else { bail!("Portkey needs npm") };
        console::progress(format!("installing Portkey into {} (once)", folder.display()));
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        must(
            Command::new(npm).args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"]).arg(&folder).arg("@portkey-ai/gateway"),
        )?;
    }
    let mut command = Command::new(node);
    command.arg(server).arg(format!("--port={}", listen.port())).arg("--headless");
    command.env("NODE_ENV", "production").env("TRUSTED_CUSTOM_HOSTS", "localhost,127.0.0.1");
    Ok(command)
}

/// Headers that tell Portkey where to send a request.
pub(crate) fn portkey_headers(upstream: SocketAddr) -> Vec<(String, String)> {
    let pairs = [("x-portkey-provider", "openai".to_owned()), ("x-portkey-custom-host", format!("http://{upstream}/v1"))];
    pairs.map(|(name, value)| (name.to_owned(), value)).into()
}

fn litellm_config(upstream: SocketAddr, scenarios: &[Scenario]) -> String {
    let models: String = scenarios
        .iter()
        .map(|scenario| {
            format!("  - model_name: {SAME_DIALECT}/{scenario}\n    litellm_params: {{ model: openai/{scenario}, api_base: \"http://{upstream}/v1\", api_key: none }}\n")
        })
        .collect();
    format!("model_list:\n{models}litellm_settings: {{ telemetry: false, num_retries: 0 }}\n")
}

/// `$XDG_CACHE_HOME/tidegate-loadtest`, or the same below `~/.cache`.
fn cache() -> Result<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let base = base.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    let folder = base.context("neither XDG_CACHE_HOME nor HOME is set")?.join("tidegate-loadtest");
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    Ok(folder)
}

fn path_with(first: &Path) -> std::ffi::OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(first.to_owned()).chain(std::env::split_paths(&path));
    std::env::join_paths(folders).unwrap_or(path.clone())
}

fn must(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("run {}", command.get_program().display()))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        let last = errors.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no message").to_owned();
        bail!("{} failed: {last}", command.get_program().display());
    }
    Ok(())
}
