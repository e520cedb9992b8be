/** `kotoba forward`: the contract of DESIGN.md, against the golden activations. */
import { readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { writeSafetensors, type ArrayToWrite } from '../../src/formats/write.js';
import { golden, goldenPath, readGolden } from '../support/golden.js';
import { maxAbsDifference, relativeL2 } from '../support/reference.js';
import { readTensors } from './read_tensors.js';
import { run, temporaryFolder } from './run.js';

const TOLERANCE = 2e-5;
const dir = temporaryFolder();
const encoders = (name: string): string => golden(`encoders/${name}`);

async function inputs(name: string, tensors: Record<string, ArrayToWrite>): Promise<string> {
  const path = dir.join(`${name}.safetensors`);
  await writeSafetensors(path, new Map(Object.entries(tensors)));
  return path;
}

/** Golden token ids under the names of the contract. */
async function goldenInputs(expected: string, ids: string, mask?: string): Promise<string> {
  const tensors = readGolden(`encoders/${expected}`);
  const take = (key: string): ArrayToWrite => {
    const { data, shape } = tensors.get(key)!;
    return { data: data as Int32Array, shape };
  };
  return await inputs(`in-${ids}-${mask ?? ''}`, {
    token_ids: take(ids),
    ...(mask !== undefined && { attention_mask: take(mask) }),
  });
}

let count = 0;
const nextOutput = (): string => dir.join(`out${count++}.safetensors`);

async function forward(file: string, input: string, ...args: string[]) {
  const out = nextOutput();
  const { code, stderr } = await run(['forward', file, '--inputs', input, '-o', out, ...args]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  return readTensors(out).tensors;
}

function compare(got: Awaited<ReturnType<typeof forward>>, expected: string, names: Record<string, string>) {
  const reference = readGolden(`encoders/${expected}`);
  for (const [name, key] of Object.entries(names)) {
    const { data, shape } = reference.get(key)!;
    expect(got.get(name)!.shape, name).toEqual(shape);
    expect(got.get(name)!.dtype).toBe('F32');
    expect(maxAbsDifference(got.get(name)!.values, data), name).toBeLessThanOrEqual(TOLERANCE);
  }
}

describe('clip', () => {
  test.each(['clip_l_tiny', 'clip_g_tiny'])('%s: every state, pooled, projected', async (folder) => {
    const expected = `${folder}/expected.safetensors`;
    const file = encoders(`${folder}/model.safetensors`);
    const got = await forward(file, await goldenInputs(expected, 'input_ids'), '--precision', 'fp32');
    const states = [...readGolden(`encoders/${expected}`).keys()].filter((key) =>
      key.startsWith('hidden_states'),
    );
    const projected = folder === 'clip_g_tiny' ? { projected: 'text_embeds' } : {};
    expect([...got.keys()].sort()).toEqual(
      [...states, 'last_hidden_state', 'pooled', ...Object.keys(projected)].sort(),
    );
    const same = Object.fromEntries([...states, 'last_hidden_state', 'pooled'].map((name) => [name, name]));
    compare(got, expected, { ...same, ...projected });
  });

  test('--slot and --config choose and decide in a file of several networks', async () => {
    const expected = 'clip_naming/expected.safetensors';
    const file = encoders('clip_naming/sd3_checkpoint.safetensors');
    const dims = JSON.parse(readFileSync(encoders('clip_naming/config.json'), 'utf8')) as Record<
      string,
      { Hd: number; act: string; eos: number }
    >;
    for (const slot of ['clip_l', 'clip_g']) {
      const { Hd, act, eos } = dims[slot]!;
      const config = JSON.stringify({ num_attention_heads: Hd, hidden_act: act, eos_token_id: eos });
      const path = dir.join(`${slot}.json`);
      writeFileSync(path, config);
      const input = await goldenInputs(expected, `${slot}.input_ids`);
      for (const given of [config, path]) {
        const got = await forward(file, input, '--slot', slot, '--config', given);
        compare(got, expected, {
          last_hidden_state: `${slot}.last_hidden_state`,
          pooled: `${slot}.pooled`,
          projected: `${slot}.text_embeds`,
        });
      }
    }
    const without = await run(['forward', file, '--inputs', file, '-o', nextOutput()]);
    expect(without).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/ERR_MODEL_SLOT.*slot/) as string,
    });
  });
});

