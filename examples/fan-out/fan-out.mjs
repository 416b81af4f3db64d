#!/usr/bin/env node
// Spreads the text files of a directory over eight workers and joins them by signals: `fan-out.mjs [DIRECTORY]`.
import { readdir } from 'node:fs/promises';
import path from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import { connect } from '../../worker-host/node/src/index.js';

const WORKERS = 8;
const directory = path.resolve(process.argv[2] ?? fileURLToPath(new URL('texts', import.meta.url)));

/** On a terminal only. */
function progress(done, of) {
  if (!process.stderr.isTTY) return;
  const width = Math.max(Math.min((process.stderr.columns || 80) - 16, 40), 0);
  const filled = Math.round((width * done) / of);
  process.stderr.write(`\r[${'#'.repeat(filled)}${' '.repeat(width - filled)}] ${done}/${of}${done === of ? '\n' : ''}`);
}

async function main() {
  const files = (await readdir(directory)).filter((name) => name.endsWith('.txt')).sort();
  if (files.length === 0) throw new Error(`there is no .txt file in ${directory}`);
  const client = await connect();
  let done = 0;
  progress(done, files.length);
  // All are posted at once; each worker takes its own one after the other, and all work side by side.
  const results = await Promise.allSettled(
    files.map(async (file, at) => {
      const found = await client.newSignal({ description: file });
      try {
        await client.call(`words-${(at % WORKERS) + 1}`, 'count', [path.join(directory, file), found]);
        // If the message ends without the signal, this says how.
        await found.wait();
        return found.values;
      } finally {
        progress((done += 1), files.length);
      }
    }),
  );
  await client.close();

  const totals = new Map();
  let words = 0;
  for (const [at, { value, reason }] of results.entries()) {
    if (reason) {
      console.error(`${files[at]}: ${reason.message.split('\n')[0]}`);
      process.exitCode = 1;
      continue;
    }
    words += value.words;
    for (const [word, count] of value.counts) totals.set(word, (totals.get(word) ?? 0) + count);
  }
  const workers = new Set(results.flatMap(({ value }) => value?.by ?? []));
  console.log(`${words} words in ${results.filter(({ value }) => value).length} files, counted by ${workers.size} workers`);
  const most = [...totals].sort(([a, x], [b, y]) => y - x || (a < b ? -1 : 1)).slice(0, 5);
  console.log(`most frequent: ${most.map(([word, count]) => `${word} ${count}`).join(', ')}`);
}

try {
  await main();
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
