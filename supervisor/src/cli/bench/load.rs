//! The load: one thread that keeps any number of connections busy, the same for the subject and for every floor.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use hdrhistogram::Histogram;
use workhall_protocol::wire::Encoding;

use super::Stop;
use super::words::{Answer, Ear, FIRST, FLOOR_HEADER, Heard, Language, Template, how_many};
use crate::sys::{Interest, Poller};

/// How much is collected before it is written, in bytes; and how much is read at once.
const BATCH_BYTES: usize = 64 << 10;
/// Nothing has come for so long: what is measured hangs, which is no measurement.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked whether the user has had enough.
const LOOK: Duration = Duration::from_millis(200);

/// One connection, and the worker behind it.
#[derive(Debug)]
pub struct Lane {
    stream: UnixStream,
    template: Template,
    /// Asks a worker, at the end of a round, how many it has executed. A floor answers each message instead.
    last: Option<Vec<u8>>,
    ear: Ear,
    out: Vec<u8>,
    written: usize,
    sent: u64,
    heard: Heard,
    asked: bool,
    blocked: bool,
    over: bool,
}

impl Lane {
    /// To a worker of a supervisor, with messages of this size.
    pub fn to_worker(
        socket: &Path,
        encoding: Encoding,
        worker: &str,
        payload: usize,
        answer: Answer,
    ) -> anyhow::Result<Lane> {
        let method = if answer == Answer::Outcome { "echo" } else { "take" };
        let template = Template::call(encoding, worker, method, payload, answer)?;
        Lane::new(socket, Language::Workhall(encoding), template, Some(how_many(encoding, worker)?))
    }

    /// To a worker that is busy: its round is over with the last receipt.
    pub fn posting(socket: &Path, worker: &str, payload: usize) -> anyhow::Result<Lane> {
        let template = Template::call(Encoding::Binary, worker, "take", payload, Answer::Receipt)?;
        Lane::new(socket, Language::Workhall(Encoding::Binary), template, None)
    }

    /// To a floor.
    pub fn to_floor(socket: &Path, payload: usize) -> anyhow::Result<Lane> {
        Lane::new(socket, Language::Floor, Template::floor(payload)?, None)
    }

    fn new(socket: &Path, language: Language, template: Template, last: Option<Vec<u8>>) -> anyhow::Result<Lane> {
        let stream = UnixStream::connect(socket).with_context(|| format!("cannot connect to {}", socket.display()))?;
        let ear = Ear::new(language, template.bytes());
        debug_assert!(template.bytes() > FLOOR_HEADER);
        Ok(Lane {
            stream,
            template,
            last,
            ear,
            out: Vec::new(),
            written: 0,
            sent: 0,
            heard: Heard::default(),
            asked: false,
            blocked: false,
            over: false,
        })
    }

    /// So many calls with one outstanding, each until its answer, in nanoseconds.
    pub fn round_trips(&mut self, count: u64, histogram: &mut Histogram<u64>, stop: &Stop) -> anyhow::Result<()> {
        self.stream.set_nonblocking(false)?;
        self.stream.set_read_timeout(Some(PATIENCE))?;
        let mut room = vec![0; BATCH_BYTES];
        for number in FIRST..FIRST + count {
            stop.check()?;
            let start = Instant::now();
            self.out.clear();
            self.template.append(number, &mut self.out);
            self.stream.write_all(&self.out)?;
            let mut heard = Heard::default();
            while !heard.done {
                let read = self.stream.read(&mut room).context("no answer")?;
                ensure!(read > 0, "the other side has closed the connection");
                self.ear.hear(&room[..read], &mut heard)?;
            }
            histogram.saturating_record(start.elapsed().as_nanos() as u64);
        }
        Ok(())
    }
}

/// What is sent on each connection.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    /// So many messages.
    pub messages: u64,
    /// So many without an answer at most; none where no answer is asked for.
    pub window: Option<u64>,
    /// Each with a write of its own; else as many together as may be sent.
    pub write_each: bool,
}

