//! Running out of descriptors or processes is never the end of the supervisor (rule D5): starts fail with stage and
//! errno under backoff, clients wait, and everything goes on when there is room again.

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use workhall_protocol::client::{Client, Ticket};
use workhall_protocol::messages::{Call, Kill, OutcomeBody, ReceiptBody};
use workhall_tests::harness::{Supervisor, bin_dir, copy_program, lives, payload, until};

/// Few enough that ten workers use them up. It loses the others after its start, as it may to what else it has open:
/// with so few from the beginning it would refuse the calls that need a process too many.
fn with_few_descriptors(connections: u32) -> Supervisor {
    // So many starts fail here that a worker would pause for longer than a test waits.
    let class = "exec = ['{bin}/test-worker'], names = ['**'], crash_limit = { crashes = 1000 }";
    let supervisor =
        Supervisor::with_config(&format!("supervisor.max_connections = {connections}\nclass.any = {{ {class} }}\n"));
    let pid = format!("--pid={}", supervisor.pid());
    let lowered = std::process::Command::new("prlimit").args([&pid, "--nofile=48:48"]).status().unwrap();
    assert!(lowered.success());
    supervisor
}

fn call<'a>(worker: &'a str, method: &'a str) -> Call<'a> {
    Call { wait: true, ..Call::new(worker, method, payload(&())) }
}

fn kill_of(worker: &str) -> Kill<'_> {
    Kill { worker: Some(worker.into()), wait: true, ..Kill::default() }
}

fn report(receipt: ReceiptBody<'_>) -> Value {
    let ReceiptBody::Report(report) = receipt else { panic!("{receipt:?}") };
    report.to_json().unwrap()
}

fn list(client: &mut Client<UnixStream>) -> Vec<Value> {
    report(client.list().unwrap()).as_array().unwrap().clone()
}

/// The processes that there are, by the worker's name.
fn with_process(client: &mut Client<UnixStream>) -> BTreeSet<String> {
    let rows = list(client).into_iter().filter(|row| row["state"] == "idle");
    rows.map(|row| row["name"].as_str().unwrap().to_string()).collect()
}

/// Why the last start of a worker failed; none if it did not.
fn failure(client: &mut Client<UnixStream>, worker: &str) -> Option<String> {
    let info = report(client.info(worker.into()).unwrap());
    Some(info["last_exit"]["failure"].as_str()?.to_string())
}

