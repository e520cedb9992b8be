/** Words for people about what a part's tensors are. */
import { isFp8 } from './dtype.js';
import type { DType } from './dtype.js';
import type { TensorInfo } from './model_file.js';
import { piecesOf, usedTensors } from './part.js';
import type { TensorSource } from './part.js';

type Tensors = ReadonlyMap<string, TensorSource>;

/** "F16", "Q4_K, Q6_K and F32", "F8_E4M3 with scales": stored types, most bytes first. */
export function describeDTypes(tensors: Tensors): string {
  const hasScales = scalesOf(tensors).size > 0;
  const names = dtypesOf(tensors).map((dtype) =>
    isFp8(dtype) && hasScales ? `${dtype} with scales` : dtype,
  );
  return names.length < 2 ? names.join('') : `${names.slice(0, -1).join(', ')} and ${names.at(-1)}`;
}

/** The type that most bytes are stored in. */
export const mainDType = (tensors: Tensors): DType => dtypesOf(tensors)[0] ?? 'F32';

const scalesOf = (tensors: Tensors): Set<TensorInfo> =>
  new Set([...tensors.values()].flatMap(piecesOf).flatMap(({ scale }) => scale ?? []));

/** Those of weights, most bytes first. */
function dtypesOf(tensors: Tensors): DType[] {
  const bytes = new Map<DType, number>();
  const scales = scalesOf(tensors);
  for (const tensor of usedTensors(tensors))
    if (!scales.has(tensor)) bytes.set(tensor.dtype, (bytes.get(tensor.dtype) ?? 0) + tensor.bytes);
  return [...bytes].sort((a, b) => b[1] - a[1]).map(([dtype]) => dtype);
}
