#!/usr/bin/env node
// A worker that counts words. What it has found goes with the signal that came with the file.
import { readFile } from 'node:fs/promises';
import { worker } from '../../worker-host/node/src/index.js';

await worker({
  methods: {
    async count(context, path, found) {
      const text = await readFile(path, 'utf8');
      const counts = {};
      const words = text.toLowerCase().match(/[\p{L}\p{N}']+/gu) ?? [];
      for (const word of words) counts[word] = (Object.hasOwn(counts, word) ? counts[word] : 0) + 1;
      await found.trigger({ words: words.length, counts: Object.entries(counts), by: context.name });
    },
  },
});
