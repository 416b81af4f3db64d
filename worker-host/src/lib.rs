//! Write a Workhall worker in Rust: methods over a state of your own type.
//!
//! ```no_run
//! use worker_host::Worker;
//!
//! fn main() -> worker_host::Result {
//!     Worker::new(0_i64)
//!         .method("add", |total, _ctx, (amount,): (i64,)| {
//!             *total += amount;
//!             Ok(*total)
//!         })
//!         .method("total", |total, _ctx, ()| Ok(*total))
//!         .run()
//! }
//! ```
//!
//! The supervisor starts the executable at the first message to its name and keeps it: the state lives from
//! message to message (rule W6). Tasks are executed one at a time, in the order in which they were accepted.
//! A method that returns an error settles its message as *failed* (rule D3), and the process goes on; a panic
//! is a crash of the process (rule D2).

mod clock;
mod context;
mod link;
mod session;
mod sys;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use workhall_protocol::args::{ArgsError, NIL, Payload, decode};

pub use context::{Call, Context, Run, Sender};
pub use workhall_protocol as protocol;
pub use workhall_protocol::Signal;
pub use workhall_protocol::messages::ReceiptBody as Receipt;
pub use workhall_protocol::process::{ProcessInfo, ProcessState, ProcessType};
pub use workhall_protocol::signal::SignalError;

use link::Link;
use session::Task;

/// What a method returns: a value that serde knows, or an error for people. `?` works on every error.
pub type MethodResult<R> = std::result::Result<R, Box<dyn std::error::Error + Send + Sync>>;

/// What `main` of a worker returns.
pub type Result<T = ()> = std::result::Result<T, Error>;

/// Why a worker cannot go on. Its `Debug` is its sentence, so that it reads well when `main` returns it.
#[derive(thiserror::Error)]
pub enum Error {
    /// The process was not started by a supervisor.
    #[error(
        "this program is a Workhall worker: a supervisor starts it at the first message to its name ({0}). \
         Try `workhall serve --workers DIR` with the directory of this program, then `workhall call NAME METHOD`"
    )]
    NotStartedBySupervisor(String),
    /// Nobody answers at a socket.
    #[error("no supervisor answers at {0}: {1}; is one running (`workhall serve`), and is WORKHALL_SOCKET its socket?")]
    NoSupervisor(String, std::io::Error),
    /// The name cannot be had.
    #[error("cannot attach as `{name}`: {detail}")]
    NotAttached {
        /// The name.
        name: String,
        /// Why, for programs.
        reason: workhall_protocol::terms::Refusal,
        /// Why, for people.
        detail: String,
    },
    /// The connection to the supervisor failed.
    #[error("the connection to the supervisor failed: {0}")]
    Io(#[from] std::io::Error),
    /// The supervisor ended the connection while an answer was awaited. It is gone; what was asked last may
    /// or may not have happened.
    #[error("the supervisor is gone")]
    SupervisorGone,
    /// The supervisor said something that this library does not understand.
    #[error("the supervisor speaks another protocol: {0}")]
    Protocol(String),
    /// Arguments that cannot be sent; nothing has happened.
    #[error("{0}")]
    Arguments(String),
}

impl std::fmt::Debug for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl From<ArgsError> for Error {
    fn from(error: ArgsError) -> Self {
        Error::Arguments(error.to_string())
    }
}

/// How many unsettled tasks a worker takes at once, unless it says otherwise.
pub const WINDOW_DEFAULT: u32 = 256;

