/** `kotoba forward` on a Flux transformer: one velocity. */
import { fluxBlocks, fluxSinusoids } from '../diffusion/flux.js';
import { FLUX_PATCH, SINUSOID_WIDTH, fluxModel } from '../diffusion/flux_model.js';
import { imageIds, rotation, textIds, type TokenIds } from '../diffusion/rotary.js';
import { KotobaError } from '../errors.js';
import type { FluxPart } from '../formats/index.js';
import { NetworkSlot } from '../pipeline/network_slot.js';
import { Ops } from '../runtime/ops.js';
import type { Tensor } from '../runtime/tensor.js';
import { runBlocks, type ForwardOutputs, type ForwardRun } from './forward_run.js';
import { readFloatInputs, type FloatInput, type FloatInputs } from './forward_inputs.js';

const NAMES = ['latent', 'img', 'img_ids', 'txt', 'txt_ids', 'y', 'timesteps', 'guidance'] as const;

export async function forwardFlux(run: ForwardRun): Promise<ForwardOutputs> {
  const part = run.part as FluxPart;
  const { config } = part;
  const inputs = readFloatInputs(run.options.inputs, 'flux', NAMES);
  const txt = inputs.take('txt', [undefined, undefined, config.context_in_dim]);
  const [batch, textTokens] = txt.shape as [number, number, number];
  const y = inputs.take('y', [batch, config.vec_in_dim]);
  const timesteps = fluxSinusoids([...inputs.take('timesteps', [batch]).data]);
  const strength = config.guidance_embed && fluxSinusoids([...inputs.take('guidance', [batch]).data]);
  const image = imageInput(inputs, batch, config.in_channels);
  const text = inputs.has('txt_ids') ? idsOf(inputs, 'txt_ids', batch, textTokens) : textIds(textTokens);
  const slot = new NetworkSlot(run.device, part, (weights) => fluxModel(weights, config));
  const ops = new Ops(run.device, run.precision);
  const job = async (): Promise<ForwardOutputs> => {
    const model = await slot.get();
    using img = image.upload(ops);
    using states = run.device.from(txt.data, [batch * textTokens, config.context_in_dim]);
    using vector = run.device.from(y.data, y.shape);
    const positions = rotation([...text, ...image.ids], config.axes_dim, config.theta);
    using table = run.device.from(positions, [textTokens + image.ids.length, model.headDim]);
    using time = run.device.from(timesteps, [batch, SINUSOID_WIDTH]);
    using guidance = strength ? run.device.from(strength, [batch, SINUSOID_WIDTH]) : undefined;
    const given = { batch, img, txt: states, y: vector, rotation: table, time, guidance };
    const blocks = fluxBlocks(ops, model, given);
    using out = await runBlocks(run, blocks, config.depth + config.depth_single_blocks);
    const shape = [batch, image.ids.length, config.out_channels];
    return new Map([['out', { data: await out.read(), shape }]]);
  };
  try {
    return await run.device.run(job, run.signal);
  } finally {
    slot.release();
  }
}

interface ImageInput {
  /** [tokens] */
  readonly ids: TokenIds;
  /** [batch · tokens, in_channels] */
  upload(ops: Ops): Tensor;
}

function imageInput(inputs: FloatInputs, batch: number, width: number): ImageInput {
  if (inputs.has('latent') === inputs.has('img'))
    throw new KotobaError('ERR_ARGUMENT', `${inputs.where}: expected either latent or img with img_ids`);
  if (inputs.has('img')) {
    const img = inputs.take('img', [batch, undefined, width]);
    const tokens = img.shape[1]!;
    return {
      ids: idsOf(inputs, 'img_ids', batch, tokens),
      upload: ({ device }) => device.from(img.data, [batch * tokens, width]),
    };
  }
  const channels = width / FLUX_PATCH ** 2;
  const latent = inputs.take('latent', [batch, channels, undefined, undefined]);
  const [, , height, columns] = latent.shape as [number, number, number, number];
  if (height % FLUX_PATCH || columns % FLUX_PATCH)
    throw new KotobaError(
      'ERR_ARGUMENT',
      `${inputs.where}: expected a latent with sides that are multiples of ${FLUX_PATCH}, got ${height} x ${columns}`,
    );
  return {
    ids: imageIds(height / FLUX_PATCH, columns / FLUX_PATCH),
    upload: (ops) => patches(ops, latent),
  };
}

function patches(ops: Ops, { data, shape }: FloatInput): Tensor {
  const [batch, channels, height, width] = shape as [number, number, number, number];
  using nchw = ops.device.from(data, shape);
  return ops.patchify(nchw, { batch, channels, height, width, patch: FLUX_PATCH });
}

/** One position for each token; sequences of a batch share them. */
function idsOf(inputs: FloatInputs, name: string, batch: number, tokens: number): TokenIds {
  const { data, shape } = inputs.take(name, [batch, tokens, undefined]);
  const axes = shape[2]!;
  const row = (i: number): number[] => [...data.subarray(i * axes, (i + 1) * axes)];
  for (let i = tokens * axes; i < data.length; i++)
    if (data[i] !== data[i % (tokens * axes)])
      throw new KotobaError('ERR_ARGUMENT', `${inputs.where}: expected the same ${name} for the whole batch`);
  return Array.from({ length: tokens }, (_, i) => row(i));
}
