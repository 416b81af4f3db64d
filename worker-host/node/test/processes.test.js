import assert from 'node:assert/strict';
import diagnostics from 'node:diagnostics_channel';
import fs from 'node:fs';
import { test } from 'node:test';
import { AlreadyRunning, Closed, Dead, Discarded, Failed, NoSupervisor, Refused, SupervisorGone, Worker } from '../src/index.js';
import { Supervisor, until } from './harness.js';

test('p01: a process executes one method and ends with it, under a name of its own', async (t) => {
  const supervisor = await Supervisor.start(t);
  const client = await supervisor.client();
  const receipt = await client.run('probe', 'add', [5]);
  assert.ok(receipt.number >= 2 && receipt.message >= 1 && typeof receipt.worker === 'string', JSON.stringify(receipt));
  assert.equal(await client.runAndWait('probe', 'add', [5]), 5);
  assert.equal(await client.runAndWait('probe', 'add', [5]), 5, 'another process');
  await assert.rejects(client.runAndWait('probe', 'fail', ['no']), Failed);
  const dead = await client.runAndWait('probe', 'crash').catch((error) => error);
  assert.ok(dead instanceof Dead && dead.exit.code === 3, String(dead));
  const refused = await client.run('nothing', 'add').catch((error) => error);
  assert.ok(refused instanceof Refused && refused.reason === 'no_class', String(refused));

  const held = supervisor.hold();
  const first = client.runAndWait('probe', 'hold', [held.begun, held.go], { name: 'nightly', unique: true });
  await held.hasBegun();
  const { running } = await client.run('probe', 'add', [1], { name: 'nightly', unique: true });
  assert.equal(running.worker, 'nightly');
  const again = await client.runAndWait('probe', 'add', [1], { name: 'nightly', unique: true }).catch((error) => error);
  assert.ok(again instanceof AlreadyRunning && again.number === running.number, String(again));
  const row = (await client.ps()).find(({ name }) => name === 'nightly');
  assert.deepEqual([row.type, row.type_number], ['run', 2]);
  held.release();
  assert.equal(typeof (await first), 'boolean');
});

test('p02: this program takes a name, its calls come one at a time and in order, and it leaves', async (t) => {
  const supervisor = await Supervisor.start(t);
  const client = await supervisor.client();
  const order = [];
  let release;
  const gate = new Promise((resolve) => (release = resolve));
  const made = new Worker('here').method('note', async (context, text) => {
    if (text === 'wait') await gate;
    order.push(text);
    return [context.name, context.state, context.sender?.worker ?? null, text];
  }).method('boom', () => {
    throw new Error('no');
  });
  const attached = await made.attach('other', { socket: supervisor.socket });
  assert.equal(attached.name, 'other');
  assert.equal((await client.info('other')).type, 'attached');
  assert.deepEqual(await client.callAndWait('other', 'note', ['one']), ['other', 'here', null, 'one']);
  assert.deepEqual(await client.callAndWait('probe', 'passAndWait', ['other', 'note', 'two']), ['other', 'here', 'probe', 'two']);
  await assert.rejects(client.callAndWait('other', 'boom'), Failed);
  await assert.rejects(client.callAndWait('other', 'what'), /no method `what`: this worker has `boom`, `note`/);
  // It calls as well.
  assert.equal(await attached.callAndWait('probe', 'add', [5]), 5);

  // A kill empties its mailbox and no more (rule K10).
  const waiting = client.callAndWait('other', 'note', ['wait']);
  const emptied = client.callAndWait('other', 'note', ['never']).catch((error) => error);
  await until('one waits behind it', async () => (await client.info('other')).pending === 1);
  await client.kill('other');
  assert.ok((await emptied) instanceof Discarded);
  const last = client.callAndWait('other', 'note', ['last']);
  release();
  await waiting;
  await last;
  assert.deepEqual(order, ['one', 'two', 'wait', 'last']);

  // A name that is taken is refused.
  const taken = await new Worker().attach('other', { socket: supervisor.socket }).catch((error) => error);
  assert.ok(taken instanceof Refused && taken.reason === 'name_taken', String(taken));
  const bad = await new Worker().attach('a\nb', { socket: supervisor.socket }).catch((error) => error);
  assert.ok(bad instanceof Refused, String(bad));

  assert.equal(await attached.leave(), 'left');
  await assert.rejects(attached.leave(), (error) => error instanceof Closed && /^this worker has ended: leave: it was not sent/.test(error.message));
  await until('the name is free', async () => (await client.info('other'))?.type !== 'attached');
  // Another may take it now, drains, and leaves.
  const next = await made.attach('other', { socket: supervisor.socket });
  const drained = Promise.all(['a', 'b', 'c'].map((text) => client.callAndWait('other', 'note', [text])));
  await until('they are posted', async () => (await client.status()).ledger.accepted >= 12);
  assert.equal(await next.leave({ drain: true }), 'left');
  assert.equal((await drained).length, 3);
});