type Method<S> = Box<dyn FnMut(&mut S, &mut Context<'_>, &[u8]) -> MethodResult<Payload<'static>>>;
type ErrorHook<S> = Box<dyn FnMut(&mut S, &mut Context<'_>, &(dyn std::error::Error + Send + Sync))>;

/// A worker: its state, and the methods that may be called.
pub struct Worker<S> {
    state: S,
    methods: BTreeMap<String, Method<S>>,
    on_error: Option<ErrorHook<S>>,
    window: u32,
}

impl<S> Worker<S> {
    /// A worker without methods.
    pub fn new(state: S) -> Worker<S> {
        Worker { state, methods: BTreeMap::new(), on_error: None, window: WINDOW_DEFAULT }
    }

    /// Adds a method. Its arguments are a tuple, `()` for none; a list of another length or with other
    /// types settles the message as failed, and says so. A later method of the same name replaces it.
    pub fn method<A, R, F>(mut self, name: &str, mut method: F) -> Worker<S>
    where
        A: DeserializeOwned,
        R: Serialize,
        F: FnMut(&mut S, &mut Context<'_>, A) -> MethodResult<R> + 'static,
    {
        let named = name.to_string();
        let method: Method<S> = Box::new(move |state, context, args| {
            let args = arguments(&named, args)?;
            let result = method(state, context, args)?;
            Payload::encode(&result).map_err(|error| format!("the result of `{named}` cannot be sent: {error}").into())
        });
        self.methods.insert(name.to_string(), method);
        self
    }

    /// Sets the one error hook of the process (rule D3): it is called with each error that a method
    /// reports, and with calls of unknown methods and wrong arguments, before the message is settled as
    /// failed. [`Context::method`] says where it happened.
    pub fn on_error<F>(mut self, hook: F) -> Worker<S>
    where
        F: FnMut(&mut S, &mut Context<'_>, &(dyn std::error::Error + Send + Sync)) + 'static,
    {
        self.on_error = Some(Box::new(hook));
        self
    }

    /// How many unsettled tasks the process takes at once: [`WINDOW_DEFAULT`] unless set, at least 1. What was
    /// sent ahead is not lost by a crash and not executed after a kill, whatever the window.
    pub fn window(mut self, tasks: u32) -> Worker<S> {
        self.window = tasks.max(1);
        self
    }

    /// Executes tasks until the supervisor asks for the end or is gone.
    pub fn run(self) -> Result {
        let (mut link, page) = Link::inherit()?;
        // Without a page to mark what begins, only one task at a time keeps the promises.
        let window = if page.is_some() { self.window } else { 1 };
        link.greet(window)?;
        self.serve(link, page, window, Some(Supervisor::new()))
    }

    /// Takes a name at the supervisor whose socket `WORKHALL_SOCKET` names, else at
    /// `$XDG_RUNTIME_DIR/workhall/workhall.sock`, else at `/run/workhall/workhall.sock`, and executes tasks, one at a time,
    /// until a method has called [`Context::leave`], or the supervisor asks for the end or is gone (rule P2). A kill only
    /// empties the mailbox.
    ///
    /// # Errors
    ///
    /// [`Error::NotAttached`] if the name is taken, or its user may not have it; [`Error::NoSupervisor`] if nobody answers
    /// there.
    pub fn attach(self, name: &str) -> Result {
        self.attach_at(default_socket(), name)
    }

    /// The same at the supervisor with this socket.
    pub fn attach_at(self, socket: impl AsRef<Path>, name: &str) -> Result {
        let link = Link::attach(socket.as_ref(), name)?;
        self.serve(link, None, 1, None)
    }

    /// `supervisor` is the parent, where it has started this process.
    fn serve(
        mut self,
        mut link: Link,
        page: Option<workhall_protocol::MarkPage>,
        window: u32,
        mut supervisor: Option<Supervisor>,
    ) -> Result {
        let (mut unsent, mut sent) = (0, clock::now());
        while !link.session.is_ending() {
            let Some(task) = link.session.next_task() else {
                unsent = 0;
                if !link.read_more()? {
                    break;
                }
                continue;
            };
            let (id, now) = (task.id, clock::now());
            // What was sent ahead is not begun any more when the supervisor has died (rule D7).
            if supervisor.as_mut().is_some_and(|supervisor| !supervisor.lives(now)) {
                break;
            }
            if unsent > 0 && (!link.session.has_tasks() || now.duration_since(sent) >= SAY_WITHIN) {
                // The last of a batch may take long: what has ended must not wait for it to be known.
                link.flush()?;
                if link.has_ended() {
                    break;
                }
                (unsent, sent) = (0, now);
            }
            if page.as_ref().is_some_and(|page| page.cancels() != link.session.cancels()) {
                // It may be this one. What is not there yet is looked for before the next.
                link.look()?;
            }
            if link.session.is_cancelled(id) {
                // Nobody has begun it, and nobody will.
                link.drop_task(id)?;
                link.session.reuse(task);
                continue;
            }
            if page.as_ref().is_some_and(|page| !page.begin(id)) {
                break;
            }
            let awaited = task.wait;
            let outcome = self.execute(&mut link, page.as_ref(), &task);
            link.session.reuse(task);
            unsent += 1;
            let at_once = awaited || outcome.is_err() || page.is_none() || unsent >= window.div_ceil(2);
            link.settle(id, awaited, outcome)?;
            if at_once {
                link.flush()?;
                unsent = 0;
                if link.has_ended() {
                    // What was to be said was not heard: the task is not finished as far as anybody can know.
                    break;
                }
            }
            if let Some(page) = &page {
                page.finish(id);
            }
        }
        link.end()
    }

    fn execute(
        &mut self,
        link: &mut Link,
        page: Option<&workhall_protocol::MarkPage>,
        task: &Task,
    ) -> std::result::Result<Payload<'static>, String> {
        let mut context = Context::new(link, page, task);
        let result = match self.methods.get_mut(task.method()) {
            Some(method) => method(&mut self.state, &mut context, task.args()),
            None => Err(unknown_method(task.method(), self.methods.keys()).into()),
        };
        result.map_err(|error| {
            if let Some(hook) = &mut self.on_error {
                hook(&mut self.state, &mut context, error.as_ref());
            }
            error.to_string()
        })
    }
}

/// What has ended is said before the next task that begins so long after the last word.
const SAY_WITHIN: Duration = Duration::from_millis(1);

/// How long the supervisor is taken to live, once it was seen to.
const LOOK_AGAIN: Duration = Duration::from_micros(100);

/// Who has started this process. To ask the kernel before each task would cost more than a short task does.
struct Supervisor {
    parent: i32,
    looked: Instant,
}

impl Supervisor {
    fn new() -> Supervisor {
        Supervisor { parent: sys::parent(), looked: clock::now() }
    }

    /// Whether it lived within the last [`LOOK_AGAIN`].
    fn lives(&mut self, now: Instant) -> bool {
        if now.duration_since(self.looked) >= LOOK_AGAIN {
            self.looked = now;
            return sys::parent() == self.parent;
        }
        true
    }
}

/// Where a supervisor is looked for, if nobody says where: as the command line does.
fn default_socket() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    match (variable("WORKHALL_SOCKET"), variable("XDG_RUNTIME_DIR")) {
        (Some(socket), _) => PathBuf::from(socket),
        (None, Some(dir)) => Path::new(&dir).join("workhall/workhall.sock"),
        (None, None) => PathBuf::from("/run/workhall/workhall.sock"),
    }
}

/// The arguments of a method in its own type.
fn arguments<A: DeserializeOwned>(method: &str, bytes: &[u8]) -> MethodResult<A> {
    // No arguments are an empty list on the wire, and `()` in Rust, which serde writes as nil.
    if bytes == workhall_protocol::args::NO_ARGS
        && let Ok(none) = decode(NIL)
    {
        return Ok(none);
    }
    decode(bytes).map_err(|error| format!("the arguments of `{method}` do not fit: {error}").into())
}

fn unknown_method<'a>(method: &str, known: impl Iterator<Item = &'a String>) -> String {
    let known: Vec<String> = known.map(|name| format!("`{name}`")).collect();
    match known.is_empty() {
        true => format!("there is no method `{method}`: this worker has none"),
        false => format!("there is no method `{method}`: this worker has {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_typed_and_errors_name_the_method() {
        let list = |value: &serde_json::Value| Payload::from_json(value).unwrap().0.into_owned();
        assert_eq!(arguments::<(i64, String)>("m", &list(&serde_json::json!([1, "a"]))).unwrap(), (1, "a".into()));
        arguments::<()>("m", &list(&serde_json::json!([]))).unwrap();
        assert_eq!(arguments::<Vec<i64>>("m", &list(&serde_json::json!([1, 2]))).unwrap(), [1, 2]);
        assert_eq!(arguments::<Vec<i64>>("m", &list(&serde_json::json!([]))).unwrap(), [0_i64; 0]);
        for wrong in [serde_json::json!([]), serde_json::json!([1, 2]), serde_json::json!(["a"])] {
            let error = arguments::<(i64,)>("add", &list(&wrong)).unwrap_err().to_string();
            assert!(error.contains("`add`"), "{error}");
        }
        assert!(arguments::<()>("m", &list(&serde_json::json!([1]))).is_err());
    }

    #[test]
    fn an_unknown_method_lists_those_that_there_are() {
        let known = ["add".to_string(), "total".to_string()];
        assert_eq!(unknown_method("foo", known.iter()), "there is no method `foo`: this worker has `add`, `total`");
    }
}
