//! What is told to those who watch: the figures are those of what was done, and who reads them harms nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;
use workhall_tests::harness::{PATIENCE, Supervisor, output, output_of, text, workspace};

const WORKER: &str = "exec = ['{bin}/test-worker']\n";
const GET: &str = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// A port for one who binds it later. Below those that the system gives to connections and to who asks for any
/// (`ip_local_port_range`), each once, so that nobody takes it meanwhile.
fn free_port() -> u16 {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let candidates = || 20_000 + ((std::process::id() * 100 + TRIED.fetch_add(1, Ordering::Relaxed)) % 12_000) as u16;
    std::iter::repeat_with(candidates).find(is_free).unwrap()
}

fn at_port(port: u16, classes: &str) -> Supervisor {
    Supervisor::with_config(&format!("[supervisor]\nmetrics = '127.0.0.1:{port}'\n{classes}"))
}

fn at_socket(classes: &str) -> Supervisor {
    Supervisor::with_config(&format!("[supervisor]\nmetrics = '{{dir}}/metrics.sock'\n{classes}"))
}

fn connect(supervisor: &Supervisor) -> UnixStream {
    let stream = UnixStream::connect(supervisor.path("metrics.sock")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends a request, and reads the answer to its end: the head and the body.
fn ask(mut stream: impl Read + Write, request: &str) -> (String, String) {
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer of HTTP: {answer:?}"));
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).expect("a length is said");
    if !request.starts_with("HEAD") {
        assert_eq!(length, body.len().to_string());
    }
    (head.to_string(), body.to_string())
}

/// All series of a scrape.
#[derive(Debug)]
struct Scrape {
    series: BTreeMap<String, f64>,
    families: BTreeMap<String, String>,
}

impl Scrape {
    fn of(supervisor: &Supervisor) -> Scrape {
        Scrape::read(ask(connect(supervisor), GET))
    }

    /// Reads the text as strictly as its format allows.
    #[track_caller]
    fn read((head, body): (String, String)) -> Scrape {
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(
            head.contains("\r\nContent-Type: application/openmetrics-text; version=1.0.0; charset=utf-8"),
            "{head}"
        );
        let body = body.strip_suffix("# EOF\n").expect("the end is marked");
        let (mut series, mut families) = (BTreeMap::new(), BTreeMap::<String, String>::new());
        let (mut helped, mut family) = (String::new(), String::new());
        for line in body.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a help has text");
                assert!(!help.is_empty() && !help.contains('\\'), "{line}");
                helped = name.to_string();
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert_eq!(name, helped, "the help stands before the type");
                family = name.to_string();
                assert!(families.insert(family.clone(), kind.to_string()).is_none(), "{name} is there twice");
            } else {
                let (name, labels, value) = sample(line);
                let kind = &families[&family];
                let suffix = name.strip_prefix(&family).unwrap_or_else(|| panic!("`{line}` is not of {family}"));
                let allowed: &[&str] = match &**kind {
                    "counter" => &["_total"],
                    "histogram" => &["_bucket", "_sum", "_count"],
                    _ => &[""],
                };
                assert!(allowed.contains(&suffix), "`{line}` in a {kind}");
                assert!(value >= 0.0 && value.is_finite(), "{line}");
                let labels: Vec<String> = labels.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
                let key = format!("{name} {}", labels.join(" "));
                assert!(series.insert(key.trim_end().to_string(), value).is_none(), "`{line}` is there twice");
            }
        }
        let scrape = Scrape { series, families };
        scrape.check_histograms();
        scrape
    }

    /// Buckets only grow, and the last of them is the count.
    fn check_histograms(&self) {
        for (family, _) in self.families.iter().filter(|(_, kind)| *kind == "histogram") {
            let count = format!("{family}_count ");
            for (key, count) in self.series.iter().filter(|(key, _)| key.starts_with(&count)) {
                let labels = key.split_once(' ').unwrap().1;
                let bucket = format!("{family}_bucket ");
                let mut buckets: Vec<(f64, f64)> = Vec::new();
                for (key, value) in self.series.iter().filter(|(key, _)| key.starts_with(&bucket)) {
                    let parts: BTreeSet<&str> = key[bucket.len()..].split(' ').collect();
                    if parts.contains(labels) {
                        let end = parts.iter().find_map(|part| part.strip_prefix("le=")).unwrap();
                        buckets.push((if end == "+Inf" { f64::INFINITY } else { end.parse().unwrap() }, *value));
                    }
                }
                buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
                assert!(buckets.is_sorted_by_key(|(_, count)| *count), "{key}: {buckets:?}");
                assert_eq!(buckets.last(), Some(&(f64::INFINITY, *count)), "{key}");
            }
        }
    }

    #[track_caller]
    fn get(&self, key: &str) -> f64 {
        *self.series.get(key).unwrap_or_else(|| panic!("no `{key}` in {:#?}", self.series.keys()))
    }

    /// The names that stand in series, without labels.
    fn names(&self) -> BTreeSet<&str> {
        self.series.keys().map(|key| key.split(' ').next().unwrap()).collect()
    }
}

