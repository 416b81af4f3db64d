//! Starts the process of a worker.
//!
//! Never by a fork that copies the supervisor's memory, which may hold many messages. What must happen in the process
//! before its program, and where, is in [`crate::launcher`].

use std::ffi::OsString;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicI32;

use workhall_core::ProcessKey;
use workhall_protocol::MarkPage;
use workhall_protocol::terms::StartStage;

use crate::cgroup::Group;
use crate::config::Class;
use crate::launcher::{self, Plan, cannot_execute};
use crate::output::{Output, Outputs};
use crate::starter::Starter;
use crate::sys::{self, Inherit, Stream};

/// A process that was started.
#[derive(Debug)]
pub struct Spawned {
    /// Its process id; also the number of its process group.
    pub pid: i32,
    /// What tells its end.
    pub pidfd: OwnedFd,
    /// The supervisor's end of its connection.
    pub stream: Stream,
    /// What it shares with the supervisor.
    pub page: Arc<MarkPage>,
    /// Its descriptor: the next program of this supervisor maps it again.
    pub page_fd: OwnedFd,
    /// Where it writes.
    pub outputs: Outputs,
}

/// Why there is no process: how far it had come, and the reason for people.
pub type Failed = (StartStage, String);

/// What a process is started into.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// The supervisor's socket.
    pub socket: &'a Path,
    /// The control group to join.
    pub group: Option<&'a Group>,
    /// Nothing that this supervisor starts can gain privileges: it has given that up for itself.
    pub no_new_privs: bool,
}

/// Starts a process with its connection and its mark page.
/// `lock` is inherited, and closed here: the tree alone holds the name.
pub fn spawn(
    starter: &mut Starter,
    class: &Class,
    name: &str,
    process: ProcessKey,
    around: Surroundings<'_>,
    lock: OwnedFd,
) -> Result<Spawned, Failed> {
    let setup = |what: &'static str| move |error: io::Error| (StartStage::Setup, failed(what, &error));
    let (stream, theirs) = sys::stream_pair().map_err(setup("cannot make its connection"))?;
    let (page, page_fd) = MarkPage::create().map_err(setup("cannot make its mark page"))?;
    let owner = Some(class.runs_as()).filter(|creds| *creds != sys::own_creds()).map(|creds| (creds.uid, creds.gid));
    let (out, their_out) = sys::output_pipe(owner).map_err(setup("cannot make the pipe of its stdout"))?;
    let (err, their_err) = sys::output_pipe(owner).map_err(setup("cannot make the pipe of its stderr"))?;
    let outputs = [out, err].map(|pipe| Some(Output::new(pipe)));
    let connection = Inherit::new(&theirs).map_err(setup("cannot hand over its connection"))?;
    let marks = Inherit::new(&page_fd).map_err(setup("cannot hand over its mark page"))?;
    let lock = sys::out_of_the_way(lock);
    let name_lock = Inherit::new(&lock).map_err(setup("cannot hand over the lock of its name"))?;
    let writes = [&their_out, &their_err].map(sys::number);
    let mut keep = [connection.number(), marks.number(), name_lock.number(), writes[0], writes[1]];
    keep.sort_unstable();
    let page = Arc::new(page);
    let plan = plan(class, around)?;
    let own = [
        ("WORKHALL_FD", connection.number().to_string().into()),
        ("WORKHALL_MARK_FD", marks.number().to_string().into()),
        ("WORKHALL_WORKER", name.into()),
        ("WORKHALL_NUMBER", process.number.0.to_string().into()),
        ("WORKHALL_GENERATION", process.generation.to_string().into()),
        ("WORKHALL_SOCKET", around.socket.into()),
    ];
    let own = own.map(|(name, value): (&str, OsString)| (name.into(), value));
    let pid = match needs_launcher(&plan) {
        true => launched(class, &plan, own, [their_out, their_err])?,
        false => started(starter, class, plan, own, keep, page.clone(), [their_out, their_err])?,
    };
    drop((connection, marks, name_lock));
    match sys::open_pidfd(pid) {
        Ok(pidfd) => Ok(Spawned { pid, pidfd, stream, page, page_fd, outputs }),
        Err(error) => {
            // Nobody would notice its end: it must not live.
            end(pid, around.group);
            Err((StartStage::Setup, failed(&format!("cannot watch process {pid}"), &error)))
        }
    }
}