describe('t5', () => {
  const file = encoders('t5_tiny/model.safetensors');
  const expected = 't5_tiny/expected.safetensors';

  test('every state, without a tokenizer', async () => {
    const got = await forward(file, await goldenInputs(expected, 'len77.input_ids'));
    const names = [
      'hidden_states.0',
      'hidden_states.1',
      'hidden_states.2',
      'hidden_states.3',
      'last_hidden_state',
    ];
    expect([...got.keys()].sort()).toEqual([...names].sort());
    compare(got, expected, Object.fromEntries(names.map((name) => [name, `len77.${name}`])));
  });

  test('with and without attention_mask', async () => {
    const masked = await forward(
      file,
      await goldenInputs(expected, 'batch.input_ids', 'batch.attention_mask'),
    );
    compare(masked, expected, { last_hidden_state: 'batch.masked.last_hidden_state' });
    const plain = await forward(file, await goldenInputs(expected, 'batch.input_ids'), '--kind', 't5');
    compare(plain, expected, { last_hidden_state: 'batch.nomask.last_hidden_state' });
  });

  test('I64 ids, and one dimension as a batch of one', async () => {
    const { data } = readGolden(`encoders/${expected}`).get('len7.input_ids')!;
    const ids = BigInt64Array.from(data as Int32Array, BigInt);
    const header = JSON.stringify({ token_ids: { dtype: 'I64', shape: [7], data_offsets: [0, 56] } });
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(header.length));
    const path = dir.join('i64.safetensors');
    writeFileSync(path, Buffer.concat([length, Buffer.from(header), Buffer.from(ids.buffer)]));
    compare(await forward(file, path), expected, { last_hidden_state: 'len7.last_hidden_state' });
  });

  test('int8 is close, not equal; --json says what ran', async () => {
    const input = await goldenInputs(expected, 'len77.input_ids');
    const exact = await forward(file, input);
    const quick = await forward(file, input, '--precision', 'int8');
    const difference = maxAbsDifference(
      exact.get('last_hidden_state')!.values,
      quick.get('last_hidden_state')!.values,
    );
    expect(difference).toBeGreaterThan(0);
    const out = nextOutput();
    const { json } = await run(['forward', file, '--inputs', input, '-o', out, '--json']);
    expect(json()).toMatchObject({ precision: 'fp32', device: 'cpu', output: { path: out } });
  });
});

/** Golden tensors `at`.in.NAME under their names of the contract. */
async function diffusionInputs(io: string, at: string, names: readonly string[]): Promise<string> {
  const tensors = readGolden(io);
  const take = (name: string): [string, ArrayToWrite] => {
    const { data, shape } = tensors.get(`${at}.in.${name}`)!;
    return [name, { data: data as Float32Array, shape }];
  };
  return await inputs(`${at}-${names.join('-')}`, Object.fromEntries(names.map(take)));
}

const vaes = ['flux_ae_tiny', 'ldm_vae_tiny', 'sd3_vae_tiny'].filter((name) =>
  goldenPath(`diffusion/${name}`),
);
if (vaes.length < 3) console.log('not tested, ../shared/golden is not here: autoencoders of SD1 and SD3');

