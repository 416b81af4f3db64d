//! The examples at work: what a new user would run, through a real supervisor.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};
use workhall_tests::harness::{Output, Supervisor, bin_dir, lives, output, workspace};

const LEDGER: &str = r#"
    [class.ledger]
    exec = ["{bin}/ledger", "--db-dir", "{dir}/books"]
    crash_limit = { crashes = 1000 } # more of its lives are ended here than a pause would answer
"#;

fn examples() -> PathBuf {
    workspace().join("examples")
}

/// Whether a program is there; if not, the test says that it is skipped.
pub(super) fn is_there(program: &str) -> bool {
    let there =
        Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success());
    if !there {
        eprintln!("skipped: there is no {program} on this machine");
    }
    there
}

/// The program of an example that is a script, as the class `name` of a supervisor.
fn with_script(name: &str, script: &str) -> Supervisor {
    let path = examples().join(script);
    Supervisor::with_config(&format!("[class.{name}]\nexec = [{path:?}]\n"))
}

/// A call that must fail, and its reason.
#[track_caller]
fn failure(supervisor: &Supervisor, args: &[&str]) -> String {
    let output = supervisor.cli(&[&["call", "--wait", "--timeout", "60s"], args].concat());
    assert_eq!(output.code, 1, "{output:?}");
    output.err
}

#[test]
fn the_configuration_of_the_examples_is_correct() {
    let file = examples().join("workhall.toml");
    let output = output(Command::new(bin_dir().join("workhall")).arg("check").arg(&file)).ok();
    assert!(output.out.contains("classes counter, ledger, session, shell, thumbnail, words"), "{output:?}");
    for script in ["session", "shell", "thumbnail", "words"] {
        assert!(!output.err.contains(script), "a script of the checkout is always there: {output:?}");
    }
}

#[test]
fn the_demo_is_a_correct_script() {
    output(Command::new("sh").arg("-n").arg(examples().join("demo"))).ok();
}

// ---- the worker in Python of the README -------------------------------------------------------

/// The worker of the README in Python, as a file; the one on the library, or the one that speaks the protocol itself.
fn readme_worker(supervisor: &Supervisor, on_the_library: bool) {
    let readme = fs::read_to_string(workspace().join("README.md")).unwrap();
    let scripts = readme.split("```python\n").skip(1).map(|rest| rest.split_once("```").unwrap().0);
    let found: Vec<&str> = scripts.filter(|script| script.contains("from workhall import") == on_the_library).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    supervisor.file("sum.py", found[0]);
}

#[test]
fn the_worker_of_the_readme_on_the_library_keeps_its_total() {
    if !is_there("python3") {
        return;
    }
    let supervisor = Supervisor::with_config(&format!(
        "[class.sum]\nexec = ['python3', '{{dir}}/sum.py']\nenvironment = {{ PYTHONPATH = {:?} }}\n",
        workspace().join("worker-host/python/src")
    ));
    readme_worker(&supervisor, true);
    assert_eq!(supervisor.call(&["sum", "add", "2"]), 2);
    assert_eq!(supervisor.call(&["sum", "add", "3"]), 5);
    assert!(failure(&supervisor, &["sum", "take", "2"]).contains("there is no method `take`: this worker has `add`"));
}

#[test]
fn k01_the_worker_of_the_readme_hears_a_kill_that_came_with_its_task() {
    if !is_there("python3") {
        return;
    }
    let mut supervisor = Supervisor::with_config("[class.sum]\nexec = ['python3', '{dir}/sum.py']\n");
    readme_worker(&supervisor, false);
    assert_eq!(supervisor.call(&["sum", "add", "2"]), 2);
    assert!(failure(&supervisor, &["sum", "take", "2"]).contains("there is no method take"));
    // Both come in one read, once it goes on.
    let pid = Pid::from_raw(supervisor.worker_pid("sum"));
    kill(pid, Signal::SIGSTOP).unwrap();
    supervisor.cli(&["call", "sum", "add", "3"]).ok();
    let killer = supervisor.start_cli(&["kill", "sum", "--wait", "--json"]);
    supervisor.until("it is being ended", |this| this.ps("sum")["state"] == "ending");
    kill(pid, Signal::SIGCONT).unwrap();
    let report = killer.end().ok().json();
    assert_eq!((&report["current"], &report["ended_by"]), (&json!("finished"), &json!("ask")), "{report}");
    assert_eq!(supervisor.call(&["sum", "add", "5"]), 5);
}

// ---- counter --------------------------------------------------------------------------------

