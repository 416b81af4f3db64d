//! A worker in JSON lines that does one thing wrong, which its argument says: `conformance-wrong MISTAKE [WINDOW]`.
//! `none` makes none. With CONFORMANCE_ATTACH it takes that name by itself. With it the conformance suite shows that it can fail, and at the right check.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::exit;
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use serde_json::{Value, json};
use worker_host::protocol::MarkPage;
use worker_host::protocol::ids::MessageId;
use worker_host::protocol::limits::FRAME_BYTES_MAX;

struct Worker {
    mistake: String,
    stream: UnixStream,
    page: MarkPage,
    buffer: Vec<u8>,
    queue: VecDeque<Value>,
    out: Vec<String>,
    welcome: Value,
    receipt: Option<Value>,
    refs: u64,
    attaches: bool,
    /// Tasks that are not wanted any more, and how often that was said.
    unwanted: Vec<u64>,
    cancels: u64,
    ending: bool,
    gone: bool,
}

fn inherited(variable: &str) -> OwnedFd {
    let fd = workhall_tests::sys::inherited(variable).unwrap_or_else(|error| {
        eprintln!("{error}");
        exit(1);
    });
    if std::env::args().nth(1).as_deref() != Some("inherits") {
        fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).expect("it is open");
    }
    fd
}

fn main() {
    let mistake = std::env::args().nth(1).unwrap_or_else(|| "none".into());
    let window: u32 = std::env::args().nth(2).and_then(|window| window.parse().ok()).unwrap_or(64);
    if let Ok(name) = std::env::var("CONFORMANCE_ATTACH") {
        attach(mistake, &name);
    }
    let fd = inherited("WORKHALL_FD");
    let page_fd = inherited("WORKHALL_MARK_FD");
    if mistake == "closes-all" {
        for number in 3..128 {
            let kept = [&fd, &page_fd].into_iter().any(|kept| number == kept.as_raw_fd());
            if !kept {
                let _ = nix::unistd::close(number);
            }
        }
    }
    let page = MarkPage::attach(page_fd.as_fd()).expect("it is a mark page");
    let mut worker = Worker::new(mistake, UnixStream::from(fd), page);
    if worker.is("speaks-first") {
        worker.say(json!({"call": {"worker": "w", "method": "m"}}));
    }
    let protocol = if worker.is("protocol-2") { 2 } else { 1 };
    worker.say(json!({"ready": {"protocol": protocol, "window": window}}));
    if worker.is("ready-twice") {
        worker.say(json!({"ready": {"protocol": 1, "window": window}}));
    }
    worker.flush();
    std::mem::forget((page_fd, worker.run()));
    exit(i32::from(std::env::args().nth(1).as_deref() == Some("status-1")));
}

/// Takes a name by itself, and ends with its connection.
fn attach(mistake: String, name: &str) -> ! {
    match mistake.as_str() {
        "hangs-alone" => loop {
            std::thread::park();
        },
        "aborts-alone" => std::process::abort(),
        "ends-alone" => exit(0),
        "complains-alone" => {
            eprintln!("a supervisor starts this program");
            exit(1)
        }
        _ => {}
    }
    let socket = std::env::var("WORKHALL_SOCKET").unwrap_or_default();
    let stream = UnixStream::connect(&socket).unwrap_or_else(|error| {
        eprintln!("nobody answers at {socket}: {error}");
        exit(1)
    });
    let (page, _) = MarkPage::create().expect("a page of its own");
    let mut worker = Worker::new(mistake, stream, page);
    worker.attaches = true;
    let protocol = if worker.is("protocol-2") { 2 } else { 1 };
    worker.say(json!({"attach": {"protocol": protocol, "worker": name, "ref": "a"}}));
    if worker.is("ready-after-attach") {
        worker.say(json!({"ready": {"protocol": 1, "window": 1}}));
    }
    worker.flush();
    worker.run();
    if worker.welcome.is_null() {
        eprintln!("the connection has ended without an answer");
    }
    exit(i32::from(worker.welcome.is_null() || worker.is("status-1")));
}