describe.each(vaes)('%s', (name) => {
  const file = golden(`diffusion/${name}/${name}.weights.safetensors`);
  const io = `diffusion/${name}/${name}.io.safetensors`;
  const cases = ['a', 'b'].filter((at) => readGolden(io).has(`${at}.in.latent`));

  test.each(cases)('decode and encode, case %s', async (at) => {
    const decoded = await forward(file, await diffusionInputs(io, at, ['latent']));
    const image = readGolden(io).get(`${at}.out.decode_raw`)!;
    expect(decoded.get('image')!.shape).toEqual(image.shape);
    expect(relativeL2(decoded.get('image')!.values, image.data)).toBeLessThan(1e-5);
    const encoded = await forward(file, await diffusionInputs(io, at, ['image']), '--part', 'encode');
    const mean = readGolden(io).get(`${at}.out.encode_mean`)!;
    expect(encoded.get('mean')!.shape).toEqual(mean.shape);
    expect(relativeL2(encoded.get('mean')!.values, mean.data)).toBeLessThan(1e-5);
  });

  test('an image whose sides the latents do not divide', async () => {
    const image = { data: new Float32Array(3 * 5 * 4), shape: [1, 3, 5, 4] };
    const path = await inputs('odd', { image });
    const result = await run(['forward', file, '--inputs', path, '-o', nextOutput(), '--part', 'encode']);
    expect(result).toMatchObject({ code: 2, stderr: expect.stringContaining('multiples of 2') as string });
  });
});

const fluxFiles = ['flux_tiny_dev', 'flux_tiny_schnell'].filter((name) => goldenPath(`diffusion/${name}`));
if (fluxFiles.length < 2) console.log('not tested, ../shared/golden is not here: forward of Flux');

describe.each(fluxFiles)('%s', (name) => {
  const file = `diffusion/${name}/${name}.weights.safetensors`;
  const io = `diffusion/${name}/${name}.io.safetensors`;
  const guidance = name === 'flux_tiny_dev' ? ['guidance'] : [];

  test.each([
    ['a', ['img', 'img_ids', 'txt', 'txt_ids', 'y', 'timesteps']],
    ['b', ['latent', 'txt', 'y', 'timesteps']],
  ])('case %s', async (at, names) => {
    const got = await forward(golden(file), await diffusionInputs(io, at, [...names, ...guidance]));
    const { data, shape } = readGolden(io).get(`${at}.out`)!;
    expect(got.get('out')!.shape).toEqual(shape);
    expect(relativeL2(got.get('out')!.values, data)).toBeLessThan(1e-5);
  });

  test.each([
    ['neither latent nor img', ['txt', 'y', 'timesteps'], 'either latent or img'],
    ['img without ids', ['img', 'txt', 'y', 'timesteps'], 'expected img_ids'],
    ['no y', ['latent', 'txt', 'timesteps'], 'expected y'],
  ])('%s', async (_, names, message) => {
    const path = await diffusionInputs(io, 'a', [...names, ...guidance]);
    const result = await run(['forward', golden(file), '--inputs', path, '-o', nextOutput()]);
    expect(result).toMatchObject({ code: 2, stderr: expect.stringContaining(message) as string });
  });
});

const others: readonly (readonly [name: string, inputs: readonly string[]])[] = [
  ['sd1_unet_tiny', ['x', 'context', 'timesteps']],
  ['sdxl_unet_tiny', ['x', 'context', 'timesteps', 'y']],
  ['sd3_tiny', ['x', 'context', 'y', 't']],
  ['sd35_large_tiny', ['x', 'context', 'y', 't']],
  ['sd35_medium_tiny', ['x', 'context', 'y', 't']],
];
const otherFiles = others.filter(([name]) => goldenPath(`diffusion/${name}`));
if (otherFiles.length < others.length)
  console.log('not tested, ../shared/golden is not here: forward of UNets and MMDiTs');

