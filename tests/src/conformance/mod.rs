//! The conformance suite for those who write a worker in a language of their own: it plays supervisor against any
//! program, and checks what `protocol/PROTOCOL.md` says a worker hears and says, happy and hostile.

mod checks;
mod peer;
mod referee;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use nix::sys::prctl::set_child_subreaper;
use serde::Serialize;
use serde_json::{Value, json};
use workhall_protocol::limits::WINDOW_MAX;
use workhall_protocol::wire::Encoding;

use peer::{GENERATION, NUMBER, Peer, Plan, Said, Under, WORKER};

pub use peer::as_parent;

/// What is asked of a run.
pub struct Options {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// How long an answer or an end may take.
    pub patience: Duration,
    /// Only checks whose name holds one of these; all if there is none.
    pub only: Vec<String>,
    /// No checks whose name holds one of these: limits that the worker's author knows.
    pub skip: Vec<String>,
}

/// What came of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is as the page says.
    Passed,
    /// It is not; why, and what was said.
    Failed {
        /// What is wrong.
        reason: String,
        /// The last messages, and what the worker wrote on stdout and stderr.
        transcript: Vec<String>,
    },
    /// It could not be checked.
    Skipped {
        /// Why.
        reason: String,
        /// The worker lacks an agreed method.
        lacks_method: bool,
    },
}

/// One line of the report.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// The check.
    pub check: &'static str,
    /// What came of it.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// What a worker is, as it has shown before the checks begin.
#[derive(Clone, Debug, Serialize)]
pub struct Profile {
    /// `json lines` or `binary`.
    pub encoding: &'static str,
    /// The window that it asks for.
    pub window: u64,
    /// Whether it keeps the mark page.
    pub marks: bool,
    /// Whether it attaches when it is started with `CONFORMANCE_ATTACH`.
    pub attaches: bool,
    /// It neither did so nor ended by itself: how the checks of that fail, all of them.
    #[serde(skip)]
    attaches_not: Option<Verdict>,
    /// Which of the agreed methods it has.
    pub methods: BTreeSet<&'static str>,
}

/// The agreed methods, with what they do.
pub const METHODS: &[(&str, &str)] = &[
    ("echo(x)", "returns x, whatever it is"),
    ("fail(text)", "reports the error `text`"),
    ("sleep(ms)", "returns nil after so long, and reads nothing meanwhile if the library allows it"),
    ("crash()", "ends the process at once with exit status 3, without settling the task"),
    ("who()", "returns [name, number, generation] from `welcome`"),
    ("sender()", "returns [name, number] of the worker that sent the task, or nil"),
    ("call(worker, method, args)", "posts a message and returns its receipt as a text (below)"),
    ("reply(method, args)", "calls the task's sender by its number, and returns the receipt; an error for a client"),
    ("kill(worker)", "kills that worker, or for nil itself, and returns the receipt"),
    ("last_words(worker, method)", "kills itself, then calls `method` without arguments, and returns that receipt"),
    ("ending(ms)", "waits until its own end is asked for, at most so long; returns whether it was"),
    ("cancelled(ms)", "waits until the task is cancelled, at most so long; returns whether it was"),
    ("new_signal(text)", "makes a signal with this description, and returns the signal"),
    (
        "trigger(signal, key, value)",
        "writes one value, triggers the signal, and returns whether that was the first time; an error where there is no such signal",
    ),
    (
        "wait_for(signal, ms)",
        "returns the signal's values when it was triggered, nil when the time is up, else an error, as where there is no such signal",
    ),
    ("leave(drain)", "of an attached worker: gives its name back, after what waits if `drain` is true"),
];

/// A method's bare name.
fn bare(method: &'static str) -> &'static str {
    method.split('(').next().expect("split gives a first part")
}

/// What a check needs of the worker besides its methods.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    Nothing,
    /// The mark page, and a window of at least so many (2 or more), so that tasks are sent ahead.
    TasksAhead(u64),
    /// A program that takes a name by itself.
    Attaching,
    /// The same, whose window is above 1 where it is started: it takes in all that has come before it begins a task.
    AttachingAhead,
    Json,
    Binary,
}

/// One check.
pub(crate) struct Check {
    pub name: &'static str,
    pub methods: &'static [&'static str],
    pub needs: Needs,
    pub run: fn(&Stage) -> Result<(), String>,
}

