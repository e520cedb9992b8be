/** Converted files: what comes out has the same values under the right names, whatever the way. */
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gguf } from '@huggingface/gguf';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { convertModel, type ConvertOptions, type Converted } from '../../src/convert/convert.js';
import {
  openModel,
  selectPart,
  type Part,
  type Slot,
  type TensorInfo,
  type TensorSource,
} from '../../src/formats/index.js';
import { Device } from '../../src/runtime/device.js';
import { TensorStream } from '../../src/runtime/tensor_stream.js';
import { readT5Vocabulary } from '../../src/text/index.js';
import { golden } from '../support/golden.js';
import { relativeL2 } from '../support/reference.js';

let device: Device;
let dir: string;
beforeAll(() => (device = Device.open('cpu')));
afterAll(() => device.close());
beforeEach(() => (dir = mkdtempSync(join(tmpdir(), 'kotoba-convert-'))));
afterEach(() => rmSync(dir, { recursive: true }));

const out = (name: string): string => join(dir, name);
const convert = (input: string, output: string, options?: ConvertOptions): Promise<Converted> =>
  convertModel(device, openModel(input), output, options);

async function values(source: TensorSource): Promise<Float32Array> {
  using stream = new TensorStream(device);
  const parts: Uint8Array[] = [];
  for await (const part of stream.bytes(source, 'F32')) parts.push(part);
  const all = Buffer.concat(parts);
  return new Float32Array(all.buffer.slice(all.byteOffset, all.byteOffset + all.length));
}

/** Every canonical tensor of both, compared in F32. */
async function expectSame(a: Part, b: Part, tolerance = 0): Promise<void> {
  // A checkpoint may leave out the projection.
  const other = [...b.tensors.keys()].filter(
    (name) => a.tensors.has(name) || name !== 'text_projection.weight',
  );
  expect([...a.tensors.keys()].sort()).toEqual(other.sort());
  for (const [name, source] of a.tensors) {
    const [left, right] = [await values(source), await values(b.tensors.get(name)!)];
    expect(source.shape, name).toEqual(b.tensors.get(name)!.shape);
    if (tolerance === 0) expect(Buffer.from(left.buffer).equals(Buffer.from(right.buffer)), name).toBe(true);
    else expect(relativeL2(left, right), name).toBeLessThanOrEqual(tolerance);
  }
}

const part = (path: string, slot: Slot): Part => selectPart(openModel(path), { slot, allowUndecided: true });
const naming = (file: string): string => golden(`encoders/clip_naming/${file}.safetensors`);
const shipped = (file: string): string => join(import.meta.dirname, '../../models/kotoba-small', file);

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

  test.each(['F32', 'F16', 'Q4_K', 'Q6_K', 'IQ4_XS'] as const)('a Flux as %s', async (type) => {
    const file = shipped('flux1-schnell-small.safetensors');
    const made = await convert(file, out('flux.gguf'), { extract: 'transformer', type });
    expect(made.tensors.some(({ dtype }) => dtype === type)).toBe(true);
    await expectSame(part(out('flux.gguf'), 'transformer'), part(file, 'transformer'), 0.12);
  });
});

describe('a whole file', () => {
  test('encoders put back into a checkpoint are stored as the checkpoint stores them', async () => {
    const replace = (['clip_l', 'clip_g'] as const).map((slot) => ({
      slot,
      part: part(naming(`${slot}_hf`), slot),
    }));
    await convert(naming('sdxl_checkpoint'), out('back.safetensors'), { replace });
    const [made, original] = [openModel(out('back.safetensors')), openModel(naming('sdxl_checkpoint'))];
    expect([...made.tensors.keys()].sort()).toEqual([...original.tensors.keys()].sort());
    const read = async (info: TensorInfo): Promise<Buffer> => {
      using stream = new TensorStream(device);
      const parts: Uint8Array[] = [];
      const type = info.dtype.startsWith('I') ? info.dtype : 'F32';
      for await (const bytes of stream.bytes({ tensor: info, shape: info.shape }, type)) parts.push(bytes);
      return Buffer.concat(parts);
    };
    for (const [name, info] of original.tensors)
      expect((await read(made.tensors.get(name)!)).equals(await read(info)), name).toBe(true);
  });

  test('an encoder of another width is refused, saying what would fit', async () => {
    const replace = [{ slot: 'clip_l' as const, part: part(shipped('text_encoder'), 'clip_l') }];
    await expect(
      convert(naming('sdxl_checkpoint'), out('no.safetensors'), { replace }),
    ).rejects.toMatchObject({
      code: 'ERR_MODEL_TENSORS',
      message: expect.stringMatching(/does not fit in the place of CLIP .*: expected \[/) as string,
    });
    expect(readdirSync(dir)).toEqual([]);
  });

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
    expect(readdirSync(dir)).toEqual([]);
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
    expect(readdirSync(dir)).toEqual(['old.safetensors']);
    expect(readFileSync(out('old.safetensors'), 'utf8')).toBe('old');
    expect(existsSync(out('old.safetensors'))).toBe(true);
  });
});
