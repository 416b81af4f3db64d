import assert from 'node:assert/strict';
import fs from 'node:fs';
import net from 'node:net';
import { test } from 'node:test';
import {
  Closed, Dead, Discarded, Expired, NoSupervisor, NotUnderstood, Refused, SupervisorGone, TimedOut, connect,
} from '../src/index.js';
import { Supervisor, until } from './harness.js';

test('c04 c06 c08 c12: receipts are accepted, ignored, or refused', async (t) => {
  const client = await (await Supervisor.start(t)).client();
  assert.deepEqual(await client.call('probe', 'add', [1], { existing: true }), { ignored: 'no_worker' });
  assert.deepEqual(await client.call(4711, 'add', [1]), { ignored: 'no_worker' });
  assert.deepEqual(await client.call('probe'), { ignored: 'no_startup_method' });
  assert.equal(await client.callAndWait(4711, 'add', [1]), undefined);
  const { worker, number, message } = await client.call('probe', 'add', [1]);
  assert.equal(worker, 'probe');
  assert.ok(number >= 2 && message >= 1);
  assert.equal(await client.callAndWait(number, 'add', [1]), 2);
  const refused = await client.call('nobody', 'add').catch((error) => error);
  assert.ok(refused instanceof Refused);
  assert.equal(refused.reason, 'no_class');
  assert.match(refused.message, /`add` for nobody was refused: no_class: no class matches `nobody`/);
});

test('c13: a message expires, and is posted for later', async (t) => {
  const supervisor = await Supervisor.start(t);
  const client = await supervisor.client();
  const held = supervisor.hold();
  await client.call('probe', 'hold', [held.begun, held.go]);
  await held.hasBegun();
  const expired = await client.callAndWait('probe', 'add', [1], { expires: 0.01 }).catch((error) => error);
  assert.ok(expired instanceof Expired && expired.mayHaveRun === false, expired.message);
  const later = client.callAndWait('probe', 'add', [2], { after: 0.01 });
  held.release();
  assert.equal(await later, 2);
});

test('k01 k06 k12: kills and their reports', async (t) => {
  const client = await (await Supervisor.start(t)).client();
  assert.deepEqual(await client.kill('probe'), { ignored: 'no_worker' });
  assert.deepEqual(await client.killAndWait('probe'), { ignored: 'no_worker' });
  await client.callAndWait('probe', 'add', [1]);
  assert.deepEqual(await client.kill('probe'), { discarded: 0 });
  await client.wait('probe', 'gone', { timeout: 20 });
  await client.callAndWait('probe', 'add', [1]);
  assert.equal((await client.killAndWait('probe', { now: true, timeout: 20 })).ended_by, 'kill');
  // Outside of a worker there is no current one.
  await assert.rejects(client.kill(), NotUnderstood);
});

test('k13: a drain executes what is pending, newer calls go to the successor', async (t) => {
  const supervisor = await Supervisor.start(t);
  const client = await supervisor.client();
  const held = supervisor.hold();
  await client.call('probe', 'hold', [held.begun, held.go]);
  const pending = client.callAndWait('probe', 'add', [1]);
  const drained = client.killAndWait('probe', { drain: true });
  const next = client.callAndWait('probe', 'add', [10]);
  held.release();
  assert.deepEqual([await pending, (await drained).discarded, await next], [1, 0, 10]);
});

test('p03: who is there, all about one, the ledger', async (t) => {
  const client = await (await Supervisor.start(t)).client();
  assert.deepEqual(await client.ps(), []);
  // More than a page of `ps`.
  const names = Array.from({ length: 1005 }, (_, at) => `a/${at}`);
  await Promise.all(names.map((name) => client.call(name, 'add', [1], { after: 3600 })));
  const rows = await client.ps();
  assert.deepEqual(rows.map((row) => row.name), names);
  assert.deepEqual([rows[0].state, rows[0].class, rows[0].pending], ['absent', 'probe', 1]);
  assert.equal((await client.info('a/7')).name, 'a/7');
  assert.equal(await client.info('probe'), null);
  const { ledger } = await client.status();
  assert.deepEqual([ledger.accepted, ledger.pending], [1005, 1005]);
});

