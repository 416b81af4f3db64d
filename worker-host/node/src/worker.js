// A worker: tasks one at a time and in order, from the supervisor that has started this process, or to which it attaches.

import net from 'node:net';
import process from 'node:process';
import { inspect } from 'node:util';
import fs from 'node:fs';
import { list as checkedList, options } from './checks.js';
import { Caller, open } from './client.js';
import { NotStartedBySupervisor, WorkhallError } from './errors.js';
import { inherited } from './inherited.js';
import { Link, lineOf } from './link.js';

const PROTOCOL = 1;
/** Characters of an error that go to who waits. */
const ERROR_MAX = 8192;
/** Where the supervisor says in the mark page that no more tasks are to be begun. */
const STOP_AT = 64;

let taken = false;

/** The task that is executed, and the way to other workers. */
export class Context extends Caller {
  #session;
  #task;
  #abort = new AbortController();

  constructor(session, task) {
    super(session.link);
    this.#session = session;
    this.#task = task;
  }

  /** The worker's state, the same for all tasks. May be replaced. */
  get state() {
    return this.#session.worker.state;
  }

  set state(value) {
    this.#session.worker.state = value;
  }

  get name() {
    return this.#session.welcome.worker;
  }

  get number() {
    return this.#session.welcome.number;
  }

  get generation() {
    return this.#session.welcome.generation;
  }

  get message() {
    return this.#task.id;
  }

  get method() {
    return this.#task.method;
  }

  get sender() {
    return this.#task.from ?? null;
  }

  /** Whether this worker was killed, or the supervisor is gone. */
  get endRequested() {
    return this.#session.isEnding();
  }

  /** Whether the message is not wanted any more. Only an `await` lets the news come in. */
  get cancelled() {
    return this.#abort.signal.aborted;
  }

  /** The same as an AbortSignal, for `fetch` and its like. */
  get abortSignal() {
    return this.#abort.signal;
  }

  /** Calls back the worker that sent the message, by its number. */
  async reply(methodName, args = [], given = {}) {
    if (!this.sender) throw new TypeError('the message was sent by a client, which cannot be called back');
    return this.call(this.sender.number, methodName, args, given);
  }

  /** Kills this worker itself: the rest of this task still runs (rule K3). */
  killSelf() {
    return this.kill();
  }

  /** Not for methods. */
  static cancel(context) {
    context.#abort.abort(new WorkhallError(`message ${context.message} is not wanted any more`));
  }
}

/** One life of a worker on one connection. */
class Session {
  link = null;
  welcome = null;
  #queue = [];
  #current = null;
  #ending = false;
  #fault = null;
  #held;
  #over;
  #parent = process.ppid;
  #stopWord;

  over = new Promise((resolve, reject) => {
    this.#over = { resolve, reject };
  });

