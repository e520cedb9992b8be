/**
 * fp16 and bf16 on GPUs: every stage of every golden network is at most twice as far from the float64 reference as the
 * plain reference of that precision is (support/rounded_ops.ts), and the residual stream stays F32.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { decodeStages, encodeStages } from '../../src/diffusion/vae.js';
import { vaeDecoder, vaeEncoder } from '../../src/diffusion/vae_model.js';
import { fluxModel } from '../../src/diffusion/flux_model.js';
import { encodeTokens } from '../../src/encoders/encode_tokens.js';
import { clipNetwork, t5Network } from '../../src/encoders/text_network.js';
import { openModel, selectPart, type Part } from '../../src/formats/index.js';
import { Device } from '../../src/runtime/device.js';
import { Ops } from '../../src/runtime/ops.js';
import { Weights } from '../../src/runtime/weights.js';
import { describeGpus, openTarget } from '../support/devices.js';
import { golden, goldenPath, readGolden, type GoldenTensor } from '../support/golden.js';
import { runFlux } from '../support/golden_flux.js';
import { runTower } from '../support/golden_vae.js';
import { maxAbsDifference } from '../support/reference.js';
import { RoundedOps, type SixteenBits } from '../support/rounded_ops.js';

/** How many times the plain reference's error a device may have: sums in other orders, rounded probabilities. */
const FACTOR = 2;
/** Of an FP32 run, relative to the largest value: what both have whatever the precision. */
const EXACT = 2e-5;

type Stages = ReadonlyMap<string, Float32Array>;
type Golden = ReadonlyMap<string, GoldenTensor>;
interface Case {
  /** @returns every stage by its golden name */
  readonly run: (ops: Ops) => Promise<Stages>;
  readonly expected: Golden;
}

async function withPart<T>(
  { device }: Ops,
  file: string,
  slot: Part['slot'] | undefined,
  use: (weights: Weights, part: Part) => Promise<T>,
): Promise<T> {
  const part = selectPart(openModel(golden(file)), slot ? { slot } : {});
  using weights = new Weights(device, part.tensors, file);
  return await device.run(() => use(weights, part));
}

/** @param at what stands before the names of the expected tensors */
function textCase(folder: string, at: string, idsName = `${at}input_ids`): Case {
  const expected = readGolden(`encoders/${folder}/expected.safetensors`);
  const ids = expected.get(idsName)!;
  const run = (ops: Ops): Promise<Stages> =>
    withPart(ops, `encoders/${folder}/model.safetensors`, undefined, async (weights, part) => {
      if (part.family !== 'clip' && part.family !== 't5') throw new Error(part.description);
      const network = part.family === 'clip' ? clipNetwork(weights, part) : t5Network(weights, part);
      const layers = Array.from({ length: network.depth + 1 }, (_, i) => i);
      const tokens = { ids: ids.data as Int32Array, batch: ids.shape[0]! };
      const got = await encodeTokens(ops, network, tokens, { raw: layers });
      return new Map([
        ...layers.map((i) => [`${at}hidden_states.${i}`, got.raw.get(i)!] as const),
        [`${at}last_hidden_state`, got.lastHiddenState],
        ...(got.pooled ? [[`${at}pooled`, got.pooled] as const] : []),
        ...(got.projected ? [[`${at}text_embeds`, got.projected] as const] : []),
      ]);
    });
  return { run, expected };
}

function fluxCase(name: string): Case {
  const expected = readGolden(`diffusion/${name}/${name}.io.safetensors`);
  const run = (ops: Ops): Promise<Stages> =>
    withPart(ops, `diffusion/${name}/${name}.weights.safetensors`, 'transformer', async (weights, part) => {
      if (part.family !== 'flux' || part.slot !== 'transformer') throw new Error(part.description);
      const stages = await runFlux(ops, fluxModel(weights, part.config), expected, 'a');
      return new Map([...stages].map(([stage, values]) => [`a.${stage}`, values]));
    });
  return { run, expected };
}

function vaeCase(direction: 'decode' | 'encode'): Case {
  const expected = readGolden('diffusion/flux_ae_tiny/flux_ae_tiny.io.safetensors');
  const run = async (ops: Ops): Promise<Stages> => {
    const part = selectPart(openModel(golden('diffusion/flux_ae_tiny/flux_ae_tiny.weights.safetensors')));
    if (part.slot !== 'vae') throw new Error(part.description);
    using weights = new Weights(ops.device, part.tensors, 'flux_ae_tiny');
    const input = expected.get(direction === 'decode' ? 'a.in.latent' : 'a.in.image')!;
    const { stages, out } = await runTower(ops, input, (rows, size) =>
      direction === 'decode'
        ? decodeStages(ops, vaeDecoder(weights, part.config), rows, size)
        : encodeStages(ops, vaeEncoder(weights, part.config), rows, size),
    );
    const prefix = direction === 'decode' ? 'a.mid.dec.' : 'a.mid.enc.';
    const last = direction === 'decode' ? 'a.out.decode_raw' : 'a.mid.enc.moments';
    return new Map([...[...stages].map(([name, values]) => [prefix + name, values] as const), [last, out]]);
  };
  return { run, expected };
}

const CASES: Readonly<Record<string, () => Case>> = {
  't5_tiny, 7 tokens': () => textCase('t5_tiny', 'len7.'),
  't5_tiny, 77 tokens': () => textCase('t5_tiny', 'len77.'),
  't5_overflow_tiny: a residual stream beyond 65504': () => textCase('t5_overflow_tiny', ''),
  clip_l_tiny: () => textCase('clip_l_tiny', ''),
  clip_g_tiny: () => textCase('clip_g_tiny', ''),
  long_clip_tiny: () => textCase('long_clip_tiny', ''),
  ...(goldenPath('diffusion/flux_tiny_dev') && { flux_tiny_dev: () => fluxCase('flux_tiny_dev') }),
  'flux_ae_tiny, decoder': () => vaeCase('decode'),
  'flux_ae_tiny, encoder': () => vaeCase('encode'),
};

const errorOf = (stages: Stages, expected: Golden, name: string): number =>
  maxAbsDifference(stages.get(name)!, expected.get(name)!.data as Float32Array);

describeGpus((target) => {
  let gpu: Device;
  let cpu: Device;
  beforeAll(() => {
    gpu = openTarget(target);
    cpu = Device.open('cpu');
  });
  afterAll(() => {
    gpu.close();
    cpu.close();
  });

  describe.each<SixteenBits>(['fp16', 'bf16'])('%s', (precision) => {
    test.each(Object.keys(CASES))('%s', { timeout: 180_000 }, async (name) => {
      const { run, expected } = CASES[name]!();
      using plain = new RoundedOps(cpu, precision);
      const reference = await run(plain);
      const got = await run(new Ops(gpu, precision));
      let compared = 0;
      for (const stage of got.keys()) {
        if (!expected.has(stage)) continue;
        const largest = maxAbsDifference(
          expected.get(stage)!.data as Float32Array,
          new Float32Array(expected.get(stage)!.data.length),
        );
        const [error, plainError] = [errorOf(got, expected, stage), errorOf(reference, expected, stage)];
        expect(error, `${stage}: ${error}, the plain reference has ${plainError}`).toBeLessThanOrEqual(
          FACTOR * plainError + EXACT * largest,
        );
        compared++;
      }
      expect(compared).toBeGreaterThan(2);
    });
  });
});
