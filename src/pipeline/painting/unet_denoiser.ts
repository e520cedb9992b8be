/** A UNet as sampling sees it. */
import { sinusoids } from '../../diffusion/timestep_embedding.js';
import { unetBlocks } from '../../diffusion/unet.js';
import { unetModel, type Unet } from '../../diffusion/unet_model.js';
import type { UnetPart } from '../../formats/index.js';
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

export function unetDenoiser(weights: Weights, { config }: UnetPart): Denoiser {
  const model = unetModel(weights, config);
  const { down, up } = config.layout;
  const steps = [...down, ...up].reduce((sum, blocks) => sum + blocks.length, 0);
  return {
    name: 'UNet',
    channels: config.out_channels,
    patch: 1,
    depth: steps + down.length + 1, // with the first convolution, every halving and the middle
    condition: (ops, conditions) => conditionedUnet(ops, model, conditions),
  };
}

function conditionedUnet(ops: Ops, model: Unet, given: Conditions): Conditioned {
  const { batch, height, width, hidden, pooled } = given;
  const { model_channels, context_dim, adm_in_channels } = model.config;
  const size = { batch, height, width };
  const owned = new OwnedTensors(ops);
  const everywhere = (time: number): Float32Array =>
    sinusoids(new Array<number>(batch).fill(time), model_channels);
  const inputs = {
    size,
    time: owned.matrix(everywhere(0), model_channels),
    context: owned.matrix(hidden, context_dim, batch),
    y: adm_in_channels > 0 ? owned.matrix(pooled!, adm_in_channels, batch) : undefined,
  };
  const beside = given.beside && besideRows(owned, given.beside, size);
  return {
    setTime: (time) => inputs.time.write(everywhere(time)),
    *blocks(latents): Generator<DenoiserBlock, Tensor> {
      using joined = beside && ops.joinColumns(latents, beside);
      const blocks = unetBlocks(ops, model, { ...inputs, x: joined ?? latents });
      return yield* asBlocks(blocks, ({ image }) => [image]);
    },
    [Symbol.dispose]: () => owned[Symbol.dispose](),
  };
}

type Size = Readonly<Record<'batch' | 'height' | 'width', number>>;

/** @param planes [channels, height, width] of every picture; @returns [batch · height · width, channels] */
function besideRows(owned: OwnedTensors, planes: Float32Array, size: Size): Tensor {
  const { batch, height, width } = size;
  const channels = planes.length / (height * width);
  const rows = new Float32Array(batch * planes.length);
  for (let i = 0; i < rows.length; i++) {
    const pixel = Math.floor(i / channels) % (height * width);
    rows[i] = planes[(i % channels) * height * width + pixel]!;
  }
  return owned.matrix(rows, channels);
}
