//! What one asks of a worker at three in the morning: `workhall info`.

use serde_json::{Value, json};
use workhall_tests::harness::{ANY_NAME, Supervisor, bin_dir, text, tree_modes};

#[track_caller]
fn info(supervisor: &Supervisor, worker: &str) -> Value {
    supervisor.cli(&["info", worker, "--json"]).ok().json()
}

#[track_caller]
fn shows(supervisor: &Supervisor, worker: &str, parts: &[&str]) {
    let shown = supervisor.cli(&["info", worker]).ok().out;
    for part in parts {
        assert!(shown.contains(part), "`{part}` is not in\n{shown}");
    }
}

#[test]
fn info_shows_the_processes_of_a_worker_with_what_they_use() {
    for mode in tree_modes() {
        let mut supervisor = Supervisor::in_mode(mode, "");
        let file = supervisor.path("left");
        let script = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; echo $$ > $FILE.new; mv $FILE.new $FILE; exec sleep 1000";
        let child = supervisor.call(&["a", "leave", script, file.to_str().unwrap()])[0].as_i64().unwrap();
        let pid = supervisor.worker_pid("a");
        supervisor.until("the child is its program", |_| workhall_tests::harness::program(child as i32) == "sleep");
        let tree = &info(&supervisor, "a")["tree"];
        let process = |at: usize| &tree["processes"][at];
        assert_eq!(
            (&process(0)["pid"], &process(0)["program"]),
            (&json!(pid), &json!("test-worker")),
            "{mode}: {tree}"
        );
        assert_eq!((&process(1)["pid"], &process(1)["parent"]), (&json!(child), &json!(pid)), "{mode}: {tree}");
        assert_eq!((&process(1)["program"], &tree["more"]), (&json!("sleep"), &json!(false)), "{mode}: {tree}");
        for at in 0..2 {
            assert!(process(at)["memory_bytes"].as_u64().unwrap() > 100 << 10, "{mode}: {tree}");
        }
        assert!(process(1)["cpu_ms"].as_u64().unwrap() > 0 && tree["cpu_ms"].as_u64() > Some(0), "{mode}: {tree}");
        shows(&supervisor, "a", &["uses          ", " of memory, ", &format!("{child} sleep (S), ")]);
        supervisor.kill(&["a", "--now"]);
    }
}

#[test]
fn info_says_what_a_worker_does_since_when_and_where_its_class_is_from() {
    let mut supervisor = Supervisor::with_config(ANY_NAME);
    supervisor.call(&["a", "count"]);
    let idle = info(&supervisor, "a");
    assert_eq!((&idle["state"], &idle["why"], &idle["ending"]), (&json!("idle"), &Value::Null, &Value::Null));
    assert_eq!(idle["from"], supervisor.path("workhall.toml").to_str().unwrap());
    supervisor.until("it has been idle for a while", |this| {
        info(this, "a")["state_ms"].as_u64().unwrap() >= idle["state_ms"].as_u64().unwrap() + 20
    });
    let held = supervisor.hold("a");
    supervisor.cli(&["call", "a", "count"]).ok();
    supervisor.until("it has been busy for a while", |this| info(this, "a")["state_ms"].as_u64().unwrap() >= 20);
    let busy = info(&supervisor, "a");
    assert_eq!(
        (&busy["state"], &busy["running"]["method"], &busy["pending"]),
        (&json!("busy"), &json!("block"), &json!(1))
    );
    assert!(busy["oldest_age_ms"].is_u64() && busy["running"]["age_ms"].as_u64() >= busy["state_ms"].as_u64());
    shows(&supervisor, "a", &["state         busy, for ", "running       block, message", "class from    /"]);
    // The steps of its end, and who waits behind it.
    let killing = supervisor.start_cli(&["kill", "a", "--wait"]);
    supervisor.until("it is asked to end", |this| info(this, "%2")["ending"]["step"] == "ask");
    supervisor.cli(&["call", "a", "count"]).ok();
    assert_eq!(info(&supervisor, "a")["why"], "%2 of the same name is still ending");
    shows(
        &supervisor,
        "%2",
        &["ending        asked to end, for ", "; its task may take as", "state         ending, for "],
    );
    assert_eq!(info(&supervisor, "%2")["ending"]["next_step_in_ms"], Value::Null);
    held.release();
    killing.end().ok();
    supervisor.call(&["late", "ignore_term"]);
    let held = supervisor.hold("late");
    let killing = supervisor.start_cli(&["kill", "late", "--within", "0s", "--wait"]);
    supervisor.until("it has SIGTERM", |this| info(this, "late")["ending"]["step"] == "term");
    shows(&supervisor, "late", &["ending        SIGTERM was sent, for ", "; SIGKILL in "]);
    assert!(info(&supervisor, "late")["ending"]["next_step_in_ms"].as_u64().unwrap() <= 5000);
    held.release();
    killing.end().ok();
}

