//! Arguments and results: every type goes in and comes out as it was.

use serde_json::{Value, json};

use super::super::{Check, Needs, Stage, same};

pub const CHECKS: &[Check] = &[
    Check { name: "values: nil, true and false", methods: &["echo"], needs: Needs::Nothing, run: plain },
    Check { name: "values: whole numbers up to 2^53", methods: &["echo"], needs: Needs::Nothing, run: whole },
    Check { name: "values: whole numbers from -2^63 to 2^64-1", methods: &["echo"], needs: Needs::Nothing, run: large },
    Check { name: "values: doubles", methods: &["echo"], needs: Needs::Nothing, run: doubles },
    Check {
        name: "values: text with escapes, NUL and all planes",
        methods: &["echo"],
        needs: Needs::Nothing,
        run: text,
    },
    Check { name: "values: bytes", methods: &["echo"], needs: Needs::Nothing, run: bytes },
    Check { name: "values: lists and maps of every length", methods: &["echo"], needs: Needs::Nothing, run: lengths },
    Check { name: "values: 64 levels", methods: &["echo"], needs: Needs::Nothing, run: deep },
    Check { name: "values: 4 MiB", methods: &["echo"], needs: Needs::Nothing, run: big },
];

fn echoed(stage: &Stage, values: impl IntoIterator<Item = Value>) -> Result<(), String> {
    let mut worker = stage.worker()?;
    for value in values {
        let result = worker.result("echo", json!([value]))?;
        same("what came back", &result, &value)?;
    }
    Ok(())
}

fn plain(stage: &Stage) -> Result<(), String> {
    echoed(stage, [json!(null), json!(true), json!(false), json!([null, true, false])])
}

fn whole(stage: &Stage) -> Result<(), String> {
    // Around every border of MessagePack's integers.
    let borders = [0, 1, 31, 32, 127, 128, 255, 256, 32_767, 32_768, 65_535, 65_536, (1 << 31) - 1, 1 << 31];
    let more = [(1 << 32) - 1, 1 << 32, (1 << 53) - 1];
    let all: Vec<i64> = borders.into_iter().chain(more).flat_map(|n: i64| [n, -n, -n - 1]).collect();
    echoed(stage, [json!(all)])?;
    echoed(stage, all.into_iter().map(Value::from))
}

fn large(stage: &Stage) -> Result<(), String> {
    echoed(stage, [json!(i64::MIN), json!(i64::MIN + 1), json!(i64::MAX), json!(u64::MAX), json!((1_u64 << 53) + 1)])
}

fn doubles(stage: &Stage) -> Result<(), String> {
    let all = [0.5, -0.1, 1e-7, 5e-324, f64::MAX, f64::MIN_POSITIVE, 1.5e300, 123_456_789.123_456_79];
    echoed(stage, all.into_iter().map(Value::from))
}

fn text(stage: &Stage) -> Result<(), String> {
    let controls: String = (0..=0x20_u8).map(char::from).collect();
    let texts = [
        "",
        "\u{0}",
        &controls,
        "\"\\/ \u{8}\u{c}\n\r\t",
        "é ü ß",
        "\u{7f}\u{80}\u{7ff}\u{800}\u{d7ff}\u{e000}\u{ffff}\u{10000}\u{10ffff}\u{1f600}",
        "\u{2028}\u{2029}\u{feff}",
        "{\"$bytes\":\"AA==\"}",
    ];
    echoed(stage, texts.map(Value::from))?;
    // Around every border of MessagePack's text.
    echoed(stage, [31, 32, 255, 256, 65_535, 65_536].map(|length| json!("x".repeat(length))))
}

fn bytes(stage: &Stage) -> Result<(), String> {
    let of = |base64: &str| json!({ "$bytes": base64 });
    echoed(stage, [of(""), of("AA=="), of("AAH/"), of("/v8="), json!([of("/+8="), {"k": of("AAAA")}])])?;
    // 255, 256 and 65,536 bytes of zeros: the borders of MessagePack.
    echoed(
        stage,
        [of(&"A".repeat(340)), of(&format!("{}==", "A".repeat(342))), of(&format!("{}==", "A".repeat(87_382)))],
    )?;
    // An object that is not the one for bytes.
    echoed(stage, [json!({"$bytes": "not alone", "x": 1}), json!({"bytes": "AA=="})])
}

fn lengths(stage: &Stage) -> Result<(), String> {
    let list = |length: usize| json!((0..length).collect::<Vec<_>>());
    let map = |length: usize| Value::Object((0..length).map(|n| (format!("key {n}"), json!(n))).collect());
    echoed(stage, [0, 1, 15, 16, 255, 256, 65_535, 65_536].map(list))?;
    echoed(stage, [0, 1, 15, 16, 255, 256, 65_535, 65_536].map(map))?;
    echoed(stage, [json!({"": {"": []}, "\u{0}": 1, "é": {"a": [{}, []]}})])
}

fn deep(stage: &Stage) -> Result<(), String> {
    // The list of arguments is one level.
    let nested = |levels: usize, more: fn(Value) -> Value| (0..levels).fold(json!(1), |inner, _| more(inner));
    echoed(stage, [nested(63, |inner| json!([inner])), nested(63, |inner| json!({ "k": inner }))])
}

fn big(stage: &Stage) -> Result<(), String> {
    // Text that JSON does not lengthen, in pieces that tell a mistake in the middle.
    let text: String = (0..(4 << 20) / 8).map(|n| format!("{n:08}")).collect();
    echoed(stage, [json!(text), json!("behind it")])
}
