//! Regions with distance between them: network namespaces joined by a forwarder that delays, loses and cuts.
//!
//! Each region is a network namespace with one TUN device; a packet for another region comes out of it, waits for as long as the path is
//! long, and goes into the other region's device. The kernel's own delay queue (`tc netem`) is missing from many kernels, and a proxy would
//! not show what TCP does on a long path. Needs the rights to make namespaces; [`Wan::open`] says so when it may not.

use std::collections::BinaryHeap;
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{cmp, io, thread};

use parking_lot::{Condvar, Mutex};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tun_rs::{DeviceBuilder, SyncDevice};

/// Regions and the paths between them. Dropping it removes the namespaces; end the processes in them first.
pub struct Wan {
    regions: Vec<Region>,
    paths: Arc<Paths>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// Why there are no regions on this machine.
#[derive(Debug, thiserror::Error)]
#[error("network namespaces cannot be made here ({0}); they need root and the `ip` command (Debian and Ubuntu: package iproute2)")]
pub struct Unavailable(String);

/// One direction between two regions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Path {
    /// Time a packet travels.
    pub delay: Duration,
    /// Up to this much more, drawn anew for each packet. TCP sees reordering when it exceeds the gaps between packets.
    pub jitter: Duration,
    /// Share of packets that vanish, 0 to 1.
    pub loss: f64,
    /// Nothing arrives.
    pub cut: bool,
}

struct Region {
    name: String,
    namespace: String,
}

struct Paths {
    regions: usize,
    /// Row: from, column: to.
    table: Mutex<Vec<Path>>,
    queues: Vec<Queue>,
}

/// Packets on their way into one region.
#[derive(Default)]
struct Queue {
    packets: Mutex<BinaryHeap<Packet>>,
    changed: Condvar,
}

struct Packet {
    due: Instant,
    bytes: Box<[u8]>,
}

impl Wan {
    /// Makes a region of each name, `one_way` apart from every other.
    ///
    /// # Errors
    /// When this machine does not let us, with what is missing.
    pub fn open(names: &[&str], one_way: Duration) -> Result<Self, Unavailable> {
        let unavailable = |error: io::Error| Unavailable(error.to_string());
        let path = Path { delay: one_way, jitter: Duration::ZERO, loss: 0.0, cut: false };
        let paths = Arc::new(Paths {
            regions: names.len(),
            table: Mutex::new(vec![path; names.len() * names.len()]),
            queues: names.iter().map(|_| Queue::default()).collect(),
        });
        let mut wan = Self { regions: Vec::new(), paths, stop: Arc::default(), threads: Vec::new() };
        for (at, name) in names.iter().enumerate() {
            static MADE: AtomicU32 = AtomicU32::new(0);
            let namespace = format!("tg-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
            run(&["netns", "add", &namespace]).map_err(unavailable)?;
            // From here on dropping `wan` removes it.
            wan.regions.push(Region { name: (*name).to_owned(), namespace });
            let device = Arc::new(wan.device(at).map_err(unavailable)?);
            wan.forward(at, device);
        }
        Ok(wan)
    }

    /// Address of a host in a region; hosts are numbered from 1.
    ///
    /// # Panics
    /// For a region that does not exist, or a host beyond 16.
    #[must_use]
    pub fn address(&self, region: &str, host: u8) -> Ipv4Addr {
        assert!((1..=HOSTS).contains(&host), "hosts are numbered from 1 to {HOSTS}");
        Ipv4Addr::new(10, SUBNET, self.index(region) as u8, host)
    }

    /// Starts a process inside a region.
    ///
    /// # Errors
    /// As [`Command::spawn`].
    pub fn spawn(&self, region: &str, command: &mut Command) -> io::Result<Child> {
        // The child inherits the namespace of the thread that starts it.
        self.inside(region, || command.spawn())?
    }

    /// Runs `work` on a thread of its own inside a region, and waits for it.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn inside<T: Send>(&self, region: &str, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        let namespace = &self.regions[self.index(region)].namespace;
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                enter(namespace)?;
                Ok(work())
            });
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A single-threaded tokio runtime on a thread inside a region, for callers of a test. It runs `work` to its end.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn block_on<T: Send>(&self, region: &str, work: impl Future<Output = T> + Send) -> io::Result<T> {
        self.inside(region, || Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)))?
    }

    /// Changes the path in one direction.
    pub fn set(&self, from: &str, to: &str, change: impl FnOnce(&mut Path)) {
        let at = self.index(from) * self.paths.regions + self.index(to);
        change(&mut self.paths.table.lock()[at]);
    }

    /// Cuts or heals every path of a region, in both directions.
    pub fn isolate(&self, region: &str, cut: bool) {
        for other in &self.regions {
            if other.name != region {
                self.set(region, &other.name, |path| path.cut = cut);
                self.set(&other.name, region, |path| path.cut = cut);
            }
        }
    }

    fn index(&self, region: &str) -> usize {
        self.regions.iter().position(|known| known.name == region).unwrap_or_else(|| panic!("no region `{region}`"))
    }

    /// The device through which everything leaves and enters a region, and the addresses of its hosts.
    fn device(&self, at: usize) -> io::Result<SyncDevice> {
        let namespace = &self.regions[at].namespace;
        let device = thread::scope(|scope| {
            let worker = scope.spawn(|| {
                enter(namespace)?;
                let device = DeviceBuilder::new().name(DEVICE).build_sync()?;
                device.set_nonblocking(true)?;
                Ok::<_, io::Error>(device)
            });
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        let ip = |arguments: &[&str]| run(&[&["-n", namespace], arguments].concat());
        ip(&["link", "set", "lo", "up"])?;
        ip(&["link", "set", DEVICE, "up", "mtu", "1500"])?;
        for host in 1..=HOSTS {
            ip(&["address", "add", &format!("10.{SUBNET}.{at}.{host}/32"), "dev", "lo"])?;
        }
        ip(&["route", "add", &format!("10.{SUBNET}.0.0/16"), "dev", DEVICE, "src", &format!("10.{SUBNET}.{at}.1")])?;
        Ok(device)
    }

    /// One thread that takes packets out of a region, one that puts them in.
    fn forward(&mut self, at: usize, device: Arc<SyncDevice>) {
        let (paths, stop, reading) = (Arc::clone(&self.paths), Arc::clone(&self.stop), Arc::clone(&device));
        self.threads.push(thread::spawn(move || take(at, &reading, &paths, &stop)));
        let (paths, stop) = (Arc::clone(&self.paths), Arc::clone(&self.stop));
        self.threads.push(thread::spawn(move || paths.queues[at].deliver(&device, &stop)));
    }
}

impl Drop for Wan {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        for region in &self.regions {
            let _ = run(&["netns", "delete", &region.namespace]);
        }
    }
}

