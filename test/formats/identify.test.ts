/** Golden encoders and hand-made files: which network, from which bytes; and all that can be wrong with them. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { checkPart, identify, leftovers, selectPart } from '../../src/formats/index.js';
import type { Slot, TensorInfo, TensorSource } from '../../src/formats/index.js';
import { Scratch, openGolden, refused, select, tableOf } from './encoder_files.js';
import type { TensorTable } from './model_bytes.js';

let scratch: Scratch;
beforeEach(() => {
  scratch = new Scratch();
});
afterEach(() => scratch[Symbol.dispose]());

/** The bytes of a canonical tensor, put together as a TensorSource says. F32 only. */
function bytesOf({ tensor, rows, append, transposed, shape }: TensorSource): number[] {
  const cut = (info: TensorInfo, range?: readonly [number, number]): Float32Array => {
    const stride = info.bytes / (info.shape[0] ?? 1);
    const [start, end] = range ?? [0, info.shape[0] ?? 1];
    const whole = readFileSync(info.path).subarray(info.offset + start * stride, info.offset + end * stride);
    return new Float32Array(Uint8Array.from(whole).buffer);
  };
  const values = [
    ...cut(tensor, rows),
    ...(append ?? []).flatMap((piece) => [...cut(piece.tensor, piece.rows)]),
  ];
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
    expect(position).toMatchObject({ rows: [0, 20], append: [{ rows: [20, 248] }], shape: [248, 64] });
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
    const model = openGolden('t5_tiny_encdec/model.safetensors');
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
      const { 'shared.weight': embedding, ...rest } = tableOf('t5_tiny/model.safetensors');
      const part = selectPart(scratch.safetensors({ ...rest, [name]: embedding! }));
      expect(part.tensors.get('shared.weight')!.tensor.name).toBe(name);
      const both = scratch.safetensors({ ...rest, [name]: embedding!, 'shared.weight': embedding! });
      expect(selectPart(both).tensorCount).toBe(30);
    },
  );
});

describe('stable-diffusion.cpp', () => {
  test('GGUF checkpoints: Hugging Face names for CLIP-L, fused rows for CLIP-G, T5 under either name', () => {
    const clip = Object.entries(tableOf('clip_naming/clip_l_hf.safetensors'));
    const open = Object.entries(tableOf('clip_naming/clip_g_openclip.safetensors'));
    const t5 = Object.entries(tableOf('t5_tiny_gguf/model.f16.gguf'));
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
    const parts = identify(scratch.gguf(tensors), {
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

describe('what is wrong is listed, all at once', () => {
  const complaint = (tensors: TensorTable, ...messages: string[]): void =>
    expect(() => selectPart(scratch.safetensors(tensors))).toThrow(
      refused('ERR_MODEL_TENSORS', join(scratch.dir, 'm.safetensors'), ...messages),
    );

  test('missing tensors, with what the file seems to be', () => {
    const tensors = tableOf('t5_tiny/model.safetensors');
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
    const tensors = Object.entries(tableOf('t5_tiny/model.safetensors'));
    complaint(
      Object.fromEntries(tensors.filter(([name]) => !name.includes('block.1.'))),
      '9 missing',
      'encoder.block.1.',
    );
    const clip = Object.entries(tableOf('clip_l_tiny/model.safetensors'));
    complaint(
      Object.fromEntries(clip.filter(([name]) => !name.includes('layers.0.'))),
      '16 missing',
      'layers.0.',
    );
  });

  test('wrong shapes and types name both sides', () => {
    const tensors = tableOf('t5_tiny/model.safetensors');
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
      { ...tableOf('t5_tiny/model.safetensors'), 'encoder.block.0.layer.2.weight': ['F32', [1]] },
      '1 that nothing uses',
      'layer.2.weight',
    );
    const umt5 = 'encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight';
    complaint({ ...tableOf('t5_tiny/model.safetensors'), [umt5]: ['F32', [32, 6]] }, 'UMT5');
    const inCheckpoint = Object.fromEntries(
      Object.entries(tableOf('t5_tiny/model.safetensors')).map(([name, info]) => [
        `text_encoders.t5xxl.transformer.${name}`,
        info,
      ]),
    );
    expect(
      selectPart(scratch.safetensors({ ...inCheckpoint, ztsnr: ['F32', []], 'my.own.buffer': ['F32', [1]] }))
        .unexpected,
    ).toEqual([]);
  });

  test('FP8 scales: none left over, none missing, one value each', () => {
    const legacy = tableOf('t5_tiny_containers/model.fp8_scaled_legacy.safetensors');
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
    expect(
      selectPart(scratch.safetensors({ ...legacy, [`${q}.scale_input`]: ['F32', []] })).tensorCount,
    ).toBe(51);
  });

  test('_quantization_metadata names layers that must have their scale, in a format we know', () => {
    const tensors = tableOf('t5_tiny_containers/model.fp8_scaled_comfy_quant.safetensors');
    const layer = 'encoder.block.0.layer.0.SelfAttention.q';
    const quantized = (format: string): unknown => ({
      _quantization_metadata: JSON.stringify({ layers: { [layer]: { format } } }),
    });
    const { [`${layer}.weight_scale`]: _, ...without } = tensors;
    expect(() => selectPart(scratch.safetensors(without, quantized('float8_e4m3fn')))).toThrow(
      refused('ERR_MODEL_TENSORS', `${layer}.weight_scale`),
    );
    expect(() => selectPart(scratch.safetensors(tensors, quantized('nvfp4')))).toThrow(
      refused('ERR_MODEL_TENSORS', 'nvfp4, which is not supported'),
    );
    expect(selectPart(scratch.safetensors(tensors, { _quantization_metadata: 'no JSON' })).tensorCount).toBe(
      51,
    );
  });

  test('Long-CLIP tables that do not fit together', () => {
    const tensors = tableOf('long_clip_tiny/openai_naming_res.safetensors');
    complaint(
      { ...tensors, positional_embedding: ['F32', [12, 64]] },
      'positional_embedding [12, 64] and positional_embedding_res [248, 64] do not fit',
    );
  });

  test('a fused projection whose rows are no three thirds', () => {
    const tensors = tableOf('clip_naming/clip_l_openai.safetensors');
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
    expect(() => selectPart(scratch.safetensors({ 'lora_te_x.lora_up.weight': ['F16', [2]] }))).toThrow(
      refused('ERR_MODEL_UNKNOWN', 'LoRA'),
    );
    expect(() => selectPart(scratch.safetensors({}))).toThrow(refused('ERR_MODEL_UNKNOWN', '0 tensors'));
  });

  test('a thousand networks in one file are none', () => {
    const tensors = Object.fromEntries(
      Array.from({ length: 1000 }, (_, i) => [
        `m${i}.text_model.encoder.layers.0.layer_norm1.weight`,
        ['F32', [1]] as const,
      ]),
    );
    expect(() => identify(scratch.safetensors(tensors))).toThrow(
      refused('ERR_MODEL_UNKNOWN', '1000 networks'),
    );
  });

  test('a layer number far out of line is no layer', () => {
    const tensors = {
      ...tableOf('t5_tiny/model.safetensors'),
      'encoder.block.99999999.layer.0.SelfAttention.q.weight': ['F32', [96, 64]] as const,
    };
    expect(() => selectPart(scratch.safetensors(tensors))).toThrow(
      refused('ERR_MODEL_TENSORS', 'block.99999999'),
    );
  });
});
