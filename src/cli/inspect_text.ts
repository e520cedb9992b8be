/** An inspection as lines for people. */
import type { ClipConfig, MmditConfig, T5Config, UnetConfig } from '../formats/index.js';
import type { Inspection, PartInspection, TensorLine } from './inspect_file.js';
import { bytesText, counted, grouped, printable, shapeText, table, wrap, type Style } from './text.js';

/** Names listed of each kind of problem; --json has them all. */
const SHOWN = 8;

export function inspectionText(file: Inspection, style: Style, width: number): string[] {
  const shards = file.files.length > 1 ? ` in ${counted(file.files.length, 'file')}` : '';
  const titles = Object.entries(file.titles).map(([key, value]) => `${key}: ${printable(value)}`);
  const about = `${file.container}, ${bytesText(file.bytes)}${shards}, ${counted(file.tensorCount, 'tensor')}`;
  return [
    style.bold(printable(file.path)),
    `  ${about}`,
    ...titles.map((title) => `  ${style.dim(title)}`),
    ...file.parts.flatMap((part) => ['', ...partText(part, file, style, width)]),
    ...leftoverText(file, style),
    ...(file.tensors ? ['', ...tensorText(file.tensors, style)] : []),
    '',
    ...advice(file, style),
  ];
}

function partText(part: PartInspection, file: Inspection, style: Style, width: number): string[] {
  const isBroken = part.missing.length + part.unexpected.length + part.wrong.length > 0;
  const mark = part.usable ? style.green('✓') : isBroken ? style.red('✗') : style.yellow('?');
  const dtypes = part.dtypes.map(
    ({ dtype, bytes, tensors }) => `${dtype} ${bytesText(bytes)} in ${counted(tensors, 'tensor')}`,
  );
  const facts: [string, string][] = [
    ['fits', part.fits.join(', ')],
    ['reads', readText(part, file)],
    ['stored as', dtypes.join(', ')],
    ['sizes', configText(part)],
    ...(part.tokenizer ? [['tokenizer', tokenizerText(part, style)] as [string, string]] : []),
    ...problems(part, style),
    ...part.notes.map((note): [string, string] => ['note', printable(note)]),
  ];
  const indent = '    ';
  const column = Math.max(...facts.map(([key]) => key.length)) + 2;
  return [
    `  ${mark} ${style.bold(style.cyan(part.slot))}  ${printable(part.description)}`,
    ...facts
      .filter(([, text]) => text !== '')
      .flatMap(([key, text]) => {
        const lines = text
          .split('\n')
          .flatMap((line) => wrap(line.split(' '), width - column - indent.length));
        return lines.map((line, i) => indent + style.dim((i === 0 ? key : '').padEnd(column)) + line);
      }),
  ];
}

/** "9.52 GB of 44.5 GB (21.4 %): 9,524,621,312 bytes in 219 tensors" */
function readText({ bytesRead, tensors }: PartInspection, { bytes }: Inspection): string {
  const share = `${((100 * bytesRead) / bytes).toFixed(1)} %`;
  return (
    `${bytesText(bytesRead)} of ${bytesText(bytes)} (${share}): ` +
    `${grouped(bytesRead)} bytes in ${counted(tensors, 'tensor')}`
  );
}

function configText(part: PartInspection): string {
  if (part.family === 'clip') {
    const c = part.config as ClipConfig;
    const heads = part.undecided.includes('num_attention_heads')
      ? '? heads'
      : `${c.num_attention_heads} heads`;
    const projection = c.projection_dim ? `, projection ${c.projection_dim}` : '';
    return (
      `${c.num_hidden_layers} layers, width ${c.hidden_size}, ${heads}, feed-forward ` +
      `${c.intermediate_size} (${c.hidden_act || '?'}), ${c.max_position_embeddings} tokens, ` +
      `vocabulary ${c.vocab_size}${projection}`
    );
  }
  if (part.slot === 'unet') return unetText(part.config as UnetConfig);
  if (part.family === 'sd3' && part.slot === 'transformer') return mmditText(part.config as MmditConfig);
  if (part.family !== 't5') return '';
  const c = part.config as T5Config;
  return (
    `${c.num_layers} layers, width ${c.d_model}, ${c.num_heads} heads of ${c.d_kv}, feed-forward ` +
    `${c.d_ff} (${c.is_gated_act ? 'gated ' : ''}${c.dense_act_fn}), vocabulary ${c.vocab_size}`
  );
}

