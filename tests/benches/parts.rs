//! The parts alone, without a system call: what one message costs in each. `cargo bench -p workhall-tests`; what they
//! make together is measured by `workhall bench`.
#![allow(missing_docs, reason = "criterion's macros make functions")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use workhall_core::{AccountId, Call, CallReceipt, Core, Effect, Event, Instant, Limits, Policy, ProcessKey};
use workhall_protocol::args::Payload;
use workhall_protocol::ids::{MessageId, Target};
use workhall_protocol::messages::{
    Accepted, Call as CallMessage, Receipt, ReceiptBody, Ref, Reply, Request, ToSupervisor,
};
use workhall_protocol::wire::{Decoder, Encoding, encode};

/// Messages of one measurement: what a busy connection brings in one read.
const BATCH: u64 = 256;
/// Messages that are posted into one core until it is replaced by a new one.
const POSTED_MAX: u64 = 1 << 19;
/// Bytes of the arguments, small and large.
const SIZES: [usize; 2] = [64, 4096];

criterion_group!(parts, decoders, encoders, buffers, core, mailbox);
criterion_main!(parts);

/// A stream of calls.
fn calls(encoding: Encoding, payload: usize) -> Vec<u8> {
    let args = Payload::encode(&("x".repeat(payload - 3),)).unwrap();
    let mut bytes = Vec::new();
    for number in 0..BATCH {
        let call =
            CallMessage { reference: Some(Ref::Number(number)), ..CallMessage::new("bench/1", "take", args.clone()) };
        encode(&Request::Call(call), encoding, &mut bytes).unwrap();
    }
    bytes
}

fn drain(decoder: &mut Decoder) -> u64 {
    let mut count = 0;
    while let Some(request) = decoder.next::<ToSupervisor>().unwrap() {
        black_box(&request);
        count += 1;
    }
    count
}

/// Bytes to messages, as they come from one read.
fn decoders(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Elements(BATCH));
    for (encoding, name) in [(Encoding::Binary, "frames"), (Encoding::Json, "lines")] {
        for size in SIZES {
            let stream = calls(encoding, size);
            let mut decoder = Decoder::default();
            group.bench_function(format!("{name}/{size}"), |bencher| {
                bencher.iter(|| {
                    decoder.push(&stream);
                    assert_eq!(drain(&mut decoder), BATCH);
                });
            });
        }
    }
}

/// Receipts to bytes, the most frequent answer.
fn encoders(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    group.throughput(Throughput::Elements(BATCH));
    for (encoding, name) in [(Encoding::Binary, "frames"), (Encoding::Json, "lines")] {
        let mut out = Vec::new();
        group.bench_function(format!("{name}/receipt"), |bencher| {
            bencher.iter(|| {
                out.clear();
                for number in 0..BATCH {
                    let accepted = Accepted { worker: "bench/1".into(), number: 7, message: number };
                    let body = ReceiptBody::Accepted(accepted);
                    encode(&Reply::Receipt(Receipt { reference: Ref::Number(number), body }), encoding, &mut out)
                        .unwrap();
                }
                black_box(&out);
            });
        });
    }
}

/// A connection's input where a stream comes in pieces that cut messages, and is given back when it falls silent.
fn buffers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("buffer");
    group.throughput(Throughput::Elements(BATCH));
    for piece in [100, 1000, 16 << 10] {
        let stream = calls(Encoding::Binary, 64);
        let mut decoder = Decoder::default();
        group.bench_function(format!("pieces/{piece}"), |bencher| {
            bencher.iter(|| {
                let count: u64 = stream
                    .chunks(piece)
                    .map(|piece| {
                        decoder.push(piece);
                        drain(&mut decoder)
                    })
                    .sum();
                assert_eq!(count, BATCH);
                decoder.compact();
            });
        });
    }
}

