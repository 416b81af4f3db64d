//! What a class sets for its processes, as they see it themselves, with control groups and without.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::{Value, json};
use workhall_tests::harness::{self, Output, Supervisor, bin_dir, output, tree_modes};

/// A worker in Python that tells what it is; it can be executed by everybody.
const TELLER: &str = r#"
import json, os, socket
fds = []
for name in os.listdir("/proc/self/fd"):
    try: os.fstat(int(name)); fds.append(int(name))
    except OSError: pass
given = [int(os.environ[name]) for name in os.environ if name.startswith("WORKHALL_") and name.endswith("FD")]
connection = socket.socket(fileno=int(os.environ["WORKHALL_FD"]))
lines = connection.makefile("r", encoding="utf-8", newline="\n")
out = connection.makefile("w", encoding="utf-8", newline="\n")
def say(message):
    out.write(json.dumps(message) + "\n")
    out.flush()
def tell(method, args):
    if method == "me": return {"uid": os.getresuid(), "gid": os.getresgid(), "groups": sorted(os.getgroups()),
        "nice": os.getpriority(os.PRIO_PROCESS, 0), "cwd": os.getcwd(), "env": dict(os.environ), "fds": sorted(fds),
        "lock": [fd for fd in fds if ".names/" in os.readlink(f"/proc/self/fd/{fd}")],
        "given": sorted(given), "group": os.getpgrp() == os.getpid(), "stdin": os.readlink("/proc/self/fd/0")}
    if method == "read": return open(args[0]).read()
    if method == "write": return open(args[0], "w").write("x")
    raise LookupError(method)
say({"ready": {"protocol": 1, "window": 1}})
for line in lines:
    message = json.loads(line)
    if "kill" in message: break
    if "task" in message:
        task = message["task"]
        try: say({"done": {"id": task["id"], "result": tell(task["method"], task["args"])}})
        except Exception as error: say({"failed": {"id": task["id"], "error": repr(error)}})
"#;

/// A supervisor whose class `teller` sets these.
fn teller(mode: &str, settings: &str) -> Supervisor {
    let python = harness::python();
    Supervisor::with_config(&format!(
        "[supervisor]\nprocess_tree = '{mode}'\n[class.teller]\nexec = ['{python}', '-S', '-c', '''{TELLER}''']\n{settings}"
    ))
}

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("skipped: only root can start processes as another user");
    }
    root
}

/// A line of /proc/self/status.
fn status(supervisor: &Supervisor, key: &str) -> String {
    let text = supervisor.call(&["teller", "read", "/proc/self/status"]);
    let line = text.as_str().unwrap().lines().find_map(|line| line.strip_prefix(&format!("{key}:")));
    line.unwrap_or_else(|| panic!("no {key} in {text}")).trim().to_string()
}

/// What `check` says of this configuration.
fn check(text: &str) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("w.toml");
    fs::write(&file, text).unwrap();
    output(Command::new(bin_dir().join("workhall")).arg("check").arg(&file))
}

#[test]
fn a_worker_runs_as_the_user_of_its_class() {
    if !is_root() {
        return;
    }
    for mode in tree_modes() {
        let supervisor = teller(mode, "user = 'nobody'\ndirectory = '/'");
        let secret = supervisor.file("secret", "root's\n");
        fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
        fs::set_permissions(supervisor.path(""), PermissionsExt::from_mode(0o755)).unwrap();
        let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
        let (uid, gid) = (nobody.uid.as_raw(), nobody.gid.as_raw());
        let me = supervisor.call(&["teller", "me"]);
        assert_eq!((&me["uid"], &me["gid"]), (&json!([uid, uid, uid]), &json!([gid, gid, gid])), "{me}");
        assert_eq!((&me["groups"], &me["cwd"]), (&json!([gid]), &json!("/")));
        let env = &me["env"];
        assert_eq!((&env["USER"], &env["LOGNAME"]), (&json!("nobody"), &json!("nobody")));
        assert_eq!(env["HOME"], nobody.dir.to_str().unwrap());
        for method in ["read", "write"] {
            let refused = supervisor.cli(&["call", "teller", method, secret.to_str().unwrap(), "--wait"]);
            refused.fails(1, &["PermissionError"]);
        }
        // Root ends what is another's: by the ladder, and what it has left behind.
        let pid = supervisor.worker_pid("teller");
        supervisor.kill(&["teller", "--now"]);
        assert!(!harness::lives(pid));
    }
}

