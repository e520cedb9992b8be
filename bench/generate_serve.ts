/**
 * Our own pictures in a process of their own, speaking the protocol of generate_peer.ts, so that a bench treats us and
 * others alike. Beyond it: --device NAME, --precision fp32|int8|fp16|bf16, --residency lean|keep, and --loaded, with
 * which the model is loaded once, before the first run, and stays.
 */
import { writeFileSync } from 'node:fs';
import { monitorEventLoopDelay, performance } from 'node:perf_hooks';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { openModel, selectPart } from '../src/formats/index.js';
import { ImagePipeline } from '../src/pipeline/image_pipeline.js';
import type { GenerateJob, GenerateResult, ImageModel, Residency } from '../src/pipeline/image_types.js';
import { Device, type DeviceName } from '../src/runtime/device.js';
import { decodeFlops, denoiserFlops } from './generate_flops.js';
import type { OpPrecision } from '../src/runtime/ops.js';
import { deviceMemoryPeak, processMemory } from './memory.js';

const text = { type: 'string', default: '' } as const;
const { values: options } = parseArgs({
  options: {
    serve: { type: 'boolean' },
    kind: text,
    transformer: text,
    vae: text,
    'clip-l': text,
    t5: text,
    't5-tokenizer': { type: 'string' },
    checkpoint: { type: 'string' },
    prompt: text,
    width: text,
    height: text,
    sigmas: text,
    cfg: { type: 'string', default: '1' },
    seed: text,
    threads: { type: 'string', default: '1' },
    precision: { type: 'string', default: 'fp32' },
    device: { type: 'string', default: 'cpu' },
    residency: { type: 'string', default: 'lean' },
    loaded: { type: 'boolean', default: false },
  },
});
const precision = options.precision as OpPrecision;
const sigmas = options.sigmas.split(',').map(Number);

const { checkpoint } = options;
const model: ImageModel = checkpoint
  ? { denoiser: checkpoint, vae: checkpoint, encoders: { clip_l: { path: checkpoint, precision } } }
  : {
      denoiser: options.transformer,
      vae: options.vae,
      encoders: {
        clip_l: { path: options['clip-l'], precision },
        t5: { path: options.t5, precision, tokenizer: options['t5-tokenizer'] },
      },
    };

const answer = (event: string, values: object) => console.log(JSON.stringify({ event, ...values }));

const device = Device.open(options.device as DeviceName, { threads: Number(options.threads) || undefined });
/** Of --loaded: what stays between the runs. */
let kept: ImagePipeline | undefined;
let runs = 0;

/** What is kept remembers prompts that it has read: each run gets the words in another order, of as many tokens. */
function promptOf(run: number): string {
  if (!options.loaded) return options.prompt;
  const words = options.prompt.split(' ');
  const first = run % words.length;
  return [...words.slice(first), ...words.slice(0, first)].join(' ');
}

const load = (): Promise<ImagePipeline> =>
  ImagePipeline.load(model, {
    device,
    precision,
    residency: options.loaded ? 'keep' : (options.residency as Residency),
  });

/** Loads, makes the picture, and lets everything go; what is kept is not loaded again. */
async function run(path: string): Promise<object> {
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  const cpu = process.cpuUsage();
  const start = performance.now();
  const pipeline = kept ?? (await load());
  const loaded = performance.now();
  const job = pipeline.generate(promptOf(runs++), {
    width: Number(options.width),
    height: Number(options.height),
    steps: sigmas.length - 1,
    sampler: 'euler',
    schedule: checkpoint ? 'normal' : 'flux',
    cfg: Number(options.cfg),
    seed: Number(options.seed),
    noise: 'philox',
  });
  const stepSeconds = laterSteps(job);
  const made = await job;
  if (options.loaded) kept = pipeline;
  else await pipeline[Symbol.asyncDispose]();
  const seconds = (performance.now() - start) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  delay.disable();
  requireSigmas(made.sigmas);
  writeFileSync(path, made.pictures[0]!.picture.rgb);
  return {
    path,
    seconds,
    load_seconds: (loaded - start) / 1000,
    encode_seconds: made.seconds.encode,
    sample_seconds: made.seconds.sample,
    decode_seconds: made.seconds.decode,
    step_seconds: await stepSeconds,
    cpu_seconds: (user + system) / 1e6,
    rss_peak: processMemory().peak,
    device_peak: deviceMemoryPeak(device),
    event_loop_delay_ms: delay.max / 1e6,
    text_tokens: made.conditioning.tokens,
    ...flops(pipeline, made),
  };
}

/** Wall seconds of every step but the first: its end is seen when its last block has run. */
async function laterSteps(job: GenerateJob): Promise<number[]> {
  const ends: number[] = [];
  for await (const { phase, done, total } of job.progress())
    if (phase === 'sample' && (done * (sigmas.length - 1)) % total === 0) ends.push(performance.now());
  return ends.slice(1).map((end, i) => (end - ends[i]!) / 1000);
}

function flops({ denoiser, autoencoder }: ImagePipeline, made: GenerateResult): object {
  const [height, width] = [made.height / autoencoder.factor, made.width / autoencoder.factor];
  const evaluations = made.steps * (made.cfg === 1 ? 1 : 2);
  const size = { text: made.conditioning.tokens, height, width };
  return {
    sample_flops: evaluations * denoiserFlops(denoiser, size),
    decode_flops: decodeFlops(autoencoder.part.config, height, width),
  };
}

/** Contenders must walk the same noise levels, or their pictures cannot be compared. */
function requireSigmas(made: readonly number[]): void {
  if (made.length !== sigmas.length || made.some((sigma, i) => Math.abs(sigma - sigmas[i]!) > 1e-6))
    throw new RangeError(`--sigmas: expected ${made.join()}, received ${sigmas.join()}`);
}

function bytesUsed(): number {
  const { clip_l, t5 } = model.encoders;
  const slots = [
    [checkpoint ? 'unet' : 'transformer', model.denoiser],
    ['vae', model.vae],
    ['clip_l', clip_l?.path],
    ['t5', t5?.path],
  ] as const;
  return slots.reduce(
    (sum, [slot, path]) => sum + (path ? selectPart(openModel(path), { slot }).bytesRead : 0),
    0,
  );
}

const { instructions, description } = device.info;
answer('ready', { rss_peak: processMemory().peak, bytes_used: bytesUsed(), instructions, cpu: description });

for await (const line of createInterface({ input: process.stdin })) {
  const [, command, argument = ''] = /^(\S*)\s*(.*)$/.exec(line.trim())!;
  try {
    if (command === 'run') answer('run', await run(argument));
    else if (command === 'quit') break;
    else answer('error', { message: `unknown command ${command}` });
  } catch (error) {
    answer('error', { message: (error as Error).message });
  }
}
await kept?.[Symbol.asyncDispose]();
device.close();
