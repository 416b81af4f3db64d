// JSON as Workhall means it. Beside what JSON.stringify and JSON.parse do:
//
// - Whole numbers have 64 bits. One that a Number would round is a BigInt, both ways.
// - Bytes are {"$bytes":"base64"} there and a Buffer here (any Uint8Array is taken), a signal is {"$signal":"id"}.
// - What JSON cannot say (functions, NaN, symbols, half a surrogate pair) is a TypeError that names its place, where
//   JSON.stringify would leave it out or send null. What is too large, or too deep, is a RangeError; what holds itself has no end
//   of levels, and is one too, where JSON.stringify throws a TypeError.

import { Buffer } from 'node:buffer';
import { Signal, isSignalId } from './signal.js';

/** Levels that a value may nest. */
const DEPTH_MAX = 64;
const BIGINT_MIN = -(2n ** 63n);
const BIGINT_MAX = 2n ** 64n - 1n;
const HALF_A_PAIR = /[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/;

/** A value as JSON text. `place` names it in errors: "args". */
export function encode(value, place) {
  return write(value, place, 1) ?? 'null';
}

/** Undefined for what JSON.stringify leaves out of an object, and writes as null in an array. */
function write(value, place, depth) {
  switch (typeof value) {
    case 'string':
      if (HALF_A_PAIR.test(value)) throw new TypeError(`${place} holds half a surrogate pair, which is no text`);
      return JSON.stringify(value);
    case 'number':
      if (!Number.isFinite(value)) throw new TypeError(`${place} is ${value}, which cannot be sent`);
      return Object.is(value, -0) ? '-0' : String(value);
    case 'boolean':
      return String(value);
    case 'bigint':
      if (value < BIGINT_MIN || value > BIGINT_MAX) throw new RangeError(`${place} is ${value}: more than 64 bits`);
      return String(value);
    case 'undefined':
      return undefined;
    case 'object':
      break;
    default:
      throw new TypeError(`${place} is a ${typeof value}, which cannot be sent`);
  }
  if (value === null) return 'null';
  if (depth > DEPTH_MAX) throw new RangeError(`${place} is more than ${DEPTH_MAX} levels deep, or holds itself`);
  if (Array.isArray(value)) {
    // What is undefined, or a hole, is null: so an optional argument may be undefined.
    const items = Array.from(value, (item, at) => write(item, `${place}[${at}]`, depth + 1) ?? 'null');
    return `[${items.join(',')}]`;
  }
  if (value instanceof Signal) return `{"$signal":"${value.id}"}`;
  if (value instanceof Uint8Array) {
    const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
    return `{"$bytes":"${bytes.toString('base64')}"}`;
  }
  // Its toJSON says null, as that of NaN would.
  if (value instanceof Date && Number.isNaN(value.getTime())) throw new TypeError(`${place} is an Invalid Date, which cannot be sent`);
  if (typeof value.toJSON === 'function') return write(value.toJSON(), place, depth + 1);
  if (value instanceof Map || value instanceof Set || ArrayBuffer.isView(value) || typeof value.then === 'function') {
    const instead = typeof value.then === 'function' ? 'await it first' : 'make a plain object or an array of it';
    throw new TypeError(`${place} is a ${value.constructor?.name ?? 'thenable'}, which cannot be sent: ${instead}`);
  }
  const members = [];
  // As JSON.stringify does: so an optional field may be undefined.
  for (const [key, member] of Object.entries(value)) {
    const text = write(member, `${place}.${key}`, depth + 1);
    if (text !== undefined) members.push([write(key, `a key of ${place}`, 0), text]);
  }
  // Looked at as it is written: a text may come from a toJSON. One that has escapes is no base64.
  if (members.length === 1 && members[0][0] === '"$bytes"' && members[0][1].startsWith('"') && !isBase64(members[0][1].slice(1, -1))) {
    throw new TypeError(`${place} is {"$bytes": …}, which stands for bytes, and holds no base64: send a Buffer`);
  }
  return `{${members.map((member) => member.join(':')).join(',')}}`;
}

/** As the supervisor reads it: with its padding, and without a bit too much. */
const isBase64 = (text) => Buffer.from(text, 'base64').toString('base64') === text;

/** The value of a JSON text; signals in it belong to `link`. */
export function decode(text, link) {
  const value = /\d{16}/.test(text) ? new Exact(text).whole() : JSON.parse(text);
  // The supervisor writes these two keys as they are, never with escapes.
  return text.includes('"$') ? revive(value, link) : value;
}

function revive(value, link) {
  if (typeof value !== 'object' || value === null) return value;
  const keys = Object.keys(value);
  if (keys.length === 1 && typeof value[keys[0]] === 'string') {
    // What only looks like one is what it is: whoever sends it must not end who reads it. A binary peer may send anything.
    if (keys[0] === '$bytes' && isBase64(value.$bytes)) return Buffer.from(value.$bytes, 'base64');
    if (keys[0] === '$signal' && isSignalId(value.$signal)) return new Signal(link, value.$signal);
  }
  // An own property of the name `__proto__` is assigned like any other.
  for (const key of keys) value[key] = revive(value[key], link);
  return value;
}

/** JSON.parse, with BigInts for whole numbers that a Number would round: for the rare text that has long ones. */
class Exact {
  #text;
  #at = 0;

  constructor(text) {
    this.#text = text;
  }

  whole() {
    const value = this.#value();
    this.#space();
    if (this.#at !== this.#text.length) this.#wrong();
    return value;
  }

  #value() {
    this.#space();
    switch (this.#text[this.#at]) {
      case '{':
        return this.#object();
      case '[':
        return this.#list();
      case '"':
        return this.#string();
      default:
        return this.#scalar();
    }
  }

  #object() {
    const object = {};
    this.#at += 1;
    if (this.#next('}')) return object;
    do {
      this.#space();
      const key = this.#string();
      if (!this.#next(':')) this.#wrong();
      const value = this.#value();
      // Defined, not assigned: `__proto__` is a key like any other.
      Object.defineProperty(object, key, { value, writable: true, enumerable: true, configurable: true });
    } while (this.#next(','));
    if (!this.#next('}')) this.#wrong();
    return object;
  }

  #list() {
    const list = [];
    this.#at += 1;
    if (this.#next(']')) return list;
    do list.push(this.#value());
    while (this.#next(','));
    if (!this.#next(']')) this.#wrong();
    return list;
  }

  #string() {
    return JSON.parse(this.#match(/"(?:[^"\\]|\\.)*"/y));
  }

  #scalar() {
    const word = this.#match(/[-+.\w]+/y);
    const value = JSON.parse(word);
    return /^-?\d+$/.test(word) && !Number.isSafeInteger(value) ? BigInt(word) : value;
  }

  #match(pattern) {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text);
    if (!found) this.#wrong();
    this.#at = pattern.lastIndex;
    return found[0];
  }

  #next(character) {
    this.#space();
    if (this.#text[this.#at] !== character) return false;
    this.#at += 1;
    return true;
  }

  #space() {
    while (' \t\r\n'.includes(this.#text[this.#at] ?? 'x')) this.#at += 1;
  }

  #wrong() {
    throw new SyntaxError(`no JSON at character ${this.#at}`);
  }
}
