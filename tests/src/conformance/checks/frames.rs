//! How bytes arrive has no meaning: byte by byte, many messages at once, a message in many pieces.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::peer::Under;
use super::super::{Check, Needs, Stage, same, welcome};
use super::requests::accepted;

pub const CHECKS: &[Check] = &[
    Check { name: "stream: byte by byte", methods: &["call"], needs: Needs::Nothing, run: byte_by_byte },
    Check { name: "stream: all at once", methods: &["echo"], needs: Needs::Nothing, run: glued },
    Check { name: "stream: cut in the middle of every message", methods: &["echo"], needs: Needs::Nothing, run: cut },
    Check {
        name: "stream: large behind small, small behind large",
        methods: &["echo"],
        needs: Needs::Nothing,
        run: sizes,
    },
];

/// The other side is given a moment to read what there is: whether it has, cannot be seen from here.
fn a_moment() {
    std::thread::sleep(Duration::from_micros(300));
}

fn byte_by_byte(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.start(&Under::Us)?;
    worker.ready()?;
    let bytes = worker.bytes(&welcome());
    let task = worker.task("call", json!(["w", "m", ["é\u{1f600}"]]));
    worker.expects(&task);
    for byte in bytes.into_iter().chain(worker.bytes(&task)) {
        worker.write(&[byte])?;
        a_moment();
    }
    let call = worker.heard_kind("call")?;
    let mut receipt = accepted("é\u{1f600}");
    receipt["ref"] = call.field("ref").clone();
    for byte in worker.bytes(&json!({ "receipt": receipt })) {
        worker.write(&[byte])?;
        a_moment();
    }
    same("the receipt", worker.heard_kind("done")?.field("result"), &json!("accepted"))
}

fn glued(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.start(&Under::Us)?;
    worker.ready()?;
    let count = stage.ahead(200);
    let tasks: Vec<Value> = (0..count).map(|at| worker.task("echo", json!([at]))).collect();
    let all: Vec<Value> = std::iter::once(welcome()).chain(tasks.iter().cloned()).collect();
    worker.say_all(&all)?;
    for task in &tasks {
        same("the result", worker.heard_kind("done")?.field("result"), &task["task"]["args"][0])?;
    }
    Ok(())
}

fn cut(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    let task = worker.task("echo", json!(["é\u{1f600}"]));
    let length = worker.bytes(&task).len();
    for at in 1..length {
        let mut task = worker.task("echo", json!(["é\u{1f600}"]));
        // All are of one length: ids of one digit are used up by then.
        task["task"]["id"] = json!(1000 + at);
        worker.expects(&task);
        let bytes = worker.bytes(&task);
        let (first, second) = bytes.split_at(at.min(bytes.len() - 1));
        worker.write(first)?;
        a_moment();
        worker.write(second)?;
        same("the result", worker.heard_kind("done")?.field("result"), &json!("é\u{1f600}"))?;
    }
    Ok(())
}

fn sizes(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    for size in [1, 300_000, 0, 70_000, 2, 1 << 20, 5] {
        let text = json!("y".repeat(size));
        same("the result", &worker.result("echo", json!([text]))?, &text)?;
    }
    Ok(())
}