test('p04: pause and resume; wait until it is so, or the time is up', async (t) => {
  const client = await (await Supervisor.start(t)).client();
  assert.deepEqual([await client.pause('probe'), await client.resume('probe')], [false, false]);
  await client.callAndWait('probe', 'add', [1]);
  assert.equal(await client.pause('probe'), true);
  await client.call('probe', 'add', [1]);
  const late = await client.wait('probe', 'idle', { timeout: 0.02 }).catch((error) => error);
  assert.ok(late instanceof TimedOut, late.stack);
  assert.equal((await client.info('probe')).state, 'paused');
  assert.equal(await client.resume('probe'), true);
  await client.wait('probe', 'idle', { timeout: 20 });
  assert.equal(await client.callAndWait('probe', 'add', [0]), 2);
});

test('who waits no longer is told where the message is, and its outcome is no error', async (t) => {
  const supervisor = await Supervisor.start(t);
  const client = await supervisor.client();
  const held = supervisor.hold();
  const late = await client.callAndWait('probe', 'hold', [held.begun, held.go], { timeout: 0.05 }).catch((error) => error);
  assert.ok(late instanceof TimedOut, late.stack);
  assert.deepEqual(
    [late.request, late.worker, late.method, late.posted], ['call', 'probe', 'hold', true], late.message,
  );
  assert.match(late.message, new RegExp(`no answer after 0.05 s: it was accepted as message ${late.messageId}; whether it was executed is not known$`));
  held.release();
  await client.wait('probe', 'idle', { timeout: 20 });
  assert.equal(await client.callAndWait('probe', 'add', [1]), 1);
});

test('l02: when the supervisor dies each call says what is known of it', async (t) => {
  const supervisor = await Supervisor.start(t);
  const client = await supervisor.client();
  const held = supervisor.hold();
  const posted = client.callAndWait('probe', 'hold', [held.begun, held.go]).catch((error) => error);
  await held.hasBegun();
  supervisor.process.kill('SIGSTOP');
  const unknown = client.call('probe', 'add', [1]).catch((error) => error);
  const status = client.status().catch((error) => error);
  await new Promise((resolve) => setImmediate(resolve));
  await supervisor.die();
  const [first, second, third] = await Promise.all([posted, unknown, status]);
  for (const error of [first, second, third]) assert.ok(error instanceof SupervisorGone, error.stack);
  assert.match(first.message, /^the supervisor is gone.*: `hold` for probe: it was accepted as message 1; whether it was executed is not known$/);
  assert.deepEqual([first.posted, first.messageId], [true, 1]);
  assert.match(second.message, /`add` for probe: whether it was posted, and may have been executed, is not known$/);
  assert.deepEqual([second.posted, second.messageId, second.worker, second.method], [null, null, 'probe', 'add']);
  assert.match(third.message, /status: it was not answered$/);
  assert.deepEqual(second.unanswered.map(({ request, posted }) => [request, posted]), [['call', true], ['call', null], ['status', null]]);
  await client.ended;
  const after = await client.call('probe', 'add', [1]).catch((error) => error);
  assert.ok(after instanceof SupervisorGone && after.posted === false, after.stack);
  assert.match(after.message, /`add` for probe: it was not sent, and nothing has happened$/);
  held.release();
  await supervisor.restart();
});

test('after close() nothing is sent, and it says so', async (t) => {
  const supervisor = await Supervisor.start(t);
  const client = await supervisor.client();
  const held = supervisor.hold();
  const waiting = client.callAndWait('probe', 'hold', [held.begun, held.go]).catch((error) => error);
  await held.hasBegun();
  await client.close();
  assert.ok((await waiting) instanceof Closed);
  const after = await client.call('probe', 'add', [1]).catch((error) => error);
  assert.ok(after instanceof Closed, after.stack);
  assert.match(after.message, /^this connection was closed: `add` for probe: it was not sent/);
  held.release();
});

