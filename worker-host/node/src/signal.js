// A signal: made once, passed anywhere in arguments, triggered once, waited for by many (rules S1 to S5).

import { Lost } from './errors.js';
import { millis } from './checks.js';

const ID = /^[0-9a-f]{32}$/;

/** Whether a text is the id of a signal. */
export const isSignalId = (text) => ID.test(text);

/** A signal. It goes through arguments and results as itself. */
export class Signal {
  #link;
  #values = null;

  constructor(link, id) {
    if (!link || typeof link.ask !== 'function') {
      throw new TypeError('a signal is made by `newSignal()` of a client or of the context of a task');
    }
    if (!ID.test(id)) throw new TypeError(`\`${id}\` is no signal: its id is 32 lower-case hexadecimal digits`);
    this.#link = link;
    Object.defineProperty(this, 'id', { value: id, enumerable: true });
  }

  /** The values, once a `wait` or a `get` has seen it triggered; until then null. */
  get values() {
    return this.#values;
  }

  /** Writes a value, to be read after the trigger. False if it is triggered already. Rejects with `Lost` if nobody holds it. */
  async set(key, value) {
    if (typeof key !== 'string') throw new TypeError('the key of a value is a text');
    const answer = await this.#ask('signal_set', { key, value });
    if (answer.ignored?.reason === 'no_signal') throw this.#lost();
    return answer.ignored === undefined;
  }

  /**
   * Triggers it, after it was given these values. True if this was the first trigger. Rejects with `Lost` if nobody holds
   * it any more.
   */
  async trigger(values = {}) {
    const pairs = Object.entries(values);
    // All at once: they are executed in this order.
    const answers = pairs.map(([key, value]) => this.set(key, value));
    const triggered = this.#ask('signal_trigger', {});
    await Promise.all([...answers, triggered]);
    const answer = await triggered;
    if (answer.ignored) throw this.#lost();
    return answer.signalled.first;
  }

  /**
   * Waits until it is triggered; true at once if it is. False after `timeout` seconds (0 polls, left out is for ever).
   * Rejects if the message that carried it has ended without triggering it, with what became of that message (rule S5),
   * or with `Lost` if nobody is left who could.
   */
  async wait(timeout) {
    const fields = { signal: this.id, timeout_ms: millis(timeout, 'timeout') };
    const answer = await this.#link.ask('signal_wait', fields, { wait: true, what: this.#name() });
    if (answer.ignored) throw this.#lost();
    if (answer.timed_out) return false;
    if (answer.lost) throw new Lost(`${this.#name()} was not triggered, and nobody is left who was to do it`);
    this.#values = answer.triggered.values;
    return true;
  }

  /** Whether it is triggered. */
  async signaled() {
    return (await this.info()).triggered;
  }

  /** The value of a key, or all of them; null before the trigger, undefined if that key was not written. */
  async get(key) {
    const { values } = await this.info();
    this.#values = values;
    if (key === undefined || values === null) return values;
    return Object.hasOwn(values, key) ? values[key] : undefined;
  }

  /** All about it. */
  async info() {
    const answer = await this.#ask('signal_get', {});
    if (answer.ignored) throw this.#lost();
    return answer.report;
  }

  /** This connection holds it no more. False if it did not. */
  async free() {
    return (await this.#ask('signal_free', {})).ignored === undefined;
  }

  #ask(kind, fields) {
    return this.#link.ask(kind, { signal: this.id, ...fields }, { what: this.#name() });
  }

  #name() {
    return `signal ${this.id}`;
  }

  #lost() {
    return new Lost(`there is no ${this.#name()} (any more): the last who held it is gone`);
  }
}
