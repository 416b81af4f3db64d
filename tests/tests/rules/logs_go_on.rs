//! What workers write, what happened, and who follows it, when the supervisor becomes another program or has another
//! configuration.

use serde_json::{Value, json};
use workhall_protocol::messages::{News, ReceiptBody};
use workhall_tests::harness::{Supervisor, is_root};

use super::logs::{Follower, class, logs, run, supervisor, texts};

fn upgrade(supervisor: &Supervisor) {
    supervisor.cli(&["upgrade"]).ok();
}

#[test]
fn all_that_a_worker_writes_before_and_after_an_upgrade_is_there_and_no_line_is_torn() {
    let mut supervisor = supervisor("[supervisor]\nlogs = { lines = 100_000, bytes = '64MiB', forward = 'none' }\n");
    // More than twice what both pipes hold. The line that is begun before is ended after.
    let code = r"
import threading
def wait(file):
    while not os.path.exists(base + file): time.sleep(0.005)
write(1, b'before\nhalf a'); write(2, b'half an')
open(base + 'begun', 'a').write('x\n')
wait('go')
def many(fd, first, word): write(fd, first + b''.join(b'%s %d\n' % (word, n) for n in range(15_000)) + b'no end')
both = [threading.Thread(target=many, args=it) for it in [(1, b' line\n', b'out'), (2, b' error\n', b'err')]]
for it in both: it.start()
for it in both: it.join()
";
    let code = format!("base = '{}'\n{code}", supervisor.path("").display());
    let task = supervisor.start_cli(&["call", "w", "run", &code, "--wait"]);
    supervisor.until_lines("begun", 1);
    let pid = supervisor.worker_pid("w");
    for _ in 0..3 {
        upgrade(&supervisor);
    }
    supervisor.let_go();
    // And while it writes.
    for _ in 0..2 {
        upgrade(&supervisor);
    }
    task.end().ok();
    upgrade(&supervisor);
    assert_eq!(supervisor.worker_pid("w"), pid);
    supervisor.kill(&["w"]);
    let lines = logs(&supervisor, &["w"]);
    let of = |stream: &str| -> Vec<String> {
        let lines = lines.iter().filter(|line| line["stream"] == stream);
        lines.map(|line| line["text"].as_str().unwrap().to_string()).collect()
    };
    let expected = |first: &[&str], word: &str| {
        let first = first.iter().map(|line| line.to_string());
        first.chain((0..15_000).map(|n| format!("{word} {n}"))).chain(["no end".to_string()]).collect::<Vec<_>>()
    };
    assert!(of("stdout") == expected(&["before", "half a line"], "out"), "{} lines", lines.len());
    assert!(of("stderr") == expected(&["half an error"], "err"), "{} lines", lines.len());
    let numbers: Vec<u64> = lines.iter().map(|line| line["seq"].as_u64().unwrap()).collect();
    assert!(numbers.into_iter().eq(1..=lines.len() as u64), "they are numbered on");
    assert!(lines.iter().all(|line| line["generation"] == 1 && line["class"] == "w"));
}