  /** `held`: nothing is begun before `begin`. */
  constructor(worker, socket, { markFd, held = false } = {}) {
    this.worker = worker;
    this.#held = held;
    this.#stopWord = markFd;
    this.welcomed = new Promise((resolve) => {
      this.isWelcome = resolve;
    });
    this.link = new Link(socket, {
      welcome: (body) => {
        this.welcome = body;
        this.isWelcome();
      },
      task: (body) => {
        if (!this.#ending) this.#queue.push(body);
      },
      // Nothing is begun before: the kill, or the cancel, of a task may stand behind it.
      read: () => this.#next(),
      kill: () => this.#end(),
      cancelled: ({ id }) => {
        if (this.#current?.message === id) Context.cancel(this.#current);
        // The window is 1: what was not begun is the only one.
        else if (this.#queue[0]?.id === id) this.link.say('dropped', { id: this.#queue.shift().id });
      },
      error: (fault) => {
        this.#fault ??= fault;
        this.#end();
      },
      gone: (end) => {
        if (!(end.name === 'SupervisorGone' || end.name === 'Closed')) this.#fault ??= end;
        this.#end();
      },
    });
  }

  isEnding() {
    if (this.#ending) return true;
    if (this.#stopWord === undefined) return false;
    // Read, not mapped: it is seen even by a method that never lets the event loop run.
    const word = new Uint8Array(8);
    return fs.readSync(this.#stopWord, word, 0, 8, STOP_AT) === 8 && word.some((byte) => byte !== 0);
  }

  begin() {
    this.#held = false;
    this.#next();
  }

  /** The supervisor has asked for the end, or is gone: the current task is the last. */
  #end() {
    this.#ending = true;
    this.#queue = [];
    if (!this.#current) this.#finish();
  }

  async #finish() {
    await this.link.close('this worker has ended');
    if (this.#fault) this.#over.reject(this.#fault);
    else this.#over.resolve(this.link.end);
  }

  async #next() {
    if (this.#held || this.#current || this.#queue.length === 0) return;
    const task = this.#queue.shift();
    // What came just before the supervisor's sudden death is not begun any more (rule D7).
    if (this.#stopWord !== undefined && process.ppid !== this.#parent) return this.#end();
    const context = new Context(this, task);
    this.#current = context;
    const settlement = await this.worker.execute(context, task);
    this.#settle(task, settlement);
    this.#current = null;
    if (this.#ending) this.#finish();
    else this.#next();
  }

  #settle({ id, wait }, { error, result }) {
    if (error !== undefined) return this.link.say('failed', { id, error });
    try {
      // A result that nobody hears is not sent; one that cannot be sent is a failure, whoever waits.
      const line = lineOf('done', { id, result });
      if (wait) this.link.sayLine(line);
      else this.link.say('done', { id });
    } catch (reason) {
      this.link.say('failed', { id, error: bounded(`the result cannot be sent: ${describe(reason, briefly)}`) });
    }
  }
}

/** A worker: its state, and the methods that may be called. */
export class Worker {
  #methods = new Map();
  #onError = null;
  #onEnd = null;
  /** It is attached, or runs: its methods have one state, and one of them is executed at a time. */
  #isBusy = false;

  constructor(state) {
    this.state = state;
  }

  /**
   * Adds a method, `fn(context, ...args)`, sync or async. A call must have as many arguments as `fn` declares; with defaults
   * or a rest, at least those before them. `takes` says it otherwise: a number, or the least and the most as an array.
   */
  method(name, fn, given = {}) {
    if (typeof name !== 'string') throw new TypeError('a method has a text as its name');
    if (typeof fn !== 'function') throw new TypeError(`the method \`${name}\` is a function, not ${typeof fn}`);
    const least = Math.max(fn.length - 1, 0);
    const { takes = [least, isPlain(fn) ? least : Infinity] } = options(given, ['takes'], 'method');
    const [from, to] = typeof takes === 'number' ? [takes, takes] : checkedList(takes);
    this.#methods.set(name, { fn, least: from, most: to });
    return this;
  }

  /** The one error hook of the process (rule D3): `fn(error, context)`, before the message is settled as failed. */
  onError(fn) {
    if (typeof fn !== 'function') throw new TypeError('the error hook is a function');
    this.#onError = fn;
    return this;
  }

  /** Runs after the last task, before the process ends or `ended` resolves. */
  onEnd(fn) {
    if (typeof fn !== 'function') throw new TypeError('what runs at the end is a function');
    this.#onEnd = fn;
    return this;
  }

  /**
   * Executes tasks until the supervisor asks for the end or is gone; then the process ends, whatever timers and
   * connections it still has. With `exit: false` it is left alone, and the promise resolves. Rejects with a TypeError while
   * it is attached.
   */
  async run(given = {}) {
    const { exit = true } = options(given, ['exit'], 'run');
    this.#checkIdle();
    if (taken) throw new TypeError('WORKHALL_FD was taken already: a process runs one worker');
    const { number, isSocket } = inherited('WORKHALL_FD');
    if (!isSocket) throw new NotStartedBySupervisor(`WORKHALL_FD is ${number}, which is not the supervisor's connection`);
    const markFd = process.env.WORKHALL_MARK_FD ? inherited('WORKHALL_MARK_FD').number : undefined;
    const socket = new net.Socket({ fd: number, readable: true, writable: true });
    taken = true;
    this.#isBusy = true;
    const session = new Session(this, socket, { markFd });
    session.link.say('ready', { protocol: PROTOCOL, window: 1 });
    await this.#over(session);
    await this.#onEnd?.();
    if (exit) process.exit();
  }

  /**
   * Makes this process, which someone else has started, the worker of a name (rule P2). Resolves when the supervisor has
   * agreed, rejects with `Refused` if the name is taken or not permitted, and with a TypeError while it is attached already,
   * or runs. Once it has left it may attach again.
   */
  async attach(name, given = {}) {
    const { socket, timeout } = options(given, ['socket', 'timeout'], 'attach');
    if (typeof name !== 'string' || name === '') throw new TypeError('a worker has a text as its name');
    this.#checkIdle();
    this.#isBusy = true;
    let session;
    try {
      session = new Session(this, await open(socket, timeout), { held: true });
      const asked = session.link.ask('attach', { protocol: PROTOCOL, worker: name }, { what: `attach as ${name}`, timeout });
      await Promise.race([session.welcomed, asked]);
      asked.catch(() => {});
    } catch (error) {
      // Who was refused is a client as any other, which nobody needs.
      session?.over.catch(() => {});
      await session?.link.close();
      this.#isBusy = false;
      throw error;
    }
    const ended = this.#over(session).then(async (end) => {
      await this.#onEnd?.();
      return end;
    });
    ended.catch(() => {});
    // A task may have come together with the welcome, and its method may need what this promise resolves with.
    setImmediate(() => session.begin());
    return new Attached(session, ended);
  }

  #checkIdle() {
    if (!this.#isBusy) return;
    const instead = 'make another one for another name, or wait until it has left';
    throw new TypeError(`this Worker is attached already, or runs, and executes one task at a time: ${instead}`);
  }

  /** When its last task has ended. From then on, also in the hook of the end, it may attach again. */
  #over(session) {
    return session.over.finally(() => {
      this.#isBusy = false;
    });
  }

  /** Not for users: executes one task, and says how it ended. */
  async execute(context, task) {
    try {
      return { result: await this.#call(context, task) };
    } catch (error) {
      let text = describe(error);
      try {
        await this.#onError?.(error, context);
      } catch (hook) {
        text += `\nand the error hook failed: ${describe(hook)}`;
      }
      return { error: bounded(text) };
    }
  }

  #call(context, { method: name, args }) {
    const method = this.#methods.get(name);
    if (!method) throw new Mistake(unknown(name, [...this.#methods.keys()]));
    if (!Array.isArray(args)) throw new Mistake(`the arguments of \`${name}\` are no list`);
    const { fn, least, most } = method;
    if (args.length < least || args.length > most) {
      const takes = most === Infinity ? `at least ${least}` : least === most ? `${least}` : `${least} to ${most}`;
      throw new Mistake(`the arguments of \`${name}\` do not fit: it takes ${takes}, and ${args.length} came`);
    }
    return fn(context, ...args);
  }
}

/** An attached worker, as its own program sees it. */
class Attached extends Caller {
  #session;

  constructor(session, ended) {
    super(session.link);
    this.#session = session;
    this.ended = ended.then((end) => (end.name === 'SupervisorGone' ? 'gone' : 'left'));
    this.ended.catch(() => {});
  }

  get name() {
    return this.#session.welcome.worker;
  }

  get number() {
    return this.#session.welcome.number;
  }

  /**
   * Ends it after the current task, or with `drain` after all that waits. Resolves as `ended` does; rejects with `Closed` or
   * `SupervisorGone` if it has ended already.
   */
  async leave(given = {}) {
    const { drain } = options(given, ['drain'], 'leave');
    // What cannot be asked any more says why.
    if (this.#session.link.end) await this.#session.link.ask('leave', {});
    this.#session.link.say('leave', { drain: drain ? true : undefined });
    return this.ended;
  }
}

/** A worker of these methods, run at once: `worker({ state, methods: { add(context, amount) { … } } })`. */
export async function worker(given) {
  const { state, methods, onError, onEnd, exit } = options(given, ['state', 'methods', 'onError', 'onEnd', 'exit'], 'worker');
  if (methods === null || typeof methods !== 'object') throw new TypeError('`methods` is an object of functions');
  const made = new Worker(state);
  for (const [name, fn] of Object.entries(methods)) made.method(name, fn);
  if (onError) made.onError(onError);
  if (onEnd) made.onEnd(onEnd);
  return made.run(exit === undefined ? {} : { exit });
}

/** Whether a function's parameters are seen to be all there are: no default, no rest, nothing odd. */
function isPlain(fn) {
  return /^(?:async\s*)?(?:function\s*\*?\s*)?[\w$]*\s*\([\w$\s,{}:]*\)|^(?:async\s+)?[\w$]+\s*=>/.test(Function.prototype.toString.call(fn))
    && !/\[native code\]/.test(Function.prototype.toString.call(fn));
}

/** An error whose stack says nothing: the mistake is the caller's. */
class Mistake extends WorkhallError {}

function unknown(name, known) {
  if (known.length === 0) return `there is no method \`${name}\`: this worker has none`;
  return `there is no method \`${name}\`: this worker has ${known.sort().map((each) => `\`${each}\``).join(', ')}`;
}

/** What was thrown, for who waits. Anything can be thrown, also what throws again when it is looked at. */
function describe(error, first = shown) {
  for (const look of [first, shown, ({ name, message }) => `${name}: ${message}`, ({ message }) => `${message}`, ({ name }) => `${name}`, String]) {
    try {
      return look(error);
    } catch {
      // The next one looks at less.
    }
  }
  return 'something was thrown that cannot be shown';
}

/** Of what cannot be sent: where it stands is said by its text, and from where that was found is nobody's business. */
function briefly(error) {
  return error instanceof TypeError || error instanceof RangeError ? `${error.message}` : shown(error);
}

function shown(error) {
  if (error instanceof Mistake) return error.message;
  const lines = inspect(error, { depth: 3 }).split('\n');
  // Where a method was called from is the same for all.
  return lines.filter((line) => !(line.startsWith('    at ') && line.includes(import.meta.url))).join('\n');
}

function bounded(text) {
  const whole = text.toWellFormed?.() ?? text.replace(/[\ud800-\udfff]/gu, '\ufffd');
  if (whole.length <= ERROR_MAX) return whole;
  const cut = whole.slice(0, ERROR_MAX).replace(/[\ud800-\udbff]$/, '');
  return `${cut}… (${whole.length - cut.length} more characters)`;
}
