/** Golden encoders and hand-made files: which network, from which bytes, with which config; and all that can be wrong. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { checkPart, identify, leftovers, openModel, selectPart } from '../../src/formats/index.js';
import type {
  ClipPart,
  IdentifyOptions,
  ModelFile,
  Part,
  Slot,
  TensorInfo,
  TensorSource,
} from '../../src/formats/index.js';
import { golden } from '../support/golden.js';
import { ggufHeader, safetensorsHeader, writeSparse } from './model_bytes.js';
import type { GgufValue, TensorTable } from './model_bytes.js';

const refused = (code: string, ...messages: string[]): Error =>
  expect.objectContaining({
    code,
    message: expect.stringMatching(
      new RegExp(messages.map((m) => m.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('.*'), 's'),
    ) as string,
  }) as Error;
const open = (name: string): ModelFile => openModel(golden(`encoders/${name}`));
const select = (name: string, options?: IdentifyOptions): Part => selectPart(open(name), options);

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'kotoba-identify-'));
});
afterEach(() => rmSync(dir, { recursive: true }));

const file = (tensors: TensorTable, metadata?: unknown): string => {
  const path = join(dir, 'm.safetensors');
  writeSparse(path, safetensorsHeader(tensors, { metadata }));
  return path;
};
const gguf = (tensors: TensorTable, metadata: Record<string, GgufValue> = {}): string => {
  const path = join(dir, 'm.gguf');
  writeSparse(path, ggufHeader(tensors, metadata));
  return path;
};
/** The tensor table of a golden file, to be changed by a test. */
function table(name: string): Record<string, readonly [string, readonly number[]]> {
  return Object.fromEntries(
    [...open(name).tensors].map(([key, { dtype, shape }]) => [key, [dtype, shape] as const]),
  );
}

/** The bytes of a canonical tensor, put together as a TensorSource says. F32 only. */
function bytesOf({ tensor, rows, append, transposed, shape }: TensorSource): number[] {
  const cut = (info: TensorInfo, range?: readonly [number, number]): Float32Array => {
    const stride = info.bytes / (info.shape[0] ?? 1);
    const [start, end] = range ?? [0, info.shape[0] ?? 1];
    const whole = readFileSync(info.path).subarray(info.offset + start * stride, info.offset + end * stride);
    return new Float32Array(Uint8Array.from(whole).buffer);
  };
  const values = [...cut(tensor, rows), ...(append === undefined ? [] : cut(append.tensor, append.rows))];
  if (!transposed) return values;
  const [out, inner] = shape as [number, number];
  return Array.from({ length: out * inner }, (_, i) => values[(i % inner) * out + Math.floor(i / inner)]!);
}

