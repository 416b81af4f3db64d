//! Clients that mean harm: half frames, rubbish, floods without reading, ends in the middle. Whatever they do is
//! their own loss; what they get accepted is in the ledger, but nobody knows its receipts.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use workhall_protocol::args::Payload;
use workhall_protocol::messages::{Call, List, Message as _, Ref, Request, Status};
use workhall_protocol::wire::{BINARY_VERSION, Encoding, encode};

use super::{Run, any_name};
use crate::sim::Rng;

/// How much a flood writes at most, in bytes.
const FLOOD_BYTES: usize = 64 << 10;
/// How long a flood waits for a supervisor that does not read any more.
const FLOOD_WAITS: Duration = Duration::from_millis(100);

/// Does harm until the run is over.
pub fn hostile(run: &Run, mut rng: Rng) {
    while !run.is_over() {
        // While the supervisor is down there is nobody to be harmed.
        if let Ok(stream) = UnixStream::connect(&run.socket) {
            run.counts.hostile.fetch_add(1, Relaxed);
            // That it is cut off is what it must expect.
            let _cut_off = act(stream, &mut rng);
        }
        std::thread::sleep(rng.up_to_ms(40));
    }
}

fn act(mut stream: UnixStream, rng: &mut Rng) -> std::io::Result<()> {
    stream.set_write_timeout(Some(FLOOD_WAITS))?;
    stream.set_read_timeout(Some(FLOOD_WAITS))?;
    let encoding = rng.pick(&[Encoding::Binary, Encoding::Json]);
    match rng.below(9) {
        // A good message, and half of another.
        0..=1 => {
            let mut bytes = request(rng, encoding);
            let second = request(rng, encoding);
            bytes.extend_from_slice(&second[..rng.below(second.len() as u64) as usize]);
            stream.write_all(&bytes)?;
            std::thread::sleep(rng.up_to_ms(50));
        }
        // Rubbish, from the first byte or behind a good beginning.
        2 => {
            let rubbish: Vec<u8> = (0..rng.between(1, 5000)).map(|_| rng.bits() as u8).collect();
            stream.write_all(&rubbish)?;
        }
        3 => {
            let mut bytes = request(rng, encoding);
            for _ in 0..rng.between(1, 4) {
                let at = rng.below(bytes.len() as u64) as usize;
                bytes[at] = rng.bits() as u8;
            }
            bytes.push(b'\n');
            stream.write_all(&bytes)?;
            let _answer = stream.read(&mut [0; 4096])?;
        }
        // A frame that is said to be large, and never comes; a line without an end.
        4 => {
            let length = rng.pick(&[16_u32 << 20, (16 << 20) + 1, u32::MAX, 1 << 20]).to_le_bytes();
            stream.write_all(&[&[BINARY_VERSION, 4, 0, 0], &length[..]].concat())?;
            stream.write_all(&vec![b'x'; rng.below(100_000) as usize])?;
            std::thread::sleep(rng.up_to_ms(100));
        }
        5 => {
            stream.write_all(b"{\"call\":{\"worker\":\"")?;
            stream.write_all(&vec![b'y'; rng.below(300_000) as usize])?;
        }
        // A flood of questions and calls whose answers nobody reads.
        6 => {
            let mut bytes = Vec::new();
            while bytes.len() < FLOOD_BYTES {
                let reference = Ref::Number(rng.bits());
                let question = match rng.percent(50) {
                    true => Request::List(List { reference, after: None, limit: None }),
                    false => Request::Status(Status { reference }),
                };
                encode(&question, encoding, &mut bytes).expect("a question is short");
            }
            match stream.write_all(&bytes) {
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                _ => std::thread::sleep(rng.up_to_ms(100)),
            }
        }
        // What only a worker says.
        7 => stream.write_all(b"{\"ready\":{\"protocol\":1,\"window\":9}}\n{\"done\":{\"id\":1}}\n")?,
        // Nothing at all.
        _ => std::thread::sleep(rng.up_to_ms(100)),
    }
    Ok(())
}

/// A good message: its fate is nobody's business.
fn request(rng: &mut Rng, encoding: Encoding) -> Vec<u8> {
    let name = any_name(rng);
    let args = Payload::encode_list(&(rng.below(500),)).expect("a number is plain");
    let call = Call::new(&*name, "work", args);
    let reference = rng.percent(50).then(|| Ref::Number(rng.bits()));
    let wait = reference.is_some() && rng.percent(50);
    let request = Request::Call(Call { reference, wait, ..call });
    debug_assert_eq!(request.kind(), 4);
    let mut bytes = Vec::new();
    encode(&request, encoding, &mut bytes).expect("a call is short");
    bytes
}
