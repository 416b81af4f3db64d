//! A supervisor that speaks rubbish: the worker ends with an error, or goes on; it neither hangs nor is killed by it.

use serde_json::json;
use workhall_protocol::limits::FRAME_BYTES_MAX;
use workhall_protocol::wire::BINARY_VERSION;

use super::super::peer::{End, Peer};
use super::super::{Check, Needs, Stage, same};

pub const CHECKS: &[Check] = &[
    Check {
        name: "hostile: a line that is no JSON ends it with an error",
        methods: &[],
        needs: Needs::Json,
        run: no_json,
    },
    Check { name: "hostile: a line without end ends it with an error", methods: &[], needs: Needs::Json, run: endless },
    Check { name: "hostile: lines that are no messages", methods: &["echo"], needs: Needs::Json, run: odd_lines },
    Check { name: "hostile: a wrong header ends it with an error", methods: &[], needs: Needs::Binary, run: headers },
    Check {
        name: "hostile: a frame that is too long ends it with an error",
        methods: &[],
        needs: Needs::Binary,
        run: too_long,
    },
    Check { name: "hostile: bodies that end early or lie", methods: &["echo"], needs: Needs::Binary, run: odd_bodies },
    Check {
        name: "hostile: arguments that are no MessagePack",
        methods: &["echo"],
        needs: Needs::Binary,
        run: odd_args,
    },
    Check { name: "hostile: every byte of a task changed", methods: &["echo"], needs: Needs::Binary, run: changed },
];

/// It must end with a status that is not 0, and not by a signal.
fn ends_with_an_error(worker: &mut Peer, what: &str) -> Result<(), String> {
    match worker.ended().map_err(|error| format!("{what}: {error}"))? {
        (End::Code(1..), said) if said.is_empty() => Ok(()),
        (End::Code(0), _) => Err(format!("{what}: it ended with status 0, as if nothing were wrong")),
        (End::Signal(signal), _) => Err(format!("{what}: {signal} has ended it")),
        (_, said) => Err(format!("{what}: it took it for a message and said {}", super::super::peer::all(&said))),
    }
}

/// It must end with an error, or answer the next task, and must not take it for a task that can be done.
fn is_survived(stage: &Stage, what: &str, bytes: &[u8], id: u64) -> Result<(), String> {
    let mut worker = stage.worker()?;
    // It may settle the task as failed, if it could read the id.
    worker.expects(&json!({"task": {"id": id, "method": "echo", "args": [], "from": null, "wait": true}}));
    worker.note("to the worker:  ", &format!("({what})"));
    worker.write(bytes)?;
    let next = json!({"task": {"id": id + 1, "method": "echo", "args": ["next"], "from": null, "wait": true}});
    let next_bytes = worker.bytes(&next);
    worker.write(&next_bytes)?;
    let mut raw = worker;
    loop {
        match raw.hear_unrefereed().map_err(|error| format!("{what}: {error}"))? {
            None => break,
            Some(said) if said.kind == "failed" && *said.field("id") == json!(id) => {}
            Some(said) if said.kind == "done" && *said.field("id") == json!(id + 1) => {
                return same("the result of the task behind it", said.field("result"), &json!("next"));
            }
            Some(said) => return Err(format!("{what}: it said `{}`: {}", said.kind, said.fields)),
        }
    }
    ends_with_an_error(&mut raw, what)
}

fn no_json(stage: &Stage) -> Result<(), String> {
    for garbage in
        [&b"this is no JSON\n"[..], b"\xff\xfe\x00\n", b"{\"task\":\n", b"\xb1\x42\x00\x00\x01\x00\x00\x00\x00\n"]
    {
        let mut worker = stage.worker()?;
        worker.write(garbage)?;
        ends_with_an_error(&mut worker, &String::from_utf8_lossy(garbage))?;
    }
    Ok(())
}

fn endless(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    let piece = [b'x'; 1 << 16];
    worker.write(b"{\"task\":{\"method\":\"")?;
    for _ in 0..=(FRAME_BYTES_MAX / piece.len()) {
        worker.write(&piece)?;
    }
    ends_with_an_error(&mut worker, "a line of more than 16 MiB")
}

