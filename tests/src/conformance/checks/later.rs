//! What a later supervisor may say: messages and fields that are not known yet.

use serde_json::json;
use workhall_protocol::limits::HEADER_BYTES;
use workhall_protocol::wire::BINARY_VERSION;

use super::super::peer::{Peer, Under};
use super::super::{Check, Needs, Stage, same, welcome};
use super::requests::accepted;

pub const CHECKS: &[Check] = &[
    Check {
        name: "later: unknown fields are ignored (JSON)",
        methods: &["call"],
        needs: Needs::Json,
        run: json_fields,
    },
    Check {
        name: "later: fields in any order, spaces, empty lines",
        methods: &["echo"],
        needs: Needs::Json,
        run: json_forms,
    },
    Check { name: "later: escapes in any text (JSON)", methods: &["echo"], needs: Needs::Json, run: json_escapes },
    Check {
        name: "later: unknown messages are passed over (JSON)",
        methods: &["echo"],
        needs: Needs::Json,
        run: json_messages,
    },
    Check {
        name: "later: bytes after the last known field are ignored (binary)",
        methods: &["call"],
        needs: Needs::Binary,
        run: binary_fields,
    },
    Check {
        name: "later: unknown messages are passed over (binary)",
        methods: &["echo"],
        needs: Needs::Binary,
        run: binary_messages,
    },
    Check { name: "later: a kill with fields is a kill", methods: &[], needs: Needs::Nothing, run: kill_with_fields },
];

fn line(worker: &mut Peer, text: &str) -> Result<(), String> {
    worker.note("to the worker:  ", text);
    worker.write(format!("{text}\n").as_bytes())
}

/// A task that is written by hand: the referee is told of it apart.
fn awaited(worker: &mut Peer, method: &str) -> u64 {
    let task = worker.task(method, json!([]));
    worker.expects(&task);
    task["task"]["id"].as_u64().expect("the suite gives ids")
}

fn json_fields(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.start(&Under::Us)?;
    worker.ready()?;
    let more = r#""colour":"blue","nested":{"deep":[1,null,{"x":"é"}]},"id2":7"#;
    line(&mut worker, &format!(r#"{{"welcome":{{"protocol":1,{more},"worker":"w","number":2,"generation":1}}}}"#))?;
    let id = awaited(&mut worker, "call");
    line(
        &mut worker,
        &format!(
            r#"{{"task":{{{more},"id":{id},"method":"call","args":["w","m",[]],"from":{{"worker":"x","number":3,"host":"h"}},"wait":true,"tried":[1]}}}}"#
        ),
    )?;
    let call = worker.heard_kind("call")?;
    let reference = call.field("ref").clone();
    line(
        &mut worker,
        &format!(
            r#"{{"receipt":{{{more},"accepted":{{"worker":"w","number":2,"message":5,"place":[3]}},"ref":{reference}}}}}"#
        ),
    )?;
    same("the receipt", worker.heard_kind("done")?.field("result"), &json!("accepted"))
}

fn json_forms(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    for form in [
        r#"{"task":{"args":[1],"wait":true,"from":null,"method":"echo","id":ID}}"#,
        r#" { "task" : { "id" : ID , "method" : "echo" , "args" : [ 1 ] , "from" : null , "wait" : true } } "#,
        "\n\n{\"task\":{\"id\":ID,\"method\":\"echo\",\"args\":[1],\"from\":null,\"wait\":true}}\n\n",
        "\t{\"task\":{\"id\":ID,\"method\":\"echo\",\"args\":[1],\"from\":null,\"wait\":true}}\r",
        r#"{"task":{"id":ID,"method":"echo","args":[1],"wait":true}}"#,
    ] {
        let id = awaited(&mut worker, "echo");
        line(&mut worker, &form.replace("ID", &id.to_string()))?;
        same("the result", worker.heard_kind("done")?.field("result"), &json!(1))?;
    }
    Ok(())
}

fn json_escapes(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    for (written, meant) in [
        (r#""\u0041\u00e9\ud83d\ude00""#, "Aé\u{1f600}"),
        (r#""a\/b\u0000\u001f""#, "a/b\u{0}\u{1f}"),
        (r#""\\u0041""#, "\\u0041"),
    ] {
        let id = awaited(&mut worker, "echo");
        line(
            &mut worker,
            &format!(
                r#"{{"\u0074ask":{{"id":{id},"m\u0065thod":"\u0065cho","args":[{written}],"from":null,"wait":true}}}}"#
            ),
        )?;
        same("the result", worker.heard_kind("done")?.field("result"), &json!(meant))?;
    }
    Ok(())
}

fn json_messages(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    for unknown in [
        r#"{"sing":{}}"#,
        r#"{"sing":{"loud":true,"id":5,"ref":1}}"#,
        r#"{"task2":{"id":1,"method":"crash","args":[]}}"#,
        r#"{"sing":null}"#,
        r#"{"sing":[1,2]}"#,
    ] {
        line(&mut worker, unknown)?;
        same("the result of a task behind it", &worker.result("echo", json!([1]))?, &json!(1))?;
    }
    Ok(())
}

/// The same frame with a longer body.
fn longer(mut frame: Vec<u8>) -> Vec<u8> {
    frame.extend_from_slice(&[0xff, 0, 1, 2, 0xfd, 0xb1, 0x42]);
    let length = (frame.len() - HEADER_BYTES) as u32;
    frame[4..HEADER_BYTES].copy_from_slice(&length.to_le_bytes());
    frame
}

fn binary_fields(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.start(&Under::Us)?;
    worker.ready()?;
    let bytes = longer(worker.bytes(&welcome()));
    worker.write(&bytes)?;
    let task = worker.task("call", json!(["w", "m", []]));
    worker.expects(&task);
    let bytes = longer(worker.bytes(&task));
    worker.write(&bytes)?;
    let call = worker.heard_kind("call")?;
    let mut receipt = accepted("w");
    receipt["ref"] = call.field("ref").clone();
    let bytes = longer(worker.bytes(&json!({ "receipt": receipt })));
    worker.write(&bytes)?;
    same("the receipt", worker.heard_kind("done")?.field("result"), &json!("accepted"))
}

fn binary_messages(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    for (kind, body) in
        [(99_u8, &b""[..]), (200, b"\x01\x02\x03"), (0, b"x"), (255, &[0xff; 300]), (64, b"\xb1\x42\0\0")]
    {
        worker.note("to the worker:  ", &format!("(a frame of kind {kind}, {} bytes)", body.len()));
        let mut frame = vec![BINARY_VERSION, kind, 0, 0];
        frame.extend_from_slice(&(body.len() as u32).to_le_bytes());
        frame.extend_from_slice(body);
        worker.write(&frame)?;
        same("the result of a task behind it", &worker.result("echo", json!([1]))?, &json!(1))?;
    }
    Ok(())
}

fn kill_with_fields(stage: &Stage) -> Result<(), String> {
    let mut worker = stage.worker()?;
    let kill = json!({"kill": {}});
    if stage.profile.encoding == super::super::JSON {
        line(&mut worker, r#"{"kill":{"why":"so","within_ms":5}}"#)?;
    } else {
        let bytes = longer(worker.bytes(&kill));
        worker.write(&bytes)?;
    }
    worker.ends_well()
}