/// Reads packets until told to stop.
fn take(from: usize, device: &SyncDevice, paths: &Paths, stop: &AtomicBool) {
    let mut rng = fastrand::Rng::new();
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        let Ok(length) = device.recv(&mut buffer) else {
            let tick = Timespec { tv_sec: 0, tv_nsec: TICK.subsec_nanos().into() };
            let _ = poll(&mut [PollFd::new(device, PollFlags::IN)], Some(&tick));
            continue;
        };
        paths.send(from, &buffer[..length], &mut rng);
    }
}

impl Paths {
    fn send(&self, from: usize, packet: &[u8], rng: &mut fastrand::Rng) {
        // IPv4 only: the destination stands in bytes 16 to 20 of its header (RFC 791).
        let [10, SUBNET, to, _] = packet.get(16..20).unwrap_or_default() else { return };
        let to = usize::from(*to);
        let Some(queue) = self.queues.get(to).filter(|_| packet[0] >> 4 == 4) else { return };
        let path = self.table.lock()[from * self.regions + to];
        if path.cut || rng.f64() < path.loss {
            return;
        }
        let due = Instant::now() + path.delay + path.jitter.mul_f64(rng.f64());
        queue.packets.lock().push(Packet { due, bytes: packet.into() });
        queue.changed.notify_one();
    }
}

impl Queue {
    fn deliver(&self, device: &SyncDevice, stop: &AtomicBool) {
        let mut packets = self.packets.lock();
        while !stop.load(Ordering::Relaxed) {
            let wait = packets.peek().map_or(TICK, |next| next.due.saturating_duration_since(Instant::now()).min(TICK));
            if !wait.is_zero() {
                self.changed.wait_for(&mut packets, wait);
                continue;
            }
            let Some(packet) = packets.pop() else { continue };
            parking_lot::MutexGuard::unlocked(&mut packets, || {
                // A full device loses packets, as a full router does.
                let _ = device.send(&packet.bytes);
            });
        }
    }
}

/// The earliest first.
impl Ord for Packet {
    fn cmp(&self, other: &Self) -> cmp::Ordering {
        other.due.cmp(&self.due)
    }
}

impl PartialOrd for Packet {
    fn partial_cmp(&self, other: &Self) -> Option<cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Packet {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}

impl Eq for Packet {}

/// Moves the calling thread into a namespace, for the rest of its life.
fn enter(namespace: &str) -> io::Result<()> {
    let namespace = File::open(format!("/run/netns/{namespace}"))?;
    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
}

fn run(arguments: &[&str]) -> io::Result<()> {
    let output = Command::new("ip").args(arguments).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(format!("ip {}: {said}", arguments.join(" "))))
}

/// Hosts per region.
const HOSTS: u8 = 16;
/// Second byte of every address: `10.77.<region>.<host>`.
const SUBNET: u8 = 77;
const DEVICE: &str = "tidegate0";
/// How long a thread sleeps before it looks whether it should stop.
const TICK: Duration = Duration::from_millis(50);
