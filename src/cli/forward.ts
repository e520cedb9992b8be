/**
 * `kotoba forward`: one network on raw tensors, the parity tool. Inputs and outputs are named tensors in one
 * safetensors file; what they are called is a contract that outside checks rely on.
 */
import { Command, Option } from 'commander';
import { KotobaError } from '../errors.js';
import { identify, openModel, selectPart, type Part, type Slot } from '../formats/index.js';
import { writeSafetensors } from '../formats/write.js';
import type { Device } from '../index.js';
import { findModel, modelDirs } from '../pipeline/find_model.js';
import { resolvePrecision } from '../pipeline/precision.js';
import { deviceOption, deviceText, openDevice, threadsOption, vramOption } from './device.js';
import { checkOutput } from './encode_output.js';
import {
  KINDS,
  type ForwardOptions,
  type ForwardOutputs,
  type ForwardRun,
  type Kind,
} from './forward_run.js';
import type { CliContext } from './io.js';
import * as option from './options.js';
import { progressLine } from './progress.js';
import { printable, secondsText, shapeText, styleFor, table } from './text.js';
import { kotobaVersion } from './version.js';

const HELP = `
Inputs (any other name is an error):
  clip  token_ids [batch, tokens] I32 or I64
  t5    token_ids, optional attention_mask [batch, tokens] of 0 and 1
  flux  latent [batch, 16, height, width], or img [batch, tokens, 64] and img_ids [batch, tokens, 3];
        txt [batch, textTokens, 4096], y [batch, 768], timesteps [batch] in 0…1, guidance [batch] for dev,
        optional txt_ids [batch, textTokens, 3]
  mmdit x [batch, 16, height, width], context [batch, textTokens, 4096], y [batch, 2048], t [batch] in 0…1000
  unet  x [batch, 4, height, width], context [batch, textTokens, width], timesteps [batch] in 0…1000,
        y [batch, width] for SDXL
  vae   latent [batch, channels, height, width], or with --part encode image [batch, 3, height, width]
  [tokens] alone is a batch of one.
Outputs, F32:
  hidden_states.N    [batch, tokens, width]  N = 0 is the embedding, N the output of layer N, not normed
  last_hidden_state  [batch, tokens, width]  after the final norm
  pooled             [batch, width]          clip: after the final norm, at the first end-of-text
  projected          [batch, projection]     clip, where the file has a projection
  out                [batch, tokens, 64]     flux: the velocity
  out                as x                    mmdit: the velocity; unet: what it predicts
  image              [batch, 3, height, width]  vae: the raw decode, latent scale and shift not undone
  mean               [batch, channels, height, width]  vae --part encode: of the raw latent

Example:
  $ kotoba forward t5xxl_fp16.safetensors --inputs ids.safetensors -o states.safetensors --precision fp32`;

export function forwardCommand(context: CliContext): Command {
  return new Command('forward')
    .description('one network on raw tensors, for comparing with others')
    .argument('<file>', 'file, shard, folder or name')
    .requiredOption('--inputs <file>', 'safetensors file with the inputs')
    .requiredOption('-o, --output <file>', 'safetensors file to write')
    .addOption(
      new Option('--kind <kind>', `${KINDS.join(', ')} (default: detected)`).argParser(option.oneOf(KINDS)),
    )
    .addOption(
      new Option('--slot <slot>', 'which network, where the file holds several').argParser(option.parseSlot),
    )
    .addOption(
      new Option('--part <half>', 'vae: which half to run').choices(['decode', 'encode']).default('decode'),
    )
    .addOption(
      new Option('--config <file|json>', "what the file does not tell, in Hugging Face's keys").argParser(
        option.parseConfig,
      ),
    )
    .addOption(
      new Option('--precision <name>', 'how matmuls run').choices(option.PRECISION_NAMES).default('auto'),
    )
    .addOption(deviceOption())
    .addOption(vramOption())
    .addOption(threadsOption())
    .addOption(option.modelsDirOption())
    .addOption(option.jsonOption())
    .addHelpText('after', HELP)
    .action((file: string, options: ForwardOptions) => forward(context, file, options));
}

