import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Dead, Discarded, Expired, Failed, Lost, Signal } from '../src/index.js';
import { Supervisor, until } from './harness.js';

test('s01 s02: a signal goes anywhere in arguments, is triggered once, and wakes all', async (t) => {
  const supervisor = await Supervisor.start(t);
  const [client, other] = [await supervisor.client(), await supervisor.client()];
  const signal = await client.newSignal({ description: 'a test' });
  assert.match(signal.id, /^[0-9a-f]{32}$/);
  assert.deepEqual([await signal.signaled(), await signal.get(), signal.values], [false, null, null]);
  const waiters = Array.from({ length: 100 }, (_, at) => (at % 2 ? signal : other.signal(signal.id)).wait(20));
  await client.call('probe', 'nested', [{ list: [1, { signal }] }]);
  assert.deepEqual(new Set(await Promise.all(waiters)), new Set([true]));
  assert.deepEqual(signal.values, { from: 'deep' });
  assert.equal(await client.callAndWait('probe', 'trigger', [signal, {}]), false, 'a second trigger does nothing');
  assert.equal(await signal.trigger({ from: 'here' }), false);
  assert.deepEqual([await signal.signaled(), await signal.get('from'), await signal.get('none')], [true, 'deep', undefined]);
  const info = await signal.info();
  assert.deepEqual([info.signal, info.description, info.triggered], [signal.id, 'a test', true]);
});

test('s01: what only looks like a signal is what it is', async (t) => {
  const client = await (await Supervisor.start(t)).client();
  for (const looks of ['zz', '', 'A'.repeat(32), '0'.repeat(31), null]) {
    assert.deepEqual(await client.callAndWait('probe', 'echo', [{ $signal: looks }]), [{ $signal: looks }]);
  }
});

test('s03: who waits late is told at once, who waits in vain is told in time, zero polls', async (t) => {
  const client = await (await Supervisor.start(t)).client();
  const signal = await client.newSignal();
  assert.deepEqual([await signal.wait(0), await signal.wait(0.02)], [false, false]);
  assert.equal(await signal.trigger(), true);
  assert.deepEqual([await signal.wait(0), await signal.wait()], [true, true]);
  await assert.rejects(signal.wait(-1), /`timeout` is a number of seconds/);
});

test('s04: values are written before the trigger and read after it; the last holder\'s end frees it', async (t) => {
  const supervisor = await Supervisor.start(t);
  const client = await supervisor.client();
  const signal = await client.newSignal();
  assert.equal(await client.callAndWait('probe', 'set', [signal, 'bytes', Buffer.from([0, 255])]), true);
  assert.equal(await signal.set('big', 2n ** 63n), true);
  assert.equal(await signal.get(), null, 'not before the trigger');
  assert.equal(await signal.trigger({ last: [1, { a: null }] }), true);
  assert.equal(await signal.wait(0), true);
  assert.deepEqual(signal.values, { bytes: Buffer.from([0, 255]), big: 2n ** 63n, last: [1, { a: null }] });
  assert.equal(await signal.set('late', 1), false);
  // The process that has executed the message holds it, too, and may trigger it.
  const held = await client.newSignal();
  await client.callAndWait('probe', 'set', [held, 'a', 1]);
  assert.equal(await held.free(), true);
  assert.equal(await held.signaled(), false);
  await client.killAndWait('probe');
  await until('it is freed', () => held.info().then(() => false, (error) => error instanceof Lost));
  for (const attempt of [() => held.wait(0), () => held.set('a', 1), () => held.trigger(), () => held.get()]) {
    await assert.rejects(attempt(), (error) => error instanceof Lost && /there is no signal/.test(error.message));
  }
});

test('s04: a signal is kept for its time when its maker has gone', async (t) => {
  const supervisor = await Supervisor.start(t);
  const [client, other] = [await supervisor.client(), await supervisor.client()];
  const [kept, gone] = [await client.newSignal({ keep: 3600 }), await client.newSignal()];
  await client.close();
  assert.equal(await other.signal(kept.id).wait(0), false);
  await until('it is freed', () => other.signal(gone.id).info().then(() => false, (error) => error instanceof Lost));
});

test('s05: who waits learns what became of the message that was to trigger it', async (t) => {
  const supervisor = await Supervisor.start(t);
  const client = await supervisor.client();
  const ended = async (method, options) => {
    const signal = await client.newSignal();
    await client.call('probe', method, [signal], options);
    return signal.wait(20).then(() => assert.fail('it was not triggered'), (error) => error);
  };
  const failed = await ended('fail');
  assert.ok(failed instanceof Failed && /RangeError/.test(failed.error), failed.stack);
  const dead = await ended('crashWith');
  assert.ok(dead instanceof Dead, dead.stack);
  assert.deepEqual([dead.reason, dead.exit, dead.mayHaveRun], ['crashed', { code: 3 }, true]);
  const held = supervisor.hold();
  await client.call('probe', 'hold', [held.begun, held.go]);
  await held.hasBegun();
  const expired = await ended('same', { expires: 0.01 });
  assert.ok(expired instanceof Expired && expired.mayHaveRun === false, expired.stack);
  const discarded = ended('same');
  await until('it waits', async () => (await client.info('probe')).pending === 1);
  const kill = client.killAndWait('probe');
  assert.ok((await discarded) instanceof Discarded);
  held.release();
  await kill;
});

test('s05: a process that keeps the signal and ends without triggering it', async (t) => {
  const client = await (await Supervisor.start(t)).client();
  const kept = await client.newSignal();
  const waiting = kept.wait(20).catch((error) => error);
  await client.callAndWait('probe', 'keep', [kept]);
  assert.equal(await kept.wait(0), false, 'it may still be triggered');
  await client.killAndWait('probe');
  const lost = await waiting;
  assert.ok(lost instanceof Lost && /nobody is left/.test(lost.message), lost.stack);
});

test('s01: a worker makes signals, keeps those that came, and waits', async (t) => {
  const client = await (await Supervisor.start(t)).client();
  const made = await client.callAndWait('probe', 'make');
  assert.ok(made instanceof Signal);
  const waiting = client.callAndWait('other', 'waitFor', [made, 20]);
  assert.equal(await client.callAndWait('probe', 'triggerKept'), true);
  assert.equal(await waiting, true);
  assert.equal(await made.wait(0), true);
  assert.deepEqual(made.values, { kept: true });
});

test('cancel: what waits is discarded, what runs is told, what has ended is no message', async (t) => {
  const supervisor = await Supervisor.start(t);
  const client = await supervisor.client();
  const held = supervisor.hold();
  const running = client.callAndWait('probe', 'untilCancelled', [held.begun]);
  await held.hasBegun();
  const pending = client.callAndWait('probe', 'add', [1]).catch((error) => error);
  const { message } = await client.call('probe', 'add', [10]);
  assert.deepEqual(await client.cancel(message - 1), { running: false });
  const error = await pending;
  assert.ok(error instanceof Discarded && error.mayHaveRun === false, error.stack);
  assert.deepEqual(await client.cancel(message - 2), { running: true });
  assert.deepEqual(await running, [true, `message ${message - 2} is not wanted any more`]);
  assert.equal(await client.callAndWait('probe', 'add', [0]), 10, 'the flag is of one task, and the others were executed');
  assert.equal(await client.cancel(message), null);
});