describe('every naming gives the same bytes', () => {
  const config = { num_attention_heads: 2, hidden_act: 'gelu' };
  const twin: Record<string, string> = {
    clip_l: 'clip_naming/clip_l_hf.safetensors',
    clip_g: 'clip_naming/clip_g_hf.safetensors',
  };

  test.each<[string, Slot, string]>([
    ['clip_l_openai', 'clip_l', 'OpenAI / open_clip names'],
    ['clip_g_openclip', 'clip_g', 'OpenAI / open_clip names'],
    ['sd1_checkpoint', 'clip_l', 'Hugging Face names (SD1 checkpoint)'],
    ['sd2_style_checkpoint', 'clip_g', 'OpenAI / open_clip names (SD2 checkpoint)'],
    ['sdxl_checkpoint', 'clip_l', 'Hugging Face names (SDXL checkpoint)'],
    ['sdxl_checkpoint', 'clip_g', 'OpenAI / open_clip names (SDXL checkpoint)'],
    ['sd3_checkpoint', 'clip_l', 'Hugging Face names (SD3 / ComfyUI checkpoint)'],
    ['sd3_checkpoint', 'clip_g', 'Hugging Face names (SD3 / ComfyUI checkpoint)'],
  ])('%s as %s', (name, slot, naming) => {
    const part = select(`clip_naming/${name}.safetensors`, { slot, config });
    const reference = select(twin[slot]!, { slot, config });
    expect(part.naming).toBe(naming);
    const hasProjection = part.tensors.has('text_projection.weight');
    expect(hasProjection).toBe(!(slot === 'clip_l' && /sd1|sdxl/.test(name)));
    for (const [canonical, source] of reference.tensors)
      if (hasProjection || canonical !== 'text_projection.weight')
        expect(bytesOf(part.tensors.get(canonical)!), canonical).toEqual(bytesOf(source));
    expect(part.tensors.size).toBe(reference.tensors.size - (hasProjection ? 0 : 1));
  });

  test('Long-CLIP: rows 0..19 of one table, 20..247 of the other', () => {
    const part = select('long_clip_tiny/openai_naming_res.safetensors');
    const reference = select('long_clip_tiny/model.safetensors');
    expect(part).toMatchObject({ slot: 'longclip_l', config: { max_position_embeddings: 248 } });
    const position = part.tensors.get('text_model.embeddings.position_embedding.weight')!;
    expect(position).toMatchObject({ rows: [0, 20], append: { rows: [20, 248] }, shape: [248, 64] });
    for (const [canonical, source] of reference.tensors)
      expect(bytesOf(part.tensors.get(canonical)!), canonical).toEqual(bytesOf(source));
    expect(part.config).toEqual(reference.config);
  });

  test('T5 in GGUF and in safetensors', () => {
    const part = select('t5_tiny_gguf/model.f32.gguf');
    const reference = select('t5_tiny/model.safetensors');
    expect(part.config).toEqual(reference.config);
    expect([...part.tensors.keys()]).toEqual([...reference.tensors.keys()]);
    for (const [canonical, source] of reference.tensors)
      expect(bytesOf(part.tensors.get(canonical)!), canonical).toEqual(bytesOf(source));
  });

  test.each(['fp16', 'bf16', 'fp8_e4m3fn', 'fp8_scaled_legacy', 'fp8_scaled_comfy_quant'])(
    'T5 as %s',
    (name) => {
      const part = select(`t5_tiny_containers/model.${name}.safetensors`);
      const scaled = [...part.tensors.values()].filter(({ scale }) => scale !== undefined);
      expect(scaled.length).toBe(name.includes('scaled') ? 21 : 0);
      expect(part.tensorCount).toBe(30 + scaled.length);
      for (const { tensor, scale } of scaled)
        expect(scale!.name.replace(/\.(scale_weight|weight_scale)$/, '.weight')).toBe(tensor.name);
    },
  );

  test('of an encoder-decoder only the encoder is read', () => {
    const model = open('t5_tiny_encdec/model.safetensors');
    const part = selectPart(model);
    expect(part.tensorCount).toBe(30);
    expect([...part.tensors.values()].every(({ tensor }) => !/^(decoder|lm_head)/.test(tensor.name))).toBe(
      true,
    );
    expect(leftovers(model, [part])).toEqual([
      expect.objectContaining({ reason: 'T5 decoder', tensors: 31 }),
    ]);
  });

  test.each(['encoder.embed_tokens.weight', 'decoder.embed_tokens.weight'])(
    'the embedding may be called %s',
    (name) => {
      const { 'shared.weight': embedding, ...rest } = table('t5_tiny/model.safetensors');
      const part = selectPart(openModel(file({ ...rest, [name]: embedding! })));
      expect(part.tensors.get('shared.weight')!.tensor.name).toBe(name);
      const both = openModel(file({ ...rest, [name]: embedding!, 'shared.weight': embedding! }));
      expect(selectPart(both).tensorCount).toBe(30);
    },
  );
});

