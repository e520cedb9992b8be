/** The transformer of SD3 and SD3.5 as sampling sees it. */
import { mmditBlocks, mmditPositions, mmditSinusoids } from '../../diffusion/mmdit.js';
import { mmditModel, TIME_WIDTH, type Mmdit } from '../../diffusion/mmdit_model.js';
import type { MmditPart } from '../../formats/index.js';
import type { Ops } from '../../runtime/ops.js';
import type { Tensor } from '../../runtime/tensor.js';
import type { Weights } from '../../runtime/weights.js';
import {
  OwnedTensors,
  asBlocks,
  type Conditioned,
  type Conditions,
  type Denoiser,
  type DenoiserBlock,
} from './denoiser.js';

export function mmditDenoiser(weights: Weights, { config }: MmditPart): Denoiser {
  const model = mmditModel(weights, config);
  return {
    name: 'MMDiT',
    channels: config.in_channels,
    patch: config.patch_size,
    depth: config.depth,
    condition: (ops, conditions) => conditionedMmdit(ops, model, conditions),
  };
}

function conditionedMmdit(ops: Ops, model: Mmdit, given: Conditions): Conditioned {
  const { batch, height, width, hidden, pooled, skipLayers } = given;
  const { patch_size: patch, in_channels: channels, ...config } = model.config;
  const owned = new OwnedTensors(ops);
  const everywhere = (time: number): Float32Array => mmditSinusoids(new Array<number>(batch).fill(time));
  const rows = mmditPositions(config.pos_embed_max_size, batch, height / patch, width / patch);
  const inputs = {
    batch,
    positions: owned.keep(ops.device.from(rows, [rows.length])),
    context: owned.matrix(hidden, config.context_dim, batch),
    y: owned.matrix(pooled!, config.adm_in_channels, batch),
    time: owned.matrix(everywhere(0), TIME_WIDTH),
    skipLayers,
  };
  const latents = { batch, channels, height, width, patch };
  return {
    setTime: (time) => inputs.time.write(everywhere(time)),
    *blocks(x): Generator<DenoiserBlock, Tensor> {
      const blocks = mmditBlocks(ops, model, { ...inputs, x });
      using tokens = yield* asBlocks(blocks, (block) => [block.x, block.context]);
      using planes = ops.unpatchify(tokens, { ...latents, order: 'ph,pw,c' });
      return ops.patchify(planes, latents); // in the order of x
    },
    [Symbol.dispose]: () => owned[Symbol.dispose](),
  };
}
