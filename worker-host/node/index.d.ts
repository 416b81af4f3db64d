// Times are seconds, with decimals. A number that a JavaScript number would round is a bigint.

/// <reference types="node" />
import type { StdioOptions } from 'node:child_process';

/** An id or a count of 64 bits: a number up to 2^53, then a bigint. */
export type Whole = number | bigint;
/** A worker's name, or its number. */
export type Address = string | Whole;
/**
 * What can be sent. A Uint8Array arrives as a Buffer (in other languages as bytes), a Signal as a Signal; what has `toJSON`,
 * like a Date, as what that returns. In an object a member that is undefined, or whose `toJSON` returns that, is left
 * out. What cannot be sent is a TypeError, or a RangeError if it is too large: a bigint of more than 64 bits, more than 64
 * levels, as of what holds itself, and a message of more than 16 MiB.
 */
export type Value =
  | null | undefined | boolean | number | bigint | string | Uint8Array | Signal
  | readonly Value[] | { readonly [key: string]: Value } | { toJSON(): Value };

/** The message was accepted, or was ignored by the rules: then `ignored` says why. */
export type Receipt = Accepted | Ignored;
export interface Accepted { worker: string; number: Whole; message: Whole; ignored?: undefined }
export interface Ignored {
  ignored: 'no_worker' | 'ending' | 'no_startup_method' | 'own_killed_worker';
  worker?: undefined; number?: undefined; message?: undefined;
}
export type RefusedReason =
  | 'no_class' | 'bad_name' | 'mailbox_full' | 'too_large' | 'not_permitted' | 'shutting_down' | 'crash_loop' | 'name_taken';
export type DeadReason = 'crashed' | 'poison' | 'timed_out' | 'never_started' | 'abandoned' | 'expired';
export type Exit = { code: number } | { signal: number };

export interface CallOptions {
  /** Only if the worker exists already (rule C12). */
  existing?: boolean;
  /** A message that is not begun after so many seconds has expired (rule C13). */
  expires?: number;
  /** It enters the mailbox after so many seconds (rule C13). */
  after?: number;
  /** Rejects with `TimedOut` when the answer has not come after so many seconds; the message stays where it is. */
  timeout?: number;
}
export interface KillOptions {
  /** How many seconds the current task may still take; left out, what its class says. */
  within?: number;
  /** Execute what is pending first. */
  drain?: boolean;
  /** Begin with SIGKILL. */
  now?: boolean;
}
export interface RunOptions {
  /** The name of the process; left out, the supervisor makes one. */
  name?: string;
  /** Start nothing if a process of this name is there already. */
  unique?: boolean;
}
export type KillReceipt = { discarded: Whole; ignored?: undefined } | { ignored: 'no_worker' | 'ending'; discarded?: undefined };
export interface KillReport {
  worker: string; number: Whole; generation: Whole; discarded: Whole;
  current: 'none' | 'finished' | 'interrupted';
  ended_by: 'ask' | 'term' | 'kill' | 'already_gone' | 'only_emptied';
  exit: Exit | null;
  took_ms: Whole;
  steps: { ask_ms: Whole | null; term_ms: Whole | null; kill_ms: Whole | null };
  ignored?: undefined;
}
/** A row of `workhall ps --json`; `workhall info --json` has more. */
export interface WorkerRow {
  name: string; number: Whole; class: string; state: string; pid: number | null; generation: Whole; pending: Whole;
  running: { message: Whole; method: string; [key: string]: unknown } | null;
  executed: Whole; crashes: Whole;
  [key: string]: unknown;
}

