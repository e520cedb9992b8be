import { KotobaError } from '../errors.js';
import type { Activation } from '../runtime/ops.js';

/** Hugging Face's names (transformers/activations.py) for the functions that text encoders use. */
const ACTIVATIONS: Readonly<Record<string, Activation>> = {
  quick_gelu: 'quick_gelu',
  gelu: 'gelu_erf',
  gelu_new: 'gelu_tanh',
  gelu_pytorch_tanh: 'gelu_tanh',
  silu: 'silu',
  swish: 'silu',
};

/** @throws KotobaError ERR_MODEL_CONFIG for a name no encoder of ours has */
export function activationNamed(name: string): Activation {
  const activation = ACTIVATIONS[name];
  if (activation) return activation;
  const known = Object.keys(ACTIVATIONS).join(', ');
  throw new KotobaError('ERR_MODEL_CONFIG', `activation: expected one of ${known}, got "${name}"`);
}
