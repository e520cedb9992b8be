/** The cases of `kotoba bench ops`: what a case is, and the CPU's as data: the text encoders' shapes and square ones. */
import { DTYPES, isWeightDType, type DType } from '../src/formats/dtype.js';
import type { OpPrecision } from '../src/runtime/ops.js';

/** out [m, n] = x [m, k] · w [n, k]ᵀ */
export interface LinearCase {
  readonly op: 'linear';
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly type: DType;
  readonly precision: OpPrecision;
  /** What follows the product in the same kernel; default: nothing. */
  readonly epilogue?: LinearEpilogue | undefined;
}

/**
 * `gelu`: bias and tanh GELU, an MLP's first half; `gated`: GELU times another product, T5's; `residual`: bias, gate,
 * and the sum with the F32 residual stream, a modulated block's last.
 */
export type LinearEpilogue = 'gelu' | 'gated' | 'residual';

export interface AttentionCase {
  readonly op: 'attention';
  readonly network: string;
  readonly heads: number;
  readonly headDim: number;
  readonly tokens: number;
  readonly mask: 'none' | 'causal' | 't5';
  /** Of q, k, v and the output; default `fp32`. */
  readonly precision?: OpPrecision | undefined;
}

export interface NormCase {
  readonly op: 'rms_norm' | 'layer_norm' | 'layer_norm_modulated' | 'group_norm';
  /** Tokens, or pixels of a group norm. */
  readonly rows: number;
  readonly cols: number;
  /** Of the output; the input is F32. Default `fp32`. */
  readonly precision?: OpPrecision | undefined;
}

/** A convolution with padding of half its kernel; x [height · width, inputs], out [.., outputs]. */
export interface ConvCase {
  readonly op: 'conv2d';
  readonly height: number;
  readonly width: number;
  readonly inputs: number;
  readonly outputs: number;
  readonly kernel: 1 | 3;
  /** 2: x is read as if nearest-upsampled to twice its size. */
  readonly upscale?: 1 | 2 | undefined;
  /** Of x and out; weights are F32, as the autoencoder's file has them. */
  readonly precision: OpPrecision;
}

export interface DecodeCase {
  readonly op: 'decode';
  readonly type: DType;
  readonly rows: number;
  readonly cols: number;
}

export interface EmbeddingCase {
  readonly op: 'embedding';
  readonly type: DType;
  readonly ids: number;
  readonly vocabulary: number;
  readonly cols: number;
}

export type OpsCase = LinearCase | AttentionCase | NormCase | ConvCase | DecodeCase | EmbeddingCase;

const linearShapes: readonly (readonly [m: number, n: number, k: number])[] = [
  [1024, 1024, 1024],
  [2048, 2048, 2048],
  [4096, 4096, 4096],
  [77, 3072, 768],
  [77, 768, 3072],
  [77, 768, 768],
  [256, 4096, 4096],
  [512, 10240, 4096],
  [512, 4096, 10240],
  [77, 4096, 4096],
  [1, 4096, 4096],
];

const attentionCases: readonly AttentionCase[] = [
  ...[77, 256, 512].map((tokens): AttentionCase => ({
    op: 'attention',
    network: 't5',
    heads: 64,
    headDim: 64,
    tokens,
    mask: 't5',
  })),
  { op: 'attention', network: 'clip', heads: 12, headDim: 64, tokens: 77, mask: 'causal' },
  { op: 'attention', network: 'flux', heads: 24, headDim: 128, tokens: 1024, mask: 'none' },
];

/** Of SD1's UNet at 256 × 256 pixels, level by level, and the last of its autoencoder. */
const convCases: readonly ConvCase[] = [
  [32, 320],
  [16, 640],
  [8, 1280],
  [256, 128],
].map(([side, width]) => ({
  op: 'conv2d',
  ...{ height: side!, width: side!, inputs: width!, outputs: width!, kernel: 3, precision: 'fp32' },
}));

const normCases: readonly NormCase[] = [
  { op: 'rms_norm', rows: 77, cols: 4096 },
  { op: 'rms_norm', rows: 512, cols: 4096 },
  { op: 'layer_norm', rows: 77, cols: 768 },
  { op: 'layer_norm', rows: 512, cols: 1280 },
];

export const linearTypes: readonly DType[] = [
  'F32',
  'F16',
  'BF16',
  'F8_E4M3',
  'Q8_0',
  'Q4_0',
  'Q4_K',
  'Q6_K',
];
export const weightTypes = (Object.keys(DTYPES) as DType[]).filter(isWeightDType);
const embeddingTypes: readonly DType[] = ['F32', 'F16', 'Q8_0', 'Q6_K'];

export interface CaseOptions {
  /** Weight types instead of each op's own choice. */
  readonly types?: readonly DType[] | undefined;
  /** Default both. */
  readonly precisions?: readonly OpPrecision[] | undefined;
  /** Keeps the cases whose name matches; a name begins with its op. */
  readonly filter?: RegExp | undefined;
}

export function selectCases({ types, precisions = ['fp32', 'int8'], filter }: CaseOptions = {}): OpsCase[] {
  const cases: OpsCase[] = [];
  for (const [m, n, k] of linearShapes)
    for (const type of types ?? linearTypes)
      for (const precision of precisions) cases.push({ op: 'linear', m, n, k, type, precision });
  cases.push(...attentionCases, ...convCases, ...normCases);
  for (const type of types ?? weightTypes) cases.push({ op: 'decode', type, rows: 4096, cols: 4096 });
  for (const type of types ?? embeddingTypes)
    cases.push({ op: 'embedding', type, ids: 512, vocabulary: 32128, cols: 4096 });
  return filter ? cases.filter((each) => filter.test(caseName(each))) : cases;
}

/** `linear 77x3072x768 Q8_0 fp32`: M x N x K. A precision that is the op's only one on the CPU is not named. */
export function caseName(c: OpsCase): string {
  switch (c.op) {
    case 'linear':
      return words(`linear ${c.m}x${c.n}x${c.k} ${c.type} ${c.precision}`, c.epilogue);
    case 'attention':
      return words(
        `attention ${c.network} ${c.heads}x${c.headDim} ${c.tokens} tokens`,
        c.network === 't5' && c.mask === 'none' && 'without bias',
        c.precision,
      );
    case 'conv2d':
      return words(
        `conv2d ${c.height}x${c.width} ${c.inputs}-${c.outputs} ${c.kernel}x${c.kernel}`,
        c.upscale === 2 && 'upscaled',
        c.precision,
      );
    case 'decode':
      return `decode ${c.rows}x${c.cols} ${c.type}`;
    case 'embedding':
      return `embedding ${c.ids}x${c.cols} ${c.type}`;
    default:
      return words(`${c.op} ${c.rows}x${c.cols}`, c.precision);
  }
}

const words = (...parts: (string | false | undefined)[]): string => parts.filter(Boolean).join(' ');

/** What a summary is made over. */
export function caseGroup(c: OpsCase): string {
  if (c.op === 'linear') return words(`linear ${c.precision} ${c.type}`, c.epilogue && 'with epilogue');
  return words(c.op, 'precision' in c && c.precision);
}