#[test]
fn info_says_why_a_worker_has_no_process_and_when_it_has_one_again() {
    let mut supervisor = Supervisor::with_config(
        "[supervisor]\nmax_processes = 1\n[class.w]\nexec = ['{bin}/test-worker']\nnames = ['**']\nidle_timeout = '50ms'\n[class.bad]\nexec = ['sh', '-c', 'exit 3']\ncrash_limit = { crashes = 3, pause = '1h' }\n",
    );
    supervisor.call(&["a", "count"]);
    supervisor.until("it has ended", |this| info(this, "a")["state"] == "absent");
    assert_eq!(info(&supervisor, "a")["why"], "nothing is to be done: the next call starts it");
    supervisor.cli(&["call", "bad", "x"]).ok();
    supervisor.until("it pauses", |this| info(this, "bad")["state"] == "paused");
    let paused = info(&supervisor, "bad");
    let why = paused["why"].as_str().unwrap();
    assert!(why.starts_with("3 lives ended badly, one after the other: it pauses; the last: it ended before"), "{why}");
    assert!(paused["next_start_in_ms"].as_u64().unwrap() > 60_000 && paused["exits"].as_array().unwrap().len() == 3);
    shows(
        &supervisor,
        "bad",
        &["why           3 lives ended badly", "next start    in ", "last exits    generation 3"],
    );
    // The only place is the paused one's: whom a call was posted for later waits for it.
    supervisor.cli(&["call", "b", "count", "--in", "1ms"]).ok();
    supervisor.until("it queues", |this| info(this, "b")["queued"] == true);
    assert!(info(&supervisor, "b")["why"].as_str().unwrap().contains("`max_processes` in [supervisor]"));
    supervisor.cli(&["call", "c", "count", "--in", "1h"]).ok();
    assert_eq!(info(&supervisor, "c")["why"], "what is pending is for later");
}

#[test]
fn a_configuration_that_is_named_from_where_one_stands_is_shown_with_its_whole_path() {
    let script = "cd \"$DIR\" && exec \"$0\" \"${@/\"$DIR\"\\//}\"";
    let supervisor = Supervisor::with_config_under(ANY_NAME, |dir| {
        ["env", &format!("DIR={}", text(dir)), "bash", "-c", script].map(str::to_string).to_vec()
    });
    let command = std::fs::read(format!("/proc/{}/cmdline", supervisor.pid())).unwrap();
    assert!(String::from_utf8(command).unwrap().contains("\0workhall.toml\0"), "it was named so");
    let whole = supervisor.path("workhall.toml");
    assert_eq!(supervisor.cli(&["status", "--json"]).ok().json()["config"], text(&whole));
    supervisor.call(&["a", "count"]);
    assert_eq!(info(&supervisor, "a")["from"], text(&whole));
}

