/**
 * Our own encoder in a process of its own, speaking the protocol of peer.ts, so that a bench treats us and others
 * alike: node serve.js --serve --kind K --file F --tokens N --threads T [--ids FILE] [--batch B] [--device NAME]
 *   [--precision fp32|int8|fp16|bf16]
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { monitorEventLoopDelay, performance } from 'node:perf_hooks';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import type { EncodedTokens } from '../src/encoders/encode_tokens.js';
import { TextEncoder } from '../src/pipeline/text_encoder.js';
import type { OpPrecision } from '../src/runtime/ops.js';
import { Device, type DeviceName } from '../src/runtime/device.js';
import { deviceMemoryPeak, processMemory } from './memory.js';

const { values: options } = parseArgs({
  options: {
    serve: { type: 'boolean' },
    kind: { type: 'string' },
    file: { type: 'string', default: '' },
    tokens: { type: 'string', default: '77' },
    threads: { type: 'string', default: '1' },
    ids: { type: 'string' },
    batch: { type: 'string', default: '1' },
    device: { type: 'string', default: 'cpu' },
    precision: { type: 'string', default: 'fp32' },
  },
});

const answer = (event: string, values: object) => console.log(JSON.stringify({ event, ...values }));

/** The first `count` ids of the file, or 1, 2, 3, …: what they are changes nothing of the work. */
function tokenIds(count: number, vocabulary: number): Int32Array {
  if (options.ids === undefined)
    return Int32Array.from({ length: count }, (_, i) => 1 + (i % (vocabulary - 1)));
  const bytes = readFileSync(options.ids);
  return new Int32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + count * 4));
}

const threads = Number(options.threads) || undefined;
const batch = Number(options.batch);

const started = performance.now();
const device = Device.open(options.device as DeviceName, { threads });
const encoder = await TextEncoder.load(options.file, {
  input: 'ids',
  precision: options.precision as OpPrecision,
  device,
});
const loaded = performance.now();
let last: EncodedTokens | undefined;

async function run(tokens: number): Promise<object> {
  const ids = tokenIds(batch * tokens, encoder.network.vocabulary);
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  const cpu = process.cpuUsage();
  const start = performance.now();
  last = await encoder.encodeTokens({ ids, batch });
  const seconds = (performance.now() - start) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  await new Promise((resolve) => setImmediate(resolve));
  delay.disable();
  const state = last.lastHiddenState;
  return {
    tokens,
    seconds,
    cpu_seconds: (user + system) / 1e6,
    rms: Math.sqrt(state.reduce((sum, v) => sum + v * v, 0) / state.length),
    non_finite: state.reduce((count, v) => count + (Number.isFinite(v) ? 0 : 1), 0),
    rss_peak: processMemory().peak,
    device_peak: deviceMemoryPeak(device),
    event_loop_delay_ms: delay.max / 1e6,
  };
}

answer('ready', {
  load_seconds: (loaded - started) / 1000,
  rss_peak: processMemory().peak,
  flops_per_token: 2 * encoder.network.weightsPerToken,
  bytes_used: encoder.part.bytesRead,
  description: encoder.part.description,
  instructions: device.info.instructions,
  cpu: device.info.description,
});

for await (const line of createInterface({ input: process.stdin })) {
  const [command, argument = ''] = line.trim().split(' ');
  try {
    if (command === 'run') answer('run', await run(Number(argument)));
    else if (command === 'dump') {
      writeFileSync(argument, last!.lastHiddenState);
      answer('dump', { path: argument, values: last!.lastHiddenState.length });
    } else if (command === 'quit') break;
    else answer('error', { message: `unknown command ${command}` });
  } catch (error) {
    answer('error', { message: (error as Error).message });
  }
}
await encoder[Symbol.asyncDispose]();
device.close();
