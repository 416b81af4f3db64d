// A connection to the supervisor, of a worker or a client: JSON lines, requests by their `ref`, and what is still
// unanswered when it ends.

import { Buffer } from 'node:buffer';
import process from 'node:process';
import {
  Closed, Dead, Discarded, Expired, Failed, NotUnderstood, Refused, SupervisorGone, TimedOut,
} from './errors.js';
import { decode, encode } from './json.js';

/** Bytes of a line without its newline. */
const LINE_MAX = 16 << 20;
/** The longest time that a timer of Node takes, in milliseconds. */
const TIMER_MAX = 2 ** 31 - 1;

/** Messages that are no answers, and are handed on. */
const KINDS = new Set(['welcome', 'task', 'kill', 'cancelled']);

/** What became of a message that is waited for, and is no answer. */
const ENDINGS = { failed: Failed, discarded: Discarded, expired: Expired, dead: Dead };

/** A request whose answer is due. */
class Asked {
  /** None, `sent`, or what the receipt has said: then an outcome is due. */
  receipt = null;
  sent = false;

  constructor(kind, fields, { wait = false, what = kind }) {
    Object.assign(this, { kind, wait, what, worker: fields.worker ?? fields.class, method: fields.method });
    this.promise = new Promise((resolve, reject) => Object.assign(this, { resolve, reject }));
  }

  /** What is known of it, for people. */
  state() {
    const posts = this.kind === 'call' || this.kind === 'run';
    if (!this.sent) return 'it was not sent, and nothing has happened';
    if (this.receipt?.accepted) {
      // Where it is now nobody knows: with a supervisor its mailboxes are gone.
      return `it was accepted as message ${this.receipt.accepted.message}; whether it was executed is not known`;
    }
    if (this.receipt) return 'it was taken in; its outcome is not known';
    if (posts) return 'whether it was posted, and may have been executed, is not known';
    return this.kind === 'kill' ? 'whether the kill was posted is not known' : 'it was not answered';
  }

  /** The same, for programs. `posted`: true, false, or null where it is not known. */
  place() {
    const { worker, method } = this;
    const posted = this.sent ? (this.receipt ? true : null) : false;
    const place = { request: this.kind, posted, messageId: this.receipt?.accepted?.message ?? null };
    return { ...place, ...(worker === undefined ? {} : { worker }), ...(method === undefined ? {} : { method }) };
  }
}

export class Link {
  #socket;
  #handlers;
  #asked = new Map();
  #nextRef = 0;
  #parts = [];
  #partBytes = 0;
  #corked = false;
  #complaint = null;
  #end = null;
  #whenEnded;

  /** Resolves when the connection has ended, never rejects. */
  ended = new Promise((resolve) => {
    this.#whenEnded = resolve;
  });