/// Name, labels and value of one line.
fn sample(line: &str) -> (String, Vec<(String, String)>, f64) {
    let is_name = |name: &str| {
        let fine = |c: char| c.is_ascii_alphanumeric() || c == '_';
        !name.is_empty() && name.chars().all(fine) && !name.starts_with(|c: char| c.is_ascii_digit())
    };
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("`{line}` is no sample"));
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name), "{line}");
    let mut labels = Vec::new();
    if let Some(mut inside) = rest.strip_prefix('{') {
        while !inside.starts_with('}') {
            let (key, after) = inside.split_once("=\"").unwrap_or_else(|| panic!("`{line}`: a label has a value"));
            assert!(is_name(key), "{line}");
            let (mut value, mut chars) = (String::new(), after.char_indices());
            let end = loop {
                match chars.next().unwrap_or_else(|| panic!("`{line}`: a value has an end")) {
                    (at, '"') => break at,
                    (_, '\\') => match chars.next().map(|(_, c)| c) {
                        Some('n') => value.push('\n'),
                        Some(c @ ('"' | '\\')) => value.push(c),
                        other => panic!("`{line}`: {other:?} is escaped"),
                    },
                    (_, c) => value.push(c),
                }
            };
            labels.push((key.to_string(), value));
            inside = after[end + 1..].strip_prefix(',').unwrap_or(&after[end + 1..]);
        }
        rest = &inside[1..];
    }
    let value = rest.strip_prefix(' ').unwrap_or_else(|| panic!("`{line}` has no value"));
    (name.to_string(), labels, value.parse().unwrap_or_else(|_| panic!("`{line}` has no number")))
}