/// Where a check runs: it starts workers of its own.
pub(crate) struct Stage {
    plan: Plan,
    pub profile: Profile,
    /// What the workers of this check have said before they were dropped.
    told: RefCell<Vec<String>>,
}

/// A worker on a stage. Its conversation is kept for the report.
pub(crate) struct Actor<'a> {
    peer: Peer,
    stage: &'a Stage,
}

impl std::ops::Deref for Actor<'_> {
    type Target = Peer;
    fn deref(&self) -> &Peer {
        &self.peer
    }
}

impl std::ops::DerefMut for Actor<'_> {
    fn deref_mut(&mut self) -> &mut Peer {
        &mut self.peer
    }
}

impl Drop for Actor<'_> {
    fn drop(&mut self) {
        let mut told = self.stage.told.borrow_mut();
        told.append(&mut self.peer.transcript);
        let output = self.peer.output();
        told.extend(output.lines().map(|line| format!("it wrote:        {line}")));
    }
}

impl Stage {
    /// A worker of which nothing was heard.
    pub fn start(&self, under: &Under) -> Result<Actor<'_>, String> {
        Ok(Actor { peer: Peer::start(&self.plan, under)?, stage: self })
    }

    /// A worker that was welcomed.
    pub fn worker(&self) -> Result<Actor<'_>, String> {
        let mut actor = self.start(&Under::Us)?;
        actor.greet()?;
        Ok(actor)
    }

    /// A program that was told to attach, and has connected. Nothing was heard of it yet.
    pub fn attaching(&self) -> Result<Actor<'_>, String> {
        let mut actor = self.start(&Under::Attaching)?;
        actor.connected()?;
        Ok(actor)
    }

    /// The same, that was welcomed.
    pub fn attached(&self) -> Result<Actor<'_>, String> {
        let mut actor = self.attaching()?;
        actor.heard_kind("attach")?;
        actor.say(&attached_welcome())?;
        Ok(actor)
    }

    /// How many tasks may be handed over at once, at most `wanted`.
    pub fn ahead(&self, wanted: u64) -> u64 {
        if self.sends_ahead() { self.profile.window.min(wanted) } else { 1 }
    }

    fn sends_ahead(&self) -> bool {
        self.profile.marks && self.profile.window > 1
    }
}

/// The supervisor's `welcome`.
pub(crate) fn welcome() -> Value {
    json!({"welcome": {"protocol": 1, "worker": WORKER, "number": NUMBER, "generation": GENERATION}})
}

/// The supervisor's `welcome` of one that has attached: its first life, and its only one.
pub(crate) fn attached_welcome() -> Value {
    json!({"welcome": {"protocol": 1, "worker": WORKER, "number": NUMBER, "generation": 1}})
}

impl Peer {
    /// Hears `ready`.
    pub(crate) fn ready(&mut self) -> Result<Said, String> {
        self.heard_kind("ready")
    }

    /// Hears `ready`, says `welcome`.
    pub(crate) fn greet(&mut self) -> Result<Said, String> {
        let ready = self.ready()?;
        self.say(&welcome())?;
        Ok(ready)
    }

    /// Hands over one task for which somebody waits, and hears its settlement.
    pub(crate) fn ask(&mut self, method: &str, args: Value) -> Result<Said, String> {
        let task = self.task(method, args);
        self.say(&task)?;
        let said = self.heard(&format!("the settlement of `{method}`"))?;
        if !["done", "failed"].contains(&said.kind.as_str()) {
            return Err(format!("the settlement of `{method}` was due, and it said `{}`: {}", said.kind, said.fields));
        }
        Ok(said)
    }

    /// The same, for a task that must be done: its result.
    pub(crate) fn result(&mut self, method: &str, args: Value) -> Result<Value, String> {
        let said = self.ask(method, args)?;
        result_of(method, &said)
    }

    /// The same, for a task that must fail: the error.
    pub(crate) fn error(&mut self, method: &str, args: Value) -> Result<String, String> {
        let said = self.ask(method, args)?;
        match said.kind.as_str() {
            "failed" => Ok(said.field("error").as_str().unwrap_or_default().to_string()),
            _ => Err(format!("`{method}` was to fail, and it is done: {}", said.fields)),
        }
    }
}

/// The result of a task that must be done.
pub(crate) fn result_of(method: &str, said: &Said) -> Result<Value, String> {
    match said.kind.as_str() {
        "done" => Ok(said.field("result").clone()),
        _ => Err(format!("`{method}` was to be done, and it {}: {}", said.kind, said.fields)),
    }
}

