/**
 * `kotoba forward`: one network on raw tensors, the parity tool. Inputs and outputs are named tensors in one
 * safetensors file; what they are called is a contract that outside checks rely on.
 */
import { Command, Option } from 'commander';
import { KotobaError } from '../errors.js';
import { identify, openModel, type Part, type Slot } from '../formats/index.js';
import { writeSafetensors, type ArrayToWrite } from '../formats/write.js';
import type { Precision, TextEncoder } from '../index.js';
import { findModel, modelDirs } from '../pipeline/find_model.js';
import { checkOutput } from './encode_output.js';
import { readInputs, type ForwardInputs } from './forward_inputs.js';
import type { CliContext } from './io.js';
import * as option from './options.js';
import { progressLine } from './progress.js';
import { printable, secondsText, shapeText, styleFor, table } from './text.js';
import { kotobaVersion } from './version.js';

const KINDS = ['clip', 't5'] as const;
/** In the contract, for versions to come. */
const OTHER_KINDS = ['flux', 'mmdit', 'unet', 'vae'] as const;
type Kind = (typeof KINDS)[number];

interface ForwardOptions {
  inputs: string;
  output: string;
  kind?: Kind;
  slot?: Slot;
  config?: Readonly<Record<string, unknown>>;
  precision: Precision;
  threads?: number;
  device: 'cpu';
  modelsDir: readonly string[];
  json?: boolean;
}

const HELP = `
Inputs (any other name is an error):
  clip  token_ids [batch, tokens] I32 or I64
  t5    token_ids, optional attention_mask [batch, tokens] of 0 and 1
  [tokens] alone is a batch of one.
Outputs, F32:
  hidden_states.N    [batch, tokens, width]  N = 0 is the embedding, N the output of layer N, not normed
  last_hidden_state  [batch, tokens, width]  after the final norm
  pooled             [batch, width]          clip: after the final norm, at the first end-of-text
  projected          [batch, projection]     clip, where the file has a projection

Example:
  $ kotoba forward t5xxl_fp16.safetensors --inputs ids.safetensors -o states.safetensors --precision fp32`;

export function forwardCommand(context: CliContext): Command {
  return new Command('forward')
    .description('one network on raw tensors, for comparing with others')
    .argument('<file>', 'file, shard, folder or name')
    .requiredOption('--inputs <file>', 'safetensors file with the inputs')
    .requiredOption('-o, --output <file>', 'safetensors file to write')
    .addOption(new Option('--kind <kind>', `${KINDS.join(' or ')} (default: detected)`).argParser(parseKind))
    .addOption(
      new Option('--slot <slot>', 'which network, where the file holds several').argParser(option.parseSlot),
    )
    .addOption(
      new Option('--config <file|json>', "what the file does not tell, in Hugging Face's keys").argParser(
        option.parseConfig,
      ),
    )
    .addOption(
      new Option('--precision <name>', 'how matmuls run').choices(option.PRECISION_NAMES).default('auto'),
    )
    .addOption(option.threadsOption())
    .addOption(option.deviceOption())
    .addOption(option.modelsDirOption())
    .addOption(option.jsonOption())
    .addHelpText('after', HELP)
    .action((file: string, options: ForwardOptions) => forward(context, file, options));
}

function parseKind(text: string): Kind {
  if ((OTHER_KINDS as readonly string[]).includes(text)) throw unsupported(`--kind ${text}`);
  return option.oneOf(KINDS)(text);
}

const unsupported = (what: string): KotobaError =>
  new KotobaError('ERR_MODEL_SLOT', `${what}: this version runs text encoders only: clip and t5`);

async function forward(context: CliContext, name: string, options: ForwardOptions): Promise<void> {
  const { io, signal } = context;
  const path = findModel(name, modelDirs(options.modelsDir, io.env));
  if (!/\.safetensors$/i.test(options.output))
    throw new KotobaError('ERR_ARGUMENT', `--output: expected a .safetensors file, got ${options.output}`);
  checkOutput(options.output, [{ path }, { path: options.inputs }]);
  const slot = slotFor(path, options);
  const { Device, TextEncoder } = await import('../index.js'); // loads the addon
  await using device = Device.open(options.device, { threads: options.threads });
  await using encoder = await TextEncoder.load(path, {
    input: 'ids',
    device,
    slot,
    precision: options.precision,
    config: options.config,
  });
  const inputs = readInputs(options.inputs, encoder.part.family);
  const started = performance.now();
  const outputs = await run(context, encoder, inputs);
  const seconds = (performance.now() - started) / 1000;
  if (signal.aborted) throw new KotobaError('ERR_CANCELLED', 'cancelled before anything was written');
  await writeSafetensors(options.output, outputs, {
    network: encoder.part.description,
    precision: encoder.precision,
    kotoba_version: kotobaVersion(),
  });
  print(context, encoder, outputs, seconds, options);
}