impl Worker {
    fn new(mistake: String, stream: UnixStream, page: MarkPage) -> Worker {
        Worker {
            mistake,
            stream,
            page,
            buffer: Vec::new(),
            queue: VecDeque::new(),
            out: Vec::new(),
            welcome: Value::Null,
            receipt: None,
            refs: 0,
            attaches: false,
            unwanted: Vec::new(),
            cancels: 0,
            ending: false,
            gone: false,
        }
    }

    fn is(&self, mistake: &str) -> bool {
        self.mistake == mistake
    }

    fn run(&mut self) {
        while !self.ending || self.is("executes-after-kill") && !self.queue.is_empty() {
            let goes_on = self.is("goes-on-alone") && !self.queue.is_empty();
            if self.gone && !goes_on {
                break;
            }
            let Some(task) = self.queue.pop_front() else {
                if self.ending {
                    break;
                }
                self.flush();
                self.hear();
                continue;
            };
            // What the supervisor's death looks like from here, before the next task begins.
            if !self.mistake.starts_with("collects") {
                self.flush();
            }
            if self.gone && !self.is("goes-on-alone") {
                break;
            }
            let id = MessageId(task["id"].as_u64().expect("an id"));
            self.look_for_cancels();
            if self.unwanted.contains(&id.0) && !self.is("begins-cancelled") {
                if !self.is("forgets-dropped") {
                    self.say(json!({"dropped": {"id": id.0}}));
                }
                if !self.is("collects-dropped") {
                    self.flush();
                }
                continue;
            }
            if !self.page.begin(id) && !self.is("ignores-stop") {
                break;
            }
            let outcome = self.execute(&task);
            let failed = outcome.is_err();
            self.settle(&task, outcome);
            let awaited = task["wait"] == true && !self.is("collects-awaited");
            if awaited || failed && !self.is("collects-failed") {
                self.flush();
            }
            if !self.is("never-finishes") {
                self.page.finish(id);
            }
        }
        self.flush();
    }

    /// What is not there yet is looked for before the next task.
    fn look_for_cancels(&mut self) {
        while self.page.cancels() > self.cancels && !self.gone && !self.is("reads-no-cancels") {
            let mut ahead = [0; 1];
            let now = nix::sys::socket::MsgFlags::MSG_PEEK | nix::sys::socket::MsgFlags::MSG_DONTWAIT;
            if nix::sys::socket::recv(self.stream.as_raw_fd(), &mut ahead, now).is_err()
                && !self.is("waits-for-cancels")
            {
                return;
            }
            self.hear();
        }
    }

    fn settle(&mut self, task: &Value, outcome: Result<Value, String>) {
        let id = task["id"].as_u64().expect("an id");
        match outcome {
            Ok(_) if task["wait"] != true && self.is("forgets") => {}
            Ok(_) if self.is("done-all") => self.say(json!({"done_all": {"id": id}})),
            Ok(result) if self.is("doubles") => self.say(json!({"done": {"id": id, "result": as_doubles(result)}})),
            Ok(result) => {
                self.say(json!({"done": {"id": if self.is("other-id") { id + 1 } else { id }, "result": result}}))
            }
            Err(_) if self.is("mute") => self.say(json!({"failed": {"id": id, "error": "failed"}})),
            Err(error) => self.say(json!({"failed": {"id": id, "error": error}})),
        }
        if self.is("settles-twice") {
            self.say(json!({"done": {"id": id}}));
        }
    }