/** Who can call: a client, or a worker while it executes a task. */
export abstract class Caller {
  /** Posts a message (rule C1). Rejects with `Refused`. */
  call(worker: Address, method?: string, args?: readonly Value[], options?: CallOptions): Promise<Receipt>;
  /**
   * Posts a message and resolves with the method's result; with undefined if the call was ignored. Rejects with `Refused`,
   * `Failed`, `Discarded`, `Expired`, `Dead`, or `TimedOut`. A worker that waits for itself waits in vain.
   */
  callAndWait<R = any>(worker: Address, method?: string, args?: readonly Value[], options?: CallOptions): Promise<R>;
  /** Kills a worker (rule K1); without one, in a task, this worker itself. */
  kill(worker?: Address, options?: KillOptions): Promise<KillReceipt>;
  /** The same, and resolves when its process is gone (rule K12). */
  killAndWait(
    worker: Address, options?: KillOptions & { timeout?: number },
  ): Promise<KillReport | { ignored: 'no_worker' | 'ending'; worker?: undefined }>;
  ps(): Promise<WorkerRow[]>;
  /** All about one worker; null if there is none. */
  info(worker: Address): Promise<WorkerRow | null>;
  status(): Promise<{ ledger: Record<string, Whole>; [key: string]: unknown }>;
  /** Resolves when it is so. */
  wait(worker: Address, until: 'idle' | 'gone' | 'empty' | 'room', options?: { timeout?: number }): Promise<void>;
  /** Stops its process where it is (rule P4). False if there is no such worker. */
  pause(worker: Address): Promise<boolean>;
  resume(worker: Address): Promise<boolean>;
  /** A message is not wanted any more. `running`: its process was told; else it was discarded. Null: there is none. */
  cancel(message: Whole): Promise<{ running: boolean } | null>;
  /** Starts a process that executes one method and ends with it (rule P1). */
  run(
    className: string, method?: string, args?: readonly Value[], options?: RunOptions,
  ): Promise<(Accepted & { running?: undefined }) | { running: { worker: string; number: Whole } }>;
  /** The same, and resolves with the method's result. Rejects as `callAndWait`, and with `AlreadyRunning`. */
  runAndWait<R = any>(
    className: string, method?: string, args?: readonly Value[], options?: RunOptions & { timeout?: number },
  ): Promise<R>;
  /** Makes a signal (rule S1). It is kept for as long as this connection, or for `keep` seconds if that is longer. */
  newSignal(options?: { description?: string; keep?: number }): Promise<Signal>;
  /** The signal with this id: 32 lower-case hexadecimal digits. */
  signal(id: string): Signal;
}

/** A signal: anywhere in arguments and results, triggered once, waited for by many (rules S1 to S5). */
export class Signal {
  private constructor();
  readonly id: string;
  /** The values, once `wait` or `get` has seen it triggered; until then null. */
  readonly values: Record<string, any> | null;
  /** Writes a value, to be read after the trigger. False if it was triggered already. Rejects with `Lost` if nobody holds it. */
  set(key: string, value: Value): Promise<boolean>;
  /** Triggers it, with these values. True if this was the first trigger. */
  trigger(values?: { readonly [key: string]: Value }): Promise<boolean>;
  /**
   * True when it is triggered, false after `timeout` seconds; 0 polls. Rejects with what became of the message that
   * carried it, if that has ended without triggering it, or with `Lost`.
   */
  wait(timeout?: number): Promise<boolean>;
  signaled(): Promise<boolean>;
  /** The values, or the value of one key; null before the trigger. */
  get(): Promise<Record<string, any> | null>;
  get<R = any>(key: string): Promise<R | null | undefined>;
  info(): Promise<{
    signal: string; description: string | null; triggered: boolean; values: Record<string, any> | null; age_ms: Whole;
  }>;
  /** This connection holds it no more. */
  free(): Promise<boolean>;
}

export interface ConnectOptions {
  /** The supervisor's socket; else WORKHALL_SOCKET, else `$XDG_RUNTIME_DIR/workhall/workhall.sock`, else below `/run`. */
  socket?: string;
  timeout?: number;
}
export class Client extends Caller implements AsyncDisposable {
  private constructor();
  /** Resolves when the connection has ended, whoever has ended it. */
  readonly ended: Promise<void>;
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}
/** Rejects with `NoSupervisor` or `TimedOut`. */
export function connect(options?: ConnectOptions): Promise<Client>;

