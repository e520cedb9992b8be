/** Small programs that lifecycle.test.ts runs in processes of their own: node --import tsx scripts.mts NAME FILE */
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { Device } from '../../src/runtime/device.js';
import { Ops } from '../../src/runtime/ops.js';
import { TextEncoder } from '../../src/pipeline/text_encoder.js';

const [name, file] = isMainThread ? process.argv.slice(2) : (workerData as string[]);
const SIZE = 1024;

/** Minutes of work, enqueued in milliseconds. */
function enqueueMuch(device: Device): void {
  const ops = new Ops(device, 'fp32');
  const x = device.from(new Float32Array(SIZE * SIZE).fill(1e-3), [SIZE, SIZE]);
  for (let i = 0; i < 10_000; i++) ops.linear(x, { weight: x }).dispose();
}

/** Node 20 does not hand `--import tsx` on to worker threads, so the worker asks tsx for this file itself. */
const inWorker = (what: string): Worker => {
  const bootstrap = `import('tsx/esm/api').then((tsx) => tsx.tsImport(${JSON.stringify(import.meta.url)}, 'file:///'))`;
  return new Worker(bootstrap, { eval: true, workerData: [what, file] });
};

const programs: Record<string, () => Promise<void>> = {
  /** process.exit with work queued and a promise pending */
  async exit() {
    const device = Device.open();
    enqueueMuch(device);
    device.native.flush().catch(() => undefined);
    setTimeout(() => process.exit(7), 50);
  },

  /** the script simply ends; queued work nobody awaits does not keep the process alive */
  async end() {
    enqueueMuch(Device.open());
  },

  /** a handle that was never disposed, collected while its device works */
  async collect() {
    for (let i = 0; i < 200; i++) {
      const device = Device.open();
      const ops = new Ops(device, 'fp32');
      const x = device.from(new Float32Array(64 * 64), [64, 64]);
      for (let j = 0; j < 20; j++) ops.linear(x, { weight: x });
      if (i % 2) await device.native.flush();
      if (i % 50 === 0) (globalThis as { gc?: () => void }).gc?.();
    }
    console.log('collected');
  },

  /** terminates workers at random moments of their encodes, then still works itself */
  async terminate() {
    for (let i = 0; i < 12; i++) {
      const worker = inWorker('encodeForever');
      await new Promise<void>((resolve) => worker.once('message', () => resolve()));
      await new Promise((resolve) => setTimeout(resolve, 7 * i));
      await worker.terminate();
    }
    await using encoder = await TextEncoder.load(file!);
    console.log((await encoder.encode('still here')).width);
  },

  async encodeForever() {
    const encoder = await TextEncoder.load(file!);
    for (let i = 0; ; i++) {
      await encoder.encode('a sparrow on a hand '.repeat(20));
      if (i === 0) parentPort!.postMessage('running');
    }
  },

  /** two workers and the main thread encode at once, with equal results */
  async parallel() {
    const workers = [inWorker('encodeOnce'), inWorker('encodeOnce')];
    const sums = workers.map((w) => new Promise<number>((resolve) => w.once('message', resolve)));
    const all = await Promise.all([...sums, checksum()]);
    console.log(new Set(all).size);
  },

  async encodeOnce() {
    parentPort!.postMessage(await checksum());
  },

  /** 10,000 encodes: the resident set of the second half must not grow */
  async flat() {
    await using encoder = await TextEncoder.load(file!);
    const rss: number[] = [];
    for (let i = 0; i <= 10_000; i++) {
      await encoder.encode(`word ${i} `.repeat(1 + (i % 9)));
      if (i % 1000 === 0) rss.push(process.memoryUsage.rss());
    }
    console.log(JSON.stringify(rss));
  },
};

async function checksum(): Promise<number> {
  await using encoder = await TextEncoder.load(file!);
  let sum = 0;
  for (let i = 0; i < 20; i++) sum += (await encoder.encode(`prompt ${i}`)).hidden.reduce((a, v) => a + v, 0);
  return sum;
}

await programs[name!]!();
