import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import process from 'node:process';
import { test } from 'node:test';
import { Dead, Discarded, Failed, Worker } from '../src/index.js';
import { Link } from '../src/link.js';
import { Supervisor, lives, probe, until } from './harness.js';

test('c03 w06: tasks are executed one at a time, in order, and the state lives from task to task', async (t) => {
  const supervisor = await Supervisor.start(t);
  const client = await supervisor.client();
  // Each takes the state, waits, and writes it: any two at once would lose one.
  const results = await Promise.all(Array.from({ length: 50 }, () => client.callAndWait('probe', 'addLater', [1])));
  assert.deepEqual(results, Array.from({ length: 50 }, (_, at) => at + 1));
  assert.equal(await client.callAndWait('a/x', 'add', [5]), 5);
});

test('arguments and results keep their types', async (t) => {
  const client = await (await Supervisor.start(t)).client();
  const values = [null, true, false, 1.5, -7, 'é😀\n\u0000', [1, [2]], { a: { b: null } }, Buffer.from([0, 255]), 2n ** 63n];
  assert.deepEqual(await client.callAndWait('probe', 'echo', values), values);
  assert.deepEqual(
    await client.callAndWait('probe', 'types', [5, 9007199254740993n, 'x', Buffer.alloc(2), null]),
    ['number', 'bigint', 'string', 'bytes', 'object'],
  );
  assert.deepEqual(await client.callAndWait('probe', 'big'), [2n ** 63n, -(2n ** 63n), Number.MAX_SAFE_INTEGER, -0]);
  for (const value of [false, 0, '', null]) assert.equal(await client.callAndWait('probe', 'same', [value]), value);
  // As deep as the protocol allows: the arguments themselves are the first level.
  let deep = [];
  for (let level = 2; level < 64; level += 1) deep = [deep];
  assert.deepEqual(await client.callAndWait('probe', 'echo', [deep.slice(0)]).catch((error) => error.message), [deep]);
  const large = 'x'.repeat(3 << 20);
  assert.deepEqual(await client.callAndWait('probe', 'echo', [large]), [large]);
});

test('d03: what a method throws settles its message as failed, and the process lives on', async (t) => {
  const supervisor = await Supervisor.start(t);
  const client = await supervisor.client();
  const failure = async (...call) => {
    const error = await client.callAndWait('probe', ...call).then(() => assert.fail('it should fail'), (error) => error);
    assert.ok(error instanceof Failed, error.stack);
    return error.error;
  };
  await client.callAndWait('probe', 'add', [1]);
  const stack = await failure('fail', ['no such row']);
  assert.match(stack, /^RangeError: no such row\n {4}at fail .*probe\.js:\d+/);
  assert.doesNotMatch(stack, /src\/worker\.js/, 'the frames of the library say nothing');
  assert.match(await failure('failLater', ['only a text']), /only a text/);
  assert.match(await failure('failLater', [null]), /null/);
  assert.match(await failure('longError'), /^Error: x{8000}.*… \(\d+ more characters\)$/s);
  assert.match(await failure('unsendable'), /the result cannot be sent: `result`\.list\[1\] is a function/);
  for (const name of ['nothing', 'constructor', '__proto__', 'toString', 'wh"at\n']) {
    assert.match(await failure(name), /^there is no method `.*`: this worker has `add`, `addLater`/s);
  }
  assert.equal(await failure('add'), 'the arguments of `add` do not fit: it takes 1, and 0 came');
  assert.match(await failure('add', [1, 2]), /it takes 1, and 2 came/);
  assert.deepEqual(await client.callAndWait('probe', 'optional', [1]), [1, 'default']);
  assert.equal(await client.callAndWait('probe', 'add', [1]), 2, 'the same process');
});

test('d03: whatever is thrown or returned, its message fails and no other', async (t) => {
  const client = await (await Supervisor.start(t)).client();
  const failure = async (...args) => {
    const error = await client.callAndWait('probe', 'odd', args).then(() => assert.fail('it should fail'), (error) => error);
    assert.ok(error instanceof Failed, `${args}: ${error.stack}`);
    return error.error;
  };
  for (const [kind, thrown] of [
    ['null', /^null$/], ['undefined', /^undefined$/], ['symbol', /^Symbol\(a sign\)$/], ['bare', /code: 7/], ['stack', /what it says/],
    ['message', /./], ['name', /what it says/], ['all', /./], ['proxy', /./], ['revoked', /./], ['getter', /Getter/], ['toJSON', /toJSON/], ['toJSONProxy', /toJSON/], ['fn', /Function/],
  ]) {
    assert.match(await failure(kind, 'throw'), thrown, kind);
  }
  for (const kind of ['symbol', 'proxy', 'revoked', 'getter', 'toJSON', 'toJSONProxy', 'toJSONSymbol', 'toJSONGetter', 'fn']) {
    // A proxy fails when it is awaited already.
    const why = /the result cannot be sent: .|a trap|revoked/;
    assert.match(await failure(kind, 'return'), why, kind);
    // Also where nobody waits for it: who waits for a signal is told.
    const signal = await client.newSignal();
    await client.call('probe', 'odd', [kind, 'return', signal]).catch((error) => error);
    await assert.rejects(signal.wait(20), why, kind);
  }
  assert.equal((await client.info('probe')).generation, 1, 'the same process');
});

