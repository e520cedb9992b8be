/**
 * Makes the GGUFs of the small model's T5s beside them: flan_t5-Q8_0.gguf, flan_t5-Q4_0.gguf, t5-Q8_0.gguf, t5-Q4_0.gguf.
 * Run after training: npx tsx models/make_gguf.ts
 */
import { join } from 'node:path';
import { convertModel } from '../src/convert/convert.js';
import { openModel } from '../src/formats/index.js';
import { SHIPPED_T5 } from '../src/pipeline/shipped_model.js';
import { Device } from '../src/runtime/device.js';
import { readT5Vocabulary } from '../src/text/index.js';

await using device = Device.open('cpu');
for (const choice of Object.values(SHIPPED_T5)) {
  const folder = choice().path;
  const vocabulary = await readT5Vocabulary(join(folder, 'tokenizer.json'));
  for (const type of ['Q8_0', 'Q4_0'] as const) {
    const path = `${folder}-${type}.gguf`;
    await convertModel(device, openModel(folder), path, { extract: 't5', type, vocabulary });
    console.log(path);
  }
}
