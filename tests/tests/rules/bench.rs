//! `workhall bench` measures with real processes, and leaves nothing behind. What it measures is asserted nowhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use workhall_tests::harness::{Output, Supervisor, bin_dir, output_of, until};

/// A few of everything.
const TINY: &[&str] = &[
    "bench",
    "--quick",
    "--json",
    "--rounds",
    "1",
    "--messages",
    "20",
    "--payload",
    "64",
    "--several",
    "2",
    "--many",
    "3",
    "--names",
    "100",
    "--pending",
    "1MiB",
    "--idle",
    "10ms",
];

/// The measurement, with a directory of its own for what it makes.
fn bench(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(bin_dir().join("workhall"));
    command.args(args).env("TMPDIR", dir).env_remove("WORKHALL_SOCKET").stdin(Stdio::null());
    command
}

fn run(dir: &Path, args: &[&str]) -> Output {
    output_of(&mut bench(dir, args), b"")
}

/// Neither a file, nor a process that was told a path in the directory.
#[track_caller]
fn nothing_is_left(dir: &Path) {
    let files: Vec<_> = fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path()).collect();
    assert!(files.is_empty(), "{files:?}");
    // In its own environment, or as the supervisor's socket in that of a worker.
    let ours = dir.as_os_str().as_encoded_bytes();
    let processes: Vec<_> = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path()).collect();
    let told = |process: &Path| {
        let text = fs::read(process.join("environ")).unwrap_or_default();
        text.windows(ours.len()).any(|part| part == ours)
    };
    let left: Vec<_> = processes.iter().filter(|process| told(process)).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// What was measured, in the order in which it first was.
fn works(rows: &Value) -> Vec<&str> {
    let mut works = Vec::new();
    for work in rows.as_array().unwrap().iter().map(|row| row["work"].as_str().unwrap()) {
        if !works.contains(&work) {
            works.push(work);
        }
    }
    works
}

#[test]
fn everything_is_measured_beside_its_floor_and_nothing_is_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let result = run(dir.path(), TINY).ok().json();
    let expected = [
        "post",
        "execute",
        "one-at-a-time",
        "round-trip",
        "cold-start",
        "kill-respawn",
        "crash-respawn",
        "memory",
        "idle",
        "spawn-pending",
        "scrape",
    ];
    assert_eq!(works(&result["rows"]), expected);
    for row in result["rows"].as_array().unwrap() {
        let subject = &row["subject"];
        let [lowest, median, highest] = ["lowest", "median", "highest"].map(|key| subject[key].as_f64().unwrap());
        assert!(lowest <= median && median <= highest, "{row}");
        assert_eq!(subject["rounds"].as_array().unwrap().len(), 1, "{row}");
        assert!(row["unit"].is_string() && row["case"].is_string(), "{row}");
        let compared = !["memory", "idle", "scrape"].contains(&row["work"].as_str().unwrap());
        assert_eq!((row["ratio"].is_f64(), row["floor"]["what"].is_string()), (compared, compared), "{row}");
        assert_eq!(row["met"].is_boolean(), row["goal"].is_object(), "{row}");
        let calls = row["work"] == "round-trip";
        assert_eq!((subject["percentiles_us"]["p99"].is_f64(), subject["measurements"] == 20), (calls, calls), "{row}");
    }
    assert!(result["cpus"].is_u64() && result["kernel"].is_string() && result["quick"] == true);
    nothing_is_left(dir.path());
}

#[test]
fn people_get_a_table_of_what_they_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["bench", "post", "--quick", "--rounds", "1", "--messages", "20"];
    let table = run(dir.path(), &args).ok().out;
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines.len() == 4 && lines[0].contains("load average"), "{table}");
    assert!(lines[1].starts_with("WORK") && lines[1].contains("RATIO"), "{table}");
    assert!(lines[2..].iter().all(|line| line.starts_with("post")), "{table}");
    nothing_is_left(dir.path());
}

#[test]
fn a_supervisor_that_is_there_is_measured_by_its_bench_workers() {
    let config = "class.load = { exec = ['{bin}/workhall', 'bench-part', 'worker', '64'] }\n";
    let supervisor = Supervisor::with_config(config);
    let dir = tempfile::tempdir().unwrap();
    let socket = supervisor.socket().to_str().unwrap();
    let tiny = &TINY[1..];
    let args = [&["--socket", socket, "bench", "--worker", "load/"], tiny].concat();
    let result = run(dir.path(), &args).ok().json();
    let expected = ["post", "execute", "round-trip", "cold-start", "kill-respawn", "crash-respawn"];
    assert_eq!((works(&result["rows"]), &result["own_supervisor"]), (expected.to_vec(), &Value::Bool(false)));
    assert!(supervisor.ledger("done") > 0);
    // It is left as it was found.
    assert_eq!(supervisor.cli(&["ps", "--json"]).ok().json(), serde_json::json!([]));
    assert_eq!(supervisor.status()["dead_letters"]["messages"], 0);
    run(dir.path(), &["bench", "memory", "--socket", socket, "--worker", "load/"]).fails(2, &["`memory`", "--socket"]);
    nothing_is_left(dir.path());
}

#[test]
fn the_picture_is_drawn() {
    let dir = tempfile::tempdir().unwrap();
    let file = tempfile::tempdir().unwrap();
    let file = file.path().join("cost.svg");
    let args = [
        "bench",
        "--quick",
        "--rounds",
        "1",
        "--messages",
        "20",
        "--json",
        "--names",
        "100",
        "--plot",
        file.to_str().unwrap(),
    ];
    let result = run(dir.path(), &args).ok().json();
    let svg = fs::read_to_string(&file).unwrap();
    assert_eq!(svg.matches("<circle").count(), result["rows"].as_array().unwrap().len());
    assert!(svg.starts_with("<svg ") && svg.contains(">100<"), "{svg}");
    nothing_is_left(dir.path());
}

#[test]
fn who_has_had_enough_leaves_nothing_behind_either() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = bench(dir.path(), &["bench", "idle", "--quick", "--idle", "10m"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A supervisor of its is there: interrupted in the middle of it.
    let entries = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    until("its supervisor listens", || {
        let made: Vec<PathBuf> = entries(dir.path());
        made.iter().flat_map(|made| entries(made)).any(|made| made.to_string_lossy().contains("/socket-"))
    });
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(1), "{status}");
    nothing_is_left(dir.path());
}

#[test]
fn wrong_options_are_said() {
    let dir = tempfile::tempdir().unwrap();
    for (args, parts) in [
        (&["--socket", "/tmp/s"][..], &["--worker PREFIX"][..]),
        (&["--worker", "load/"], &["--socket"]),
        (&["nonsense"], &["nonsense", "round-trip"]),
        (&["--payload", "15"], &["from 16 to 1MiB"]),
        (&["--payload", "64kb"], &["4KiB"]),
        (&["--rounds", "0"], &["--rounds"]),
        (&["--window", "1025"], &["1024"]),
        (&["--plot", "x.svg", "memory"], &["cannot be used with"]),
    ] {
        run(dir.path(), &[&["bench"], args].concat()).fails(2, parts);
    }
    let missing = dir.path().join("none").to_str().unwrap().to_string();
    run(dir.path(), &["bench", "--socket", &missing, "--worker", "load/"]).fails(4, &["no supervisor at"]);
    nothing_is_left(dir.path());
}
