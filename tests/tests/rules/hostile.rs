//! Hostile clients: each does its worst, the supervisor's memory stays under a stated bound, and an innocent
//! client of the same user has its calls executed meanwhile. The bounds are of memory, never of time.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;

use workhall_protocol::args::Payload;
use workhall_protocol::client::ClientError;
use workhall_protocol::messages::{
    Call, FromSupervisor, Kill, List, Message as _, OutcomeBody, ReceiptBody, Ref, Reply, Request, Until,
};
use workhall_protocol::wire::{Decoder, Encoding, encode};
use workhall_tests::harness::{ANY_NAME, Supervisor, payload};

/// What a supervisor takes without any load, in a build for tests, and what its allocator leaves free between.
const AT_REST: u64 = 32 << 20;

/// The least that the configuration takes: 32 MiB of unread answers, 32 MiB of unfinished messages.
fn supervisor() -> Supervisor {
    Supervisor::with_config(&format!("{ANY_NAME}[supervisor]\nunread_bytes = '32MiB'\nunfinished_bytes = '32MiB'"))
}

#[track_caller]
fn memory_stayed_under(supervisor: &Supervisor, bytes: u64) {
    let peak = supervisor.peak_memory();
    assert!(peak < AT_REST + bytes, "{} MiB, {} were allowed", peak >> 20, (AT_REST + bytes) >> 20);
}

/// Another client's calls are executed, one after the other.
#[track_caller]
fn others_are_served(supervisor: &Supervisor, worker: &str) {
    let mut client = supervisor.client();
    let mut counted = Vec::new();
    for _ in 0..20 {
        let (_, outcome) = client.call_and_wait(Call::new(worker, "count", Payload::no_args())).unwrap();
        let Some(OutcomeBody::Done { result }) = outcome else { panic!("{outcome:?}") };
        counted.push(result.to_json().unwrap().as_u64().unwrap());
    }
    assert!(counted.iter().copied().eq(counted[0]..counted[0] + 20), "{counted:?}");
}

fn frame(request: &Request<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(request, Encoding::Binary, &mut bytes).unwrap();
    bytes
}