describe('stable-diffusion.cpp', () => {
  test('GGUF checkpoints: Hugging Face names for CLIP-L, fused rows for CLIP-G, T5 under either name', () => {
    const clip = Object.entries(table('clip_naming/clip_l_hf.safetensors'));
    const open = Object.entries(table('clip_naming/clip_g_openclip.safetensors'));
    const t5 = Object.entries(table('t5_tiny_gguf/model.f16.gguf'));
    const renamed = open.flatMap(([name, info]) => {
      const to = name
        .replace('transformer.resblocks.', 'text_model.encoder.layers.')
        .replace(/attn\.in_proj_/, 'self_attn.in_proj.')
        .replace('.attn.out_proj', '.self_attn.out_proj')
        .replace(/ln_([12])/, 'layer_norm$1')
        .replace('c_fc', 'fc1')
        .replace('c_proj', 'fc2')
        .replace('ln_final', 'text_model.final_layer_norm')
        .replace('token_embedding', 'text_model.embeddings.token_embedding')
        .replace(/^positional_embedding$/, 'text_model.embeddings.position_embedding.weight')
        .replace(/^text_projection$/, 'text_model.text_projection');
      return name === 'logit_scale' ? [] : [[`cond_stage_model.1.transformer.${to}`, info] as const];
    });
    const tensors = Object.fromEntries([
      ...clip
        .filter(([name]) => name !== 'text_projection.weight')
        .map(([name, info]) => [`cond_stage_model.transformer.${name}`, info] as const),
      ...renamed,
      ...t5.map(([name, info]) => [`text_encoders.t5xxl.transformer.${name}`, info] as const),
    ]);
    const parts = identify(openModel(gguf(tensors)), {
      config: { num_attention_heads: 2, hidden_act: 'gelu' },
    });
    expect(parts.map(({ slot, naming, tensorCount }) => [slot, naming, tensorCount])).toEqual([
      ['clip_l', 'Hugging Face names (SD1 checkpoint)', 36],
      ['clip_g', 'stable-diffusion.cpp names (stable-diffusion.cpp checkpoint)', 29],
      ['t5', 'llama.cpp names (SD3 / ComfyUI checkpoint)', 30],
    ]);
    parts.forEach(checkPart);
    const bigG = parts[1]!.tensors;
    expect(bigG.get('text_model.encoder.layers.0.self_attn.k_proj.weight')).toMatchObject({
      rows: [40, 80],
      shape: [40, 40],
    });
    expect(bigG.get('text_projection.weight')).toMatchObject({ transposed: true });
  });
});

