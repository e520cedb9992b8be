/**
 * Makes the GGUFs of the small model's T5s beside them: flan_t5-Q8_0.gguf, flan_t5-Q4_0.gguf, t5-Q8_0.gguf, t5-Q4_0.gguf.
 * Run after training: npx tsx models/make_gguf.ts
 */
import { join } from 'node:path';
import { openModel, selectPart } from '../src/formats/index.js';
import { writeT5Gguf } from '../src/formats/t5_gguf.js';
import { SHIPPED_T5 } from '../src/pipeline/shipped_model.js';
import { readT5Vocabulary } from '../src/text/index.js';

for (const choice of Object.values(SHIPPED_T5)) {
  const folder = choice().path;
  const part = selectPart(openModel(folder), { slot: 't5' });
  if (part.family !== 't5') throw new Error(`${folder}: expected a T5, got ${part.description}`);
  const vocabulary = await readT5Vocabulary(join(folder, 'tokenizer.json'));
  for (const type of ['Q8_0', 'Q4_0'] as const) {
    const path = `${folder}-${type}.gguf`;
    await writeT5Gguf(part, path, type, vocabulary);
    console.log(path);
  }
}