#[test]
fn the_counter_keeps_a_total_for_each_name_until_it_is_killed() {
    let supervisor = Supervisor::with_config("[class.counter]\nexec = [\"{bin}/counter\"]\n");
    supervisor.cli(&["call", "counter", "add", "5"]).ok();
    assert_eq!(supervisor.call(&["counter", "add", "-2"]), 3);
    assert_eq!(supervisor.call(&["counter/eu", "total"]), 0);
    assert!(failure(&supervisor, &["counter", "add", "9223372036854775807"]).contains("64 bits"));
    assert!(failure(&supervisor, &["counter", "add", "much"]).contains("do not fit"));
    assert_eq!(supervisor.call(&["counter", "total"]), 3);
    let first = supervisor.ps("counter");
    supervisor.cli(&["call", "counter", "end"]).ok();
    supervisor.cli(&["wait", "counter", "--gone", "--timeout", "30s"]).ok();
    assert_eq!(supervisor.call(&["counter", "total"]), 0);
    assert!(supervisor.ps("counter")["number"].as_u64() > first["number"].as_u64());
}

// ---- ledger ---------------------------------------------------------------------------------

/// `ledger-import`, ready to be changed and run.
fn import(supervisor: &Supervisor) -> Command {
    let mut command = Command::new(bin_dir().join("ledger-import"));
    command.env("WORKHALL_SOCKET", supervisor.socket()).stdin(Stdio::null());
    command
}

fn entries() -> PathBuf {
    examples().join("ledger/entries.csv")
}

/// What the file says, read by hand: in each book each account's sum in cents, and the number of entries.
fn expected() -> BTreeMap<String, (BTreeMap<String, i64>, i64)> {
    let text = fs::read_to_string(entries()).unwrap();
    let mut books: BTreeMap<String, (BTreeMap<String, i64>, i64)> = BTreeMap::new();
    for line in text.lines().skip(1) {
        // No field before the amount is quoted in this file.
        let fields: Vec<&str> = line.splitn(6, ',').collect();
        let cents: i64 = fields[4].replace('.', "").parse().unwrap();
        let (accounts, entries) = books.entry(fields[0].to_string()).or_default();
        *accounts.entry(fields[3].to_string()).or_default() += cents;
        *entries += 1;
    }
    assert_eq!(books.len(), 3);
    assert!(books.values().all(|(accounts, _)| accounts.values().sum::<i64>() == 0), "the file balances");
    books
}