test('d03: numbers that are none and bytes that are none are named, and go nowhere', async (t) => {
  const client = await (await Supervisor.start(t)).client();
  const bytes = /\[0\] is \{"\$bytes": …\}, which stands for bytes, and holds no base64: send a Buffer/;
  for (const [attempt, why] of [
    [() => client.callAndWait('probe', 'echo', [{ a: [Infinity] }]), /args\[0\]\.a\[0\] is Infinity, which cannot be sent/],
    [() => client.callAndWait('probe', 'echo', [{ $bytes: '!!' }]), bytes],
    [() => client.callAndWait('probe', 'echo', [{ $bytes: new Date(0) }]), bytes],
  ]) {
    await assert.rejects(attempt, (error) => error instanceof TypeError && why.test(error.message), String(why));
  }
  for (const [method, args, why] of [
    ['notANumber', [], /the result cannot be sent: `result`\.list\[1\] is NaN/],
    ['likeBytes', ['!!'], bytes],
    ['likeBytesOfDate', [], bytes],
    ['tooLong', [17 << 20], /the result cannot be sent: .*more than the 16 MiB that a message may have/],
  ]) {
    await assert.rejects(client.callAndWait('probe', method, [...args, null]), (error) => error instanceof Failed && why.test(error.error), method);
    // Nobody waits for this result; who waits for the signal is told.
    const signal = await client.newSignal();
    await client.call('probe', method, [...args, signal]);
    await assert.rejects(signal.wait(20), why, method);
  }
  for (const [kind, why] of [['nan', /`value` is NaN/], ['bytes', /`value` is \{"\$bytes": …\}/]]) {
    await assert.rejects(client.callAndWait('probe', 'setOdd', [await client.newSignal(), kind]), why, kind);
  }
  assert.deepEqual(await client.callAndWait('probe', 'likeBytes', ['AAE=', null]), [Buffer.from([0, 1])]);
  assert.equal((await client.info('probe')).generation, 1, 'the same process');
});

test('d02: a process that ends in a task is charged to that message, and the next life executes the others', async (t) => {
  const client = await (await Supervisor.start(t)).client();
  await client.callAndWait('probe', 'add', [1]);
  const [dead, later, next] = await Promise.allSettled([
    client.callAndWait('probe', 'crash'), client.callAndWait('probe', 'crashLater'), client.callAndWait('probe', 'add', [1]),
  ]);
  assert.ok(dead.reason instanceof Dead, dead.reason);
  assert.deepEqual([dead.reason.reason, dead.reason.exit, dead.reason.mayHaveRun], ['crashed', { code: 3 }, true]);
  assert.deepEqual([later.reason.reason, later.reason.exit], ['crashed', { code: 1 }]);
  assert.equal(next.value, 1);
});

test('w04 c11: the context says who one is and who has called, and answers', async (t) => {
  const client = await (await Supervisor.start(t)).client();
  const receipt = await client.call('probe', 'who');
  const who = await client.callAndWait('probe', 'who');
  assert.deepEqual(who, {
    name: 'probe', number: receipt.number, generation: 1, message: receipt.message + 1, method: 'who', sender: null,
  });
  const seen = await client.callAndWait('other', 'passAndWait', ['probe', 'who']);
  assert.deepEqual(seen.sender, { worker: 'other', number: (await client.info('other')).number });
  // probe is called by other, and adds 5 there.
  await client.callAndWait('other', 'passAndWait', ['probe', 'reply', 'add', 5]);
  await client.wait('other', 'idle', { timeout: 20 });
  assert.equal(await client.callAndWait('other', 'add', [0]), 5);
  await assert.rejects(client.callAndWait('probe', 'reply', ['add', 5]), /sent by a client, which cannot be called back/);
  assert.deepEqual(await client.callAndWait('probe', 'pass', [999_999, 'add', 1]), { ignored: 'no_worker' });
  await assert.rejects(client.callAndWait('probe', 'pass', ['nobody', 'add']), /was refused: no_class/);
});

