import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decode, encode } from '../src/json.js';
import { Signal } from '../src/signal.js';

const link = { ask() {} };
const ID = '0123456789abcdef0123456789abcdef';

test('what JSON can say is said as JSON.stringify does', () => {
  for (const value of [
    null, true, 0, -1, 1.5, 1e300, 5e-324, '', 'a"\\\n\u0000\u2028é😀', [], {}, [1, [2, [3]]], { a: { b: [null] }, 'k"': 1 },
    { gone: undefined, list: [undefined] }, Array(2), { ['__proto__']: 1 }, new Date(0), [new Date(5)],
    // What toJSON makes undefined is what is undefined.
    { gone: { toJSON() {} }, kept: { toJSON: () => 1 } }, [{ toJSON() {} }], { list: [1, { toJSON() {} }], gone: { toJSON: () => ({ toJSON() {} }).nothing } },
    { ['\ud800']: { toJSON() {} } },
  ]) {
    assert.equal(encode(value, 'v'), JSON.stringify(value));
    assert.deepEqual(decode(JSON.stringify(value), link), JSON.parse(JSON.stringify(value)));
  }
});

test('whole numbers keep their 64 bits', () => {
  const text = '[9007199254740991,9007199254740993,-9223372036854775808,18446744073709551615,1234567890123456.5,1e400]';
  const value = decode(text.replace('1e400', '1e40'), link);
  assert.deepEqual(value, [9007199254740991, 9007199254740993n, -(2n ** 63n), 2n ** 64n - 1n, 1234567890123456.5, 1e40]);
  assert.equal(encode(value.slice(0, 4), 'v'), '[9007199254740991,9007199254740993,-9223372036854775808,18446744073709551615]');
  assert.equal(encode(-0, 'v'), '-0');
  // Digits in a text are a text; keys are keys.
  const odd = '{"__proto__":{"a":"12345678901234567890\\"x"},"b" : [ 12345678901234567890 , {} , [] , true ] }';
  const read = decode(odd, link);
  assert.deepEqual(Object.keys(read), ['__proto__', 'b']);
  assert.deepEqual(Object.getOwnPropertyDescriptor(read, '__proto__').value, { a: '12345678901234567890"x' });
  assert.equal(Object.getPrototypeOf(read), Object.prototype);
  assert.deepEqual(read.b, [12345678901234567890n, {}, [], true]);
  for (const wrong of ['[1234567890123456', '{"a" 1234567890123456}', '[1234567890123456]]', '[01234567890123456]', '"\\x1234567890123456"']) {
    assert.throws(() => decode(wrong, link), SyntaxError, wrong);
  }
});

test('bytes and signals go through anywhere', () => {
  const bytes = Buffer.from([0, 255, 128]);
  const view = new Uint8Array(new Uint8Array([9, 0, 255, 128, 9]).buffer, 1, 3);
  const text = encode({ a: [bytes, view], s: { deep: [new Signal(link, ID)] } }, 'v');
  assert.equal(text, `{"a":[{"$bytes":"AP+A"},{"$bytes":"AP+A"}],"s":{"deep":[{"$signal":"${ID}"}]}}`);
  const value = decode(text, link);
  assert.deepEqual(value.a, [bytes, bytes]);
  assert.ok(value.s.deep[0] instanceof Signal && value.s.deep[0].id === ID);
  // A key beside it, or another type: then it is a map as any other.
  assert.deepEqual(decode('[{"$bytes":"AA==","b":1},{"$bytes":5},{"$other":"x"}]', link), [{ $bytes: 'AA==', b: 1 }, { $bytes: 5 }, { $other: 'x' }]);
});

