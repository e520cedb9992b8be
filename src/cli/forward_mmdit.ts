/** `kotoba forward` on an MMDiT: one velocity. */
import { mmditBlocks, mmditPositions, mmditSinusoids } from '../diffusion/mmdit.js';
import { mmditModel, TIME_WIDTH } from '../diffusion/mmdit_model.js';
import type { MmditPart } from '../formats/index.js';
import { NetworkSlot } from '../pipeline/network_slot.js';
import { Ops } from '../runtime/ops.js';
import { readFloatInputs } from './forward_inputs.js';
import { runBlocks, type ForwardOutputs, type ForwardRun } from './forward_run.js';

const NAMES = ['x', 'context', 'y', 't'] as const;

export async function forwardMmdit(run: ForwardRun): Promise<ForwardOutputs> {
  const part = run.part as MmditPart;
  const { config } = part;
  const { patch_size: patch, in_channels: channels } = config;
  const inputs = readFloatInputs(run.options.inputs, 'mmdit', NAMES);
  const latent = inputs.take('x', [undefined, channels, undefined, undefined], { sidesOf: patch });
  const [batch, , height, width] = latent.shape as [number, number, number, number];
  const texts = inputs.take('context', [batch, undefined, config.context_dim]);
  const pooled = inputs.take('y', [batch, config.adm_in_channels]);
  const timesteps = [...inputs.take('t', [batch]).data];
  const rows = mmditPositions(config.pos_embed_max_size, batch, height / patch, width / patch);
  const slot = new NetworkSlot(run.device, part, (weights) => mmditModel(weights, config));
  const ops = new Ops(run.device, run.precision);
  const size = { batch, channels, height, width, patch };
  const job = async (): Promise<ForwardOutputs> => {
    const model = await slot.get();
    using image = run.device.from(latent.data, latent.shape);
    using x = ops.patchify(image, size);
    using context = run.device.from(texts.data, [batch * texts.shape[1]!, config.context_dim]);
    using y = run.device.from(pooled.data, pooled.shape);
    using time = run.device.from(mmditSinusoids(timesteps), [batch, TIME_WIDTH]);
    using positions = run.device.from(rows, [rows.length]);
    const blocks = mmditBlocks(ops, model, { batch, x, positions, context, y, time });
    using tokens = await runBlocks(run, blocks, config.depth);
    using out = ops.unpatchify(tokens, { ...size, order: 'ph,pw,c' });
    return new Map([['out', { data: await out.read(), shape: out.shape }]]);
  };
  return await run.device.run(job, run.signal).finally(() => slot.release());
}
