/**
 * The cases of `kotoba bench ops` on a GPU: the shapes of T5-XXL, CLIP, Flux.1 at 1024² and its autoencoder, and the
 * ones that the goals are about. Cases on the same weights follow one another, so that those are made once.
 */
import type { DType } from '../src/formats/dtype.js';
import type { OpPrecision } from '../src/runtime/ops.js';
import {
  caseName,
  weightTypes,
  type AttentionCase,
  type CaseOptions,
  type ConvCase,
  type LinearCase,
  type NormCase,
  type OpsCase,
} from './ops_cases.js';

type Shape = readonly [m: number, n: number, k: number];

/** What a GPU multiplies in; int8 is the CPU's. */
export const gpuPrecisions: readonly OpPrecision[] = ['fp16', 'bf16', 'fp32'];

/** Tokens of Flux at 1024²: text, image, both. */
const [text, image, joint] = [512, 4096, 4608];

const denseShapes: readonly Shape[] = [
  // T5-XXL: attention's four, wi, wo
  ...[77, 512].flatMap((m): Shape[] => [
    [m, 4096, 4096],
    [m, 10240, 4096],
    [m, 4096, 10240],
  ]),
  [512, 20480, 4096],
  // CLIP-L, CLIP-G
  [77, 768, 768],
  [77, 3072, 768],
  [77, 768, 3072],
  [77, 1280, 1280],
  [77, 5120, 1280],
  // Flux: q, k, v apart and together, projection, MLP, of the text and of the image; single blocks
  ...[text, image].flatMap((m): Shape[] => [
    [m, 3072, 3072],
    [m, 9216, 3072],
    [m, 12288, 3072],
    [m, 3072, 12288],
  ]),
  [joint, 21504, 3072],
  [joint, 3072, 15360],
  // one modulation vector, and a few rows
  [1, 18432, 3072],
  [16, 4096, 4096],
  [4096, 4096, 4096],
  [8192, 8192, 8192],
];

const fp32Shapes: readonly Shape[] = [
  [4096, 4096, 4096],
  [8192, 8192, 8192],
  [512, 10240, 4096],
  [joint, 3072, 15360],
  [77, 3072, 768],
  [1, 18432, 3072],
];

const fusedCases: readonly (readonly [...Shape, NonNullable<LinearCase['epilogue']>])[] = [
  [512, 10240, 4096, 'gated'],
  [image, 12288, 3072, 'gelu'],
  [image, 3072, 12288, 'residual'],
  [joint, 3072, 15360, 'residual'],
  [77, 3072, 768, 'gelu'],
];

/** Rows of x for every quantised type; weights of T5's attention, of Flux's MLP for the largest. */
const quantisedRows = [1, 16, 77, 512] as const;
const largeQuantised: Shape = [joint, 12288, 3072];
/** The goals at M = 1 are for large weights. */
const largeGemv: Shape = [1, 8192, 8192];

const attentionShapes: readonly Omit<AttentionCase, 'op' | 'precision'>[] = [
  { network: 'flux', heads: 24, headDim: 128, tokens: joint, mask: 'none' },
  { network: 'flux', heads: 24, headDim: 128, tokens: 1280, mask: 'none' },
  ...[512, 1024, 2048, 4096].map((tokens) => ({
    network: 'd128',
    heads: 16,
    headDim: 128,
    tokens,
    mask: 'none' as const,
  })),
  ...[512, 1024, 2048, 4096].map((tokens) => ({
    network: 'd64',
    heads: 32,
    headDim: 64,
    tokens,
    mask: 'none' as const,
  })),
  { network: 't5', heads: 64, headDim: 64, tokens: 512, mask: 't5' },
  { network: 't5', heads: 64, headDim: 64, tokens: 512, mask: 'none' },
  { network: 't5', heads: 64, headDim: 64, tokens: 77, mask: 't5' },
  { network: 'clip_l', heads: 12, headDim: 64, tokens: 77, mask: 'causal' },
  { network: 'clip_g', heads: 20, headDim: 64, tokens: 77, mask: 'causal' },
  // the autoencoder's middle at 1024²
  { network: 'vae', heads: 1, headDim: 512, tokens: 16384, mask: 'none' },
];

/** Of the decoder at 1024², from the latents up. */
const convShapes: readonly Omit<ConvCase, 'op' | 'precision'>[] = [
  { height: 128, width: 128, inputs: 16, outputs: 512, kernel: 3 },
  { height: 128, width: 128, inputs: 512, outputs: 512, kernel: 3 },
  { height: 128, width: 128, inputs: 512, outputs: 512, kernel: 3, upscale: 2 },
  { height: 512, width: 512, inputs: 512, outputs: 256, kernel: 1 },
  { height: 512, width: 512, inputs: 256, outputs: 256, kernel: 3 },
  { height: 1024, width: 1024, inputs: 128, outputs: 128, kernel: 3 },
  { height: 1024, width: 1024, inputs: 128, outputs: 3, kernel: 3 },
];

const normShapes: readonly Omit<NormCase, 'precision'>[] = [
  { op: 'rms_norm', rows: 512, cols: 4096 },
  { op: 'rms_norm', rows: 32768, cols: 4096 },
  { op: 'layer_norm', rows: 77, cols: 768 },
  { op: 'layer_norm_modulated', rows: joint, cols: 3072 },
  { op: 'group_norm', rows: 128 * 128, cols: 512 },
  { op: 'group_norm', rows: 1024 * 1024, cols: 128 },
];

