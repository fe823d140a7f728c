//! The control plane as processes: three control nodes and edges in two regions, 80 ms of round trip between them, and what must not
//! happen to callers while parts of it go away.
//!
//! Needs the rights to make network namespaces; without them every test says so and passes. The measured times are printed:
//!
//! ```sh
//! cargo test -p tidegate --test mesh_processes -- --nocapture --test-threads 1
//! ```

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking; the measured times are what it is for")]

mod mesh;

use std::time::{Duration, Instant};

use mesh::{Mesh, PAUSE, Steady, caught_up, leader, mesh, seconds, write_again};
use tidegate_provider_sim::Fault;
use tidegate_testkit::processes::{MODEL, Raw, until};

/// What the `continental` profile promises after a lost leader is about 4 s; the rest is for a busy machine.
const WRITE_GAP: Duration = Duration::from_secs(15);
/// After this long without word an edge cannot know that a key is unknown.
const DECIDABLE: Duration = Duration::from_secs(15);

/// Waits until word from the control plane is so old that an edge can call no key unknown.
#[track_caller]
fn undecidable(mesh: &Mesh, edge: &str) -> Duration {
    until(format_args!("old keys at {edge}"), || {
        mesh.metric(edge, "tidegate_state_age_seconds", "keys").is_some_and(|age| age > DECIDABLE.as_secs_f64())
    })
}

#[track_caller]
fn assert_503(answer: &Raw) {
    assert!(answer.status == 503 && answer.text.to_ascii_lowercase().contains("\r\nretry-after: "), "{answer:?}");
}

#[test]
fn a_mesh_comes_up_by_the_documented_commands_and_answers_in_both_regions() {
    let edges = ["edge-eu-1", "edge-us-1"];
    let Some(mesh) = mesh(&edges) else { return };
    for edge in edges {
        assert_eq!(mesh.ask(edge, "tg_live_0123456789_nobody").status, 401, "a stranger is refused at {edge}");
    }
    assert!(mesh.get("edge-us-1", "/v1/models", &mesh.key).text.contains(MODEL));
}

#[test]
fn a_killed_leader_costs_callers_nothing_and_writes_a_few_seconds() {
    let edges = ["edge-eu-1", "edge-us-1"];
    let Some(mesh) = mesh(&edges) else { return };
    let killed = leader(&mesh);
    let others: Vec<usize> = (1..=3).filter(|node| *node != killed).collect();
    let ((key, gap), served) = Steady::during(&mesh, &edges, PAUSE, || {
        mesh.kill(&format!("control-{killed}"));
        let again = write_again(&mesh, "eu", &others, "after");
        caught_up(&mesh, &edges, others[0]);
        for edge in edges {
            assert_eq!(mesh.ask(edge, &again.0).status, 200, "the new key at {edge}");
        }
        again
    });
    println!("leader killed: writes again after {}; {served} requests meanwhile, none failed", seconds(gap));
    assert!(gap < WRITE_GAP, "{gap:?}");

    mesh.start(&format!("control-{killed}"));
    let back = until("the killed node back as a follower", || {
        mesh.status(killed).is_some_and(|status| status["node"]["role"] == "follower" && status["node"]["revision"].as_u64() > Some(0))
    });
    println!("leader killed: restarted, and a follower again after {}", seconds(back));
    assert_eq!(mesh.ask("edge-eu-1", &key).status, 200);
}

#[test]
fn a_region_that_is_cut_off_serves_on_and_catches_up() {
    let edges = ["edge-eu-1", "edge-us-1"];
    let Some(mesh) = mesh(&edges) else { return };
    let ((key, gap, healed), served) = Steady::during(&mesh, &edges, PAUSE, || {
        mesh.wan().isolate("us", true);
        let (key, gap) = write_again(&mesh, "eu", &[1, 3], "while-cut");
        caught_up(&mesh, &["edge-eu-1"], 1);
        assert_eq!(mesh.ask("edge-eu-1", &key).status, 200, "the new key on this side");
        // Its own control node is there, but has no quorum: word from it counts as old, and nobody is called unknown any more.
        let undecided = undecidable(&mesh, "edge-us-1");
        println!("region cut off: its edge calls no key unknown any more after {}", seconds(undecided));
        assert_503(&mesh.ask("edge-us-1", &key));
        mesh.wan().isolate("us", false);
        let healed = caught_up(&mesh, &["edge-us-1"], 1);
        (key, gap, healed)
    });
    println!("region cut off: the other side wrote after {}, caught up {} after healing", seconds(gap), seconds(healed));
    println!("region cut off: {served} requests on both sides meanwhile, none failed");
    assert_eq!(mesh.ask("edge-us-1", &key).status, 200);
    // Once more in both directions: a write through the node that was cut off.
    let (_, gap) = write_again(&mesh, "us", &[2], "healed");
    println!("region cut off: writes through its node {} later", seconds(gap));
}

