// What can go wrong, each a class of its own. Wrong use of this library is a TypeError or a RangeError.

/** The root of them. */
export class WorkhallError extends Error {
  get name() {
    return this.constructor.name;
  }
}

/** The supervisor has refused it, and nothing has happened. */
export class Refused extends WorkhallError {
  constructor({ reason, detail }, what) {
    super(`${what} was refused: ${reason}: ${detail}`);
    Object.assign(this, { reason, detail });
  }
}

/** The method has reported an error. */
export class Failed extends WorkhallError {
  constructor({ error }, what) {
    super(`${what} failed: ${error}`);
    this.error = error;
  }
}

/** A kill has discarded the message, or it was cancelled. */
export class Discarded extends WorkhallError {
  constructor(body, what) {
    super(`${what} was discarded by a kill or a cancel${ran(body.may_have_run)}`);
    this.mayHaveRun = body.may_have_run;
  }
}

/** The message was not begun in its time to live. */
export class Expired extends WorkhallError {
  constructor(body, what) {
    super(`${what} has expired${ran(body.may_have_run)}`);
    this.mayHaveRun = body.may_have_run;
  }
}

/** No process will execute the message any more. */
export class Dead extends WorkhallError {
  constructor(body, what) {
    const exit = body.exit == null ? '' : ` (${Object.entries(body.exit)[0].join(' ')})`;
    super(`${what} is dead: ${body.reason}${exit}${ran(body.may_have_run)}`);
    Object.assign(this, { reason: body.reason, exit: body.exit ?? null, mayHaveRun: body.may_have_run });
  }
}

/** Nobody is left who was to trigger the signal, or there is no such signal any more. */
export class Lost extends WorkhallError {}

/** A process of this name runs already; nothing was started. */
export class AlreadyRunning extends WorkhallError {
  constructor({ worker, number }) {
    super(`${worker} runs already, as number ${number}: nothing was started`);
    Object.assign(this, { worker, number });
  }
}

/** The answer did not come in time. What was asked for goes on all the same. */
export class TimedOut extends WorkhallError {
  constructor(seconds, request) {
    super(`${request.what} has no answer after ${seconds} s: ${request.state()}`);
    Object.assign(this, request.place());
  }
}

/** The supervisor is gone, or has ended the connection. */
export class SupervisorGone extends WorkhallError {
  constructor(why, request, unanswered) {
    super(`${why}: ${request ? `${request.what}: ${request.state()}` : 'nothing was asked'}`);
    Object.assign(this, request?.place(), { unanswered });
  }
}

/** This end of the connection was closed. */
export class Closed extends SupervisorGone {}

/** No supervisor answers at this socket. */
export class NoSupervisor extends WorkhallError {
  constructor(path, cause) {
    super(
      `no supervisor answers at ${path} (${cause.code ?? cause.message}): start one with \`workhall serve\`, ` +
        'or name the socket of another by `socket` or WORKHALL_SOCKET',
      { cause },
    );
    this.socket = path;
  }
}

/** The supervisor has not understood a message, or says what this library does not understand. */
export class NotUnderstood extends WorkhallError {}

/** This process was not started by a supervisor. */
export class NotStartedBySupervisor extends WorkhallError {
  constructor(why) {
    super(
      `this program is a Workhall worker: a supervisor starts it at the first message to its name (${why}). ` +
        'Try `workhall serve --workers DIR` with the directory of this program (it must be executable and begin ' +
        'with `#!/usr/bin/env node`), then `workhall call NAME METHOD`',
    );
  }
}

function ran(mayHaveRun) {
  return mayHaveRun ? '; it may have been executed in part' : '; it was not executed';
}
