/** Where an encoder's config comes from, and which configs are refused. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { identify, selectPart } from '../../src/formats/index.js';
import type { ClipPart } from '../../src/formats/index.js';
import { Scratch, openGolden, refused, select, tableOf } from './encoder_files.js';
import type { GgufValue } from './model_bytes.js';

let scratch: Scratch;
beforeEach(() => {
  scratch = new Scratch();
});
afterEach(() => scratch[Symbol.dispose]());

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
    const model = openGolden('clip_l_tiny/model.safetensors');
    expect(selectPart(model).config).toMatchObject({ num_attention_heads: 4 });
    expect(selectPart(model, { config: { num_attention_heads: 8 } }).config).toMatchObject({
      num_attention_heads: 8,
      hidden_act: 'quick_gelu',
    });
  });

  test('metadata goes before config.json; configs of a whole CLIP hold the text in text_config', () => {
    const tensors = tableOf('clip_l_tiny/model.safetensors');
    writeFileSync(
      join(scratch.dir, 'config.json'),
      JSON.stringify({ text_config: { num_attention_heads: 2, hidden_act: 'gelu' } }),
    );
    expect(selectPart(scratch.safetensors(tensors)).config).toMatchObject({
      num_attention_heads: 2,
      hidden_act: 'gelu',
    });
    const model = scratch.safetensors(tensors, { config: '{"num_attention_heads": 8}' });
    expect(selectPart(model).config).toMatchObject({ num_attention_heads: 8, hidden_act: 'gelu' });
  });

  test('old configs say eos 2 and mean the last id', () => {
    const config = { num_attention_heads: 2, hidden_act: 'gelu', eos_token_id: 2, bos_token_id: 0 };
    expect(select(naming, { config }).config).toMatchObject({ eos_token_id: 129, bos_token_id: 128 });
  });

  test('a config.json of another network is ignored with a note, a broken one without', () => {
    const tensors = tableOf('t5_tiny/model.safetensors');
    writeFileSync(join(scratch.dir, 'config.json'), JSON.stringify({ d_model: 4096, d_kv: 64 }));
    const part = selectPart(scratch.safetensors(tensors));
    expect(part.config).toMatchObject({ d_model: 64, d_kv: 16 });
    expect(part.notes).toEqual([expect.stringContaining('d_model is 4096, but the tensors say 64')]);
    writeFileSync(join(scratch.dir, 'config.json'), '{"d_model": ');
    expect(selectPart(scratch.safetensors(tensors)).notes).toEqual([]);
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
    const tensors = tableOf('t5_tiny_gguf/model.f32.gguf');
    const metadata: Record<string, GgufValue> = {
      'general.architecture': ['STRING', 't5encoder'],
      't5encoder.block_count': ['U32', 4],
    };
    expect(() => identify(scratch.gguf(tensors, metadata))).toThrow(
      refused('ERR_MODEL_CONFIG', 'num_layers is 4, but the tensors say 3'),
    );
  });

  test('several networks: a config goes to the slot it is for', () => {
    const name = 'clip_naming/sdxl_checkpoint.safetensors';
    const perSlot = {
      clip_l: { num_attention_heads: 4, hidden_act: 'quick_gelu' },
      clip_g: { num_attention_heads: 5, hidden_act: 'gelu' },
    };
    const configs = identify(openGolden(name), { config: perSlot }).map((part) => [
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
    const tensors = Object.entries(tableOf('t5_tiny/model.safetensors'));
    const plain = Object.fromEntries(
      tensors.flatMap(([name, info]) => (name.includes('wi_0') ? [] : [[name.replace('wi_1', 'wi'), info]])),
    );
    const part = selectPart(scratch.safetensors(plain));
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