test('no supervisor, and what is no supervisor', async (t) => {
  const supervisor = await Supervisor.start(t);
  const missing = await connect({ socket: supervisor.path('nothing') }).catch((error) => error);
  assert.ok(missing instanceof NoSupervisor);
  assert.match(missing.message, /no supervisor answers at .*\/nothing \(ENOENT\): start one with `workhall serve`/);
  // One who answers rubbish, and one who goes in the middle.
  for (const [says, pattern] of [
    ['hello\n', /this is no supervisor that this library understands.*hello/],
    ['{"error":{"ref":null,"detail":"too many connections"}}\n', /the supervisor has ended the connection: too many connections: status/],
    ['{"later":{"x":1}}\n{"receipt":{"ref":99,"report":{}}}\n\n{"receipt":', /the supervisor is gone: status: it was not answered/],
  ]) {
    const path = supervisor.path(`odd-${Math.random()}`);
    const server = net.createServer((socket) => socket.once('data', () => socket.end(says))).listen(path);
    const client = await connect({ socket: path });
    await assert.rejects(client.status(), pattern);
    await client.ended;
    server.close();
  }
});

test('answers come whole in whatever pieces they are sent', async (t) => {
  const supervisor = await Supervisor.start(t);
  const path = supervisor.path('slow');
  const line = Buffer.from('{"receipt":{"ref":1,"report":{"é":"😀"}}}\n');
  const server = net.createServer((socket) => {
    socket.setNoDelay?.(true);
    socket.once('data', async () => {
      for (const byte of line) {
        socket.write(Buffer.of(byte));
        await new Promise((resolve) => setImmediate(resolve));
      }
    });
  }).listen(path);
  const client = await connect({ socket: path });
  assert.deepEqual(await client.status(), { é: '😀' });
  await client.close();
  server.close();
});

test('wrong use is named before anything is sent', async (t) => {
  const client = await (await Supervisor.start(t)).client();
  for (const [attempt, message, kind = TypeError] of [
    [() => client.call('probe', 'add', 5), /the arguments are one array, like \[5, 'a'\], not 5/],
    [() => client.call({}, 'add'), /a worker is a name \(a text\) or a number, not Object/],
    [() => client.call('', 'add'), /a worker is a name/],
    [() => client.call('probe', 7), /a method is a text, not 7/],
    [() => client.call('probe', 'add', [], { expires: '30s' }), /`expires` is a number of seconds from 0 up, not "30s"/],
    [() => client.call('probe', 'add', [], { expire: 30 }), /call has no option `expire`: it has `existing`, `expires`/],
    [() => client.call('probe', 'add', [NaN]), /args\[0\] is NaN/],
    [() => client.wait('probe', 'done'), /idle, gone, empty, room, not done/],
    [() => client.cancel('x'), /named by its number/],
    [() => client.run(''), /a class is named by a text/],
    [() => client.signal('x'), /`x` is no signal/],
    [() => client.call('probe', 'add', ['x'.repeat(17 << 20)]), /more than the 16 MiB/, RangeError],
    [() => client.call('probe', 'add', [2n ** 64n]), /args\[0\] is 18446744073709551616: more than 64 bits/, RangeError],
    [() => connect({ socket: 5 }), /`socket` is a path/],
  ]) {
    await assert.rejects(async () => attempt(), (error) => error instanceof kind && message.test(error.message), String(message));
  }
  assert.deepEqual(await client.ps(), [], 'nothing was posted');
});

test('discarded and dead messages say whether they may have run', async (t) => {
  const supervisor = await Supervisor.start(t);
  const client = await supervisor.client();
  const held = supervisor.hold();
  const running = client.callAndWait('probe', 'hold', [held.begun, held.go]).catch((error) => error);
  const pending = client.callAndWait('probe', 'add', [1]).catch((error) => error);
  await held.hasBegun();
  await client.killAndWait('probe', { now: true });
  const [dead, discarded] = await Promise.all([running, pending]);
  assert.ok(discarded instanceof Discarded && discarded.mayHaveRun === false, discarded.message);
  assert.ok(dead instanceof Discarded || dead instanceof Dead, dead.message);
  assert.equal(dead.mayHaveRun, true);
  assert.equal(typeof dead.messageId, 'number');
});

test('a thousand calls in one turn keep their order', async (t) => {
  const client = await (await Supervisor.start(t)).client();
  const receipts = await Promise.all(Array.from({ length: 1000 }, () => client.call('probe', 'add', [1])));
  assert.deepEqual(receipts.map(({ message }) => message), receipts.map((_, at) => receipts[0].message + at));
  assert.equal(await client.callAndWait('probe', 'add', [0]), 1000);
});