#[test]
fn the_figures_are_those_of_what_was_done() {
    let port = free_port();
    let mailbox = "mailbox = { messages = 1 }\n";
    let classes = format!(
        "[class.a]\n{WORKER}[class.small]\n{WORKER}{mailbox}[class.broken]\nexec = ['/nowhere/at/all']\n\
         [class.slow]\n{WORKER}task_timeout = '50ms'\nterm_grace = '0s'\nexit_grace = '0s'\n"
    );
    let mut supervisor = at_port(port, &classes);
    for _ in 0..3 {
        supervisor.call(&["a", "count"]);
    }
    supervisor.cli(&["call", "a", "fail", "so", "--wait"]).fails(1, &["so"]);
    supervisor.cli(&["call", "a/dies", "die", "--wait"]).fails(6, &["crashed"]);
    supervisor.cli(&["call", "a/ends", "exit", "3", "--wait"]).fails(6, &["crashed"]);
    supervisor.cli(&["call", "a/ends", "exit", "0", "--wait"]).fails(6, &["crashed"]);
    supervisor.cli(&["call", "slow", "sleep", "60000", "--wait"]).fails(6, &["timed out"]);
    supervisor.kill(&["a"]);
    supervisor.kill(&["a/dies"]);
    // One is executed, one waits, the third has no room; and what waits is discarded.
    let held = supervisor.hold("small");
    supervisor.cli(&["call", "small", "count"]).ok();
    supervisor.cli(&["call", "small", "count"]).fails(3, &["mailbox_full"]);
    supervisor.cli(&["call", "nobody", "count"]).fails(3, &["no_class"]);
    let scrape = |_: &Supervisor| Scrape::read(ask(TcpStream::connect(("127.0.0.1", port)).unwrap(), GET));
    let busy = scrape(&supervisor);
    assert_eq!(busy.get("workhall_depth class=small"), 2.0);
    assert!(busy.get("workhall_oldest_message_age_seconds class=small") > 0.0);
    assert!(busy.get("workhall_longest_task_age_seconds class=small") > 0.0);
    assert_eq!(busy.get("workhall_ledger_messages term=running"), 1.0);
    let killed = supervisor.start_cli(&["kill", "small", "--wait"]);
    supervisor.until("it has no messages but the one that is executed", |this| this.ledger("pending") == 0);
    held.release();
    killed.end().ok();
    supervisor.cli(&["call", "broken", "count"]).ok();
    supervisor.until("its start has failed", |this| this.ps("broken")["crashes"].as_u64() >= Some(1));
    let status = supervisor.status();
    let scraped = scrape(&supervisor);
    for term in ["accepted", "done", "failed", "discarded", "expired", "dead", "pending", "running"] {
        let count = status["ledger"][term].as_u64().unwrap() as f64;
        assert_eq!(scraped.get(&format!("workhall_ledger_messages term={term}")), count, "{term}");
    }
    for (key, count) in [
        ("workhall_messages_accepted_total class=a", 7.0),
        ("workhall_messages_settled_total class=a outcome=done", 3.0),
        ("workhall_messages_settled_total class=a outcome=failed", 1.0),
        ("workhall_messages_settled_total class=a outcome=dead", 3.0),
        ("workhall_messages_settled_total class=a outcome=discarded", 0.0),
        ("workhall_messages_dead_total class=a reason=crashed", 3.0),
        ("workhall_messages_dead_total class=slow reason=timed_out", 1.0),
        ("workhall_depth class=a", 0.0),
        ("workhall_oldest_message_age_seconds class=a", 0.0),
        ("workhall_queue_latency_seconds_count class=a", 4.0),
        ("workhall_execution_latency_seconds_count class=a", 4.0),
        ("workhall_crashes_total class=a reason=signal", 1.0),
        ("workhall_crashes_total class=a reason=exit_status", 1.0),
        ("workhall_crashes_total class=a reason=ended_in_task", 1.0),
        ("workhall_crashes_total class=slow reason=timed_out", 1.0),
        ("workhall_starts_total class=a", 4.0),
        ("workhall_kills_total class=a step=ask", 1.0),
        ("workhall_kills_total class=a step=already_gone", 1.0),
        ("workhall_messages_settled_total class=small outcome=done", 1.0),
        ("workhall_messages_settled_total class=small outcome=discarded", 1.0),
        ("workhall_kills_total class=small step=ask", 1.0),
        ("workhall_refused_total class=small reason=mailbox_full", 1.0),
        ("workhall_refused_total class= reason=no_class", 1.0),
        ("workhall_depth class=broken", 1.0),
        ("workhall_dead_letters", 4.0),
        ("workhall_build_info version=0.1.0", 1.0),
    ] {
        assert_eq!(scraped.get(key), count, "{key}");
    }
    assert!(scraped.get("workhall_crashes_total class=broken reason=exec") >= 1.0);
    assert!(scraped.get("workhall_execution_latency_seconds_sum class=small") > 0.0);
    assert!(scraped.get("process_resident_memory_bytes") > (1 << 20) as f64);
    assert!(scraped.get("workhall_connections peer=worker") >= 0.0);
}

/// Where a process settles many tasks with one word, or by its mark page alone, each of them counts.
#[test]
fn tasks_that_are_settled_together_are_counted_one_by_one() {
    let mut supervisor = at_socket(&format!("[class.a]\n{WORKER}"));
    let held = supervisor.hold("a");
    for _ in 0..200 {
        supervisor.cli(&["call", "a", "count"]).ok();
    }
    assert_eq!(Scrape::of(&supervisor).get("workhall_depth class=a"), 201.0);
    held.release();
    supervisor.cli(&["wait", "a", "--idle", "--timeout", "60s"]).ok();
    let scrape = Scrape::of(&supervisor);
    for key in ["workhall_queue_latency_seconds_count", "workhall_execution_latency_seconds_count"] {
        assert_eq!(scrape.get(&format!("{key} class=a")), 201.0);
    }
    assert_eq!(scrape.get("workhall_messages_settled_total class=a outcome=done"), 201.0);
    assert!(
        scrape.get("workhall_queue_latency_seconds_sum class=a")
            >= scrape.get("workhall_execution_latency_seconds_sum class=a"),
        "all but the first have waited for it"
    );
}

