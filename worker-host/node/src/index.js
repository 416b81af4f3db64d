// Workers and callers of Workhall. What each does is said in ../index.d.ts and ../README.md.

export { Client, connect } from './client.js';
export { childStdio } from './inherited.js';
export { Signal } from './signal.js';
export { Worker, worker } from './worker.js';
export {
  AlreadyRunning, Closed, Dead, Discarded, Expired, Failed, Lost, NotStartedBySupervisor, NotUnderstood, NoSupervisor,
  Refused, SupervisorGone, TimedOut, WorkhallError,
} from './errors.js';