fn odd_lines(stage: &Stage) -> Result<(), String> {
    for line in [
        "[]",
        "5",
        "\"task\"",
        "null",
        "{}",
        r#"{"task":{}}"#,
        r#"{"task":[7,"echo",[1],null]}"#,
        r#"{"task":{"id":7,"method":"echo","args":5,"from":null,"wait":true}}"#,
        r#"{"task":{"id":7,"method":"echo","args":{"0":1},"from":null,"wait":true}}"#,
        r#"{"task":{"id":7,"method":5,"args":[1],"from":null,"wait":true}}"#,
        r#"{"task":{"id":7,"args":[1],"from":null,"wait":true}}"#,
        r#"{"task":{"id":"7","method":"echo","args":[1],"from":null,"wait":true}}"#,
        r#"{"receipt":{}}"#,
        r#"{"receipt":5}"#,
    ] {
        is_survived(stage, line, format!("{line}\n").as_bytes(), 7)?;
    }
    let deep = format!("{{\"sing\":{}{}}}", "[".repeat(200_000), "]".repeat(200_000));
    is_survived(stage, "200,000 levels", format!("{deep}\n").as_bytes(), 7)
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![BINARY_VERSION, kind, 0, 0];
    frame.extend_from_slice(&(body.len() as u32).to_le_bytes());
    frame.extend_from_slice(body);
    frame
}

fn headers(stage: &Stage) -> Result<(), String> {
    for header in
        [*b"\xb2\x42\0\0\0\0\0\0", *b"{\"task\":", *b"\xb1\x42\x01\0\0\0\0\0", *b"\xb1\x42\0\x01\0\0\0\0", [0; 8]]
    {
        let mut worker = stage.worker()?;
        worker.write(&header)?;
        ends_with_an_error(&mut worker, &format!("the header {header:02x?}"))?;
    }
    Ok(())
}

fn too_long(stage: &Stage) -> Result<(), String> {
    for length in [FRAME_BYTES_MAX as u32 + 1, u32::MAX] {
        let mut worker = stage.worker()?;
        let mut header = vec![BINARY_VERSION, 66, 0, 0];
        header.extend_from_slice(&length.to_le_bytes());
        worker.write(&header)?;
        ends_with_an_error(&mut worker, &format!("a frame of {length} bytes"))?;
    }
    Ok(())
}

const TASK: u8 = 66;

fn odd_bodies(stage: &Stage) -> Result<(), String> {
    // The task of the page, {"id":7,"method":"echo","args":["x"],"from":{"worker":"x","number":3},"wait":true}.
    let whole = b"\x07\x04echo\x03\x91\xa1x\x01\x01x\x03\x01";
    for cut in 0..whole.len() {
        is_survived(stage, &format!("a task cut after {cut} bytes"), &frame(TASK, &whole[..cut]), 7)?;
    }
    let lies: &[(&str, &[u8])] = &[
        ("a method of 2^64-1 bytes", b"\x07\xfd\xff\xff\xff\xff\xff\xff\xff\xffecho\x02\x91\x01\0\x01"),
        ("a method of 2^63 bytes", b"\x07\xfd\0\0\0\0\0\0\0\x80echo\x02\x91\x01\0\x01"),
        ("arguments of 2^32-1 bytes", b"\x07\x04echo\xfc\xff\xff\xff\xff\x91\x01\0\x01"),
        ("an integer that begins with fe", b"\xfe\x04echo\x02\x91\x01\0\x01"),
        ("an integer that begins with ff", b"\xff\x04echo\x02\x91\x01\0\x01"),
        ("a method that is no UTF-8", b"\x07\x04\xff\xfe\xc0\x80\x02\x91\x01\0\x01"),
        ("a sender that is neither there nor not", b"\x07\x04echo\x02\x91\x01\x02\x01x\x03\x01"),
        ("a wait that is neither true nor false", b"\x07\x04echo\x02\x91\x01\0\x07"),
    ];
    for (what, body) in lies {
        is_survived(stage, what, &frame(TASK, body), 7)?;
    }
    for (what, kind, body) in [
        ("an empty welcome", 65, &b""[..]),
        ("an empty receipt", 68, b""),
        ("a receipt of an unknown body", 68, b"\0\x01\xfa"),
        ("a receipt of a ref that is neither", 68, b"\x02\x01\x01\0"),
        ("an ignored for an unknown reason", 68, b"\0\x01\x01\xfa"),
        ("an outcome cut short", 69, b"\0\x01\0\x7f"),
        ("an error cut short", 70, b"\x01"),
        ("a cancelled cut short", 72, b"\xfd\x01"),
    ] {
        is_survived(stage, what, &frame(kind, body), 7)?;
    }
    Ok(())
}