test('p02: a Worker has one name at a time, whose tasks are run one at a time', async (t) => {
  const supervisor = await Supervisor.start(t);
  const client = await supervisor.client();
  const { socket } = supervisor;
  const busy = (error) => error instanceof TypeError && /^this Worker is attached already, or runs, .*: make another one for another name, or wait until it has left$/.test(error.message);
  let release;
  const gate = new Promise((resolve) => (release = resolve));
  const made = new Worker(0).method('hold', async (context) => {
    await gate;
    return (context.state += 1);
  }).method('again', () => made.attach('third', { socket })).method('add', (context) => (context.state += 1));
  // Also while the first is still under way.
  const [attached, second] = await Promise.all([made.attach('other', { socket }), made.attach('third', { socket }).catch((error) => error)]);
  assert.ok(busy(second), String(second));
  await assert.rejects(made.attach('third', { socket }), busy);
  await assert.rejects(made.run(), busy);
  await assert.rejects(client.callAndWait('other', 'again'), /TypeError: this Worker is attached already/);
  const held = client.callAndWait('other', 'hold');
  await until('it is executed', async () => (await client.info('other')).running !== null);
  const left = attached.leave();
  await assert.rejects(made.attach('third', { socket }), busy, 'its last task is executed');
  release();
  assert.equal(await held, 1);
  assert.equal(await left, 'left');

  // What did not come to be does not hold it up: nobody is there, a name is none, a name cannot be said, a name is taken.
  await assert.rejects(made.attach('third', { socket: supervisor.path('nobody') }), NoSupervisor);
  await assert.rejects(made.attach(''), TypeError);
  await assert.rejects(made.attach('a\ud800', { socket }), /half a surrogate pair/);
  const other = await new Worker().attach('other', { socket });
  await assert.rejects(made.attach('other', { socket }), Refused);
  let next;
  made.onEnd(async () => {
    if (!next) next = await made.attach('other', { socket });
  });
  // After it has left, and in the hook of the end too.
  const third = await made.attach('third', { socket });
  assert.equal(await client.callAndWait('third', 'add'), 2);
  await other.leave();
  await until('the name is free', async () => (await client.info('other'))?.type !== 'attached');
  assert.equal(await third.leave(), 'left');
  assert.equal(await client.callAndWait('other', 'add'), 3);
  assert.equal(await next.leave(), 'left');
});