#[test]
fn a_user_by_number_and_a_group_of_its_own() {
    if !is_root() {
        return;
    }
    let supervisor = teller("auto", "user = 54321\ngroup = 54322");
    let me = supervisor.call(&["teller", "me"]);
    assert_eq!((&me["uid"], &me["gid"]), (&json!([54321, 54321, 54321]), &json!([54322, 54322, 54322])), "{me}");
    assert_eq!((&me["groups"], &me["env"]["HOME"], &me["env"]["USER"]), (&json!([]), &json!("/"), &json!("54321")));
}

#[test]
fn a_directory_that_the_user_may_not_enter_is_a_failed_start() {
    if !is_root() {
        return;
    }
    let mut supervisor = teller("auto", "user = 'nobody'\ndirectory = '{dir}/inner'");
    fs::create_dir(supervisor.path("inner")).unwrap();
    fs::set_permissions(supervisor.path("inner"), PermissionsExt::from_mode(0o700)).unwrap();
    supervisor.cli(&["call", "teller", "me"]).ok();
    supervisor.until("it could not start", |this| this.ps("teller")["state"] == "backoff");
    let last = &supervisor.cli(&["info", "teller", "--json"]).ok().json()["last_exit"];
    assert_eq!((&last["stage"], &last["exit"]), (&json!("setup"), &Value::Null), "{last}");
    let failure = last["failure"].as_str().unwrap();
    assert!(failure.starts_with("cannot start in ") && failure.contains("Permission denied"), "{failure}");
}

#[test]
fn umask_nice_and_limits_are_what_the_class_says() {
    for mode in tree_modes() {
        let supervisor = teller(
            mode,
            "umask = '0027'\nnice = 7\ndirectory = '{dir}'
             limits = { open_files = 77, core = 0, cpu_time = '1h', file_size = '3MiB', stack = 'unlimited' }",
        );
        let me = supervisor.call(&["teller", "me"]);
        let dir = supervisor.path("").canonicalize().unwrap();
        assert_eq!((&me["nice"], &me["cwd"]), (&json!(7), &json!(dir.to_str().unwrap())), "{me}");
        assert_eq!((&me["group"], &me["stdin"]), (&json!(true), &json!("/dev/null")), "{me}");
        assert_eq!(status(&supervisor, "Umask"), "0027");
        assert_eq!(status(&supervisor, "NoNewPrivs"), "1");
        assert_eq!(status(&supervisor, "SigBlk"), "0000000000000000");
        let limits = supervisor.call(&["teller", "read", "/proc/self/limits"]);
        for (name, value) in [
            ("Max open files", "77 77"),
            ("Max core file size", "0 0"),
            ("Max cpu time", "3600 3600"),
            ("Max file size", "3145728 3145728"),
            ("Max stack size", "unlimited unlimited"),
        ] {
            let line = limits.as_str().unwrap().lines().find_map(|line| line.strip_prefix(name)).unwrap();
            let words: Vec<&str> = line.split_whitespace().take(2).collect();
            assert_eq!(words.join(" "), value, "{name}");
        }
    }
}

#[test]
fn sigpipe_kills_what_is_not_written_in_rust() {
    for mode in tree_modes() {
        let script = "grep SigIgn /proc/self/status > {dir}/new; mv {dir}/new {dir}/ignored";
        let mut supervisor = Supervisor::with_config(&format!(
            "supervisor.process_tree = '{mode}'\nclass.a.exec = ['sh', '-c', 'trap \"\" QUIT; {script}']"
        ));
        supervisor.cli(&["call", "a", "m"]).ok();
        supervisor.until_lines("ignored", 1);
        let line = &supervisor.lines("ignored")[0];
        let mask = u64::from_str_radix(line.trim_start_matches("SigIgn:").trim(), 16).unwrap();
        let ignored = |signal: nix::sys::signal::Signal| mask & 1 << (signal as u32 - 1) != 0;
        assert!(ignored(nix::sys::signal::Signal::SIGQUIT), "the test sees what is ignored");
        assert!(!ignored(nix::sys::signal::Signal::SIGPIPE), "{mode}: {line}");
    }
}

