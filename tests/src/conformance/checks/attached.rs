//! Attached workers: a program that the supervisor has not started connects to its socket and takes a name.

use serde_json::json;
use workhall_protocol::wire::Encoding;

use super::super::peer::{End, NUMBER, Peer, Under, WORKER, all};
use super::super::{Check, Needs, Stage, attached_welcome, result_of, same};
use super::death::{ends, left_in_task, left_with_a_question};
use super::kill::kill;
use super::requests::accepted;

pub const CHECKS: &[Check] = &[
    Check {
        name: "attached: takes the name, and knows who it is",
        methods: &["who"],
        needs: Needs::Attaching,
        run: takes_the_name,
    },
    Check {
        name: "attached: a task that comes together with welcome",
        methods: &["echo"],
        needs: Needs::Attaching,
        run: task_with_welcome,
    },
    Check {
        name: "attached: executes in order, and settles each task before the next comes",
        methods: &["echo", "fail"],
        needs: Needs::Attaching,
        run: in_order,
    },
    Check {
        name: "attached: calls as itself, on its own connection",
        methods: &["call"],
        needs: Needs::Attaching,
        run: calls,
    },
    Check {
        name: "attached: its own kill only empties its mailbox",
        methods: &["kill", "echo"],
        needs: Needs::Attaching,
        run: own_kill,
    },
    Check {
        name: "attached: leaves by a drain, and executes what still comes",
        methods: &["leave", "echo"],
        needs: Needs::Attaching,
        run: drains,
    },
    Check { name: "attached: leaves at once", methods: &["leave"], needs: Needs::Attaching, run: leaves },
    Check { name: "attached: a kill when idle ends it", methods: &[], needs: Needs::Attaching, run: idle_kill },
    Check {
        name: "attached: a kill during a task ends it after the task",
        methods: &["sleep"],
        needs: Needs::Attaching,
        run: kill_during_task,
    },
    Check {
        name: "attached: messages of a later supervisor are passed over",
        methods: &["echo"],
        needs: Needs::Attaching,
        run: later,
    },
    Check {
        name: "attached, hostile: a name that is refused is an error that says why",
        methods: &[],
        needs: Needs::Attaching,
        run: refused,
    },
    Check {
        name: "attached, hostile: nobody answers at the socket",
        methods: &[],
        needs: Needs::Attaching,
        run: nobody,
    },
    Check {
        name: "attached, hostile: the supervisor goes before it answers",
        methods: &[],
        needs: Needs::Attaching,
        run: gone_before_answer,
    },
    Check {
        name: "attached, hostile: the supervisor goes when it is idle",
        methods: &["echo"],
        needs: Needs::Attaching,
        run: gone_when_idle,
    },
    Check {
        name: "attached, hostile: the supervisor goes during a task",
        methods: &["sleep"],
        needs: Needs::Attaching,
        run: gone_during_task,
    },
    Check {
        name: "attached, hostile: the supervisor goes, and an answer is due",
        methods: &["call"],
        needs: Needs::Attaching,
        run: gone_during_question,
    },
    Check {
        name: "attached, hostile: rubbish instead of the answer ends it with an error",
        methods: &[],
        needs: Needs::Attaching,
        run: garbage_first,
    },
    Check {
        name: "attached, hostile: rubbish later ends it with an error",
        methods: &["echo"],
        needs: Needs::Attaching,
        run: garbage_later,
    },
];

fn takes_the_name(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.attaching()?;
    let attach = worker.heard_kind("attach")?;
    same("its protocol", attach.field("protocol"), &json!(1))?;
    same("the name that it takes", attach.field("worker"), &json!(WORKER))?;
    worker.say(&attached_welcome())?;
    same("who it is", &worker.result("who", json!([]))?, &json!([WORKER, NUMBER, 1]))
}

fn task_with_welcome(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.attaching()?;
    worker.heard_kind("attach")?;
    let task = worker.task("echo", json!(["first"]));
    worker.say_all(&[attached_welcome(), task])?;
    same("the result", worker.heard_kind("done")?.field("result"), &json!("first"))
}