/// Processor time used by a process, in ticks of mostly 10 ms.
fn ticks(pid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// It does not turn in circles: in a second it uses a small part of one.
fn is_quiet(supervisor: &Supervisor) {
    let before = ticks(supervisor.pid());
    std::thread::sleep(Duration::from_secs(1));
    let used = ticks(supervisor.pid()) - before;
    assert!(used <= 20, "{used} ticks in a second");
}

const NAMES: usize = 24;

/// Posts a call to each of `NAMES` workers and waits until some have a process and the others failed to start.
fn start_more_than_fit(client: &mut Client<UnixStream>) -> (Vec<Ticket>, BTreeSet<String>) {
    let names: Vec<String> = (0..NAMES).map(|n| format!("w/{n}")).collect();
    let tickets = names.iter().map(|name| client.submit(call(name, "pid")).unwrap()).collect();
    client.flush().unwrap();
    let mut living = BTreeSet::new();
    until("some have started and the others have failed", || {
        living = with_process(client);
        !living.is_empty() && names.iter().all(|name| living.contains(name) || failure(client, name).is_some())
    });
    (tickets, living)
}

/// Kills those that have a process, until all calls have been executed.
fn make_room_until_all_are_executed(client: &mut Client<UnixStream>, tickets: Vec<Ticket>) {
    until("all have run", || {
        let rows = list(client);
        for row in rows.iter().filter(|row| row["state"] == "idle" && row["executed"] != 0) {
            let ticket = client.kill(kill_of(row["name"].as_str().unwrap())).unwrap();
            client.receipt(ticket).unwrap();
        }
        rows.iter().all(|row| row["closed"] == true || row["executed"] != 0)
    });
    for ticket in tickets {
        assert!(matches!(client.outcome(ticket).unwrap(), OutcomeBody::Done { .. }));
    }
}

#[test]
fn d05_without_descriptors_starts_fail_under_backoff_and_recover() {
    let supervisor = with_few_descriptors(16);
    let mut client = supervisor.client();
    let (tickets, living) = start_more_than_fit(&mut client);
    assert!((3..NAMES).contains(&living.len()), "{living:?}");
    let failed = (0..NAMES).map(|n| format!("w/{n}")).find(|name| !living.contains(name)).unwrap();
    let reason = failure(&mut client, &failed).unwrap();
    assert!(reason.starts_with("cannot ") && reason.contains("os error 24"), "{reason}");
    assert!(reason.contains("`ulimit -n`"), "{reason}");
    // Those that have a process are served as ever.
    for name in &living {
        client.call_and_wait(call(name, "count")).unwrap();
    }
    is_quiet(&supervisor);
    make_room_until_all_are_executed(&mut client, tickets);
    supervisor.no_overlap();
}

#[test]
fn clients_for_whom_there_is_no_descriptor_wait_and_are_served_when_there_is() {
    let supervisor = with_few_descriptors(40);
    let mut client = supervisor.client();
    let (tickets, living) = start_more_than_fit(&mut client);
    let mut waiting: Vec<Client<UnixStream>> = (0..30).map(|_| supervisor.client()).collect();
    for (n, waiting) in waiting.iter_mut().enumerate() {
        waiting.submit(call(living.first().unwrap(), if n % 2 == 0 { "pid" } else { "count" })).unwrap();
        waiting.flush().unwrap();
    }
    is_quiet(&supervisor);
    let status = report(client.status().unwrap());
    assert!(status["counts"]["clients"].as_u64().unwrap() < 31, "there was no descriptor for more: {status}");
    // All but one end, one after the other leaves, and each is answered.
    for name in living.iter().skip(1) {
        let ticket = client.kill(kill_of(name)).unwrap();
        client.receipt(ticket).unwrap();
    }
    for mut waiting in waiting {
        let status = report(waiting.status().unwrap());
        assert_eq!(status["stopping"], false);
    }
    make_room_until_all_are_executed(&mut client, tickets);
}

#[test]
fn k08_what_a_process_left_behind_is_ended_also_without_descriptors() {
    let supervisor = with_few_descriptors(16);
    let mut client = supervisor.client();
    let file = supervisor.path("left");
    let script = "(setsid env -i FILE=$FILE sh -c 'echo $$ > $FILE.new; mv $FILE.new $FILE; exec env -i sleep 1000' &)";
    let args = payload(&(script, &file));
    let (_, outcome) = client.call_and_wait(Call { args, ..call("parent", "leave") }).unwrap();
    let Some(OutcomeBody::Done { result }) = outcome else { panic!("{outcome:?}") };
    let left: Vec<i32> = result.decode().unwrap();
    let (tickets, _) = start_more_than_fit(&mut client);
    // Whatever number is left over by the workers, they take.
    let _others: Vec<UnixStream> = (0..20).map(|_| supervisor.raw()).collect();
    let parent = list(&mut client).into_iter().find(|row| row["name"] == "parent").unwrap();
    kill(Pid::from_raw(parent["pid"].as_i64().unwrap() as i32), Signal::SIGKILL).unwrap();
    until("its death is known", || {
        list(&mut client).iter().any(|row| row["name"] == "parent" && row["state"] == "absent")
    });
    assert!(!left.into_iter().any(lives), "the gate is open only when the tree is gone");
    make_room_until_all_are_executed(&mut client, tickets);
}

/// As another user, whose processes are limited. The binaries are copied to where that user may execute them.
#[test]
fn d05_without_processes_starts_fail_under_backoff_and_recover() {
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        eprintln!("only root may start a supervisor as another user");
        return;
    }
    // Of its own: the limit counts all processes of a user.
    let user = 61_000 + std::process::id() % 4_000;
    let supervisor = Supervisor::with_config_under(
        "class.any = { exec = ['{dir}/bin/test-worker'], names = ['**'], crash_limit = { crashes = 1000 } }\n",
        |dir| {
            let bin = dir.join("bin");
            std::fs::create_dir(&bin).unwrap();
            for program in ["workhall", "test-worker"] {
                copy_program(&bin_dir().join(program), &bin.join(program));
            }
            std::fs::set_permissions(&bin, PermissionsExt::from_mode(0o755)).unwrap();
            chown(dir, Some(user), Some(user)).unwrap();
            let script = format!("shift; exec {}/workhall \"$@\"", bin.display());
            let command = format!(
                "prlimit --nproc=6:6 setpriv --reuid={user} --regid={user} --clear-groups --inh-caps=-all --bounding-set=-all sh -c"
            );
            let words = command.split(' ').map(str::to_string);
            words.chain([script, "sh".to_string()]).collect()
        },
    );
    let mut client = supervisor.client();
    let (tickets, living) = start_more_than_fit(&mut client);
    // The supervisor itself is a process and a thread.
    assert_eq!(living.len(), 4, "{living:?}");
    let failed = (0..NAMES).map(|n| format!("w/{n}")).find(|name| !living.contains(name)).unwrap();
    let reason = failure(&mut client, &failed).unwrap();
    assert!(reason.starts_with("cannot ") && reason.contains("os error 11"), "{reason}");
    assert!(reason.contains("TasksMax"), "{reason}");
    is_quiet(&supervisor);
    make_room_until_all_are_executed(&mut client, tickets);
    assert_eq!(report(client.status().unwrap())["ledger"]["dead"], json!(0));
    supervisor.no_overlap();
}
