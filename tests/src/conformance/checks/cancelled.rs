//! Tasks that were sent ahead and are cancelled before they were begun: none is begun, each is said to be dropped.

use serde_json::{Value, json};

use super::super::peer::{End, Peer, Said};
use super::super::{Check, Needs, Stage, in_some_round, result_of, same};
use super::requests::accepted;

pub const CHECKS: &[Check] = &[
    Check {
        name: "cancelled: a task that was sent ahead is dropped and not begun",
        methods: &["call", "crash", "echo"],
        needs: Needs::TasksAhead(2),
        run: not_begun,
    },
    Check {
        name: "cancelled: dropped in its turn, behind what has ended before it",
        methods: &["call", "crash", "echo"],
        needs: Needs::TasksAhead(4),
        run: in_turn,
    },
    Check {
        name: "cancelled: dropped is written before the next task begins",
        methods: &["call", "crash", "echo"],
        needs: Needs::TasksAhead(3),
        run: written_first,
    },
    Check {
        name: "cancelled: the mark page tells whom who has read nothing meanwhile",
        methods: &["sleep", "crash", "echo"],
        needs: Needs::TasksAhead(2),
        run: by_the_page,
    },
    Check {
        name: "cancelled: a word of the mark page whose message is late holds nothing up",
        methods: &["echo"],
        needs: Needs::TasksAhead(2),
        run: late_message,
    },
    Check {
        name: "cancelled: an attached worker begins no task that comes together with its cancel",
        methods: &["echo", "crash"],
        needs: Needs::AttachingAhead,
        run: attached,
    },
];

fn id(task: &Value) -> u64 {
    task["task"]["id"].as_u64().expect("the suite gives ids")
}

fn cancelled(task: &Value) -> Value {
    json!({"cancelled": {"id": id(task)}})
}

/// It must say next that it has dropped this task.
fn drops(worker: &mut Peer, task: &Value) -> Result<(), String> {
    let said = worker.heard_kind("dropped")?;
    same("the task that it dropped", said.field("id"), &json!(id(task)))
}

/// Hands over a task that waits for a receipt; a worker that does so is given others meanwhile.
fn calling(worker: &mut Peer) -> Result<Said, String> {
    let first = worker.task("call", json!(["w", "m", []]));
    worker.say(&first)?;
    worker.heard_kind("call")
}

/// Hands over these behind it, cancels the one at `unwanted`, and lets the first one end.
fn behind_it(worker: &mut Peer, call: &Said, tasks: &[Value], unwanted: usize) -> Result<(), String> {
    worker.say_all(tasks)?;
    worker.page.cancel();
    worker.say(&cancelled(&tasks[unwanted]))?;
    worker.answer(call, accepted("w"))?;
    let said = worker.heard("the settlement of `call`")?;
    same("the receipt", &result_of("call", &said)?, &json!("accepted"))
}

fn not_begun(stage: &Stage) -> Result<(), String> {
    for awaited in [true, false] {
        let mut worker = stage.worker()?;
        let call = calling(&mut worker)?;
        let unwanted = if awaited { worker.task("crash", json!([])) } else { worker.unheard_task("crash", json!([])) };
        behind_it(&mut worker, &call, std::slice::from_ref(&unwanted), 0)?;
        drops(&mut worker, &unwanted)?;
        if worker.marks().is_some_and(|(begun, finished)| begun >= id(&unwanted) || finished >= id(&unwanted)) {
            return Err(format!("task {} was dropped, and its marks say {:?}", id(&unwanted), worker.marks()));
        }
        same("the result of the next", &worker.result("echo", json!([1]))?, &json!(1))?;
    }
    Ok(())
}

fn in_turn(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    let call = calling(&mut worker)?;
    let tasks = [
        worker.unheard_task("echo", json!([1])),
        worker.unheard_task("crash", json!([])),
        worker.task("echo", json!([2])),
    ];
    behind_it(&mut worker, &call, &tasks, 1)?;
    let said = worker.heard("the settlement of the task before the one that was cancelled")?;
    same("the task that it settled", said.field("id"), &json!(id(&tasks[0])))?;
    drops(&mut worker, &tasks[1])?;
    let said = worker.heard_kind("done")?;
    same("the result of the next", said.field("result"), &json!(2))
}

fn written_first(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    let call = calling(&mut worker)?;
    let tasks = [worker.unheard_task("echo", json!([1])), worker.unheard_task("crash", json!([]))];
    behind_it(&mut worker, &call, &tasks, 0)?;
    let (end, said) = worker.ended()?;
    match (end, said.as_slice()) {
        (End::Code(3), [dropped]) if dropped.kind == "dropped" => Ok(()),
        (end, said) => Err(format!(
            "the task behind the one that was cancelled has crashed, and `dropped` is to be written before: {end:?}, {}",
            super::super::peer::all(said)
        )),
    }
}

fn by_the_page(stage: &Stage) -> Result<(), String> {
    in_some_round("the second was cancelled", || {
        let mut worker = stage.worker()?;
        let tasks = [worker.task("sleep", json!([300])), worker.unheard_task("crash", json!([]))];
        worker.say_all(&tasks)?;
        worker.begins(&tasks[0])?;
        worker.page.cancel();
        worker.say(&cancelled(&tasks[1]))?;
        if worker.marks().is_some_and(|(_, finished)| finished >= id(&tasks[0])) {
            return Ok(false);
        }
        same("the task that it settled", worker.heard_kind("done")?.field("id"), &json!(id(&tasks[0])))?;
        drops(&mut worker, &tasks[1])?;
        same("the result of the next", &worker.result("echo", json!([1]))?, &json!(1)).map(|()| true)
    })
}

fn late_message(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    worker.page.cancel();
    for x in 0..3 {
        same("the result", &worker.result("echo", json!([x]))?, &json!(x))?;
    }
    Ok(())
}

fn attached(stage: &Stage) -> Result<(), String> {
    for awaited in [true, false] {
        let mut worker = stage.attached()?;
        same("the result of the first", &worker.result("echo", json!([1]))?, &json!(1))?;
        let unwanted = if awaited { worker.task("crash", json!([])) } else { worker.unheard_task("crash", json!([])) };
        worker.say_all(&[unwanted.clone(), cancelled(&unwanted)])?;
        drops(&mut worker, &unwanted)?;
        same("the result of the next", &worker.result("echo", json!([2]))?, &json!(2))?;
    }
    Ok(())
}
