/**
 * Every element type a tensor can be stored in, named as safetensors and ggml name them.
 * The same table as native/dtype.h, in the same order: weights per block, bytes per block.
 */
export const DTYPES = {
  F32: [1, 4],
  F16: [1, 2],
  BF16: [1, 2],
  F64: [1, 8],
  F8_E4M3: [1, 1],
  F8_E5M2: [1, 1],
  I64: [1, 8],
  I32: [1, 4],
  I16: [1, 2],
  I8: [1, 1],
  U64: [1, 8],
  U32: [1, 4],
  U16: [1, 2],
  U8: [1, 1],
  BOOL: [1, 1],
  Q4_0: [32, 18],
  Q4_1: [32, 20],
  Q5_0: [32, 22],
  Q5_1: [32, 24],
  Q8_0: [32, 34],
  Q8_1: [32, 36],
  Q2_K: [256, 84],
  Q3_K: [256, 110],
  Q4_K: [256, 144],
  Q5_K: [256, 176],
  Q6_K: [256, 210],
  Q8_K: [256, 292],
  IQ2_XXS: [256, 66],
  IQ2_XS: [256, 74],
  IQ3_XXS: [256, 98],
  IQ1_S: [256, 50],
  IQ4_NL: [32, 18],
  IQ3_S: [256, 110],
  IQ2_S: [256, 82],
  IQ4_XS: [256, 136],
  IQ1_M: [256, 56],
  TQ1_0: [256, 54],
  TQ2_0: [256, 66],
  MXFP4: [32, 17],
  NVFP4: [64, 36],
  Q1_0: [128, 18],
  Q2_0: [64, 18],
} as const satisfies Record<string, readonly [weights: number, bytes: number]>;

export type DType = keyof typeof DTYPES;

export const blockWeights = (dtype: DType): number => DTYPES[dtype][0];
export const blockBytes = (dtype: DType): number => DTYPES[dtype][1];

export const isFp8 = (dtype: DType): boolean => dtype === 'F8_E4M3' || dtype === 'F8_E5M2';

/** Whether a tensor of this type decodes to float, so that a network can compute with it. */
export function isWeightDType(dtype: DType): boolean {
  return !/^(I|U)\d+$|^BOOL$/.test(dtype);
}

/** Elements of a shape; `undefined` where the product is not exact in a double. */
export function elementCount(shape: readonly number[]): number | undefined {
  if (shape.includes(0)) return 0;
  let count = 1;
  for (const n of shape) {
    count *= n;
    if (count > Number.MAX_SAFE_INTEGER) return undefined;
  }
  return count;
}

/** Bytes of a tensor; `undefined` where the shape is too large, or its rows are no whole number of blocks. */
export function tensorBytes(dtype: DType, shape: readonly number[]): number | undefined {
  const [weights, bytes] = DTYPES[dtype];
  const count = elementCount(shape);
  if (count === undefined || (shape.at(-1) ?? 1) % weights !== 0) return undefined;
  const total = (count / weights) * bytes;
  return total <= Number.MAX_SAFE_INTEGER ? total : undefined;
}
