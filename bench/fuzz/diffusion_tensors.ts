/** Flux transformers and VAEs of any size under the names of the public files, with bytes that belong to their names. */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { tensorBytes, type DType } from '../../src/formats/index.js';

const kNames = resolve(fileURLToPath(import.meta.url), '../../../test/golden/names');

/** name → [dtype, torch shape], as in golden/names */
export type TensorTable = Readonly<Record<string, readonly [dtype: string, shape: readonly number[]]>>;

export interface Stored {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly data: Uint8Array;
}
export type StoredTensors = Map<string, Stored>;

export function publicTable(json: string): TensorTable {
  const bytes = readFileSync(resolve(kNames, json));
  const text = (json.endsWith('.gz') ? gunzipSync(bytes) : bytes).toString();
  return (JSON.parse(text) as { tensors: TensorTable }).tensors;
}

/** Bytes that are the same for the same name. */
export function filled(table: TensorTable): StoredTensors {
  return new Map(
    Object.entries(table).map(([name, [dtype, shape]]) => {
      let state = [...name].reduce((hash, char) => (hash * 31 + char.charCodeAt(0)) >>> 0, 7);
      const data = new Uint8Array(tensorBytes(dtype as DType, shape)!);
      const next = (): number => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
      if (dtype === 'F32') new Float32Array(data.buffer).forEach((_, i, all) => (all[i] = next() - 0.5));
      else if (dtype === 'BF16')
        new Uint16Array(data.buffer).forEach((_, i, all) => (all[i] = 0x3c00 + Math.floor(next() * 0x300)));
      else data.forEach((_, i) => (data[i] = Math.floor(next() * 0x70)));
      return [name, { dtype: dtype as DType, shape, data }] as const;
    }),
  );
}

/** Rows [start, end) of `parts` equal parts of a tensor's rows. */
export function rowParts({ dtype, shape, data }: Stored, start: number, end: number, parts: number): Stored {
  const [height, ...inner] = shape as [number, ...number[]];
  const stride = data.length / parts;
  return {
    dtype,
    shape: [((end - start) * height) / parts, ...inner],
    data: data.slice(start * stride, end * stride),
  };
}

/** diffusers' module → canonical module and the part of its rows, of so many, that it holds. */
const kDiffusersFlux: readonly (readonly [
  RegExp,
  string,
  (readonly [start: number, end: number, of: number])?,
])[] = [
  [/^x_embedder/, 'img_in'],
  [/^context_embedder/, 'txt_in'],
  [/^proj_out/, 'final_layer.linear'],
  [/^time_text_embed\.timestep_embedder\.linear_1/, 'time_in.in_layer'],
  [/^time_text_embed\.timestep_embedder\.linear_2/, 'time_in.out_layer'],
  [/^time_text_embed\.text_embedder\.linear_1/, 'vector_in.in_layer'],
  [/^time_text_embed\.text_embedder\.linear_2/, 'vector_in.out_layer'],
  [/^time_text_embed\.guidance_embedder\.linear_1/, 'guidance_in.in_layer'],
  [/^time_text_embed\.guidance_embedder\.linear_2/, 'guidance_in.out_layer'],
  [/^transformer_blocks\.(\d+)\.norm1\.linear/, 'double_blocks.$1.img_mod.lin'],
  [/^transformer_blocks\.(\d+)\.norm1_context\.linear/, 'double_blocks.$1.txt_mod.lin'],
  [/^transformer_blocks\.(\d+)\.attn\.to_q/, 'double_blocks.$1.img_attn.qkv', [0, 1, 3]],
  [/^transformer_blocks\.(\d+)\.attn\.to_k/, 'double_blocks.$1.img_attn.qkv', [1, 2, 3]],
  [/^transformer_blocks\.(\d+)\.attn\.to_v/, 'double_blocks.$1.img_attn.qkv', [2, 3, 3]],
  [/^transformer_blocks\.(\d+)\.attn\.add_q_proj/, 'double_blocks.$1.txt_attn.qkv', [0, 1, 3]],
  [/^transformer_blocks\.(\d+)\.attn\.add_k_proj/, 'double_blocks.$1.txt_attn.qkv', [1, 2, 3]],
  [/^transformer_blocks\.(\d+)\.attn\.add_v_proj/, 'double_blocks.$1.txt_attn.qkv', [2, 3, 3]],
  [/^transformer_blocks\.(\d+)\.attn\.norm_([qk])\.weight/, 'double_blocks.$1.img_attn.norm.$2_norm.scale'],
  [
    /^transformer_blocks\.(\d+)\.attn\.norm_added_([qk])\.weight/,
    'double_blocks.$1.txt_attn.norm.$2_norm.scale',
  ],
  [/^transformer_blocks\.(\d+)\.attn\.to_out\.0/, 'double_blocks.$1.img_attn.proj'],
  [/^transformer_blocks\.(\d+)\.attn\.to_add_out/, 'double_blocks.$1.txt_attn.proj'],
  [/^transformer_blocks\.(\d+)\.ff\.net\.0\.proj/, 'double_blocks.$1.img_mlp.0'],
  [/^transformer_blocks\.(\d+)\.ff\.net\.2/, 'double_blocks.$1.img_mlp.2'],
  [/^transformer_blocks\.(\d+)\.ff_context\.net\.0\.proj/, 'double_blocks.$1.txt_mlp.0'],
  [/^transformer_blocks\.(\d+)\.ff_context\.net\.2/, 'double_blocks.$1.txt_mlp.2'],
  [/^single_transformer_blocks\.(\d+)\.norm\.linear/, 'single_blocks.$1.modulation.lin'],
  [/^single_transformer_blocks\.(\d+)\.attn\.to_q/, 'single_blocks.$1.linear1', [0, 1, 7]],
  [/^single_transformer_blocks\.(\d+)\.attn\.to_k/, 'single_blocks.$1.linear1', [1, 2, 7]],
  [/^single_transformer_blocks\.(\d+)\.attn\.to_v/, 'single_blocks.$1.linear1', [2, 3, 7]],
  [/^single_transformer_blocks\.(\d+)\.proj_mlp/, 'single_blocks.$1.linear1', [3, 7, 7]],
  [/^single_transformer_blocks\.(\d+)\.proj_out/, 'single_blocks.$1.linear2'],
  [/^single_transformer_blocks\.(\d+)\.attn\.norm_([qk])\.weight/, 'single_blocks.$1.norm.$2_norm.scale'],
];

