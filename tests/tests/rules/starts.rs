//! How a process is started makes no difference to it: between fork and exec, or by the launcher.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::signal::Signal;
use workhall_tests::harness::{Supervisor, bin_dir, copy_program, lives, program, python, tree_modes};

/// What a process says of itself before it becomes a worker; the shell changes none of it.
const SAYS: &str = r#"
d={dir}/$WORKHALL_WORKER
cat /proc/$$/status | grep -E '^(Sig[BIC]|Shd|Cap|Uid|Gid|Groups|Umask|NoNewPrivs|Seccomp|NSpid)' > $d.status
tr '\0' '\n' < /proc/$$/environ | sort > $d.environ
tr '\0' '\n' < /proc/$$/cmdline > $d.words
cat /proc/$$/limits /proc/$$/oom_score_adj > $d.limits
cut -d' ' -f5,6,7,8,18,19,41 /proc/$$/stat > $d.stat
cat /proc/$$/cgroup > $d.cgroup
readlink /proc/$$/cwd > $d.cwd
for fd in /proc/$$/fd/*; do echo ${fd##*/} $(readlink $fd); done > $d.descriptors
exec {bin}/test-worker
"#;

const SAID: [&str; 8] = ["status", "environ", "words", "limits", "stat", "cgroup", "cwd", "descriptors"];

/// How nice the tests are, and so what they start.
fn own_nice() -> i32 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(16).unwrap().parse().unwrap()
}

/// What differs between two processes in any case is left out: ids, the numbers of descriptors, their names and lives.
fn alike(kind: &str, line: &str, pid: i32) -> String {
    let line = line.replace(&format!("{pid} "), "PID ").replace("launched", "plain");
    match kind {
        "descriptors" => {
            let (number, what) = line.split_once(' ').unwrap();
            let number = if number.parse::<u32>().unwrap() > 2 { "N" } else { number };
            let what = if what.contains(".names/") { "the lock" } else { what.split('[').next().unwrap() };
            format!("{number} {what}")
        }
        "environ"
            if ["WORKHALL_NUMBER=", "WORKHALL_FD=", "WORKHALL_MARK_FD="].iter().any(|it| line.starts_with(it)) =>
        {
            line.split('=').next().unwrap().to_string()
        }
        "cgroup" => line.rsplit_once('/').map_or(line.clone(), |(parent, _)| parent.to_string()),
        "status" if line.starts_with("NSpid") => "NSpid".to_string(),
        // Two signals are the C library's own; what it does with them between fork and exec stays.
        "status" if line.starts_with("SigIgn") => {
            let ignored = u64::from_str_radix(line.split_whitespace().last().unwrap(), 16).unwrap();
            format!("SigIgn {:x}", ignored & !(0b11 << 31))
        }
        _ => line,
    }
}

#[test]
fn a_process_is_the_same_however_it_was_started() {
    for mode in tree_modes() {
        let settings = "umask = '0037'\ndirectory = '{dir}'\nlimits = { open_files = 99, core = 0 }
            environment = { COLOUR = 'blue', LD_BIND_NOW = '1' }";
        let exec = "exec = ['/bin/sh', '{dir}/say', 'a b', '']";
        let supervisor = Supervisor::with_config_under(
            &format!(
                "supervisor.process_tree = '{mode}'\n[class.plain]\n{exec}\n{settings}\n\
                 [class.launched]\n{exec}\n{settings}\nnice = {}\n",
                own_nice()
            ),
            // What a supervisor inherits goes on in the same way, too.
            |_| ["env", "--ignore-signal=USR1", "--block-signal=USR2"].map(String::from).to_vec(),
        );
        let bin = bin_dir().to_str().unwrap();
        let says = SAYS.replace("{dir}", supervisor.path("").to_str().unwrap().trim_end_matches('/'));
        supervisor.file("say", &says.replace("{bin}", bin));
        let mut said: Vec<BTreeMap<&str, Vec<String>>> = Vec::new();
        for worker in ["plain", "launched"] {
            supervisor.call(&[worker, "count"]);
            let pid = supervisor.worker_pid(worker);
            let of = |kind: &'static str| {
                let lines = supervisor.lines(&format!("{worker}.{kind}"));
                assert!(!lines.is_empty(), "{worker} has not said its {kind}");
                let mut lines: Vec<String> = lines.iter().map(|line| alike(kind, line, pid)).collect();
                lines.sort();
                (kind, lines)
            };
            said.push(SAID.into_iter().map(of).collect());
            supervisor.kill(&[worker]);
        }
        for kind in SAID {
            assert_eq!(said[0][kind], said[1][kind], "{mode}: {kind}");
        }
        // The test sees what it compares.
        assert!(said[0]["status"].iter().any(|line| line.starts_with("SigBlk") && line.ends_with("0000000000000000")));
        assert!(said[0]["environ"].contains(&"LD_BIND_NOW=1".to_string()));
        assert_eq!((said[0]["words"].len(), said[0]["stat"].len()), (4, 1));
        assert!(said[0]["descriptors"].contains(&"N the lock".to_string()), "{:?}", said[0]["descriptors"]);
        supervisor.no_overlap();
    }
}

