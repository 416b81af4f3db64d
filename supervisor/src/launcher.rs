//! What happens in a worker's process before its program.
//!
//! Mostly it happens between fork and exec, in a process that shares the supervisor's memory ([`sys::start`]). That is not
//! for a process that becomes another user, who could get hold of what is the supervisor's, nor for one that is nicer, for
//! which the supervisor would have to wait. For these the supervisor starts
//! its own binary, which knows itself by its name in `argv[0]`, reads its plan from stdin, does what the plan says, and
//! becomes the worker's program: same process, same process group, and the descriptors that the worker inherits are
//! simply left alone.
//!
//! The order is forced: the control group first, so that nothing runs outside; what only root may do before the
//! user; the directory after it, because that user must be able to enter it.
//!
//! A failure goes as a step and an error number into the mark page, and the process exits with 127. The sentence for
//! people is made by the supervisor, which knows the class ([`Plan::failure`]).

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use workhall_protocol::MarkPage;
use workhall_protocol::terms::StartStage;

use crate::diagnostics::say;
use crate::sys::{self, Image, Limit};

/// By this `argv[0]` the binary knows that it is to launch a worker.
pub const NAME: &str = "workhall-launcher";

/// The exit status of a launcher that could not become the worker.
const FAILED: u8 = 127;

/// What is to be done.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Plan {
    /// The file to execute.
    pub program: OsString,
    /// The words of its command line, the program's own among them.
    pub words: Vec<String>,
    /// The control group to join.
    pub cgroup: Option<OsString>,
    /// How nice to be.
    pub nice: Option<i32>,
    /// Limits of the kernel; none is unlimited.
    pub limits: Vec<(Limit, Option<u64>)>,
    /// Which permissions new files lack.
    pub umask: Option<u32>,
    /// The supplementary groups to take.
    pub groups: Option<Vec<u32>>,
    /// The group to take.
    pub group: Option<u32>,
    /// The user to become.
    pub user: Option<u32>,
    /// Where to start.
    pub directory: Option<OsString>,
    /// Whether the program may gain no privileges.
    pub no_new_privs: bool,
    /// What is added to the environment only at the program's own start: what would change the launcher itself, which
    /// may be root when the program is not.
    pub environment: Vec<(OsString, OsString)>,
}

/// The steps, as they stand in the mark page; limits follow from [`LIMITS`] on, one number each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Step {
    Plan = 1,
    Cgroup,
    Nice,
    Groups,
    Group,
    User,
    Directory,
    Privileges,
    Stdin,
    Exec,
    Outputs,
}

const STEPS: [Step; 11] = [
    Step::Plan,
    Step::Cgroup,
    Step::Nice,
    Step::Groups,
    Step::Group,
    Step::User,
    Step::Directory,
    Step::Privileges,
    Step::Stdin,
    Step::Exec,
    Step::Outputs,
];
const LIMITS: u32 = 100;

/// A step and what the kernel said.
#[derive(Debug)]
pub struct Failed(u32, io::Error);

impl Failed {
    /// Says it to the supervisor. Returns the exit status.
    pub fn tell(&self, page: &MarkPage) -> u8 {
        page.launch_failed(self.0, self.1.raw_os_error().unwrap_or(0));
        FAILED
    }
}

/// Launches a worker, if this process was started for that. Comes back only if it was not, or has failed.
pub fn run_if_asked() -> Option<ExitCode> {
    if std::env::args_os().next()? != NAME {
        return None;
    }
    let page = match mark_page() {
        Ok(page) => page,
        Err(error) => {
            say(format_args!("{NAME} is started by a supervisor alone, and has no mark page: {error}"));
            return Some(ExitCode::from(FAILED));
        }
    };
    Some(ExitCode::from(launch().tell(&page)))
}

/// The page is opened anew through its number: so this file needs nothing unsafe, and the worker's descriptor stays
/// as it is.
fn mark_page() -> io::Result<MarkPage> {
    let number = std::env::var("WORKHALL_MARK_FD").map_err(io::Error::other)?;
    MarkPage::of_launch(File::options().read(true).write(true).open(format!("/proc/self/fd/{number}"))?)
}

