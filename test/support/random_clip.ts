/** A CLIP-L of small width that takes real prompts: 49408 ids, 77 positions, seeded random weights. */
import { writeSafetensors, type ArrayToWrite } from '../../src/formats/write.js';
import { normal } from './reference.js';

export interface RandomClip {
  readonly width?: number;
  readonly layers?: number;
  readonly positions?: number;
  /** columns of the projection; none without it */
  readonly projection?: number;
  readonly seed?: number;
  /** rows of the embedding */
  readonly vocabulary?: number;
  /** what `__metadata__.config` says; null: nothing */
  readonly config?: Readonly<Record<string, unknown>> | null;
}

const VOCABULARY = 49408;
const CONFIG = { num_attention_heads: 4, hidden_act: 'quick_gelu' };

/** Writes Hugging Face's names, with what shapes cannot tell in `__metadata__.config`. */
export async function writeRandomClip(path: string, options: RandomClip = {}): Promise<string> {
  const { width = 32, layers = 2, positions = 77, projection, seed = 1 } = options;
  const { vocabulary = VOCABULARY, config = CONFIG } = options;
  const tensors = new Map<string, ArrayToWrite>();
  const add = (name: string, shape: number[], std: number, mean = 0): void => {
    const size = shape.reduce((a, b) => a * b, 1);
    const data = normal(size, seed * 1000 + tensors.size).map((value) => mean + std * value);
    tensors.set(name, { data, shape });
  };
  const norm = (name: string): void => {
    add(`${name}.weight`, [width], 0.1, 1);
    add(`${name}.bias`, [width], 0.02);
  };
  const linear = (name: string, outputs: number, inputs: number): void => {
    add(`${name}.weight`, [outputs, inputs], 1 / Math.sqrt(inputs));
    add(`${name}.bias`, [outputs], 0.02);
  };
  add('text_model.embeddings.token_embedding.weight', [vocabulary, width], 0.02);
  add('text_model.embeddings.position_embedding.weight', [positions, width], 0.02);
  for (let i = 0; i < layers; i++) {
    const at = `text_model.encoder.layers.${i}`;
    for (const name of ['q_proj', 'k_proj', 'v_proj', 'out_proj'])
      linear(`${at}.self_attn.${name}`, width, width);
    norm(`${at}.layer_norm1`);
    linear(`${at}.mlp.fc1`, 4 * width, width);
    linear(`${at}.mlp.fc2`, width, 4 * width);
    norm(`${at}.layer_norm2`);
  }
  norm('text_model.final_layer_norm');
  if (projection !== undefined) add('text_projection.weight', [projection, width], 1 / Math.sqrt(width));
  await writeSafetensors(path, tensors, config === null ? {} : { config: JSON.stringify(config) });
  return path;
}