test('k01 k03 k09: a kill lets the current task end, discards the others, and ends the process whatever timers it has', async (t) => {
  const supervisor = await Supervisor.start(t);
  const client = await supervisor.client();
  const held = supervisor.hold();
  const current = client.callAndWait('probe', 'hold', [held.begun, held.go]);
  const pending = assert.rejects(client.callAndWait('probe', 'add', [1]), Discarded);
  await held.hasBegun();
  const report = client.killAndWait('probe');
  await pending;
  held.release();
  assert.equal(await current, true, 'it saw that an end was requested');
  const { current: task, ended_by: by, exit, discarded } = await report;
  assert.deepEqual([task, by, exit, discarded], ['finished', 'ask', { code: 0 }, 1]);
  assert.match(await until('its last words', () => /the end of probe/.test(supervisor.log()) && supervisor.log()), /the end of probe/);
  // From inside; a method that never lets the event loop run sees it too.
  const own = await client.callAndWait('probe', 'killSelf');
  assert.deepEqual(own, { receipt: { discarded: 0 }, ending: true });
  await client.wait('probe', 'gone', { timeout: 20 });
  const spun = supervisor.hold();
  const spinning = client.callAndWait('probe', 'spin', [spun.begun]);
  await spun.hasBegun();
  const [seen, killed] = await Promise.all([spinning, client.killAndWait('probe')]);
  assert.deepEqual([seen, killed.ended_by], ['seen', 'ask']);
});

test('d07: when the supervisor is gone the current task ends, learns what it asks in vain, and the process ends', async (t) => {
  const supervisor = await Supervisor.start(t);
  const client = await supervisor.client();
  const [held, log] = [supervisor.hold(), supervisor.path('learned')];
  await client.call('probe', 'holdAndCall', [held.begun, held.go, log]);
  await client.call('probe', 'add', [1]);
  await held.hasBegun();
  // The file is there an instant before what is written in it.
  const pid = Number(await until('it says its number', () => fs.readFileSync(held.begun, 'utf8')));
  await supervisor.die();
  assert.ok(lives(pid), 'the task goes on');
  held.release();
  await until('the worker has ended', () => !lives(pid));
  assert.match(fs.readFileSync(log, 'utf8'), /^SupervisorGone: the supervisor is gone.*`add` for other: it was not sent, and nothing has happened$/);
  await supervisor.restart();
});