#[test]
fn what_is_kept_is_the_same_after_an_upgrade_and_what_has_left_stays_counted() {
    let supervisor = supervisor("[supervisor]\nlogs = { lines = 5 }\nevents = { worker = 9 }\n");
    for n in 0..4 {
        run(&supervisor, "w", &format!(r"write(1, b'\x1b {n}\xff\n' * 3); write(2, b'x' * 9000 + b'\n')"));
        supervisor.cli(&["call", "w", "run", "os.kill(os.getpid(), 9)", "--wait"]).fails(6, &["crashed"]);
        supervisor.cli(&["resume", "w"]);
    }
    run(&supervisor, "é/1", "print('another', flush=True)");
    supervisor.kill(&["é/1"]);
    let all = || {
        let events = supervisor.cli(&["events", "--json"]).ok();
        let logged = supervisor.cli(&["logs", "w"]).ok();
        let status = supervisor.status();
        let numbers = (status["logs"].clone(), status["events"].clone());
        (logs(&supervisor, &[]), events.json(), logged, supervisor.cli(&["events", "w"]).ok(), numbers)
    };
    let (lines, events, shown, _, (kept, _)) = all();
    assert!(shown.err.contains("lines before these are not kept any more"), "{shown:?}");
    assert_eq!((lines.len(), &kept["lines"]), (6, &json!(6)));
    assert!(kept["dropped"].as_u64().unwrap() > 10 && events.as_array().unwrap().len() > 10, "{kept} {events}");
    let before = format!("{:?}", all());
    for _ in 0..2 {
        upgrade(&supervisor);
        assert_eq!(format!("{:?}", all()), before);
    }
    // What comes is numbered on.
    run(&supervisor, "é/1", "print('more', flush=True)");
    let next = |list: &[Value]| list.last().unwrap()["seq"].as_u64().unwrap() + 1;
    let more = logs(&supervisor, &["é/1"]);
    assert_eq!((&more[1]["text"], more[1]["seq"].as_u64()), (&json!("more"), Some(next(&lines))));
    let created = supervisor.cli(&["events", "é/1", "--json", "-n", "3"]).ok().json()[0].clone();
    assert_eq!(
        (&created["event"], created["seq"].as_u64()),
        (&json!("created"), Some(next(events.as_array().unwrap())))
    );
}

#[test]
fn who_follows_follows_on_after_an_upgrade() {
    let supervisor = supervisor("");
    run(&supervisor, "w", "print('before', flush=True)");
    let mut lines = Follower::start(&supervisor, &["logs", "-f", "--json"]);
    let mut events = Follower::start(&supervisor, &["events", "w", "-f", "-n", "1", "--json"]);
    let of = |line: String, key: &str| serde_json::from_str::<Value>(&line).unwrap()[key].as_str().unwrap().to_string();
    assert_eq!((of(lines.line(), "text"), of(events.line(), "event")), ("before".to_string(), "ready".to_string()));
    for round in 0..3 {
        upgrade(&supervisor);
        run(&supervisor, "w", &format!("print('after', {round}, flush=True)"));
        supervisor.cli(&["call", "w", "run", "raise SystemExit(3)", "--wait"]).fails(6, &["crashed"]);
        supervisor.cli(&["resume", "w"]);
        run(&supervisor, "w", "pass");
        assert_eq!(of(lines.line(), "text"), format!("after {round}"));
        let mut seen: Vec<String> = Vec::new();
        while seen.last().is_none_or(|last| last != "ready") {
            seen.push(of(events.line(), "event"));
        }
        assert!(seen.starts_with(&["exited".to_string(), "dead".to_string()]), "{seen:?}");
    }
}

#[test]
fn who_reads_slowly_over_an_upgrade_is_told_all_that_is_there_and_how_much_is_not() {
    const LINES: u64 = 15_000;
    let supervisor = supervisor("[supervisor]\nlogs = { lines = 16_000, bytes = '64MiB', forward = 'none' }\n");
    let write = format!("write(1, b''.join(b'a line with the number %d\\n' % n for n in range({LINES})))");
    let mut follower = supervisor.client();
    let followed = follower.logs(Some("w".into()), None, true).unwrap();
    assert_eq!(follower.receipt(followed).unwrap(), ReceiptBody::Waiting {});
    run(&supervisor, "w", &write);
    let mut reader = supervisor.client();
    let listed = reader.logs(Some("w".into()), None, false).unwrap();
    assert_eq!(reader.receipt(listed).unwrap(), ReceiptBody::Waiting {});
    upgrade(&supervisor);
    let first_and_last = |news: &News<'_>| {
        let items = news.items.to_json().unwrap();
        let items = items.as_array().unwrap();
        let seq = |item: Option<&Value>| item.map(|item| item["seq"].as_u64().unwrap());
        (items.len() as u64, seq(items.first()), seq(items.last()))
    };
    // The list ends where it would have ended.
    let mut listed_to = 0;
    while let Some(news) = reader.news(listed).unwrap() {
        let (count, first, last) = first_and_last(&news);
        assert_eq!((news.lost, first, last), (0, Some(listed_to + 1), Some(listed_to + count)));
        listed_to += count;
    }
    assert_eq!(listed_to, LINES);
    // Of what comes now some of the older leaves before it is told.
    run(&supervisor, "w", &write);
    upgrade(&supervisor);
    run(&supervisor, "w", &write);
    let (mut told, mut lost, mut last) = (0, 0, 0);
    while last < 3 * LINES {
        let news = follower.news(followed).unwrap().unwrap();
        let (count, _, seq) = first_and_last(&news);
        (told, lost, last) = (told + count, lost + news.lost, seq.unwrap_or(last));
    }
    assert_eq!(told + lost, 3 * LINES, "{told} told, {lost} lost");
    assert!(lost > 0, "nothing was lost: then this shows nothing");
}