describe.each(otherFiles)('%s', (name, names) => {
  const file = `diffusion/${name}/${name}.weights.safetensors`;
  const io = `diffusion/${name}/${name}.io.safetensors`;

  test.each(['a', 'b'])('case %s', async (at) => {
    const got = await forward(golden(file), await diffusionInputs(io, at, names));
    const { data, shape } = readGolden(io).get(`${at}.out`)!;
    expect(got.get('out')!.shape).toEqual(shape);
    expect(relativeL2(got.get('out')!.values, data)).toBeLessThan(1e-5);
  });

  test('sides that it cannot halve or cut', async () => {
    const { data, shape } = readGolden(io).get('a.in.x')!;
    const [batch, channels, , width] = shape as [number, number, number, number];
    const odd = {
      data: (data as Float32Array).slice(0, batch * channels * width),
      shape: [batch, channels, 1, width],
    };
    const path = await inputs('odd-sides', { x: odd });
    const result = await run(['forward', golden(file), '--inputs', path, '-o', nextOutput()]);
    expect(result).toMatchObject({ code: 2, stderr: expect.stringContaining('multiples of') as string });
  });
});

describe('refused', () => {
  const file = encoders('t5_tiny/model.safetensors');
  const ids = (values: number[], shape = [1, values.length]): ArrayToWrite => ({
    data: Int32Array.from(values),
    shape,
  });
  const floats = (values: number[]): ArrayToWrite => ({
    data: Float32Array.from(values),
    shape: [1, values.length],
  });

  test.each<[string, Record<string, ArrayToWrite>, number, RegExp]>([
    ['an unknown input', { token_ids: ids([1]), extra: ids([1]) }, 2, /got also extra/],
    ['no ids', { attention_mask: ids([1]) }, 2, /expected token_ids/],
    ['float ids', { token_ids: floats([1]) }, 2, /I32 or I64, got F32/],
    ['three dimensions', { token_ids: ids([1], [1, 1, 1]) }, 2, /\[batch, tokens\]/],
    ['no tokens', { token_ids: ids([], [1, 0]) }, 2, /a token/],
    ['a negative id', { token_ids: ids([1, -1]) }, 1, /ERR_TOKEN_ID.*-1 at position 1/],
    ['an id beyond the table', { token_ids: ids([600]) }, 1, /ERR_TOKEN_ID.*599/],
    [
      'a mask of another shape',
      { token_ids: ids([1, 2]), attention_mask: ids([1]) },
      2,
      /\[1, 2\], got \[1, 1\]/,
    ],
    ['a mask that is none', { token_ids: ids([1]), attention_mask: ids([7]) }, 2, /0 and 1.*got 7/],
  ])('%s', async (name, tensors, code, message) => {
    const input = await inputs(name.replaceAll(' ', '-'), tensors);
    const result = await run(['forward', file, '--inputs', input, '-o', nextOutput()]);
    expect(result).toMatchObject({ code, stderr: expect.stringMatching(message) as string });
  });

  test('attention_mask for a CLIP', async () => {
    const input = await inputs('clip-mask', { token_ids: ids([1]), attention_mask: ids([1]) });
    const clip = encoders('clip_l_tiny/model.safetensors');
    expect(await run(['forward', clip, '--inputs', input, '-o', nextOutput()])).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('got also attention_mask') as string,
    });
  });

  test('a kind the file does not hold', async () => {
    const input = await inputs('fine', { token_ids: ids([1]) });
    const tail = ['--inputs', input, '-o', nextOutput()];
    const flux = await run(['forward', file, ...tail, '--kind', 'flux']);
    expect(flux).toMatchObject({ code: 1, stderr: expect.stringContaining('holds no flux') as string });
    const slot = await run(['forward', file, ...tail, '--slot', 'unet']);
    expect(slot).toMatchObject({ code: 1, stderr: expect.stringContaining('slot unet') as string });
    const clip = await run(['forward', file, ...tail, '--kind', 'clip']);
    expect(clip).toMatchObject({ code: 1, stderr: expect.stringContaining('holds no clip') as string });
  });

  test('inputs and output are required', async () => {
    expect(await run(['forward', file])).toMatchObject({ code: 2, stdout: '' });
  });
});
