//! What is asked of signals (rules S1–S5), and of messages that are not wanted any more.

use std::time::Duration;

use workhall_core::{
    Cancelled, Instant, KEEP_MAX, NewSignal, ProcessKey, Refused, ReplyTo, SignalEnd, SignalView, Signalled, Values,
};
use workhall_protocol::args::{ArgsError, NIL, Payload};
use workhall_protocol::ids::{MessageId, SignalId};
use workhall_protocol::messages::{
    self, Cancel, OutcomeBody, ReceiptBody, Ref, Reply, SignalFree, SignalGet, SignalNew, SignalSet, SignalTrigger,
    SignalWait,
};
use workhall_protocol::terms::{Ignored, Refusal};

use crate::access::Wish;
use crate::apply::outcome_body;
use crate::event_loop::EventLoop;
use crate::sys;

/// Values stand in the values of a report: so many levels less are left for them.
const VALUE_WRAPS: usize = 2;
/// Where so many bytes of answers are unread, no signal is read for the same connection.
const UNREAD_MAX: usize = 4 << 20;

impl EventLoop {
    pub(crate) fn new_signal(&mut self, now: Instant, index: usize, new: SignalNew<'_>) {
        if new.keep_ms.is_some_and(|keep| Duration::from_millis(keep) > KEEP_MAX) {
            let detail = format!("`keep_ms` is at most {}, a day: nobody else could free it", KEEP_MAX.as_millis());
            return self.misunderstood(now, index, Some(new.reference), &detail);
        }
        let connection = &self.connections[index];
        let made = match sys::random_bytes() {
            Ok(bytes) => {
                let id = SignalId(bytes);
                let signal = NewSignal {
                    id,
                    maker: connection.key,
                    account: connection.peer.account().id(),
                    description: new.description.as_deref(),
                    keep: new.keep_ms.map_or(Duration::ZERO, Duration::from_millis),
                };
                self.core.make_signal(now, signal).map(|()| id)
            }
            Err(error) => return self.misunderstood(now, index, Some(new.reference), &format!("no signal: {error}")),
        };
        let body = match made {
            Ok(id) => ReceiptBody::Signal { id: id.to_string().into() },
            Err(refused) => self.refusal(refused),
        };
        self.receipt(index, new.reference, body);
    }

    pub(crate) fn set_signal(&mut self, now: Instant, index: usize, set: SignalSet<'_>) {
        let Some(id) = self.signal_id(now, index, &set.signal, set.reference.clone()) else { return };
        if let Err(error) = set.value.check(VALUE_WRAPS) {
            let detail = format!("the value `{}` cannot be read: {error}", set.key.escape_debug());
            return self.misunderstood(now, index, set.reference, &detail);
        }
        let done = self.core.set_signal(now, id, &set.key, &set.value.0);
        self.signalled(index, set.reference, done);
    }

    pub(crate) fn trigger_signal(&mut self, now: Instant, index: usize, trigger: SignalTrigger<'_>) {
        let Some(id) = self.signal_id(now, index, &trigger.signal, trigger.reference.clone()) else { return };
        let done = self.core.trigger_signal(now, id);
        self.signalled(index, trigger.reference, Ok(done));
    }

    pub(crate) fn free_signal(&mut self, now: Instant, index: usize, free: SignalFree<'_>) {
        let Some(id) = self.signal_id(now, index, &free.signal, free.reference.clone()) else { return };
        let done = self.core.free_signal(now, id, self.connections[index].key);
        self.signalled(index, free.reference, Ok(done));
    }

    pub(crate) fn wait_for_signal(&mut self, now: Instant, index: usize, wait: SignalWait<'_>) {
        let Some(id) = self.signal_id(now, index, &wait.signal, Some(wait.reference.clone())) else { return };
        let refused = match self.core.signal_view(now, id) {
            // Its values are written for each who waits.
            Some(_) => {
                let room = self.check_unread(index).and_then(|()| self.check_awaited(index, true));
                room.err().map(|refused| self.refusal(refused))
            }
            None => Some(ReceiptBody::Ignored { reason: Ignored::NoSignal }),
        };
        if let Some(body) = refused {
            return self.receipt(index, wait.reference, body);
        }
        let reply = self.connections[index].reply_to(&wait.reference, false);
        self.connections[index].waits += 1;
        self.receipt(index, wait.reference, ReceiptBody::Waiting {});
        self.core.wait_for_signal(now, id, wait.timeout_ms.map(Duration::from_millis), reply);
    }

