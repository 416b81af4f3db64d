//! Threads that start processes, so that the event loop never stands still for long because one does not come to
//! execute its program.
//!
//! A thread that starts a process waits until that has executed its program: as a rule a millisecond. But the program, or
//! the directory to start in, may be on a file system that does not answer, or somebody may hold a lease on the file. Then
//! the loop goes on after a moment: it knows the process, whose start has a deadline, and which can be ended like any
//! other. The thread stays behind until then.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread;
use std::time::Duration;

use crate::sys;

/// How long the loop waits for a process to execute its program.
const PATIENCE: Duration = Duration::from_millis(20);
/// The same while others have not.
const LITTLE_PATIENCE: Duration = Duration::from_millis(2);
/// So many processes of one class may be on their way to their programs for longer than that, and so many of all: the next
/// start of it, or any, is tried again later.
const WAITING_MAX: usize = 16;
const WAITING_IN_ALL_MAX: usize = 256;

/// What starts a process. It is given where its id is to be written as soon as it is there.
type Job = Box<dyn FnOnce(&AtomicI32) -> io::Result<i32> + Send>;

/// The threads. One is there from the beginning where that is possible, so that a start does not fail for want of it. None
/// is ever ended: a process may have asked for a signal at the end of the thread that has started it (PR_SET_PDEATHSIG).
#[derive(Debug)]
pub struct Starter {
    free: Vec<Worker>,
    /// With the class of the process that they wait for.
    waiting: Vec<(Box<str>, Worker)>,
}

#[derive(Debug)]
struct Worker {
    jobs: Sender<(Arc<AtomicI32>, Job)>,
    done: Receiver<io::Result<i32>>,
}

impl Starter {
    /// With its first thread, if there is room for it: without, the first start makes it.
    pub fn new() -> Starter {
        Starter { free: Worker::new().into_iter().collect(), waiting: Vec::new() }
    }

    /// Whether a process of this class may be started: not too many have not come to their programs.
    pub fn has_room(&mut self, class: &str) -> bool {
        self.look_after_waiting();
        let of_the_class = self.waiting.iter().filter(|(other, _)| **other == *class).count();
        of_the_class < WAITING_MAX && self.waiting.len() < WAITING_IN_ALL_MAX
    }

    /// Lets a thread start a process of a class. Returns its id when it is there, and has mostly executed its program or
    /// ended.
    pub fn start(
        &mut self,
        class: &str,
        job: impl FnOnce(&AtomicI32) -> io::Result<i32> + Send + 'static,
    ) -> io::Result<i32> {
        let worker = self.free.pop().map_or_else(Worker::new, Ok)?;
        let begun = Arc::new(AtomicI32::new(0));
        worker.jobs.send((begun.clone(), Box::new(job))).map_err(|_| lost())?;
        let patience = if self.waiting.is_empty() { PATIENCE } else { LITTLE_PATIENCE };
        loop {
            match worker.done.recv_timeout(patience) {
                Ok(started) => {
                    self.free.push(worker);
                    return started;
                }
                Err(RecvTimeoutError::Timeout) => match begun.load(SeqCst) {
                    // It has not been made yet: its descriptors are still needed.
                    0 => {}
                    pid => {
                        self.waiting.push((class.into(), worker));
                        return Ok(pid);
                    }
                },
                Err(RecvTimeoutError::Disconnected) => return Err(lost()),
            }
        }
    }

    /// Whose process has come to its program, or has ended, may start another.
    fn look_after_waiting(&mut self) {
        for (class, worker) in std::mem::take(&mut self.waiting) {
            match worker.done.try_recv() {
                Err(TryRecvError::Empty) => self.waiting.push((class, worker)),
                Err(TryRecvError::Disconnected) => {}
                Ok(_) => self.free.push(worker),
            }
        }
    }
}

impl Worker {
    fn new() -> io::Result<Worker> {
        let (jobs, todo) = channel::<(Arc<AtomicI32>, Job)>();
        let (say, done) = channel();
        // It ends when nobody can give it a job any more.
        thread::Builder::new().name("starter".into()).spawn(move || {
            // Those are the loop's.
            if let Err(error) = sys::block_signals() {
                let _nobody_waits = say.send(Err(error));
                return;
            }
            for (begun, job) in todo {
                if say.send(job(&begun)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Worker { jobs, done })
    }
}

fn lost() -> io::Error {
    io::Error::other("the thread that starts processes has ended")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Starts that do not come to their programs until the sender is dropped.
    fn hang(starter: &mut Starter, class: &str, count: usize) -> Sender<()> {
        let (go, gate) = channel::<()>();
        let gate = Arc::new(std::sync::Mutex::new(gate));
        for pid in 1..=count as i32 {
            let gate = gate.clone();
            assert!(starter.has_room(class), "{pid}");
            let started = starter.start(class, move |begun| {
                begun.store(pid, SeqCst);
                let _closed = gate.lock().unwrap().recv();
                Ok(pid)
            });
            assert_eq!(started.unwrap(), pid);
        }
        go
    }

    fn come_back(starter: &mut Starter) {
        while !starter.waiting.is_empty() {
            starter.look_after_waiting();
            thread::yield_now();
        }
    }

    #[test]
    fn d05_who_waits_for_one_that_does_not_come_is_not_the_loop() {
        let mut starter = Starter::new();
        let go = hang(&mut starter, "slow", 1);
        let class = "other";
        assert_eq!(starter.start(class, |_| Ok(8)).unwrap(), 8);
        let failed = starter.start(class, |_| Err(io::ErrorKind::NotFound.into()));
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::NotFound);
        drop(go);
        come_back(&mut starter);
        assert_eq!((starter.start(class, |_| Ok(9)).unwrap(), starter.free.len()), (9, 2), "no thread has ended");
    }

    #[test]
    fn d05_a_class_whose_processes_do_not_come_takes_no_room_of_another() {
        let mut starter = Starter::new();
        let go = hang(&mut starter, "slow", WAITING_MAX);
        assert!(!starter.has_room("slow") && starter.has_room("other"));
        let mut gone: Vec<_> = (1..WAITING_IN_ALL_MAX / WAITING_MAX)
            .map(|number| hang(&mut starter, &format!("slow {number}"), WAITING_MAX))
            .collect();
        assert!(!starter.has_room("other"));
        gone.pop();
        drop(go);
        while !starter.has_room("slow") {
            thread::yield_now();
        }
        drop(gone);
        come_back(&mut starter);
    }

    #[test]
    fn one_that_is_not_there_yet_is_waited_for() {
        let (_nothing, gate) = channel::<()>();
        let started = Starter::new().start("a", move |_| {
            let _over = gate.recv_timeout(PATIENCE * 3);
            Ok(5)
        });
        assert_eq!(started.unwrap(), 5);
    }
}