/** Attaches as `other`, and has this program read nothing from when it has asked until `meanwhile` is done. */
async function attachWhile(t, supervisor, made, meanwhile) {
  const channel = diagnostics.channel('net.client.socket');
  // Of a connection the program asks in the turn in which it is there, and reads in none before the next.
  const begun = ({ socket }) => socket.once('connect', () => setImmediate(() => {
    const end = Date.now() + 30_000;
    const told = (condition) => {
      for (;;) {
        const { out, code } = supervisor.cliSync('info', 'other', '--json');
        if (code === 0 && condition(JSON.parse(out))) return;
        assert.ok(Date.now() < end, `it does not come: ${out}`);
      }
    };
    told(({ type }) => type === 'attached');
    meanwhile(told);
  }));
  channel.subscribe(begun);
  t.after(() => channel.unsubscribe(begun));
  try {
    return await made.attach('other', { socket: supervisor.socket });
  } finally {
    channel.unsubscribe(begun);
  }
}

test('p02: a task that comes together with the welcome waits until the program has what it attaches by', async (t) => {
  const supervisor = await Supervisor.start(t);
  const order = [];
  let attached;
  const made = new Worker().method('note', (_context, text) => order.push(text, attached?.number));
  const asked = await attachWhile(t, supervisor, made, (told) => {
    assert.equal(supervisor.cliSync('call', 'other', 'note', 'early').code, 0);
    told(({ running }) => running !== null);
  });
  attached = asked;
  order.push('attached');
  await until('it is executed', () => order.length === 3);
  assert.deepEqual(order, ['attached', 'early', attached.number]);
  assert.equal(await attached.leave(), 'left');
});

test('p02: a task that is cancelled before the program has what it attaches by is not begun', async (t) => {
  const supervisor = await Supervisor.start(t);
  const client = await supervisor.client();
  const order = [];
  const made = new Worker().method('note', (_context, text) => order.push(text));
  const attached = await attachWhile(t, supervisor, made, (told) => {
    const { message } = JSON.parse(supervisor.cliSync('call', 'other', 'note', 'early', '--json').out).accepted;
    told(({ running }) => running !== null);
    const cancelled = supervisor.cliSync('cancel', String(message));
    assert.equal(cancelled.code, 0, cancelled.err);
  });
  assert.equal(await client.callAndWait('other', 'note', ['late']), 1);
  assert.deepEqual(order, ['late']);
  assert.equal((await client.status()).ledger.discarded, 1);
  assert.equal(await attached.leave(), 'left');
});

test('p02: a task that comes together with its cancel is not begun', async (t) => {
  const supervisor = await Supervisor.start(t);
  const client = await supervisor.client();
  const order = [];
  const attached = await new Worker().method('note', (_context, text) => order.push(text)).attach('other', { socket: supervisor.socket });
  await client.callAndWait('other', 'note', ['first']);
  // The event loop stands still: both are read at once.
  assert.equal(supervisor.cliSync('call', 'other', 'note', 'unwanted').code, 0);
  let running = null;
  while (running === null) running = JSON.parse(supervisor.cliSync('info', 'other', '--json').out).running;
  const cancelled = supervisor.cliSync('cancel', String(running.message));
  assert.equal(cancelled.code, 0, cancelled.err);
  assert.equal(await client.callAndWait('other', 'note', ['last']), 2);
  assert.deepEqual(order, ['first', 'last']);
  assert.equal((await client.status()).ledger.discarded, 1);
  assert.equal(await attached.leave(), 'left');
});

test('p02: an attached worker learns that the supervisor is gone, and its program goes on', async (t) => {
  const supervisor = await Supervisor.start(t);
  let ended = false;
  const attached = await new Worker().method('x', () => {}).onEnd(() => {
    ended = true;
  }).attach('other', { socket: supervisor.socket });
  await supervisor.die();
  assert.equal(await attached.ended, 'gone');
  assert.ok(ended);
  for (const drain of [false, true]) {
    const gone = /^the supervisor is gone.*: leave: it was not sent, and nothing has happened$/;
    await assert.rejects(attached.leave({ drain }), (error) => error instanceof SupervisorGone && !(error instanceof Closed) && gone.test(error.message));
  }
  await assert.rejects(attached.call('probe', 'add', [1]), /was not sent, and nothing has happened/);
  fs.rmSync(supervisor.path('log'));
  await supervisor.restart();
});
