#!/usr/bin/env node
// The agreed methods of the conformance suite (`conformance --help`). With CONFORMANCE_ATTACH it takes that name by itself.
import process from 'node:process';
import { Refused, Worker, worker } from '../../src/index.js';

/** A receipt as the suite wants it: its word, and the reason or the number. */
async function told(asked) {
  try {
    const receipt = await asked;
    if (receipt.ignored) return `ignored ${receipt.ignored}`;
    return receipt.discarded === undefined ? 'accepted' : `killed ${receipt.discarded}`;
  } catch (error) {
    if (error instanceof Refused) return `refused ${error.reason}`;
    throw error;
  }
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function within(ms, isSo) {
  for (const end = Date.now() + ms; !isSo(); await pause(1)) if (Date.now() >= end) return false;
  return true;
}

let attached = null;
const given = {
  methods: {
    echo: (_context, value) => value,
    fail: (_context, text) => {
      throw new Error(text);
    },
    // The event loop stands meanwhile: nothing is read.
    sleep: (_context, ms) => {
      if (typeof ms !== 'number') throw new TypeError('the time is a number of milliseconds');
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
    },
    crash: () => process.exit(3),
    who: (context) => [context.name, context.number, context.generation],
    sender: ({ sender }) => sender && [sender.worker, sender.number],
    call: (context, to, method, args) => told(context.call(to, method, args)),
    reply: (context, method, args) => told(context.reply(method, args)),
    kill: (context, who) => told(context.kill(who ?? undefined)),
    async last_words(context, to, method) {
      await context.killSelf();
      return told(context.call(to, method));
    },
    ending: (context, ms) => within(ms, () => context.endRequested),
    cancelled: (context, ms) => within(ms, () => context.cancelled),
    new_signal: (context, description) => context.newSignal({ description }),
    async trigger(_context, signal, key, value) {
      await signal.set(key, value);
      return signal.trigger();
    },
    wait_for: async (_context, signal, ms) => ((await signal.wait(ms / 1000)) ? signal.values : null),
    // A task may come before `attach` has resolved. What `leave` returns resolves when all has ended, this task too.
    leave: async (_context, drain) => void (await attached).leave({ drain }),
  },
};

if (process.env.CONFORMANCE_ATTACH) {
  const attaching = new Worker();
  for (const [name, method] of Object.entries(given.methods)) attaching.method(name, method);
  attached = attaching.attach(process.env.CONFORMANCE_ATTACH);
  await (await attached).ended;
} else {
  await worker(given);
}
