/** A Flux transformer as sampling sees it. */
import { fluxBlocks, fluxSinusoids } from '../../diffusion/flux.js';
import { FLUX_PATCH, fluxModel, type FluxModel } from '../../diffusion/flux_model.js';
import { imageIds, rotation, textIds } from '../../diffusion/rotary.js';
import type { FluxPart } from '../../formats/index.js';
import type { Ops } from '../../runtime/ops.js';
import type { Tensor } from '../../runtime/tensor.js';
import type { Weights } from '../../runtime/weights.js';
import { OwnedTensors, asBlocks, type Conditioned, type Conditions, type Denoiser } from './denoiser.js';

export function fluxDenoiser(weights: Weights, { config }: FluxPart): Denoiser {
  const model = fluxModel(weights, config);
  return {
    name: 'Flux',
    channels: config.in_channels / FLUX_PATCH ** 2,
    patch: FLUX_PATCH,
    depth: config.depth + config.depth_single_blocks,
    condition: (ops, conditions) => conditionedFlux(ops, model, conditions),
  };
}

function conditionedFlux(ops: Ops, model: FluxModel, given: Conditions): Conditioned {
  const { batch, height, width, hidden, pooled, guidance } = given;
  const { axes_dim, theta, context_in_dim, vec_in_dim } = model.config;
  const image = imageIds(height / FLUX_PATCH, width / FLUX_PATCH);
  const positions = rotation([...textIds(hidden.length / context_in_dim), ...image], axes_dim, theta);
  const owned = new OwnedTensors(ops);
  const everywhere = (time: number): Float32Array => fluxSinusoids(new Array<number>(batch).fill(time));
  const sinusoids = (value: number): Tensor => {
    const data = everywhere(value);
    return owned.matrix(data, data.length / batch);
  };
  const inputs = {
    batch,
    txt: owned.matrix(hidden, context_in_dim, batch),
    y: owned.matrix(pooled!, vec_in_dim, batch),
    rotation: owned.matrix(positions, model.headDim),
    time: sinusoids(0),
    guidance: model.config.guidance_embed ? sinusoids(guidance!) : undefined,
  };
  return {
    setTime: (time) => inputs.time.write(everywhere(time)),
    blocks: (img) =>
      asBlocks(fluxBlocks(ops, model, { ...inputs, img }), (block) =>
        [block.img, block.txt, block.joint].filter((x) => x !== undefined),
      ),
    [Symbol.dispose]: () => owned[Symbol.dispose](),
  };
}