/// Reads the books past their workers, and compares them with the file.
#[track_caller]
fn assert_the_books_are_as_the_file_says(dir: &Path) {
    for (book, (accounts, entries)) in expected() {
        let file = dir.join(format!("{book}.sqlite"));
        let database = Connection::open_with_flags(&file, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
        let mut sums = database.prepare("SELECT account, sum(cents) FROM entry GROUP BY account").unwrap();
        let sums = sums.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        assert_eq!(sums.collect::<Result<BTreeMap<String, i64>, _>>().unwrap(), accounts, "{book}");
        let one = |query: &str| database.query_row(query, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(one("SELECT count(*) FROM entry"), entries, "{book}");
        assert_eq!(one("SELECT count(DISTINCT id) FROM entry"), entries, "{book}");
        assert_eq!(one("SELECT sum(cents) FROM entry"), 0, "{book}");
    }
}

#[test]
fn a_book_keeps_its_cents_through_kills_and_names_what_is_wrong() {
    let supervisor = Supervisor::with_config(LEDGER);
    let added = json!({"added": 1, "known": 0});
    assert_eq!(supervisor.call(&["ledger/eu", "post", "a1", "2026-11-20", "cash", "\"0.10\"", "tip"]), added);
    assert_eq!(supervisor.call(&["ledger/eu", "post", "a2", "2026-11-20", "cash", "\"0.20\""]), added);
    let known = json!({"added": 0, "known": 1});
    assert_eq!(supervisor.call(&["ledger/eu", "post", "a1", "2026-11-20", "cash", "\"0.10\"", "tip"]), known);
    assert_eq!(supervisor.call(&["ledger/eu", "balance", "cash"]), "0.30");
    assert_eq!(supervisor.call(&["ledger/eu", "balance", "nobody"]), "0.00");
    assert_eq!(supervisor.call(&["ledger/us", "accounts"]), json!({}));

    supervisor.cli(&["kill", "ledger/eu", "--wait"]).ok();
    assert_eq!(supervisor.call(&["ledger/eu", "accounts"]), json!({"cash": "0.30"}));
    assert!(failure(&supervisor, &["ledger/eu", "check"]).contains("hold 0.30 instead of 0.00"));
    assert_eq!(supervisor.call(&["ledger/eu", "post", "a3", "2026-11-20", "sales", "\"-0.30\""]), added);
    assert_eq!(supervisor.call(&["ledger/eu", "check"]), 3);

    let post = |amount: &str| failure(&supervisor, &["ledger/eu", "post", "a9", "2026-11-20", "cash", amount]);
    assert!(post("12.50").contains("entry `a9`: its amount is not a text"));
    assert!(post("\"12.505\"").contains("`12.505` is no amount"));
    let rows = r#"[[["b1","2026-11-20","cash","1"],{"id":"b2","date":"2026-11-20","account":"cash","amount":"1,00"}]]"#;
    let why = failure(&supervisor, &["ledger/eu", "import", "--args", rows]);
    assert!(why.contains("row 2 (entry `b2`): `1,00` is no amount"), "{why}");
    assert_eq!(supervisor.call(&["ledger/eu", "check"]), 3);

    assert!(failure(&supervisor, &["ledger", "balance"]).contains("names no book"));
    assert!(failure(&supervisor, &["ledger/../eu", "balance"]).contains("cannot be a book"));
    supervisor.cli(&["call", "ledger/eu", "end"]).ok();
    supervisor.cli(&["wait", "ledger/eu", "--gone", "--timeout", "30s"]).ok();
}

#[test]
fn an_import_with_kills_between_its_batches_balances_to_the_cent() {
    let supervisor = Supervisor::with_config(LEDGER);
    let done = output(import(&supervisor).arg("--kill-between").arg(entries())).ok();
    assert!(done.out.contains("412 entries added, 0 known already"), "{done:?}");
    assert!(done.out.contains("every book balances"), "{done:?}");
    assert!(done.err.is_empty(), "no progress bar without a terminal: {done:?}");
    assert_the_books_are_as_the_file_says(&supervisor.path("books"));
    for book in expected().keys() {
        let number = supervisor.ps(&format!("ledger/{book}"))["number"].as_u64().unwrap();
        assert!(number > 10, "the workers were killed and came again: {book} is %{number}");
    }
    // A second time nothing is added.
    let again = output(import(&supervisor).arg(entries())).ok();
    assert!(again.out.contains("0 entries added, 412 known already"), "{again:?}");
    assert_the_books_are_as_the_file_says(&supervisor.path("books"));
}

#[test]
fn an_import_whose_workers_crash_in_the_middle_balances_to_the_cent() {
    const BOOKS: [&str; 3] = ["eu", "uk", "us"];
    const CHARGED: u64 = 9;
    let mut supervisor = Supervisor::with_config(LEDGER);
    // While somebody else holds a book's file, a batch cannot be over before its process is killed.
    let holders = BOOKS.map(|book| {
        supervisor.call(&[&format!("ledger/{book}"), "accounts"]);
        let holder = Connection::open(supervisor.path("books").join(format!("{book}.sqlite"))).unwrap();
        holder.execute_batch("BEGIN IMMEDIATE").unwrap();
        holder
    });
    let mut import = import(&supervisor);
    // So few batches that a disk which needs long for each does not try the patience of the test.
    import.args(["--batch", "4"]).arg(entries()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut import = import.spawn().unwrap();
    // One that dies in the instant between being handed a batch and beginning it is not charged for it.
    for worker in BOOKS.map(|book| format!("ledger/{book}")).iter().cycle() {
        if supervisor.ledger("dead") == CHARGED {
            break;
        }
        supervisor.until("a batch is executed", |this| this.ps(worker)["running"]["method"] == "import");
        let pid = supervisor.worker_pid(worker);
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        supervisor.until("its death is known", |this| this.ps(worker)["pid"] != pid);
    }
    drop(holders);
    supervisor.until("the import has ended", |_| import.try_wait().unwrap().is_some());
    let done = import.wait_with_output().unwrap();
    let shown = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success() && shown.contains("every book balances"), "{shown}");
    assert!(shown.contains(&format!(" {CHARGED} batches posted again")), "each was charged to one batch: {shown}");
    assert_the_books_are_as_the_file_says(&supervisor.path("books"));
    assert_eq!(supervisor.ledger("dead"), CHARGED);
}

#[test]
fn an_import_into_a_book_that_holds_something_else_says_so() {
    let supervisor = Supervisor::with_config(LEDGER);
    supervisor.call(&["ledger/uk", "post", "x", "2026-11-20", "cash", "\"0.01\""]);
    let Output { code, out, err } = output(import(&supervisor).arg(entries()));
    assert_eq!(code, 1, "{out}{err}");
    for part in ["ledger/uk: the book does not balance", "0.01", "ledger/uk: account cash is not in the file"] {
        assert!(err.contains(part), "{err}");
    }
    assert!(!out.contains("every book balances") && !err.contains("ledger/eu"), "{out}{err}");
    let missing = output(import(&supervisor).arg("/no/such/file.csv"));
    assert!(missing.code == 1 && missing.err.contains("/no/such/file.csv"), "{missing:?}");
}

// ---- in Python, on the library -----------------------------------------------------------------

/// The class of an example in Python, with more of its settings.
fn python_class(name: &str, script: &str, more: &str) -> String {
    let library = workspace().join("worker-host/python/src");
    let script = examples().join(script);
    format!("[class.{name}]\nexec = [{script:?}]\nenvironment = {{ PYTHONPATH = {library:?} }}\n{more}\n")
}

/// A program of an example, ready to be given arguments and run.
fn example(supervisor: &Supervisor, script: &str) -> Command {
    // Whoever runs the tests in the background has them ignore SIGINT, and they what they start.
    let mut command = Command::new("env");
    command
        .arg("--default-signal=INT")
        .arg(examples().join(script))
        .env("WORKHALL_SOCKET", supervisor.socket())
        .env("PYTHONPATH", workspace().join("worker-host/python/src"))
        .stdin(Stdio::null());
    command
}

const THUMBNAILS: &str = "names = [\"thumb-*\"]";

fn size_of_png(path: &Path) -> (u32, u32) {
    let bytes = fs::read(path).unwrap();
    assert_eq!(&bytes[1..4], b"PNG");
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    (number(16), number(20))
}

#[test]
fn the_thumbnail_worker_makes_small_pictures_and_reports_what_goes_wrong() {
    if !is_there("python3") {
        return;
    }
    let mut supervisor = Supervisor::with_config(&python_class("thumbnail", "thumbnail/thumbnail", THUMBNAILS));
    let pictures = examples().join("thumbnail/pictures");
    let picture = |name: &str| pictures.join(name).to_str().unwrap().to_string();
    let (sunset, small) = (picture("sunset.png"), supervisor.path("small.png"));
    let out = small.to_str().unwrap();
    assert_eq!(supervisor.call(&["thumb-1", "info", &sunset]), json!({"format": "PNG", "width": 96, "height": 64}));
    let made = supervisor.call(&["thumb-1", "make", &sunset, out, "48"]);
    assert_eq!(made, json!({"path": out, "width": 48, "height": 32}));
    assert_eq!(size_of_png(&small), (48, 32));
    // What it has made it reads again; each of the kinds that are there has its size.
    assert_eq!(supervisor.call(&["thumb-1", "make", out, out, "30"]), json!({"path": out, "width": 30, "height": 20}));
    for name in ["checks.ppm", "disc.png", "gray.png", "rings.png"] {
        let made = supervisor.call(&["thumb-2", "make", &picture(name), out, "30"]);
        assert_eq!(made, json!({"path": out, "width": 30, "height": 20}), "{name}");
    }

    assert!(failure(&supervisor, &["thumb-1", "info", "/no/such.png"]).contains("/no/such.png"));
    assert!(failure(&supervisor, &["thumb-1", "info"]).contains("arguments of `info` do not fit"));
    assert!(failure(&supervisor, &["thumb-1", "paint"]).contains("no method `paint`: this worker has `make`, `info`"));
    let why = failure(&supervisor, &["thumb-1", "make", &picture("damaged.png"), out, "30"]);
    assert!(why.contains("damaged.png is damaged: the check of its chunk b'IDAT' is wrong"), "{why}");
    let row = supervisor.ps("thumb-1");
    assert_eq!((&row["generation"], &row["crashes"]), (&json!(1), &json!(0)), "no failed task has ended the process");
    obeys_kill_and_end_of_file(&mut supervisor, "thumb-1");
}

#[test]
fn a_poisonous_picture_ends_its_worker_and_harms_no_other_picture() {
    if !is_there("python3") {
        return;
    }
    let class = python_class("thumbnail", "thumbnail/thumbnail", &format!("{THUMBNAILS}\ntask_timeout = \"1s\""));
    let supervisor = Supervisor::with_config(&class);
    let out = supervisor.path("small");
    // All that the script makes, beside the one that ships and is not made by it.
    let pictures = supervisor.path("pictures");
    output(Command::new(examples().join("thumbnail/make-pictures")).arg(&pictures)).ok();
    let names = |dir: &Path| -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let mut shipped = names(&examples().join("thumbnail/pictures"));
    shipped.retain(|name| name != "sunset.png");
    assert_eq!(names(&pictures), shipped);

    let done = output(example(&supervisor, "thumbnail/thumbnail-all").arg(&pictures).arg(&out)).ok();
    for line in ["checks.ppm: 48 x 32", "disc.png: 48 x 32", "gray.png: 48 x 32", "rings.png: 48 x 32"] {
        assert!(done.out.contains(line), "{done:?}");
    }
    assert!(done.out.contains("poison.png: dead: the message is a dead letter: timed_out"), "{done:?}");
    assert!(done.out.contains("damaged.png: failed: "), "{done:?}");
    assert_eq!(names(&out), ["checks.png", "disc.png", "gray.png", "rings.png"]);
    assert_eq!((supervisor.ledger("done"), supervisor.ledger("dead"), supervisor.ledger("failed")), (4, 1, 1));
}

#[test]
fn a_session_keeps_its_variables_until_it_is_idle_or_takes_too_much() {
    if !is_there("python3") {
        return;
    }
    let limits = "task_timeout = \"2s\"\nlimits = { address_space = \"512MiB\" }\nidle_timeout = \"60s\"";
    let mut classes = python_class("session", "session/session", limits);
    classes += &python_class("brief", "session/session", "idle_timeout = \"50ms\"");
    let mut supervisor = Supervisor::with_config(&classes);
    let told = |value: &str, output: &str| json!({"value": value, "output": output});
    supervisor.cli(&["call", "session/ann", "run", "prices = [3, 4, 5]"]).ok();
    assert_eq!(supervisor.call(&["session/ann", "run", "print('sum'); sum(prices)"]), told("12", "sum\n"));
    assert_eq!(supervisor.call(&["session/ann", "run", "5"]), told("5", ""));
    assert_eq!(supervisor.call(&["session/ann", "names"]), json!(["prices"]));
    assert_eq!(supervisor.call(&["session/bob", "names"]), json!([]));
    assert!(
        failure(&supervisor, &["session/bob", "run", "prices"]).contains("NameError: name 'prices' is not defined")
    );
    assert!(failure(&supervisor, &["session/bob", "run", "a = "]).contains("line 1: invalid syntax: a ="));
    assert!(failure(&supervisor, &["session/ann", "run", "x = 'a' * (1 << 30)"]).contains("MemoryError"));
    assert_eq!(supervisor.call(&["session/ann", "names"]), json!(["prices"]));
    let endless = supervisor.cli(&["call", "session/ann", "run", "while True: pass", "--wait", "--timeout", "60s"]);
    assert!(endless.code == 6 && endless.err.contains("timed out"), "{endless:?}");
    assert_eq!(supervisor.call(&["session/ann", "names"]), json!([]), "it starts anew");
    assert_eq!(supervisor.ps("session/bob")["generation"], 1);
    supervisor.cli(&["call", "brief/ann", "run", "x = 1"]).ok();
    supervisor.cli(&["wait", "brief/ann", "--gone", "--timeout", "60s"]).ok();
    assert_eq!(supervisor.call(&["brief/ann", "names"]), json!([]), "whoever does nothing starts anew");
    let killed = supervisor.cli(&["kill", "session/ann", "--wait", "--json"]).ok().json();
    assert_eq!((&killed["ended_by"], &killed["exit"]), (&json!("ask"), &json!({"code": 0})), "{killed}");
    supervisor.worker_pid("session/bob");
    supervisor.signal(Signal::SIGKILL);
    supervisor.ended();
    supervisor.until("all workers have noticed", |this| this.processes().is_empty());
}

/// A program that has the device, and is ended with the test.
struct Device(std::process::Child);

impl Drop for Device {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn p02_the_device_is_lent_to_all_who_call_it_one_at_a_time() {
    if !is_there("python3") {
        return;
    }
    let mut supervisor = Supervisor::with_config("[class.counter]\nexec = [\"{bin}/counter\"]\n");
    let weigh = |supervisor: &Supervisor| {
        let mut command = example(supervisor, "device/weigh");
        command.args(["apple", "pear", "melon", "fig", "quince"]);
        command
    };
    let nobody = output(&mut weigh(&supervisor));
    assert!(nobody.code == 1 && nobody.err.contains("start `examples/device/device --simulate` first"), "{nobody:?}");

    let mut device =
        Device(example(&supervisor, "device/device").arg("--simulate").stdout(Stdio::null()).spawn().unwrap());
    supervisor.until("it is attached", |this| this.ps("device/balance").is_object());
    let weighed = output(&mut weigh(&supervisor)).ok();
    let lines: Vec<&str> = weighed.out.lines().map(str::trim).collect();
    assert_eq!(lines[0], "Workhall,Balance,0,1, asked of 5 things at a time:");
    for (line, start) in
        lines[1..].iter().zip(["apple 7.5 g", "pear 6.0 g", "melon 7.5 g", "fig 4.5 g", "quince 9.0 g"])
    {
        assert!(line.starts_with(start), "{weighed:?}");
    }
    // What is not answered fails, and the next question has its own answer.
    let silence = r#"["SILENCE",{"seconds":0.1}]"#;
    assert!(failure(&supervisor, &["device/balance", "ask", "--args", silence]).contains("does not answer `SILENCE`"));
    assert_eq!(supervisor.call(&["device/balance", "ask", "WEIGH? plum"]), "plum 6.0 g (number 6)");
    assert!(failure(&supervisor, &["device/balance", "ask", "a\nb"]).contains("a question is a line of ASCII"));
    // A kill only empties its mailbox (rule K10).
    supervisor.cli(&["kill", "device/balance"]).ok();
    assert_eq!(supervisor.call(&["device/balance", "about"])["asked"], 8);
    kill(Pid::from_raw(device.0.id() as i32), Signal::SIGINT).unwrap();
    assert!(device.0.wait().unwrap().success());
    supervisor.until("its name is free", |this| this.ps("device/balance").is_null());
}

// ---- shell ----------------------------------------------------------------------------------

#[test]
fn the_shell_worker_tells_about_the_machine_and_obeys_kill_and_end_of_file() {
    if !is_there("bash") {
        return;
    }
    let mut supervisor = with_script("shell", "shell/shell");
    assert_eq!(supervisor.call(&["shell", "count"]), 1);
    assert_eq!(supervisor.call(&["shell", "count"]), 2);
    assert_eq!(supervisor.call(&["shell/other", "count"]), 1);
    assert!(supervisor.call(&["shell", "uptime"]).as_f64().unwrap() > 0.0);
    for args in [&["shell", "disk"][..], &["shell", "disk", "/proc"]] {
        let disk: Value = supervisor.call(args);
        assert!(["size", "used", "free", "share"].iter().all(|key| disk[key].is_string()), "{disk}");
    }
    let why = failure(&supervisor, &["shell", "disk", "/no/such/\u{e9}"]);
    assert!(why.contains("/no/such/") && why.contains("df"), "{why}");
    for method in ["what", "wh\"at", "wh\\at", "wh\nat", "\",\"args\":[", "$(exit 1)", "*"] {
        assert!(failure(&supervisor, &["shell", method]).contains("there is no method"), "{method}");
    }
    for (args, part) in [
        (r#"["a\"b"]"#, "a\"b"),
        ("[5]", "5"),
        (r#"["/","/"]"#, "it takes 0 to 1, and 2 came"),
        (r#"[{"args":["/"]}]"#, "{\"args\":[\"/\"]}"),
        (r#"["a\u0000"]"#, "holds a NUL"),
    ] {
        let why = failure(&supervisor, &["shell", "disk", "--args", args]);
        assert!(why.contains(part), "{args}: {why}");
    }
    assert_eq!(supervisor.call(&["shell", "count"]), 3);
    obeys_kill_and_end_of_file(&mut supervisor, "shell");
}

/// A worker ends when asked, without any signal; and when its supervisor dies.
#[track_caller]
fn obeys_kill_and_end_of_file(supervisor: &mut Supervisor, worker: &str) {
    let killed = supervisor.cli(&["kill", worker, "--wait", "--json"]).ok().json();
    assert_eq!((&killed["ended_by"], &killed["exit"]), (&json!("ask"), &json!({"code": 0})), "{killed}");
    assert!(failure(supervisor, &[worker, "nothing"]).contains("no method"));
    let pid = supervisor.worker_pid(worker);
    supervisor.signal(Signal::SIGKILL);
    supervisor.ended();
    supervisor.until("the worker has noticed", |_| !lives(pid));
    supervisor.until("all others have", |this| this.processes().is_empty());
}
