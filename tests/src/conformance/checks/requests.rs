//! What a worker asks: calls and kills of others, their receipts, and what comes between.

use serde_json::{Value, json};

use super::super::peer::{Peer, Said};
use super::super::{Check, Needs, Stage, result_of, same};

pub const CHECKS: &[Check] = &[
    Check { name: "call: by name, with arguments and a ref", methods: &["call"], needs: Needs::Nothing, run: by_name },
    Check { name: "call: by number", methods: &["call"], needs: Needs::Nothing, run: by_number },
    Check { name: "call: arguments of every type", methods: &["call"], needs: Needs::Nothing, run: arguments },
    Check { name: "receipt: accepted, ignored and refused", methods: &["call"], needs: Needs::Nothing, run: receipts },
    Check {
        name: "receipt: an error instead reaches the method",
        methods: &["call"],
        needs: Needs::Nothing,
        run: errors,
    },
    Check {
        name: "receipt: tasks that come before it wait for their turn",
        methods: &["call", "echo"],
        needs: Needs::TasksAhead(2),
        run: tasks_between,
    },
    Check {
        name: "receipt: a kill that comes before it does not take it away",
        methods: &["call"],
        needs: Needs::Nothing,
        run: kill_between,
    },
    Check {
        name: "receipt: one that nobody waits for harms nothing",
        methods: &["call", "echo"],
        needs: Needs::Nothing,
        run: stray,
    },
    Check { name: "call: every one has a ref of its own", methods: &["call"], needs: Needs::Nothing, run: refs },
    Check { name: "reply: goes to the sender's number", methods: &["reply"], needs: Needs::Nothing, run: reply },
    Check {
        name: "reply: to a client is an error of the method",
        methods: &["reply"],
        needs: Needs::Nothing,
        run: reply_to_client,
    },
    Check { name: "kill: of another worker", methods: &["kill"], needs: Needs::Nothing, run: kill_other },
];

/// The receipt of an accepted call.
pub fn accepted(worker: &str) -> Value {
    json!({"accepted": {"worker": worker, "number": 9, "message": 1_000_000}})
}

/// Hands over a task that calls, and hears the call.
fn calling(worker: &mut Peer, args: Value) -> Result<Said, String> {
    let task = worker.task("call", args);
    worker.say(&task)?;
    worker.heard_kind("call")
}

fn settled(worker: &mut Peer, method: &str) -> Result<Value, String> {
    let said = worker.heard(&format!("the settlement of `{method}`"))?;
    result_of(method, &said)
}

fn by_name(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    // A name that looks like a number is a name (rule W4).
    for name in ["mailer", "compteur/é", "7", "%7"] {
        let call = calling(&mut worker, json!([name, "send", [1, "a"]]))?;
        same("whom it called", call.field("worker"), &json!(name))?;
        same("the method", call.field("method"), &json!("send"))?;
        same("the arguments", call.field("args"), &json!([1, "a"]))?;
        worker.answer(&call, accepted(name))?;
        same("the receipt", &settled(&mut worker, "call")?, &json!("accepted"))?;
    }
    Ok(())
}

fn by_number(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    for number in [7_u64, 70_000] {
        let call = calling(&mut worker, json!([number, "send", []]))?;
        same("whom it called", call.field("worker"), &json!(number))?;
        worker.answer(&call, accepted("w"))?;
        same("the receipt", &settled(&mut worker, "call")?, &json!("accepted"))?;
    }
    Ok(())
}

fn arguments(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    let large = json!("x".repeat(1 << 20));
    for args in [
        json!([]),
        json!([null, true, -1, 0.5, "é\u{0}", [1, [2]], {"k": {"l": []}}]),
        json!([{"$bytes": "AAH/"}]),
        json!([1, large]),
    ] {
        let call = calling(&mut worker, json!(["w", "m", args]))?;
        let sent = if call.field("args").is_null() { &json!([]) } else { call.field("args") };
        same("the arguments of its call", sent, &args)?;
        worker.answer(&call, accepted("w"))?;
        settled(&mut worker, "call")?;
    }
    Ok(())
}

fn receipts(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    let refused = |reason: &str| json!({"refused": {"reason": reason, "detail": "for people: é"}});
    for (receipt, told) in [
        (accepted("w"), "accepted"),
        (json!({"ignored": {"reason": "no_worker"}}), "ignored no_worker"),
        (json!({"ignored": {"reason": "no_startup_method"}}), "ignored no_startup_method"),
        (json!({"ignored": {"reason": "own_killed_worker"}}), "ignored own_killed_worker"),
        (refused("no_class"), "refused no_class"),
        (refused("mailbox_full"), "refused mailbox_full"),
        (refused("shutting_down"), "refused shutting_down"),
        (refused("crash_loop"), "refused crash_loop"),
    ] {
        let call = calling(&mut worker, json!(["w", "m", []]))?;
        worker.answer(&call, receipt)?;
        same("the receipt", &settled(&mut worker, "call")?, &json!(told))?;
    }
    Ok(())
}

