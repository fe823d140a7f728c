use super::*;

/// A changed digest is a changed protocol with the edges of the version before, which share the server during a roll-out: reservations
/// made by one are settled by the other. Make sure that still works, then pin the new digest.
#[test]
fn the_scripts_are_the_ones_that_were_released() {
    let scripts = Scripts::new(ClockSource::Server);
    let digests = [&scripts.reserve, &scripts.settle, &scripts.give_back, &scripts.renew, &scripts.snapshot, &scripts.restore];
    let digests = digests.map(|script| script.digest.as_str());
    let released = [
        "dbdf52f285e35aac3523ac468c460ce8ee0bf83b",
        "9ccdbc6662c05d70f0a3590e1f7169fccf721a30",
        "d9097ee93cd1280666e685dbcad2a88759b1579c",
        "9f4332d22ed7c709bfef86b0128ec1c9911490d1",
        "d7b588cd204f314e5f8161a68837f732572ac648",
        "d248d3542b0954754671247da836ef2bb66f8b29",
    ];
    assert_eq!(digests.as_slice(), released.as_slice(), "reserve, settle, return, renew, snapshot, restore");
}

#[test]
fn only_the_server_tells_the_time_in_production() {
    let scripts = Scripts::new(ClockSource::Server);
    assert!(scripts.reserve.text.contains("redis.call('TIME')"));
    assert!(!scripts.reserve.text.contains("tonumber(ARGV[1])"));
}