/// Why a process that was launched has not executed its program; none if its mark page names nothing known.
pub fn launch_failure(class: &Class, around: Surroundings<'_>, step: u32, error: i32) -> Option<Failed> {
    plan(class, around).ok()?.failure(step, error, &class.settings.user_shown())
}

fn plan(class: &Class, around: Surroundings<'_>) -> Result<Plan, Failed> {
    let (held_back, _) = environment(class);
    let settings = &class.settings;
    let program = class.program().ok_or_else(|| {
        let path = settings.variable("PATH").unwrap_or_default().display();
        let detail = match class.exec.first() {
            Some(program) => format!("cannot execute {program}: no directory of PATH has it ({path})"),
            // It had one when the worker was called.
            None => format!("class `{}` has no program (`exec`) any more", class.policy.class),
        };
        (StartStage::Exec, detail)
    })?;
    Ok(Plan {
        program: program.into_os_string(),
        words: class.exec.clone(),
        cgroup: around.group.map(|group| group.dir().as_os_str().to_os_string()),
        nice: settings.nice,
        limits: settings.limits.clone(),
        umask: settings.umask,
        groups: settings.groups.clone(),
        group: settings.group,
        user: settings.user,
        directory: class.directory.as_ref().map(|directory| directory.as_os_str().to_os_string()),
        no_new_privs: settings.no_new_privs && !around.no_new_privs,
        environment: held_back,
    })
}

/// Whether what it wants cannot be done in a process that shares the supervisor's memory: another user could reach it,
/// and for who is nicer the supervisor would have to wait.
fn needs_launcher(plan: &Plan) -> bool {
    plan.groups.is_some() || plan.group.is_some() || plan.user.is_some() || plan.nice.is_some()
}

/// The program itself. What fails in the process before is told as the launcher tells it.
fn started(
    starter: &mut Starter,
    class: &Class,
    plan: Plan,
    own: [Variable; 6],
    keep: [RawFd; 5],
    page: Arc<MarkPage>,
    outputs: [OwnedFd; 2],
) -> Result<i32, Failed> {
    let environment: Vec<Variable> = class.settings.environment.iter().cloned().chain(own).collect();
    let prepared = plan
        .prepare(&environment)
        .map_err(|error| (StartStage::Exec, cannot_execute(Path::new(&plan.program), &error)))?;
    let start = move |begun: &AtomicI32| {
        let group = plan.cgroup.as_ref().map(Path::new);
        sys::start(group, &keep, begun, |in_group| {
            launcher::become_writer(&plan, &prepared, in_group, &outputs).tell(&page)
        })
    };
    starter.start(&class.policy.class, start).map_err(no_process)
}

/// This binary, which will become the program.
fn launched(class: &Class, plan: &Plan, own: [Variable; 6], outputs: [OwnedFd; 2]) -> Result<i32, Failed> {
    let setup = |error: io::Error| (StartStage::Setup, failed("cannot hand over what is to be done", &error));
    let text = serde_json::to_vec(plan).map_err(|error| setup(error.into()))?;
    let file = sys::memory_file(&text).map_err(setup)?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0(launcher::NAME).env_clear().envs(environment(class).1).envs(own).stdin(file).process_group(0);
    let [out, err] = outputs;
    command.stdout(out).stderr(err);
    #[allow(clippy::zombie_processes, reason = "the event loop reaps it through its pidfd")]
    let child = command.spawn().map_err(no_process)?;
    Ok(child.id() as i32)
}

type Variable = (OsString, OsString);

/// What the class lets through to its program: what would change a launcher on the way, and the rest.
fn environment(class: &Class) -> (Vec<Variable>, Vec<Variable>) {
    let changes_the_launcher = |name: &OsString| {
        let name = name.as_encoded_bytes();
        name.starts_with(b"LD_") || name.starts_with(b"GLIBC_") || name.starts_with(b"MALLOC_")
    };
    class.settings.environment.iter().cloned().partition(|(name, _)| changes_the_launcher(name))
}

fn no_process(error: io::Error) -> Failed {
    (StartStage::Setup, failed("cannot start a process", &error))
}

/// Ends a process that has only just been started, and all it may have started.
fn end(pid: i32, group: Option<&Group>) {
    sys::kill_group(pid);
    sys::wait_for_child(pid);
    let _killed = group.map(Group::kill);
}

/// Stage and reason, and what is lacking, if that is why.
pub fn failed(stage: &str, error: &io::Error) -> String {
    let lack = sys::shortage(error).map(|lack| format!(" ({lack})")).unwrap_or_default();
    format!("{stage}: {error}{lack}")
}
