/** How a network's matmuls run: what callers ask for, and what that comes to on a device. */
import { KotobaError } from '../errors.js';
import { mainDType } from '../formats/describe.js';
import type { DType, Part } from '../formats/index.js';
import type { Device } from '../runtime/device.js';
import type { OpPrecision } from '../runtime/ops.js';

/**
 * `fp32`: exact on the stored weights, as exact as FP32 adds up. `int8` (CPU): activations quantised per 32 columns.
 * `fp16`, `bf16` (GPU): inputs of matmuls and attention rounded to 16 bits, sums and the residual stream in FP32.
 * `auto`: `fp32` on the CPU; on a GPU by the type that most of the network's bytes are stored in: F32 → `fp32`,
 * F16 → `fp16`, BF16, FP8 and GGUF's quantised types → `bf16`.
 */
export type Precision = 'auto' | OpPrecision;
export const PRECISIONS: readonly Precision[] = ['auto', 'fp32', 'int8', 'fp16', 'bf16'];

const CHOICES = {
  CPU: ['auto', 'fp32', 'int8'],
  GPU: ['auto', 'fp32', 'fp16', 'bf16'],
} as const satisfies Record<string, readonly Precision[]>;

type Where = Pick<Device, 'isGpu'>;

/** @throws KotobaError ERR_ARGUMENT for a precision that the device does not have, naming those it has */
export function requirePrecision(wanted: Precision, device: Where): void {
  const kind = device.isGpu ? 'GPU' : 'CPU';
  if ((CHOICES[kind] as readonly Precision[]).includes(wanted)) return;
  const article = kind === 'GPU' ? 'a' : 'the';
  throw new KotobaError(
    'ERR_ARGUMENT',
    `precision: expected ${CHOICES[kind].join(', ')} on ${article} ${kind}, got "${wanted}"`,
  );
}

/** @throws KotobaError ERR_ARGUMENT for a precision that the device does not have, naming those it has */
export function resolvePrecision(
  wanted: Precision | undefined,
  part: Pick<Part, 'tensors'>,
  device: Where,
): OpPrecision {
  if (wanted === undefined || wanted === 'auto')
    return device.isGpu ? precisionFor(mainDType(part.tensors)) : 'fp32';
  requirePrecision(wanted, device);
  return wanted;
}

/** The narrowest that loses nothing of what the type can tell apart, on tensor cores. */
function precisionFor(stored: DType): OpPrecision {
  if (stored === 'F16') return 'fp16';
  return stored === 'F32' || stored === 'F64' ? 'fp32' : 'bf16';
}