#[test]
fn a_reload_changes_what_is_kept_and_where_lines_go() {
    let supervisor = supervisor("");
    run(&supervisor, "w", "write(1, b'one\\ntwo\\nthree\\nfour\\n')");
    assert!(supervisor.log().contains("w | four\n"));
    let configure = |settings: &str| {
        let text = format!("{settings}\n{}", class(&supervisor.path("")));
        supervisor.file("workhall.toml", &text);
        supervisor.cli(&["reload", "--json"]).ok().json()["reloaded"].take()
    };
    let report =
        configure("[supervisor]\nlogs = { lines = 2, line_bytes = 256, forward = 'none' }\nevents = { worker = 3 }\n");
    assert_eq!((&report["later"], &report["warnings"]), (&json!([]), &json!([])), "{report}");
    assert_eq!(report["changed"].as_array().unwrap().len(), 4, "{report}");
    assert_eq!(texts(&supervisor, "w").len(), 4, "what is too much leaves with what comes");
    run(&supervisor, "w", "write(1, b'five\\n' + b'x' * 300 + b'\\n')");
    let kept = texts(&supervisor, "w");
    assert_eq!((kept.len(), kept[0].len(), kept[1].len()), (2, 256, 44), "{kept:?}");
    assert!(!supervisor.log().contains("five"), "{}", supervisor.log());
    supervisor.kill(&["w"]);
    assert_eq!(supervisor.cli(&["events", "w", "--json"]).ok().json().as_array().unwrap().len(), 3);
    let report = configure("");
    assert_eq!(report["changed"].as_array().unwrap().len(), 4, "{report}");
    run(&supervisor, "w", "print('six', flush=True)");
    assert!(supervisor.log().contains("w | six\n"), "{}", supervisor.log());
    assert_eq!(texts(&supervisor, "w").len(), 3);
}

#[test]
fn a_reload_changes_who_may_read_the_lines_of_a_class() {
    if !is_root() {
        return println!("skipped: only root can become another user");
    }
    const BIN: u32 = 2;
    let supervisor = supervisor("[supervisor]\nsocket_mode = '0666'\n");
    supervisor.open_to_others();
    run(&supervisor, "w", "print('secret', flush=True)");
    supervisor.cli_of(BIN, BIN, &["logs", "w"]).fails(3, &["not_permitted"]);
    let class = class(&supervisor.path(""));
    supervisor
        .file("workhall.toml", &format!("[supervisor]\nsocket_mode = '0666'\n{class}logs = {{ users = ['bin'] }}\n"));
    supervisor.cli(&["reload"]).ok();
    assert!(supervisor.cli_of(BIN, BIN, &["logs", "w"]).ok().out.ends_with("out| secret\n"));
    upgrade(&supervisor);
    assert!(supervisor.cli_of(BIN, BIN, &["logs", "w"]).ok().out.ends_with("out| secret\n"));
}
