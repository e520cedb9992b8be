/** `kotoba forward` on a UNet: what it predicts for one noisy latent. */
import { sinusoids } from '../diffusion/timestep_embedding.js';
import { unetBlocks } from '../diffusion/unet.js';
import { unetModel } from '../diffusion/unet_model.js';
import type { UnetPart } from '../formats/index.js';
import { NetworkSlot } from '../pipeline/network_slot.js';
import { Ops } from '../runtime/ops.js';
import { readFloatInputs } from './forward_inputs.js';
import { runBlocks, type ForwardOutputs, type ForwardRun } from './forward_run.js';

const NAMES = ['x', 'context', 'timesteps', 'y'] as const;

export async function forwardUnet(run: ForwardRun): Promise<ForwardOutputs> {
  const part = run.part as UnetPart;
  const { config } = part;
  const inputs = readFloatInputs(run.options.inputs, 'unet', NAMES);
  const sidesOf = 2 ** (config.widths.length - 1);
  const latent = inputs.take('x', [undefined, config.in_channels, undefined, undefined], { sidesOf });
  const [batch, channels, height, width] = latent.shape as [number, number, number, number];
  const context = inputs.take('context', [batch, undefined, config.context_dim]);
  const timesteps = [...inputs.take('timesteps', [batch]).data];
  const vector = config.adm_in_channels > 0 ? inputs.take('y', [batch, config.adm_in_channels]) : undefined;
  const slot = new NetworkSlot(run.device, part, (weights) => unetModel(weights, config));
  const ops = new Ops(run.device, run.precision);
  const size = { batch, height, width };
  const job = async (): Promise<ForwardOutputs> => {
    const model = await slot.get();
    using image = run.device.from(latent.data, latent.shape);
    using x = ops.patchify(image, { ...size, channels, patch: 1 });
    using text = run.device.from(context.data, [batch * context.shape[1]!, config.context_dim]);
    const waves = sinusoids(timesteps, config.model_channels);
    using time = run.device.from(waves, [batch, config.model_channels]);
    using y = vector && run.device.from(vector.data, vector.shape);
    const { down, up } = config.layout;
    const steps = [...down, ...up].reduce((sum, blocks) => sum + blocks.length, 0);
    const blocks = unetBlocks(ops, model, { x, size, time, context: text, y });
    using pixels = await runBlocks(run, blocks, steps + down.length + 1);
    using out = ops.unpatchify(pixels, { ...size, channels: config.out_channels, patch: 1 });
    return new Map([['out', { data: await out.read(), shape: out.shape }]]);
  };
  return await run.device.run(job, run.signal).finally(() => slot.release());
}