function unetText(c: UnetConfig): string {
  const vector = c.adm_in_channels > 0 ? `, a vector of ${c.adm_in_channels}` : '';
  const predicts = c.prediction === 'v' ? 'velocities' : 'the noise';
  const last = c.zero_terminal_snr ? ', from pure noise on' : '';
  return (
    `${c.in_channels} channels in, levels of ${c.widths.join(', ')}, heads ${c.heads.join(', ')}; ` +
    `attends to tokens of ${c.context_dim}${vector}; predicts ${predicts} (${c.prediction})${last}`
  );
}

function mmditText(c: MmditConfig): string {
  return (
    `${counted(c.depth, 'block')}, width ${c.hidden_size}, ${c.num_heads} heads; attends to tokens of ` +
    `${c.context_dim}, a vector of ${c.adm_in_channels}`
  );
}

function tokenizerText({ tokenizer }: PartInspection, style: Style): string {
  switch (tokenizer?.from) {
    case 'built in':
      return "CLIP's, built in";
    case 'gguf metadata':
      return "in the file's own metadata (tokenizer.ggml.*)";
    case 'file':
      return printable(tokenizer.path);
    case 'missing':
      return `${style.yellow('none found')}: put spiece.model or tokenizer.json beside the weights, or give --t5-tokenizer PATH, or take a GGUF file that carries one`;
    default:
      return '';
  }
}

function problems(part: PartInspection, style: Style): [string, string][] {
  const list = (names: readonly string[], between: string): string => {
    const shown = names.slice(0, SHOWN).map(printable);
    if (names.length > SHOWN) shown.push(`… and ${grouped(names.length - SHOWN)} more`);
    return shown.join(between);
  };
  const found: [string, readonly string[]][] = [
    ['missing', part.missing],
    ['unexpected', part.unexpected],
    ['wrong', part.wrong],
  ];
  const lines = found
    .filter(([, names]) => names.length > 0)
    .map(([what, names]): [string, string] => [
      what,
      `${style.red(grouped(names.length))}: ${list(names, what === 'wrong' ? '\n' : ', ')}`,
    ]);
  if (part.undecided.length > 0)
    lines.push([
      'undecided',
      `${style.yellow(part.undecided.join(' and '))}: the tensors do not tell, give --config`,
    ]);
  return lines;
}

function leftoverText({ leftovers }: Inspection, style: Style): string[] {
  if (leftovers.length === 0) return [];
  const rows = leftovers.map(({ reason, tensors, bytes }) => [
    bytesText(bytes),
    counted(tensors, 'tensor'),
    reason === 'not known' ? style.yellow(reason) : reason,
  ]);
  return ['', style.dim('  not read'), ...table(rows, { indent: '    ', right: [0, 1] })];
}

function tensorText(tensors: readonly TensorLine[], style: Style): string[] {
  const head = ['tensor', 'type', 'shape', 'bytes', 'read by'].map(style.dim);
  const rows = tensors.map(({ name, dtype, shape, bytes, readBy }) => [
    printable(name),
    dtype,
    shapeText(shape),
    grouped(bytes),
    readBy.join(', ') || style.dim('–'),
  ]);
  return table([head, ...rows], { indent: '  ', right: [3] });
}

function advice({ command, generate, parts }: Inspection, style: Style): string[] {
  const what = parts.map(({ slot }) => slot).join(', ');
  const none = `  No text encoder in it (${what}): kotoba encode takes its encoders' own files.`;
  const commands = [command, generate].filter((line) => line !== null);
  return [
    ...(command === null ? [style.dim(none)] : []),
    ...commands.map((line) => `  ${style.dim('$')} ${printable(line)}`),
  ];
}