/// A core with one idle worker, whose process takes so many tasks at once.
fn ready(window: u32) -> (Core, Arc<Policy>, ProcessKey) {
    let limits = Limits::default();
    let policy =
        Arc::new(Policy { class: "c".into(), mailbox_messages: 1 << 20, mailbox_bytes: 1 << 30, ..Policy::default() });
    let mut core = Core::new(limits, 1);
    let now = Instant::default();
    post(&mut core, &policy, "w", &[]);
    let mut started = None;
    while let Some(effect) = core.next_effect() {
        if let Effect::Spawn { process } = effect {
            started = Some(process);
            core.handle(now, Event::Spawned { process, slot: 0 });
        }
    }
    let process = started.unwrap();
    core.handle(now, Event::Ready { process, window, marked: window > 1 });
    settle(&mut core, process);
    (core, policy, process)
}

fn post(core: &mut Core, policy: &Arc<Policy>, name: &str, args: &[u8]) {
    let call = Call {
        target: Target::Name(name),
        method: "take",
        args,
        from: None,
        existing: false,
        expires: None,
        after: None,
        account: AccountId(1),
        reply: None,
    };
    let receipt = core.call(Instant::default(), call, |_| Ok(policy.clone()));
    assert!(matches!(receipt, CallReceipt::Accepted { .. }));
}

/// What is delivered is done, until nothing is delivered any more.
fn settle(core: &mut Core, process: ProcessKey) -> u64 {
    let mut settled = 0;
    loop {
        let mut delivered: Vec<MessageId> = Vec::new();
        while let Some(effect) = core.next_effect() {
            if let Effect::Deliver { id, .. } = effect {
                delivered.push(id);
            }
        }
        if delivered.is_empty() {
            return settled;
        }
        for id in delivered {
            core.handle(Instant::default(), Event::Done { process, id, result: &[0xc0] });
            settled += 1;
        }
    }
}

/// Posted, delivered and settled.
fn core(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("core");
    group.throughput(Throughput::Elements(BATCH));
    for window in [1, 64] {
        for size in SIZES {
            let args = vec![0x90; size];
            let (mut core, policy, process) = ready(window);
            group.bench_function(format!("post-deliver-settle/window-{window}/{size}"), |bencher| {
                bencher.iter(|| {
                    for _ in 0..BATCH {
                        post(&mut core, &policy, "w", &args);
                    }
                    assert_eq!(settle(&mut core, process), BATCH);
                });
            });
        }
    }
}

/// Posted to a name that has no process yet, while there are many others: the look-up and the queue.
fn mailbox(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mailbox");
    group.throughput(Throughput::Elements(BATCH)).measurement_time(Duration::from_secs(3));
    for names in [1, 1000, 100_000] {
        let names: Vec<String> = (0..names).map(|name| format!("w/{name}")).collect();
        let policy = Arc::new(Policy { mailbox_messages: 1 << 20, mailbox_bytes: 1 << 30, ..Policy::default() });
        let fresh = || {
            let processes = names.len() as u32 + 1;
            let mut core = Core::new(
                Limits { processes, sender_messages: 1 << 30, sender_bytes: 1 << 40, ..Limits::default() },
                1,
            );
            for name in &names {
                post(&mut core, &policy, name, &[0x90; 64]);
            }
            while core.next_effect().is_some() {}
            core
        };
        let (mut core, mut posted, mut next) = (fresh(), 0, 0);
        group.bench_function(format!("post/names-{}", names.len()), |bencher| {
            bencher.iter_custom(|iterations| {
                let mut took = Duration::ZERO;
                for _ in 0..iterations {
                    // Full mailboxes would refuse.
                    if posted > POSTED_MAX {
                        (core, posted) = (fresh(), 0);
                    }
                    let start = std::time::Instant::now();
                    for _ in 0..BATCH {
                        // A step that is prime to all these counts: no name stands beside the last one.
                        next = (next + 7919) % names.len();
                        post(&mut core, &policy, &names[next], &[0x90; 64]);
                    }
                    while core.next_effect().is_some() {}
                    took += start.elapsed();
                    posted += BATCH;
                }
                took
            });
        });
    }
}