#[test]
fn the_environment_is_clean_but_for_what_is_named() {
    let config = "[class.teller]\nexec = ['{python}', '-S', '-c', '''{TELLER}''']
        environment = { COLOUR = 'blue', LD_BIND_NOW = '1' }\npass_environment = ['NAMED', 'NOT_THERE']
        nice = 19";
    // Who sets `nice` goes through the launcher.
    for (mode, launched) in tree_modes().into_iter().flat_map(|mode| [(mode, true), (mode, false)]) {
        let config = config.replace("{python}", harness::python()).replace("{TELLER}", TELLER);
        let config = if launched { config } else { config.replace("nice = 19", "") };
        let dir = tempfile::tempdir().unwrap();
        let (file, socket) = (dir.path().join("w.toml"), dir.path().join("socket"));
        fs::write(&file, format!("supervisor.process_tree = '{mode}'\n{config}")).unwrap();
        let mut serve = Command::new(bin_dir().join("workhall"));
        serve.arg("serve").arg("--config").arg(&file).arg("--socket").arg(&socket).env_clear();
        serve.envs([("PATH", "/usr/bin:/bin"), ("LC_TIME", "C"), ("NAMED", "n"), ("SECRET", "s"), ("WORKHALL_X", "x")]);
        let mut supervisor = serve.stderr(std::process::Stdio::null()).spawn().unwrap();
        let call = || {
            let mut call = Command::new(bin_dir().join("workhall"));
            output(call.args(["call", "teller", "me", "--wait", "--socket"]).arg(&socket))
        };
        harness::until("the supervisor serves", || socket.exists());
        let me = call().ok().json();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(supervisor.id() as i32), nix::sys::signal::Signal::SIGTERM)
            .unwrap();
        assert!(supervisor.wait().unwrap().success());
        let mut env = me["env"].as_object().unwrap().clone();
        // Python sets it for itself where no locale is named.
        env.remove("LC_CTYPE");
        let own: Vec<String> = env.keys().filter(|name| !name.starts_with("WORKHALL_")).cloned().collect();
        let mut own: Vec<(&str, &Value)> = own.iter().map(|name| (name.as_str(), &env[name])).collect();
        own.sort_unstable_by_key(|(name, _)| *name);
        let text = own.iter().map(|(name, value)| format!("{name}={}", value.as_str().unwrap())).collect::<Vec<_>>();
        assert_eq!(text, ["COLOUR=blue", "LC_TIME=C", "LD_BIND_NOW=1", "NAMED=n", "PATH=/usr/bin:/bin"], "{mode}");
        assert!(env["WORKHALL_WORKER"] == "teller" && !env.contains_key("WORKHALL_X"));
    }
}

#[test]
fn descriptors_do_not_leak_into_workers() {
    for mode in tree_modes() {
        let supervisor = teller(mode, "[class.a]\nexec = ['{bin}/test-worker']");
        let clients: Vec<_> = (0..50).map(|_| supervisor.client()).collect();
        for n in 0..10 {
            supervisor.call(&[&format!("a/{n}"), "count"]);
        }
        let me = supervisor.call(&["teller", "me"]);
        let mut expected = vec![json!(0), json!(1), json!(2)];
        expected.extend(me["given"].as_array().unwrap().iter().cloned());
        // The lock of its name (rule D7).
        assert_eq!(me["lock"].as_array().unwrap().len(), 1, "{me}");
        expected.extend(me["lock"].as_array().unwrap().iter().cloned());
        expected.sort_unstable_by_key(|fd| fd.as_i64());
        assert_eq!(me["fds"], Value::Array(expected), "{mode}");
        drop(clients);
    }
}

