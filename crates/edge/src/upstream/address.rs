//! Which addresses a provider may resolve to (SSRF hygiene).
//!
//! The check runs on the resolved address that is then connected to, so there is no second look-up that could answer differently.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// True for addresses of the public Internet: not loopback, private, link-local (cloud metadata included), carrier-grade NAT,
/// unique-local, multicast, documentation or otherwise reserved, also when wrapped in an IPv6 form.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let shared_nat = a == 100 && (64..128).contains(&b); // RFC 6598
    let protocol_assignments = a == 192 && b == 0 && c == 0; // RFC 6890
    let benchmarking = a == 198 && (b == 18 || b == 19); // RFC 2544
    let relay = a == 192 && b == 88 && c == 99; // RFC 7526, 6to4 relays, withdrawn
    let reserved = a == 0 || a >= 240;
    !(address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || address.is_documentation()
        || shared_nat
        || protocol_assignments
        || benchmarking
        || relay
        || reserved)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(v4) = embedded_v4(address) {
        return is_public_v4(v4);
    }
    let segments = address.segments();
    // All that the registry has given out as global unicast (RFC 4291, section 2.4). Loopback, unique-local, link-local, site-local,
    // multicast and whatever will be reserved later lie outside.
    let global = segments[0] & 0xe000 == 0x2000;
    let protocol_assignments = segments[0] == 0x2001 && segments[1] < 0x0200; // RFC 2928: Teredo, ORCHID, benchmarking, anycasts
    let documentation = segments[0] == 0x2001 && segments[1] == 0x0db8 || segments[0] == 0x3fff && segments[1] < 0x1000; // RFC 3849, 9637
    global && !protocol_assignments && !documentation
}

/// The IPv4 address inside a mapped, compatible, NAT64 (RFC 6052) or 6to4 (RFC 3056) address.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    if let Some(v4) = address.to_ipv4_mapped() {
        return Some(v4);
    }
    let s = address.segments();
    let join = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        Ipv4Addr::new(a, b, c, d)
    };
    match s {
        [0x0064, 0xff9b, 0, 0, 0, 0, high, low] => Some(join(high, low)),
        [0x2002, high, low, ..] => Some(join(high, low)),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => Some(join(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::is_public;

    #[test]
    fn only_public_addresses_pass() {
        let refused = [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "192.0.0.8",
            "192.88.99.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "::127.0.0.1",
            "2001:db8::1",
            "3fff::1",
            "2001::1",
            "2001:2::1",
            "fec0::1",
            "64:ff9b:1::1.1.1.1",
            "100::1",
            "4000::1",
            "5f00::1",
        ];
        for text in refused {
            let address = text.parse().expect("a literal of this table");
            assert!(!is_public(address), "{text} must be refused");
        }
        for text in ["1.1.1.1", "104.18.6.192", "2606:4700::6812:7c0", "::ffff:1.1.1.1", "64:ff9b::101:101"] {
            let address = text.parse().expect("a literal of this table");
            assert!(is_public(address), "{text} must pass");
        }
    }
    proptest! {
        #[test]
        fn an_address_is_judged_the_same_in_every_wrapping(bits in any::<u32>()) {
            let v4 = Ipv4Addr::from_bits(bits);
            let [high, low] = [(bits >> 16) as u16, bits as u16];
            let wrapped = [
                v4.to_ipv6_mapped(),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
            ];
            for v6 in wrapped {
                prop_assert_eq!(is_public(IpAddr::V6(v6)), is_public(IpAddr::V4(v4)), "{} as {}", v4, v6);
            }
            // The compatible form shares its beginning with `::1`; it may be refused, but never let through what is refused as IPv4.
            let compatible = Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low);
            prop_assert!(!is_public(IpAddr::V6(compatible)) || is_public(IpAddr::V4(v4)), "{}", compatible);
        }

        #[test]
        fn nothing_outside_global_unicast_passes(bits in any::<u128>()) {
            let v6 = Ipv6Addr::from_bits(bits);
            let carries_v4 = v6.to_ipv4_mapped().is_some() || v6.segments()[..2] == [0x64, 0xff9b] || v6.segments()[..6] == [0; 6];
            prop_assert!(!is_public(IpAddr::V6(v6)) || carries_v4 || bits >> 125 == 1, "{}", v6);
        }
    }
}