/// The two must be equal.
pub(crate) fn same(what: &str, found: &Value, expected: &Value) -> Result<(), String> {
    let cut = |value: &Value| value.to_string().chars().take(200).collect::<String>();
    match found == expected {
        true => Ok(()),
        false => Err(format!("{what}: expected {}, and it is {}", cut(expected), cut(found))),
    }
}

/// Plays a round again, up to five in all, whose first task ended before what was awaited during it, as `awaited` says it: the
/// machine was slow. `round` returns whether it did not.
pub(crate) fn in_some_round(awaited: &str, mut round: impl FnMut() -> Result<bool, String>) -> Result<(), String> {
    for _ in 0..5 {
        if round()? {
            return Ok(());
        }
    }
    Err(format!("the first task ended five times before {awaited}: this machine is too slow for the check"))
}

/// Whether the name of a check holds this: who chooses checks that do not exist has not checked anything.
pub fn is_part_of_a_name(part: &str) -> bool {
    checks::all().any(|check| check.name.contains(part))
}

/// Runs all checks; each line is handed out as it is known. The error says why none could be run.
pub fn run(options: &Options, mut report: impl FnMut(&Line)) -> Result<Profile, String> {
    // A worker whose parent was killed comes to us, so that its end is seen.
    set_child_subreaper(true).map_err(|error| format!("this process cannot become a reaper: {error}"))?;
    let plan = Plan { command: options.command.clone(), patience: options.patience };
    let profile = profile(&plan)?;
    for check in checks::all() {
        let wanted = options.only.is_empty() || options.only.iter().any(|part| check.name.contains(part.as_str()));
        if !wanted {
            continue;
        }
        let neither =
            profile.attaches_not.as_ref().filter(|_| matches!(check.needs, Needs::Attaching | Needs::AttachingAhead));
        let verdict = match (skipped(&check, &profile, options), neither) {
            (Some(skipped), _) => skipped,
            (None, Some(failed)) => failed.clone(),
            (None, None) => {
                let stage = Stage { plan: plan.clone(), profile: profile.clone(), told: RefCell::default() };
                match (check.run)(&stage) {
                    Ok(()) => Verdict::Passed,
                    Err(reason) => Verdict::Failed { reason, transcript: last(stage.told.into_inner()) },
                }
            }
        };
        report(&Line { check: check.name, verdict });
    }
    Ok(profile)
}

fn last(mut transcript: Vec<String>) -> Vec<String> {
    const SHOWN: usize = 16;
    let first = transcript.len().saturating_sub(SHOWN);
    transcript.split_off(first)
}

fn skipped(check: &Check, profile: &Profile, options: &Options) -> Option<Verdict> {
    let skipped = |reason: String, lacks_method| Some(Verdict::Skipped { reason, lacks_method });
    if let Some(part) = options.skip.iter().find(|part| check.name.contains(part.as_str())) {
        return skipped(format!("left out by --skip {part}"), false);
    }
    let because = match check.needs {
        Needs::TasksAhead(_) if profile.window <= 1 => "its window is 1: no task is ever sent ahead to it".into(),
        Needs::TasksAhead(_) if !profile.marks => "it keeps no marks: no task is ever sent ahead to it".into(),
        Needs::TasksAhead(least) if profile.window < least => {
            format!("its window is {}, and this takes {least} tasks at once", profile.window)
        }
        Needs::Attaching | Needs::AttachingAhead if !profile.attaches && profile.attaches_not.is_none() => {
            "it does not offer attaching".into()
        }
        Needs::AttachingAhead if profile.window <= 1 => {
            "its window is 1: it may begin a task before it reads what stands behind it".into()
        }
        Needs::Json if profile.encoding != JSON => "it speaks binary frames".into(),
        Needs::Binary if profile.encoding != BINARY => "it speaks JSON lines".into(),
        _ => String::new(),
    };
    if !because.is_empty() {
        return skipped(because, false);
    }
    let missing: Vec<String> = check
        .methods
        .iter()
        .filter(|method| !profile.methods.contains(*method))
        .map(|method| format!("`{method}`"))
        .collect();
    if missing.is_empty() { None } else { skipped(format!("the worker has no method {}", missing.join(", ")), true) }
}

const JSON: &str = "json lines";
const BINARY: &str = "binary frames";

