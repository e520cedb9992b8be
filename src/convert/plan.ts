/** What a converted file will hold: each tensor's name, and where its values come from. */
import { KotobaError } from '../errors.js';
import {
  elementCount,
  identify,
  isFp8,
  leftovers,
  llamaCppNames,
  type Container,
  type ModelFile,
  type Part,
  type Slot,
  type TensorInfo,
  type TensorSource,
} from '../formats/index.js';

export interface PlannedTensor {
  readonly name: string;
  readonly source: TensorSource;
}

const SCALE = /\.(scale_weight|weight_scale)$/;
/** Of scaled FP8: markers, and scales of activations, which mean nothing to weights that have their own values. */
const FP8_ONLY = /(^|[./])(scaled_fp8|comfy_quant)$|\.(scale_input|input_scale)$/;

/**
 * Everything in a file, shards merged, as it is called there.
 * @param values `unscaled`: FP8 scales go into their weights, by name, whatever network they are of
 * @throws KotobaError ERR_ARGUMENT for scales that are no single value
 */
export function wholeFile(model: ModelFile, values: 'stored' | 'unscaled'): PlannedTensor[] {
  const all = [...model.tensors.values()];
  if (values === 'stored')
    return all.map((tensor) => ({ name: tensor.name, source: { tensor, shape: tensor.shape } }));
  const scales = new Map<string, TensorInfo>();
  for (const tensor of all) {
    const weight = SCALE.test(tensor.name) && model.tensors.get(tensor.name.replace(SCALE, '.weight'));
    if (!weight || !isFp8(weight.dtype)) continue;
    if (elementCount(tensor.shape) !== 1)
      throw new KotobaError(
        'ERR_ARGUMENT',
        `${tensor.path}: ${tensor.name} is [${tensor.shape.join(', ')}]: expected one scale for the whole weight`,
      );
    scales.set(weight.name, tensor);
  }
  const dropped = new Set([...scales.values()].map(({ name }) => name));
  return all
    .filter(({ name }) => !dropped.has(name) && !FP8_ONLY.test(name))
    .map((tensor) => {
      const scale = scales.get(tensor.name);
      return { name: tensor.name, source: { tensor, shape: tensor.shape, ...(scale && { scale }) } };
    });
}

/** Presence alone tells that a UNet predicts velocities, and that its last step is pure noise. */
const UNET_MARKERS = ['v_pred', 'ztsnr'];

/** One network under the names of its reference; in a GGUF a T5 has llama.cpp's. */
export function onePart(model: ModelFile, part: Part, container: Container): PlannedTensor[] {
  const names =
    part.family === 't5' && container === 'gguf'
      ? llamaCppNames(part.config.num_layers, part.config.is_gated_act)
      : undefined;
  const markers = part.slot === 'unet' ? UNET_MARKERS.flatMap((name) => model.tensors.get(name) ?? []) : [];
  return [
    ...[...part.tensors].map(([canonical, source]) => ({ name: names?.get(canonical) ?? canonical, source })),
    ...markers.map((tensor) => ({ name: tensor.name, source: { tensor, shape: tensor.shape } })),
  ];
}

/** What a file may hold beside a network without being more than that network. */
const NOTHING_LOST = /^(position ids|second copy|FP8|logit scale)/;

/**
 * The slot of the one network that a file holds, where nothing else would be lost: the other container then gets it under
 * the names that its readers expect.
 */
export function soleNetwork(model: ModelFile, container: Container): Slot | undefined {
  if (model.container === container) return undefined;
  const parts = identify(model, { allowUndecided: true });
  const [part, another] = parts;
  if (!part || another || part.missing.length + part.unexpected.length + part.wrong.length > 0)
    return undefined;
  const isWhole = leftovers(model, parts).every(({ reason }) => NOTHING_LOST.test(reason));
  return isWhole ? part.slot : undefined;
}