#[test]
fn privileges_can_be_gained_only_where_the_class_says_so() {
    for mode in tree_modes() {
        // With one class that may, the supervisor itself must keep what it has.
        let supervisor = teller(mode, "no_new_privs = false\n[class.a]\nexec = ['{bin}/test-worker']");
        assert_eq!(status(&supervisor, "NoNewPrivs"), "0", "{mode}");
        let other = supervisor.call(&["a", "read", "/proc/self/status"]);
        assert!(other.as_str().unwrap().contains("NoNewPrivs:\t1\n"), "{mode}: {other}");
    }
}

#[test]
fn what_a_class_cannot_set_is_an_error_with_its_place() {
    for (setting, parts) in [
        ("umask = '0999'", &["w.toml:3:9", "octal"][..]),
        ("umask = 27", &["w.toml:3:9", "string"]),
        ("nice = 20", &["w.toml:3:8", "-20", "19"]),
        ("limits = { open_files = 0 }", &["w.toml:3:", "at least 16", "unlimited"]),
        ("limits = { cpu_time = '1500ms' }", &["w.toml:3:", "whole seconds"]),
        ("limits = { core = 'infinite' }", &["w.toml:3:", "unlimited"]),
        ("limits = { colour = 1 }", &["w.toml:3:", "colour", "open_files"]),
        ("environment = { WORKHALL_FD = '1' }", &["w.toml:3:", "WORKHALL_FD", "supervisor alone"]),
        ("environment = { 'A=B' = '1' }", &["w.toml:3:", "A=B"]),
        ("pass_environment = ['WORKHALL_X']", &["w.toml:3:", "WORKHALL_X"]),
        ("memory = 0", &["w.toml:3:10", "at least 1"]),
        ("processes = 0", &["w.toml:3:13", "at least 1"]),
    ] {
        let refused = check(&format!("[class.a]\nexec = ['true']\n{setting}\n"));
        let error = refused.err.clone();
        assert!(refused.code == 2 && parts.iter().all(|part| error.contains(part)), "{setting}: {refused:?}");
    }
    if is_root() {
        for (setting, parts) in [
            ("user = 'no-such-user'", &["w.toml:3:8", "there is no user `no-such-user`"][..]),
            ("group = 'no-such-group'", &["w.toml:3:9", "there is no group"]),
            ("user = -1", &["w.toml:3:8", "a name or a number"]),
            ("user = 54321", &["class `a`", "54321", "group"]),
        ] {
            let refused = check(&format!("[class.a]\nexec = ['true']\n{setting}\n"));
            let error = refused.err.clone();
            assert!(refused.code == 2 && parts.iter().all(|part| error.contains(part)), "{setting}: {refused:?}");
        }
    }
}