test('a child with childStdio holds the lock of the name and not the connection', async (t) => {
  const supervisor = await Supervisor.start(t);
  const client = await supervisor.client();
  const [bare, safe] = [await client.callAndWait('probe', 'descriptors', [false]), await client.callAndWait('probe', 'descriptors', [true])];
  assert.match(bare, /memfd:workhall-mark/, 'why there is childStdio: Node lets them through');
  assert.match(bare, /\/socket\.names\//);
  assert.doesNotMatch(safe, /memfd:workhall-mark/);
  const sockets = (text) => text.match(/socket:/g)?.length ?? 0;
  assert.equal(sockets(safe), sockets(bare) - 1, safe);
  assert.match(safe, /\/socket\.names\//);
  // What a child has left behind ends with the worker.
  const child = await client.callAndWait('probe', 'stay');
  assert.ok(lives(child));
  await client.killAndWait('probe');
  assert.ok(!lives(child));
});

test('k08: who was killed and still has children with the connection is followed by the next all the same', async (t) => {
  const client = await (await Supervisor.start(t)).client();
  for (let life = 0; life < 3; life += 1) {
    await client.callAndWait('probe', 'stay');
    assert.equal((await client.killAndWait('probe')).ended_by, 'ask');
    assert.equal(await client.callAndWait('probe', 'add', [1]), 1);
  }
});

test('a worker that waits for itself waits in vain', async (t) => {
  const client = await (await Supervisor.start(t)).client();
  await assert.rejects(client.callAndWait('probe', 'selfWait'), /TimedOut: `add` for \d+ has no answer after 0.05 s: it was accepted as message \d+; whether it was executed is not known/);
  await client.wait('probe', 'empty', { timeout: 20 });
  assert.equal(await client.callAndWait('probe', 'add', [0]), 1, 'it is executed when the one that waited has ended');
});

test('started by hand it says that it is a worker, and how it is started', () => {
  const start = (env) => spawnSync(process.execPath, [probe], { env: { ...process.env, WORKHALL_FD: undefined, ...env }, encoding: 'utf8' });
  for (const [env, why] of [
    [{}, 'WORKHALL_FD is not set'],
    [{ WORKHALL_FD: 'x' }, 'WORKHALL_FD is `x`, which is no descriptor'],
    [{ WORKHALL_FD: '1' }, 'WORKHALL_FD is `1`, which is no descriptor'],
    [{ WORKHALL_FD: '999' }, 'WORKHALL_FD is 999, which is not open here: EBADF'],
    [{ WORKHALL_FD: '3' }, 'WORKHALL_FD is 3, which'],
  ]) {
    const { status, stderr } = start(env);
    assert.equal(status, 1, stderr);
    assert.ok(stderr.includes('NotStartedBySupervisor: this program is a Workhall worker') && stderr.includes(why), stderr);
    assert.ok(stderr.includes('workhall serve --workers DIR'), stderr);
  }
});

test('what is wrong with the page of marks is said each time, and is not that it runs', () => {
  const index = new URL('../src/index.js', import.meta.url);
  const program = `import { Worker } from '${index}';
    const worker = new Worker();
    for (let time = 0; time < 2; time += 1) await worker.run().catch((error) => console.log(error.name, error.message));`;
  const { stdout } = spawnSync(process.execPath, ['--input-type=module', '-e', program], {
    env: { ...process.env, WORKHALL_FD: '3', WORKHALL_MARK_FD: '999' }, stdio: ['ignore', 'pipe', 'inherit', 'pipe'], encoding: 'utf8',
  });
  assert.equal(stdout.match(/^NotStartedBySupervisor .*WORKHALL_MARK_FD is 999/gm)?.length, 2, stdout);
});

test('wrong use of a worker is named', () => {
  const made = new Worker();
  assert.throws(() => made.method('x', 5), /the method `x` is a function, not number/);
  assert.throws(() => made.method(5, () => {}), /a text as its name/);
  assert.throws(() => made.method('x', () => {}, { take: 1 }), /method has no option `take`: it has `takes`/);
  assert.throws(() => made.onError('x'), /the error hook is a function/);
});

test('how many arguments a method takes can be said, and the error hook hears what fails', async () => {
  const heard = [];
  const made = new Worker(0)
    .method('exact', (_context, ...args) => args.length, { takes: 2 })
    .method('between', (_context, ...args) => args.length, { takes: [1, 2] })
    .onError((error, context) => heard.push([context.method, error.message]));
  const execute = (method, args) => made.execute({ method }, { method, args });
  assert.deepEqual(await execute('exact', [1, 2]), { result: 2 });
  assert.match((await execute('exact', [1])).error, /it takes 2, and 1 came/);
  assert.match((await execute('between', [1, 2, 3])).error, /it takes 1 to 2, and 3 came/);
  assert.match((await execute('what', [])).error, /this worker has `between`, `exact`/);
  // What a function says of itself: exact where all its parameters are seen, else the least.
  const bound = function bound(context, a) { return a; }.bind(null);
  for (const [fn, least, most] of [
    [(context, a) => a, 1, 1], [(context) => context, 0, 0], [context => context, 0, 0], [() => 0, 0, 0],
    [async (context, a) => a, 1, 1], [async context => context, 0, 0], [function named(context, a, b) { return [a, b]; }, 2, 2],
    [{ short(context, a) { return a; } }.short, 1, 1], [{ async later(context, { a, b: c }) { return [a, c]; } }.later, 1, 1],
    [(context, a, b = (() => 1)()) => [a, b], 1, 9], [(context, ...rest) => rest, 0, 9], [(context, { a = 1 }) => a, 1, 9],
    [{ ['comp' + 'uted'](context, a) { return a; } }.computed, 1, 9], [bound, 1, 9],
  ]) {
    made.method('fn', fn);
    for (const count of [0, 1, 2, 9]) {
      const { error } = await made.execute({ method: 'fn' }, { method: 'fn', args: Array.from({ length: count }, () => ({})) });
      assert.equal(/do not fit/.test(error ?? ''), count < least || count > most, `${fn}: ${count}: ${error}`);
    }
  }
  heard.length = 3;
  assert.deepEqual(heard.map(([method]) => method), ['exact', 'between', 'what']);
  made.onError(() => {
    throw new Error('the hook itself');
  });
  assert.match((await execute('what', [])).error, /no method `what`.*and the error hook failed: Error: the hook itself/s);
});

test('messages of a later supervisor are passed over, whatever they are called', async (t) => {
  const server = net.createServer((socket) => socket.end('{"gone":{}}\n{"read":{}}\n{"constructor":{}}\n{"kill":{}}\n'));
  t.after(() => server.close());
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const heard = [];
  const handlers = Object.fromEntries(['gone', 'read', 'kill'].map((kind) => [kind, (body) => heard.push([kind, body?.name])]));
  await new Link(net.connect(server.address().port, '127.0.0.1'), handlers).ended;
  assert.deepEqual(heard, [['kill', undefined], ['read', undefined], ['gone', 'SupervisorGone']]);
});