    fn execute(&mut self, task: &Value) -> Result<Value, String> {
        let method = task["method"].as_str().expect("a method");
        let args = task["args"].as_array().expect("arguments");
        match (method, args.as_slice()) {
            ("echo", [x]) => Ok(x.clone()),
            ("fail", [text]) => Err(text.as_str().unwrap_or_default().into()),
            ("sleep", [ms]) if ms.is_u64() => {
                std::thread::sleep(Duration::from_millis(ms.as_u64().unwrap_or(0)));
                Ok(Value::Null)
            }
            ("crash", []) => exit(3),
            ("who", []) if self.is("forgets-name") => Ok(json!(["w", 2, 1])),
            ("who", []) => Ok(json!([self.welcome["worker"], self.welcome["number"], self.welcome["generation"]])),
            ("sender", []) => match &task["from"] {
                Value::Null => Ok(Value::Null),
                from => Ok(json!([from["worker"], from["number"]])),
            },
            ("call", [worker, method, args]) => {
                let worker = if self.is("numbers-as-text") { json!(worker.to_string()) } else { worker.clone() };
                self.ask("call", json!({"worker": worker, "method": method, "args": args}))
            }
            ("kill", [Value::Null]) => self.ask("kill", json!({})),
            ("kill", [worker]) => self.ask("kill", json!({ "worker": worker })),
            ("leave", [drain]) => {
                let drain = if self.is("drains-never") { &Value::Bool(false) } else { drain };
                self.say(json!({"leave": {"drain": drain}}));
                self.ending |= self.is("leaves-early");
                Ok(Value::Null)
            }
            ("echo" | "sleep", _) if self.is("dies-of-arguments") => panic!("as it should not"),
            (method @ ("echo" | "fail" | "sleep" | "crash" | "who" | "sender" | "call" | "kill" | "leave"), _) => {
                Err(format!("the arguments of `{method}` do not fit"))
            }
            _ if self.is("lists-nothing") => Err("no such method".into()),
            (method, _) if self.is("names-alone") => Err(format!("there is no method `{method}`")),
            (method, _) => Err(format!(
                "there is no method `{method}`: there are `echo`, `fail`, `sleep`, `crash`, `who`, `sender`, `call`, `kill`, `leave`"
            )),
        }
    }

    fn ask(&mut self, kind: &str, mut request: Value) -> Result<Value, String> {
        self.refs += u64::from(!self.is("one-ref") || self.refs == 0);
        request["ref"] = json!(self.refs);
        self.say(json!({ kind: request }));
        self.flush();
        loop {
            if let Some(receipt) = self.receipt.take_if(|receipt| receipt["ref"] == self.refs) {
                return told(&receipt);
            }
            if self.gone {
                return Err("the supervisor is gone".into());
            }
            self.hear();
            if self.is("loses-tasks") {
                self.queue.clear();
            }
            if self.is("deaf-after-kill") && self.ending {
                return Err("this worker was killed".into());
            }
        }
    }

    fn say(&mut self, message: Value) {
        self.out.push(format!("{message}\n"));
        if self.is("out-of-order") && self.out.len() > 1 {
            let last = self.out.len() - 1;
            self.out.swap(last, last - 1);
        }
    }

    fn flush(&mut self) {
        if self.is("out-of-order") && !self.queue.is_empty() {
            return;
        }
        let text = self.out.concat();
        self.out.clear();
        self.gone |= self.stream.write_all(text.as_bytes()).is_err();
        // An end that nobody has written to is seen by looking.
        let mut ahead = [0; 1];
        self.stream.set_nonblocking(true).expect("a socket");
        let seen = nix::sys::socket::recv(self.stream.as_raw_fd(), &mut ahead, nix::sys::socket::MsgFlags::MSG_PEEK);
        self.stream.set_nonblocking(false).expect("a socket");
        self.gone |= seen == Ok(0) && !self.is("outlives") || seen == Err(nix::errno::Errno::ECONNRESET);
    }

