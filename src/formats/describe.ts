/** Words for people about what a part's tensors are. */
import { isFp8 } from './dtype.js';
import type { DType } from './dtype.js';
import { piecesOf, usedTensors } from './part.js';
import type { TensorSource } from './part.js';

/** "F16", "Q4_K, Q6_K and F32", "F8_E4M3 with scales": stored types, most bytes first. */
export function describeDTypes(tensors: ReadonlyMap<string, TensorSource>): string {
  const bytes = new Map<DType, number>();
  const scales = new Set([...tensors.values()].flatMap(piecesOf).flatMap(({ scale }) => scale ?? []));
  for (const tensor of usedTensors(tensors))
    if (!scales.has(tensor)) bytes.set(tensor.dtype, (bytes.get(tensor.dtype) ?? 0) + tensor.bytes);
  const names = [...bytes]
    .sort((a, b) => b[1] - a[1])
    .map(([dtype]) => (isFp8(dtype) && scales.size > 0 ? `${dtype} with scales` : dtype));
  return names.length < 2 ? names.join('') : `${names.slice(0, -1).join(', ')} and ${names.at(-1)}`;
}
