// Real supervisors, each in a directory of its own; no process outlives its test.

import assert from 'node:assert/strict';
import { execFile, spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { connect } from '../src/index.js';

const here = import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname);
const target = path.join(here, '../../../target');
const bin = process.env.WORKHALL_BIN
  ?? ['release', 'debug'].map((profile) => path.join(target, profile, 'workhall')).find((file) => fs.existsSync(file));
if (!bin) throw new Error('there is no workhall: cargo build, or name it by WORKHALL_BIN');

export const probe = path.join(here, 'workers/probe.js');

/** Milliseconds that a condition may take, on a machine that does other things too. */
const PATIENCE = 30_000;

/** Waits for a condition. */
export async function until(what, condition, log = () => '') {
  const end = Date.now() + PATIENCE;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > end) assert.fail(`waited in vain until ${what}\n${log()}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

export const lives = (pid) => fs.existsSync(`/proc/${pid}/exe`) && !/^State:\s*Z/m.test(fs.readFileSync(`/proc/${pid}/status`, 'utf8'));

export class Supervisor {
  #held = 0;
  clients = [];

  /** A supervisor whose classes stand in `config`; all of `probe`, `other` and `a/…` are the worker of the tests. */
  static async start(t, config = '') {
    const it = new Supervisor();
    it.dir = fs.mkdtempSync(path.join(os.tmpdir(), 'workhall-node-'));
    it.socket = path.join(it.dir, 'socket');
    fs.writeFileSync(it.path('workhall.toml'), `[class.probe]\nexec = [${JSON.stringify(process.execPath)}, ${JSON.stringify(probe)}]\n`
      + `names = ["probe", "other", "third", "a/*"]\n${config}`);
    t.after(() => it.end());
    await it.restart();
    return it;
  }

  async restart() {
    const log = fs.openSync(this.path('log'), 'a');
    const seen = fs.fstatSync(log).size;
    const args = ['serve', '--config', this.path('workhall.toml'), '--socket', this.socket];
    this.process = spawn(bin, args, { stdio: ['ignore', log, log] });
    fs.closeSync(log);
    this.exited = new Promise((resolve) => this.process.once('exit', resolve));
    await until('the supervisor is ready', () => {
      assert.equal(this.process.exitCode, null, this.log());
      return this.log().slice(seen).includes('ready at');
    });
  }

  path(name) {
    return path.join(this.dir, name);
  }

  log() {
    return fs.readFileSync(this.path('log'), 'utf8');
  }

  async client(t) {
    const client = await connect({ socket: this.socket });
    this.clients.push(client);
    return client;
  }

  /** The command line: its standard output, its standard error, its exit status. */
  cli(...args) {
    return new Promise((resolve) => {
      const env = { ...process.env, WORKHALL_SOCKET: this.socket };
      execFile(bin, args, { env }, (error, out, err) => resolve({ out, err, code: error?.code ?? 0 }));
    });
  }

  /** The same, while this program's event loop stands still. */
  cliSync(...args) {
    const { stdout, stderr, status } = spawnSync(bin, args, { env: { ...process.env, WORKHALL_SOCKET: this.socket }, encoding: 'utf8' });
    return { out: stdout, err: stderr, code: status };
  }

  /** The files by which a task is held: `begun` is there once it runs, and it goes on when `release` was called. */
  hold() {
    this.#held += 1;
    const [begun, go] = [this.path(`begun-${this.#held}`), this.path(`go-${this.#held}`)];
    return { begun, go, release: () => fs.writeFileSync(go, ''), hasBegun: () => until('a task has begun', () => fs.existsSync(begun), () => this.log()) };
  }

  /** Its sudden death. */
  async die() {
    this.process.kill('SIGKILL');
    await this.exited;
  }

  /** Processes that it has started and that live. */
  processes() {
    const mark = `WORKHALL_SOCKET=${this.socket}\0`;
    return fs.readdirSync('/proc').filter((pid) => {
      try {
        return /^\d+$/.test(pid) && `${fs.readFileSync(`/proc/${pid}/environ`, 'latin1')}\0`.includes(mark) && lives(pid);
      } catch {
        return false;
      }
    });
  }

  async end() {
    for (const client of this.clients) await client.close();
    this.process.kill('SIGTERM');
    await this.exited;
    for (const pid of this.processes()) process.kill(Number(pid), 'SIGKILL');
    fs.rmSync(this.dir, { recursive: true, force: true });
  }
}
