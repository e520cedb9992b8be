/** `kotoba forward` on a text encoder. */
import { TextEncoder } from '../index.js';
import type { ForwardOutputs, ForwardRun } from './forward_run.js';
import { readTokenInputs } from './forward_inputs.js';

export async function forwardEncoder(run: ForwardRun): Promise<ForwardOutputs> {
  const { path, part, device, precision, options, signal, onProgress } = run;
  await using encoder = await TextEncoder.load(path, {
    input: 'ids',
    device,
    slot: part.slot,
    precision,
    config: options.config,
  });
  const { ids, batch, mask } = readTokenInputs(options.inputs, encoder.part.family);
  const { depth, width, projection } = encoder.network;
  const wanted = {
    raw: Array.from({ length: depth + 1 }, (_, i) => i),
    onLayer: (layer: number) => onProgress(layer, depth),
  };
  const out = await encoder.encodeTokens({ ids, batch, mask }, wanted, signal);
  const shape = [batch, ids.length / batch, width];
  const outputs: ForwardOutputs = new Map();
  for (const layer of wanted.raw) outputs.set(`hidden_states.${layer}`, { data: out.raw.get(layer)!, shape });
  outputs.set('last_hidden_state', { data: out.lastHiddenState, shape });
  if (out.pooled) outputs.set('pooled', { data: out.pooled, shape: [batch, width] });
  if (out.projected) outputs.set('projected', { data: out.projected, shape: [batch, projection] });
  return outputs;
}