#[test]
fn workers_have_series_of_their_own_only_where_that_is_asked_for() {
    let classes = |by_worker: bool| {
        format!("[class.a]\n{WORKER}metrics_by_worker = {by_worker}\nnames = ['a', 'a/**']\n[class.b]\n{WORKER}")
    };
    let mut supervisor = at_socket(&classes(true));
    for name in ["a", "a/\"1\\2\"", "b"] {
        supervisor.call(&[name, "count"]);
    }
    supervisor.cli(&["call", "a", "die", "--wait"]).fails(6, &["crashed"]);
    let scrape = Scrape::of(&supervisor);
    assert_eq!(scrape.get("workhall_worker_executed_total class=a worker=a"), 1.0);
    assert_eq!(scrape.get("workhall_worker_executed_total class=a worker=a/\"1\\2\""), 1.0);
    assert_eq!(scrape.get("workhall_worker_crashes_total class=a worker=a"), 1.0);
    assert_eq!(scrape.get("workhall_workers_left_out class=a"), 0.0);
    assert!(!scrape.series.keys().any(|key| key.contains("worker=b")), "{:?}", scrape.series);
    // What stands behind a process that is being ended belongs to the same name.
    let held = supervisor.hold("a");
    let killed = supervisor.start_cli(&["kill", "a", "--wait"]);
    supervisor.until("it is closed", |this| this.ps("a")["closed"] == true);
    supervisor.cli(&["call", "a", "count"]).ok();
    assert_eq!(Scrape::of(&supervisor).get("workhall_worker_depth class=a worker=a"), 2.0);
    held.release();
    killed.end().ok();
    // A reload takes them away.
    let config = std::fs::read_to_string(supervisor.path("workhall.toml")).unwrap();
    supervisor.file("workhall.toml", &config.replace("metrics_by_worker = true", "metrics_by_worker = false"));
    supervisor.cli(&["reload"]).ok();
    let scrape = Scrape::of(&supervisor);
    assert!(!scrape.series.keys().any(|key| key.contains("worker=a")), "{:?}", scrape.series);
    assert!(scrape.get("workhall_messages_accepted_total class=a") >= 4.0);
}

#[test]
fn who_has_more_names_than_are_told_apart_is_told_how_many_are_left_out() {
    let supervisor = at_socket(&format!("[class.a]\n{WORKER}metrics_by_worker = true\nidle_timeout = '1ms'\n"));
    let mut client = supervisor.client();
    // They are posted for much later, so none of them has a process.
    for number in 0..1003 {
        let name = format!("a/{number}");
        let args = workhall_tests::harness::payload(&());
        let mut call = workhall_protocol::messages::Call::new(&*name, "count", args);
        call.in_ms = Some(3_600_000);
        let ticket = client.submit(call).unwrap();
        let receipt = client.receipt(ticket).unwrap();
        assert!(matches!(receipt, workhall_protocol::messages::ReceiptBody::Accepted(_)), "{receipt:?}");
    }
    let scrape = Scrape::of(&supervisor);
    assert_eq!(scrape.get("workhall_workers_left_out class=a"), 3.0);
    // That is more than fits into a socket: one who does not read it keeps the next one waiting, and nobody else.
    let mut deaf = connect(&supervisor);
    deaf.write_all(GET.as_bytes()).unwrap();
    supervisor.call(&["a", "count"]);
    let behind = Scrape::of(&supervisor);
    assert_eq!(behind.get("workhall_messages_accepted_total class=a"), 1004.0);
    let mut cut = String::new();
    deaf.read_to_string(&mut cut).unwrap();
    assert!(cut.starts_with("HTTP/1.1 200 OK") && !cut.ends_with("# EOF\n"), "it was cut, not waited for");
    let told = scrape.series.keys().filter(|key| key.starts_with("workhall_worker_depth ")).count();
    assert_eq!(told, 1000);
}