/** The task that is executed, and the way to other workers. */
export interface Context<S = any> extends Caller {
  /** The worker's state; may be replaced. */
  state: S;
  readonly name: string;
  readonly number: Whole;
  /** Which life of the worker's process this is, from 1. */
  readonly generation: Whole;
  /** The message's id. */
  readonly message: Whole;
  readonly method: string;
  /** The worker that has called; null for a client, which cannot be called back. */
  readonly sender: { worker: string; number: Whole } | null;
  /** Whether this worker was killed, or the supervisor is gone: a long task may look here. It is not interrupted (rule K3). */
  readonly endRequested: boolean;
  /** Whether the message is not wanted any more. Only an `await` lets the news come in. */
  readonly cancelled: boolean;
  /** The same as an AbortSignal. */
  readonly abortSignal: AbortSignal;
  /** Calls back the worker that sent the message (rule C11). */
  reply(method: string, args?: readonly Value[], options?: CallOptions): Promise<Receipt>;
  /** Kills this worker itself: the rest of the task still runs (rule K3). */
  killSelf(): Promise<KillReceipt>;
}

export type Method<S = any> = (context: Context<S>, ...args: any[]) => Value | void | Promise<Value | void>;
/** How many arguments a method takes: a number, or the least and the most. */
export type Takes = number | readonly [least: number, most: number];

export class Worker<S = undefined> {
  constructor(state: S);
  constructor(...none: undefined extends S ? [] : never);
  state: S;
  /**
   * A call must have as many arguments as `fn` declares; with defaults or a rest, at least those before them; or what `takes`
   * says.
   */
  method(name: string, fn: Method<S>, options?: { takes?: Takes }): this;
  /** The one error hook of the process (rule D3), called before the message is settled as failed. */
  onError(fn: (error: unknown, context: Context<S>) => unknown): this;
  onEnd(fn: () => unknown): this;
  /**
   * Executes tasks until the supervisor asks for the end or is gone; then the process ends, unless `exit` is false. Rejects
   * with a TypeError while it is attached.
   */
  run(options?: { exit?: boolean }): Promise<void>;
  /**
   * Makes this process the worker of a name (rule P2). Rejects with `Refused`, `NoSupervisor` or `TimedOut`, and with a
   * TypeError while it is attached already, or runs; once it has left it may attach again.
   */
  attach(name: string, options?: ConnectOptions): Promise<Attached>;
}
/** An attached worker, as its own program sees it. */
export interface Attached extends Caller {
  readonly name: string;
  readonly number: Whole;
  /** `left` by `leave()`, or the supervisor is `gone`. */
  readonly ended: Promise<'left' | 'gone'>;
  /** After the current task, or with `drain` after all that waits. Rejects with `Closed` or `SupervisorGone` if it has ended already. */
  leave(options?: { drain?: boolean }): Promise<'left' | 'gone'>;
}
/** A worker of these methods, run at once. */
export function worker<S = undefined>(options: {
  state?: S;
  methods: { [name: string]: Method<S> };
  onError?: (error: unknown, context: Context<S>) => unknown;
  onEnd?: () => unknown;
  exit?: boolean;
}): Promise<void>;

/**
 * The `stdio` for a child process of a worker, made of your own: it keeps the worker's connection from the child, and has it
 * hold the lock on the worker's name. Outside a worker nothing is added.
 */
export function childStdio(stdio?: StdioOptions): StdioOptions;

export class WorkhallError extends Error {}
export class Refused extends WorkhallError { reason: RefusedReason; detail: string }
export class Failed extends WorkhallError { error: string; messageId: Whole | null }
export class Discarded extends WorkhallError { mayHaveRun: boolean; messageId: Whole | null }
export class Expired extends WorkhallError { mayHaveRun: boolean; messageId: Whole | null }
export class Dead extends WorkhallError { reason: DeadReason; exit: Exit | null; mayHaveRun: boolean; messageId: Whole | null }
export class Lost extends WorkhallError {}
export class AlreadyRunning extends WorkhallError { worker: string; number: Whole }
/** A request that had no answer. `posted`: null where that is not known. */
export interface Unanswered {
  request: string; worker?: Address; method?: string; posted: boolean | null; messageId: Whole | null;
}
export interface TimedOut extends Unanswered {}
export class TimedOut extends WorkhallError {}
/** `unanswered`: all requests of this connection that had no answer. */
export interface SupervisorGone extends Partial<Unanswered> {}
export class SupervisorGone extends WorkhallError { unanswered: Unanswered[] }
export class Closed extends SupervisorGone {}
export class NoSupervisor extends WorkhallError { socket: string }
export class NotUnderstood extends WorkhallError {}
export class NotStartedBySupervisor extends WorkhallError {}
