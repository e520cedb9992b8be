/** An encode under way. */
import { Job } from './job.js';

export interface EncodeProgress {
  /** Layers done, over all passes of the batch. */
  readonly done: number;
  readonly total: number;
}

export class EncodeJob<Result> extends Job<Result, EncodeProgress> {}