#[test]
fn what_is_no_scrape_is_answered_and_harms_nobody() {
    let supervisor = at_socket(&format!("[class.a]\n{WORKER}"));
    let status = |request: &str| {
        let (head, body) = ask(connect(&supervisor), request);
        assert!(head.contains("\r\nConnection: close"), "{head}");
        (head.lines().next().unwrap().to_string(), body)
    };
    assert_eq!(status("GET / HTTP/1.1\r\n\r\n").0, "HTTP/1.1 404 Not Found");
    assert_eq!(status("POST /metrics HTTP/1.1\r\n\r\n").0, "HTTP/1.1 405 Method Not Allowed");
    assert_eq!(status("\x16\x03\x01\r\n\r\n").0, "HTTP/1.1 400 Bad Request");
    assert_eq!(status(&format!("GET /metrics HTTP/1.1\r\nA: {}", "x".repeat(9000))).0.split(' ').nth(1), Some("431"));
    let (head, body) = status("HEAD /metrics HTTP/1.1\r\n\r\n");
    assert_eq!((&*head, &*body), ("HTTP/1.1 200 OK", ""));
    // They come all at once, and stay: one that says nothing, one that does not read, one that leaves in the middle.
    let silent = connect(&supervisor);
    let mut deaf = connect(&supervisor);
    deaf.write_all(GET.as_bytes()).unwrap();
    let mut gone = connect(&supervisor);
    gone.write_all(b"GET /met").unwrap();
    drop(gone);
    // The supervisor serves meanwhile, and who waits behind them has his turn.
    supervisor.call(&["a", "count"]);
    let scrape = Scrape::of(&supervisor);
    assert_eq!(scrape.get("workhall_messages_accepted_total class=a"), 1.0);
    drop((silent, deaf));
    assert_eq!(supervisor.log().matches("panicked").count(), 0, "{}", supervisor.log());
}

type Scraper<'a> = &'a dyn Fn(&Supervisor) -> Scrape;

