//! nginx and HAProxy as plain proxies, at their best: no access log, no checks, kept-alive upstream connections, no buffering.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::geteuid;

use super::certificate::Certificate;
use super::launch::find_program;
use crate::console;

/// What the configurations depend on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup<'a> {
    pub(crate) listen: SocketAddr,
    pub(crate) secure: SocketAddr,
    pub(crate) upstream: SocketAddr,
    pub(crate) certificate: &'a Certificate,
    pub(crate) workers: usize,
    /// Where configuration and run-time files go.
    pub(crate) directory: &'a Path,
}

/// The command that runs nginx in the foreground.
pub(crate) fn nginx(setup: &Setup<'_>, program: &Path) -> Result<Command> {
    let file = setup.directory.join("nginx.conf");
    fs::write(&file, nginx_config(setup)).with_context(|| format!("write {}", file.display()))?;
    let mut command = Command::new(program);
    command.arg("-p").arg(setup.directory).arg("-c").arg(file).args(["-e", "stderr"]);
    Ok(command)
}

/// The command that runs HAProxy in the foreground.
pub(crate) fn haproxy(setup: &Setup<'_>, program: &Path) -> Result<Command> {
    let file = setup.directory.join("haproxy.cfg");
    fs::write(&file, haproxy_config(setup)).with_context(|| format!("write {}", file.display()))?;
    let mut command = Command::new(program);
    command.arg("-db").arg("-f").arg(file);
    Ok(command)
}

fn nginx_config(setup: &Setup<'_>) -> String {
    let Setup { listen, secure, upstream, certificate, workers, directory } = setup;
    let (cert, key, directory) = (certificate.cert.display(), certificate.key.display(), directory.display());
    // Workers drop to an unprivileged user when started by root, who could then not write to the directory.
    let user = if geteuid().is_root() { "user root;\n" } else { "" };
    format!(
        r#"{user}daemon off;
worker_processes {workers};
worker_rlimit_nofile 65536;
pid {directory}/nginx.pid;
error_log stderr error;
events {{ worker_connections 16384; multi_accept on; }}
http {{
  access_log off;
  server_tokens off;
  tcp_nodelay on;
  keepalive_requests 1000000000;
  keepalive_timeout 600s;
  client_max_body_size 64m;
  client_body_buffer_size 2m;
  client_body_temp_path {directory}/nginx-body;
  proxy_temp_path {directory}/nginx-proxy;
  fastcgi_temp_path {directory}/nginx-fastcgi;
  uwsgi_temp_path {directory}/nginx-uwsgi;
  scgi_temp_path {directory}/nginx-scgi;
  upstream mock {{ server {upstream}; keepalive 4096; keepalive_requests 1000000000; }}
  server {{
    listen {listen} backlog=4096;
    listen {secure} ssl backlog=4096;
    ssl_certificate {cert};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.3;
    location / {{
      proxy_pass http://mock;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_request_buffering off;
      proxy_read_timeout 600s;
    }}
  }}
}}
"#
    )
}

fn haproxy_config(setup: &Setup<'_>) -> String {
    let Setup { listen, secure, upstream, certificate, workers, .. } = setup;
    let bundle = certificate.bundle.display();
    format!(
        r"global
  nbthread {workers}
  maxconn 8000
  tune.ssl.default-dh-param 2048
defaults
  mode http
  option http-no-delay
  http-reuse always
  timeout connect 5s
  timeout client 600s
  timeout server 600s
frontend in
  bind {listen}
  bind {secure} ssl crt {bundle} ssl-min-ver TLSv1.3
  default_backend mock
backend mock
  server mock {upstream} maxconn 8000
"
    )
}

/// Installs a Debian package when the program is missing and we may; tells in one line why not.
pub(crate) fn install_with_apt(program: &str) -> Result<()> {
    if find_program(program).is_some() {
        return Ok(());
    }
    let Some(apt) = find_program("apt-get") else { bail!("{program} is not installed and there is no apt-get") };
    let sudo: &[&str] = if geteuid().is_root() { &[] } else { &["sudo", "-n"] };
    if !sudo.is_empty() && !quietly(Command::new("sudo").args(["-n", "true"])) {
        bail!("{program} is not installed; run as root, or: sudo apt-get install {program}");
    }
    console::progress(format!("installing {program} with apt-get"));
    let install = |arguments: &[&str]| {
        let apt = apt.display().to_string();
        let words: Vec<&str> =
            sudo.iter().copied().chain(["env", "DEBIAN_FRONTEND=noninteractive", &apt]).chain(arguments.iter().copied()).collect();
        quietly(Command::new(words[0]).args(&words[1..]))
    };
    // The package index may be older than what the mirror still has.
    let arguments = ["install", "-y", "--no-install-recommends", program];
    if install(&arguments) || (install(&["update"]) && install(&arguments)) {
        return Ok(());
    }
    bail!("apt-get could not install {program}")
}

fn quietly(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_name_every_address() {
        let certificate = Certificate { cert: "/c.pem".into(), key: "/c.key".into(), bundle: "/b.pem".into() };
        let setup = Setup {
            listen: "127.0.0.1:1111".parse().unwrap(),
            secure: "127.0.0.1:2222".parse().unwrap(),
            upstream: "127.0.0.1:3333".parse().unwrap(),
            certificate: &certificate,
            workers: 2,
            directory: Path::new("/out"),
        };
        let (nginx, haproxy) = (nginx_config(&setup), haproxy_config(&setup));
        for text in [&nginx, &haproxy] {
            for part in ["127.0.0.1:1111", "127.0.0.1:2222", "127.0.0.1:3333"] {
                assert!(text.contains(part), "{part} in {text}");
            }
        }
        assert!(nginx.contains("worker_processes 2;") && nginx.contains("proxy_buffering off;"));
        assert!(haproxy.contains("nbthread 2") && haproxy.contains("option http-no-delay"));
    }
}
