/** The autoencoder against golden/diffusion/flux_ae_tiny: every intermediate, both directions. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { decodeStages, encodeStages } from '../../src/diffusion/vae.js';
import { vaeDecoder, vaeEncoder } from '../../src/diffusion/vae_model.js';
import { openModel, selectPart, type VaePart } from '../../src/formats/index.js';
import { Autoencoder } from '../../src/pipeline/painting/autoencoder.js';
import { Device } from '../../src/runtime/device.js';
import { Ops } from '../../src/runtime/ops.js';
import { Weights } from '../../src/runtime/weights.js';
import { openModelDevice } from '../support/devices.js';
import { golden, readGolden } from '../support/golden.js';
import { runTower } from '../support/golden_vae.js';
import { normal, relativeL2 } from '../support/reference.js';

const TOLERANCE = 1e-5;
const io = readGolden('diffusion/flux_ae_tiny/flux_ae_tiny.io.safetensors');
const values = (name: string): Float32Array => io.get(name)!.data as Float32Array;

let device: Device;
let ops: Ops;
let part: VaePart;
let weights: Weights;
beforeAll(() => {
  device = openModelDevice();
  ops = new Ops(device, 'fp32');
  part = selectPart(openModel(golden('diffusion/flux_ae_tiny/flux_ae_tiny.weights.safetensors')), {
    slot: 'vae',
  }) as VaePart;
  weights = new Weights(device, part.tensors, 'flux_ae_tiny');
});
afterAll(() => {
  weights[Symbol.dispose]();
  device.close();
});

function compare(stages: ReadonlyMap<string, Float32Array>, prefix: string): number {
  let compared = 0;
  for (const [name, got] of stages) {
    const expected = io.get(prefix + name);
    if (!expected) continue;
    expect(relativeL2(got, expected.data as Float32Array), prefix + name).toBeLessThan(TOLERANCE);
    compared++;
  }
  return compared;
}

describe('flux_ae_tiny', () => {
  test.each(['a', 'b'])('decode, case %s', async (at) => {
    const vae = vaeDecoder(weights, part.config);
    const { stages, out } = await runTower(ops, io.get(`${at}.in.latent`)!, (rows, size) =>
      decodeStages(ops, vae, rows, size),
    );
    if (at === 'a') expect(compare(stages, 'a.mid.dec.')).toBe(6);
    expect(relativeL2(out, values(`${at}.out.decode_raw`))).toBeLessThan(TOLERANCE);
  });

  test.each(['a', 'b'])('encode, case %s', async (at) => {
    const vae = vaeEncoder(weights, part.config);
    const { stages, out, channels } = await runTower(ops, io.get(`${at}.in.image`)!, (rows, size) =>
      encodeStages(ops, vae, rows, size),
    );
    if (at === 'a') expect(compare(stages, 'a.mid.enc.')).toBeGreaterThanOrEqual(5);
    const each = out.length / io.get(`${at}.in.image`)!.shape[0]!;
    const half = (first: boolean) => out.filter((_, i) => i % each < each / 2 === first);
    expect(channels).toBe(8);
    expect(relativeL2(half(true), values(`${at}.out.encode_mean`))).toBeLessThan(TOLERANCE);
    expect(relativeL2(half(false), values(`${at}.out.encode_logvar`))).toBeLessThan(TOLERANCE);
  });

  test('scaled and shifted, as the denoiser sees latents', async () => {
    const autoencoder = new Autoencoder(device, part);
    const [, z, height, width] = io.get('a.in.latent')!.shape as number[];
    const latents = { data: values('a.in.latent'), channels: z!, height: height!, width: width! };
    const decoded = await device.run(() => autoencoder.decode(ops, latents, { tile: 1024 }));
    expect(relativeL2(decoded.data, values('a.out.decode_scaled'))).toBeLessThan(TOLERANCE);
    const [, c, h, w] = io.get('a.in.image')!.shape as number[];
    const image = { data: values('a.in.image'), channels: c!, height: h!, width: w! };
    const encoded = await device.run(() => autoencoder.encode(ops, image, { tile: 1024 }));
    expect(relativeL2(encoded.data, values('a.out.encode_latent_scaled'))).toBeLessThan(TOLERANCE);
    autoencoder.release();
  });

  test('tiles cover the picture and agree with one piece but for the seams', async () => {
    const autoencoder = new Autoencoder(device, part);
    const latents = { data: normal(4 * 40 * 24, 7), channels: 4, height: 40, width: 24 };
    const tiles: number[] = [];
    const whole = await device.run(() => autoencoder.decode(ops, latents, { tile: 1024 }));
    const tiled = await device.run(() =>
      autoencoder.decode(ops, latents, { tile: 32, onTile: (_, total) => tiles.push(total) }),
    );
    expect(tiles).toHaveLength(tiles[0]!);
    expect(tiles.length).toBe(3 * 2);
    expect([tiled.width, tiled.height]).toEqual([whole.width, whole.height]);
    // Group norm and attention see a tile, not the picture: close, not equal.
    expect(relativeL2(tiled.data, whole.data)).toBeLessThan(0.5);
    autoencoder.release();
  });
});
