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
pub fn is_there(program: &str) -> bool {
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
    assert!(output.out.contains("classes counter, ledger, shell, thumbnail, words"), "{output:?}");
    for script in ["shell", "thumbnail", "words"] {
        assert!(!output.err.contains(script), "a script of the checkout is always there: {output:?}");
    }
}

#[test]
fn the_demo_is_a_correct_script() {
    output(Command::new("sh").arg("-n").arg(examples().join("demo"))).ok();
}

// ---- the worker in Python of the README -------------------------------------------------------

#[test]
fn k01_the_worker_of_the_readme_hears_a_kill_that_came_with_its_task() {
    if !is_there("python3") {
        return;
    }
    let readme = fs::read_to_string(workspace().join("README.md")).unwrap();
    let script = readme.split_once("```python\n").and_then(|(_, rest)| rest.split_once("```")).unwrap().0;
    let mut supervisor = Supervisor::with_config("[class.sum]\nexec = ['python3', '{dir}/sum.py']\n");
    supervisor.file("sum.py", script);
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

// ---- thumbnail ------------------------------------------------------------------------------

/// What the worker needs of Pillow, for machines that do not have it.
const STAND_IN: &str = r#"
import io, struct
class Image:
    format = "PNG"
    def __init__(self, path):
        with io.open(path, "rb") as file:
            self.width, self.height = struct.unpack(">II", file.read(24)[16:])
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def thumbnail(self, size):
        scale = min(size[0] / self.width, size[1] / self.height, 1)
        self.width, self.height = round(self.width * scale), round(self.height * scale)
    def save(self, path):
        with io.open(path, "wb") as file:
            file.write(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", self.width, self.height))
open = Image
"#;

/// A supervisor whose worker `with` has Pillow, or its stand-in, and whose worker `without` has none.
fn with_thumbnails() -> Supervisor {
    let has_pillow =
        Command::new("python3").args(["-c", "import PIL.Image"]).stderr(Stdio::null()).status().unwrap().success();
    let script = examples().join("thumbnail/thumbnail");
    let with = if has_pillow { "X=1" } else { "PYTHONPATH={dir}/with" };
    if !has_pillow {
        eprintln!("Pillow is not installed: its stand-in is used");
    }
    let supervisor = Supervisor::with_config(&format!(
        "[class.with]\nexec = [\"env\", \"{with}\", {script:?}]\n[class.without]\nexec = [\"env\", \"PYTHONPATH={{dir}}/without\", {script:?}]\n",
    ));
    for (dir, file, text) in [
        ("with", "__init__.py", ""),
        ("with", "Image.py", STAND_IN),
        ("without", "__init__.py", "raise ImportError('as on a machine that has none')"),
    ] {
        fs::create_dir_all(supervisor.path(dir).join("PIL")).unwrap();
        fs::write(supervisor.path(dir).join("PIL").join(file), text).unwrap();
    }
    supervisor
}

fn size_of_png(path: &Path) -> (u32, u32) {
    let bytes = fs::read(path).unwrap();
    assert_eq!(&bytes[1..4], b"PNG");
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    (number(16), number(20))
}

#[test]
fn the_thumbnail_worker_makes_small_pictures_with_pillow_and_says_what_is_missing_without() {
    if !is_there("python3") {
        return;
    }
    let supervisor = with_thumbnails();
    let picture = examples().join("thumbnail/sunset.png");
    let (picture, small) = (picture.to_str().unwrap(), supervisor.path("small.png"));
    let out = small.to_str().unwrap();
    assert_eq!(supervisor.call(&["with", "info", picture]), json!({"format": "PNG", "width": 96, "height": 64}));
    let made = supervisor.call(&["with", "make", picture, out, "48"]);
    assert_eq!(made, json!({"path": out, "width": 48, "height": 32}));
    assert_eq!(size_of_png(&small), (48, 32));

    for args in [&["without", "info", picture][..], &["without", "make", picture, out, "10"]] {
        let why = failure(&supervisor, args);
        assert!(why.contains("Pillow is not installed: run `") && why.contains("pip install pillow"), "{why}");
    }
    assert_eq!(size_of_png(&small), (48, 32));
    // Neither failed task has ended the process.
    assert_eq!((&supervisor.ps("without")["generation"], &supervisor.ps("without")["crashes"]), (&json!(1), &json!(0)));
}

#[test]
fn the_thumbnail_worker_reports_what_goes_wrong_and_obeys_kill_and_end_of_file() {
    if !is_there("python3") {
        return;
    }
    let mut supervisor = with_thumbnails();
    assert!(failure(&supervisor, &["with", "info", "/no/such.png"]).contains("/no/such.png"));
    assert!(failure(&supervisor, &["with", "info"]).contains("arguments of `info` do not fit"));
    assert!(failure(&supervisor, &["with", "paint"]).contains("no method `paint`: this worker has `make`, `info`"));
    obeys_kill_and_end_of_file(&mut supervisor, "with");
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