describe('config', () => {
  const naming = 'clip_naming/clip_l_hf.safetensors';

  test('sizes come from shapes, the rest from --config, config.json beside the file, or known models', () => {
    expect(select('clip_g_tiny/model.safetensors').config).toEqual({
      vocab_size: 600,
      hidden_size: 80,
      intermediate_size: 320,
      num_hidden_layers: 3,
      num_attention_heads: 5,
      max_position_embeddings: 77,
      hidden_act: 'gelu',
      layer_norm_eps: 1e-5,
      bos_token_id: 598,
      eos_token_id: 599,
      projection_dim: 80,
    });
    expect(() => select(naming)).toThrow(
      refused('ERR_MODEL_CONFIG', 'num_attention_heads and hidden_act', '--config'),
    );
    const given = select(naming, {
      config: {
        num_attention_heads: 4,
        hidden_act: 'quick_gelu',
        layer_norm_eps: 1e-6,
        eos_token_id: 5,
        bos_token_id: 4,
      },
    });
    expect(given.config).toMatchObject({
      num_attention_heads: 4,
      hidden_act: 'quick_gelu',
      layer_norm_eps: 1e-6,
      eos_token_id: 5,
      bos_token_id: 4,
    });
  });

  test('a given config overrides the one beside the file, which overrides the known models', () => {
    const model = open('clip_l_tiny/model.safetensors');
    expect(selectPart(model).config).toMatchObject({ num_attention_heads: 4 });
    expect(selectPart(model, { config: { num_attention_heads: 8 } }).config).toMatchObject({
      num_attention_heads: 8,
      hidden_act: 'quick_gelu',
    });
  });

  test('metadata goes before config.json; configs of a whole CLIP hold the text in text_config', () => {
    const tensors = table('clip_l_tiny/model.safetensors');
    writeFileSync(
      join(dir, 'config.json'),
      JSON.stringify({ text_config: { num_attention_heads: 2, hidden_act: 'gelu' } }),
    );
    expect(selectPart(openModel(file(tensors))).config).toMatchObject({
      num_attention_heads: 2,
      hidden_act: 'gelu',
    });
    const path = file(tensors, { config: '{"num_attention_heads": 8}' });
    expect(selectPart(openModel(path)).config).toMatchObject({ num_attention_heads: 8, hidden_act: 'gelu' });
  });

  test('old configs say eos 2 and mean the last id', () => {
    const config = { num_attention_heads: 2, hidden_act: 'gelu', eos_token_id: 2, bos_token_id: 0 };
    expect(select(naming, { config }).config).toMatchObject({ eos_token_id: 129, bos_token_id: 128 });
  });

  test('a config.json of another network is ignored with a note, a broken one without', () => {
    const tensors = table('t5_tiny/model.safetensors');
    writeFileSync(join(dir, 'config.json'), JSON.stringify({ d_model: 4096, d_kv: 64 }));
    const part = selectPart(openModel(file(tensors)));
    expect(part.config).toMatchObject({ d_model: 64, d_kv: 16 });
    expect(part.notes).toEqual([expect.stringContaining('d_model is 4096, but the tensors say 64')]);
    writeFileSync(join(dir, 'config.json'), '{"d_model": ');
    expect(selectPart(openModel(file(tensors))).notes).toEqual([]);
  });

  test.each<[string, Record<string, unknown>, string]>([
    [
      'contradicts the tensors',
      { hidden_size: 64, num_attention_heads: 2, hidden_act: 'gelu' },
      'hidden_size is 64, but the tensors say 32',
    ],
    ['has the wrong type', { num_attention_heads: '2' }, 'num_attention_heads is "2"'],
    ['has a fraction', { num_attention_heads: 2.5 }, 'num_attention_heads is 2.5'],
    ['has zero heads', { num_attention_heads: 0, hidden_act: 'gelu' }, 'does not divide'],
    [
      'has heads that do not divide',
      { num_attention_heads: 5, hidden_act: 'gelu' },
      '5 does not divide the hidden size 32',
    ],
    ['has an unknown activation', { num_attention_heads: 2, hidden_act: 'tanh' }, '"tanh" is not supported'],
    [
      'has an end token outside the vocabulary',
      { num_attention_heads: 2, hidden_act: 'gelu', eos_token_id: 130 },
      'outside the vocabulary',
    ],
    ['is about nothing known', { heads: 2 }, 'known keys are'],
    ['is about T5', { d_kv: 2 }, 'known keys are'],
  ])('a given config that %s is refused', (_, config, message) => {
    expect(() => select(naming, { config })).toThrow(refused('ERR_MODEL_CONFIG', message));
  });

  test('GGUF metadata that contradicts the tensors is refused', () => {
    const tensors = table('t5_tiny_gguf/model.f32.gguf');
    const metadata: Record<string, GgufValue> = {
      'general.architecture': ['STRING', 't5encoder'],
      't5encoder.block_count': ['U32', 4],
    };
    expect(() => identify(openModel(gguf(tensors, metadata)))).toThrow(
      refused('ERR_MODEL_CONFIG', 'num_layers is 4, but the tensors say 3'),
    );
  });

  test('several networks: a config goes to the slot it is for', () => {
    const name = 'clip_naming/sdxl_checkpoint.safetensors';
    const perSlot = {
      clip_l: { num_attention_heads: 4, hidden_act: 'quick_gelu' },
      clip_g: { num_attention_heads: 5, hidden_act: 'gelu' },
    };
    const configs = identify(open(name), { config: perSlot }).map((part) => [
      part.slot,
      (part as ClipPart).config.num_attention_heads,
    ]);
    expect(configs).toEqual([
      ['clip_l', 4],
      ['clip_g', 5],
    ]);
    const flat = { hidden_size: 40, num_attention_heads: 5, hidden_act: 'gelu' };
    expect(select(name, { slot: 'clip_g', config: flat }).config).toMatchObject(flat);
    expect(() => select(name, { slot: 'clip_l', config: flat })).toThrow(
      refused('ERR_MODEL_CONFIG', 'hidden_size is 40'),
    );
  });

  test('T5: gated or not must agree; v1.0 has relu', () => {
    const tensors = Object.entries(table('t5_tiny/model.safetensors'));
    const plain = Object.fromEntries(
      tensors.flatMap(([name, info]) => (name.includes('wi_0') ? [] : [[name.replace('wi_1', 'wi'), info]])),
    );
    const part = selectPart(openModel(file(plain)));
    expect(part.config).toMatchObject({ is_gated_act: false, dense_act_fn: 'relu' });
    expect(part.tensors.has('encoder.block.0.layer.1.DenseReluDense.wi.weight')).toBe(true);
    expect(() => select('t5_tiny/model.safetensors', { config: { feed_forward_proj: 'relu' } })).toThrow(
      refused('ERR_MODEL_CONFIG', 'feed_forward_proj'),
    );
    expect(() =>
      select('t5_tiny/model.safetensors', { config: { feed_forward_proj: 'gated-silu' } }),
    ).toThrow(refused('ERR_MODEL_CONFIG', '"silu"'));
  });
});

