/** The files of an image model, cut short, before and while they are used: coded errors, and life goes on. */
import {
  copyFileSync,
  existsSync,
  readFileSync,
  renameSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test, vi } from 'vitest';
import { Device, ImagePipeline, SHIPPED_T5, type GenerateOptions, type Picture } from '../../src/index.js';
import { run } from '../cli/run.js';
import { plant, useModelCopy } from './image_scratch.js';
import { outcomeOf, useScratch } from './scratch.js';

vi.setConfig({ testTimeout: 240_000 }); // seconds on a quiet machine

const PROMPT = 'a red circle';
const SMALL: GenerateOptions = { seed: 1, steps: 1, width: 32, height: 32 };
/** An empty file has no container. */
const kCutShort = /^ERR_(SAFETENSORS_TRUNCATED|GGUF_TRUNCATED|FORMAT_UNKNOWN)$/;
const scratch = useScratch();
const copy = useModelCopy(scratch);

async function draw(pipeline: ImagePipeline, options = SMALL, prompt = PROMPT): Promise<Picture> {
  return (await pipeline.generate(prompt, options)).pictures[0]!.picture;
}

describe('every 1 % of a shipped file', () => {
  const kAll = ['flux1-schnell-small.safetensors', 'ae.safetensors'] as const;
  const files = [
    ...kAll,
    ...['text_encoder', 'flan_t5'].map((folder) => `${folder}/model.safetensors`),
    ...['flan_t5-Q8_0.gguf', 'flan_t5-Q4_0.gguf'],
  ];

  test.each(files)('%s: generate says so, and writes nothing', async (name) => {
    const out = join(scratch.dir, `${name.replaceAll('/', '-')}.png`);
    const { denoiser, vae, encoders } = copy.model;
    const t5 = name.endsWith('.gguf') ? copy.at(name) : encoders.t5.path;
    const model = { ...copy.model, encoders: { ...encoders, t5: { path: t5 } } };
    const parts = ['--model', denoiser, '--vae', vae, '--clip-l', encoders.clip_l.path, '--t5', t5];
    const args = ['generate', PROMPT, '--steps', '1', '--size', '32x32', '-o', out, ...parts];
    await using device = Device.open('cpu', { threads: 1 });
    const { size } = statSync(copy.at(name));
    for (let percent = 99; percent >= 0; percent--) {
      truncateSync(copy.at(name), Math.floor((size * percent) / 100));
      const { code, message } = await outcomeOf(() => ImagePipeline.load(model, { device }));
      expect(code, `${percent} %: ${message}`).toMatch(kCutShort);
      expect(message).toContain(copy.at(name));
      if (percent % 33 !== 0) continue;
      const ended = await run(args);
      expect(ended, `${percent} %`).toMatchObject({ code: 1, stdout: '' });
      expect(ended.stderr).toMatch(/^kotoba: ERR_/);
      expect(ended.stderr).toContain(copy.at(name));
      expect(existsSync(out)).toBe(false);
    }
    copy.restore(name);
    expect((await run(args)).code).toBe(0);
  });

  test.each(
    ['config.json', 'tokenizer.json', 'vocab.json', 'merges.txt'].map((name) => `text_encoder/${name}`),
  )('%s: a coded error, or the same picture', async (name) => await sameOrRefused(name));
  test.each(['flan_t5/config.json', 'flan_t5/tokenizer.json'])(
    '%s: a coded error, or the same picture',
    async (name) => await sameOrRefused(name),
  );

  async function sameOrRefused(name: string): Promise<void> {
    await using device = Device.open('cpu', { threads: 1 });
    const attempt = async (): Promise<Picture> => {
      await using pipeline = await ImagePipeline.load(copy.model, { device });
      return await draw(pipeline);
    };
    const whole = await attempt();
    const { size } = statSync(copy.at(name));
    const codes = new Set<string>();
    for (let percent = 99; percent >= 0; percent -= 9) {
      truncateSync(copy.at(name), Math.floor((size * percent) / 100));
      const outcome = await outcomeOf(async () => expect(await attempt(), `${percent} %`).toEqual(whole));
      codes.add(outcome.code);
    }
    copy.restore(name);
    for (const code of codes)
      expect(code).toMatch(/^(ok|ERR_(MODEL_CONFIG|TOKENIZER_\w+|TOKEN_ID|FILE_READ))$/);
  }
});