    /// Takes in one read.
    fn hear(&mut self) {
        let mut room = [0; 1 << 16];
        let count = match self.stream.read(&mut room) {
            Ok(0) | Err(_) if self.is("outlives") => {
                std::thread::sleep(Duration::from_secs(3600));
                0
            }
            Ok(count) => count,
            Err(_) => 0,
        };
        if count == 0 {
            self.gone = true;
            if self.is("takes-half-lines") && !self.buffer.is_empty() {
                self.gone = false;
                let line = std::mem::take(&mut self.buffer);
                self.take_in(&line);
                self.is_last();
            }
            return;
        }
        self.buffer.extend_from_slice(&room[..count]);
        if self.is("one-read-one-line") {
            let all = std::mem::take(&mut self.buffer);
            for line in all.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                self.take_in(line);
            }
            return;
        }
        while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            self.take_in(&line[..end]);
        }
        if self.buffer.len() > FRAME_BYTES_MAX && !self.is("endless") {
            eprintln!("a line of more than {FRAME_BYTES_MAX} bytes");
            exit(1);
        }
    }

    /// Executes what came, and ends.
    fn is_last(&mut self) {
        while let Some(task) = self.queue.pop_front() {
            self.page.begin(MessageId(task["id"].as_u64().expect("an id")));
            let outcome = self.execute(&task);
            self.settle(&task, outcome);
        }
        self.flush();
        self.gone = true;
    }

    fn take_in(&mut self, line: &[u8]) {
        if line.trim_ascii().is_empty() {
            return;
        }
        let shapes: [&[u8]; 4] = [b"{\"welcome\"", b"{\"kill\"", b"{\"task\":{\"id\":", b"{\"receipt\":{\"ref\":"];
        if self.is("one-shape") && !shapes.iter().any(|shape| line.starts_with(shape)) {
            return;
        }
        let message: Value = match serde_json::from_slice(line) {
            Ok(message) => message,
            Err(_) if self.is("deaf") => return,
            Err(error) => wrong(&error.to_string()),
        };
        let Some((kind, fields)) = message.as_object().and_then(|message| message.iter().next()) else {
            wrong("it is no object")
        };
        match kind.as_str() {
            "welcome" => self.welcome = fields.clone(),
            "task" => {
                let fits = fields["id"].is_u64() && fields["method"].is_string() && fields["args"].is_array();
                if !fits {
                    wrong("it is no task");
                }
                self.queue.push_back(fields.clone());
            }
            "kill" if self.is("ignores-kill") => {}
            "kill" => self.ending = true,
            "cancelled" => {
                self.cancels += 1;
                self.unwanted.extend(fields["id"].as_u64());
            }
            "receipt" | "error" if self.attaches && self.welcome.is_null() && !self.is("ignores-refusal") => {
                if !self.is("mute") {
                    eprintln!("the name is refused: {fields}");
                }
                exit(1)
            }
            "receipt" | "error" => {
                self.ending |= self.is("own-kill-ends") && fields["killed"].is_object();
                self.receipt = Some(fields.clone());
            }
            _ if self.is("dies-of-unknown") => wrong("it is unknown"),
            _ => {}
        }
    }
}

fn wrong(reason: &str) -> ! {
    eprintln!("what the supervisor said is not understood: {reason}");
    exit(1)
}

fn told(receipt: &Value) -> Result<Value, String> {
    if let Some(detail) = receipt["detail"].as_str() {
        return Err(detail.into());
    }
    let body = receipt.as_object().and_then(|body| {
        body.iter().find(|(key, _)| ["accepted", "ignored", "refused", "killed"].contains(&key.as_str()))
    });
    let (word, body) = body.ok_or("the receipt has no body")?;
    Ok(match (body["reason"].as_str(), body["discarded"].as_u64()) {
        (Some(reason), _) => json!(format!("{word} {reason}")),
        (_, Some(discarded)) => json!(format!("{word} {discarded}")),
        _ => json!(word),
    })
}

/// As a language does that knows no whole numbers.
fn as_doubles(value: Value) -> Value {
    match value {
        Value::Number(number) => {
            let double = number.as_f64().unwrap_or(0.0);
            if double.fract() == 0.0 && double.abs() < 1e18 { json!(double as i64) } else { json!(double) }
        }
        Value::Array(items) => items.into_iter().map(as_doubles).collect(),
        other => other,
    }
}
