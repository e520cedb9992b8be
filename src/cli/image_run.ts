/** A pipeline for as long as a command needs it, and its progress on a terminal. */
import type { Device } from '../runtime/device.js';
import type { ImagePipeline } from '../pipeline/image_pipeline.js';
import type {
  GenerateJob,
  GenerateProgress,
  GenerateResult,
  ImageModel,
  PipelineOptions,
} from '../pipeline/image_types.js';
import { denoiserConfig, type ImageCommandOptions } from './image_options.js';
import type { ProgressLine } from './progress.js';

export interface RunningPipeline {
  readonly pipeline: ImagePipeline;
  readonly device: Device;
  /** checking the files */
  readonly loadSeconds: number;
}

/** @throws what the pipeline throws; the pipeline is gone then */
export async function withPipeline<T>(
  model: ImageModel,
  options: Pick<ImageCommandOptions, 'residency' | 'config'> & Pick<PipelineOptions, 'precision'>,
  device: Device,
  use: (running: RunningPipeline) => Promise<T>,
): Promise<T> {
  const { ImagePipeline } = await import('../pipeline/image_pipeline.js');
  const started = performance.now();
  await using pipeline = await ImagePipeline.load(model, {
    device,
    precision: options.precision,
    residency: options.residency,
    config: denoiserConfig(options),
  });
  return await use({ pipeline, device, loadSeconds: (performance.now() - started) / 1000 });
}

/** Awaits a job, drawing where it is. @param onPreview called for each preview, not awaited by the job */
export async function finish(
  job: GenerateJob,
  show: (progress: GenerateProgress) => void,
  onPreview?: (progress: GenerateProgress) => Promise<void>,
): Promise<GenerateResult> {
  for await (const progress of job.progress()) {
    show(progress);
    if (progress.preview && onPreview) await onPreview(progress);
  }
  return await job;
}

const PHASES: Readonly<Record<GenerateProgress['phase'], string>> = {
  encode: 'reading the prompt',
  sample: 'drawing',
  decode: 'developing',
};

/** @param prefix "2 of 5 " where there are several */
export function showOn(line: ProgressLine, prefix = '') {
  return ({ phase, done, total, detail }: GenerateProgress): void =>
    line.update(prefix + PHASES[phase], done, total, detail);
}
