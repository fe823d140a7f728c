//! What reading a request body costs, by size and by what is in it.
//!
//! ```sh
//! cargo run --release --workspace --example bodies              # microseconds per body, the least of many
//! cargo run --release --workspace --example bodies -- chat 1m   # cases whose name holds all of these words
//! valgrind --tool=callgrind --toggle-collect='*ChatCall*::read' target/release/examples/bodies once chat 1m
//! ```
//!
//! The clock of a busy machine is a rough guide; `once` reads each body a single time, for a tool that counts instructions.

#![expect(clippy::disallowed_methods, reason = "a program that measures asks for its arguments and for the time")]
#![expect(clippy::print_stdout, reason = "its result")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidegate_wire::{ChatCall, Dialect, ProviderCatalog, ReadLimits, Target, encode};

fn main() {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let once = words.iter().position(|word| word == "once").map(|at| words.remove(at)).is_some();
    for (kind, content) in KINDS {
        for (size, bytes) in SIZES {
            let name = format!("{kind} {size}");
            if !words.iter().all(|word| name.split(' ').any(|part| part == word)) {
                continue;
            }
            let body = Bytes::from(content(*bytes));
            read(&body);
            if once {
                continue;
            }
            let least = (0..200).map(|_| timed(&body)).min().unwrap_or_default();
            let rate = body.len() as f64 / least.as_nanos().max(1) as f64;
            println!("{name:<16} {:>9} bytes {:>9.1} µs {rate:>7.2} GB/s", body.len(), least.as_nanos() as f64 / 1e3);
        }
    }
}

fn timed(body: &Bytes) -> Duration {
    let begun = Instant::now();
    read(body);
    begun.elapsed()
}

/// Everything that is done with a request of the provider's own dialect.
fn read(body: &Bytes) {
    let Ok(call) = ChatCall::read(body.clone(), &ReadLimits::default()) else { return println!("a body was refused") };
    black_box((call.prompt_tokens_estimate(), call.conversation_hash(), call.inputs()));
    let Some(provider) = ProviderCatalog::shipped().get("openai") else { return println!("the provider is not known") };
    let target = Target {
        dialect: Dialect::OpenaiChat,
        model: "model-of-the-provider",
        provider,
        supports: &|_| true,
        max_output: None,
        user: None,
        stream: false,
    };
    black_box(encode(&call, &target).is_ok());
}

/// Turns of a conversation, each of about `turn` bytes: words of `text` in no order, so that no branch is foreseen from the last time.
fn conversation(bytes: usize, turn: usize, text: &str) -> String {
    let mut body = String::from(r#"{"model":"a/b","temperature":0.7,"max_tokens":256,"messages":[{"role":"system","content":"Be brief."}"#);
    let words: Vec<&str> = text.split_inclusive(' ').collect();
    let mut state = 1_u64;
    while body.len() < bytes {
        body.push_str(r#",{"role":"user","content":""#);
        let end = (body.len() + turn).min(bytes);
        while body.len() < end {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            body.push_str(words[(state >> 33) as usize % words.len()]);
        }
        body.push_str("\"}");
    }
    body.push_str("]}");
    body
}

/// One picture.
fn picture(bytes: usize) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let data: String = (0..bytes).map(|at| char::from(DIGITS[at.wrapping_mul(at).wrapping_mul(31) / 7 % DIGITS.len()])).collect();
    format!(
        r#"{{"model":"a/b","messages":[{{"role":"user","content":[{{"type":"text","text":"What is this?"}},{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{data}"}}}}]}}]}}"#
    )
}

type Content = fn(usize) -> String;

const KINDS: &[(&str, Content)] = &[
    ("chat", |bytes| conversation(bytes, 4096, CHAT)),
    ("short-turns", |bytes| conversation(bytes, 120, CHAT)),
    ("one-string", |bytes| conversation(bytes, bytes, PLAIN)),
    ("code", |bytes| conversation(bytes, 8192, CODE)),
    ("accents", |bytes| conversation(bytes, 4096, ACCENTS)),
    ("chinese", |bytes| conversation(bytes, 4096, CHINESE)),
    ("picture", picture),
];

const SIZES: &[(&str, usize)] = &[("2k", 2_000), ("20k", 20_000), ("200k", 200_000), ("1m", 1_000_000)];

/// As the bodies of the load generator: an escape or a letter above ASCII every sixty bytes, as people and their tools write.
const CHAT: &str = r#"the request was routed through another \"quoted\" region because latency rose above its usual bound please explain na\u00efve why this function returns C:\\temp early when list is empty line\nbreak and rewrite it so that tabs\there errors are visible to caller résumé 42 → summary of quarterly figures in three sentences without jargon "#;
const PLAIN: &str = "the request was routed through another region because latency rose above its usual bound ";
const CODE: &str =
    r#"fn main() {\n    let names = [\"one\", \"two\"];\n    for name in names {\n        println!(\"{name}\\n\");\n    }\n}\n "#;
const ACCENTS: &str = "les élèves du collège préfèrent naturellement la leçon d'été où l'on récite près de la fenêtre, déjà entrouverte ";
const CHINESE: &str = "请把下面这段话翻译成英文，并且说明为什么这样翻译：昨天晚上下了很大的雨，河水涨了，渡船停了。 ";
