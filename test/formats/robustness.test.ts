/** Damaged files: each gives a right result or a coded error, never another exception, never a range outside the file. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { mutate, seededRandom } from '../../bench/fuzz/mutate.js';
import { KotobaError } from '../../src/errors.js';
import {
  checkPart,
  identify,
  leftovers,
  memorySource,
  openModel,
  parseGguf,
  parseSafetensors,
} from '../../src/formats/index.js';
import type { ByteSource, ModelFile, ParsedFile } from '../../src/formats/index.js';
import { goldenPath } from '../support/golden.js';
import { ggufHeader, safetensorsHeader, wholeFile } from './model_bytes.js';
import type { GgufValue, TensorTable } from './model_bytes.js';

const kMutants = 4000;

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'kotoba-damage-'));
});
afterAll(() => rmSync(dir, { recursive: true }));

const tensors: TensorTable = {
  'shared.weight': ['F16', [40, 32]],
  'encoder.block.0.layer.0.SelfAttention.q.weight': ['F8_E4M3', [32, 32]],
  'encoder.block.0.layer.0.SelfAttention.q.scale_weight': ['F32', []],
  scaled_fp8: ['F8_E4M3', [0]],
  ['__proto__']: ['I64', [1, 7]],
};
const ggufTensors: TensorTable = {
  'token_embd.weight': ['Q8_0', [40, 32]],
  'enc.blk.0.attn_q.weight': ['Q4_K', [4, 256]],
  'enc.blk.0.attn_norm.weight': ['F32', [32]],
};
const ggufKeys: Record<string, GgufValue> = {
  'general.architecture': ['STRING', 't5encoder'],
  't5encoder.embedding_length': ['U32', 32],
  'general.alignment': ['U32', 32],
  'tokenizer.ggml.tokens': ['ARRAY', ['STRING', ['<pad>', '</s>', 'ü', '']]],
  'tokenizer.ggml.scores': ['ARRAY', ['F32', [0, -1, -2, 3]]],
  nested: [
    'ARRAY',
    [
      'ARRAY',
      [
        ['U8', [1, 2]],
        ['BOOL', [true, false]],
      ],
    ],
  ],
  'comfy.gguf.orig_shape.enc.blk.0.attn_q.weight': ['ARRAY', ['I32', [8, 128]]],
  big: ['U64', 2n ** 60n],
};
const samples = {
  safetensors: wholeFile(
    safetensorsHeader(tensors, { metadata: { format: 'pt', config: '{"d_model": 32}' } }),
  ),
  gguf: wholeFile(ggufHeader(ggufTensors, ggufKeys)),
};
const index = Buffer.from(
  JSON.stringify({ weight_map: { 'shared.weight': 'model-00001-of-00001.safetensors' } }, null, 1),
);

const parsers = { safetensors: parseSafetensors, gguf: parseGguf } as const;
const asModel = (parsed: ParsedFile): ModelFile => ({ ...parsed, files: [], weightsDir: dir });

/** Runs everything a file goes through; anything but a coded error escapes. */
function survive(parse: (source: ByteSource) => ParsedFile, bytes: Buffer): 'read' | string {
  try {
    const parsed = parse(memorySource(bytes, join(dir, 'mutant')));
    for (const { offset, bytes: length, name } of parsed.tensors.values())
      if (!(offset >= 0 && length >= 0 && offset + length <= bytes.length))
        throw new RangeError(`${name} lies outside`);
    const model = asModel(parsed);
    const parts = identify(model);
    leftovers(model, parts);
    parts.forEach(checkPart);
    return 'read';
  } catch (error) {
    if (error instanceof KotobaError) return error.code;
    throw error;
  }
}