#[test]
fn without_a_control_plane_a_restarted_edge_serves_known_keys_and_judges_no_unknown_one() {
    let edges = ["edge-eu-1", "edge-us-1"];
    let Some(mesh) = mesh(&edges) else { return };
    let kept = std::path::PathBuf::from(mesh.file("edge-eu-1"));
    until("the last good state on disk", || std::fs::read_dir(&kept).is_ok_and(|files| files.count() > 0));
    let unknown = "tg_live_0123456789_nobody";
    let ((), served) = Steady::during(&mesh, &["edge-us-1"], PAUSE, || {
        let gone = Instant::now();
        for node in 1..=3 {
            mesh.kill(&format!("control-{node}"));
        }
        let (code, took) = mesh.stop("edge-eu-1");
        assert_eq!(code, Some(0), "the edge stops in order");
        println!("no control plane: edge stopped in {}", seconds(took));
        mesh.start("edge-eu-1");
        let ready = until("the edge ready from what it kept", || mesh.operations("edge-eu-1", "/readyz").status == 200);
        println!("no control plane: edge restarted and ready from its last good state after {}", seconds(ready));
        for edge in edges {
            assert_eq!(mesh.ask(edge, &mesh.key).status, 200, "{edge}: {}", mesh.said(edge));
            undecidable(&mesh, edge);
            println!("no control plane: {edge} answers an unknown key with 503 from {} on", seconds(gone.elapsed()));
            assert_503(&mesh.ask(edge, unknown));
            assert_eq!(mesh.ask(edge, &mesh.key).status, 200, "{edge}: {}", mesh.said(edge));
        }
    });
    println!("no control plane: {served} requests of known keys meanwhile, none failed");
    for node in 1..=3 {
        mesh.start(&format!("control-{node}"));
    }
    let (key, gap) = write_again(&mesh, "eu", &[1, 2, 3], "back");
    let known = caught_up(&mesh, &edges, 1);
    for edge in edges {
        assert_eq!(mesh.ask(edge, &key).status, 200, "the new key at {edge}");
    }
    println!("no control plane: all nodes back, writes after {}, known at the edges {} later", seconds(gap), seconds(known));
    assert_eq!(mesh.ask("edge-eu-1", unknown).status, 401, "decided again");
}

/// What `tidegate health` says about `near` in a region, asked at a node.
fn health_row(mesh: &Mesh, node: usize, region: &str) -> Option<serde_json::Value> {
    let asked = mesh.run("eu", &mesh.admin(node), &["health", "--provider", "near", "--json"]);
    let table: serde_json::Value = serde_json::from_slice(&asked.stdout).ok()?;
    let rows = table["rows"].as_array()?;
    rows.iter().find(|row| row["provider"] == "near" && row["region"] == region).cloned()
}

/// A provider fails hard in one region, where edges open their breakers after five failures each: how long until every edge of the region has
/// the region's word, and until an edge of the other region, which does not use it, chooses it less. And back.
fn known_everywhere(near: &[&str], far: &[&str], verdict: &str, rule: &str) {
    let Some(mesh) = mesh(&[near, far].concat()) else { return };
    let up = |edge: &str| mesh.metric(edge, "tidegate_provider_up", "near");
    let expected = if verdict == "ejected" { 0.0 } else { 0.5 };
    let sim = mesh.sim("eu", "near");
    let ((), served) = Steady::during(&mesh, near, PAUSE, || {
        // Both of its nodes: one that has just started waits for its edges before it concludes anything.
        for node in [1, 3] {
            until(format_args!("the region to know its edges and a working provider at control-{node}"), || {
                health_row(&mesh, node, "eu").is_some_and(|row| {
                    row["verdict"] == "healthy"
                        && row["samples"].as_u64() >= Some(50)
                        && row["reporters"].as_u64() == Some(near.len() as u64)
                })
            });
        }
        // An edge goes by what its own region has seen lately, if it has.
        until("the other region to have forgotten its first requests", || {
            health_row(&mesh, 2, "us").is_none_or(|row| row["samples"].as_u64() == Some(0))
        });
        let success = |edge: &str| mesh.considered(edge, &mesh.key, "near", "spare").and_then(|seen| seen["success"].as_f64());
        assert!(success(far[0]).is_some_and(|success| success > 0.9));
        sim.set_fault(Some(Fault::Status { status: 500, retry_after: None }));
        let began = Instant::now();
        for edge in near {
            until(format_args!("the region's word at {edge}"), || up(edge) == Some(expected));
            println!("provider down: {verdict} at {edge} after {}", seconds(began.elapsed()));
        }
        for edge in far {
            until(format_args!("less of it at {edge}"), || success(edge).is_some_and(|success| success < 0.85));
            println!("provider down: chosen less at {edge} after {}", seconds(began.elapsed()));
        }
        for (node, rule) in [(1, rule), (2, "agreed"), (3, rule)] {
            let is_it = |row: &serde_json::Value| row["verdict"] == verdict && (row["rule"] == rule || verdict == "ejected");
            until(format_args!("`{verdict}` by `{rule}` at control-{node}"), || {
                health_row(&mesh, node, "eu").is_some_and(|row| is_it(&row))
            });
        }
        println!("{}", mesh.command("us", &mesh.admin(2), &["health"]));
        assert_eq!(
            far.iter().map(|edge| up(edge)).collect::<Vec<_>>(),
            vec![Some(1.0); far.len()],
            "one region's word is no verdict elsewhere"
        );

        sim.set_fault(None);
        let (mended, before) = (Instant::now(), sim.stats().requests);
        for edge in near {
            until(format_args!("{edge} to hear that it is back"), || up(edge) == Some(1.0));
        }
        let probes = sim.stats().requests - before;
        println!("provider down: back after {} and {probes} requests to it", seconds(mended.elapsed()));
        until("it to be used again", || sim.stats().requests > before + probes + 20);
    });
    println!("provider down: {served} requests meanwhile, none failed");
}