#[test]
fn info_says_of_a_limit_whether_this_machine_enforces_it() {
    let class = "[class.w]\nexec = ['{bin}/test-worker']\nmemory = '1GiB'\nprocesses = 50\n[class.cut]\nexec = ['{bin}/test-worker']\ntask_grace = '1s'\nexit_grace = '7s'\n";
    let supervisor = Supervisor::with_config(&format!("supervisor.process_tree = 'subreaper'\n{class}"));
    supervisor.call(&["w", "count"]);
    let limits = &info(&supervisor, "w")["limits"];
    assert_eq!((&limits["memory_bytes"], &limits["processes"]), (&json!(1 << 30), &json!(50)));
    let said: Vec<&str> =
        limits["not_enforced"].as_array().unwrap().iter().map(|sentence| sentence.as_str().unwrap()).collect();
    assert!(said[0].starts_with("`memory` is not enforced: ") && said[1].starts_with("`processes` is not enforced: "));
    assert_eq!(said.len(), 2);
    shows(&supervisor, "w", &["1 GiB of memory, 50 processes and threads", "warning       `memory` is not", said[1]]);
    let uses = supervisor.cli(&["info", "w"]).ok().out;
    assert!(!uses.contains("MiB of 1 GiB"), "what is not enforced is no bound of what is used: {uses}");
    shows(&supervisor, "w", &["a kill        SIGTERM 5.0s after its task has ended; SIGKILL 5.0s after that"]);
    supervisor.call(&["cut", "count"]);
    let cut = "a kill        SIGTERM 7.0s after its task has ended, or when that has run 1.0s more; SIGKILL 5.0s after";
    shows(&supervisor, "cut", &[cut]);
}

#[test]
fn info_names_the_program_of_the_workers_directory_that_a_worker_executes() {
    let supervisor = Supervisor::start();
    supervisor.call(&["a", "count"]);
    assert_eq!(info(&supervisor, "a")["from"], supervisor.path("workers/a").to_str().unwrap());
}

#[test]
fn info_names_the_included_file_that_a_class_stands_in_and_none_for_one_that_is_gone() {
    let supervisor = Supervisor::with_config(&format!("supervisor.include = 'more-*.toml'\n{ANY_NAME}"));
    let class = format!("[class.more]\nexec = ['{}/test-worker']\n", text(bin_dir()));
    let file = supervisor.file("more-1.toml", &class);
    supervisor.cli(&["reload"]).ok();
    supervisor.call(&["more", "count"]);
    supervisor.call(&["a", "count"]);
    let main = supervisor.path("workhall.toml");
    for (worker, file) in [("more", &file), ("a", &main)] {
        assert_eq!(info(&supervisor, worker)["from"], text(file));
    }
    supervisor.cli(&["upgrade"]).ok();
    assert_eq!(info(&supervisor, "more")["from"], text(&file));
    supervisor.file("workhall.toml", &class.replace("more", "other"));
    supervisor.cli(&["reload"]).ok();
    assert_eq!(info(&supervisor, "more")["from"], Value::Null);
}

#[test]
fn info_shows_the_limits_that_a_class_sets_of_a_process() {
    let config = "[class.a]\nexec = ['{bin}/test-worker']\n\
                  limits = { open_files = 256, cpu_time = '100s', core = 0, stack = 'unlimited', file_size = '2MiB' }\n\
                  [class.b]\nexec = ['{bin}/test-worker']\n";
    let supervisor = Supervisor::with_config(config);
    for worker in ["a", "b"] {
        supervisor.call(&[worker, "count"]);
    }
    let set = json!({ "open_files": 256, "cpu_time": 100, "core": 0, "stack": null, "file_size": 2 << 20 });
    assert_eq!(info(&supervisor, "a")["limits"]["resources"], set);
    let said = ", core 0 B, cpu_time 1m40s, file_size 2 MiB, open_files 256, stack unlimited, ";
    shows(&supervisor, "a", &[said]);
    assert_eq!(info(&supervisor, "b")["limits"]["resources"], json!({}));
}
