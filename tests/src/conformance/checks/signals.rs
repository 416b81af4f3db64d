//! Signals in arguments and results, their verbs, and the flag of a task that is not wanted any more.

use serde_json::{Value, json};

use super::super::peer::{Peer, Said};
use super::super::{Check, Needs, Stage, result_of, same};

pub const CHECKS: &[Check] = &[
    Check {
        name: "signal: goes through arguments and results",
        methods: &["echo"],
        needs: Needs::Nothing,
        run: passes,
    },
    Check { name: "signal: made, and returned", methods: &["new_signal"], needs: Needs::Nothing, run: made },
    Check { name: "signal: set and triggered", methods: &["trigger"], needs: Needs::Nothing, run: triggered },
    Check { name: "signal: waited for", methods: &["wait_for"], needs: Needs::Nothing, run: waited },
    Check { name: "signal: the wait's time is up", methods: &["wait_for"], needs: Needs::Nothing, run: timed_out },
    Check {
        name: "signal: who waits learns that it will not be triggered",
        methods: &["wait_for"],
        needs: Needs::Nothing,
        run: not_coming,
    },
    Check {
        name: "signal: one that there is not is an error of the method",
        methods: &["trigger", "wait_for"],
        needs: Needs::Nothing,
        run: unknown,
    },
    Check {
        name: "cancelled: the method sees its flag, and the next one does not",
        methods: &["cancelled"],
        needs: Needs::Nothing,
        run: cancelled,
    },
    Check {
        name: "cancelled: of a task that is not executed harms nothing",
        methods: &["echo"],
        needs: Needs::Nothing,
        run: cancelled_late,
    },
];

const ID: &str = "00ff00ff00ff00ff0123456789abcdef";

fn signal() -> Value {
    json!({ "$signal": ID })
}

fn hand(worker: &mut Peer, method: &str, args: Value) -> Result<(), String> {
    let task = worker.task(method, args);
    worker.say(&task)
}

fn asked(worker: &mut Peer, kind: &str) -> Result<Said, String> {
    let said = worker.heard_kind(kind)?;
    same("the signal's id", said.field("signal"), &json!(ID))?;
    Ok(said)
}

/// Answers a request whose `ref` a library may leave out.
fn answer_if_asked(worker: &mut Peer, said: &Said, body: Value) -> Result<(), String> {
    if said.field("ref").is_null() { Ok(()) } else { worker.answer(said, body) }
}

fn settled(worker: &mut Peer, method: &str) -> Result<Value, String> {
    let said = worker.heard(&format!("the settlement of `{method}`"))?;
    result_of(method, &said)
}

/// The method must fail; its error.
fn fails(worker: &mut Peer, method: &str) -> Result<String, String> {
    let said = worker.heard(&format!("the settlement of `{method}`"))?;
    match said.kind.as_str() {
        "failed" => Ok(said.field("error").as_str().unwrap_or_default().to_string()),
        _ => Err(format!("`{method}` was to fail, and it is done: {}", said.fields)),
    }
}

fn passes(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    for value in [signal(), json!([1, { "k": signal() }]), json!({ "$signal": ID, "not": "alone" })] {
        same("what came back", &worker.result("echo", json!([value]))?, &value)?;
    }
    Ok(())
}

fn made(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    hand(&mut worker, "new_signal", json!(["what it is for"]))?;
    let said = worker.heard_kind("signal_new")?;
    same("the description", said.field("description"), &json!("what it is for"))?;
    worker.answer(&said, json!({"signal": {"id": ID}}))?;
    same("the result", &settled(&mut worker, "new_signal")?, &signal())
}

fn triggered(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    for first in [true, false] {
        hand(&mut worker, "trigger", json!([signal(), "result", [5, "é"]]))?;
        let set = asked(&mut worker, "signal_set")?;
        same("the key", set.field("key"), &json!("result"))?;
        same("the value", set.field("value"), &json!([5, "é"]))?;
        answer_if_asked(&mut worker, &set, json!({"signalled": {"first": true}}))?;
        let trigger = asked(&mut worker, "signal_trigger")?;
        worker.answer(&trigger, json!({"signalled": {"first": first}}))?;
        same("whether it was the first", &settled(&mut worker, "trigger")?, &json!(first))?;
    }
    Ok(())
}