#[test]
fn a_provider_that_fails_in_one_region_is_degraded_by_two_edges_and_known_in_the_other() {
    known_everywhere(&["edge-eu-1", "edge-eu-2"], &["edge-us-1", "edge-us-2"], "degraded", "few edges");
}

#[test]
fn a_provider_that_fails_in_one_region_is_ejected_by_four_edges_and_known_in_the_other() {
    known_everywhere(&["edge-eu-1", "edge-eu-2", "edge-eu-3", "edge-eu-4"], &["edge-us-1"], "ejected", "quorum");
}

/// Every certificate of the mesh and then its authority are replaced while callers call: first everybody believes both authorities, then the
/// leaves change, then the old authority goes. Nobody restarts.
#[test]
fn certificates_and_their_authority_are_replaced_while_everything_runs() {
    let edges = ["edge-eu-1", "edge-us-1"];
    let members = ["control-1", "control-2", "control-3", "edge-eu-1", "edge-us-1"];
    let Some(mesh) = mesh(&edges) else { return };
    let new = mesh.file("certs-new");
    mesh.command("eu", "", &["certs", "dev", "--out", &new, "--regions", "eu,us", "--control", "3", "--edges", "4"]);
    // As a mounted secret changes: each file at once.
    let put = |member: &str, file: &str, bytes: &[u8]| {
        let (next, at) = (mesh.file(&format!("certs/{member}/{file}.next")), mesh.file(&format!("certs/{member}/{file}")));
        std::fs::write(&next, bytes).unwrap();
        std::fs::rename(&next, &at).unwrap();
    };
    let read = |path: String| std::fs::read(path).unwrap();
    // Everybody looks, and says what it took over.
    let looked = |what: &str, since: &[usize]| {
        for member in members {
            let id = mesh.id(member).to_string();
            assert!(std::process::Command::new("kill").args(["-HUP", &id]).status().unwrap().success());
        }
        for (member, since) in members.iter().zip(since) {
            until(format_args!("`{what}` from {member}"), || mesh.said(member).matches(what).count() > *since);
        }
    };
    let counted = |what: &str| members.map(|member| mesh.said(member).matches(what).count());
    let processes = members.map(|member| mesh.id(member));
    let (was, old) = (counted("authorities of the mesh changed"), read(mesh.file("certs/control-1/ca.crt")));
    let fresh = read(format!("{new}/control-1/ca.crt"));
    assert_ne!(old, fresh);
    let (during, served) = Steady::during(&mesh, &edges, PAUSE, || {
        let began = Instant::now();
        for member in members.iter().chain(&["admin"]) {
            put(member, "ca.crt", &[&old[..], &fresh[..]].concat());
        }
        looked("authorities of the mesh changed", &was);
        let renewed = counted("a renewed identity is in use");
        for member in members.iter().chain(&["admin"]) {
            for file in ["tls.key", "tls.crt"] {
                put(member, file, &read(format!("{new}/{member}/{file}")));
            }
        }
        looked("a renewed identity is in use", &renewed);
        let (key, _) = write_again(&mesh, "eu", &[1, 2, 3], "by-new-leaves");
        caught_up(&mesh, &edges, 1);
        let changed = counted("authorities of the mesh changed");
        for member in members.iter().chain(&["admin"]) {
            put(member, "ca.crt", &fresh);
        }
        looked("authorities of the mesh changed", &changed);
        (key, began.elapsed())
    });
    let (key, during) = during;
    println!("leaves and authority replaced in {}; {served} requests meanwhile, none failed", seconds(during));
    assert_eq!(members.map(|member| mesh.id(member)), processes, "nobody restarted");
    // New connections of every kind, by the new certificates alone: of a node that comes back, and of an edge.
    for member in ["control-3", "edge-us-1"] {
        mesh.kill(member);
        mesh.start(member);
    }
    until("edge-us-1 ready", || mesh.operations("edge-us-1", "/readyz").status == 200);
    let (late, _) = write_again(&mesh, "eu", &[3, 2, 1], "by-the-new-authority");
    caught_up(&mesh, &edges, 1);
    for edge in edges {
        for key in [&key, &late] {
            assert_eq!(mesh.ask(edge, key).status, 200, "{edge}");
        }
    }
}