describe('cut short while it is used', () => {
  test.each(['keep', 'lean'] as const)(
    '%s: ERR_FILE_READ, and with the file back it works',
    async (residency) => {
      await using pipeline = await ImagePipeline.load(copy.model, { residency, threads: 1 });
      const before = await draw(pipeline);
      for (const [name, phase] of [
        ['flux1-schnell-small.safetensors', 'sample'],
        ['ae.safetensors', 'decode'],
        ['ae.safetensors', 'sample'],
        ['flan_t5/model.safetensors', 'encode'],
        ['text_encoder/model.safetensors', 'encode'],
      ] as const) {
        // A prompt that no cache knows, so that the encoders have work.
        const prompt = `a red circle and ${name} in ${phase} ${residency}`;
        const options = { ...SMALL, width: 256, height: 256, steps: phase === 'sample' ? 40 : 1 };
        const job = pipeline.generate(prompt, options);
        const outcome = outcomeOf(() => job.result);
        if (phase === 'encode') truncateSync(copy.at(name), 1000);
        for await (const progress of job.progress())
          if (progress.phase === phase && phase !== 'encode') {
            truncateSync(copy.at(name), 1000);
            break;
          }
        // The autoencoder may have read all it needs.
        const { code, message } = await outcome;
        if (name !== 'ae.safetensors' || phase === 'sample')
          expect({ code, message }).toMatchObject({
            code: expect.stringMatching(/^ERR_(FILE_READ|SAFETENSORS_TRUNCATED)$/) as string,
          });
        expect(code).toMatch(/^(ok|ERR_FILE_READ|ERR_SAFETENSORS_TRUNCATED)$/);
        const again = await outcomeOf(() => draw(pipeline, SMALL, `${prompt} again`));
        expect(again.code, `${name}, still short: ${again.message}`).toMatch(
          /^ERR_(FILE_READ|SAFETENSORS_TRUNCATED)$/,
        );
        copy.restore(name);
        expect(await draw(pipeline), `${name} is back`).toEqual(before);
        expect((await outcomeOf(() => draw(pipeline, SMALL, `${prompt} at last`))).code).toBe('ok');
      }
    },
  );
});

/** The same weights a few bytes further on. */
function replaceByAnother(): void {
  const path = copy.at('flux1-schnell-small.safetensors');
  const bytes = readFileSync(path);
  const length = Number(bytes.readBigUInt64LE());
  const header = Buffer.concat([bytes.subarray(8, 8 + length), Buffer.from('        ')]);
  const shifted = Buffer.alloc(8);
  shifted.writeBigUInt64LE(BigInt(header.length));
  writeFileSync(`${path}.new`, Buffer.concat([shifted, header, bytes.subarray(8 + length)]));
  renameSync(`${path}.new`, path);
}

describe('replaced between two requests', () => {
  test('by a file that lies otherwise: an error, not a picture of noise', async () => {
    await using pipeline = await ImagePipeline.load(copy.model, { residency: 'lean', threads: 1 });
    const before = await draw(pipeline);
    replaceByAnother();
    expect(await outcomeOf(() => draw(pipeline))).toMatchObject({
      code: 'ERR_FILE_READ',
      message: expect.stringContaining('another file') as string,
    });
    copy.restore('flux1-schnell-small.safetensors');
    expect(await draw(pipeline)).toEqual(before);
  });

  test('lean: a request that was cancelled keeps nothing loaded', async () => {
    await using pipeline = await ImagePipeline.load(copy.model, { residency: 'lean', threads: 1 });
    const controller = new AbortController();
    const job = pipeline.generate(PROMPT, { ...SMALL, steps: 500, signal: controller.signal });
    for await (const { phase } of job.progress()) if (phase === 'sample') controller.abort();
    expect((await outcomeOf(() => job.result)).code).toBe('ERR_CANCELLED');
    replaceByAnother();
    expect((await outcomeOf(() => draw(pipeline))).code).toBe('ERR_FILE_READ');
  });

  test('by other weights in the same places: those are used', async () => {
    await using pipeline = await ImagePipeline.load(copy.model, { residency: 'lean', threads: 1 });
    const before = await draw(pipeline);
    plant(copy.at('ae.safetensors'), 'decoder.conv_in.bias', 'nan', 'first');
    expect((await outcomeOf(() => draw(pipeline))).code).toBe('ERR_NON_FINITE');
    copy.restore('ae.safetensors');
    expect(await draw(pipeline)).toEqual(before);
  });

  test('the same name as another encoder: the one that was asked for', async () => {
    await using pipeline = await ImagePipeline.load(copy.model, { residency: 'lean', threads: 1 });
    const other = await draw(pipeline, { ...SMALL, encoders: { t5: SHIPPED_T5.t5() } }, 'a blue ring');
    copyFileSync(join(SHIPPED_T5.t5().path, 'model.safetensors'), copy.at('flan_t5/model.safetensors'));
    copyFileSync(join(SHIPPED_T5.t5().path, 'tokenizer.json'), copy.at('flan_t5/tokenizer.json'));
    expect(await draw(pipeline, SMALL, 'a blue ring')).toEqual(other);
    for (const name of ['model.safetensors', 'tokenizer.json']) copy.restore(`flan_t5/${name}`);
  });
});
