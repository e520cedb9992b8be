import type { Tensor } from '../runtime/tensor.js';

/** What an encoder's layer generator yields: the residual stream after layer `layer` (0 = the embedding). */
export interface Layer {
  readonly layer: number;
  /** [batch · tokens, hidden], owned by the generator */
  readonly hidden: Tensor;
}