fn in_order(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.attached()?;
    for at in 0..30 {
        let (task, is_to_fail) = match at % 3 {
            0 => (worker.task("echo", json!([at])), false),
            1 => (worker.unheard_task("echo", json!([at])), false),
            _ => (worker.unheard_task("fail", json!(["one of three"])), true),
        };
        worker.say(&task)?;
        let said = worker.heard("the settlement of the task")?;
        let fits = if is_to_fail { said.kind == "failed" } else { ["done", "done_all"].contains(&said.kind.as_str()) };
        if !fits {
            return Err(format!("{task} was due, and it said `{}`: {}", said.kind, said.fields));
        }
        same("the task that it settled", said.field("id"), &task["task"]["id"])?;
        if at % 3 == 0 {
            same("the result", said.field("result"), &json!(at))?;
        }
    }
    Ok(())
}

fn calls(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.attached()?;
    for name in ["mailer", "compteur/é"] {
        let task = worker.task("call", json!([name, "send", [1]]));
        worker.say(&task)?;
        let call = worker.heard_kind("call")?;
        same("whom it called", call.field("worker"), &json!(name))?;
        worker.answer(&call, accepted(name))?;
        let said = worker.heard("the settlement of `call`")?;
        same("the receipt", &result_of("call", &said)?, &json!("accepted"))?;
    }
    Ok(())
}

fn own_kill(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.attached()?;
    let task = worker.task("kill", json!([null]));
    worker.say(&task)?;
    let request = worker.heard_kind("kill")?;
    worker.answer(&request, json!({"killed": {"discarded": 2}}))?;
    let said = worker.heard("the settlement of `kill`")?;
    same("the receipt", &result_of("kill", &said)?, &json!("killed 2"))?;
    same("the result of a task behind it", &worker.result("echo", json!([1]))?, &json!(1))
}

/// Hands over `leave`, hears the word and the settlement.
fn leaving(worker: &mut Peer, drain: bool) -> Result<(), String> {
    let task = worker.task("leave", json!([drain]));
    worker.say(&task)?;
    let leave = worker.heard_kind("leave")?;
    let said = leave.field("drain").as_bool().unwrap_or(false);
    same("whether it leaves by a drain", &json!(said), &json!(drain))?;
    same("the task that it settled", worker.heard_kind("done")?.field("id"), &task["task"]["id"])
}

fn drains(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.attached()?;
    leaving(&mut worker, true)?;
    for x in 0..3 {
        same("the result of what had waited", &worker.result("echo", json!([x]))?, &json!(x))?;
    }
    worker.say(&kill())?;
    worker.ends_well()
}

fn leaves(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.attached()?;
    let task = worker.task("leave", json!([false]));
    worker.say(&task)?;
    worker.heard_kind("leave")?;
    // The answer may come before the task has ended, and it ends all the same.
    worker.say(&kill())?;
    same("the task that it settled", worker.heard_kind("done")?.field("id"), &task["task"]["id"])?;
    worker.ends_well()
}

fn idle_kill(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.attached()?;
    worker.error("no such method", json!([]))?;
    worker.say(&kill())?;
    worker.ends_well()
}

fn kill_during_task(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.attached()?;
    let task = worker.task("sleep", json!([300]));
    worker.say_all(&[task.clone(), kill()])?;
    // What comes together with its end may not be begun any more; what is begun is settled.
    let (end, said) = worker.ended()?;
    match (end, said.as_slice()) {
        (End::Code(0), [] | [_]) => {}
        (end, said) => return Err(format!("it is to end with status 0: {end:?}, {}", all(said))),
    }
    let mut worker = stage.attached()?;
    let task = worker.task("sleep", json!([300]));
    worker.say(&task)?;
    worker.begins(&task)?;
    worker.say(&kill())?;
    same("the task that it settled", worker.heard_kind("done")?.field("id"), &task["task"]["id"])?;
    worker.ends_well()
}

fn later(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.attaching()?;
    worker.heard_kind("attach")?;
    let unknown = unknown(&worker);
    worker.write(&unknown)?;
    worker.say(&attached_welcome())?;
    worker.write(&unknown)?;
    same("the result of a task behind it", &worker.result("echo", json!([1]))?, &json!(1))
}

/// A message of a kind that is not known yet.
fn unknown(worker: &Peer) -> Vec<u8> {
    match worker.encoding() {
        Some(Encoding::Binary) => b"\xb1\xc8\0\0\x03\0\0\0abc".to_vec(),
        _ => b"{\"sing\":{\"loud\":true}}\n".to_vec(),
    }
}

