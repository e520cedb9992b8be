/** What `auto` comes to, and which precisions each kind of device refuses. */
import { describe, expect, test } from 'vitest';
import type { DType, Part } from '../../src/formats/index.js';
import { TextEncoder } from '../../src/pipeline/text_encoder.js';
import { resolvePrecision } from '../../src/pipeline/precision.js';
import { Device } from '../../src/runtime/device.js';
import { golden } from '../support/golden.js';

/** A network of tensors of these types and numbers of bytes. */
function partOf(...stored: readonly [DType, number][]): Pick<Part, 'tensors'> {
  const tensors = stored.map(([dtype, bytes], i) => {
    const tensor = { name: `${i}`, dtype, shape: [1], offset: 0, bytes, path: 'file' };
    return [`${i}`, { tensor, shape: [1] }] as const;
  });
  return { tensors: new Map(tensors) };
}

const CPU = { isGpu: false };
const GPU = { isGpu: true };

describe('auto', () => {
  test.each<[DType, string]>([
    ['F32', 'fp32'],
    ['F64', 'fp32'],
    ['F16', 'fp16'],
    ['BF16', 'bf16'],
    ['F8_E4M3', 'bf16'],
    ['F8_E5M2', 'bf16'],
    ['Q8_0', 'bf16'],
    ['Q4_K', 'bf16'],
    ['IQ4_XS', 'bf16'],
  ])('of %s is fp32 on the CPU, on a GPU %s', (dtype, onGpu) => {
    expect(resolvePrecision('auto', partOf([dtype, 100]), CPU)).toBe('fp32');
    expect(resolvePrecision('auto', partOf([dtype, 100]), GPU)).toBe(onGpu);
    expect(resolvePrecision(undefined, partOf([dtype, 100]), GPU)).toBe(onGpu);
  });

  test('goes by the type of most bytes', () => {
    expect(resolvePrecision('auto', partOf(['F32', 90], ['Q4_K', 100], ['F16', 20]), GPU)).toBe('bf16');
    expect(resolvePrecision('auto', partOf(['BF16', 60], ['F16', 50], ['F16', 50]), GPU)).toBe('fp16');
  });
});

test.each(['fp32', 'fp16', 'bf16'] as const)('a GPU takes %s whatever is stored', (precision) => {
  expect(resolvePrecision(precision, partOf(['Q8_0', 1]), GPU)).toBe(precision);
});

test('refused with the choices', () => {
  const refused = (message: RegExp) =>
    expect.objectContaining({ code: 'ERR_ARGUMENT', message: expect.stringMatching(message) as string });
  const part = partOf(['F16', 1]);
  for (const precision of ['fp16', 'bf16'] as const)
    expect(() => resolvePrecision(precision, part, CPU)).toThrow(
      refused(/expected auto, fp32, int8 on the CPU, got "(fp|bf)16"/),
    );
  expect(() => resolvePrecision('int8', part, GPU)).toThrow(
    refused(/expected auto, fp32, fp16, bf16 on a GPU, got "int8"/),
  );
  expect(() => resolvePrecision('fp64' as 'fp32', part, GPU)).toThrow(refused(/got "fp64"/));
});

describe('devices by name', () => {
  const t5 = golden('encoders/t5_tiny/model.safetensors');
  const tokens = { ids: Int32Array.of(5, 6, 1), batch: 1 };

  test('an encoder opens one of its own and closes it', async () => {
    const encoder = await TextEncoder.load(t5, { device: 'cpu', threads: 1, input: 'ids' });
    expect(encoder.device.info).toMatchObject({ name: 'cpu', threads: 1 });
    await encoder.encodeTokens(tokens);
    await encoder[Symbol.asyncDispose]();
    expect(() => encoder.device.empty('F32', [1])).toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }));
  });

  test('several share one, which stays open', async () => {
    await using device = Device.open('cpu');
    for (let i = 0; i < 2; i++) {
      await using one = await TextEncoder.load(t5, { device, input: 'ids' });
      await using other = await TextEncoder.load(t5, { device, input: 'ids', precision: 'int8' });
      const both = await Promise.all([one.encodeTokens(tokens), other.encodeTokens(tokens)]);
      expect(both.map(({ lastHiddenState }) => lastHiddenState.length)).toEqual([192, 192]);
    }
  });

  test('one that is not there is an error, and leaves nothing open', async () => {
    await expect(TextEncoder.load(t5, { device: 'cuda:99', input: 'ids' })).rejects.toMatchObject({
      code: 'ERR_DEVICE',
    });
    await expect(TextEncoder.load(t5, { device: 'cpu', precision: 'bf16' })).rejects.toMatchObject({
      code: 'ERR_ARGUMENT',
    });
  });
});
