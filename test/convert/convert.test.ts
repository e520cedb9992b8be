/** Converted files: what comes out has the same values under the right names, whatever the way. */
import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { gguf } from '@huggingface/gguf';
import { describe, expect, test } from 'vitest';
import { openModel } from '../../src/formats/index.js';
import { writeSafetensors } from '../../src/formats/write.js';
import { readT5Vocabulary } from '../../src/text/index.js';
import { golden } from '../support/golden.js';
import { filled } from '../formats/diffusion_files.js';
import { conversion, naming, part, shipped, stored } from './conversion.js';

const folder = conversion();
const { out, convert, expectSame } = folder;

describe('one network out of a file', () => {
  test.each([
    ['sd1_checkpoint', 'clip_l', 'clip_l_hf'],
    ['sdxl_checkpoint', 'clip_l', 'clip_l_hf'],
    ['sdxl_checkpoint', 'clip_g', 'clip_g_hf'],
    ['sd3_checkpoint', 'clip_g', 'clip_g_hf'],
    ['clip_l_openai', 'clip_l', 'clip_l_hf'],
    ['clip_g_openclip', 'clip_g', 'clip_g_hf'],
  ] as const)('%s: %s', async (file, slot, same) => {
    await convert(naming(file), out('te.safetensors'), { extract: slot });
    const made = part(out('te.safetensors'), slot);
    expect(made.naming).toBe('Hugging Face names');
    await expectSame(made, part(naming(same), slot));
  });

  test('the encoder of a whole T5, as a GGUF that other programs read', async () => {
    const vocabulary = await readT5Vocabulary(shipped('flan_t5/tokenizer.json'));
    await convert(shipped('flan_t5'), out('t5.gguf'), { extract: 't5', type: 'Q8_0', vocabulary });
    const { metadata, tensorInfos } = await gguf(out('t5.gguf'), { allowLocalFile: true });
    expect(metadata).toMatchObject({ 'general.architecture': 't5encoder', 'general.file_type': 7 });
    expect(tensorInfos.map(({ name }) => name)).toContain('enc.blk.0.attn_q.weight');
    await expectSame(part(out('t5.gguf'), 't5'), part(shipped('flan_t5-Q8_0.gguf'), 't5'));
  });
});

describe('a file that is one network, into the other container', () => {
  test('a T5 gets the names of either, and nothing of it is lost on the way there and back', async () => {
    const vocabulary = await readT5Vocabulary(shipped('flan_t5/tokenizer.json'));
    await convert(shipped('flan_t5'), out('t5.gguf'), { vocabulary });
    await convert(out('t5.gguf'), out('t5.safetensors'));
    expect([...openModel(out('t5.gguf')).tensors.keys()]).toContain('enc.blk.0.attn_q.weight');
    expect([...openModel(out('t5.safetensors')).tensors.keys()]).toContain('encoder.final_layer_norm.weight');
    const [made, original] = [part(out('t5.safetensors'), 't5'), part(shipped('flan_t5'), 't5')];
    expect(made.config).toEqual(original.config);
    await expectSame(made, original);
  });

  test('a CLIP of OpenAI has the names that all programs know in a GGUF', async () => {
    const text = [...stored(naming('clip_l_openai'))].filter(
      ([name]) => !/visual|resolution|length|size/.test(name),
    );
    await writeSafetensors(out('text.safetensors'), new Map(text));
    await convert(out('text.safetensors'), out('clip.gguf'), { type: 'F16' });
    const { metadata, tensorInfos } = await gguf(out('clip.gguf'), { allowLocalFile: true });
    expect(metadata['general.architecture']).toBe('clip');
    expect(tensorInfos.map(({ name }) => name)).toContain(
      'text_model.encoder.layers.0.self_attn.q_proj.weight',
    );
  });

  test('a T5 with its decoder is no such file: it stays whole', async () => {
    const more = filled({ 'decoder.block.0.layer.0.SelfAttention.q.weight': ['F32', [8, 8]] });
    await writeSafetensors(
      out('whole.safetensors'),
      new Map([...stored(golden('encoders/t5_tiny/model.safetensors')), ...more]),
    );
    await convert(out('whole.safetensors'), out('whole.gguf'));
    expect([...openModel(out('whole.gguf')).tensors.keys()]).toEqual(
      expect.arrayContaining(['shared.weight', 'decoder.block.0.layer.0.SelfAttention.q.weight']),
    );
  });
});

describe('a whole file', () => {
  test('without options it is copied byte for byte, tensor by tensor', async () => {
    const file = shipped('flux1-schnell-small.safetensors');
    await convert(file, out('copy.safetensors'));
    const [made, original] = [openModel(out('copy.safetensors')), openModel(file)];
    const bytesOf = ({ path, offset, bytes }: { path: string; offset: number; bytes: number }): Buffer =>
      readFileSync(path).subarray(offset, offset + bytes);
    for (const [name, info] of original.tensors)
      expect(bytesOf(made.tensors.get(name)!).equals(bytesOf(info)), name).toBe(true);
  });

  test('scaled FP8 becomes what it means', async () => {
    const file = golden('encoders/t5_tiny_containers/model.fp8_scaled_legacy.safetensors');
    await convert(file, out('f32.safetensors'), { type: 'F32' });
    const made = openModel(out('f32.safetensors'));
    expect([...made.tensors.keys()].some((name) => /scale/.test(name))).toBe(false);
    await expectSame(part(out('f32.safetensors'), 't5'), part(file, 't5'));
  });
});

describe('what goes wrong leaves nothing behind', () => {
  test.each([
    ['model.bin', {}, 'ERR_ARGUMENT', /ends in .safetensors or .gguf/],
    ['model.safetensors', { type: 'Q4_K' }, 'ERR_ARGUMENT', /safetensors hold no/],
    ['t5.gguf', { extract: 't5', type: 'Q8_0' }, 'ERR_TOKENIZER_MISSING', /carries its vocabulary/],
    ['t5.safetensors', { extract: 'clip_g' }, 'ERR_MODEL_SLOT', /does not fit the slot clip_g/],
  ] as const)('%s %o', async (name, options, code, message) => {
    await expect(convert(shipped('flan_t5'), out(name), options)).rejects.toMatchObject({
      code,
      message: expect.stringMatching(message) as string,
    });
    expect(readdirSync(folder.dir)).toEqual([]);
  });

  test('a file that is there stays as it was when the job is cancelled', async () => {
    writeFileSync(out('old.safetensors'), 'old');
    const abort = new AbortController();
    const job = convert(shipped('flux1-schnell-small.safetensors'), out('old.safetensors'), {
      type: 'F32',
      signal: abort.signal,
      onProgress: () => abort.abort(),
    });
    await expect(job).rejects.toMatchObject({ code: 'ERR_CANCELLED' });
    expect(readdirSync(folder.dir)).toEqual(['old.safetensors']);
    expect(readFileSync(out('old.safetensors'), 'utf8')).toBe('old');
    expect(existsSync(out('old.safetensors'))).toBe(true);
  });
});
