//! Arguments between MessagePack and JSON.
//!
//! The first byte chooses the way. From JSON: what is taken in comes back as it was. From MessagePack: what can
//! be said in JSON is understood again, and said in the same words.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;
use workhall_protocol::args::{Payload, decode};
use workhall_protocol::limits::ARGS_DEPTH_MAX;

/// The arguments' transcoding.
pub fn args(data: &[u8]) {
    let Some((way, bytes)) = data.split_first() else { return };
    match way & 1 {
        0 => from_json(bytes),
        _ => from_messagepack(bytes),
    }
}

fn from_json(text: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(text) else { return };
    let payload = match Payload::from_json(&value) {
        Ok(payload) => payload,
        Err(error) => {
            let too_deep = depth(&value) > ARGS_DEPTH_MAX;
            assert!(too_deep || holds_bytes(&value), "{error}: {value}");
            return;
        }
    };
    assert!(depth(&value) <= ARGS_DEPTH_MAX);
    let back = payload.to_json().expect("it came from JSON");
    assert_eq!(back, value);
    assert_eq!(Payload::from_json(&back).expect("it was taken before"), payload);
    // As text, which is how it travels.
    let text = serde_json::to_string(&back).expect("a value is text");
    assert_eq!(serde_json::from_str::<Value>(&text).expect("it was written so"), value, "{text}");
    assert_eq!(payload.is_list(), value.is_array());
    typed(&payload.0);
}

fn from_messagepack(bytes: &[u8]) {
    typed(bytes);
    let Ok(value) = Payload(Cow::Borrowed(bytes)).to_json() else { return };
    let text = serde_json::to_string(&value).expect("a value is text");
    assert_eq!(serde_json::from_str::<Value>(&text).expect("it was written so"), value, "{text}");
    match Payload::from_json(&value) {
        Ok(payload) => assert_eq!(payload.to_json().expect("it came from JSON"), value),
        // A map that looks like bytes as JSON writes them.
        Err(error) => assert!(holds_bytes(&value), "{error}: {value}"),
    }
}

/// A worker's own types: an error or a value, never a panic.
fn typed(bytes: &[u8]) {
    let _any = decode::<(i64, String)>(bytes).is_ok();
    let _any = decode::<Vec<f64>>(bytes).is_ok();
    let _any = decode::<BTreeMap<String, Option<Vec<u8>>>>(bytes).is_ok();
    let _any = decode::<Vec<(char, bool, u8, f32, ())>>(bytes).is_ok();
    let _any = decode::<Value>(bytes).is_ok();
}

/// Whether there is a map that JSON takes for bytes.
fn holds_bytes(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(holds_bytes),
        Value::Object(fields) => {
            fields.len() == 1 && fields.get("$bytes").is_some_and(Value::is_string) || fields.values().any(holds_bytes)
        }
        _ => false,
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}