#[test]
fn a_limit_of_descriptors_is_the_programs_and_not_what_the_supervisor_has_open() {
    for mode in tree_modes() {
        let supervisor = Supervisor::with_config(&format!(
            "supervisor.process_tree = '{mode}'\n\
             class.any = {{ exec = ['{{bin}}/test-worker'], names = ['**'], limits = {{ open_files = 16 }} }}"
        ));
        let _many: Vec<UnixStream> = (0..60).map(|_| supervisor.raw()).collect();
        supervisor.call(&["a", "count"]);
    }
}

#[test]
fn k08_nothing_of_a_life_stays_but_what_its_successor_has() {
    for mode in tree_modes() {
        let config = "[class.none]\nexec = ['{dir}/not there']\ncrash_limit = { crashes = 2 }";
        let mut supervisor = Supervisor::in_mode(mode, config);
        for round in 0..5 {
            let end: &[&str] = if round % 2 == 0 { &["kill", "a"] } else { &["call", "a", "die"] };
            supervisor.call(&["a", "count"]);
            supervisor.cli(end).ok();
        }
        supervisor.call(&["a", "count"]);
        assert_eq!(files(&supervisor.path("socket.names")), 2, "the key, and the lock of who lives");
        supervisor.cli(&["call", "none", "m"]).ok();
        supervisor.until("it has failed twice", |this| this.ps("none")["state"] == "paused");
        supervisor.kill(&["none"]);
        supervisor.kill(&["a"]);
        supervisor.until("nothing is left", |this| files(&this.path("socket.names")) == 1);
        if mode == "cgroup" {
            let groups = supervisor.cgroups();
            supervisor.until("no group is left", |_| directories(&groups) == 0);
        }
    }
}

fn files(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().count()
}

fn directories(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().flatten().filter(|entry| entry.path().is_dir()).count()
}

/// Holds the lease of one who writes to a program: whoever executes it waits for the holder, or for the kernel to break
/// the lease (45 s). A file system that does not answer does the same, without an end.
const LEASE: &str = r#"
import fcntl, os, signal, sys, time
signal.signal(signal.SIGIO, signal.SIG_IGN)
fd = os.open(sys.argv[1], os.O_RDWR)
fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
open(sys.argv[1] + ".leased", "w").close()
time.sleep(1000)
"#;

/// A supervisor whose class `leased` has a program that is leased, until this is dropped.
struct Leased {
    supervisor: Supervisor,
    holder: std::process::Child,
}

impl Leased {
    fn new(mode: &str, start_timeout: &str) -> Leased {
        let mut supervisor = Supervisor::with_config(&format!(
            "supervisor.process_tree = '{mode}'\n[class.a]\nexec = ['{{bin}}/test-worker']\n\
             [class.leased]\nexec = ['{{dir}}/leased']\nstart_timeout = '{start_timeout}'\nterm_grace = '1s'\n"
        ));
        let path = supervisor.path("leased");
        copy_program(&bin_dir().join("test-worker"), &path);
        let script = supervisor.file("lease.py", LEASE);
        let holder = std::process::Command::new(python()).arg(script).arg(&path).spawn().unwrap();
        supervisor.call(&["a", "count"]);
        supervisor.until("it is leased", |this| this.path("leased.leased").exists());
        Leased { supervisor, holder }
    }

