// What the supervisor has handed over to this process, and how its children are to have it.

import fs from 'node:fs';
import process from 'node:process';
import { NotStartedBySupervisor } from './errors.js';

/** The number of a descriptor that a variable names, if it is one that a supervisor hands over. */
export function inherited(variable) {
  const text = process.env[variable];
  if (!text) throw new NotStartedBySupervisor(`${variable} is not set`);
  const number = /^\d{1,9}$/.test(text) ? Number(text) : 0;
  if (number <= 2) {
    throw new NotStartedBySupervisor(`${variable} is \`${text}\`, which is no descriptor that a supervisor hands over`);
  }
  let found;
  try {
    found = fs.fstatSync(number);
  } catch (error) {
    const why = `${variable} is ${number}, which is not open here: ${error.code}`;
    throw new NotStartedBySupervisor(`${why}. A process that a worker starts is no worker itself`);
  }
  return { number, isSocket: found.isSocket() };
}

/** The descriptor with the kernel's lock on the worker's name; none outside a worker. */
function nameLock() {
  const socket = process.env.WORKHALL_SOCKET;
  if (!socket || !process.env.WORKHALL_FD) return undefined;
  for (const entry of fs.readdirSync('/proc/self/fd')) {
    try {
      if (fs.readlinkSync(`/proc/self/fd/${entry}`).startsWith(`${socket}.names/`)) return Number(entry);
    } catch {
      // It was the one with which the directory is read.
    }
  }
  return undefined;
}

let devNull;

/**
 * The `stdio` of a child process of a worker, made of the `stdio` that you would give it. Node marks descriptors
 * close-on-exec only up to about number 15, and the supervisor's are above that: so a child would hold the worker's
 * connection and could speak on it. In a child that is spawned with this `stdio` /dev/null is in the place of the
 * connection and of the mark page, and the lock on the worker's name is held, as the protocol asks.
 */
export function childStdio(stdio = 'pipe') {
  const list = Array.isArray(stdio) ? [...stdio] : [stdio, stdio, stdio];
  if (!process.env.WORKHALL_FD) return list;
  const put = (number, what) => {
    if (!Number.isInteger(number) || number <= 2) return;
    // What is left out in between stays as it is: Node's own descriptors are closed.
    while (list.length <= number) list.push('ignore');
    if (list[number] === 'ignore') list[number] = what;
  };
  devNull ??= fs.openSync('/dev/null', 'r+');
  put(Number(process.env.WORKHALL_FD), devNull);
  put(Number(process.env.WORKHALL_MARK_FD), devNull);
  const lock = nameLock();
  put(lock, lock);
  return list;
}