/// Hands over a task that waits, and hears the wait.
fn waiting(worker: &mut Peer, ms: u64) -> Result<Said, String> {
    hand(worker, "wait_for", json!([signal(), ms]))?;
    let wait = asked(worker, "signal_wait")?;
    same("its time", wait.field("timeout_ms"), &json!(ms))?;
    worker.answer(&wait, json!({"waiting": {}}))?;
    Ok(wait)
}

fn outcome(worker: &mut Peer, wait: &Said, mut body: Value) -> Result<(), String> {
    body["ref"] = wait.field("ref").clone();
    worker.say(&json!({ "outcome": body }))
}

fn waited(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    for values in [json!({}), json!({"result": 5, "é": [{"k": null}]})] {
        let wait = waiting(&mut worker, 60_000)?;
        outcome(&mut worker, &wait, json!({"triggered": {"values": values}}))?;
        // A library may ask for the values again.
        let mut said = worker.heard("the settlement of `wait_for`")?;
        while said.kind == "signal_get" {
            same("the signal's id", said.field("signal"), &json!(ID))?;
            let report = json!({"signal": ID, "description": null, "triggered": true, "values": values, "age_ms": 5});
            worker.answer(&said, json!({ "report": report }))?;
            said = worker.heard("the settlement of `wait_for`")?;
        }
        same("the values", &result_of("wait_for", &said)?, &values)?;
    }
    Ok(())
}

fn timed_out(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    for ms in [0, 1, 1500] {
        let wait = waiting(&mut worker, ms)?;
        outcome(&mut worker, &wait, json!({"timed_out": {}}))?;
        same("the result", &settled(&mut worker, "wait_for")?, &Value::Null)?;
    }
    Ok(())
}

fn not_coming(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    for body in [
        json!({"lost": {}}),
        json!({"failed": {"error": "no such row"}}),
        json!({"discarded": {"may_have_run": false}}),
        json!({"expired": {"may_have_run": false}}),
        json!({"dead": {"reason": "crashed", "exit": {"signal": 11}, "may_have_run": true}}),
    ] {
        let wait = waiting(&mut worker, 60_000)?;
        outcome(&mut worker, &wait, body.clone())?;
        let error = fails(&mut worker, "wait_for")?;
        if body["failed"].is_object() && !error.contains("no such row") {
            return Err(format!("the error is to say why: {error:?}"));
        }
    }
    Ok(())
}

fn unknown(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    let no_signal = json!({"ignored": {"reason": "no_signal"}});
    hand(&mut worker, "wait_for", json!([signal(), 10]))?;
    let wait = asked(&mut worker, "signal_wait")?;
    worker.answer(&wait, no_signal.clone())?;
    fails(&mut worker, "wait_for")?;
    hand(&mut worker, "trigger", json!([signal(), "k", 1]))?;
    // A library may say both, or stop after the first answer.
    loop {
        let said = worker.heard("the settlement of `trigger`")?;
        match said.kind.as_str() {
            "signal_set" | "signal_trigger" => answer_if_asked(&mut worker, &said, no_signal.clone())?,
            "failed" => return Ok(()),
            _ => return Err(format!("`trigger` was to fail, and it said `{}`: {}", said.kind, said.fields)),
        }
    }
}

fn cancelled(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    same("the flag of a task that is wanted", &worker.result("cancelled", json!([1]))?, &json!(false))?;
    let task = worker.task("cancelled", json!([60_000]));
    worker.say(&task)?;
    worker.begins(&task)?;
    worker.say(&json!({"cancelled": {"id": task["task"]["id"]}}))?;
    same("the flag", &settled(&mut worker, "cancelled")?, &json!(true))?;
    same("the flag of the next task", &worker.result("cancelled", json!([1]))?, &json!(false))
}

fn cancelled_late(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    let task = worker.task("echo", json!([1]));
    worker.say(&task)?;
    worker.heard_kind("done")?;
    worker.say(&json!({"cancelled": {"id": task["task"]["id"]}}))?;
    worker.say(&json!({"cancelled": {"id": 999_999}}))?;
    same("the result", &worker.result("echo", json!([2]))?, &json!(2))
}