fn odd_args(stage: &Stage) -> Result<(), String> {
    let of = |args: &[u8]| {
        let mut body = b"\x07\x04echo".to_vec();
        match args.len() {
            short @ ..=250 => body.push(short as u8),
            long => {
                body.push(0xfc);
                body.extend_from_slice(&(long as u32).to_le_bytes());
            }
        }
        body.extend_from_slice(args);
        body.extend_from_slice(b"\0\x01");
        frame(TASK, &body)
    };
    let deep = vec![0x91; 100_000];
    let deep_map = [0x91].into_iter().chain([0x81, 0xa0].repeat(100_000)).collect::<Vec<u8>>();
    let all: &[(&str, &[u8])] = &[
        ("nothing", b""),
        ("a number instead of a list", b"\x05"),
        ("a map instead of a list", b"\x81\xa1k\x01"),
        ("a list that ends early", b"\x92\x01"),
        ("a list of 2^32-1", b"\xdd\xff\xff\xff\xff\x01"),
        ("a map of 2^32-1", b"\x91\xdf\xff\xff\xff\xff\x01"),
        ("a text of 2^32-1 bytes", b"\x91\xdb\xff\xff\xff\xffabc"),
        ("bytes of 2^32-1", b"\x91\xc6\xff\xff\xff\xffabc"),
        ("a text that ends early", b"\x91\xa5abc"),
        ("a text that is no UTF-8", b"\x91\xa2\xff\xfe"),
        ("a number that ends early", b"\x91\xcf\x01\x02"),
        ("a double that ends early", b"\x91\xcb\x01"),
        ("the byte that MessagePack never uses", b"\x91\xc1"),
        ("an extension", b"\x91\xd4\x05\x01"),
        ("an extension that ends early", b"\x91\xc9\xff\xff\xff\xff\x01"),
        ("bytes behind the list", b"\x91\x01\x02"),
        ("100,000 levels", &deep),
        ("100,000 levels of maps", &deep_map),
    ];
    for (what, args) in all {
        // What echo returns faithfully it may return: text that is no UTF-8, an extension, a map with a strange key.
        is_survived_or_echoed(stage, &format!("arguments: {what}"), &of(args))?;
    }
    Ok(())
}

/// As [`is_survived`], but it may settle the task itself as done, too.
fn is_survived_or_echoed(stage: &Stage, what: &str, bytes: &[u8]) -> Result<(), String> {
    let mut worker = stage.worker()?;
    worker.expects(&json!({"task": {"id": 7, "method": "echo", "args": [], "from": null, "wait": true}}));
    worker.note("to the worker:  ", &format!("({what})"));
    worker.write(bytes)?;
    let next = json!({"task": {"id": 1_000_000, "method": "echo", "args": ["next"], "from": null, "wait": true}});
    let next_bytes = worker.bytes(&next);
    worker.write(&next_bytes)?;
    loop {
        match worker.hear_unrefereed() {
            Ok(None) => return ends_with_an_error(&mut worker, what),
            Ok(Some(said)) if said.kind == "done" && *said.field("id") == json!(1_000_000) => {
                return same("the result of the task behind it", said.field("result"), &json!("next"));
            }
            // Another id, another result: as it was changed, so it was answered.
            Ok(Some(_)) => {}
            Err(error) => return Err(format!("{what}: {error}")),
        }
    }
}

fn changed(stage: &Stage) -> Result<(), String> {
    let whole = b"\x07\x04echo\x0e\x91\x94\xa1x\xc4\x01\x01\x81\xa1k\xc3\xcd\x01\x02\x01\x01x\x03\x01";
    for at in 0..whole.len() {
        // A borderline of the integers, of MessagePack's types, and one bit.
        for byte in [0xff, 0xc1, whole[at] ^ 0x80] {
            let mut body = whole.to_vec();
            body[at] = byte;
            is_survived_or_echoed(stage, &format!("byte {at} of a task is {byte:02x}"), &frame(TASK, &body))?;
        }
    }
    Ok(())
}