/// Lanes that are busy together.
pub struct Load {
    lanes: Vec<Lane>,
    poller: Poller,
    room: Vec<u8>,
}

impl Load {
    /// Watches them.
    pub fn new(lanes: Vec<Lane>) -> anyhow::Result<Load> {
        let poller = Poller::new(256)?;
        for (at, lane) in lanes.iter().enumerate() {
            lane.stream.set_nonblocking(true)?;
            poller.add(&lane.stream, at as u64, Interest { read: true, write: false })?;
        }
        Ok(Load { lanes, poller, room: vec![0; BATCH_BYTES] })
    }

    /// Sends them all, and returns how long it took until the last was executed, settled and known to be: each worker
    /// has said that it has executed all of its messages, or each floor has answered every one.
    pub fn run(&mut self, job: Job, stop: &Stop) -> anyhow::Result<Duration> {
        for lane in &mut self.lanes {
            (lane.sent, lane.asked, lane.over) = (0, false, false);
            lane.heard = Heard::default();
        }
        let start = Instant::now();
        let mut open = self.lanes.len();
        for at in 0..self.lanes.len() {
            open -= usize::from(self.pump(at, job)?);
        }
        let (mut ready, mut quiet_since) = (Vec::new(), Instant::now());
        while open > 0 {
            stop.check()?;
            self.poller.wait(Some(LOOK), &mut ready)?;
            match ready.is_empty() {
                true if quiet_since.elapsed() > PATIENCE => bail!("no answer for {PATIENCE:?}"),
                true => continue,
                false => quiet_since = Instant::now(),
            }
            for event in &ready {
                let at = event.token as usize;
                if event.read {
                    self.hear(at)?;
                }
                open -= usize::from(self.pump(at, job)?);
            }
        }
        let took = start.elapsed();
        for lane in &self.lanes {
            if let Some(number) = lane.heard.number.filter(|number| *number != job.messages) {
                bail!("a worker has executed {number} of {} messages in order", job.messages);
            }
        }
        Ok(took)
    }

    fn hear(&mut self, at: usize) -> anyhow::Result<()> {
        let lane = &mut self.lanes[at];
        match lane.stream.read(&mut self.room) {
            Ok(0) => bail!("the other side has closed a connection"),
            Ok(read) => lane.ear.hear(&self.room[..read], &mut lane.heard),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Sends what may be sent; says whether the lane's round has ended just now.
    fn pump(&mut self, at: usize, job: Job) -> anyhow::Result<bool> {
        let lane = &mut self.lanes[at];
        let blocked = loop {
            if lane.written == lane.out.len() {
                lane.out.clear();
                lane.written = 0;
                collect(lane, job);
                if lane.out.is_empty() {
                    break false;
                }
            }
            match lane.stream.write(&lane.out[lane.written..]) {
                Ok(count) => lane.written += count,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break true,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        };
        if blocked != lane.blocked {
            lane.blocked = blocked;
            self.poller.modify(&lane.stream, at as u64, Interest { read: true, write: blocked })?;
        }
        let over = match lane.last {
            Some(_) => lane.heard.number.is_some(),
            None => lane.heard.acknowledged == job.messages,
        };
        let ended = over && !lane.over;
        lane.over = over;
        Ok(ended)
    }
}

/// Makes what is to be written next.
fn collect(lane: &mut Lane, job: Job) {
    let room = job.window.map_or(u64::MAX, |window| window.saturating_sub(lane.sent - lane.heard.acknowledged));
    let mut count = (job.messages - lane.sent).min(room);
    if job.write_each {
        count = count.min(1);
    }
    for number in lane.sent..lane.sent + count {
        lane.template.append(FIRST + number, &mut lane.out);
        lane.sent += 1;
        if lane.out.len() >= BATCH_BYTES {
            return;
        }
    }
    if lane.sent == job.messages
        && !lane.asked
        && let Some(last) = &lane.last
    {
        lane.asked = true;
        lane.out.extend_from_slice(last);
    }
}
