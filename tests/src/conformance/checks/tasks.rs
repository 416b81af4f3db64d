//! Tasks: order, settlements, errors, and what is written before the next one begins.

use serde_json::{Value, json};

use super::super::peer::End;
use super::super::{Check, Needs, Stage, result_of, same};

pub const CHECKS: &[Check] = &[
    Check { name: "task: executed and settled", methods: &["echo"], needs: Needs::Nothing, run: one },
    Check { name: "task: many, in order", methods: &["echo"], needs: Needs::Nothing, run: many },
    Check {
        name: "task: many for which nobody waits are settled, all and in order",
        methods: &["echo", "fail"],
        needs: Needs::Nothing,
        run: unheard,
    },
    Check { name: "task: ids above 2^32", methods: &["echo"], needs: Needs::Nothing, run: large_ids },
    Check { name: "failed: carries the error's text", methods: &["fail"], needs: Needs::Nothing, run: failed },
    Check {
        name: "failed: an unknown method names those that there are",
        methods: &["echo"],
        needs: Needs::Nothing,
        run: unknown_method,
    },
    Check {
        name: "failed: arguments that do not fit, and the process lives on",
        methods: &["echo", "sleep"],
        needs: Needs::Nothing,
        run: wrong_arguments,
    },
    Check { name: "from: null for a client", methods: &["sender"], needs: Needs::Nothing, run: from_client },
    Check { name: "from: the worker that called", methods: &["sender"], needs: Needs::Nothing, run: from_worker },
    Check {
        name: "ahead: what somebody waits for is settled before the next task begins",
        methods: &["echo", "crash"],
        needs: Needs::TasksAhead(2),
        run: awaited_before_next,
    },
    Check {
        name: "ahead: what has failed is settled before the next task begins",
        methods: &["fail", "crash"],
        needs: Needs::TasksAhead(2),
        run: failed_before_next,
    },
    Check {
        name: "ahead: a crash leaves its marks on the right task",
        methods: &["echo", "crash"],
        needs: Needs::TasksAhead(2),
        run: crash_marks,
    },
    Check { name: "crash: the task is not settled", methods: &["crash"], needs: Needs::Nothing, run: crash },
];

fn one(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    for x in [json!(5), json!("text"), json!([1, [2]])] {
        same("the result", &worker.result("echo", json!([x]))?, &x)?;
    }
    Ok(())
}

fn many(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    let count = stage.ahead(100);
    for round in 0..(100 / count).min(20) {
        let tasks: Vec<Value> = (0..count).map(|at| worker.task("echo", json!([round * count + at]))).collect();
        worker.say_all(&tasks)?;
        for task in &tasks {
            let said = worker.heard_kind("done")?;
            same("the id", said.field("id"), &task["task"]["id"])?;
            same("the result", said.field("result"), &task["task"]["args"][0])?;
        }
    }
    Ok(())
}

fn unheard(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    let count = stage.ahead(50);
    for _ in 0..(50 / count).min(10) {
        let tasks: Vec<Value> = (0..count)
            .map(|at| match at % 10 {
                9 => worker.unheard_task("fail", json!(["one of ten"])),
                _ => worker.unheard_task("echo", json!([at])),
            })
            .collect();
        worker.say_all(&tasks)?;
        let last = &tasks.last().expect("there is one at least")["task"]["id"];
        // The referee sees to the order, and that none is left out by a `done`.
        loop {
            let said = worker.heard("the settlement of the last task")?;
            let id = said.field("id");
            let position = tasks.iter().position(|task| task["task"]["id"] == *id);
            let is_to_fail = position.is_some_and(|at| at % 10 == 9);
            if said.kind == "done" && is_to_fail {
                return Err(format!("task {id} has failed, and it settled it with `done`"));
            }
            if id == last {
                break;
            }
        }
    }
    Ok(())
}

fn large_ids(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    for id in [251, 65_536, (1 << 32) + 5, (1_u64 << 53) - 1] {
        worker.say(&json!({"task": {"id": id, "method": "echo", "args": [1], "from": null, "wait": true}}))?;
        same("the id", worker.heard_kind("done")?.field("id"), &json!(id))?;
    }
    Ok(())
}