/// Whatever is accepted can have an effect; what is not is said in words that stand in the README.
#[test]
fn what_can_never_work_is_an_error_in_words_for_people() {
    let long = "x".repeat(300);
    let (long_socket, long_star) = (format!("socket = '{long}'"), format!("names = ['{long}*']"));
    for (key, part) in [
        ("mailbox = 5", "w.toml:3:11: invalid type: integer `5`, expected a table, like mailbox = { messages = 100 }"),
        ("limits = 5", "w.toml:3:10: invalid type: integer `5`, expected a table, like limits = { open_files = 1024 }"),
        ("crash_limit = 5", "expected a table, like crash_limit = { crashes = 5, within = \"1m\" }"),
        ("names = ['']", "w.toml:3:10: class `a`: `names`: no worker matches: a worker's name cannot be empty"),
        ("names = [\"a\\u001b\"]", "w.toml:3:10: class `a`: `names`: no worker matches: "),
        ("names = [\"*\\u001b\"]", "w.toml:3:10: class `a`: `names`: no worker matches: a name has no control"),
        (&long_star, "w.toml:3:10: class `a`: `names`: no worker matches: a name has at most 255 bytes"),
        ("directory = \"a\\u0000b\"", "w.toml:3:13: no path can contain a NUL character"),
        ("processes = -1", "w.toml:3:13: invalid value: integer `-1`, expected a whole number, not below 0"),
        ("nice = 99999999999999999999", "w.toml:3:8: 99999999999999999999 is out of range: whole numbers go from"),
        (
            "[supervisor]\nlogs = 5",
            "w.toml:4:8: invalid type: integer `5`, expected a table, like logs = { lines = 1000 }",
        ),
        ("[supervisor]\nsocket = ''", "w.toml:4:10: `socket` in [supervisor]: a socket's path has 1 to 107 bytes"),
        (
            &format!("[supervisor]\n{long_socket}"),
            "w.toml:4:10: `socket` in [supervisor]: a socket's path has 1 to 107",
        ),
        ("[supervisor]\ninclude = ''", "w.toml:4:11: `include`: `` names no files"),
        (
            "[supervisor]\ninclude = '*.d/x.toml'",
            "there is no directory `*.d`: only the name of the file may have wildcards",
        ),
        ("[supervisor]\nmax_workers = 99999999999999999999", "w.toml:4:15: 99999999999999999999 is out of range"),
        (
            "[supervisor]\ndead_letters = 5",
            "w.toml:4:16: invalid type: integer `5`, expected a table, like dead_letters",
        ),
    ] {
        let refused = check(&format!("[class.a]\nexec = ['true']\n{key}\n"));
        assert!(refused.code == 2 && refused.err.contains(part), "{key}: {refused:?}");
    }
    for (text, part) in [
        ("supervisor = 5", "w.toml:1:14: invalid type: integer `5`, expected a table: [supervisor]"),
        ("class.a = 5", "w.toml:1:11: invalid type: integer `5`, expected a table, like [class.counter]"),
        ("class = 5", "w.toml:1:9: invalid type: integer `5`, expected a table"),
    ] {
        let refused = check(text);
        assert!(refused.code == 2 && refused.err.contains(part), "{text}: {refused:?}");
    }
    // What it quotes cannot speak to the terminal.
    let text = "[class.\"a\\u001b[31m\"]\nexec = ['true']\n[class.b]\nexec = ['\u{9b}31m']\nnice = 99\n";
    for text in [text, "[class.b]\nexec = ['\u{9b}31m', 5]\n"] {
        let refused = check(text);
        assert!(refused.code == 2 && !refused.err.contains(['\u{1b}', '\u{9b}']), "{refused:?}");
    }
}

#[test]
fn without_root_another_user_and_forced_groups_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let file = dir.path().join("w.toml");
    let nobody = |args: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(bin_dir().join("workhall")).args(args);
        command
    };
    if !nobody(&["--version"]).output().is_ok_and(|output| output.status.success()) {
        println!("skipped: only root can become nobody, with `setpriv` and an executable that nobody may reach");
        return;
    }
    fs::write(&file, "[class.a]\nexec = ['true']\nuser = 'root'\n").unwrap();
    let refused = output(&mut nobody(&["check", file.to_str().unwrap()]));
    assert!(refused.code == 2 && refused.err.contains("w.toml:3:8") && refused.err.contains("as root"), "{refused:?}");
    fs::write(&file, "[class.a]\nexec = ['true']\n[supervisor]\nprocess_tree = 'cgroup'\n").unwrap();
    let socket = dir.path().join("socket");
    let serve = nobody(&["serve", "--config", file.to_str().unwrap(), "--socket", socket.to_str().unwrap()]).output();
    let error = String::from_utf8_lossy(&serve.unwrap().stderr).into_owned();
    assert!(error.contains("cannot make control groups: ") && error.contains("process_tree"), "{error}");
}

#[test]
fn what_this_machine_does_not_enforce_is_said() {
    let config = "[class.teller]\nexec = ['true']\nmemory = '64MiB'\nprocesses = 10\n";
    let supervisor = Supervisor::with_config(&format!("supervisor.process_tree = 'subreaper'\n{config}"));
    let status = supervisor.status();
    let sentences = status["not_enforced"].as_array().unwrap();
    assert_eq!(sentences.len(), 2, "{status}");
    for (sentence, key) in sentences.iter().zip(["memory", "processes"]) {
        let sentence = sentence.as_str().unwrap();
        assert!(sentence.starts_with(&format!("class `teller`: `{key}` is not enforced: ")), "{sentence}");
        assert!(supervisor.log().contains(sentence) && supervisor.cli(&["status"]).ok().out.contains(sentence));
    }
    check(config).ok();
}
