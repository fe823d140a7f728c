use super::*;

/// A changed digest is a changed protocol with the edges of the version before, which share the server during a roll-out: reservations
/// made by one are settled by the other. Make sure that still works, then pin the new digest.
#[test]
fn the_scripts_are_the_ones_that_were_released() {
    let scripts = Scripts::new(ClockSource::Server);
    let digests = [&scripts.reserve, &scripts.settle, &scripts.give_back, &scripts.renew, &scripts.snapshot, &scripts.restore];
    let digests = digests.map(|script| script.digest.as_str());
    let released = [
        "1c50e083a448d3352c1256e1e6074b39850d71d9",
        "9e070d9d34ec7bb21c73a62aab8a5059a016da86",
        "bfa3cb17ae3cea41d462d701c92a5e89c6492d34",
        "c4adbaf58fc8066ffbb920ad27d91b5d5e3e5681",
        "271e6248a6efdc899ce4daa3b12bb0708095b4c6",
        "22a3bde958d79fbd1c4fb5f4f8592bf5b0c84f8c",
    ];
    assert_eq!(digests.as_slice(), released.as_slice(), "reserve, settle, return, renew, snapshot, restore");
}

#[test]
fn only_the_server_tells_the_time_in_production() {
    let scripts = Scripts::new(ClockSource::Server);
    assert!(scripts.reserve.text.contains("redis.call('TIME')"));
    assert!(!scripts.reserve.text.contains("tonumber(ARGV[1])"));
}
