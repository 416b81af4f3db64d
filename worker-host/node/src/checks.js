// What callers may say, in the words of the protocol. Wrong use is an error that names the mistake.

/** Seconds with decimals as milliseconds, rounded up: a time that is not zero does not become zero. */
export function millis(seconds, name) {
  if (seconds === undefined) return undefined;
  if (typeof seconds !== 'number' || !(seconds >= 0)) {
    throw new TypeError(`\`${name}\` is a number of seconds from 0 up, not ${show(seconds)}`);
  }
  return Math.min(Math.ceil(Number((seconds * 1000).toFixed(6))), Number.MAX_SAFE_INTEGER);
}

/** A worker's name or number. */
export function address(worker) {
  const isNumber = typeof worker === 'bigint' || (Number.isSafeInteger(worker) && worker >= 0);
  if (isNumber || (typeof worker === 'string' && worker !== '')) return worker;
  throw new TypeError(`a worker is a name (a text) or a number, not ${show(worker)}`);
}

export function method(name) {
  if (typeof name !== 'string') throw new TypeError(`a method is a text, not ${show(name)}`);
  return name;
}

export function list(args) {
  if (!Array.isArray(args)) {
    throw new TypeError(`the arguments are one array, like [5, 'a'], not ${show(args)}`);
  }
  return args;
}

/** The options, of which only these are known. */
export function options(given, known, of) {
  if (given === null || typeof given !== 'object') throw new TypeError(`the options of ${of} are an object`);
  for (const key of Object.keys(given)) {
    if (!known.includes(key)) {
      throw new TypeError(`${of} has no option \`${key}\`: it has ${known.map((name) => `\`${name}\``).join(', ')}`);
    }
  }
  return given;
}

function show(value) {
  if (typeof value === 'string') return JSON.stringify(value.slice(0, 40));
  if (value === null || typeof value === 'object') return value === null ? 'null' : (value.constructor?.name ?? 'an object');
  return String(value).slice(0, 40);
}
