/** Layer differences equal those computed from two references' states; overflow and NaN are seen, never hidden. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { clipNetwork, t5Network, type TextNetwork } from '../../src/encoders/text_network.js';
import { openModel, selectPart, type Part } from '../../src/formats/index.js';
import { F16_MOST, layerDifferences } from '../../src/pipeline/layer_difference.js';
import { Device } from '../../src/runtime/device.js';
import { Weights } from '../../src/runtime/weights.js';
import { golden, readGolden } from '../support/golden.js';

let device: Device;
const loaded: Weights[] = [];
beforeAll(() => {
  device = Device.open('cpu');
});
afterAll(() => {
  for (const weights of loaded) weights[Symbol.dispose]();
  device.close();
});

async function network(path: string, config?: Record<string, unknown>): Promise<TextNetwork> {
  const part: Part = selectPart(openModel(path), config && { config });
  const weights = new Weights(device, part.tensors, path);
  loaded.push(weights);
  return await device.run(async () => {
    if (part.family === 't5') return t5Network(weights, part);
    if (part.family === 'clip') return clipNetwork(weights, part);
    throw new Error(part.description);
  });
}

const t5 = (name: string) => network(golden(`encoders/${name}`));
const ids = (from: string, key: string): Int32Array => readGolden(from).get(key)!.data as Int32Array;

test('a network and itself: exactly nothing, in every layer', async () => {
  const [a, b] = [await t5('t5_tiny/model.safetensors'), await t5('t5_tiny_gguf/model.f32.gguf')];
  const tokens = { ids: ids('encoders/t5_tiny/expected.safetensors', 'len77.input_ids'), batch: 1 };
  const seen: number[] = [];
  const found = await layerDifferences(device, a, b, tokens, undefined, (layer) => seen.push(layer));
  expect(found.map(({ layer }) => layer)).toEqual([0, 1, 2, 3]);
  expect(seen).toEqual([0, 1, 2, 3]);
  for (const one of found) expect(one).toMatchObject({ relativeL2: 0, worstCosine: 1, snr: Infinity });
});

test("equal to what two references' states give, in every layer", async () => {
  // One network on two published sequences: both states are golden, computed in double by others.
  const config = { num_attention_heads: 2, hidden_act: 'quick_gelu' };
  const a = await network(golden('encoders/clip_naming/clip_l_hf.safetensors'), config);
  const expected = readGolden('encoders/clip_naming/expected.safetensors');
  const both = expected.get('clip_l.input_ids')!.data as Int32Array;
  const rows = [both.subarray(0, 77), both.subarray(77)].map((row) => ({ ids: row.slice(), batch: 1 }));
  const b: TextNetwork = { ...a, place: (on) => a.place(on, rows[1]!) };
  const found = await layerDifferences(device, a, b, rows[0]!);
  expect(found).toHaveLength(3);
  for (const one of found) {
    const states = expected.get(`clip_l.hidden_states.${one.layer}`)!.data as Float32Array;
    const want = measured(states.subarray(0, 77 * 32), states.subarray(77 * 32), 32);
    expect(one.relativeL2 / want.relativeL2).toBeCloseTo(1, 5);
    expect(one.worstCosine).toBeCloseTo(want.worstCosine, 5);
    expect(one.worstToken).toBe(want.worstToken);
    expect(one.snr).toBeCloseTo(-20 * Math.log10(want.relativeL2), 4);
    for (const i of [0, 1]) expect(one.largest[i]! / want.largest[i]!).toBeCloseTo(1, 5);
  }
});

/** Written as the definitions are. */
function measured(a: Float32Array, b: Float32Array, width: number) {
  const sum = (values: Iterable<number>): number => [...values].reduce((total, value) => total + value, 0);
  const norm = (values: Float32Array): number => Math.sqrt(sum([...values].map((v) => v * v)));
  const cosines = Array.from({ length: a.length / width }, (_, token) => {
    const [x, y] = [a, b].map((one) => one.subarray(token * width, (token + 1) * width)) as [
      Float32Array,
      Float32Array,
    ];
    const isSame = x.every((value, i) => value === y[i]);
    return isSame ? 1 : sum([...x].map((value, i) => value * y[i]!)) / norm(x) / norm(y);
  });
  const worstCosine = Math.min(...cosines);
  return {
    relativeL2: norm(a.map((value, i) => value - b[i]!)) / norm(a),
    worstCosine,
    worstToken: cosines.indexOf(worstCosine),
    largest: [a, b].map((one) => Math.max(...one.map(Math.abs))),
  };
}

test('an FP8 form: the distance grows with the layers, and the states are those of the reference', async () => {
  const [a, b] = [
    await t5('t5_tiny/model.safetensors'),
    await t5('t5_tiny_containers/model.fp8_e4m3fn.safetensors'),
  ];
  const expected = readGolden('encoders/t5_tiny/expected.safetensors');
  const tokens = { ids: expected.get('len7.input_ids')!.data as Int32Array, batch: 1 };
  const found = await layerDifferences(device, a, b, tokens);
  for (const { layer, largest } of found) {
    const states = expected.get(`len7.hidden_states.${layer}`)!.data as Float32Array;
    expect(largest[0], `layer ${layer}`).toBeCloseTo(Math.max(...states.map(Math.abs)), 4);
  }
  const growing = found.map(({ relativeL2 }) => relativeL2);
  expect(growing).toEqual([...growing].sort((p, q) => p - q));
  expect(growing[0]).toBeGreaterThan(0.01);
});

test("T5's overflow is seen in the layer where it begins", async () => {
  const path = golden('encoders/t5_overflow_tiny/model.safetensors');
  const [a, b] = [await network(path), await network(path)];
  const expected = readGolden('encoders/t5_overflow_tiny/expected.safetensors');
  const key = [...expected.keys()].find((name) => name.endsWith('input_ids'))!;
  const found = await layerDifferences(device, a, b, {
    ids: expected.get(key)!.data as Int32Array,
    batch: 1,
  });
  const beyond = found.filter(({ largest }) => largest[0] > F16_MOST).map(({ layer }) => layer);
  expect(beyond).toEqual([2, 3]); // golden README: 73, 41816, 155100, 142058
  const states = expected.get('hidden_states.2')!.data as Float32Array;
  expect(found[2]!.largest[0] / Math.max(...states.map(Math.abs))).toBeCloseTo(1, 4);
});

test('networks of other shapes are refused', async () => {
  const a = await t5('t5_tiny/model.safetensors');
  const tokens = { ids: Int32Array.from([3, 1]), batch: 1 };
  await expect(layerDifferences(device, a, { ...a, depth: 2 }, tokens)).rejects.toMatchObject({
    code: 'ERR_ARGUMENT',
  });
});