/** @throws KotobaError ERR_MODEL_SLOT for networks this version does not run, or none of the kind asked for */
function slotFor(path: string, { slot, kind, config }: ForwardOptions): Slot | undefined {
  if (slot === 'transformer' || slot === 'unet' || slot === 'vae') throw unsupported(`--slot ${slot}`);
  const parts = identify(openModel(path), { config, slot });
  const encoders = parts.filter(({ family }) => family === 'clip' || family === 't5');
  if (parts.length > 0 && encoders.length === 0)
    throw unsupported(`${path}: holds ${parts.map(({ description }) => description).join('; ')}`);
  if (kind === undefined) return slot;
  const fitting = encoders.filter((part) => part.family === kind && (!slot || part.fits.includes(slot)));
  return slot ?? onlyOf(path, kind, fitting, parts);
}

function onlyOf(path: string, kind: Kind, fitting: readonly Part[], all: readonly Part[]): Slot | undefined {
  if (fitting.length === 1) return fitting[0]!.slot;
  if (all.length === 0) return undefined; // TextEncoder.load says what the file is instead
  const holds = all.map((part) => `${part.description} (slot ${part.slot})`).join('; ');
  const problem = fitting.length === 0 ? `holds no ${kind}` : `holds several: name one with --slot`;
  throw new KotobaError('ERR_MODEL_SLOT', `${path}: --kind ${kind}: ${problem}. It holds: ${holds}`);
}

async function run(
  context: CliContext,
  encoder: TextEncoder,
  { ids, batch, mask }: ForwardInputs,
): Promise<Map<string, ArrayToWrite>> {
  const { depth, width, projection } = encoder.network;
  const line = progressLine(context);
  const wanted = {
    raw: Array.from({ length: depth + 1 }, (_, i) => i),
    onLayer: (layer: number) => line.update(encoder.part.slot, layer, depth),
  };
  try {
    const out = await encoder.encodeTokens({ ids, batch, mask }, wanted, context.signal);
    const shape = [batch, ids.length / batch, width];
    const outputs = new Map<string, ArrayToWrite>();
    for (const layer of wanted.raw)
      outputs.set(`hidden_states.${layer}`, { data: out.raw.get(layer)!, shape });
    outputs.set('last_hidden_state', { data: out.lastHiddenState, shape });
    if (out.pooled) outputs.set('pooled', { data: out.pooled, shape: [batch, width] });
    if (out.projected) outputs.set('projected', { data: out.projected, shape: [batch, projection] });
    return outputs;
  } finally {
    line.clear();
  }
}

function print(
  { io }: CliContext,
  encoder: TextEncoder,
  outputs: ReadonlyMap<string, ArrayToWrite>,
  seconds: number,
  { output, json }: ForwardOptions,
): void {
  const { name, description: processor, instructions, threads } = encoder.device.info;
  const { description } = encoder.part;
  const tensors = [...outputs].map(([tensor, { shape }]) => ({ name: tensor, dtype: 'F32', shape }));
  if (json) {
    const report = {
      description,
      precision: encoder.precision,
      device: name,
      processor,
      instructions,
      threads,
    };
    io.stdout.write(
      `${JSON.stringify({ ...report, seconds, output: { path: output, tensors } }, null, 2)}\n`,
    );
    return;
  }
  const style = styleFor(io.stdout, io.env);
  const lines = [
    style.bold(printable(description)),
    `${encoder.precision} on ${name} (${processor}), ${instructions}, ${threads} threads, ${secondsText(seconds)}`,
    `wrote ${printable(output)}`,
    ...table(
      tensors.map(({ name: tensor, shape }) => [tensor, shapeText(shape)]),
      { indent: '  ' },
    ),
  ];
  io.stdout.write(`${lines.join('\n')}\n`);
}
