/**
 * Makes clip_l_sample.safetensors: CLIP-L's vocabulary and names at width 32 with random FP8 weights, so that every
 * command can be tried without a download. It encodes nothing meaningful. Run: npx tsx models/sample/make.ts
 */
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { writeSafetensors, type ArrayToWrite } from '../../src/formats/write.js';

const [VOCABULARY, POSITIONS, WIDTH, WIDE, LAYERS] = [49408, 77, 32, 128, 2];
const ONE = 0x38; // 1.0 in F8_E4M3
let state = 20_261_122;

function random(): number {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return state >>> 8;
}

/** Signed values up to 0.23, a code being sign, 4 exponent and 3 fraction bits. */
const randomCode = () => ((random() % 2) << 7) | (random() % 0x28);

const tensors = new Map<string, ArrayToWrite>();

function add(name: string, shape: number[], code: () => number): void {
  const data = Uint8Array.from({ length: shape.reduce((a, b) => a * b, 1) }, code);
  tensors.set(name, { data, dtype: 'F8_E4M3', shape });
}

function norm(name: string): void {
  add(`${name}.weight`, [WIDTH], () => ONE);
  add(`${name}.bias`, [WIDTH], () => 0);
}

function linear(name: string, outputs: number, inputs: number): void {
  add(`${name}.weight`, [outputs, inputs], randomCode);
  add(`${name}.bias`, [outputs], () => 0);
}

add('text_model.embeddings.token_embedding.weight', [VOCABULARY, WIDTH], randomCode);
add('text_model.embeddings.position_embedding.weight', [POSITIONS, WIDTH], randomCode);
for (let i = 0; i < LAYERS; i++) {
  const at = `text_model.encoder.layers.${i}`;
  for (const name of ['q_proj', 'k_proj', 'v_proj', 'out_proj'])
    linear(`${at}.self_attn.${name}`, WIDTH, WIDTH);
  norm(`${at}.layer_norm1`);
  norm(`${at}.layer_norm2`);
  linear(`${at}.mlp.fc1`, WIDE, WIDTH);
  linear(`${at}.mlp.fc2`, WIDTH, WIDE);
}
norm('text_model.final_layer_norm');

const config = { num_attention_heads: 2, hidden_act: 'quick_gelu' };
const path = join(dirname(fileURLToPath(import.meta.url)), 'clip_l_sample.safetensors');
await writeSafetensors(path, tensors, { config: JSON.stringify(config) });
console.log(path);
