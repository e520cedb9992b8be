/** The small models of one test file, written when first asked for, with pipelines over them. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll } from 'vitest';
import { imageModel, imageModelFiles, type PartFiles } from '../../src/cli/image_models.js';
import type { Picture } from '../../src/image/index.js';
import { ImagePipeline } from '../../src/pipeline/image_pipeline.js';
import type {
  GenerateOptions,
  GenerateResult,
  ImageModel,
  PipelineOptions,
} from '../../src/pipeline/image_types.js';
import { Device } from '../../src/runtime/device.js';
import { openModelDevice } from './devices.js';
import {
  tinyModel,
  writeCheckpoint,
  type CheckpointOptions,
  type TinyKind,
  type TinyModel,
} from '../../bench/tiny/checkpoints.js';

export const SMALL = { width: 32, height: 32, steps: 3, seed: 5 } as const;

export interface TinyBench {
  /** What the models run on; conversions run on the CPU. */
  readonly device: Device;
  readonly cpu: Device;
  path(...names: string[]): string;
  /** One file with everything in it. @param name of the file; the kind by default */
  checkpoint(
    kind: TinyKind,
    options?: CheckpointOptions & { name?: string; model?: TinyModel },
  ): Promise<string>;
  /** Stays loaded as long as the test file runs. */
  pipeline(files: string | PartFiles, options?: PipelineOptions): Promise<ImagePipeline>;
}

/** Must be called where tests are declared. */
export function tinyBench(): TinyBench {
  let dir: string;
  let [device, cpu]: Device[] = [];
  const written = new Map<string, Promise<string>>();
  const pipelines: ImagePipeline[] = [];
  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), 'kotoba-tiny-'));
    device = openModelDevice();
    cpu = Device.open('cpu');
  });
  afterAll(async () => {
    for (const pipeline of pipelines) await pipeline[Symbol.asyncDispose]();
    device!.close();
    cpu!.close();
    rmSync(dir, { recursive: true, force: true });
  });
  return {
    get device() {
      return device!;
    },
    get cpu() {
      return cpu!;
    },
    path: (...names) => join(dir, ...names),
    checkpoint(kind, { name = `${kind}.safetensors`, model, ...options } = {}) {
      const path = join(dir, kind, name);
      const writing = written.get(path) ?? writeCheckpoint(path, model ?? tinyModel(kind), options);
      written.set(path, writing);
      return writing;
    },
    async pipeline(files, options = {}) {
      const pipeline = await ImagePipeline.load(modelOf(files), {
        device: device!,
        precision: 'fp32',
        ...options,
      });
      pipelines.push(pipeline);
      return pipeline;
    },
  };
}

/** @param files a checkpoint with every part in it, or each part's file */
export const modelOf = (files: string | PartFiles): ImageModel =>
  imageModel(typeof files === 'string' ? imageModelFiles({ model: files }, []) : files, () => ({}));

export const PROMPT = 'a sparrow on a branch';

export async function generated(
  pipeline: ImagePipeline,
  options: GenerateOptions & { readonly prompt?: string } = {},
): Promise<GenerateResult> {
  const { prompt = PROMPT, ...rest } = options;
  return await pipeline.generate(prompt, { ...SMALL, ...rest });
}

export async function pictureOf(...args: Parameters<typeof generated>): Promise<Picture> {
  return (await generated(...args)).pictures[0]!.picture;
}
