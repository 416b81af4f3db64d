//! The agreed methods of the conformance suite (`conformance --help`) in Rust: `conformance-worker [WINDOW]`. With
//! CONFORMANCE_ATTACH it takes that name by itself.

use std::fmt;
use std::time::{Duration, Instant};

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use serde_json::{Value, to_value};
use worker_host::protocol::messages::Address;
use worker_host::{Context, MethodResult, Receipt, Signal, Worker};

fn main() -> worker_host::Result {
    let window = std::env::args().nth(1).and_then(|arg| arg.parse().ok()).unwrap_or(worker_host::WINDOW_DEFAULT);
    let worker = Worker::new(())
        .window(window)
        .method("echo", |_, _, (x,): (Anything,)| Ok(x))
        .method("fail", |_, _, (text,): (String,)| -> MethodResult<()> { Err(text.into()) })
        .method("sleep", |_, _, (ms,): (u64,)| {
            std::thread::sleep(Duration::from_millis(ms));
            Ok(())
        })
        .method("crash", |_, _, ()| -> MethodResult<()> { std::process::exit(3) })
        .method("who", |_, ctx, ()| Ok((ctx.worker().to_string(), ctx.number(), ctx.generation())))
        .method("sender", |_, ctx, ()| Ok(ctx.sender().map(|sender| (sender.worker.to_string(), sender.number))))
        .method("call", |_, ctx, (worker, method, args): (Anything, String, Anything)| {
            told(&ctx.call(whom(worker)?, &method, args)?)
        })
        .method("reply", |_, ctx, (method, args): (String, Anything)| told(&ctx.reply(&method, args)?))
        .method("kill", |_, ctx, (worker,): (Anything,)| {
            told(&match worker {
                Anything::Nil => ctx.kill_self()?,
                worker => ctx.kill(whom(worker)?)?,
            })
        })
        .method("last_words", |_, ctx, (worker, method): (Anything, String)| {
            ctx.kill_self()?;
            told(&ctx.call(whom(worker)?, &method, ())?)
        })
        .method("ending", |_, ctx, (ms,): (u64,)| Ok(within(ms, ctx, |ctx| ctx.end_requested())))
        .method("cancelled", |_, ctx, (ms,): (u64,)| Ok(within(ms, ctx, |ctx| ctx.cancelled().unwrap_or(false))))
        .method("new_signal", |_, ctx, (text,): (String,)| Ok(ctx.signal(&text)?))
        .method("trigger", |_, ctx, (signal, key, value): (Signal, String, Anything)| {
            signal.set(ctx, &key, &value)?;
            Ok(signal.trigger(ctx)?)
        })
        .method("wait_for", |_, ctx, (signal, ms): (Signal, u64)| {
            Ok(match signal.wait(ctx, Some(Duration::from_millis(ms)))? {
                true => signal.values(ctx)?,
                false => Some(Anything::Nil),
            })
        })
        .method("leave", |_, ctx, (drain,): (bool,)| Ok(ctx.leave(drain)?));
    match std::env::var("CONFORMANCE_ATTACH") {
        Ok(name) => worker.attach(&name),
        Err(_) => worker.run(),
    }
}

/// A text is a name, a number is a number (rule W4).
fn whom(worker: Anything) -> MethodResult<Address<'static>> {
    match worker {
        Anything::Text(name) => Ok(Address::Name(name.into())),
        Anything::Unsigned(number) => Ok(Address::Number(number)),
        other => Err(format!("a worker is a name or a number, not {other:?}").into()),
    }
}

/// Whether it becomes so within so many milliseconds.
fn within(ms: u64, ctx: &mut Context<'_>, mut is_so: impl FnMut(&mut Context<'_>) -> bool) -> bool {
    let until = Instant::now() + Duration::from_millis(ms);
    loop {
        if is_so(ctx) {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A receipt as the suite wants it: its word, and the reason or the number.
fn told(receipt: &Receipt<'_>) -> MethodResult<String> {
    let Value::Object(receipt) = to_value(receipt)? else { return Err("a receipt is an object".into()) };
    let (word, body) = receipt.into_iter().next().ok_or("a receipt has a body")?;
    Ok(match (body["reason"].as_str(), body["discarded"].as_u64()) {
        (Some(reason), _) => format!("{word} {reason}"),
        (_, Some(discarded)) => format!("{word} {discarded}"),
        _ => word,
    })
}

/// Whatever MessagePack can say, but extensions.
#[derive(Debug)]
enum Anything {
    Nil,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Anything>),
    Map(Vec<(Anything, Anything)>),
}

impl Serialize for Anything {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Anything::Nil => serializer.serialize_unit(),
            Anything::Bool(v) => serializer.serialize_bool(*v),
            Anything::Unsigned(v) => serializer.serialize_u64(*v),
            Anything::Signed(v) => serializer.serialize_i64(*v),
            Anything::Double(v) => serializer.serialize_f64(*v),
            Anything::Text(v) => serializer.serialize_str(v),
            Anything::Bytes(v) => serializer.serialize_bytes(v),
            Anything::List(v) => serializer.collect_seq(v),
            Anything::Map(v) => serializer.collect_map(v.iter().map(|(key, value)| (key, value))),
        }
    }
}

impl<'de> Deserialize<'de> for Anything {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnythingVisitor)
    }
}

struct AnythingVisitor;

impl<'de> Visitor<'de> for AnythingVisitor {
    type Value = Anything;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }
    fn visit_unit<E>(self) -> Result<Anything, E> {
        Ok(Anything::Nil)
    }
    fn visit_bool<E>(self, v: bool) -> Result<Anything, E> {
        Ok(Anything::Bool(v))
    }
    fn visit_u64<E>(self, v: u64) -> Result<Anything, E> {
        Ok(Anything::Unsigned(v))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Anything, E> {
        Ok(Anything::Signed(v))
    }
    fn visit_f64<E>(self, v: f64) -> Result<Anything, E> {
        Ok(Anything::Double(v))
    }
    fn visit_str<E>(self, v: &str) -> Result<Anything, E> {
        Ok(Anything::Text(v.into()))
    }
    fn visit_bytes<E>(self, v: &[u8]) -> Result<Anything, E> {
        Ok(Anything::Bytes(v.into()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Anything, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Anything::List(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Anything, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Anything::Map(entries))
    }
}
