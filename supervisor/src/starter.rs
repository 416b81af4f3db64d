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
/// So many processes may be on their way to their programs; beyond that a start fails, and is tried again later.
const WAITING_MAX: usize = 64;

/// What starts a process. It is given where its id is to be written as soon as it is there.
type Job = Box<dyn FnOnce(&AtomicI32) -> io::Result<i32> + Send>;

/// The threads. One is always there, so that a start does not fail for want of it.
#[derive(Debug)]
pub struct Starter {
    free: Option<Worker>,
    waiting: Vec<Worker>,
}

#[derive(Debug)]
struct Worker {
    jobs: Sender<(Arc<AtomicI32>, Job)>,
    done: Receiver<io::Result<i32>>,
}

impl Starter {
    /// With its first thread.
    pub fn new() -> io::Result<Starter> {
        Ok(Starter { free: Some(Worker::new()?), waiting: Vec::new() })
    }

    /// Lets a thread start a process. Returns its id when it is there, and has mostly executed its program or ended.
    pub fn start(&mut self, job: impl FnOnce(&AtomicI32) -> io::Result<i32> + Send + 'static) -> io::Result<i32> {
        self.look_after_waiting();
        if self.waiting.len() >= WAITING_MAX {
            return Err(io::Error::other(format!(
                "{WAITING_MAX} processes do not come to execute their programs: does the file system of the program, or \
                 of the directory to start in, answer?"
            )));
        }
        let worker = self.free.take().map_or_else(Worker::new, Ok)?;
        let begun = Arc::new(AtomicI32::new(0));
        worker.jobs.send((begun.clone(), Box::new(job))).map_err(|_| lost())?;
        let patience = if self.waiting.is_empty() { PATIENCE } else { LITTLE_PATIENCE };
        loop {
            match worker.done.recv_timeout(patience) {
                Ok(started) => {
                    self.free = Some(worker);
                    return started;
                }
                Err(RecvTimeoutError::Timeout) => match begun.load(SeqCst) {
                    // It has not been made yet: its descriptors are still needed.
                    0 => {}
                    pid => {
                        self.waiting.push(worker);
                        return Ok(pid);
                    }
                },
                Err(RecvTimeoutError::Disconnected) => return Err(lost()),
            }
        }
    }

    /// Whose process has come to its program, or has ended, may start another.
    fn look_after_waiting(&mut self) {
        for worker in std::mem::take(&mut self.waiting) {
            match worker.done.try_recv() {
                Err(TryRecvError::Empty) => self.waiting.push(worker),
                Err(TryRecvError::Disconnected) => {}
                Ok(_) => self.free = Some(worker),
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

    #[test]
    fn d05_who_waits_for_one_that_does_not_come_is_not_the_loop() {
        let mut starter = Starter::new().unwrap();
        let (go, gate) = channel::<()>();
        let started = starter.start(move |begun| {
            begun.store(7, SeqCst);
            let _closed = gate.recv();
            Ok(7)
        });
        assert_eq!((started.unwrap(), starter.waiting.len()), (7, 1));
        assert_eq!(starter.start(|_| Ok(8)).unwrap(), 8);
        assert_eq!(starter.start(|_| Err(io::ErrorKind::NotFound.into())).unwrap_err().kind(), io::ErrorKind::NotFound);
        drop(go);
        while !starter.waiting.is_empty() {
            starter.look_after_waiting();
            thread::yield_now();
        }
        assert_eq!(starter.start(|_| Ok(9)).unwrap(), 9);
    }

    #[test]
    fn d05_too_many_that_do_not_come_are_refused() {
        let mut starter = Starter::new().unwrap();
        let (go, gate) = channel::<()>();
        let gate = Arc::new(std::sync::Mutex::new(gate));
        for pid in 1..=WAITING_MAX as i32 {
            let gate = gate.clone();
            let started = starter.start(move |begun| {
                begun.store(pid, SeqCst);
                let _closed = gate.lock().unwrap().recv();
                Ok(pid)
            });
            assert_eq!(started.unwrap(), pid);
        }
        assert!(starter.start(|_| Ok(1)).unwrap_err().to_string().contains("do not come to execute"));
        drop(go);
        while !starter.waiting.is_empty() {
            starter.look_after_waiting();
            thread::yield_now();
        }
        assert_eq!(starter.start(|_| Ok(1)).unwrap(), 1);
    }

    #[test]
    fn one_that_is_not_there_yet_is_waited_for() {
        let (_nothing, gate) = channel::<()>();
        let started = Starter::new().unwrap().start(move |_| {
            let _over = gate.recv_timeout(PATIENCE * 3);
            Ok(5)
        });
        assert_eq!(started.unwrap(), 5);
    }
}