/// Comes back only if it has failed.
fn launch() -> Failed {
    let plan = match read_plan() {
        Ok(plan) => plan,
        Err(error) => return Failed(Step::Plan as u32, error),
    };
    let environment: Vec<_> = std::env::vars_os().chain(plan.environment.iter().cloned()).collect();
    match plan.prepare(&environment) {
        Ok(prepared) => become_program(&plan, &prepared, false),
        Err(error) => Failed(Step::Exec as u32, error),
    }
}

/// What a plan needs memory for. It is made before, because the limits may leave little, and because in the supervisor's
/// memory ([`sys::start`]) none may be taken.
#[derive(Debug)]
pub struct Prepared {
    image: Image,
    group: Option<CString>,
    directory: Option<CString>,
}

/// Does what the plan says and becomes the program: comes back only if that has failed. `in_group`: it is in its control
/// group already.
pub fn become_program(plan: &Plan, prepared: &Prepared, in_group: bool) -> Failed {
    match follow(plan, prepared, in_group) {
        Ok(()) => Failed(Step::Exec as u32, prepared.image.execute()),
        Err(failed) => failed,
    }
}

/// The same in a process that [`sys::start`] has made. What it writes on stdout and stderr goes into these pipes.
pub fn become_writer(plan: &Plan, prepared: &Prepared, in_group: bool, outputs: &[OwnedFd; 2]) -> Failed {
    match sys::write_to(outputs) {
        Ok(()) => become_program(plan, prepared, in_group),
        Err(error) => Failed(Step::Outputs as u32, error),
    }
}