async function forward(context: CliContext, name: string, options: ForwardOptions): Promise<void> {
  const { io, signal } = context;
  const path = findModel(name, modelDirs(options.modelsDir, io.env));
  if (!/\.safetensors$/i.test(options.output))
    throw new KotobaError('ERR_ARGUMENT', `--output: expected a .safetensors file, got ${options.output}`);
  checkOutput(options.output, [{ path }, { path: options.inputs }]);
  const part = partFor(path, options);
  const runner = await RUNNERS[kindOf(part)]();
  await using device = await openDevice(context, options);
  const precision = resolvePrecision(options.precision, part, device);
  const line = progressLine(context);
  const onProgress = (done: number, total: number) => line.update(part.slot, done, total);
  const started = performance.now();
  let outputs: ForwardOutputs;
  try {
    outputs = await runner({ path, part, device, precision, options, signal, onProgress });
  } finally {
    line.clear();
  }
  const seconds = (performance.now() - started) / 1000;
  if (signal.aborted) throw new KotobaError('ERR_CANCELLED', 'cancelled before anything was written');
  await writeSafetensors(options.output, outputs, {
    network: part.description,
    precision,
    kotoba_version: kotobaVersion(),
  });
  print(context, { part, device, precision, seconds }, outputs, options);
}

type Runner = (run: ForwardRun) => Promise<ForwardOutputs>;

const encoder = async (): Promise<Runner> => (await import('./forward_encoder.js')).forwardEncoder;
const RUNNERS: Readonly<Record<Kind, () => Promise<Runner>>> = {
  clip: encoder,
  t5: encoder,
  flux: async () => (await import('./forward_flux.js')).forwardFlux,
  mmdit: async () => (await import('./forward_mmdit.js')).forwardMmdit,
  unet: async () => (await import('./forward_unet.js')).forwardUnet,
  vae: async () => (await import('./forward_vae.js')).forwardVae,
};

function kindOf(part: Part): Kind {
  if (part.slot === 'vae' || part.slot === 'unet') return part.slot;
  if (part.slot === 'transformer') return part.family === 'sd3' ? 'mmdit' : 'flux';
  return part.family === 't5' ? 't5' : 'clip';
}

/** @throws KotobaError ERR_MODEL_SLOT for a file with none of the kind asked for */
function partFor(path: string, { slot, kind, config }: ForwardOptions): Part {
  const model = openModel(path);
  const parts = identify(model, { config, slot });
  const wanted = kind === undefined ? slot : (slot ?? onlyOf(path, kind, parts));
  const part = selectPart(model, { ...(wanted && { slot: wanted }), ...(config && { config }) });
  if (kind !== undefined && kindOf(part) !== kind) throw noneOf(path, kind, 'holds no', parts);
  return part;
}

/** The slot of the file's only network of a kind. */
function onlyOf(path: string, kind: Kind, parts: readonly Part[]): Slot | undefined {
  const fitting = parts.filter((part) => kindOf(part) === kind);
  if (fitting.length === 1) return fitting[0]!.slot;
  if (parts.length === 0) return undefined; // selectPart says what the file is instead
  throw noneOf(
    path,
    kind,
    fitting.length === 0 ? 'holds no' : 'holds several: name one with --slot, not',
    parts,
  );
}

function noneOf(path: string, kind: Kind, problem: string, parts: readonly Part[]): KotobaError {
  const holds = parts.map((part) => `${part.description} (slot ${part.slot})`).join('; ');
  return new KotobaError('ERR_MODEL_SLOT', `${path}: --kind ${kind}: ${problem} ${kind}. It holds: ${holds}`);
}

interface Ran {
  readonly part: Part;
  readonly device: Device;
  readonly precision: string;
  readonly seconds: number;
}

function print(
  { io }: CliContext,
  { part, device, precision, seconds }: Ran,
  outputs: ForwardOutputs,
  { output, json }: ForwardOptions,
): void {
  const { name, description: processor, instructions, threads } = device.info;
  const { description } = part;
  const tensors = [...outputs].map(([tensor, { shape }]) => ({ name: tensor, dtype: 'F32', shape }));
  if (json) {
    const report = { description, precision, device: name, processor, instructions, threads };
    io.stdout.write(
      `${JSON.stringify({ ...report, seconds, output: { path: output, tensors } }, null, 2)}\n`,
    );
    return;
  }
  const style = styleFor(io.stdout, io.env);
  const lines = [
    style.bold(printable(description)),
    `${precision} on ${deviceText({ device: name, processor, instructions, threads })}, ${secondsText(seconds)}`,
    `wrote ${printable(output)}`,
    ...table(
      tensors.map(({ name: tensor, shape }) => [tensor, shapeText(shape)]),
      { indent: '  ' },
    ),
  ];
  io.stdout.write(`${lines.join('\n')}\n`);
}