#[test]
fn the_figures_go_on_over_an_upgrade() {
    let port = free_port();
    let tcp = |_: &Supervisor| Scrape::read(ask(TcpStream::connect(("127.0.0.1", port)).unwrap(), GET));
    let of_tcp = at_port(port, &format!("[class.a]\n{WORKER}"));
    let of_unix = at_socket(&format!("[class.a]\n{WORKER}"));
    let unix = |supervisor: &Supervisor| Scrape::of(supervisor);
    let scrapes: [(Supervisor, Scraper<'_>); 2] = [(of_tcp, &tcp), (of_unix, &unix)];
    for (mut supervisor, scrape) in scrapes {
        supervisor.call(&["a", "count"]);
        supervisor.cli(&["call", "a/b", "die", "--wait"]).fails(6, &["crashed"]);
        let held = supervisor.hold("a");
        let before = scrape(&supervisor);
        supervisor.cli(&["upgrade"]).ok();
        let after = scrape(&supervisor);
        for (key, value) in &before.series {
            let kind = before.families.iter().find(|(family, kind)| *kind != "gauge" && key.starts_with(&**family));
            if kind.is_some() {
                assert_eq!(after.get(key), *value, "{key}");
            }
        }
        assert_eq!(after.get("workhall_depth class=a"), 1.0);
        held.release();
        supervisor.call(&["a", "count"]);
        supervisor.cli(&["upgrade"]).ok();
        let last = scrape(&supervisor);
        assert_eq!(last.get("workhall_execution_latency_seconds_count class=a"), 3.0);
        assert_eq!(last.get("workhall_crashes_total class=a reason=signal"), 1.0);
        assert!(last.get("workhall_uptime_seconds") > before.get("workhall_uptime_seconds"));
    }
}

#[test]
fn the_socket_has_the_mode_of_the_other_and_goes_with_the_supervisor() {
    let config = format!("[supervisor]\nmetrics = '{{dir}}/metrics.sock'\nsocket_mode = '0660'\n[class.a]\n{WORKER}");
    let mut supervisor = Supervisor::with_config(&config);
    let path = supervisor.path("metrics.sock");
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o660);
    supervisor.cli(&["upgrade"]).ok();
    supervisor.signal(nix::sys::signal::Signal::SIGTERM);
    supervisor.ended();
    assert!(!path.exists());
    // One that a killed supervisor has left is replaced.
    supervisor.restart();
    supervisor.signal(nix::sys::signal::Signal::SIGKILL);
    supervisor.ended();
    assert!(path.symlink_metadata().unwrap().file_type().is_socket());
    supervisor.restart();
    Scrape::of(&supervisor);
}

#[test]
fn metrics_are_for_this_machine_alone_and_nobody_elses_place_is_taken() {
    let supervisor = at_socket(&format!("[class.a]\n{WORKER}"));
    let file = supervisor.path("other.toml");
    for (place, parts) in [
        ("0.0.0.0:9464", ["other.toml:2:11", "no address of loopback"]),
        ("localhost:9464", ["other.toml:2:11", "neither an address with its port"]),
        ("127.0.0.1:0", ["other.toml:2:11", "port 0"]),
    ] {
        let config = format!("[supervisor]\nmetrics = \"{place}\"\n[class.a]\nexec = ['/bin/true']\n");
        supervisor.file("other.toml", &config);
        let checked = supervisor.cli(&["check", text(&file)]);
        assert_eq!(checked.code, 2, "{checked:?}");
        assert!(parts.iter().all(|part| checked.err.contains(part)), "{checked:?}");
    }
    let start = |place: &str| {
        let config = format!("[supervisor]\nmetrics = \"{place}\"\n[class.a]\nexec = ['/bin/true']\n");
        supervisor.file("other.toml", &config);
        let socket = supervisor.path("other.sock");
        output(&mut supervisor.command(&["serve", "--config", text(&file), "--socket", text(&socket)]))
    };
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    start(&address).fails(1, &["cannot listen for metrics at", &address, "`metrics` in [supervisor]"]);
    start(text(&supervisor.path("metrics.sock"))).fails(1, &["another program listens at"]);
    start(text(&file)).fails(1, &["is no socket"]);
    // Elsewhere only from the next start on.
    let config = std::fs::read_to_string(supervisor.path("workhall.toml")).unwrap();
    supervisor.file("workhall.toml", &config.replace("metrics.sock", "elsewhere.sock"));
    let said = supervisor.cli(&["reload"]).ok().out;
    assert!(said.contains("`metrics` in [supervisor] holds from the next start"), "{said}");
    Scrape::of(&supervisor);
}

#[test]
fn all_that_the_dashboard_shows_is_there() {
    let mut supervisor = at_socket(&format!("[class.a]\n{WORKER}metrics_by_worker = true\n"));
    supervisor.call(&["a", "count"]);
    supervisor.cli(&["call", "a", "die", "--wait"]).fails(6, &["crashed"]);
    supervisor.kill(&["a"]);
    supervisor.cli(&["call", "nobody", "count"]).fails(3, &["no_class"]);
    let held = supervisor.hold("a");
    let scrape = Scrape::of(&supervisor);
    held.release();
    let dashboard = dashboard();
    assert_eq!(dashboard["uid"], "workhall");
    let names = scrape.names();
    let mut shown = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            assert_eq!(target["datasource"]["uid"], "${datasource}");
            let expr = target["expr"].as_str().unwrap();
            let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let words = expr
                .split(|c| !is_part(c))
                .filter(|word| word.starts_with("workhall_") || word.starts_with("process_"));
            let words: Vec<&str> = words.collect();
            assert!(!words.is_empty(), "{expr}");
            for word in words {
                assert!(names.contains(word), "the dashboard shows {word}, which is not there");
                shown.insert(word.to_string());
            }
            // The labels that it sums by or chooses by are those of the series.
            for by in expr.split("by (").skip(1) {
                for label in by.split(')').next().unwrap().split(", ") {
                    let has = |key: &&String| {
                        key.contains(&format!(" {label}=")) && shown.contains(key.split(' ').next().unwrap())
                    };
                    assert!(scrape.series.keys().any(|key| has(&key)), "no series of {expr} has {label}");
                }
            }
        }
    }
    assert!(shown.len() > 20, "{shown:?}");
}