describe('what is wrong is listed, all at once', () => {
  const complaint = (tensors: TensorTable, ...messages: string[]): void =>
    expect(() => selectPart(openModel(file(tensors)))).toThrow(
      refused('ERR_MODEL_TENSORS', join(dir, 'm.safetensors'), ...messages),
    );

  test('missing tensors, with what the file seems to be', () => {
    const tensors = table('t5_tiny/model.safetensors');
    for (const name of [
      'shared.weight',
      'encoder.block.1.layer.0.SelfAttention.k.weight',
      'encoder.block.2.layer.1.DenseReluDense.wi_0.weight',
    ])
      delete tensors[name];
    complaint(
      tensors,
      'seems to be T5 of width 64',
      '3 missing',
      'decoder.embed_tokens.weight',
      'block.1.layer.0.SelfAttention.k.weight',
      'wi_0',
    );
  });

  test('a whole block missing in the middle, and the first block', () => {
    const tensors = Object.entries(table('t5_tiny/model.safetensors'));
    complaint(
      Object.fromEntries(tensors.filter(([name]) => !name.includes('block.1.'))),
      '9 missing',
      'encoder.block.1.',
    );
    const clip = Object.entries(table('clip_l_tiny/model.safetensors'));
    complaint(
      Object.fromEntries(clip.filter(([name]) => !name.includes('layers.0.'))),
      '16 missing',
      'layers.0.',
    );
  });

  test('wrong shapes and types name both sides', () => {
    const tensors = table('t5_tiny/model.safetensors');
    tensors['encoder.block.1.layer.0.SelfAttention.o.weight'] = ['F32', [96, 64]];
    tensors['encoder.block.2.layer.0.layer_norm.weight'] = ['I32', [64]];
    tensors['encoder.block.0.layer.1.DenseReluDense.wi_0.weight'] = ['F32', []];
    complaint(
      tensors,
      '3 wrong',
      'wi_0.weight is []: expected [160, 64]',
      'o.weight is [96, 64]: expected [64, 96]',
      'is I32, not a float',
    );
  });

  test('unexpected tensors of the network, but not those of other networks', () => {
    complaint(
      { ...table('t5_tiny/model.safetensors'), 'encoder.block.0.layer.2.weight': ['F32', [1]] },
      '1 that nothing uses',
      'layer.2.weight',
    );
    const umt5 = 'encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight';
    complaint({ ...table('t5_tiny/model.safetensors'), [umt5]: ['F32', [32, 6]] }, 'UMT5');
    const inCheckpoint = Object.fromEntries(
      Object.entries(table('t5_tiny/model.safetensors')).map(([name, info]) => [
        `text_encoders.t5xxl.transformer.${name}`,
        info,
      ]),
    );
    expect(
      selectPart(openModel(file({ ...inCheckpoint, ztsnr: ['F32', []], 'my.own.buffer': ['F32', [1]] })))
        .unexpected,
    ).toEqual([]);
  });

  test('FP8 scales: none left over, none missing, one value each', () => {
    const legacy = table('t5_tiny_containers/model.fp8_scaled_legacy.safetensors');
    const q = 'encoder.block.0.layer.0.SelfAttention.q';
    const without = { ...legacy };
    delete without[`${q}.scale_weight`];
    complaint(without, '1 missing', `${q}.scale_weight`);
    complaint(
      { ...legacy, 'encoder.block.9x.scale_weight': ['F32', []] },
      'block.9x.scale_weight has no FP8 weight',
    );
    complaint(
      { ...legacy, [`${q}.weight`]: ['F16', legacy[`${q}.weight`]![1]] },
      `${q}.scale_weight has no FP8 weight to scale`,
      'is F16',
    );
    complaint({ ...legacy, [`${q}.scale_weight`]: ['F32', [96]] }, 'F32 [96]: expected one float');
    expect(selectPart(openModel(file({ ...legacy, [`${q}.scale_input`]: ['F32', []] }))).tensorCount).toBe(
      51,
    );
  });

  test('_quantization_metadata names layers that must have their scale, in a format we know', () => {
    const tensors = table('t5_tiny_containers/model.fp8_scaled_comfy_quant.safetensors');
    const layer = 'encoder.block.0.layer.0.SelfAttention.q';
    const quantized = (format: string): unknown => ({
      _quantization_metadata: JSON.stringify({ layers: { [layer]: { format } } }),
    });
    const { [`${layer}.weight_scale`]: _, ...without } = tensors;
    expect(() => selectPart(openModel(file(without, quantized('float8_e4m3fn'))))).toThrow(
      refused('ERR_MODEL_TENSORS', `${layer}.weight_scale`),
    );
    expect(() => selectPart(openModel(file(tensors, quantized('nvfp4'))))).toThrow(
      refused('ERR_MODEL_TENSORS', 'nvfp4, which is not supported'),
    );
    expect(selectPart(openModel(file(tensors, { _quantization_metadata: 'no JSON' }))).tensorCount).toBe(51);
  });

  test('Long-CLIP tables that do not fit together', () => {
    const tensors = table('long_clip_tiny/openai_naming_res.safetensors');
    complaint(
      { ...tensors, positional_embedding: ['F32', [12, 64]] },
      'positional_embedding [12, 64] and positional_embedding_res [248, 64] do not fit',
    );
  });

  test('a fused projection whose rows are no three thirds', () => {
    const tensors = table('clip_naming/clip_l_openai.safetensors');
    complaint(
      { ...tensors, 'transformer.resblocks.0.attn.in_proj_weight': ['F32', [97, 32]] },
      'is [97, 32]: expected [96, 32]',
    );
  });
});

