//! The end on request: `kill`, the stop flag, and a worker that kills itself.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::peer::Peer;
use super::super::{Check, Needs, Stage, result_of, same};
use super::requests::accepted;

pub const CHECKS: &[Check] = &[
    Check { name: "kill: when idle it ends with status 0", methods: &[], needs: Needs::Nothing, run: idle },
    Check { name: "kill: right behind welcome", methods: &[], needs: Needs::Nothing, run: at_once },
    Check { name: "kill: twice is once", methods: &["call"], needs: Needs::Nothing, run: twice },
    Check {
        name: "kill: the current task ends and is settled",
        methods: &["sleep"],
        needs: Needs::Nothing,
        run: current_ends,
    },
    Check {
        name: "kill: what was sent ahead is neither executed nor settled",
        methods: &["call", "echo"],
        needs: Needs::TasksAhead(2),
        run: discards,
    },
    Check { name: "kill: a method can see it coming", methods: &["ending"], needs: Needs::Nothing, run: seen },
    Check {
        name: "stop flag: no task begins after it",
        methods: &["sleep", "echo"],
        needs: Needs::TasksAhead(2),
        run: stop,
    },
    Check {
        name: "stop flag: a task that comes after it is not begun",
        methods: &["echo"],
        needs: Needs::TasksAhead(2),
        run: stop_before,
    },
    Check { name: "own kill: the rest of the task still runs", methods: &["kill"], needs: Needs::Nothing, run: own },
    Check {
        name: "own kill: a call that follows it is still made",
        methods: &["last_words"],
        needs: Needs::Nothing,
        run: last_words,
    },
];

pub(super) fn kill() -> Value {
    json!({"kill": {}})
}

fn idle(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    worker.error("no such method", json!([]))?;
    worker.say(&kill())?;
    worker.ends_well()
}

fn at_once(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    worker.say(&kill())?;
    worker.ends_well()
}

fn twice(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    worker.say_all(&[kill(), kill()])?;
    worker.ends_well()?;
    let mut worker = stage.worker()?;
    let task = worker.task("call", json!(["w", "m", []]));
    worker.say(&task)?;
    let call = worker.heard_kind("call")?;
    worker.say_all(&[kill(), kill()])?;
    worker.answer(&call, accepted("w"))?;
    worker.say(&kill())?;
    let said = worker.heard("the settlement of `call`")?;
    same("the receipt", &result_of("call", &said)?, &json!("accepted"))?;
    worker.ends_well()
}

fn current_ends(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    let task = worker.task("sleep", json!([300]));
    worker.say(&task)?;
    worker.begins(&task)?;
    worker.say(&kill())?;
    same("the task that it settled", worker.heard_kind("done")?.field("id"), &task["task"]["id"])?;
    worker.ends_well()
}

fn discards(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    let first = worker.task("call", json!(["w", "m", []]));
    worker.say(&first)?;
    let call = worker.heard_kind("call")?;
    for _ in 1..stage.ahead(10) {
        let more = worker.task("echo", json!([1]));
        worker.say(&more)?;
    }
    // Without the flag: the message alone is enough.
    worker.say(&kill())?;
    worker.answer(&call, accepted("w"))?;
    let said = worker.heard("the settlement of `call`")?;
    same("the receipt", &result_of("call", &said)?, &json!("accepted"))?;
    worker.ends_well()?;
    begun_is(&worker, &first)
}

/// No task behind this one was begun.
fn begun_is(worker: &Peer, task: &Value) -> Result<(), String> {
    let id = task["task"]["id"].as_u64().expect("the suite gives ids");
    match worker.marks() {
        Some((begun, _)) if begun != id => Err(format!("`begun` is to be {id} as before, and it is {begun}")),
        _ => Ok(()),
    }
}

fn seen(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    same("whether it saw an end that nobody asked for", &worker.result("ending", json!([1]))?, &json!(false))?;
    let patience = 60_000;
    let task = worker.task("ending", json!([patience]));
    worker.say(&task)?;
    worker.begins(&task)?;
    worker.page.stop();
    worker.say(&kill())?;
    let said = worker.heard("the settlement of `ending`")?;
    same("whether it saw its end", &result_of("ending", &said)?, &json!(true))?;
    worker.ends_well()
}

fn stop(stage: &Stage) -> Result<(), String> {
    // If the machine is so slow that the first task ended before the flag was set, another round is played.
    for _ in 0..5 {
        let mut worker = stage.worker()?;
        let tasks: Vec<Value> = (0..stage.ahead(10))
            .map(|at| if at == 0 { worker.task("sleep", json!([300])) } else { worker.task("echo", json!([at])) })
            .collect();
        worker.say_all(&tasks)?;
        worker.begins(&tasks[0])?;
        worker.page.stop();
        if begun_is(&worker, &tasks[0]).is_err() {
            continue;
        }
        same("the task that it settled", worker.heard_kind("done")?.field("id"), &tasks[0]["task"]["id"])?;
        worker.say(&kill())?;
        worker.ends_well()?;
        return begun_is(&worker, &tasks[0]);
    }
    Err("the first task ended five times before the flag was set: this machine is too slow for the check".into())
}

fn stop_before(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    let first = worker.task("echo", json!([1]));
    worker.say(&first)?;
    worker.heard_kind("done")?;
    worker.page.stop();
    let second = worker.task("echo", json!([2]));
    // The supervisor's `kill` is still on its way.
    worker.say(&second)?;
    worker.ends_well()?;
    begun_is(&worker, &first)
}

fn own(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    let task = worker.task("kill", json!([null]));
    worker.say(&task)?;
    let request = worker.heard_kind("kill")?;
    if !request.field("worker").is_null() {
        return Err(format!("a worker that kills itself names nobody, and it named {}", request.field("worker")));
    }
    worker.page.stop();
    // The supervisor's own `kill` may come before the receipt.
    worker.say(&kill())?;
    worker.answer(&request, json!({"killed": {"discarded": 2}}))?;
    let said = worker.heard("the settlement of `kill`")?;
    same("the receipt", &result_of("kill", &said)?, &json!("killed 2"))?;
    worker.ends_well()
}

fn last_words(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    let task = worker.task("last_words", json!(["heir", "yours"]));
    worker.say(&task)?;
    let request = worker.heard_kind("kill")?;
    worker.page.stop();
    worker.answer(&request, json!({"killed": {"discarded": 0}}))?;
    worker.say(&kill())?;
    let call = worker.heard_kind("call")?;
    same("whom it called", call.field("worker"), &json!("heir"))?;
    same("the method", call.field("method"), &json!("yours"))?;
    worker.answer(&call, accepted("heir"))?;
    let said = worker.heard("the settlement of `last_words`")?;
    same("the receipt", &result_of("last_words", &said)?, &json!("accepted"))?;
    worker.ends_well()
}

impl Peer {
    /// Waits until the worker has begun a task; a worker without marks is given a moment instead.
    pub(crate) fn begins(&mut self, task: &Value) -> Result<(), String> {
        let id = task["task"]["id"].as_u64().expect("the suite gives ids");
        let until = Instant::now() + self.patience();
        while let Some((begun, _)) = self.marks() {
            if begun >= id {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(format!("task {id} was not begun: `begun` is {begun}"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(100));
        Ok(())
    }
}
