/** Damaged weights: a NaN or an infinity anywhere is an error that names the encoder and the place, never a result. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Device, TextEncoder, type LoadOptions } from '../../src/index.js';
import { outcomeOf, rewritten, useScratch, type Tensors } from './scratch.js';

const kT5 = 'encoders/t5_tiny_containers/model.fp16.safetensors';
const kFp8 = 'encoders/t5_tiny_containers/model.fp8_scaled_legacy.safetensors';
const kClip = 'encoders/clip_naming/clip_l_hf.safetensors';
const kBlock = 'encoder.block.1.layer';
const kLayer = 'text_model.encoder.layers.1';

const scratch = useScratch();
let device: Device;
beforeAll(() => {
  device = Device.open('cpu', { threads: 2 });
});
afterAll(() => device.close());

/** Overwrites every weight of a tensor: half of them would do, but embeddings use only the rows asked for. */
function fill(tensors: Tensors, name: string, pattern: string): void {
  const tensor = tensors.get(name)!;
  Buffer.from(tensor.data.buffer).fill(Buffer.from(pattern, 'hex'));
}

const kNan16 = '007e';
const kInf16 = '007c';
const kNan32 = '0000c07f';
const kInf32 = '000080ff';

describe.each(['fp32', 'int8'] as const)('%s', (precision) => {
  const encode = (path: string, options: LoadOptions = {}) =>
    outcomeOf(async () => {
      await using encoder = await TextEncoder.load(path, { ...options, device, precision });
      await encoder.encodeTokens({ ids: Int32Array.of(1, 2, 3, 4, 5, 6, 7), batch: 1 });
    });

  test.each<[string, string, string, RegExp]>([
    ['shared.weight', kT5, kNan16, /^t5: layer 0 of 3: -?nan/],
    [`${kBlock}.0.layer_norm.weight`, kT5, kInf16, /^t5: layer 2 of 3: /],
    [`${kBlock}.0.SelfAttention.q.weight`, kT5, kNan16, /^t5: layer 2 of 3: -?nan/],
    [`${kBlock}.0.SelfAttention.v.weight`, kT5, kInf16, /^t5: layer 2 of 3: /],
    [`${kBlock}.1.DenseReluDense.wi_0.weight`, kT5, kNan16, /^t5: layer 2 of 3: -?nan/],
    [`${kBlock}.1.DenseReluDense.wo.weight`, kT5, kInf16, /^t5: layer 2 of 3: /],
    [
      'encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight',
      kT5,
      kNan16,
      /^t5: layer 1 of 3: -?nan/,
    ],
    ['encoder.final_layer_norm.weight', kT5, kNan16, /^t5: .*final/],
    [`${kBlock}.1.DenseReluDense.wo.scale_weight`, kFp8, kNan32, /^t5: layer 2 of 3: -?nan/],
    ['text_model.embeddings.position_embedding.weight', kClip, kInf32, /^clip_l: layer 0 of 2: -?inf/],
    [`${kLayer}.self_attn.k_proj.bias`, kClip, kNan32, /^clip_l: layer 2 of 2: -?nan/],
    [`${kLayer}.mlp.fc2.bias`, kClip, kInf32, /^clip_l: layer 2 of 2: -?inf/],
    [`${kLayer}.layer_norm2.bias`, kClip, kNan32, /^clip_l: layer 2 of 2: -?nan/],
    ['text_model.final_layer_norm.bias', kClip, kNan32, /^clip_l: .*final/],
    ['text_projection.weight', kClip, kNan32, /^clip_l: .*projection/],
  ])('%s', async (tensor, file, pattern, message) => {
    const path = await rewritten(scratch, file, (tensors) => fill(tensors, tensor, pattern));
    const config = { num_attention_heads: 2, hidden_act: 'quick_gelu' };
    const outcome = await encode(path, file === kClip ? { config } : {});
    expect(outcome.code, outcome.message).toBe('ERR_NON_FINITE');
    expect(outcome.message).toMatch(message);
  });

  test('the device goes on working', async () => {
    expect(await encode(await rewritten(scratch, kT5, () => undefined))).toMatchObject({ code: 'ok' });
  });
});
