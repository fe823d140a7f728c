use std::sync::Arc;

use super::*;
use crate::testing::{World, endpoint};
use crate::{DataPolicy, EndpointSpec, ModalitySet, ParameterSet, Plan, Quantization, SortBy};

fn intent(world: &World, json: &str) -> Intent {
    let mut intent = world.intent(1);
    intent.preferences = Arc::new(Preferences::parse(json).unwrap());
    intent
}

fn kept(world: &World, intent: &Intent) -> String {
    let kept = filter(&world.snapshot, intent.models[0], intent).kept;
    kept.iter().map(|at| world.name(*at)).collect::<Vec<_>>().join(" ")
}

fn refusal(world: &World, intent: Intent) -> NoRoute {
    Plan::new(&world.snapshot, intent).unwrap_err()
}

/// One plain endpoint and one that differs.
fn pair(change: impl FnOnce(&mut EndpointSpec)) -> World {
    let mut other = endpoint("other", 1_000_000);
    change(&mut other);
    World::new(vec![endpoint("plain", 1_000_000), other])
}

#[test]
fn each_preference_removes_what_it_says() {
    for (change, json, expected) in [
        ((|one| one.drained = true) as fn(&mut EndpointSpec), "{}", "plain"),
        (|_| (), r#"{"only":["other"]}"#, "other"),
        (|_| (), r#"{"only":["OTHER"]}"#, "other"),
        (|_| (), r#"{"only":[]}"#, "plain other"),
        (|_| (), r#"{"ignore":["other"]}"#, "plain"),
        (|_| (), r#"{"order":["other"]}"#, "plain other"),
        (|_| (), r#"{"order":["other"],"allow_fallbacks":false}"#, "other"),
        (|one| one.data.trains = true, r#"{"data_collection":"deny"}"#, "plain"),
        (|one| one.data.retains = true, r#"{"data_collection":"deny"}"#, "plain"),
        (|one| one.data.trains = true, r#"{"data_collection":"allow"}"#, "plain other"),
        (|one| one.data.retains = true, r#"{"zdr":true}"#, "plain"),
        (|one| one.data.trains = true, r#"{"zdr":true}"#, "plain other"),
        (|one| one.quantization = Quantization::Mxfp8, r#"{"quantizations":["fp8"]}"#, "other"),
        (|one| one.quantization = Quantization::Fp4, r#"{"quantizations":["unknown"]}"#, "plain"),
        (|one| one.price.prompt = 900_000, r#"{"max_price":{"prompt":0.95}}"#, "other"),
        (|one| one.price.request = 1, r#"{"max_price":{"request":0}}"#, "plain"),
    ] {
        let world = pair(change);
        assert_eq!(kept(&world, &intent(&world, json)), expected, "{json}");
    }
}

#[test]
fn each_need_removes_what_cannot_meet_it() {
    let seed = ParameterSet::from_name("seed").unwrap();
    let world = pair(|one| {
        one.context_length = 8_000;
        one.max_output = Some(1_000);
        one.inputs = ModalitySet::TEXT | ModalitySet::IMAGE;
        one.parameters = ParameterSet::EMPTY;
    });
    let with = |change: fn(&mut Intent)| {
        let mut intent = intent(&world, "{}");
        change(&mut intent);
        kept(&world, &intent)
    };
    assert_eq!(with(|one| one.needs.prompt_tokens = 8_000), "plain other");
    assert_eq!(with(|one| one.needs.prompt_tokens = 8_001), "plain");
    assert_eq!(with(|one| one.needs.max_output = Some(1_000)), "plain other");
    assert_eq!(with(|one| one.needs.max_output = Some(1_001)), "plain");
    assert_eq!(with(|one| one.needs.inputs = ModalitySet::IMAGE), "other");
    let tight = |one: &mut Intent| {
        one.needs.prompt_tokens = 7_500;
        one.needs.max_output = Some(600);
    };
    assert_eq!(with(tight), "plain", "others have room for prompt and answer");
    let mut required = intent(&world, r#"{"require_parameters":true}"#);
    required.needs.parameters = seed;
    assert_eq!(kept(&world, &required), "plain");
    required.preferences = Arc::default();
    assert_eq!(kept(&world, &required), "plain other", "not required, not filtered");
}

#[test]
fn tools_steer_but_never_exclude_everybody() {
    let tools = ParameterSet::from_name("tools").unwrap();
    let mut with_tools = intent(&pair(|_| ()), "{}");
    with_tools.needs.parameters = tools | ParameterSet::from_name("temperature").unwrap();
    let some = pair(|one| one.parameters = ParameterSet::EMPTY);
    assert_eq!(kept(&some, &with_tools), "plain");
    let mut none = vec![endpoint("plain", 1), endpoint("other", 1)];
    none.iter_mut().for_each(|one| one.parameters = ParameterSet::EMPTY);
    assert_eq!(kept(&World::new(none), &with_tools), "plain other");
}

#[test]
fn refusals_name_the_stage_that_got_furthest() {
    let world = pair(|one| one.data = DataPolicy { trains: true, retains: true });
    for (json, code, words) in [
        (r#"{"only":["nobody"]}"#, NoRouteCode::NoEndpoints, vec!["allowed_providers"]),
        (r#"{"only":["other"],"zdr":true}"#, NoRouteCode::PrivacyRestricted, vec!["allowed_providers", "data_policy:zdr"]),
        (r#"{"zdr":true,"max_price":{"prompt":0.1}}"#, NoRouteCode::ConstraintFiltered, vec!["max_price", "data_policy:zdr"]),
        (r#"{"quantizations":["fp16"]}"#, NoRouteCode::ConstraintFiltered, vec!["quantization"]),
        (
            r#"{"only":["other"],"data_collection":"deny"}"#,
            NoRouteCode::PrivacyRestricted,
            vec!["allowed_providers", "data_policy:training"],
        ),
    ] {
        let refusal = refusal(&world, intent(&world, json));
        assert_eq!(refusal.code, code, "{json}");
        assert_eq!(refusal.excluded_by.as_slice(), words, "{json}");
        assert_eq!(refusal.excluded.len(), 2);
        assert!(refusal.constraint.is_some());
    }
}

#[test]
fn a_constraint_says_what_would_fit() {
    let world = pair(|one| one.max_output = Some(4_096));
    let mut long = intent(&world, "{}");
    long.needs.prompt_tokens = 500_000;
    let refusal_of_length = refusal(&world, long);
    assert_eq!(refusal_of_length.excluded_by.as_slice(), ["context_length"]);
    let constraint = refusal_of_length.constraint.unwrap();
    assert_eq!(constraint.field, "messages");
    assert!(constraint.detail.contains("131072"), "{}", constraint.detail);

    let mut output = intent(&world, r#"{"only":["other"]}"#);
    output.needs.max_output = Some(10_000);
    let constraint = refusal(&world, output).constraint.unwrap();
    assert_eq!(constraint.field, "max_tokens");
    assert!(constraint.detail.contains("4096"), "{}", constraint.detail);
}

#[test]
fn a_policy_and_a_request_intersect_to_nothing() {
    let world = pair(|_| ());
    let policy = Preferences::parse(r#"{"only":["plain"]}"#).unwrap();
    let mut intent = intent(&world, "{}");
    let merged = Preferences::merge(&policy, Preferences::parse(r#"{"only":["other"]}"#).unwrap());
    intent.preferences = Arc::new(merged);
    assert_eq!(refusal(&world, intent).code, NoRouteCode::NoEndpoints);
}

#[test]
fn data_stays_in_its_region() {
    let world = pair(|one| one.region = Some("eu-west-1".into()));
    let mut intent = intent(&world, "{}");
    let inside = |region: &str| Arc::new(Preferences { data_region: Some(region.to_owned()), ..Preferences::default() });
    intent.preferences = inside("eu");
    assert_eq!(kept(&world, &intent), "other");
    intent.preferences = inside("us");
    assert_eq!(refusal(&world, intent).excluded_by.as_slice(), ["data_region"]);
}

#[test]
fn distillation_needs_the_authors_permission() {
    let world = pair(|_| ());
    let asked = intent(&world, r#"{"enforce_distillable_text":true}"#);
    assert_eq!(refusal(&world, asked).code, NoRouteCode::PrivacyRestricted);
}

#[test]
fn a_request_for_no_model_finds_no_model() {
    let world = pair(|_| ());
    let mut nothing = intent(&world, "{}");
    nothing.models.clear();
    nothing.variant_sort = Some(SortBy::Price);
    let refusal = refusal(&world, nothing);
    assert_eq!((refusal.code.as_str(), refusal.code.status()), ("model_not_found", 400));
}