describe.each(['safetensors', 'gguf'] as const)('%s', (container) => {
  const whole = samples[container];
  const parse = parsers[container];

  test('the sample itself is read', () => expect(parse(memorySource(whole)).tensors.size).toBeGreaterThan(2));

  test('every truncation is ERR_…_TRUNCATED', () => {
    const { tensors: all } = parse(memorySource(whole));
    const end = Math.max(...[...all.values()].map(({ offset, bytes }) => offset + bytes));
    for (let n = 0; n < end; n++)
      expect(survive(parse, whole.subarray(0, n)), `${n} bytes`).toMatch(
        /^ERR_(SAFETENSORS|GGUF)_TRUNCATED$/,
      );
  });

  test('every single changed byte of the header gives a result or a coded error', () => {
    const random = seededRandom(1);
    for (let at = 0; at < Math.min(whole.length, 1500); at++) {
      const mutant = Buffer.from(whole);
      mutant[at] = Math.floor(random() * 256);
      survive(parse, mutant);
    }
  });

  test(`${kMutants} seeded mutants give a result or a coded error`, () => {
    const outcomes = new Map<string, number>();
    for (let seed = 0; seed < kMutants; seed++) {
      const outcome = survive(parse, mutate(whole, seededRandom(seed)));
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
    }
    // The mutator must reach past the first check, or the test proves little.
    expect([...outcomes.keys()].length, JSON.stringify([...outcomes])).toBeGreaterThanOrEqual(4);
  });
});

describe('part of a model', () => {
  const files = [
    'clip_naming/sd3_checkpoint.safetensors',
    'clip_naming/sdxl_checkpoint.safetensors',
    'long_clip_tiny/openai_naming_res.safetensors',
    't5_tiny_containers/model.fp8_scaled_legacy.safetensors',
    't5_tiny_gguf/model.f32.gguf',
  ];

  test.each(files)('any one tensor, and any few tensors, of %s', (name) => {
    const model = openModel(goldenPath(`encoders/${name}`)!);
    const all = [...model.tensors];
    const random = seededRandom(7);
    const subsets = [
      ...all.map((tensor) => [tensor]),
      ...Array.from({ length: 200 }, (_, i) => all.filter(() => random() < i / 200)),
    ];
    for (const subset of subsets) {
      const part: ModelFile = { ...model, tensors: new Map(subset) };
      try {
        for (const found of identify(part))
          if (subset.length === 1) expect(() => checkPart(found)).toThrow(KotobaError);
      } catch (error) {
        if (!(error instanceof KotobaError)) throw error;
      }
    }
  });
});

describe('files on disk', () => {
  const open = (name: string, bytes: Buffer): string => {
    const path = join(dir, name);
    writeFileSync(path, bytes);
    try {
      identify(openModel(path)).forEach(checkPart);
      return 'read';
    } catch (error) {
      if (error instanceof KotobaError) return error.code;
      throw error;
    } finally {
      rmSync(path);
    }
  };

  test('every truncation of an index is a coded error', () => {
    writeFileSync(join(dir, 'model-00001-of-00001.safetensors'), samples.safetensors);
    for (let n = 0; n < index.length; n++)
      expect(open('model.safetensors.index.json', index.subarray(0, n)), `${n} bytes`).toBe('ERR_SHARDS');
  });

  test('mutated indices and golden files give a result or a coded error', () => {
    // Only headers are damaged: their first bytes decide, and the data would swallow most mutations.
    const kHeader = 4096;
    const names = [
      'encoders/clip_naming/clip_l_openai.safetensors',
      'encoders/t5_quant_gguf/model.q4_k.gguf',
    ];
    const [safetensors, gguf] = names.map((name) => readFileSync(goldenPath(name)!)) as [Buffer, Buffer];
    const damage = (whole: Buffer, random: () => number): Buffer =>
      Buffer.concat([mutate(whole.subarray(0, kHeader), random), whole.subarray(kHeader)]);
    for (let seed = 0; seed < 300; seed++) {
      const random = seededRandom(seed);
      open('model.safetensors.index.json', mutate(index, random));
      open('mutant.safetensors', damage(safetensors, random));
      open('mutant.gguf', damage(gguf, random));
      open('nameless', mutate(samples.gguf, random));
    }
  });
});