    /// Posts to the worker that cannot come to its program. Returns its process.
    fn start(&mut self) -> i32 {
        self.supervisor.cli(&["call", "leased", "count"]).ok();
        let pid = self.supervisor.worker_pid("leased");
        assert_ne!(program(pid), "leased", "all stood still until the lease was broken");
        pid
    }

    fn release(&mut self) {
        self.holder.kill().unwrap();
        self.holder.wait().unwrap();
    }
}

impl Drop for Leased {
    fn drop(&mut self) {
        self.release();
    }
}

#[test]
fn d05_a_program_that_cannot_be_opened_yet_keeps_its_own_worker_waiting_and_nobody_else() {
    for mode in tree_modes() {
        let mut leased = Leased::new(mode, "120s");
        let pid = leased.start();
        leased.supervisor.call(&["a", "count"]);
        // Also the one that follows it, and the program that follows the supervisor's.
        leased.supervisor.cli(&["kill", "leased", "--now", "--wait"]).ok();
        assert!(!lives(pid), "{mode}");
        let pid = leased.start();
        leased.supervisor.cli(&["upgrade"]).ok();
        assert_eq!(leased.supervisor.worker_pid("leased"), pid, "{mode}");
        leased.supervisor.call(&["a", "count"]);
        leased.release();
        assert_eq!(leased.supervisor.call(&["leased", "count"]), 2, "{mode}");
        assert_eq!(leased.supervisor.worker_pid("leased"), pid, "{mode}");
    }
}

#[test]
fn d05_a_start_that_does_not_come_to_its_program_has_its_deadline() {
    for mode in tree_modes() {
        let mut leased = Leased::new(mode, "200ms");
        let pid = leased.start();
        leased.supervisor.until("it is ended", |_| !lives(pid));
        let info = leased.supervisor.cli(&["info", "leased", "--json"]).ok().json();
        assert_eq!(info["exits"][0]["stage"], "not_ready_in_time", "{mode}: {info}");
    }
}

#[test]
fn d07_a_start_under_way_when_the_supervisor_dies_keeps_nobody_else() {
    for mode in tree_modes() {
        let mut leased = Leased::new(mode, "120s");
        let idle = leased.supervisor.worker_pid("a");
        let pid = leased.start();
        leased.supervisor.signal(Signal::SIGKILL);
        leased.supervisor.ended();
        leased.supervisor.until("the idle worker sees it", |_| !lives(idle));
        leased.supervisor.restart();
        leased.supervisor.call(&["a", "count"]);
        assert!(lives(pid), "{mode}");
        leased.supervisor.cli(&["call", "leased", "count"]).ok();
        let waits = leased.supervisor.cli(&["info", "leased", "--json"]).ok().json()["waits_for"].to_string();
        assert!(waits.contains(&pid.to_string()), "{mode}: {waits}");
        leased.release();
        assert_eq!(leased.supervisor.call(&["leased", "count"]), 2, "{mode}: nobody has called the old one");
        assert!(!lives(pid), "{mode}: it came to its program, and there was nobody");
    }
}

/// More than may wait at a time: the rest is tried again, as nobody's crash.
#[test]
fn d05_many_starts_that_do_not_come_to_their_programs_take_no_other_class_its_room() {
    const NAMES: usize = 24;
    let mut leased = Leased::new("subreaper", "120s");
    let names: Vec<String> = (0..NAMES).map(|number| format!("leased/{number}")).collect();
    for name in &names {
        leased.supervisor.cli(&["call", name, "count"]).ok();
    }
    leased.supervisor.call(&["a/new", "count"]);
    let info = |name: &str| leased.supervisor.cli(&["info", name, "--json"]).ok().json();
    let waiting: Vec<_> = names.iter().map(|name| info(name)).filter(|info| info["pid"].is_null()).collect();
    assert_eq!(waiting.len(), NAMES - 16, "{waiting:?}");
    assert!(waiting[0]["waits_for"].as_str().unwrap().contains("do not come to execute"), "{}", waiting[0]);
    leased.release();
    for name in &names {
        assert_eq!(leased.supervisor.call(&[name, "count"]), 2);
        assert_eq!(leased.supervisor.ps(name)["crashes"], 0);
    }
}
