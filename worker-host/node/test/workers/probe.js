#!/usr/bin/env node
// The worker of the tests.
import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import process from 'node:process';
import { inspect } from 'node:util';
import { Signal, childStdio, worker } from '../../src/index.js';

/** Until a file is there: what a test lets go. */
async function released(path) {
  while (!fs.existsSync(path)) await new Promise((resolve) => setTimeout(resolve, 5));
}

// A timer that would keep the process for ever.
setInterval(() => {}, 1000);

await worker({
  state: 0,
  methods: {
    add: (context, amount) => (context.state += amount),
    async addLater(context, amount) {
      const before = context.state;
      await new Promise((resolve) => setTimeout(resolve, 2));
      context.state = before + amount;
      return context.state;
    },
    echo: (_context, ...args) => args,
    same: (_context, value) => value,
    types: (_context, ...args) => args.map((arg) => (Buffer.isBuffer(arg) ? 'bytes' : arg instanceof Signal ? 'signal' : typeof arg)),
    big: () => [2n ** 63n, -(2n ** 63n), Number.MAX_SAFE_INTEGER, -0],
    optional: (_context, first, second = 'default') => [first, second],
    fail: (_context, text) => {
      throw new RangeError(text);
    },
    async failLater(_context, value) {
      await null;
      throw value;
    },
    /** What is thrown, or is the result, throws itself when it is looked at. */
    odd(_context, kind, how, _signal = null) {
      const throwing = (what) => ({ get: () => { throw what; } });
      const made = {
        null: () => null,
        undefined: () => undefined,
        symbol: () => Symbol('a sign'),
        bare: () => Object.assign(Object.create(null), { code: 7 }),
        stack: () => Object.defineProperty(new Error('what it says'), 'stack', throwing(new Error('no stack'))),
        message: () => Object.defineProperty(new Error('x'), 'message', throwing(null)),
        name: () => Object.defineProperties(new Error('what it says'), { stack: throwing(1), name: throwing(1) }),
        all: () => Object.defineProperties({}, {
          name: throwing(null), message: throwing(null), stack: throwing(null), toString: throwing(null),
          [Symbol.toPrimitive]: throwing(null), [Symbol.toStringTag]: throwing(null), constructor: throwing(null), [inspect.custom]: throwing(null),
        }),
        proxy: () => new Proxy({}, new Proxy({}, throwing(new Error('a trap')))),
        revoked: () => {
          const { proxy, revoke } = Proxy.revocable({}, {});
          revoke();
          return proxy;
        },
        getter: () => ({ get value() { throw null; } }),
        toJSON: () => ({ toJSON() { throw Symbol('no'); } }),
        toJSONProxy: () => ({ toJSON() { throw new Proxy({}, new Proxy({}, throwing(new Error('a trap')))); } }),
        toJSONSymbol: () => ({ toJSON() { throw Object.assign(new TypeError(), { message: Symbol('no text') }); } }),
        toJSONGetter: () => ({ toJSON() { throw Object.defineProperty(new TypeError(), 'message', throwing(null)); } }),
        fn: () => () => {},
      }[kind]();
      if (how === 'return') return made;
      throw made;
    },
    notANumber: (_context, _signal) => ({ list: [1, NaN] }),
    likeBytes: (_context, text, _signal) => [{ $bytes: text }],
    likeBytesOfDate: (_context, _signal) => [{ $bytes: new Date(0) }],
    setOdd: (_context, signal, kind) => signal.trigger({ odd: kind === 'nan' ? NaN : { $bytes: '!!' } }),
    tooLong: (_context, bytes, _signal) => 'x'.repeat(bytes),
    unsendable: () => ({ list: [1, () => {}] }),
    longError: () => {
      throw new Error('x'.repeat(100_000));
    },
    crash: () => process.exit(3),
    crashWith: (_context, _signal) => process.exit(3),
    async crashLater() {
      setImmediate(() => {
        throw new Error('outside any method');
      });
      await new Promise(() => {});
    },
    who: (context) => ({
      name: context.name, number: context.number, generation: context.generation, message: context.message,
      method: context.method, sender: context.sender,
    }),
    pass: (context, to, method, ...args) => context.call(to, method, args),
    passAndWait: (context, to, method, ...args) => context.callAndWait(to, method, args, { timeout: 20 }),
    reply: (context, method, ...args) => context.reply(method, args),
    async killSelf(context) {
      const receipt = await context.killSelf();
      return { receipt, ending: context.endRequested };
    },
    async hold(context, begun, go) {
      fs.writeFileSync(begun, String(process.pid));
      await released(go);
      return context.endRequested;
    },
    // Never lets the event loop run.
    spin(context, begun) {
      fs.writeFileSync(begun, '');
      while (!context.endRequested);
      return 'seen';
    },
    async untilCancelled(context, begun) {
      fs.writeFileSync(begun, '');
      await new Promise((resolve) => context.abortSignal.addEventListener('abort', resolve));
      return [context.cancelled, context.abortSignal.reason.message];
    },
    async holdAndCall(context, begun, go, log) {
      fs.writeFileSync(begun, String(process.pid));
      await released(go);
      try {
        await context.call('other', 'add', [1]);
      } catch (error) {
        fs.writeFileSync(log, `${error.name}: ${error.message}`);
      }
    },
    descriptors(_context, safe) {
      const stdio = ['ignore', 'pipe', 'inherit'];
      const { stdout } = spawnSync('ls', ['-l', '/proc/self/fd'], { stdio: safe ? childStdio(stdio) : stdio });
      return stdout.toString();
    },
    stay() {
      const child = spawn('sleep', ['1000'], { stdio: childStdio('ignore'), detached: true });
      child.unref();
      return child.pid;
    },
    trigger: (_context, signal, values) => signal.trigger(values),
    set: (_context, signal, key, value) => signal.set(key, value),
    nested: (_context, object) => object.list[1].signal.trigger({ from: 'deep' }),
    waitFor: (_context, signal, seconds) => signal.wait(seconds),
    keep: (context, signal) => {
      context.state = signal;
    },
    async make(context) {
      context.state = await context.newSignal({ description: 'made by a worker' });
      return context.state;
    },
    triggerKept: (context) => context.state.trigger({ kept: true }),
    selfWait: (context) => context.callAndWait(context.number, 'add', [1], { timeout: 0.05 }),
  },
  onEnd: () => console.log('the end of', process.env.WORKHALL_WORKER),
});