/// Grafana takes nearly anything and shows nothing where it is wrong.
#[test]
fn the_dashboard_is_whole() {
    let dashboard = dashboard();
    for (key, kind) in [("title", "string"), ("schemaVersion", "number"), ("version", "number"), ("refresh", "string")]
    {
        let value = &dashboard[key];
        assert!(if kind == "string" { value.is_string() } else { value.is_u64() }, "{key}: {value}");
    }
    assert!(dashboard["id"].is_null() && dashboard["__inputs"].is_null(), "it is nobody's export");
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let variables: BTreeSet<&str> = variables.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
    let (mut ids, mut cells, mut used) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is there twice");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
        assert!(w > 0 && h > 0 && x + w <= 24, "{title} is not in the 24 columns");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(cells.insert(cell), "{title} lies over another panel");
        }
        match panel["type"].as_str().unwrap() {
            "row" => assert!(panel["targets"].is_null(), "{title}"),
            "stat" | "timeseries" => {
                assert!(!panel["targets"].as_array().unwrap().is_empty(), "{title}");
                assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
                assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title} has no unit");
            }
            other => panic!("{title}: {other}"),
        }
        let targets = panel["targets"].as_array().into_iter().flatten();
        let mut references = BTreeSet::new();
        for target in targets {
            assert!(references.insert(target["refId"].as_str().unwrap()), "{title}: two of one refId");
            let expr = target["expr"].as_str().unwrap();
            for variable in expr.split('$').skip(1) {
                let end = variable.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(variable.len());
                let variable = &variable[..end];
                assert!(variables.contains(variable) || variable == "__rate_interval", "{title}: ${variable}");
                used.insert(variable.to_string());
            }
        }
    }
    used.insert("datasource".to_string());
    assert!(variables.iter().all(|variable| used.contains(*variable)), "{variables:?} {used:?}");
}

fn dashboard() -> Value {
    let text = std::fs::read_to_string(workspace().join("packaging/grafana/workhall.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// A program that may be there, or that a variable names: then it is there, or the test fails.
fn tool(name: &str, variable: &str) -> Option<String> {
    let named = std::env::var(variable).ok();
    let program = named.clone().unwrap_or_else(|| name.to_string());
    match Command::new(&program).arg("--version").output() {
        Ok(_) => Some(program),
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped: there is no {name} (Debian package prometheus; or name it in {variable})");
            None
        }
        Err(error) => panic!("{program} (of {variable}: {named:?}): {error}"),
    }
}

/// By Prometheus' own tool: the text has nothing that it would complain of, and each expression of the dashboard is one.
#[test]
fn prometheus_own_tool_has_no_complaint() {
    let Some(tool) = tool("promtool", "PROMTOOL") else { return };
    let supervisor = at_socket(&format!("[class.a]\n{WORKER}metrics_by_worker = true\n"));
    supervisor.call(&["a", "count"]);
    supervisor.cli(&["call", "a", "die", "--wait"]).fails(6, &["crashed"]);
    supervisor.kill(&["a"]);
    supervisor.cli(&["call", "nobody", "count"]).fails(3, &["no_class"]);
    let (_, body) = ask(connect(&supervisor), GET);
    // The tool reads the older format, in which a counter has its whole name also in what is said of it.
    let counters: BTreeSet<&str> =
        body.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let older = body.lines().filter(|line| *line != "# EOF").map(|line| {
        let about = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE "));
        match about.and_then(|rest| rest.split_once(' ')).filter(|(name, _)| counters.contains(name)) {
            Some((name, _)) => line.replacen(name, &format!("{name}_total"), 1) + "\n",
            None => format!("{line}\n"),
        }
    });
    let older: String = older.collect();
    let checked = output_of(Command::new(&tool).args(["check", "metrics"]), older.as_bytes());
    assert_eq!((checked.code, checked.out.as_str(), checked.err.as_str()), (0, "", ""), "of\n{older}");
    // It does find what is wrong.
    let wrong = output_of(Command::new(&tool).args(["check", "metrics"]), b"# TYPE a counter\na 1\n");
    assert_ne!((wrong.code, wrong.err.as_str()), (0, ""));
    let mut rules = "groups:\n- name: dashboard\n  rules:\n".to_string();
    let dashboard = dashboard();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expr = target["expr"].as_str().unwrap().replace("$__rate_interval", "1m");
            let record = format!("panel:{}:{}", panel["id"], target["refId"].as_str().unwrap());
            rules += &format!("  - record: {record}\n    expr: {}\n", Value::from(expr));
        }
    }
    let file = supervisor.file("rules.yml", &rules);
    output(Command::new(&tool).args(["check", "rules"]).arg(file)).ok();
}