test('what only looks like bytes or a signal is a map', () => {
  for (const value of [
    { $bytes: '!!', b: 1 }, { $bytes: 5 }, { $bytes: ['!!'] }, { $signal: 'x' }, { $signal: ID.toUpperCase() }, { $signal: 5 }, { $bytes: 'AA==' }, { $bytes: '' },
    { $bytes: { toJSON: () => 'AA==' } }, { $bytes: { toJSON: () => 5 } }, { $bytes: { toJSON() {} } }, { $bytes: new Date(0), b: 1 }, { $bytes: '!!', b: { toJSON: () => 2 } },
  ]) {
    assert.equal(encode(value, 'v'), JSON.stringify(value));
  }
});

test('what a binary peer has sent and is no base64 is a map', () => {
  for (const text of ['no base', '!!', 'AA=', 'AA', 'AB==', 'AA==\n', 'AA==AA==', '-_8=', 'é']) {
    assert.deepEqual(decode(JSON.stringify([{ $bytes: text }]), link), [{ $bytes: text }]);
  }
  assert.deepEqual(decode('[{"$bytes":"AA=="},{"$bytes":""}]', link), [Buffer.from([0]), Buffer.alloc(0)]);
});

test('what cannot be sent is named with its place', () => {
  const itself = [];
  itself.push(itself);
  for (const [value, message] of [
    [{ a: [1, NaN] }, 'args.a[1] is NaN'],
    [[Infinity], 'args[0] is Infinity'],
    [{ at: [new Date(NaN)] }, 'args.at[0] is an Invalid Date, which cannot be sent'],
    [[() => {}], 'args[0] is a function'],
    [[Symbol('s')], 'args[0] is a symbol'],
    [[{ x: '\ud800' }], 'args[0].x holds half a surrogate pair'],
    [[{ '\udc00x': 1 }], 'a key of args[0] holds half a surrogate pair'],
    [[new Map()], 'args[0] is a Map, which cannot be sent: make a plain object'],
    [[Promise.resolve()], 'args[0] is a Promise, which cannot be sent: await it first'],
    [[new Float64Array(1)], 'args[0] is a Float64Array'],
    [[{ $bytes: '!!' }], 'args[0] is {"$bytes": …}, which stands for bytes, and holds no base64: send a Buffer'],
    [{ a: [{ $bytes: 'AA=', b: undefined }] }, 'args.a[0] is {"$bytes": …}'],
    [{ $bytes: 'AB==' }, 'args is {"$bytes": …}'],
    // As it will be written.
    [[{ $bytes: new Date(0) }], 'args[0] is {"$bytes": …}, which stands for bytes, and holds no base64: send a Buffer'],
    [{ a: [{ $bytes: new URL('http://a/') }] }, 'args.a[0] is {"$bytes": …}'],
    [[{ $bytes: { toJSON: () => ({ toJSON: () => 'AB==' }) } }], 'args[0] is {"$bytes": …}'],
    [[{ $bytes: '!!', b: { toJSON() {} } }], 'args[0] is {"$bytes": …}'],
    [[{ $bytes: '\\' }], 'args[0] is {"$bytes": …}'],
  ]) {
    assert.throws(() => encode(value, 'args'), (error) => error instanceof TypeError && error.message.includes(message), message);
  }
  const deep = (levels) => JSON.parse('['.repeat(levels) + ']'.repeat(levels));
  assert.equal(encode(deep(64), 'args'), JSON.stringify(deep(64)));
  const endless = { toJSON: () => endless };
  for (const [value, message] of [
    [[2n ** 64n], 'args[0] is 18446744073709551616: more than 64 bits'],
    [[-(2n ** 63n) - 1n], 'args[0] is -9223372036854775809: more than 64 bits'],
    [itself, `args${'[0]'.repeat(64)} is more than 64 levels deep, or holds itself`],
    [deep(65), 'is more than 64 levels deep'],
    [{ a: endless }, 'args.a is more than 64 levels deep, or holds itself'],
  ]) {
    assert.throws(() => encode(value, 'args'), (error) => error instanceof RangeError && error.message.includes(message), message);
  }
});