    pub(crate) fn show_signal(&mut self, now: Instant, index: usize, get: SignalGet<'_>) {
        let Some(id) = self.signal_id(now, index, &get.signal, Some(get.reference.clone())) else { return };
        if let Err(refused) = self.check_unread(index) {
            let body = self.refusal(refused);
            return self.receipt(index, get.reference, body);
        }
        let report = self.core.signal_view(now, id).map(|view| report(id, &view));
        let body = match report {
            None => ReceiptBody::Ignored { reason: Ignored::NoSignal },
            Some(Ok(report)) => ReceiptBody::Report(report),
            Some(Err(error)) => return self.misunderstood(now, index, Some(get.reference), &error.to_string()),
        };
        self.receipt(index, get.reference, body);
    }

    /// A message is not wanted any more: who has posted it may say so, and who may kill.
    pub(crate) fn cancel(&mut self, now: Instant, index: usize, cancel: &Cancel) {
        let peer = self.connections[index].peer;
        let account = peer.account().id();
        let may_kill = self.config.rights.check(self.own.uid, peer.creds(), Wish::Kill).is_ok();
        let body = match self.core.cancel(now, MessageId(cancel.message), |of| of == account || may_kill) {
            Cancelled::Discarded => ReceiptBody::Cancelled { running: false },
            Cancelled::Told => ReceiptBody::Cancelled { running: true },
            Cancelled::Ignored(reason) => ReceiptBody::Ignored { reason },
            Cancelled::Refused(refused) => self.refusal(refused),
        };
        self.receipt(index, cancel.reference.clone(), body);
        self.apply();
    }

    pub(crate) fn tell_cancelled(&mut self, key: ProcessKey, slot: u32, id: MessageId) {
        let connection = || {
            let process = self.process(key, slot)?;
            // It may have more to do before it reads what it is told.
            process.page.cancel();
            process.connection
        };
        if let Some(index) = self.attached(key, slot).or_else(connection) {
            self.say(index, &Reply::Cancelled(messages::Cancelled { id: id.0 }));
        }
    }

    pub(crate) fn signal_ended(&mut self, reply: ReplyTo, end: &SignalEnd) {
        let body = match end {
            SignalEnd::Triggered(values) => OutcomeBody::Triggered { values: map(values) },
            SignalEnd::Message(outcome) => outcome_body(outcome),
            SignalEnd::TimedOut => OutcomeBody::TimedOut {},
            SignalEnd::Lost => OutcomeBody::Lost {},
        };
        if let Some(index) = self.connection(reply.connection) {
            self.connections[index].waits -= 1;
        }
        self.outcome(reply, body);
    }

    fn signalled(&mut self, index: usize, reference: Option<Ref>, done: Result<Signalled, Refused>) {
        let body = match done {
            Ok(Signalled::Done { first }) => ReceiptBody::Signalled { first },
            Ok(Signalled::Ignored(reason)) => ReceiptBody::Ignored { reason },
            Err(refused) => self.refusal(refused),
        };
        if let Some(reference) = reference {
            self.receipt(index, reference, body);
        }
    }

    /// Whether one more answer may be made that may be large: a worker's requests are never put off.
    fn check_unread(&self, index: usize) -> Result<(), Refused> {
        let unread = self.connections[index].unwritten();
        match unread > UNREAD_MAX {
            true => {
                let detail = format!("{unread} bytes of answers wait to be read on this connection: read some first");
                Err(Refused::new(Refusal::MailboxFull, detail))
            }
            false => Ok(()),
        }
    }

    fn refusal(&mut self, refused: Refused) -> ReceiptBody<'static> {
        self.core.count_refused(refused.reason, None);
        ReceiptBody::Refused { reason: refused.reason, detail: refused.detail }
    }

    /// None, and said, if it is none.
    fn signal_id(&mut self, now: Instant, index: usize, text: &str, reference: Option<Ref>) -> Option<SignalId> {
        let id = SignalId::parse(text);
        if id.is_none() {
            let detail =
                "`signal` is the id of a signal, 32 hexadecimal digits in lower case, as `signal_new` gives it";
            self.misunderstood(now, index, reference, detail);
        }
        id
    }
}

/// All about a signal. Its values are bytes that nobody has decoded.
fn report(id: SignalId, view: &SignalView<'_>) -> Result<Payload<'static>, ArgsError> {
    let nil = || Ok(Payload(NIL.into()));
    let rows = [
        ("signal", Payload::encode(&id.to_string())?),
        ("description", Payload::encode(&view.description)?),
        ("triggered", Payload::encode(&view.triggered)?),
        ("values", view.values.map_or_else(nil, |values| Ok(map(values)))?),
        ("age_ms", Payload::encode(&(view.age.as_millis() as u64))?),
        ("waiters", Payload::encode(&(view.waiters as u64))?),
    ];
    Ok(Payload::map(rows.iter().map(|(key, value)| (*key, &*value.0))))
}

fn map(values: &Values) -> Payload<'static> {
    Payload::map(values.iter().map(|(key, value)| (&**key, &**value)))
}