/** The same weights as a diffusers file holds them, under the names of its public list. */
export function diffusersFlux(original: StoredTensors, names: Iterable<string>): StoredTensors {
  const canonical = (name: string): string =>
    name.replace('.q_norm.', '.query_norm.').replace('.k_norm.', '.key_norm.');
  return new Map(
    [...names].map((name) => {
      if (name.startsWith('norm_out.linear')) {
        const whole = original.get(name.replace('norm_out.linear', 'final_layer.adaLN_modulation.1'))!;
        const [shift, scale] = [rowParts(whole, 0, 1, 2), rowParts(whole, 1, 2, 2)];
        return [name, { ...whole, data: Buffer.concat([scale.data, shift.data]) }] as const;
      }
      const [from, to, part] = kDiffusersFlux.find(([pattern]) => pattern.test(name))!;
      const whole = original.get(canonical(name.replace(from, to)))!;
      return [name, part ? rowParts(whole, ...part) : whole] as const;
    }),
  );
}

/** The same for a VAE of four levels: other names, matrices instead of 1×1 convolutions in the attention. */
export function diffusersVae(original: StoredTensors, names: Iterable<string>): StoredTensors {
  const attention: Readonly<Record<string, string>> = {
    group_norm: 'norm',
    to_q: 'q',
    to_k: 'k',
    to_v: 'v',
    'to_out.0': 'proj_out',
  };
  const canonical = (name: string): string =>
    name
      .replace(
        /mid_block\.attentions\.0\.(group_norm|to_[qkv]|to_out\.0)/,
        (_, own: string) => `mid.attn_1.${attention[own]}`,
      )
      .replace(/mid_block\.resnets\.([01])/, (_, i: string) => `mid.block_${Number(i) + 1}`)
      .replace(/down_blocks\.(\d)\.resnets/, 'down.$1.block')
      .replace(/down_blocks\.(\d)\.downsamplers\.0/, 'down.$1.downsample')
      .replace(/up_blocks\.(\d)\.resnets/, (_, i: string) => `up.${3 - Number(i)}.block`)
      .replace(/up_blocks\.(\d)\.upsamplers\.0/, (_, i: string) => `up.${3 - Number(i)}.upsample`)
      .replace('conv_shortcut', 'nin_shortcut')
      .replace('conv_norm_out', 'norm_out');
  return new Map(
    [...names].map((name) => {
      const found = original.get(canonical(name))!;
      const isMatrix = name.includes('attentions') && found.shape.length === 4;
      return [name, isMatrix ? { ...found, shape: found.shape.slice(0, 2) } : found] as const;
    }),
  );
}

export const prefixed = (tensors: StoredTensors, prefix: string): StoredTensors =>
  new Map([...tensors].map(([name, tensor]) => [prefix + name, tensor]));
