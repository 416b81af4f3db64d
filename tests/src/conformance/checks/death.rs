//! The supervisor's death: the end of the connection, with and without the parent's.

use serde_json::{Value, json};

use super::super::peer::{End, Peer, Under};
use super::super::{Actor, Check, Needs, Stage, in_some_round, welcome};

pub const CHECKS: &[Check] = &[
    Check { name: "end of file: before welcome it ends", methods: &[], needs: Needs::Nothing, run: before_welcome },
    Check { name: "end of file: when idle it ends", methods: &[], needs: Needs::Nothing, run: idle },
    Check {
        name: "end of file: during a task it ends after it",
        methods: &["sleep"],
        needs: Needs::Nothing,
        run: during_task,
    },
    Check {
        name: "end of file: what waits for an answer does not wait for ever",
        methods: &["call"],
        needs: Needs::Nothing,
        run: during_question,
    },
    Check {
        name: "end of file: no task begins after it",
        methods: &["sleep", "echo"],
        needs: Needs::TasksAhead(2),
        run: no_more_tasks,
    },
    Check {
        name: "end of file: a half-written message is no message",
        methods: &["echo"],
        needs: Needs::Nothing,
        run: half_a_message,
    },
    Check { name: "supervisor killed: an idle worker ends", methods: &[], needs: Needs::Nothing, run: parent_idle },
    Check {
        name: "supervisor killed: no task begins after it",
        methods: &["sleep", "echo"],
        needs: Needs::TasksAhead(2),
        run: parent_no_more_tasks,
    },
];

/// It must end, and not by a signal.
pub(super) fn ends(worker: &mut Peer) -> Result<(), String> {
    match worker.ended()? {
        (End::Signal(signal), _) => Err(format!("it is to end by itself, and {signal} has ended it")),
        (End::Code(_), _) => Ok(()),
    }
}

fn before_welcome(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.start(&Under::Us)?;
    worker.ready()?;
    worker.hang_up();
    ends(&mut worker)
}

fn idle(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    worker.error("no such method", json!([]))?;
    worker.hang_up();
    ends(&mut worker)
}

fn during_task(stage: &Stage) -> Result<(), String> {
    left_in_task(stage.worker()?)
}

fn during_question(stage: &Stage) -> Result<(), String> {
    left_with_a_question(stage.worker()?)
}

/// The supervisor is gone in the middle of a task.
pub(super) fn left_in_task(mut worker: Actor<'_>) -> Result<(), String> {
    let task = worker.task("sleep", json!([200]));
    worker.say(&task)?;
    worker.begins(&task)?;
    worker.hang_up();
    ends(&mut worker)
}

/// The supervisor is gone before it has answered a call.
pub(super) fn left_with_a_question(mut worker: Actor<'_>) -> Result<(), String> {
    let task = worker.task("call", json!(["w", "m", []]));
    worker.say(&task)?;
    worker.heard_kind("call")?;
    worker.hang_up();
    ends(&mut worker)
}

/// What is to happen during the first task of a round.
const GONE: &str = "the supervisor was gone";

/// Hands over a task that takes a moment and others behind it; the supervisor goes during the first.
fn goes_during_the_first(worker: &mut Peer, ahead: u64, go: impl Fn(&mut Peer)) -> Result<bool, String> {
    let tasks: Vec<Value> = (0..ahead)
        .map(|at| {
            if at == 0 { worker.unheard_task("sleep", json!([400])) } else { worker.unheard_task("echo", json!([at])) }
        })
        .collect();
    worker.say_all(&tasks)?;
    worker.begins(&tasks[0])?;
    go(worker);
    let id = tasks[0]["task"]["id"].as_u64().expect("the suite gives ids");
    let begun = |worker: &Peer| worker.marks().map_or(id, |(begun, _)| begun);
    if begun(worker) != id {
        return Ok(false);
    }
    ends(worker)?;
    match begun(worker) {
        begun if begun == id => Ok(true),
        begun => Err(format!("the supervisor was gone during task {id}, and task {begun} was begun all the same")),
    }
}

fn no_more_tasks(stage: &Stage) -> Result<(), String> {
    in_some_round(GONE, || goes_during_the_first(&mut *stage.worker()?, stage.ahead(10), Peer::hang_up))
}

fn half_a_message(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    let task = worker.task("echo", json!(["half"]));
    let bytes = worker.bytes(&task);
    worker.expects(&task);
    // All but the last byte: of a line the newline is missing, of a frame the end of its body.
    worker.write(&bytes[..bytes.len() - 1])?;
    worker.half_close();
    let (end, said) = worker.ended()?;
    if matches!(end, End::Signal(_)) || !said.is_empty() {
        return Err(format!("it is to end and say nothing: {end:?}, {}", super::super::peer::all(&said)));
    }
    Ok(())
}

fn killed(worker: &mut Peer) {
    // Who dies closes its descriptors first, and leaves its children after that.
    worker.hang_up();
    worker.kill_parent();
}

fn parent_idle(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.start(&Under::Another)?;
    worker.ready()?;
    worker.say(&welcome())?;
    worker.error("no such method", json!([]))?;
    killed(&mut worker);
    ends(&mut worker)
}

fn parent_no_more_tasks(stage: &Stage) -> Result<(), String> {
    in_some_round(GONE, || {
        let mut worker = stage.start(&Under::Another)?;
        worker.greet()?;
        goes_during_the_first(&mut worker, stage.ahead(10), killed)
    })
}
