//! Signals between the languages: who makes one, who triggers it and who reads its values are each another library.

use std::process::Command;

use serde_json::{Value, json};
use workhall_tests::harness::{Supervisor, output, workspace};

use super::examples::is_there;

/// Values of every type, as JSON has them.
fn values() -> Value {
    json!({
        "number": 2.5,
        "whole": u64::MAX,
        "least": i64::MIN,
        "text": "é😀\n\"\\ $(x) -n",
        "empty": "",
        "bytes": {"$bytes": "AP+A"},
        "nested": [1, [null, true, {"in it": {"$bytes": ""}, "list": []}]],
        "none": null,
    })
}

/// The same as they are written in Python and in Node.js.
const IN_PYTHON: &str = r#"{"number": 2.5, "whole": 2**64 - 1, "least": -2**63, "text": "é😀\n\"\\ $(x) -n", "empty": "", "bytes": b"\x00\xff\x80",
    "nested": [1, [None, True, {"in it": b"", "list": []}]], "none": None}"#;
const IN_NODE: &str = r#"{ number: 2.5, whole: 2n ** 64n - 1n, least: -(2n ** 63n), text: 'é😀\n"\\ $(x) -n', empty: '', bytes: Buffer.from([0, 255, 128]),
    nested: [1, [null, true, { 'in it': Buffer.alloc(0), list: [] }]], none: null }"#;

/// A worker in each language, `python`, `node` and `bash`, whose `trigger` triggers a signal with values. None where one of the three is not
/// there.
fn with_three() -> Option<Supervisor> {
    if ![is_there("python3"), is_there("node"), is_there("bash")].iter().all(|there| *there) {
        return None;
    }
    let library = |file: &str| workspace().join("worker-host").join(file);
    const PYTHON: &str = "from workhall import worker
@worker.method
def trigger(signal, values):
    return signal.trigger(values)
worker.run()";
    Some(Supervisor::with_config(&format!(
        "[class.python]\nexec = [\"/usr/bin/env\", \"python3\", \"-c\", {PYTHON:?}]\nenvironment = {{ PYTHONPATH = {:?} }}\n\
         [class.node]\nexec = [{:?}]\n[class.bash]\nexec = [{:?}]\n",
        library("python/src"),
        library("node/test/workers/probe.js"),
        library("bash/test/probe")
    )))
}

/// Runs a caller, which compares for itself.
#[track_caller]
fn says_same(supervisor: &Supervisor, command: &mut Command) {
    let path = workspace().join("worker-host/python/src");
    command
        .env("WORKHALL_SOCKET", supervisor.socket())
        .env("PYTHONPATH", path)
        .current_dir(workspace().join("worker-host/node"));
    assert_eq!(output(command).ok().out, "same\n");
}

#[test]
fn s01_a_signal_goes_from_python_to_node_and_its_values_come_back_as_they_were() {
    let Some(supervisor) = with_three() else { return };
    for worker in ["node", "bash", "python"] {
        let program = format!(
            "import workhall
values = {IN_PYTHON}
with workhall.Client() as client:
    signal = client.signal('from Python')
    assert client.call_and_wait('{worker}', 'trigger', signal, values, timeout=60) is True
    assert signal.wait(60) and signal.values == values, signal.values
    assert client.call_and_wait('{worker}', 'trigger', signal, values, timeout=60) is False
    print('same')"
        );
        says_same(&supervisor, Command::new("python3").args(["-c", &program]));
    }
}

#[test]
fn s01_a_signal_goes_from_node_to_bash_and_its_values_come_back_as_they_were() {
    let Some(supervisor) = with_three() else { return };
    for worker in ["bash", "python", "node"] {
        let program = format!(
            "import assert from 'node:assert/strict';
import {{ connect }} from './src/index.js';
const values = {IN_NODE};
const client = await connect();
const signal = await client.newSignal({{ description: 'from Node.js' }});
const waiting = signal.wait(60);
assert.equal(await client.callAndWait('{worker}', 'trigger', [signal, values], {{ timeout: 60 }}), true);
assert.equal(await waiting, true);
assert.deepEqual(signal.values, values);
assert.equal(await client.callAndWait('{worker}', 'trigger', [signal, values], {{ timeout: 60 }}), false);
await client.close();
console.log('same');"
        );
        says_same(&supervisor, Command::new("node").args(["--input-type=module", "-e", &program]));
    }
}

#[test]
fn s01_a_signal_goes_from_bash_and_from_a_shell_to_python_and_its_values_come_back_as_they_were() {
    let Some(supervisor) = with_three() else { return };
    let values = values();
    for worker in ["python", "node"] {
        let args = json!([worker, values]).to_string();
        assert_eq!(supervisor.call(&["bash", "make_and_send", "--args", &args]), values, "{worker}");
    }
    for worker in ["python", "node", "bash"] {
        let id = supervisor.cli(&["signal", "new", "--keep", "1h"]).ok().out.trim().to_string();
        let waiting = supervisor.start_cli(&["signal", "wait", &id]);
        let args = json!([{"$signal": id}, values]).to_string();
        assert_eq!(supervisor.call(&[worker, "trigger", "--args", &args]), true, "{worker}");
        assert_eq!(waiting.end().ok().json(), values, "{worker}");
    }
    // And set by the shell, read by a worker.
    let id = supervisor.cli(&["signal", "new", "--keep", "1h"]).ok().out.trim().to_string();
    for (key, value) in values.as_object().unwrap() {
        supervisor.cli(&["signal", "set", &id, key, &value.to_string()]).ok();
    }
    supervisor.cli(&["signal", "trigger", &id]).ok();
    let seen = supervisor.call(&["bash", "wait_for", "--args", &json!([{"$signal": id}, 30]).to_string()]);
    assert_eq!(serde_json::from_str::<Value>(seen[1].as_str().unwrap()).unwrap(), values);
}