/// It must end with a status that is not 0, and say something for people.
fn ends_with_an_error(worker: &mut Peer, what: &str) -> Result<String, String> {
    let (end, said) = worker.ended().map_err(|error| format!("{what}: {error}"))?;
    match end {
        End::Code(0) => return Err(format!("{what}: it ended with status 0, as if nothing were wrong")),
        End::Signal(signal) => return Err(format!("{what}: {signal} has ended it")),
        End::Code(_) if !said.is_empty() => return Err(format!("{what}: it went on and said {}", all(&said))),
        End::Code(_) => {}
    }
    match worker.output() {
        output if output.is_empty() => Err(format!("{what}: it ended with an error, and wrote nothing about it")),
        output => Ok(output),
    }
}

fn refused(stage: &Stage) -> Result<(), String> {
    for (reason, detail) in [
        ("name_taken", "somebody has this name"),
        ("no_class", "no class has this name"),
        ("not_permitted", "you may not"),
        ("of_a_later_version", "who knows"),
    ] {
        let mut worker = stage.attaching()?;
        let attach = worker.heard_kind("attach")?;
        let reference = if attach.field("ref").is_null() { json!(0) } else { attach.field("ref").clone() };
        if reason == "of_a_later_version" {
            // The one that cannot be said by the suite: an error instead of the receipt.
            worker.say(&json!({"error": {"ref": reference, "detail": detail}}))?;
        } else {
            worker.say(&json!({"receipt": {"ref": reference, "refused": {"reason": reason, "detail": detail}}}))?;
        }
        let output = ends_with_an_error(&mut worker, &format!("`{reason}`"))?;
        if !output.contains(detail) {
            return Err(format!("it is to write why its name was refused, `{detail}`, and it wrote: {output}"));
        }
    }
    Ok(())
}

fn nobody(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.start(&Under::NobodyThere)?;
    let output = ends_with_an_error(&mut worker, "nobody answers")?;
    let socket = worker.socket_path().display().to_string();
    match output.contains(&socket) {
        true => Ok(()),
        false => Err(format!("it is to write where nobody answers, {socket}, and it wrote: {output}")),
    }
}

fn gone_before_answer(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.attaching()?;
    worker.heard_kind("attach")?;
    worker.hang_up();
    ends_with_an_error(&mut worker, "the connection ends before the answer").map(drop)
}

fn gone_when_idle(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.attached()?;
    worker.result("echo", json!([1]))?;
    worker.hang_up();
    ends(&mut worker)
}

fn gone_during_task(stage: &Stage) -> Result<(), String> {
    left_in_task(stage.attached()?)
}

fn gone_during_question(stage: &Stage) -> Result<(), String> {
    left_with_a_question(stage.attached()?)
}

/// Bytes that are no message in this encoding.
fn garbage(worker: &Peer) -> &'static [&'static [u8]] {
    match worker.encoding() {
        Some(Encoding::Binary) => &[b"HTTP/1.1 400 Bad Request\r\n", b"\xb1\x42\x01\0\0\0\0\0", &[0; 8]],
        _ => &[b"HTTP/1.1 400 Bad Request\r\n", b"{\"welcome\":\n", b"\xff\xfe\0\n"],
    }
}

fn garbage_first(stage: &Stage) -> Result<(), String> {
    for round in 0..3 {
        let mut worker = stage.attaching()?;
        worker.heard_kind("attach")?;
        let bytes = garbage(&worker)[round];
        worker.note("to the worker:  ", &String::from_utf8_lossy(bytes));
        worker.write(bytes)?;
        ends_with_an_error(&mut worker, &String::from_utf8_lossy(bytes))?;
    }
    Ok(())
}

fn garbage_later(stage: &Stage) -> Result<(), String> {
    for round in 0..3 {
        let mut worker = stage.attached()?;
        worker.result("echo", json!([1]))?;
        let bytes = garbage(&worker)[round];
        worker.note("to the worker:  ", &String::from_utf8_lossy(bytes));
        worker.write(bytes)?;
        ends_with_an_error(&mut worker, &String::from_utf8_lossy(bytes))?;
    }
    Ok(())
}
