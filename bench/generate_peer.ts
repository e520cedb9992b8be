/**
 * A program that makes pictures in a process of its own, run on command, so that a bench can interleave its runs with
 * ours. Any program that speaks this protocol of ours is a peer (`--peer COMMAND`):
 *
 *   COMMAND --serve --kind generate FILES --prompt TEXT --width W --height H --sigmas S0,…,0 --cfg G --seed N --threads T
 *
 * FILES: --transformer FILE --vae FILE --clip-l FILE --t5 FILE [--t5-tokenizer FILE], a Flux.1 transformer and its
 * parts, T5's states padded to 256 tokens; a program that has T5's vocabulary may leave --t5-tokenizer alone: it gives the
 * prompt the same ids. Or --checkpoint FILE, a Stable Diffusion 1 with all its parts, CLIP's last state final-normed.
 *
 * The noise is CUDA's Philox by the seed; the solver is Euler from noise level S0 to 0; the prompt is plain text. With a
 * guidance G above 1 every level is evaluated for the empty prompt as well. Each command is answered with one JSON object
 * on one line of stdout. Seconds are wall time and measured by the peer; memory is in bytes; stderr is for people. Every
 * run starts with nothing loaded and ends so.
 *
 *   (started)   {"event":"ready", "rss_peak", ...}
 *   run PATH    {"event":"run", "path", "seconds", "load_seconds", "encode_seconds", "sample_seconds",
 *                "decode_seconds", "cpu_seconds", "rss_peak", "step_seconds", ...}   `seconds` is the whole;
 *                `step_seconds` is of every step but the first, which may still load; PATH then holds the picture, raw
 *                RGB bytes [height, width, 3]
 *   quit        (ends; so does the end of stdin)
 *   a failure   {"event":"error", "message"}
 *
 * stable-diffusion.cpp behind it (the readings in bench/results): 97d2990 with its pinned ggml, built with -O3
 * -march=native, GGML_LLAMAFILE and OpenMP, through its C API. A run is new_sd_ctx (diffusion_model_path, vae_path,
 * clip_l_path, t5xxl_path or model_path, rng CUDA_RNG, eager_load), generate_image (EULER_SAMPLE_METHOD, custom_sigmas,
 * txt_cfg), free_sd_ctx. Steps end where it reports progress, phases where its log says "get_learned_condition completed" and "sampling completed". At its best
 * its weights go into ggml's CPU_REPACK buffer where that takes them (ModelManager::params_buffer_type_for).
 */
import type { ImageModel } from '../src/pipeline/image_types.js';
import { PeerProcess } from './peer_process.js';

export interface GeneratePeerOptions {
  readonly command: string | readonly string[];
  readonly model: ImageModel;
  readonly prompt: string;
  readonly width: number;
  readonly height: number;
  readonly sigmas: readonly number[];
  /** Guidance against the empty prompt; 1: none. */
  readonly cfg: number;
  readonly seed: number;
  readonly threads: number;
}

export interface GeneratePeerReady {
  readonly event: 'ready';
  readonly rss_peak: number;
}

export interface GeneratePeerRun {
  readonly event: 'run';
  readonly path: string;
  readonly seconds: number;
  readonly load_seconds: number;
  readonly encode_seconds: number;
  readonly sample_seconds: number;
  readonly decode_seconds: number;
  readonly cpu_seconds: number;
  readonly rss_peak: number;
  readonly step_seconds?: readonly number[];
}

export type GeneratePeer = PeerProcess<GeneratePeerReady>;

/** The encoders tell the family. */
function filesOf({ denoiser, vae, encoders: { clip_l, t5 } }: ImageModel): string[] {
  if (!clip_l || !t5) return ['--checkpoint', denoiser];
  const files = ['--transformer', denoiser, '--vae', vae, '--clip-l', clip_l.path, '--t5', t5.path];
  return t5.tokenizer === undefined ? files : [...files, '--t5-tokenizer', t5.tokenizer];
}

export async function startGeneratePeer(options: GeneratePeerOptions): Promise<GeneratePeer> {
  const { model, prompt, width, height, sigmas, cfg, seed, threads } = options;
  const files = filesOf(model);
  const request = ['--prompt', prompt, '--width', `${width}`, '--height', `${height}`];
  request.push('--sigmas', sigmas.join(), '--cfg', `${cfg}`, '--seed', `${seed}`, '--threads', `${threads}`);
  return await PeerProcess.start(options.command, ['--serve', '--kind', 'generate', ...files, ...request]);
}
