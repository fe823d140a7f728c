use proptest::prelude::*;

use super::*;

fn message(json: &str) -> String {
    Preferences::parse(json).unwrap_err().to_string()
}

#[test]
fn every_field_is_read() {
    let read = Preferences::parse(
        r#"{"order":["a","b/turbo"],"allow_fallbacks":false,"require_parameters":true,"data_collection":"deny","zdr":true,
            "enforce_distillable_text":true,"only":["a"],"ignore":["c"],"quantizations":["fp8"],
            "sort":{"by":"latency","partition":"none"},"preferred_min_throughput":40,
            "preferred_max_latency":{"p50":1,"p99":2.5},"max_price":{"prompt":1,"completion":"2.5","request":0.001},
            "options":{"a":{"x":1}},"experimental":{"deep":[1]}}"#,
    )
    .unwrap();
    assert_eq!(read.order, ["a", "b/turbo"]);
    assert!(!read.fallbacks_allowed());
    assert_eq!(read.require_parameters, Some(true));
    assert_eq!(read.data_collection, Some(DataCollection::Deny));
    assert!(read.zdr && read.enforce_distillable_text);
    assert_eq!(read.only, [["a"]]);
    assert_eq!(read.sort, Some(Sort { by: Some(SortBy::Latency), partition: Partition::None }));
    assert_eq!(read.preferred_min_throughput, Some(Cutoffs { p50: Some(40.0), ..Cutoffs::default() }));
    assert_eq!(read.preferred_max_latency, Some(Cutoffs { p50: Some(1.0), p99: Some(2.5), ..Cutoffs::default() }));
    let price = read.max_price.unwrap();
    assert_eq!((price.prompt, price.completion), (Some(1_000_000), Some(2_500_000)));
    assert_eq!((price.request, price.image), (Some(1_000_000_000), None));
}

#[test]
fn null_is_absent() {
    let nulls = r#"{"order":null,"allow_fallbacks":null,"zdr":null,"only":null,"sort":null,"max_price":{"prompt":null},
                    "preferred_max_latency":null,"quantizations":null,"data_collection":null}"#;
    let read = Preferences::parse(nulls).unwrap();
    assert_eq!(read, Preferences { max_price: Some(MaxPrice::default()), ..Preferences::default() });
    assert_eq!(Preferences::parse("null").unwrap(), Preferences::default());
}

#[test]
fn a_wrong_value_is_named_with_its_path() {
    for (json, expected) in [
        (r#"[]"#, "must be an object, not a list"),
        (r#"{"order":"a"}"#, "`order` must be a list of provider slugs, not `a`"),
        (r#"{"order":["a",1]}"#, "`order[1]` must be a string, not 1"),
        (r#"{"only":[" "]}"#, "`only[0]` must not be empty"),
        (r#"{"allow_fallbacks":"no"}"#, "`allow_fallbacks` must be true or false, not `no`"),
        (r#"{"data_collection":"never"}"#, "`data_collection` must be `allow` or `deny`, not `never`"),
        (r#"{"sort":"speed"}"#, "`sort` must be `price`, `throughput`, `latency` or `exacto`, not `speed`"),
        (r#"{"sort":{"by":"x"}}"#, "`sort.by` must be `price`, `throughput`, `latency` or `exacto`, not `x`"),
        (r#"{"sort":{"partition":"all"}}"#, "`sort.partition` must be `model` or `none`, not `all`"),
        (r#"{"max_price":{"prompt":-1}}"#, "`max_price.prompt` must be a number that is not negative, not -1"),
        (r#"{"max_price":{"prompt":"x"}}"#, "`max_price.prompt` must be a price that is not negative, not `x`"),
        (r#"{"preferred_max_latency":{"p90":"1"}}"#, "`preferred_max_latency.p90` must be a number that is not negative, not `1`"),
    ] {
        assert_eq!(message(json), expected, "{json}");
    }
    assert!(message(r#"{"quantizations":["fp9"]}"#).starts_with("`quantizations[0]` must be one of int4, int8"));
    assert_eq!(Preferences::parse(r#"{"order":["a",1]}"#).unwrap_err().path(), "order[1]");
}

#[test]
fn a_request_narrows_a_policy_and_never_widens_it() {
    let base = Preferences {
        only: vec![vec!["a".into(), "b".into()]],
        ignore: vec!["c".into()],
        zdr: true,
        data_collection: Some(DataCollection::Deny),
        max_price: Some(MaxPrice { prompt: Some(5), completion: Some(5), ..MaxPrice::default() }),
        sort: Some(Sort { by: Some(SortBy::Price), partition: Partition::Model }),
        data_region: Some("eu".into()),
        ..Preferences::default()
    };
    let request = Preferences {
        only: vec![vec!["b".into(), "d".into()]],
        ignore: vec!["c".into(), "e".into()],
        zdr: false,
        data_collection: Some(DataCollection::Allow),
        max_price: Some(MaxPrice { prompt: Some(9), completion: Some(2), ..MaxPrice::default() }),
        sort: Some(Sort { by: Some(SortBy::Latency), partition: Partition::None }),
        ..Preferences::default()
    };
    let merged = Preferences::merge(&base, request.clone());
    assert_eq!(merged.only, [["a", "b"], ["b", "d"]]);
    assert_eq!(merged.ignore, ["c", "e"]);
    assert!(merged.zdr);
    assert_eq!(merged.data_collection, Some(DataCollection::Deny));
    assert_eq!(merged.max_price, Some(MaxPrice { prompt: Some(5), completion: Some(2), ..MaxPrice::default() }));
    assert_eq!(merged.sort, request.sort);
    assert_eq!(merged.data_region.as_deref(), Some("eu"));
}

#[test]
fn merging_with_nothing_changes_nothing() {
    let asked = Preferences::parse(r#"{"order":["a"],"zdr":true,"only":["a"],"max_price":{"prompt":1}}"#).unwrap();
    assert_eq!(Preferences::merge(&Preferences::default(), asked.clone()), asked);
    assert_eq!(Preferences::merge(&asked, Preferences::default()), asked);
}

proptest! {
    #[test]
    fn no_json_makes_the_parser_panic(json in r#"\{("(order|only|sort|max_price|zdr)":(null|1|"x"|\[1\]|\["a"\]|\{"by":2\}|true),?){0,3}\}"#) {
        let _ = Preferences::parse(&json);
    }

    #[test]
    fn privacy_survives_every_merge(base_zdr: bool, zdr: bool, base_deny: bool, deny: bool) {
        let make = |zdr, deny| Preferences {
            zdr,
            data_collection: Some(if deny { DataCollection::Deny } else { DataCollection::Allow }),
            ..Preferences::default()
        };
        let merged = Preferences::merge(&make(base_zdr, base_deny), make(zdr, deny));
        prop_assert_eq!(merged.zdr, base_zdr || zdr);
        prop_assert_eq!(merged.data_collection == Some(DataCollection::Deny), base_deny || deny);
    }
}