/// Writes on without reading, until the supervisor takes no more although it has served others meanwhile.
fn write_until_it_is_full(supervisor: &Supervisor, stream: &mut UnixStream, mut bytes: &[u8]) -> usize {
    let whole = bytes.len();
    stream.set_nonblocking(true).unwrap();
    let mut in_vain = 0;
    while !bytes.is_empty() && in_vain < 5 {
        match stream.write(bytes) {
            Ok(count) => {
                bytes = &bytes[count..];
                in_vain = 0;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                others_are_served(supervisor, "a");
                in_vain += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    stream.set_nonblocking(false).unwrap();
    whole - bytes.len()
}

/// Reads so many messages.
fn hear(stream: &mut UnixStream, count: usize) -> Vec<u64> {
    let mut decoder = Decoder::default();
    let mut heard = Vec::new();
    while heard.len() < count {
        match decoder.next::<FromSupervisor>().unwrap() {
            Some(Reply::Receipt(receipt)) => match receipt.reference {
                Ref::Number(number) => heard.push(number),
                Ref::Text(_) => unreachable!("all are numbers"),
            },
            Some(other) => panic!("message kind {}", other.kind()),
            None => {
                let read = match decoder.fill(64 << 10, |room| stream.read(room)) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    read => read.unwrap(),
                };
                assert!(read > 0, "it has ended after {} of {count}", heard.len());
            }
        }
    }
    heard
}

#[test]
fn one_that_posts_without_reading_is_not_heard_until_it_reads_and_loses_nothing() {
    const CALLS: u64 = 400_000;
    let supervisor = supervisor();
    let mut stream = supervisor.raw();
    // To a number that nobody has, by text that comes back: tens of megabytes of receipts.
    let mut all = Vec::new();
    for number in 0..CALLS {
        let call =
            Call { reference: Some(Ref::Number((1 << 61) + number)), ..Call::new(4711, "m", Payload::no_args()) };
        encode(&Request::Call(call), Encoding::Binary, &mut all).unwrap();
    }
    let mut reader = stream.try_clone().unwrap();
    let written = write_until_it_is_full(&supervisor, &mut stream, &all);
    memory_stayed_under(&supervisor, 32 << 20);
    // It changes its mind: every receipt is there, in the order of the calls.
    std::thread::scope(|scope| {
        scope.spawn(|| stream.write_all(&all[written..]).unwrap());
        let heard = hear(&mut reader, CALLS as usize);
        assert!(heard.iter().copied().eq((0..CALLS).map(|number| (1 << 61) + number)));
    });
    memory_stayed_under(&supervisor, 32 << 20);
}

#[test]
fn one_that_asks_for_lists_without_reading_them_fills_no_memory() {
    const LISTS: usize = 100_000;
    let supervisor = supervisor();
    let mut client = supervisor.client();
    // An answer has ten kilobytes: a gigabyte for all.
    for number in 0..20 {
        client.call(Call::new(&*format!("w/{number:0>200}"), "count", Payload::no_args())).unwrap();
    }
    let mut stream = supervisor.raw();
    let lists = frame(&Request::List(List { reference: Ref::Number(5), after: None, limit: None })).repeat(LISTS);
    let written = write_until_it_is_full(&supervisor, &mut stream, &lists);
    assert!(written < lists.len(), "it was not heard to the end");
    // A slow reader gets what it has asked for.
    assert_eq!(hear(&mut stream, 100), [5; 100]);
    // Ten more of its kind have more unread together than a user may: those with the most are cut.
    let mut others: Vec<UnixStream> = (0..10).map(|_| supervisor.raw()).collect();
    for stream in &mut others {
        stream.set_nonblocking(true).unwrap();
        let _some = stream.write(&lists).unwrap();
    }
    others_are_served(&supervisor, "b");
    memory_stayed_under(&supervisor, 132 << 20);
    assert_eq!(supervisor.status()["ledger"]["pending"], 0);
}

#[test]
fn a_thousand_connections_that_say_a_little_take_little() {
    let supervisor = supervisor();
    let status = b"{\"status\":{\"ref\":1}}\n{\"status\"";
    let mut all: Vec<UnixStream> = (0..1000).map(|_| supervisor.raw()).collect();
    for stream in &mut all {
        stream.write_all(status).unwrap();
    }
    for stream in &mut all {
        let mut first = [0; 1];
        stream.read_exact(&mut first).unwrap();
    }
    others_are_served(&supervisor, "a");
    assert!(supervisor.status()["counts"]["clients"].as_u64().unwrap() > 1000);
    // 64 KiB each, had their buffers stayed.
    memory_stayed_under(&supervisor, 32 << 20);
}

#[test]
fn hundreds_that_send_half_a_frame_and_wait_share_what_one_user_may_have() {
    const HALF: usize = 15 << 20;
    let supervisor = supervisor();
    let mut begun: Vec<(UnixStream, usize)> = (0..300).map(|_| (supervisor.raw(), 0)).collect();
    let header = [0xb1, 4, 0, 0, 0, 0, 0, 1]; // a call of 16 MiB
    let zeros = vec![0; 1 << 20];
    for (stream, _) in &mut begun {
        stream.write_all(&header).unwrap();
        stream.set_nonblocking(true).unwrap();
    }
    let mut in_vain = 0;
    while in_vain < 5 {
        let mut written = 0;
        for (stream, sent) in &mut begun {
            match stream.write(&zeros[..zeros.len().min(HALF - *sent)]) {
                Ok(count) => {
                    *sent += count;
                    written += count;
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        if written == 0 {
            // Small messages of the same user come through.
            others_are_served(&supervisor, "a");
        }
        in_vain = if written == 0 { in_vain + 1 } else { 0 };
    }
    let sent: usize = begun.iter().map(|(_, sent)| sent).sum();
    assert!(sent > 40 << 20, "the bound was reached: {sent}");
    // The bound, one more message, and what the vectors of two of them had copied while they grew.
    memory_stayed_under(&supervisor, (32 + 16 + 32) << 20);
    // They leave: large messages come through again.
    drop(begun);
    large_messages_come_through(&supervisor);
}

/// Many at a time, far more than may be unfinished: each waits for its turn, and none is lost.
fn large_messages_come_through(supervisor: &Supervisor) {
    std::thread::scope(|scope| {
        for number in 0..24 {
            scope.spawn(move || {
                let text = "x".repeat(3 << 20);
                let args = payload(&(text,));
                let worker = format!("large/{}", number % 2);
                let mut client = supervisor.client();
                let receipt = client.call(Call::new(&*worker, "echo", args)).unwrap();
                let full = matches!(&receipt, ReceiptBody::Refused { detail, .. } if detail.contains("mailbox"));
                assert!(matches!(receipt, ReceiptBody::Accepted(_)) || full, "{receipt:?}");
            });
        }
    });
}

#[test]
fn large_messages_of_many_clients_at_once_all_come_through() {
    large_messages_come_through(&supervisor());
}

#[test]
fn a_frame_without_end_and_json_that_nests_deeply_end_where_they_must() {
    let supervisor = supervisor();
    let call =
        |args: &str| format!("{{\"call\":{{\"worker\":\"a\",\"method\":\"echo\",\"args\":{args},\"ref\":1}}}}\n");
    let deep = [("[", "]"), ("{\"a\":", "}")]
        .map(|(open, close)| call(&format!("[{}1{}]", open.repeat(1 << 20), close.repeat(1 << 20))));
    for text in deep.iter().chain([&"[".repeat(8 << 20)]) {
        let mut stream = supervisor.raw();
        let _cut = stream.write_all(text.as_bytes()).and_then(|()| stream.write_all(b"\n"));
        let mut first = [0; 8];
        stream.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"{\"error\"", "{}", String::from_utf8_lossy(&first));
    }
    for _ in 0..10 {
        let mut stream = supervisor.raw();
        let endless = vec![b'{'; 40 << 20];
        assert!(stream.write_all(&endless).is_err(), "it is cut");
        let mut rest = Vec::new();
        let _reset = stream.read_to_end(&mut rest);
        assert!(rest.len() < 1000);
    }
    others_are_served(&supervisor, "b");
    memory_stayed_under(&supervisor, 48 << 20);
    assert!(supervisor.ps("a").is_null());
}

#[test]
fn one_that_waits_for_results_and_reads_none_loses_its_connection_only() {
    let mut supervisor = supervisor();
    let mut greedy = supervisor.client();
    let mut beside = supervisor.client();
    for _ in 0..20 {
        let args = payload(&(4_000_000,));
        greedy.submit(Call { wait: true, ..Call::new("big", "big", args) }).unwrap();
    }
    greedy.flush().unwrap();
    supervisor.until("all are executed", |this| this.ledger("done") == 20);
    supervisor.until("it is cut", |this| this.log().contains("a connection of user"));
    assert!(matches!(beside.status(), Ok(ReceiptBody::Report(_))));
    let mut error = None;
    while error.is_none() {
        error = greedy.status().err();
    }
    assert!(matches!(error, Some(ClientError::Io(_))), "{error:?}");
    others_are_served(&supervisor, "a");
    memory_stayed_under(&supervisor, 96 << 20);
}

#[test]
fn results_larger_than_all_that_may_be_unread_reach_one_that_reads_them() {
    let supervisor = supervisor();
    let mut client = supervisor.client();
    // 80 MB in all, of which never more than a few wait.
    for _ in 0..20 {
        let args = payload(&(4_000_000,));
        let (_, outcome) = client.call_and_wait(Call::new("big", "big", args)).unwrap();
        let Some(OutcomeBody::Done { result }) = outcome else { panic!("{outcome:?}") };
        assert_eq!(result.to_json().unwrap().as_str().unwrap().len(), 4_000_000);
    }
}

#[test]
fn the_waits_of_a_connection_are_bounded_and_refused_beyond() {
    let mut supervisor = supervisor();
    let held = supervisor.hold("a");
    let mut client = supervisor.client();
    let mut waits = Vec::new();
    for _ in 0..1024 {
        let ticket = client.wait("a".into(), Until::Idle).unwrap();
        assert_eq!(client.receipt(ticket).unwrap(), ReceiptBody::Waiting {});
        waits.push(ticket);
    }
    let ticket = client.wait("a".into(), Until::Idle).unwrap();
    let ReceiptBody::Refused { detail, .. } = client.receipt(ticket).unwrap() else { panic!() };
    assert!(detail.contains("1024 waits are pending on this connection"), "{detail}");
    others_are_served(&supervisor, "b");
    held.release();
    for ticket in waits {
        assert_eq!(client.outcome(ticket).unwrap(), OutcomeBody::Reached {});
    }
    let ticket = client.wait("a".into(), Until::Idle).unwrap();
    assert_eq!(client.outcome(ticket).unwrap(), OutcomeBody::Reached {}, "there is room again");
}

#[test]
fn k12_who_kills_and_leaves_is_forgotten() {
    let mut supervisor = supervisor();
    let held = supervisor.hold("a");
    let kill = frame(&Request::Kill(Kill {
        worker: Some("a".into()),
        reference: Some(Ref::Number(1)),
        wait: true,
        ..Kill::default()
    }));
    // A thousand at a time, three hundred times: 300,000 who would be kept until the worker ends.
    for _ in 0..300 {
        let mut stream = supervisor.raw();
        stream.write_all(&kill.repeat(1000)).unwrap();
        hear(&mut stream, 1000);
    }
    memory_stayed_under(&supervisor, 16 << 20);
    let mut kills = supervisor.client();
    let ticket = kills.kill(Kill { worker: Some("a".into()), wait: true, ..Kill::default() }).unwrap();
    assert!(matches!(kills.receipt(ticket), Ok(ReceiptBody::Killed { .. })));
    held.release();
    assert!(matches!(kills.outcome(ticket), Ok(OutcomeBody::Killed(_))));
}

/// However small the values of a line are, and however many: a tree of them would take thirty times its size.
#[test]
fn c09_a_line_of_small_values_takes_no_more_memory_than_a_few_of_its_size() {
    const LINE_BYTES: usize = 8 << 20;
    let supervisor = Supervisor::with_config(&format!("supervisor.message_bytes = 16773120\n{ANY_NAME}"));
    let before = supervisor.peak_memory();
    let mut raw = BufReader::new(supervisor.raw());
    for (what, open, value, close) in [
        ("numbers", "[", (|_| "0".to_string()) as fn(usize) -> String, "]"),
        ("objects", "[", |_| "{\"\":0}".to_string(), "]"),
        ("keys", "[{", |number| format!("\"{number}\":0"), "}]"),
        ("the same keys", "[{", |_| "\"\":0".to_string(), "}]"),
    ] {
        let mut line = format!("{{\"call\":{{\"ref\":\"{what}\",\"worker\":\"a\",\"method\":\"none\",\"args\":{open}");
        for number in 0.. {
            let value = value(number);
            if line.len() + value.len() + close.len() + 3 > LINE_BYTES {
                break;
            }
            line += if number == 0 { "" } else { "," };
            line += &value;
        }
        line += close;
        line += "}}\n";
        raw.get_mut().write_all(line.as_bytes()).unwrap();
        let mut answer = String::new();
        raw.read_line(&mut answer).unwrap();
        assert!(answer.contains(what), "{answer}");
        let grown = supervisor.peak_memory() - before;
        assert!(grown < 8 * LINE_BYTES as u64, "{what}: the supervisor has grown by {} MiB", grown >> 20);
    }
}

/// The other way: a frame of small values towards a peer that speaks JSON.
#[test]
fn c09_a_result_of_small_values_takes_no_more_memory_than_a_few_of_its_size() {
    const VALUES: usize = 3 << 20;
    let mut supervisor = Supervisor::with_config(ANY_NAME);
    let mut raw = BufReader::new(supervisor.raw());
    let before = supervisor.peak_memory();
    let line = format!(r#"{{"call":{{"ref":1,"wait":true,"worker":"a","method":"zeros","args":[{VALUES}]}}}}"#);
    raw.get_mut().write_all(format!("{line}\n").as_bytes()).unwrap();
    let mut answer = String::new();
    raw.read_line(&mut answer).unwrap();
    answer.clear();
    raw.read_line(&mut answer).unwrap();
    assert!(answer.contains("[0,0,0,") && answer.len() > 2 * VALUES, "{}", answer.len());
    let grown = supervisor.peak_memory() - before;
    assert!(grown < 16 * VALUES as u64, "the supervisor has grown by {} MiB", grown >> 20);
    supervisor.until("it is settled", |this| this.ledger("done") == 1);
}
