/** What `kotoba generate` made, from what and how fast: as data for --json, as lines for people. */
import type { Device } from '../runtime/device.js';
import type { GenerateResult, PhaseSeconds, RunSettings } from '../pipeline/image_types.js';
import { runSettings } from '../pipeline/run_settings.js';
import { deviceText } from './device.js';
import type { PartReport } from './image_parts.js';
import type { CliContext } from './io.js';
import { textWarnings } from './text_warnings.js';
import { bytesText, counted, printable, secondsText, styleFor, table, type Style } from './text.js';
import { kotobaVersion } from './version.js';

export interface WrittenPicture {
  readonly path: string;
  readonly prompt: string;
  /** decimal digits: it may be beyond what a JSON number holds exactly */
  readonly seed: string;
  readonly width: number;
  readonly height: number;
  readonly bytes: number;
}

export interface GenerateReport {
  readonly pictures: readonly WrittenPicture[];
  readonly model: 'shipped' | 'given';
  readonly parts: readonly PartReport[];
  readonly settings: RunSettings;
  readonly device: string;
  readonly processor: string;
  readonly instructions: string;
  readonly threads: number;
  /** encoder runs */
  readonly encodes: number;
  /** over all prompts */
  readonly seconds: PhaseSeconds & { readonly load: number };
  readonly peakMemoryBytes: number;
  /** what of the prompts had no effect */
  readonly warnings: readonly string[];
  readonly version: string;
}

export function generateReport(done: {
  readonly pictures: readonly WrittenPicture[];
  readonly results: readonly GenerateResult[];
  readonly parts: readonly PartReport[];
  readonly loadSeconds: number;
  readonly device: Device['info'];
  readonly isShipped: boolean;
  readonly prompts: readonly string[];
}): GenerateReport {
  const { pictures, results, parts, loadSeconds, isShipped } = done;
  const { name, description, instructions, threads } = done.device;
  const sum = (of: (result: GenerateResult) => number): number =>
    results.reduce((all, one) => all + of(one), 0);
  return {
    pictures,
    model: isShipped ? 'shipped' : 'given',
    parts,
    settings: runSettings(results[0]!),
    device: name,
    processor: description,
    instructions,
    threads,
    encodes: sum(({ encodes }) => encodes),
    seconds: {
      load: loadSeconds,
      encode: sum(({ seconds }) => seconds.encode),
      sample: sum(({ seconds }) => seconds.sample),
      decode: sum(({ seconds }) => seconds.decode),
    },
    peakMemoryBytes: peakMemoryBytes(),
    warnings: textWarnings(results, done.prompts),
    version: kotobaVersion(),
  };
}

export const peakMemoryBytes = (): number => process.resourceUsage().maxRSS * 1024;

export function printGenerate({ io }: CliContext, report: GenerateReport): void {
  const style = styleFor(io.stdout, io.env);
  const lines = [
    ...partLines(report.parts, report.model, style),
    '',
    ...table([
      ...summary(report).map(([key, text]) => [style.dim(key!), text!]),
      ...pictureRows(report, style),
    ]),
  ];
  io.stdout.write(`${lines.join('\n')}\n`);
}

/** Each part with its file below; parts of one file have it once. */
export function partLines(
  parts: readonly PartReport[],
  model: GenerateReport['model'],
  style: Style,
): string[] {
  const shipped =
    model === 'shipped'
      ? [
          style.dim(
            'The small model that ships with Kotoba draws simple shapes; --model takes SD1, SDXL, SD3 and Flux.1.',
          ),
          '',
        ]
      : [];
  const rows = parts.flatMap(({ slot, precision, description, file }, i) => [
    [style.bold(style.cyan(slot)), precision, printable(description)],
    ...(parts[i + 1]?.file === file ? [] : [['', '', style.dim(printable(file))]]),
  ]);
  return [...shipped, ...table(rows)];
}

function summary({ settings, seconds, ...report }: GenerateReport): string[][] {
  const { width, height, profile, preset, steps, sampler, schedule, guidance, cfg } = settings;
  const strengths = [
    ...(guidance === undefined ? [] : [`guidance ${guidance}`]),
    ...(cfg === 1 ? [] : [`CFG ${cfg}`]),
  ];
  const how = [
    `${width} × ${height}`,
    `${counted(steps, 'step')} of ${sampler}`,
    `schedule ${schedule}`,
    ...strengths,
    ...(preset === 'base' ? [] : [`preset ${preset}`]),
    `profile ${profile}`,
  ];
  const { load, encode, sample, decode } = seconds;
  return [
    ['picture', how.join(', ')],
    ['ran on', deviceText(report)],
    ['took', tookText({ load, encode, sample, decode }, report.peakMemoryBytes)],
  ];
}

function tookText(seconds: GenerateReport['seconds'], memory: number): string {
  const { load, encode, sample, decode } = seconds;
  const phases = Object.entries({ load, encode, sample, decode }).map(
    ([phase, s]) => `${phase} ${secondsText(s)}`,
  );
  return `${secondsText(load + encode + sample + decode)} (${phases.join(', ')}), at most ${bytesText(memory)} of memory`;
}

/** Where to look; with the prompt where there are several. */
function pictureRows({ pictures }: GenerateReport, style: Style): string[][] {
  const hasPrompts = new Set(pictures.map(({ prompt }) => prompt)).size > 1;
  const lines = table(
    pictures.map(({ path, seed, bytes, prompt }) => [
      style.bold(printable(path)),
      `seed ${seed}`,
      bytesText(bytes),
      hasPrompts ? style.dim(printable(prompt)) : '',
    ]),
    { right: [2] },
  );
  return lines.map((line, i) => [style.dim(i === 0 ? 'wrote' : ''), line]);
}
