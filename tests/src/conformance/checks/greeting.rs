//! How a worker begins: what it was handed, `ready`, `welcome`.

use std::fs;
use std::time::Duration;

use serde_json::json;

use super::super::peer::{End, GENERATION, NUMBER, Peer, Under, WORKER};
use super::super::{Check, Needs, Stage, same, welcome};

pub const CHECKS: &[Check] = &[
    Check { name: "ready: comes first, once, with protocol 1", methods: &[], needs: Needs::Nothing, run: ready },
    Check {
        name: "ready: the mark page is attached before it",
        methods: &[],
        needs: Needs::TasksAhead(2),
        run: attached,
    },
    Check {
        name: "descriptors: its children inherit neither connection nor mark page",
        methods: &["sleep"],
        needs: Needs::Nothing,
        run: close_on_exec,
    },
    Check {
        name: "descriptors: the lock on its name stays open",
        methods: &["echo"],
        needs: Needs::Nothing,
        run: lock_stays,
    },
    Check {
        name: "descriptors: its children inherit the lock on its name",
        methods: &["echo"],
        needs: Needs::Nothing,
        run: lock_is_inherited,
    },
    Check { name: "welcome: it knows who it is", methods: &["who"], needs: Needs::Nothing, run: who },
    Check {
        name: "welcome: a task may come right behind it",
        methods: &["echo"],
        needs: Needs::Nothing,
        run: task_with_welcome,
    },
    Check { name: "started by hand: it ends and says why", methods: &[], needs: Needs::Nothing, run: by_hand },
];

fn ready(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.start(&Under::Us)?;
    let ready = worker.ready()?;
    same("its protocol", ready.field("protocol"), &json!(1))?;
    let window = ready.field("window").as_u64().ok_or("its window is no whole number from 0")?;
    worker.note("", &format!("(window {window})"));
    worker.say(&welcome())?;
    // The referee sees a second one.
    worker.error("no such method", json!([])).map(drop)
}

fn attached(stage: &Stage) -> Result<(), String> {
    for _ in 0..3 {
        let mut worker = stage.start(&Under::Us)?;
        worker.ready()?;
        if worker.marks().is_none() {
            return Err("`attached` in the mark page is to be 1 before `ready` is said, and it is 0".into());
        }
    }
    Ok(())
}

/// Of each descriptor that leads to a file of this kind: its number, and whether its children inherit it.
fn descriptors(pid: i32, leads_to: impl Fn(&str) -> bool) -> Result<Vec<(String, bool)>, String> {
    const CLOEXEC: u32 = 0o2000000;
    let read = |path: String| fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"));
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).map_err(|error| format!("/proc/{pid}/fd: {error}"))? {
        let Ok(entry) = entry else { continue };
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        if !leads_to(&target.to_string_lossy()) {
            continue;
        }
        let number = entry.file_name().to_string_lossy().into_owned();
        let info = read(format!("/proc/{pid}/fdinfo/{number}"))?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).map(str::trim);
        let flags = flags.and_then(|flags| u32::from_str_radix(flags, 8).ok()).ok_or("fdinfo has no flags")?;
        found.push((number, flags & CLOEXEC == 0));
    }
    Ok(found)
}

fn close_on_exec(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    let task = worker.task("sleep", json!([1500]));
    worker.say(&task)?;
    worker.begins(&task)?;
    // A child that was just made has not executed its program yet, so one look is not enough.
    let mut found = passed_on(&worker)?;
    for _ in 0..50 {
        if found.is_none() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
        found = passed_on(&worker)?;
    }
    worker.heard_kind("done")?;
    match found {
        Some(what) => Err(format!("set close-on-exec on the connection and on the mark page: {what}")),
        None => Ok(()),
    }
}

/// What the worker's children have, or would have, of what is the worker's alone.
fn passed_on(worker: &Peer) -> Result<Option<String>, String> {
    let socket = format!("socket:[{}]", worker.link_inode());
    let is_its_own = |target: &str| target == socket || target.starts_with("/memfd:workhall-mark");
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", worker.pid())).unwrap_or_default();
    for child in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
        // It may have ended.
        if let Some((number, _)) = descriptors(child, is_its_own).unwrap_or_default().first() {
            return Ok(Some(format!("its child {child} has one of them as descriptor {number}")));
        }
    }
    if !children.is_empty() {
        return Ok(None);
    }
    let inherited = descriptors(worker.pid(), is_its_own)?.into_iter().find(|(_, inherited)| *inherited);
    Ok(inherited.map(|(number, _)| format!("its children would inherit descriptor {number}")))
}

/// The descriptors with the lock on the worker's name, when it has executed a task.
fn locks(stage: &Stage) -> Result<Vec<(String, bool)>, String> {
    let mut worker = stage.worker()?;
    worker.result("echo", json!([1]))?;
    let file = worker.lock_file();
    descriptors(worker.pid(), |target| file.as_os_str() == target)
}

fn lock_stays(stage: &Stage) -> Result<(), String> {
    match locks(stage)?.is_empty() {
        true => Err("it has closed the descriptor with the lock on its name: leave what you do not know open".into()),
        false => Ok(()),
    }
}

fn lock_is_inherited(stage: &Stage) -> Result<(), String> {
    let locks = locks(stage)?;
    match locks.iter().find(|(_, inherited)| !inherited) {
        Some((number, _)) => Err(format!("descriptor {number}, the lock on its name, was made close-on-exec")),
        None => Ok(()),
    }
}

fn who(stage: &Stage) -> Result<(), String> {
    same("who it is", &stage.worker()?.result("who", json!([]))?, &json!([WORKER, NUMBER, GENERATION]))
}

fn task_with_welcome(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.start(&Under::Us)?;
    worker.ready()?;
    let task = worker.task("echo", json!(["first"]));
    worker.say_all(&[welcome(), task])?;
    same("the result", worker.heard_kind("done")?.field("result"), &json!("first"))
}

fn by_hand(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.start(&Under::Nobody)?;
    let (end, _) = worker.ended()?;
    if matches!(end, End::Code(0) | End::Signal(_)) {
        return Err(format!("without WORKHALL_FD it is to end with an error, and it ended with {end:?}"));
    }
    match worker.output() {
        output if output.contains("WORKHALL_FD") || output.to_lowercase().contains("supervisor") => Ok(()),
        output => Err(format!("it is to say that a supervisor starts it, or that WORKHALL_FD is missing: {output:?}")),
    }
}