/// A Prometheus of its own, with one target; ended when it goes.
struct Prometheus {
    child: Child,
    port: u16,
    log: PathBuf,
}

impl Prometheus {
    /// None where the machine has no such program.
    fn start(supervisor: &Supervisor, target: u16) -> Option<Prometheus> {
        let program = tool("prometheus", "PROMETHEUS")?;
        let port = free_port();
        let config = format!(
            "scrape_configs:\n- job_name: workhall\n  scrape_interval: 200ms\n  scrape_timeout: 200ms\n  static_configs:\n  - targets: ['127.0.0.1:{target}']\n"
        );
        let config = supervisor.file("prometheus.yml", &config);
        let log = supervisor.path("prometheus.log");
        let child = Command::new(program)
            .arg(format!("--config.file={}", text(&config)))
            .arg(format!("--storage.tsdb.path={}", text(&supervisor.path("prometheus"))))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stderr(std::fs::File::create(&log).unwrap())
            .stdin(Stdio::null())
            .spawn();
        Some(Prometheus { child: child.unwrap(), port, log })
    }

    /// The results of an expression; none while it does not answer.
    fn query(&self, expression: &str) -> Option<Vec<Value>> {
        let escaped: String = expression.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET /api/v1/query?query={escaped} HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        let body: Value = serde_json::from_str(body).ok()?;
        assert_eq!(body["status"], "success", "{expression}: {body}");
        Some(body["data"]["result"].as_array().cloned().unwrap_or_default())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
        if std::thread::panicking() {
            println!("prometheus said:\n{}", std::fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

#[test]
fn a_real_prometheus_scrapes_it_and_computes_each_panel_of_the_dashboard() {
    let port = free_port();
    let mut supervisor = at_port(port, &format!("[class.a]\n{WORKER}metrics_by_worker = true\n"));
    let Some(prometheus) = Prometheus::start(&supervisor, port) else { return };
    let value = |expression: &str| {
        let result = prometheus.query(expression)?;
        result.first()?["value"][1].as_str().map(str::to_string)
    };
    supervisor.until("it is scraped", |_| value("up{job=\"workhall\"}").as_deref() == Some("1"));
    for _ in 0..7 {
        supervisor.call(&["a", "count"]);
    }
    let done = "workhall_ledger_messages{term=\"done\"}";
    supervisor.until("what was done is there", |_| value(done).as_deref() == Some("7"));
    supervisor.until("and how long it took", |_| {
        value("workhall_execution_latency_seconds_count{class=\"a\"}").as_deref() == Some("7")
    });
    // Something of everything: a crash, a kill, what is refused, and a worker at work.
    supervisor.cli(&["call", "a", "die", "--wait"]).fails(6, &["crashed"]);
    supervisor.kill(&["a"]);
    supervisor.cli(&["call", "nobody", "count"]).fails(3, &["no_class"]);
    let held = supervisor.hold("a");
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let with_values = |target: &Value| {
        let text = target["expr"].as_str().unwrap();
        ["$instance", "$class", "$worker"]
            .iter()
            .fold(text.replace("$__rate_interval", "10s"), |text, it| text.replace(it, ".*"))
    };
    let expressions: Vec<String> = targets.map(with_values).collect();
    assert!(expressions.len() > 20, "{expressions:?}");
    for expression in &expressions {
        assert!(!expression.contains('$'), "{expression}");
        // A rate needs two scrapes.
        supervisor.until(&format!("there is something to show of {expression}"), |_| {
            prometheus.query(expression).is_some_and(|result| !result.is_empty())
        });
    }
    held.release();
}
