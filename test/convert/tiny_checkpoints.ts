/** Checkpoints of every family, narrow, under the names of the public files; whole, or the denoiser alone. */
import { writeSafetensors } from '../../src/formats/write.js';
import { filled, prefixed, publicTable, tinyFlux, type TensorTable } from '../formats/diffusion_files.js';

const DENOISER = 'model.diffusion_model.';

/** A tenth of a UNet's channels; texts of SD1 and SDXL stay apart. */
const UNET_SIZES: Readonly<Record<number, number>> = { 768: 48, 2048: 64, 2816: 88 };
const unetSize = (n: number): number => UNET_SIZES[n] ?? (n % 320 === 0 ? n / 10 : n);
/** A twelfth of an MMDiT's. */
const mmditSize = (n: number): number =>
  n === 4096 ? 64 : n === 2048 ? 72 : n === 36864 ? 16 : n % 1536 === 0 ? n / 12 : n;

function denoiser(json: string, size: (n: number) => number): TensorTable {
  const own = Object.entries(publicTable(json)).filter(
    // of SDXL's ten transformers in a row one, of SD3's middle blocks none
    ([name]) =>
      name.startsWith(DENOISER) && !/transformer_blocks\.[1-9]|joint_blocks\.([2-9]|1\d|2[0-2])\./.test(name),
  );
  // F32 whatever was published: what is compared must not overflow F16.
  return Object.fromEntries(
    own.map(([name, [, shape]]) => [
      name.replace('joint_blocks.23.', 'joint_blocks.2.'),
      ['F32', shape.map(size)] as const,
    ]),
  );
}

const MAKERS = {
  sd1: () => denoiser('v1-5-pruned-emaonly.json.gz', unetSize),
  // SD2 is SD1's UNet over wider texts.
  sd2: () => denoiser('v1-5-pruned-emaonly.json.gz', (n) => (n === 768 ? 1024 : unetSize(n))),
  sdxl: () => denoiser('sd_xl_base_1.0.json.gz', unetSize),
  sd3: () => denoiser('sd3_medium.json.gz', mmditSize),
  flux: () =>
    Object.fromEntries(
      Object.entries(tinyFlux('flux1-dev.json.gz')).map(([name, [, shape]]) => [
        name,
        ['F32', shape] as const,
      ]),
    ),
} as const satisfies Record<string, () => TensorTable>;
export type TinyFamily = keyof typeof MAKERS;

/** Writes a checkpoint that holds a denoiser only, where its kind keeps it. */
export async function writeDenoiser(path: string, family: TinyFamily): Promise<void> {
  const tensors = filled(MAKERS[family]());
  await writeSafetensors(path, family === 'flux' ? prefixed(tensors, DENOISER) : tensors);
}