fn errors(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    let call = calling(&mut worker, json!(["w", "m", []]))?;
    worker.say(&json!({"error": {"ref": call.field("ref"), "detail": "no such thing as that"}}))?;
    let said = worker.heard("the settlement of `call`")?;
    match said.field("error").as_str() {
        Some(error) if error.contains("no such thing as that") => Ok(()),
        _ => Err(format!(
            "the call was answered by an `error`: its detail is to be the method's error, not {}",
            said.fields
        )),
    }
}

fn tasks_between(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    let call = calling(&mut worker, json!(["w", "m", []]))?;
    let count = stage.ahead(20) - 1;
    let tasks: Vec<Value> = (0..count).map(|at| worker.task("echo", json!([at]))).collect();
    worker.say_all(&tasks)?;
    worker.answer(&call, accepted("w"))?;
    same("the receipt", &settled(&mut worker, "call")?, &json!("accepted"))?;
    for at in 0..count {
        same("the result", &settled(&mut worker, "echo")?, &json!(at))?;
    }
    Ok(())
}

fn kill_between(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    let call = calling(&mut worker, json!(["w", "m", []]))?;
    worker.say(&json!({"kill": {}}))?;
    worker.answer(&call, accepted("w"))?;
    same("the receipt", &settled(&mut worker, "call")?, &json!("accepted"))?;
    worker.ends_well()
}

fn stray(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    let strangers = [
        json!({"receipt": {"ref": 987_654_321, "accepted": {"worker": "w", "number": 9, "message": 10}}}),
        json!({"receipt": {"ref": "a text", "ignored": {"reason": "no_worker"}}}),
        json!({"outcome": {"ref": 987_654_321, "done": {"result": 5}}}),
        json!({"outcome": {"ref": "a text", "dead": {"reason": "crashed", "exit": {"signal": 11}, "may_have_run": true}}}),
        json!({"error": {"ref": 987_654_321, "detail": "of something else"}}),
    ];
    worker.say_all(&strangers)?;
    same("the result", &worker.result("echo", json!([1]))?, &json!(1))?;
    let call = calling(&mut worker, json!(["w", "m", []]))?;
    worker.say_all(&strangers)?;
    worker.answer(&call, json!({"ignored": {"reason": "no_worker"}}))?;
    same("the receipt", &settled(&mut worker, "call")?, &json!("ignored no_worker"))
}

fn refs(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    let mut refs: Vec<Value> = Vec::new();
    for _ in 0..20 {
        let call = calling(&mut worker, json!(["w", "m", []]))?;
        if refs.contains(call.field("ref")) {
            return Err(format!("it used the `ref` {} twice", call.field("ref")));
        }
        refs.push(call.field("ref").clone());
        worker.answer(&call, accepted("w"))?;
        settled(&mut worker, "call")?;
    }
    Ok(())
}

fn reply(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    let mut task = worker.task("reply", json!(["answer", [5]]));
    task["task"]["from"] = json!({"worker": "asker", "number": 41});
    worker.say(&task)?;
    let call = worker.heard_kind("call")?;
    same("whom it called: a successor of the sender has asked nothing", call.field("worker"), &json!(41))?;
    same("the method", call.field("method"), &json!("answer"))?;
    same("the arguments", call.field("args"), &json!([5]))?;
    worker.answer(&call, json!({"ignored": {"reason": "no_worker"}}))?;
    same("the receipt", &settled(&mut worker, "reply")?, &json!("ignored no_worker"))
}

fn reply_to_client(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    let error = worker.error("reply", json!(["answer", [5]]))?;
    match error.contains("client") {
        true => Ok(()),
        false => Err(format!("the error is to say that a client cannot be called back: {error:?}")),
    }
}

fn kill_other(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    for (receipt, told) in [
        (json!({"killed": {"discarded": 3}}), "killed 3"),
        (json!({"ignored": {"reason": "no_worker"}}), "ignored no_worker"),
    ] {
        let task = worker.task("kill", json!(["mailer"]));
        worker.say(&task)?;
        let kill = worker.heard_kind("kill")?;
        same("whom it killed", kill.field("worker"), &json!("mailer"))?;
        worker.answer(&kill, receipt)?;
        same("the receipt", &settled(&mut worker, "kill")?, &json!(told))?;
    }
    Ok(())
}