describe('slots', () => {
  test('wrong file in a slot, several networks, nothing known', () => {
    expect(() => select('t5_tiny/model.safetensors', { slot: 'clip_l' })).toThrow(
      refused('ERR_MODEL_SLOT', 'does not fit the slot clip_l', 'slot t5'),
    );
    const name = 'clip_naming/sdxl_checkpoint.safetensors';
    expect(() => select(name)).toThrow(
      refused('ERR_MODEL_SLOT', 'several networks', 'slot clip_l', 'slot clip_g'),
    );
    expect(() => selectPart(openModel(file({ 'lora_te_x.lora_up.weight': ['F16', [2]] })))).toThrow(
      refused('ERR_MODEL_UNKNOWN', 'LoRA'),
    );
    expect(() => selectPart(openModel(file({})))).toThrow(refused('ERR_MODEL_UNKNOWN', '0 tensors'));
  });

  test('a thousand networks in one file are none', () => {
    const tensors = Object.fromEntries(
      Array.from({ length: 1000 }, (_, i) => [
        `m${i}.text_model.encoder.layers.0.layer_norm1.weight`,
        ['F32', [1]] as const,
      ]),
    );
    expect(() => identify(openModel(file(tensors)))).toThrow(refused('ERR_MODEL_UNKNOWN', '1000 networks'));
  });

  test('a layer number far out of line is no layer', () => {
    const tensors = {
      ...table('t5_tiny/model.safetensors'),
      'encoder.block.99999999.layer.0.SelfAttention.q.weight': ['F32', [96, 64]] as const,
    };
    expect(() => selectPart(openModel(file(tensors)))).toThrow(
      refused('ERR_MODEL_TENSORS', 'block.99999999'),
    );
  });
});
