//! SSRF: no spelling of a base URL leads to an address that is not public.

use std::net::Ipv4Addr;

use proptest::prelude::*;
use tidegate_wire::{Dialect, ProviderInfo};

use super::*;
use crate::config::ProviderConfig;

fn provider(base_url: &str) -> ProviderConfig {
    ProviderConfig {
        info: ProviderInfo::new("p", "P", base_url, Dialect::OpenaiChat),
        credentials: Vec::new(),
        extra_roots: Vec::new(),
        only_extra_roots: false,
        allow_plain_http: true,
        allow_private_addresses: false,
        http: UpstreamHttp::Http1,
        connect_timeout: Duration::from_secs(30),
        idle_connections: 1,
        idle_timeout: Duration::from_secs(1),
        propagate_trace: false,
    }
}

/// An address in one of the ranges that are nobody's business.
fn not_public() -> impl Strategy<Value = Ipv4Addr> {
    let within = |network: [u8; 4], bits: u32| {
        let network = Ipv4Addr::from(network).to_bits();
        (0..=u32::MAX >> bits).prop_map(move |host| Ipv4Addr::from_bits(network | host))
    };
    prop_oneof![
        within([127, 0, 0, 0], 8),
        within([10, 0, 0, 0], 8),
        within([172, 16, 0, 0], 12),
        within([192, 168, 0, 0], 16),
        within([169, 254, 0, 0], 16),
        within([100, 64, 0, 0], 10),
        within([0, 0, 0, 0], 8),
        within([198, 18, 0, 0], 15),
        within([224, 0, 0, 0], 3),
        Just(Ipv4Addr::new(169, 254, 169, 254)),
    ]
}

/// Ways to write an address that some reader of URLs somewhere takes for it.
fn spellings(v4: Ipv4Addr) -> Vec<String> {
    let [a, b, c, d] = v4.octets();
    let (bits, low) = (v4.to_bits(), u32::from(c) << 8 | u32::from(d));
    let (high, low16) = (bits >> 16, bits & 0xffff);
    let full_width: String = v4.to_string().chars().map(|c| c.to_digit(10).and_then(|d| char::from_u32(0xff10 + d)).unwrap_or(c)).collect();
    vec![
        format!("{v4}"),
        format!("{v4}."),
        format!("{bits}"),
        format!("{bits:#x}"),
        format!("{bits:#o}").replace("0o", "0"),
        format!("{a:#x}.{b:#x}.{c:#x}.{d:#x}"),
        format!("{a:#o}.{b:#o}.{c:#o}.{d:#o}").replace("0o", "0"),
        format!("{a}.{b}.{low}"),
        format!("{a}.{}", bits & 0xff_ffff),
        format!("[::ffff:{v4}]"),
        format!("[::ffff:{high:x}:{low16:x}]"),
        format!("[0:0:0:0:0:FFFF:{high:X}:{low16:X}]"),
        format!("[::{v4}]"),
        format!("[64:ff9b::{v4}]"),
        format!("[2002:{high:x}:{low16:x}::]"),
        format!("[fe80::{v4}]"),
        format!("user@{v4}"),
        format!("user:secret@{v4}"),
        format!("example.org@{v4}"),
        format!("{v4}#@example.org"),
        format!("{v4}\\@example.org"),
        full_width,
        format!("{a}%2e{b}%2e{c}%2e{d}"),
        format!("{a}。{b}。{c}。{d}"),
    ]
}

/// `Err` says that it got as far as a socket, or further.
async fn stays_inside(host: &str) -> Result<(), String> {
    // Port 0 cannot be connected to, so that a failure of this test stays on the machine.
    let url = format!("http://{host}:0/v1");
    let Ok(origin) = Origin::of(&provider(&url), None) else {
        return Ok(());
    };
    let Ok(addresses) = resolve(&origin).await else {
        return Ok(());
    };
    match allowed(&origin, &addresses) {
        Err(error) if matches!(error.stage, ConnectStage::Address | ConnectStage::Resolve) => Ok(()),
        other => Err(format!("{url}: host {} resolves to {addresses:?}: {other:?}", origin.host)),
    }
}

proptest! {
    #[test]
    fn no_spelling_of_a_private_address_is_connected_to(v4 in not_public()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for host in spellings(v4) {
            let outcome = runtime.block_on(stays_inside(&host));
            prop_assert!(outcome.is_ok(), "{}: {:?}", host, outcome);
        }
    }

    /// What a name resolves to is chosen by whoever runs its zone.
    #[test]
    fn of_a_names_addresses_only_the_public_ones_are_kept(private in prop::collection::vec(not_public(), 1..5), public in prop::collection::vec(Just([1, 1, 1, 1]), 0..3)) {
        let origin = Origin::of(&provider("http://api.example.org/v1"), None).unwrap();
        let ours: Vec<SocketAddr> = public.iter().map(|octets| SocketAddr::from((*octets, 443))).collect();
        let mut all: Vec<SocketAddr> = private.iter().map(|v4| SocketAddr::from((*v4, 443))).collect();
        all.extend(&ours);
        match allowed(&origin, &all) {
            Ok(kept) => prop_assert_eq!(kept, ours),
            Err(error) => prop_assert!(ours.is_empty() && error.stage == ConnectStage::Address),
        }
    }
}

#[test]
fn a_public_address_passes_and_permission_opens_the_rest() {
    let origin = Origin::of(&provider("http://1.1.1.1:0/v1"), None).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let addresses = runtime.block_on(resolve(&origin)).unwrap();
    assert_eq!(allowed(&origin, &addresses).unwrap(), addresses);
    let permitted = ProviderConfig { allow_private_addresses: true, ..provider("http://127.0.0.1:0/v1") };
    let origin = Origin::of(&permitted, None).unwrap();
    let addresses = runtime.block_on(resolve(&origin)).unwrap();
    assert_eq!(allowed(&origin, &addresses).unwrap(), addresses);
}
