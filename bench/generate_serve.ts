/**
 * Our own pictures in a process of their own, speaking the protocol of generate_peer.ts, so that a bench treats us and
 * others alike. Beyond it: --precision fp32|int8, --residency lean|keep.
 */
import { writeFileSync } from 'node:fs';
import { monitorEventLoopDelay, performance } from 'node:perf_hooks';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { openModel, selectPart } from '../src/formats/index.js';
import type { Precision } from '../src/pipeline/encoder_types.js';
import { ImagePipeline } from '../src/pipeline/image_pipeline.js';
import type { GenerateResult, ImageModel, Residency } from '../src/pipeline/image_types.js';
import { Device } from '../src/runtime/device.js';
import { decodeFlops, fluxFlops } from './generate_flops.js';
import { processMemory } from './memory.js';

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
    prompt: text,
    width: text,
    height: text,
    sigmas: text,
    seed: text,
    threads: { type: 'string', default: '1' },
    precision: { type: 'string', default: 'fp32' },
    residency: { type: 'string', default: 'lean' },
  },
});
const precision = options.precision as Precision;
const sigmas = options.sigmas.split(',').map(Number);

const model: ImageModel = {
  transformer: options.transformer,
  vae: options.vae,
  encoders: {
    clip_l: { path: options['clip-l'], precision },
    t5: { path: options.t5, precision, tokenizer: options['t5-tokenizer'] },
  },
};

const answer = (event: string, values: object) => console.log(JSON.stringify({ event, ...values }));

/** Loads, makes the picture, and lets everything go. */
async function run(path: string): Promise<object> {
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  const cpu = process.cpuUsage();
  const start = performance.now();
  const pipeline = await ImagePipeline.load(model, {
    precision,
    threads: Number(options.threads),
    residency: options.residency as Residency,
  });
  const loaded = performance.now();
  const made = await pipeline.generate(options.prompt, {
    width: Number(options.width),
    height: Number(options.height),
    steps: sigmas.length - 1,
    sampler: 'euler',
    schedule: 'flux',
    seed: Number(options.seed),
    noise: 'philox',
  });
  await pipeline[Symbol.asyncDispose]();
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
    cpu_seconds: (user + system) / 1e6,
    rss_peak: processMemory().peak,
    event_loop_delay_ms: delay.max / 1e6,
    ...flops(pipeline, made),
  };
}

function flops({ transformer, autoencoder }: ImagePipeline, made: GenerateResult): object {
  const [height, width] = [made.height / autoencoder.factor, made.width / autoencoder.factor];
  const imageTokens = (height / 2) * (width / 2);
  return {
    sample_flops: made.steps * fluxFlops(transformer.config, made.conditioning.tokens, imageTokens),
    decode_flops: decodeFlops(autoencoder.part.config, height, width),
  };
}

/** Contenders must walk the same noise levels, or their pictures cannot be compared. */
function requireSigmas(made: readonly number[]): void {
  if (made.length !== sigmas.length || made.some((sigma, i) => Math.abs(sigma - sigmas[i]!) > 1e-6))
    throw new RangeError(`--sigmas: expected ${made.join()}, received ${sigmas.join()}`);
}

function bytesUsed(): number {
  const parts = [
    selectPart(openModel(model.transformer), { slot: 'transformer' }),
    selectPart(openModel(model.vae), { slot: 'vae' }),
    selectPart(openModel(model.encoders.clip_l.path), { slot: 'clip_l' }),
    selectPart(openModel(model.encoders.t5.path), { slot: 't5' }),
  ];
  return parts.reduce((sum, part) => sum + part.bytesRead, 0);
}

const device = Device.open('cpu', { threads: Number(options.threads) });
const { instructions, description } = device.info;
device.close();
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