fn failed(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    for text in ["no such row", "two\nlines \"quoted\" \\ and \u{1f600} é"] {
        let error = worker.error("fail", json!([text]))?;
        if !error.contains(text) {
            return Err(format!("the error {text:?} is to reach who waits, and it is {error:?}"));
        }
    }
    Ok(())
}

fn unknown_method(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    for method in ["no such method", "ech", "Echo", "__class__", "constructor", "_"] {
        let error = worker.error(method, json!([]))?;
        if !error.contains(method) || !error.contains("echo") {
            return Err(format!("the error is to name `{method}` and the methods that there are: {error:?}"));
        }
    }
    worker.result("echo", json!([1])).map(drop)
}

fn wrong_arguments(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    for (method, args) in [("echo", json!([])), ("echo", json!([1, 2])), ("sleep", json!(["long"]))] {
        let error = worker.error(method, args.clone())?;
        if !error.contains(method) {
            return Err(format!("the error is to name `{method}`, which does not take {args}: {error:?}"));
        }
    }
    same("the result", &worker.result("echo", json!([1]))?, &json!(1))
}

fn from_client(stage: &Stage) -> Result<(), String> {
    same("the sender", &stage.worker()?.result("sender", json!([]))?, &Value::Null)
}

fn from_worker(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    for (name, number) in [("x", 3_u64), ("compteur/é", 70_000)] {
        let mut task = worker.task("sender", json!([]));
        task["task"]["from"] = json!({"worker": name, "number": number});
        worker.say(&task)?;
        let said = worker.heard("the settlement of `sender`")?;
        same("the sender", &result_of("sender", &said)?, &json!([name, number]))?;
    }
    // And the next one, of a client, has none.
    same("the sender", &worker.result("sender", json!([]))?, &Value::Null)
}

fn awaited_before_next(stage: &Stage) -> Result<(), String> {
    for _ in 0..3 {
        let mut worker = stage.worker()?;
        let tasks =
            [worker.unheard_task("echo", json!([0])), worker.task("echo", json!([1])), worker.task("crash", json!([]))];
        worker.say_all(&tasks)?;
        let (_, said) = worker.ended()?;
        let settled = said.iter().any(|said| said.kind == "done" && *said.field("id") == tasks[1]["task"]["id"]);
        if !settled {
            return Err("somebody waited for the task before the one that crashed, and it was not settled".into());
        }
    }
    Ok(())
}

fn failed_before_next(stage: &Stage) -> Result<(), String> {
    for _ in 0..3 {
        let mut worker = stage.worker()?;
        let tasks = [worker.unheard_task("fail", json!(["text"])), worker.unheard_task("crash", json!([]))];
        worker.say_all(&tasks)?;
        let (_, said) = worker.ended()?;
        if !said.iter().any(|said| said.kind == "failed" && *said.field("id") == tasks[0]["task"]["id"]) {
            return Err("the task before the one that crashed had failed, and it was not settled".into());
        }
    }
    Ok(())
}

fn crash_marks(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    let tasks = [
        worker.unheard_task("echo", json!([1])),
        worker.unheard_task("echo", json!([2])),
        worker.unheard_task("crash", json!([])),
        worker.unheard_task("echo", json!([3])),
    ];
    let tasks = &tasks[..stage.ahead(4) as usize];
    worker.say_all(tasks)?;
    let at = tasks.len().min(3) - 1;
    if at < 2 {
        return Ok(()); // a window of 2: the crash does not fit behind two others
    }
    let id = |at: usize| tasks[at]["task"]["id"].as_u64().expect("the suite gives ids");
    let (end, said) = worker.ended()?;
    if said.iter().any(|said| said.field("id").as_u64().is_some_and(|settled| settled >= id(2))) {
        return Err("it settled the task that crashed, or one behind it".into());
    }
    match worker.marks() {
        Some((begun, finished)) if (begun, finished) == (id(2), id(1)) => Ok(()),
        marks => Err(format!(
            "task {} crashed, with {end:?}: `begun` is to be {} and `finished` {}, and they are {marks:?}",
            id(2),
            id(2),
            id(1)
        )),
    }
}

fn crash(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    let task = worker.task("crash", json!([]));
    worker.say(&task)?;
    match worker.ended()? {
        (End::Code(3), said) if said.is_empty() => Ok(()),
        (end, said) => {
            Err(format!("it is to end with status 3 and say nothing: {end:?}, {}", super::super::peer::all(&said)))
        }
    }
}