  /**
   * `handlers` are functions by the kinds of messages that are no answers, `KINDS`; `read` is called after all messages of a
   * read, `error` with what the supervisor did not understand, `gone` with why the connection has ended.
   */
  constructor(socket, handlers = {}) {
    this.#socket = socket;
    this.#handlers = handlers;
    socket.on('data', (chunk) => this.#take(chunk));
    socket.on('error', (error) => this.#ending(new SupervisorGone(this.#gone(` (${error.code})`), null, [])));
    socket.on('end', () => this.#ending(new SupervisorGone(this.#gone(''), null, [])));
    socket.on('close', () => this.#ending(new SupervisorGone(this.#gone(''), null, [])));
  }

  /** Why it has ended; null while it has not. */
  get end() {
    return this.#end;
  }

  /**
   * Asks, and resolves with the receipt's body, or with the outcome's where `wait` says that one is due. Rejects where the
   * answer is no answer.
   */
  ask(kind, fields, { wait = false, what = kind, timeout } = {}) {
    const asked = new Asked(kind, fields, { wait, what });
    if (this.#end) {
      asked.reject(this.#goneFor(asked, []));
      return asked.promise;
    }
    const ref = ++this.#nextRef;
    // May throw: then nothing was sent.
    const line = lineOf(kind, { ...fields, ref });
    this.#asked.set(ref, asked);
    this.#write(line);
    asked.sent = true;
    if (timeout !== undefined) {
      const late = () => this.#settle(ref, (request) => request.reject(new TimedOut(timeout, request)));
      asked.timer = setTimeout(late, Math.min(timeout * 1000, TIMER_MAX));
    }
    return asked.promise;
  }

  /** Says something that has no answer. */
  say(kind, fields) {
    this.sayLine(lineOf(kind, fields));
  }

  /** The same with a line that is made already. */
  sayLine(line) {
    this.#write(line);
  }

  /** Ends it from this side, after what was said; resolves when all is written. */
  close(why = 'this connection was closed') {
    this.#ending(new Closed(why, null, []));
    return new Promise((resolve) => {
      if (this.#socket.destroyed) return resolve();
      this.#socket.once('close', resolve);
      this.#socket.end(() => this.#socket.destroy());
    });
  }

  #write(line) {
    if (this.#end) return;
    // What is said in one turn goes in one piece.
    if (!this.#corked) {
      this.#corked = true;
      this.#socket.cork();
      process.nextTick(() => {
        this.#corked = false;
        this.#socket.uncork();
      });
    }
    this.#socket.write(line);
  }

  #take(chunk) {
    let start = 0;
    for (let end; (end = chunk.indexOf(0x0a, start)) >= 0; start = end + 1) {
      let line = chunk.subarray(start, end);
      if (this.#parts.length > 0) {
        line = Buffer.concat([...this.#parts, line]);
        this.#parts = [];
        this.#partBytes = 0;
      }
      if (line.length > 0) this.#line(line.toString('utf8'));
    }
    this.#handlers.read?.();
    if (start < chunk.length) {
      this.#parts.push(chunk.subarray(start));
      this.#partBytes += chunk.length - start;
      if (this.#partBytes > LINE_MAX) this.#strange('a line of more than 16 MiB');
    }
  }

  #line(text) {
    if (this.#end && !(this.#end instanceof Closed)) return;
    let message;
    try {
      message = decode(text, this);
    } catch (error) {
      return this.#strange(`${error.message}: ${text.slice(0, 80)}`);
    }
    if (message === null || typeof message !== 'object') return this.#strange(text.slice(0, 80));
    // An object of one key. Kinds that a later supervisor may have are left alone.
    const [kind] = Object.keys(message);
    const body = message[kind] ?? {};
    if (kind === 'task' && !isTask(body)) return this.#strange(text.slice(0, 80));
    if (kind === 'receipt') this.#receipt(body);
    else if (kind === 'outcome') this.#outcome(body);
    else if (kind === 'error') this.#error(body);
    else if (KINDS.has(kind)) this.#handlers[kind]?.(body);
  }

  #receipt(body) {
    const asked = this.#asked.get(body.ref);
    if (!asked) return;
    asked.receipt = body;
    if (body.refused) return this.#settle(body.ref, () => asked.reject(new Refused(body.refused, asked.what)));
    if (body.failed) return this.#settle(body.ref, () => asked.reject(new Failed(body.failed, asked.what)));
    const outcomeIsDue = asked.wait && (body.accepted || body.killed || body.waiting);
    if (!outcomeIsDue) this.#settle(body.ref, () => asked.resolve(body));
  }

  #outcome(body) {
    this.#settle(body.ref, (asked) => {
      const kind = Object.keys(ENDINGS).find((name) => body[name]);
      if (!kind) return asked.resolve(body);
      const error = new ENDINGS[kind](body[kind], asked.what);
      error.messageId = asked.receipt?.accepted?.message ?? null;
      asked.reject(error);
    });
  }

  #error({ ref, detail }) {
    if (ref != null) {
      const not = (asked) => asked.reject(new NotUnderstood(`the supervisor did not understand ${asked.what}: ${detail}`));
      return this.#settle(ref, not);
    }
    // It is said before the connection is ended, or of something that has no answer.
    this.#complaint = detail;
    this.#handlers.error?.(new NotUnderstood(`the supervisor did not understand: ${detail}`));
  }

  /** Ends the wait for an answer. One that comes later finds nobody, which is no error. */
  #settle(ref, how) {
    const asked = this.#asked.get(ref);
    if (!asked) return;
    this.#asked.delete(ref);
    clearTimeout(asked.timer);
    how(asked);
  }

  #strange(what) {
    this.#ending(new NotUnderstood(`this is no supervisor that this library understands: ${what}`));
    this.#socket.destroy();
  }

  #gone(detail) {
    return this.#complaint === null
      ? `the supervisor is gone${detail}`
      : `the supervisor has ended the connection: ${this.#complaint}`;
  }

  #goneFor(asked, unanswered) {
    const end = this.#end;
    if (!(end instanceof SupervisorGone)) return new NotUnderstood(`${end.message}: ${asked.what}: ${asked.state()}`);
    const why = end.message.replace(/: nothing was asked$/, '');
    return new end.constructor(why, asked, unanswered);
  }

  #ending(end) {
    if (this.#end) return;
    this.#end = end;
    const unanswered = [...this.#asked.values()].map((asked) => asked.place());
    for (const ref of [...this.#asked.keys()]) {
      this.#settle(ref, (asked) => asked.reject(this.#goneFor(asked, unanswered)));
    }
    this.#handlers.gone?.(end);
    this.#whenEnded();
  }
}

/** A message as a line. Throws if it cannot be said. */
export function lineOf(kind, fields) {
  const members = [];
  for (const [key, value] of Object.entries(fields)) {
    if (value !== undefined) members.push(`"${key}":${encode(value, placeOf(key))}`);
  }
  const line = `{"${kind}":{${members.join(',')}}}\n`;
  if (line.length > LINE_MAX / 4 && Buffer.byteLength(line) > LINE_MAX + 1) {
    throw new RangeError(`${kind}: ${Buffer.byteLength(line)} bytes, more than the 16 MiB that a message may have`);
  }
  return line;
}

/** What can be settled: whatever else is wrong with it is its own failure. */
const isTask = ({ id }) => typeof id === 'number' || typeof id === 'bigint';

const placeOf = (key) => (key === 'args' ? 'args' : `\`${key}\``);