/// Starts the worker once, and finds out what it is.
fn profile(plan: &Plan) -> Result<Profile, String> {
    let mut peer = Peer::start(plan, &Under::Us)?;
    let (mut profile, unknown) = learn(&mut peer).map_err(|error| {
        let output = peer.output();
        let wrote = if output.is_empty() { String::new() } else { format!("\nit wrote: {output}") };
        format!("the worker cannot be checked: {error}{wrote}")
    })?;
    drop(peer);
    if profile.methods.is_empty() {
        // It does not say what it has. The check of that fails, and each is asked for.
        let names = METHODS.iter().map(|(method, _)| bare(method));
        profile.methods = names.filter(|method| !lacks(plan, method, &unknown)).collect();
    }
    let mut peer = Peer::start(plan, &Under::Attaching)?;
    let (attaches, attaches_not) = match peer.attaches() {
        Ok(attaches) => (attaches, None),
        Err(reason) => {
            let transcript = peer.output().lines().map(|line| format!("it wrote:        {line}")).collect();
            (false, Some(Verdict::Failed { reason, transcript: last(transcript) }))
        }
    };
    Ok(Profile { attaches, attaches_not, ..profile })
}

/// A method that nobody has.
const UNKNOWN: &str = "no such method";

/// What a worker is, its methods as far as it lists them, and what it says of one that it has not.
fn learn(peer: &mut Peer) -> Result<(Profile, String), String> {
    let ready = peer.greet()?;
    let marks = peer.marks().is_some();
    let unknown = peer.error(UNKNOWN, json!([]))?;
    let listed = |method: &&&str| {
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        unknown.split(|c: char| !is_part(c)).any(|word| word == **method)
    };
    let names: Vec<&'static str> = METHODS.iter().map(|(method, _)| bare(method)).collect();
    let methods: BTreeSet<&'static str> = names.iter().filter(listed).copied().collect();
    let profile = Profile {
        encoding: if peer.encoding() == Some(Encoding::Json) { JSON } else { BINARY },
        window: ready.field("window").as_u64().unwrap_or(1).clamp(1, WINDOW_MAX.into()),
        marks,
        attaches: false,
        attaches_not: None,
        methods,
    };
    Ok((profile, unknown))
}

/// Whether it says of this method what it says of one that nobody has. It is asked with arguments that fit: whoever has it does
/// something else.
fn lacks(plan: &Plan, method: &str, unknown: &str) -> bool {
    if unknown.is_empty() || method == "fail" && !unknown.contains(UNKNOWN) {
        // Its errors may all be alike.
        return false;
    }
    let signal = json!({"$signal": "00ff00ff00ff00ff0123456789abcdef"});
    let args = match method {
        "echo" | "sleep" | "ending" | "cancelled" => json!([1]),
        "fail" | "kill" | "new_signal" => json!(["x"]),
        "call" => json!(["x", "y", []]),
        "reply" => json!(["x", []]),
        "last_words" => json!(["x", "y"]),
        "trigger" => json!([signal, "x", 1]),
        "wait_for" => json!([signal, 1]),
        "leave" => json!([false]),
        _ => json!([]),
    };
    let said = Peer::start(plan, &Under::Us).and_then(|mut peer| {
        peer.greet()?;
        peer.error(method, args)
    });
    said.is_ok_and(|error| error == unknown || error == unknown.replace(UNKNOWN, method))
}

#[cfg(test)]
mod tests {
    use super::in_some_round;

    /// Plays rounds that end like this, and says what came of it and how many were played.
    fn play(ends: &[Result<bool, String>]) -> (Result<(), String>, usize) {
        let mut played = 0;
        let result = in_some_round("the sun rose", || {
            played += 1;
            ends[played - 1].clone()
        });
        (result, played)
    }

    #[test]
    fn a_round_that_was_too_slow_is_played_again_up_to_five_times() {
        assert_eq!(play(&[Ok(true)]), (Ok(()), 1));
        assert_eq!(play(&[Ok(false), Ok(false), Ok(false), Ok(false), Ok(true)]), (Ok(()), 5));
        assert_eq!(play(&[Ok(false), Err("wrong".into())]), (Err("wrong".into()), 2));
        let (result, played) = play(&[Ok(false), Ok(false), Ok(false), Ok(false), Ok(false)]);
        let why = "the first task ended five times before the sun rose: this machine is too slow for the check";
        assert_eq!((result, played), (Err(why.into()), 5));
    }
}