fn read_plan() -> io::Result<Plan> {
    let mut text = Vec::new();
    io::stdin().lock().read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

fn follow(plan: &Plan, prepared: &Prepared, in_group: bool) -> Result<(), Failed> {
    let at = |step: Step| move |error: io::Error| Failed(step as u32, error);
    if let Some(group) = prepared.group.as_ref().filter(|_| !in_group) {
        sys::join_group(group).map_err(at(Step::Cgroup))?;
    }
    // The plan was its stdin. Before the limits: they may allow it no more descriptors.
    sys::as_programs_expect().map_err(at(Step::Stdin))?;
    if let Some(nice) = plan.nice {
        sys::set_nice(nice).map_err(at(Step::Nice))?;
    }
    for (limit, value) in &plan.limits {
        sys::set_limit(*limit, *value).map_err(|error| Failed(LIMITS + *limit as u32, error))?;
    }
    if let Some(mask) = plan.umask {
        sys::set_umask(mask);
    }
    if let Some(groups) = &plan.groups {
        sys::set_groups(groups).map_err(at(Step::Groups))?;
    }
    if let Some(group) = plan.group {
        sys::set_group(group).map_err(at(Step::Group))?;
    }
    if let Some(user) = plan.user {
        sys::set_user(user).map_err(at(Step::User))?;
    }
    if let Some(directory) = &prepared.directory {
        sys::change_directory(directory).map_err(at(Step::Directory))?;
    }
    if plan.no_new_privs {
        sys::set_no_new_privs().map_err(at(Step::Privileges))?;
    }
    Ok(())
}

impl Plan {
    /// With the environment of the program. Fails if something in it has a NUL byte.
    pub fn prepare(&self, environment: &[(OsString, OsString)]) -> io::Result<Prepared> {
        let path = |path: &Path| CString::new(path.as_os_str().as_bytes());
        let group = self.cgroup.as_ref().map(|dir| path(&Path::new(dir).join("cgroup.procs")));
        Ok(Prepared {
            image: Image::new(&self.program, &self.words, environment)?,
            group: group.transpose()?,
            directory: self.directory.as_ref().map(|dir| path(Path::new(dir))).transpose()?,
        })
    }

    /// What a failure at a step was, for people; none for a step that does not exist.
    pub fn failure(&self, step: u32, error: i32, user: &str) -> Option<(StartStage, String)> {
        let error = io::Error::from_raw_os_error(error);
        if let Some((limit, _)) = self.limits.iter().find(|(limit, _)| LIMITS + *limit as u32 == step) {
            return Some((StartStage::Setup, format!("cannot set the limit `{}`: {error}", limit.key())));
        }
        let shown = |path: &Option<OsString>| path.as_deref().unwrap_or_default().display().to_string();
        let step = *STEPS.iter().find(|known| **known as u32 == step)?;
        let detail = match step {
            Step::Plan => format!("its launcher cannot read what to do: {error}"),
            Step::Cgroup => format!("cannot join the control group {}: {error}", shown(&self.cgroup)),
            Step::Nice => format!("cannot set nice {}: {error}", self.nice.unwrap_or_default()),
            Step::Groups | Step::Group | Step::User => format!("cannot become {user}: {error}"),
            Step::Directory => format!("cannot start in {}: {error}", shown(&self.directory)),
            Step::Privileges => format!("cannot give up new privileges: {error}"),
            Step::Stdin => format!("cannot open /dev/null: {error}"),
            Step::Exec => cannot_execute(Path::new(&self.program), &error),
            Step::Outputs => format!("cannot hand over the pipes of its stdout and stderr: {error}"),
        };
        let stage = if step == Step::Exec { StartStage::Exec } else { StartStage::Setup };
        let lack = sys::shortage(&error).map(|lack| format!(" ({lack})")).unwrap_or_default();
        Some((stage, detail + &lack))
    }
}

/// Why a program cannot be executed.
pub fn cannot_execute(program: &Path, error: &io::Error) -> String {
    // The kernel has one error for a program and for the interpreter that its first line names.
    let hint = match error.kind() == io::ErrorKind::NotFound && program.exists() {
        true => "; it is there: what its first line names is not",
        false => "",
    };
    format!("cannot execute {}: {error}{hint}", program.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d05_each_step_has_its_sentence_and_its_stage() {
        let plan = Plan {
            program: "/x/y".into(),
            cgroup: Some("/cg/2.1".into()),
            nice: Some(-5),
            limits: vec![(Limit::OpenFiles, Some(10))],
            directory: Some("/d".into()),
            ..Plan::default()
        };
        let said = |step: Step| plan.failure(step as u32, 13, "user nobody").unwrap();
        for (step, part) in STEPS.into_iter().zip([
            "what to do",
            "group /cg/2.1",
            "nice -5",
            "user nobody",
            "user nobody",
            "user nobody",
            "in /d",
            "up",
            "null",
            "/x/y",
            "pipes",
        ]) {
            let (stage, detail) = said(step);
            assert!(detail.contains(part) && detail.contains("Permission denied"), "{step:?}: {detail}");
            assert_eq!(stage == StartStage::Exec, step == Step::Exec);
        }
        let limit = plan.failure(LIMITS + Limit::OpenFiles as u32, 1, "").unwrap();
        assert_eq!(limit.1, "cannot set the limit `open_files`: Operation not permitted (os error 1)");
        assert_eq!(plan.failure(LIMITS + Limit::Core as u32, 1, ""), None, "a limit that was not to be set");
        assert_eq!(plan.failure(77, 1, ""), None);
        let (_, lack) = plan.failure(Step::Stdin as u32, 24, "").unwrap();
        assert!(lack.contains("Too many open files") && lack.contains("ulimit -n"), "{lack}");
    }

    #[test]
    fn a_plan_comes_back_as_it_went() {
        use std::os::unix::ffi::OsStringExt as _;
        let odd = OsString::from_vec(vec![0xff, b'a']);
        let plan = Plan {
            program: odd.clone(),
            words: vec!["a".into(), "b c".into()],
            limits: vec![(Limit::Core, None), (Limit::Stack, Some(u64::MAX))],
            environment: vec![("LD_PRELOAD".into(), odd)],
            ..Plan::default()
        };
        let back: Plan = serde_json::from_slice(&serde_json::to_vec(&plan).unwrap()).unwrap();
        assert_eq!(format!("{plan:?}"), format!("{back:?}"));
    }
}
