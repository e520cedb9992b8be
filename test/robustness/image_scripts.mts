/** Small programs that image_lifecycle.test.ts runs in processes of their own: node --import tsx image_scripts.mts NAME */
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { ImagePipeline, shippedModel, type GenerateOptions } from '../../src/index.js';

const name = (isMainThread ? process.argv[2] : workerData) as string;
const SMALL: GenerateOptions = { seed: 1, width: 32, height: 32, steps: 2 };

/** Node 20 does not hand `--import tsx` on to worker threads, so the worker asks tsx for this file itself. */
const inWorker = (what: string): Worker => {
  const bootstrap = `import('tsx/esm/api').then((tsx) => tsx.tsImport(${JSON.stringify(import.meta.url)}, 'file:///'))`;
  return new Worker(bootstrap, { eval: true, workerData: what });
};

const load = (): Promise<ImagePipeline> => ImagePipeline.load(shippedModel(), { threads: 2 });

async function checksum(): Promise<string> {
  await using pipeline = await load();
  const { pictures } = await pipeline.generate('a red circle', { ...SMALL, count: 2 });
  return pictures.map(({ picture }) => Buffer.from(picture.rgb).toString('base64')).join();
}

/** Prompts that no cache knows, so that every part has work. */
async function generateForever(): Promise<void> {
  const pipeline = await load();
  for (let i = 0; ; i++) {
    const job = pipeline.generate(`a red circle ${i}`, SMALL);
    for await (const { phase } of job.progress()) parentPort!.postMessage(phase);
    await job;
  }
}

const programs: Record<string, () => Promise<void>> = {
  /** process.exit in the middle of sampling */
  async exit() {
    const pipeline = await load();
    const job = pipeline.generate('a red circle', { ...SMALL, width: 256, height: 256, steps: 500 });
    for await (const { phase } of job.progress()) if (phase === 'sample') process.exit(7);
  },

  /** requests that nobody awaits, their pipeline never disposed: the script ends when they do, or before */
  async end() {
    const pipeline = await load();
    for (let i = 0; i < 3; i++) void pipeline.generate('a red circle', SMALL);
  },

  /** a request that nobody awaits and that is aborted: no unhandled rejection once its progress was asked for */
  async abandoned() {
    await using pipeline = await load();
    const controller = new AbortController();
    const job = pipeline.generate('a red circle', { ...SMALL, steps: 500, signal: controller.signal });
    for await (const { phase } of job.progress()) if (phase === 'sample') controller.abort();
    console.log('over');
  },

  /** workers terminated in every phase, then a picture in the main thread */
  async terminate() {
    const before = await checksum();
    for (const [i, wanted] of ['encode', 'sample', 'decode', 'sample', 'encode', 'decode'].entries()) {
      const worker = inWorker('forever');
      await new Promise<void>((resolve) =>
        worker.on('message', (phase) => {
          if (phase === wanted) setTimeout(resolve, 3 * i);
        }),
      );
      await worker.terminate();
    }
    console.log((await checksum()) === before);
  },

  forever: generateForever,

  /** two workers and the main thread load and generate at once, with equal results */
  async parallel() {
    const workers = [inWorker('once'), inWorker('once')];
    const sums = workers.map((w) => new Promise<string>((resolve) => w.once('message', resolve)));
    console.log(new Set(await Promise.all([...sums, checksum(), checksum()])).size);
  },

  async once() {
    parentPort!.postMessage(await checksum());
  },

  /** 200 pictures, half of them with parts loaded anew: the resident set of the second half must not grow */
  async flat() {
    await using keep = await ImagePipeline.load(shippedModel(), { threads: 1, residency: 'keep' });
    await using lean = await ImagePipeline.load(shippedModel(), { threads: 1, residency: 'lean' });
    const rss: number[] = [];
    for (let i = 0; i <= 200; i++) {
      const controller = new AbortController();
      if (i % 5 === 4) setTimeout(() => controller.abort(), i % 30);
      const options = { ...SMALL, signal: controller.signal, preview: i % 7 === 0 };
      const job = (i % 2 ? keep : lean).generate(`a red circle ${i}`, options);
      await job.result.catch((error: { code?: string }) => {
        if (error.code !== 'ERR_CANCELLED') throw error;
      });
      if (i % 20 === 0) rss.push(process.memoryUsage.rss());
    }
    console.log(JSON.stringify(rss));
  },
};

await programs[name]!();
