// What a client may ask of the supervisor. The context of a task can do the same on the worker's own connection.

import net from 'node:net';
import process from 'node:process';
import { address, list, method, millis, options } from './checks.js';
import { AlreadyRunning, NoSupervisor, TimedOut } from './errors.js';
import { Link } from './link.js';
import { Signal } from './signal.js';

/** Rows of one page of `ps`. */
const PAGE = 1000;

/** Who can call: a client, or a worker while it executes a task. */
export class Caller {
  #link;

  constructor(link) {
    this.#link = link;
  }

  /**
   * Posts a message and resolves with its receipt: `{ worker, number, message }`, or `{ ignored: reason }`. Its execution
   * is not waited for (rule C1).
   */
  async call(worker, methodName = '', args = [], given = {}) {
    const { existing, expires, after, timeout } = options(given, ['existing', 'expires', 'after', 'timeout'], 'call');
    const how = { what: named(methodName, worker), timeout: seconds(timeout) };
    const body = await this.#link.ask('call', callFields(worker, methodName, args, { existing, expires, after }), how);
    return body.accepted ?? { ignored: body.ignored.reason };
  }

  /**
   * The same, and resolves with the method's result. Rejects with `Failed`, `Discarded`, `Expired` or `Dead`; with
   * `TimedOut` after `timeout` seconds. Resolves with undefined if the call was ignored.
   */
  async callAndWait(worker, methodName = '', args = [], given = {}) {
    const { existing, expires, after, timeout } = options(given, ['existing', 'expires', 'after', 'timeout'], 'callAndWait');
    const how = { what: named(methodName, worker), timeout: seconds(timeout), wait: true };
    const fields = callFields(worker, methodName, args, { existing, expires, after });
    const body = await this.#link.ask('call', { ...fields, wait: true }, how);
    return body.done ? body.done.result : undefined;
  }

  /** Kills a worker (rule K1): `{ discarded }`, or `{ ignored: reason }`. */
  async kill(worker, given = {}) {
    const body = await this.#link.ask('kill', killFields(worker, given, 'kill'), { what: `kill of ${worker}` });
    return body.killed ?? { ignored: body.ignored.reason };
  }

  /** The same, and resolves with the whole report when its process is gone (rule K12), or `{ ignored: reason }`. */
  async killAndWait(worker, given = {}) {
    const how = { what: `kill of ${worker}`, wait: true, timeout: seconds(given?.timeout) };
    const body = await this.#link.ask('kill', { ...killFields(worker, given, 'killAndWait'), wait: true }, how);
    return body.killed ?? { ignored: body.ignored.reason };
  }

