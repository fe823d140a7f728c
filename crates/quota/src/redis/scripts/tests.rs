use super::*;

/// A changed digest is a changed protocol with the edges of the version before, which share the server during a roll-out: reservations
/// made by one are settled by the other. Make sure that still works, then pin the new digest.
#[test]
fn the_scripts_are_the_ones_that_were_released() {
    let scripts = Scripts::new(ClockSource::Server);
    let digests = [&scripts.reserve, &scripts.settle, &scripts.give_back, &scripts.renew, &scripts.snapshot, &scripts.restore];
    let digests = digests.map(|script| script.digest.as_str());
    let released = ["?"];
    assert_eq!(digests.as_slice(), released.as_slice(), "reserve, settle, return, renew, snapshot, restore");
}

#[test]
fn only_the_server_tells_the_time_in_production() {
    let scripts = Scripts::new(ClockSource::Server);
    assert!(scripts.reserve.text.contains("redis.call('TIME')"));
    assert!(!scripts.reserve.text.contains("tonumber(ARGV[1])"));
}
