//! What is asked about dead letters, and what an operator does with them.

use std::borrow::Cow;

use workhall_core::{DeadLetter, Instant, Letters};
use workhall_protocol::args::Payload;
use workhall_protocol::ids::MessageId;
use workhall_protocol::messages::{
    self, Dead, DeadShow, Letter, Pause, ReceiptBody, Refused, Reply, Request, Requeued, Resume, Sender,
};
use workhall_protocol::terms::Ignored;

use crate::event_loop::EventLoop;
use crate::report::{DeadReport, DeadRow};
use crate::requests::policy_of;

/// How many rows one answer has at most: with the longest names and methods it still fits into a frame.
pub(crate) const ROWS_MAX: usize = 4096;

const NO_LETTER: ReceiptBody<'static> = ReceiptBody::Ignored { reason: Ignored::NoLetter };

impl EventLoop {
    /// What only who may administer may ask: messages of others, and what changes more than a call or a kill.
    pub(crate) fn administer(&mut self, now: Instant, index: usize, request: Request<'_>) {
        let reference = match &request {
            Request::Dead(dead) => &dead.reference,
            Request::DeadShow(show) => &show.reference,
            Request::Requeue(letters) | Request::DeadDrop(letters) => &letters.reference,
            Request::Pause(pause) => &pause.reference,
            Request::Resume(resume) => &resume.reference,
            Request::Reload(reload) => &reload.reference,
            Request::Upgrade(upgrade) => &upgrade.reference,
            _ => return,
        };
        if let Err(refused) = self.check_admin(index) {
            self.core.count_refused(refused.reason, None);
            let body = ReceiptBody::Refused { reason: refused.reason, detail: refused.detail };
            return self.receipt(index, reference.clone(), body);
        }
        match request {
            Request::Dead(dead) => self.dead(now, index, dead),
            Request::DeadShow(show) => self.dead_show(now, index, show),
            Request::Requeue(letters) => self.requeue(now, index, letters),
            Request::DeadDrop(letters) => self.dead_drop(now, index, letters),
            Request::Pause(pause) => self.pause(now, index, pause),
            Request::Resume(resume) => self.resume(now, index, resume),
            Request::Reload(reload) => self.reload_asked(now, index, reload),
            Request::Upgrade(upgrade) => self.upgrade_asked(index, upgrade),
            _ => {}
        }
    }

    fn dead(&mut self, now: Instant, index: usize, dead: Dead<'_>) {
        let which = dead.worker.as_deref().map_or(Letters::All, Letters::Of);
        let (limit, totals) = (self.core.limits().0, self.core.dead_totals());
        let matching = self.core.dead_letters(which).count();
        let shown = dead.limit.map_or(ROWS_MAX, |limit| usize::try_from(limit).unwrap_or(ROWS_MAX)).min(ROWS_MAX);
        let stands_before = |letter: &&DeadLetter| dead.before.is_none_or(|before| letter.place() < before);
        let page = self.core.dead_letters(which).rev().filter(stands_before).take(shown);
        let mut letters: Vec<DeadRow> = page.map(|letter| DeadRow::new(letter, now)).collect();
        letters.reverse();
        let report = DeadReport {
            messages: totals.messages,
            bytes: totals.bytes,
            dropped: totals.dropped,
            messages_max: limit.dead_messages,
            bytes_max: limit.dead_bytes,
            matching: matching as u64,
            letters,
        };
        self.report(index, dead.reference, &report);
    }

    fn dead_show(&mut self, now: Instant, index: usize, show: DeadShow) {
        // The letter is said as it lies in the core: it may be large.
        let mut letters = self.core.dead_letters(Letters::One(MessageId(show.message)));
        let body = letters.next().map_or(NO_LETTER, |letter| ReceiptBody::Letter(Box::new(shown(letter, now))));
        let receipt = Reply::Receipt(messages::Receipt { reference: show.reference.clone(), body });
        let said = self.connections[index].say(&receipt);
        drop((letters, receipt));
        self.unless_said(index, Some(show.reference), said);
    }

    fn requeue(&mut self, now: Instant, index: usize, request: messages::Letters<'_>) {
        let which = match meant(&request) {
            Ok(which) => which,
            Err(reason) => return self.misunderstood(now, index, Some(request.reference.clone()), reason),
        };
        if self.is_unknown(which) {
            return self.receipt(index, request.reference.clone(), NO_LETTER);
        }
        let account = self.connections[index].peer.account().id();
        let (config, classes) = (&self.config, &mut self.classes);
        let requeued = self.core.requeue(now, which, account, |name| policy_of(config, classes, name));
        let body = ReceiptBody::Requeued(Requeued {
            messages: requeued.requeued,
            left: requeued.left,
            refused: requeued.refused.map(|refused| Refused { reason: refused.reason, detail: refused.detail }),
        });
        self.receipt(index, request.reference.clone(), body);
    }

    fn dead_drop(&mut self, now: Instant, index: usize, request: messages::Letters<'_>) {
        let which = match meant(&request) {
            Ok(which) => which,
            Err(reason) => return self.misunderstood(now, index, Some(request.reference.clone()), reason),
        };
        let body = match self.is_unknown(which) {
            true => NO_LETTER,
            false => ReceiptBody::Dropped { messages: self.core.drop_dead(which) },
        };
        self.receipt(index, request.reference.clone(), body);
    }

    fn pause(&mut self, now: Instant, index: usize, pause: Pause<'_>) {
        let body = match self.core.pause(now, pause.worker.target()) {
            Ok(()) => ReceiptBody::Paused {},
            Err(reason) => ReceiptBody::Ignored { reason },
        };
        self.receipt(index, pause.reference, body);
    }

    fn resume(&mut self, now: Instant, index: usize, resume: Resume<'_>) {
        let body = match self.core.resume(now, resume.worker.target()) {
            true => ReceiptBody::Resumed {},
            false => ReceiptBody::Ignored { reason: Ignored::NoWorker },
        };
        self.receipt(index, resume.reference, body);
    }

    /// One letter was asked for, and is not there. None at all of a name, or of all, is no mistake.
    fn is_unknown(&self, which: Letters<'_>) -> bool {
        matches!(which, Letters::One(_)) && self.core.dead_letters(which).next().is_none()
    }
}

/// Which letters are meant: an empty selection never means all.
fn meant<'a>(request: &'a messages::Letters<'_>) -> Result<Letters<'a>, &'static str> {
    match (request.message, request.worker.as_deref(), request.all) {
        (Some(message), None, false) => Ok(Letters::One(MessageId(message))),
        (None, Some(worker), false) => Ok(Letters::Of(worker)),
        (None, None, true) => Ok(Letters::All),
        _ => Err("which dead letters? Exactly one of `message`, `worker` and `all`: true says it"),
    }
}

fn shown(letter: &DeadLetter, now: Instant) -> Letter<'_> {
    let message = &letter.message;
    Letter {
        message: message.id.0,
        worker: Cow::Borrowed(&letter.worker.name),
        number: letter.worker.number.0,
        generation: letter.generation.0,
        method: Cow::Borrowed(message.method()),
        args: Payload(Cow::Borrowed(message.args())),
        from: message.from.as_ref().map(|from| Sender { worker: Cow::Borrowed(&from.name), number: from.number.0 }),
        reason: letter.reason,
        exit: letter.exit,
        may_have_run: letter.may_have_run,
        accepted_ago_ms: now.since(message.accepted).as_millis() as u64,
        died_ago_ms: now.since(letter.died).as_millis() as u64,
    }
}