  /** All workers, as `workhall ps --json` prints them. */
  async ps() {
    const rows = [];
    for (let after; ; after = rows.at(-1).at) {
      const page = (await this.#link.ask('list', { after, limit: PAGE }, { what: 'ps' })).report;
      rows.push(...page);
      if (page.length < PAGE) return rows;
    }
  }

  /** All about one worker, as `workhall info --json` prints it; null if there is none. */
  async info(worker) {
    return (await this.#link.ask('info', { worker: address(worker) }, { what: `info of ${worker}` })).report ?? null;
  }

  /** The supervisor, as `workhall status --json` prints it. */
  async status() {
    return (await this.#link.ask('status', {}, { what: 'status' })).report;
  }

  /** Resolves when the worker is `idle`, `gone`, `empty` or has `room`. Rejects with `TimedOut` after `timeout` seconds. */
  async wait(worker, until, given = {}) {
    const { timeout } = options(given, ['timeout'], 'wait');
    const known = ['idle', 'gone', 'empty', 'room'];
    if (!known.includes(until)) throw new TypeError(`one waits until a worker is ${known.join(', ')}, not ${until}`);
    const how = { what: `wait for ${worker} to be ${until}`, wait: true, timeout: seconds(timeout) };
    await this.#link.ask('wait', { worker: address(worker), until }, how);
  }

  /** Stops the process of a worker where it is (rule P4). False if there is no such worker. */
  async pause(worker) {
    return (await this.#link.ask('pause', { worker: address(worker) }, { what: `pause of ${worker}` })).ignored === undefined;
  }

  /** Continues it, or ends the pause of one that crashed too often. False if there is no such worker. */
  async resume(worker) {
    return (await this.#link.ask('resume', { worker: address(worker) }, { what: `resume of ${worker}` })).ignored === undefined;
  }

  /**
   * A message is not wanted any more: `{ running: false }` if it was discarded, `{ running: true }` if it is executed and its
   * process was told, null if there is no such message (any more).
   */
  async cancel(message) {
    if (typeof message !== 'bigint' && !Number.isSafeInteger(message)) {
      throw new TypeError('a message is named by its number, `message` of the receipt');
    }
    return (await this.#link.ask('cancel', { message }, { what: `cancel of message ${message}` })).cancelled ?? null;
  }

  /**
   * Starts a process that executes one method and ends with it (rule P1): `{ worker, number, message }`, or with `unique`
   * `{ running: { worker, number } }` if a process of this name is there already.
   */
  async run(className, methodName = '', args = [], given = {}) {
    const how = { what: `run of ${className}` };
    const body = await this.#link.ask('run', runFields(className, methodName, args, given, 'run'), how);
    return body.accepted ?? { running: body.running };
  }

  /** The same, and resolves with the method's result. Rejects as `callAndWait` does, and with `AlreadyRunning`. */
  async runAndWait(className, methodName = '', args = [], given = {}) {
    const how = { what: `run of ${className}`, wait: true, timeout: seconds(given?.timeout) };
    const fields = { ...runFields(className, methodName, args, given, 'runAndWait'), wait: true };
    const body = await this.#link.ask('run', fields, how);
    if (body.running) throw new AlreadyRunning(body.running);
    return body.done.result;
  }

  /** Makes a signal. This connection holds it until it ends or `free()`, and all do for `keep` seconds. */
  async newSignal(given = {}) {
    const { description, keep } = options(given, ['description', 'keep'], 'newSignal');
    const fields = { description, keep_ms: millis(keep, 'keep') };
    return new Signal(this.#link, (await this.#link.ask('signal_new', fields, { what: 'a new signal' })).signal.id);
  }

  /** The signal with this id. */
  signal(id) {
    return new Signal(this.#link, id);
  }
}

/** A connection of its own, for programs that call. */
export class Client extends Caller {
  #link;

  constructor(link) {
    super(link);
    this.#link = link;
  }

  /** Resolves when the connection has ended, whoever has ended it. */
  get ended() {
    return this.#link.ended;
  }

  /** Ends the connection. What is unanswered is rejected with `Closed`. */
  close() {
    return this.#link.close();
  }
}
if (Symbol.asyncDispose) {
  Client.prototype[Symbol.asyncDispose] = function dispose() {
    return this.close();
  };
}

/** Connects to the supervisor. */
export async function connect(given = {}) {
  const { socket, timeout } = options(given, ['socket', 'timeout'], 'connect');
  return new Client(new Link(await open(socket, timeout)));
}

/** The path of the supervisor's socket, as the command line finds it. */
function socketPath(given) {
  const { WORKHALL_SOCKET, XDG_RUNTIME_DIR } = process.env;
  if (given !== undefined && typeof given !== 'string') throw new TypeError('`socket` is a path');
  const beside = XDG_RUNTIME_DIR ? `${XDG_RUNTIME_DIR}/workhall/workhall.sock` : '/run/workhall/workhall.sock';
  return given || WORKHALL_SOCKET || beside;
}

/** A connected socket. */
export function open(given, timeout) {
  const path = socketPath(given);
  const limit = seconds(timeout);
  return new Promise((resolve, reject) => {
    const socket = net.connect({ path });
    const late = { what: `to connect to ${path}`, state: () => 'the supervisor does not take connections', place: () => ({}) };
    const timer = limit !== undefined && setTimeout(() => {
      socket.destroy();
      reject(new TimedOut(limit, late));
    }, limit * 1000);
    const refused = (cause) => {
      clearTimeout(timer);
      reject(new NoSupervisor(path, cause));
    };
    socket.once('error', refused);
    socket.once('connect', () => {
      clearTimeout(timer);
      socket.off('error', refused);
      resolve(socket);
    });
  });
}

/** Left out, a flag is false. */
const flag = (given) => (given ? true : undefined);

function seconds(timeout) {
  millis(timeout, 'timeout');
  return timeout;
}

function named(methodName, worker) {
  return `${methodName ? `\`${methodName}\`` : 'the startup method'} for ${worker}`;
}

function callFields(worker, methodName, args, { existing, expires, after }) {
  return {
    worker: address(worker),
    method: method(methodName),
    args: list(args),
    existing: flag(existing),
    expires_ms: millis(expires, 'expires'),
    in_ms: millis(after, 'after'),
  };
}

function killFields(worker, given, of) {
  const known = of === 'kill' ? ['within', 'drain', 'now'] : ['within', 'drain', 'now', 'timeout'];
  const { within, drain, now } = options(given, known, of);
  return {
    worker: worker === undefined ? undefined : address(worker),
    within_ms: millis(within, 'within'),
    drain: flag(drain),
    now: flag(now),
  };
}

function runFields(className, methodName, args, given, of) {
  const { name, unique } = options(given, of === 'run' ? ['name', 'unique'] : ['name', 'unique', 'timeout'], of);
  if (typeof className !== 'string' || className === '') throw new TypeError('a class is named by a text');
  return { class: className, method: method(methodName), args: list(args), name, unique: flag(unique) };
}
