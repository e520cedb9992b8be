/** `kotoba forward` on an autoencoder: one half, latents as they are, neither scaled nor shifted. */
import { decodeStages, encodeStages, type VaeStage } from '../diffusion/vae.js';
import { vaeDecoder, vaeEncoder } from '../diffusion/vae_model.js';
import { vaeFactor, requireHalf, type VaePart } from '../formats/index.js';
import { NetworkSlot } from '../pipeline/network_slot.js';
import { Ops, type ImageSize } from '../runtime/ops.js';
import type { Tensor } from '../runtime/tensor.js';
import type { ForwardOutputs, ForwardRun } from './forward_run.js';
import { readFloatInputs } from './forward_inputs.js';

type Tower = (ops: Ops, rows: Tensor, size: ImageSize) => Generator<VaeStage, Tensor>;

/** What tells the two halves apart. */
interface Half {
  readonly input: string;
  readonly output: string;
  readonly channels: number;
  readonly outputs: number;
  /** Output pixels per input pixel, along a side. */
  readonly ratio: number;
}

export async function forwardVae(run: ForwardRun): Promise<ForwardOutputs> {
  const part = run.part as VaePart;
  const { config } = part;
  const decoding = run.options.part === 'decode';
  requireHalf(part, decoding ? 'decoder' : 'encoder');
  const factor = vaeFactor(config);
  const half: Half = decoding
    ? { input: 'latent', output: 'image', channels: config.z_channels, outputs: config.out_ch, ratio: factor }
    : {
        input: 'image',
        output: 'mean',
        channels: config.in_channels,
        outputs: config.z_channels,
        ratio: 1 / factor,
      };
  const slot = new NetworkSlot(run.device, part, (weights): Tower => {
    if (decoding) {
      const vae = vaeDecoder(weights, config);
      return (ops, rows, size) => decodeStages(ops, vae, rows, size);
    }
    const vae = vaeEncoder(weights, config);
    return (ops, rows, size) => encodeStages(ops, vae, rows, size);
  });
  try {
    return await run.device.run(async () => runHalf(run, half, await slot.get()), run.signal);
  } finally {
    slot.release();
  }
}

async function runHalf(run: ForwardRun, half: Half, tower: Tower): Promise<ForwardOutputs> {
  const ops = new Ops(run.device, run.precision);
  const inputs = readFloatInputs(run.options.inputs, 'vae', [half.input]);
  const side = half.ratio < 1 ? 1 / half.ratio : 1;
  const { data, shape } = inputs.take(half.input, [undefined, half.channels, undefined, undefined], {
    sidesOf: side,
  });
  const [batch, channels, height, width] = shape as [number, number, number, number];
  using nchw = run.device.from(data, shape);
  using rows = ops.patchify(nchw, { batch, channels, height, width, patch: 1 });
  const stages = tower(ops, rows, { batch, height, width });
  for (;;) {
    const { done, value } = stages.next();
    if (!done) {
      await run.device.native.reached();
      continue;
    }
    using whole = value;
    using out = whole.columnRange(0, half.outputs); // of moments the means
    const size = { batch, height: height * half.ratio, width: width * half.ratio };
    using image = ops.unpatchify(out, { ...size, channels: half.outputs, patch: 1 });
    const outShape = [batch, half.outputs, size.height, size.width];
    return new Map([[half.output, { data: await image.read(), shape: outShape }]]);
  }
}
