use super::problem::Severity;
use super::*;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn environment(variables: &[(&str, &str)]) -> Environment {
    Environment(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
}

fn checked(text: &str, environment: &Environment) -> (Option<Config>, Report) {
    parse("tidegate.yaml", text, environment, Secrets::Optional)
}

/// The configuration, or a panic that shows the report.
fn good(text: &str, environment: &Environment) -> Config {
    let (config, report) = checked(text, environment);
    config.unwrap_or_else(|| panic!("{}", report.render(false)))
}

fn messages(text: &str) -> Vec<String> {
    checked(text, &Environment::default()).1.lines().collect()
}

/// Errors only, so that unset variables of small examples do not count.
fn errors(text: &str) -> Vec<String> {
    let (_, report) = checked(text, &Environment::default());
    let lines = report.problems.iter().zip(report.lines());
    lines.filter(|(problem, _)| problem.severity == Severity::Error).map(|(_, line)| line).collect()
}

/// `TIDEGATE_UPDATE_GOLDEN=1 cargo test -p tidegate` writes the expected report anew.
#[test]
fn a_broken_file_gets_all_its_problems_reported_at_once() {
    let golden = format!("{ROOT}/tests/golden/broken.report");
    let text = std::fs::read_to_string(format!("{ROOT}/tests/golden/broken.yaml")).unwrap();
    let (config, report) = parse("broken.yaml", &text, &Environment::default(), Secrets::Optional);
    assert!(config.is_none());
    assert!(report.errors() >= 30, "{} errors", report.errors());
    let rendered = report.render(false);
    if std::env::var_os("TIDEGATE_UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, &rendered).unwrap();
    }
    let expected = std::fs::read_to_string(&golden).unwrap_or_default();
    assert!(expected == rendered, "the report differs from {golden}:\n{rendered}");
    assert!(!rendered.contains("somebody-pasted") && !rendered.contains("sk-1234"), "a secret is shown");
}

#[test]
fn the_example_is_good() {
    let path = format!("{ROOT}/../../docs/examples/tidegate.yaml");
    let (config, report) = load(Path::new(&path), &Environment::default(), Secrets::Optional);
    let config = config.unwrap_or_else(|| panic!("{}", report.render(false)));
    assert_eq!(config.mesh.endpoints.len(), 4);
    assert_eq!(config.mesh.endpoints[3].prices.overrides.len(), 1);
    assert!(report.problems.iter().all(|problem| problem.message.contains("not set") || problem.message.contains("not")), "{report:?}");
}

#[test]
fn an_empty_file_is_an_edge_with_defaults_and_a_warning() {
    let (config, report) = checked("# nothing yet\n", &Environment::default());
    let config = config.unwrap();
    assert_eq!(config.edge.listeners[0].address.to_string(), "127.0.0.1:8080");
    assert_eq!(config.edge.operations.unwrap().to_string(), "127.0.0.1:9090");
    assert_eq!(config.mesh.defaults.max_attempts, 3);
    assert_eq!(report.errors(), 0);
    assert!(report.problems[0].message.contains("every request will be refused"));
}

const SMALL: &str = "
providers: {openai: {credentials: [env:KEY]}}
models: {openai/a: {}}
endpoints:
  - {provider: openai, model: openai/a, context_length: 1000, prices: {prompt: 0.10, completion: \"2.5e-1\"}}
defaults: {anonymous: true}
listeners: [{address: 127.0.0.1:8080}]
";

#[test]
fn prices_are_read_digit_by_digit() {
    let config = good(SMALL, &environment(&[("KEY", "k")]));
    let endpoint = &config.mesh.endpoints[0];
    assert_eq!(endpoint.prices.prompt.picodollars(), 100_000);
    assert_eq!(endpoint.prices.completion.usd_per_million(), "0.25");
    assert_eq!((endpoint.name.as_str(), endpoint.tag.as_str(), endpoint.upstream_model.as_str()), ("openai/a@openai", "openai", "a"));
}

#[test]
fn the_environment_overrides_keys() {
    let variables = [
        ("TIDEGATE__OPERATIONS__ADDRESS", "127.0.0.1:9999"),
        ("TIDEGATE__LISTENERS__0__ADDRESS", "127.0.0.1:8081"),
        ("TIDEGATE__LIMITS__HTTP2_STREAMS", "7"),
        ("TIDEGATE__DEFAULTS__PREFERENCES", "{zdr: true}"),
        ("TIDEGATE_LOG_LEVEL", "not ours"),
        ("KEY", "k"),
    ];
    let config = good(SMALL, &environment(&variables));
    assert_eq!(config.edge.operations.unwrap().port(), 9999);
    assert_eq!(config.edge.listeners[0].address.port(), 8081);
    assert_eq!(config.edge.limits.http2_streams, 7);
    assert!(config.mesh.defaults.preferences.zdr);
}

#[test]
fn a_bad_override_names_its_variable() {
    let variables = environment(&[("TIDEGATE__LIMITS__HEADERZ", "7"), ("TIDEGATE__LISTENERS__4__NAME", "x")]);
    let (_, report) = checked(SMALL, &variables);
    let lines: Vec<String> = report.lines().collect();
    assert!(lines.iter().any(|line| line.starts_with("environment variable TIDEGATE__LIMITS__HEADERZ:1:1: limits.headerz: unknown key")));
    assert!(lines.iter().any(|line| line.contains("the list has 1 items, and none is number `4`")), "{lines:?}");
}

#[test]
fn secrets_are_read_where_they_are_needed() {
    let (config, report) = parse("t", SMALL, &Environment::default(), Secrets::Required);
    assert!(config.is_none());
    assert!(report.problems[0].message.contains("KEY is not set"), "{report:?}");

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "\n  secret-of-a-file \n").unwrap();
    let text = SMALL.replace("env:KEY", &format!("file:{}", file.path().display()));
    let (config, report) = parse("t", &text, &Environment::default(), Secrets::Required);
    let config = config.unwrap_or_else(|| panic!("{}", report.render(false)));
    let secret = config.mesh.providers[0].credentials[0].secret.as_ref().unwrap();
    assert_eq!(secrecy::ExposeSecret::expose_secret(secret), "secret-of-a-file");
    assert_eq!(report.files, [file.path()]);

    std::fs::write(file.path(), " \n").unwrap();
    let (_, report) = parse("t", &text, &Environment::default(), Secrets::Optional);
    assert!(report.problems[0].message.contains("is empty"), "an empty secret is an error everywhere");
}

#[test]
fn pasted_secrets_are_masked_in_every_rendering() {
    let secret = "sk-abcdefghijklmnopqrstuvwxyz0123456789";
    for text in [
        format!("providers: {{openai: {{credentials: [{secret}]}}}}"),
        format!("providers: {{openai: {{credentials: [{{secret: {secret}, nope: 1}}]}}}}"),
        format!("keys_pepper: hunter2-{secret}"),
        format!("presets: {{a: [{secret}]}}"),
        format!("region: [{secret}"),
        format!("keys: {{a: {{digest: {secret}}}}}"),
    ] {
        let (_, report) = checked(&text, &Environment::default());
        assert!(report.has_errors(), "{text}");
        let shown = report.render(false) + &report.render(true) + &report.lines().collect::<String>();
        assert!(!shown.contains(secret) && !shown.contains("hunter2"), "{shown}");
    }
}

#[test]
fn anchors_and_merges_share_values() {
    let text = "
providers: {openai: {credentials: [env:KEY]}}
models: {openai/a: &model {distillable: true}, openai/b: *model}
endpoints:
  - &base {provider: openai, model: openai/a, context_length: 1000, prices: {prompt: 1, completion: 2}}
  - {<<: *base, model: openai/b}
";
    let config = good(text, &Environment::default());
    assert!(config.mesh.models.iter().all(|model| model.distillable));
    assert_eq!(config.mesh.endpoints[1].model, "openai/b");
    assert_eq!(config.mesh.endpoints[1].context_length, 1000);
}

#[test]
fn aliases_inside_aliases_do_not_eat_the_memory() {
    let mut text = String::from("x0: &x0 [a, a, a, a, a, a, a, a, a, a]\n");
    for level in 1..12 {
        let names = vec![format!("*x{}", level - 1); 10].join(", ");
        text.push_str(&format!("x{level}: &x{level} [{names}]\n"));
    }
    assert!(messages(&text).iter().any(|line| line.contains("more than 2000000 values")));
}

#[test]
fn deep_nesting_is_refused_and_does_not_eat_the_stack() {
    let mut linked = String::from("x0: &x0 [a]\n");
    for level in 1..1_000 {
        linked.push_str(&format!("x{level}: &x{level} [*x{}]\n", level - 1));
    }
    let indented: String = (0..5_000).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
    for text in ["[".repeat(100_000), "a: [{".repeat(50_000), "a: [{".repeat(100) + &"}]".repeat(100), indented, linked] {
        assert!(checked(&text, &Environment::default()).1.has_errors());
    }
}

#[test]
fn text_that_is_not_yaml_says_where() {
    let lines = messages("region: eu\nlimits: {idle: 30s\nkeys: [\n");
    assert!(lines[0].starts_with("tidegate.yaml:") && lines[0].contains("not valid YAML"), "{lines:?}");
    let lines = messages("a: 1\n---\nb: 2\n");
    assert!(lines.iter().any(|line| line.contains("a second YAML document")), "{lines:?}");
}

#[test]
fn addresses_of_providers_obey_the_rules() {
    for (url, problem) in [
        ("https://api.example.com/v1", None),
        ("https://api.example.com/v1/", None),
        ("http://127.0.0.1:8000/v1", None),
        ("http://[::1]:8000/v1", None),
        ("http://localhost/v1", None),
        ("http://api.example.com/v1", Some("plain HTTP")),
        ("https://10.0.0.1/v1", Some("internal address")),
        ("https://169.254.169.254/latest", Some("internal address")),
        ("https://[fd00::1]/v1", Some("internal address")),
        ("https://user@example.com/v1", Some("user name")),
        ("ftp://example.com", Some("not an http(s) address")),
        ("example.com/v1", Some("not an http(s) address")),
        ("https:///v1", Some("without a host")),
        ("https://example.com/v1?key=1", Some("not a plain address")),
        ("https://{region}.example.com/v1", Some("placeholder: `{region}`")),
    ] {
        let found = errors(&format!("providers: {{own: {{base_url: \"{url}\", credentials: [none]}}}}"));
        match problem {
            None => assert!(found.is_empty(), "{url}: {found:?}"),
            Some(part) => assert!(found.len() == 1 && found[0].contains(part), "{url}: {found:?}"),
        }
    }
}

#[test]
fn inherited_providers_keep_what_is_not_changed() {
    let text = "
providers:
  openai-eu: {inherits: openai, base_url: \"https://eu.api.openai.com/v1\", credentials: [env:A, env:B], headers: {x-team: search}}
";
    let config = good(text, &environment(&[("A", "a"), ("B", "b")]));
    let provider = &config.mesh.providers[0];
    assert_eq!(provider.info.slug, "openai-eu");
    assert_eq!(provider.info.name, "OpenAI");
    assert_eq!(provider.info.base_url, "https://eu.api.openai.com/v1");
    assert_eq!(provider.info.extra_headers["x-team"], "search");
    assert_eq!(provider.credentials.len(), 2);
}

#[test]
fn what_could_not_be_read_is_not_reported_twice() {
    let text = "
providers:
  openai: {credentials: [env:KEY], nope: 1}
  groq: 7
models: {openai/a: {}}
endpoints:
  - {provider: groq, model: openai/a, context_length: 1000, prices: {prompt: 1, completion: 2}}
  - {provider: openai, model: openai/a, context_length: many, prices: {prompt: 1, completion: 2}}
";
    let found = errors(text);
    assert_eq!(found.len(), 3, "{found:#?}");
}

#[test]
fn the_shipped_catalogue_follows_the_keys_that_are_set() {
    let text = "catalog: shipped\nkeys: {a: {digest: \"blake3:6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85\"}}\n";
    let variables = environment(&[("GROQ_API_KEY", "k"), ("DEEPSEEK_API_KEY", "k")]);
    let (config, report) = parse("t", text, &variables, Secrets::Required);
    let config = config.unwrap_or_else(|| panic!("{}", report.render(false)));
    let providers: Vec<&str> = config.mesh.providers.iter().map(|provider| provider.info.slug.as_str()).collect();
    assert_eq!(providers, ["deepseek", "groq"]);
    assert!(config.mesh.endpoints.len() >= 5);
    assert!(config.mesh.models.iter().all(|model| config.mesh.endpoints.iter().any(|endpoint| endpoint.model == model.slug)));
}

#[test]
fn entries_of_the_file_win_over_shipped_ones() {
    let text = "
catalog: shipped
providers: {groq: {credentials: [env:OWN], base_url: \"https://groq.example.com/v1\"}}
models: {openai/gpt-oss-20b: {name: Ours}}
endpoints:
  - {provider: groq, model: openai/gpt-oss-20b, context_length: 1000, prices: {prompt: 7, completion: 7}}
";
    let config = good(text, &environment(&[("OWN", "k")]));
    let named = |name: &str| config.mesh.endpoints.iter().filter(|endpoint| endpoint.name == name).collect::<Vec<_>>();
    let own = named("openai/gpt-oss-20b@groq");
    assert_eq!(own.len(), 1);
    assert_eq!(own[0].context_length, 1000);
    assert!(!named("openai/gpt-oss-120b@groq").is_empty(), "shipped endpoints of a declared provider");
    assert_eq!(config.mesh.models.iter().find(|model| model.slug == "openai/gpt-oss-20b").unwrap().name, "Ours");
}

#[test]
fn listeners_do_not_take_the_same_port() {
    let found = errors("listeners: [{address: 0.0.0.0:8080}, {address: 127.0.0.1:8080}, {address: 127.0.0.1:9090}]");
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn limits_and_settings_default_to_those_of_the_crates() {
    let config = good("", &Environment::default());
    assert_eq!(format!("{:?}", config.edge.limits), format!("{:?}", tidegate_edge::config::Limits::default()));
    assert_eq!(config.mesh.settings, tidegate_routing::Settings::default());
}

#[test]
fn an_object_store_is_named_whole_and_asked_safely() {
    let file = |objects: &str| {
        format!(
            "ledger: {{ directory: /tmp/ledger, objects: {{ bucket: records, access_key_id: env:ID, secret_access_key: env:SECRET{objects} }} }}"
        )
    };
    let known = environment(&[("ID", "the-id"), ("SECRET", "the-secret")]);
    let objects = good(&file(", prefix: /a/b/, endpoint: \"https://minio:9000/\""), &known).edge.ledger.objects.unwrap();
    assert_eq!(
        (objects.prefix.as_str(), objects.endpoint.as_deref(), objects.region.as_str()),
        ("a/b", Some("https://minio:9000"), "us-east-1")
    );
    assert!(!format!("{objects:?}").contains("the-secret"), "{objects:?}");
    for (objects, complaint) in [
        (", endpoint: \"http://minio:9000\"", "plain text"),
        (", endpoint: \"minio:9000\"", "not the address of a store"),
        (", prefix: \"a/../b\"", "not a prefix"),
        (", rotate_every: 0s", "an object for each record"),
    ] {
        let (_, report) = checked(&file(objects), &known);
        let text = format!("{report:?}");
        assert!(text.contains(complaint), "{objects}: {text}");
    }
    let homeless = "ledger: { objects: { bucket: records, access_key_id: env:ID, secret_access_key: env:SECRET } }";
    assert!(errors(homeless).iter().any(|message| message.contains("exported from the journal")), "{:?}", errors(homeless));
    let nameless = errors("ledger: { directory: /tmp/ledger, objects: { bucket: \"a b\", access_key_id: none, secret_access_key: none } }");
    assert!(nameless.iter().any(|message| message.contains("bucket's name")) && nameless.len() >= 2, "{nameless:?}");
}