const plainTypes: readonly DType[] = ['F32', 'F16', 'BF16', 'F64'];
const quantisedTypes = weightTypes.filter((type) => !plainTypes.includes(type));
/** Weights as stored that need no decoding at this precision. */
const ownType: Partial<Record<OpPrecision, DType>> = { fp16: 'F16', bf16: 'BF16', fp32: 'F32' };

export function gpuCases(options: CaseOptions = {}): OpsCase[] {
  const { types, filter } = options;
  const precisions = precisionsOf(options);
  const sixteenBit = precisions.filter((precision) => precision === 'fp16' || precision === 'bf16');
  const cases: OpsCase[] = [
    ...linearCases(precisions, types),
    ...precisions.flatMap((precision) =>
      attentionShapes.map((shape) => ({ op: 'attention' as const, ...shape, precision })),
    ),
    ...precisions.flatMap((precision) =>
      convShapes.map((shape) => ({ op: 'conv2d' as const, ...shape, precision })),
    ),
    ...normShapes.flatMap((shape) =>
      ['fp32' as const, ...sixteenBit.slice(0, 1)].map((precision) => ({ ...shape, precision })),
    ),
    ...(types ?? weightTypes).map((type): OpsCase => ({ op: 'decode', type, rows: 8192, cols: 4096 })),
    ...(types ?? (['F16', 'Q8_0', 'Q6_K'] as const)).map((type): OpsCase => ({
      op: 'embedding',
      type,
      ids: 4096,
      vocabulary: 32128,
      cols: 4096,
    })),
  ];
  return filter ? cases.filter((each) => filter.test(caseName(each))) : cases;
}

const precisionsOf = ({ precisions = gpuPrecisions }: CaseOptions): OpPrecision[] =>
  gpuPrecisions.filter((precision) => precisions.includes(precision));

/** @param types  instead of the precision's own type, and of all quantised ones */
function linearCases(precisions: readonly OpPrecision[], types?: readonly DType[]): LinearCase[] {
  const cases: LinearCase[] = [];
  const add = (shape: Shape, type: DType, precision: OpPrecision, epilogue?: LinearCase['epilogue']) => {
    const [m, n, k] = shape;
    if (types === undefined || types.includes(type))
      cases.push({ op: 'linear', m, n, k, type, precision, epilogue });
  };
  for (const precision of precisions) {
    const type = ownType[precision]!;
    for (const shape of precision === 'fp32' ? fp32Shapes : denseShapes) add(shape, type, precision);
    if (precision !== 'fp32')
      for (const [m, n, k, epilogue] of fusedCases) add([m, n, k], type, precision, epilogue);
  }
  const coarse = precisions.find((precision) => precision !== 'fp32');
  if (coarse === undefined) return cases;
  for (const type of quantisedTypes) {
    for (const m of quantisedRows) add([m, 4096, 4096], type, coarse);
    add(largeQuantised, type, coarse);
  }
  for (const type of ['Q4_K', 'Q8_0'] as const)
    for (const m of [1, 16, 77]) add([m, largeGemv[1], largeGemv[2]], type, coarse);
  return cases;
}

/** A tiny case of every op in every precision, for the simulated device: odd sizes, every kind of epilogue. */
export function simulatedCases(options: CaseOptions = {}): OpsCase[] {
  const { types, filter } = options;
  const cases = precisionsOf(options).flatMap((precision): OpsCase[] => [
    ...(types ?? [ownType[precision]!, 'Q8_0' as const, 'Q4_K' as const]).flatMap((type): OpsCase[] => [
      { op: 'linear', m: 3, n: 33, k: 256, type, precision },
      { op: 'linear', m: 35, n: 48, k: 256, type, precision },
    ]),
    ...(['gelu', 'gated', 'residual'] as const).map((epilogue): OpsCase => ({
      op: 'linear',
      m: 5,
      n: 24,
      k: 64,
      type: ownType[precision]!,
      precision,
      epilogue,
    })),
    { op: 'attention', network: 't5', heads: 2, headDim: 64, tokens: 37, mask: 't5', precision },
    { op: 'attention', network: 'clip', heads: 2, headDim: 64, tokens: 9, mask: 'causal', precision },
    { op: 'attention', network: 'flux', heads: 1, headDim: 128, tokens: 21, mask: 'none', precision },
    { op: 'conv2d', height: 5, width: 7, inputs: 16, outputs: 24, kernel: 3, precision },
    { op: 'conv2d', height: 3, width: 4, inputs: 16, outputs: 8, kernel: 3, upscale: 2, precision },
    { op: 'rms_norm', rows: 5, cols: 320, precision },
    { op: 'layer_norm', rows: 5, cols: 320, precision },
    { op: 'layer_norm_modulated', rows: 5, cols: 320, precision },
    { op: 'group_norm', rows: 30, cols: 64, precision },
  ]);
  for (const type of types ?? (['Q4_K', 'IQ1_M', 'F16'] as const))
    cases.push({ op: 'decode', type, rows: 4, cols: 256 });
  cases.push({ op: 'embedding', type: 'Q8_0', ids: 6, vocabulary: 50, cols: 64 });
  return filter ? cases.filter((each) => filter.test(caseName(each))) : cases;
}
