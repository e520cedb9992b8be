/**
 * What programs differ in when they read the same prompt, one column a program:
 *
 * - `bfl`: Black Forest Labs' flux (conditioner.py, util.py), Stability AI's sd3.5 (other_impls.py, sd3_infer.py),
 *   generative-models (sgm/inference, sampling.py) and CompVis's stable-diffusion.
 * - `comfy`: ComfyUI (sd1_clip.py, sdxl_clip.py, text_encoders/{sd2_clip,sd3_clip,flux}.py, model_sampling.py).
 * - `a1111`: stable-diffusion-webui (sd_hijack_clip.py, sd_emphasis.py, sd_models_xl.py, models/sd3/sd3_cond.py); it has no
 *   Flux, so there its successor Forge (backend/text_processing, diffusion_engine/flux.py).
 * - `diffusers`: pipelines of that name.
 */
import { KotobaError } from '../../errors.js';
import type { ChunkLayout, ClipFlavour, PromptDialect } from '../../text/index.js';
import { PROFILES, type DenoiserPart, type Profile } from '../image_types.js';
import type { PooledRules, TextFamily } from './text_rules.js';

/** T5 tokens of a prompt, padding and EOS included. */
export interface T5Rules {
  /**
   * Least and most. `trained`: what the transformer was trained with (flux util.py: 256 schnell, 512 dev, or what its
   * file says). `clip`: as many as there are rows of the CLIPs.
   */
  readonly length: readonly [least: number, most: number] | 'trained' | 'clip';
  /** What comes after the EOS. */
  readonly padId: 0 | 'eos';
  /** `chunk`: A1111's BREAK starts another row of tokens. */
  readonly overflow: 'truncate' | 'chunk';
  /** Whether `(word:1.2)` weights T5's states, or is only taken out of the text. */
  readonly weighting: 'applied' | 'none';
  /** What stands in T5's place where a model can do without it: nothing, zeros (rows), or as many zeros as CLIP rows. */
  readonly absent: number | 'clip';
}

export interface ProfileRules {
  /** How `(word:1.2)` is read. */
  readonly dialect: PromptDialect;
  /** CLIP prompts beyond one chunk. ComfyUI and A1111 encode several; the others cut (at 248 for Long-CLIP). */
  readonly overflow: 'chunk' | 'truncate';
  /** Where chunks end in a dialect that does not say so itself. */
  readonly breaks: ChunkLayout['rules'];
  /** Whose cleaning of unusual characters. ComfyUI runs without ftfy. */
  readonly clipFlavour: ClipFlavour;
  /** Whose random numbers a seed stands for: PyTorch's on the CPU, or CUDA's (A1111's default). */
  readonly noise: 'torch' | 'philox';
  /** The start from pure noise: scaled by √(1 + σ²), or by σ (k-diffusion). See StartParts. */
  readonly noiseScale: 'unit' | 'sigma';
  /** Timesteps of noise levels between two of the table. See DenoiserParts. */
  readonly timesteps: 'nearest' | 'fractional';
  /**
   * Families for which a negative prompt becomes zeros: one that is `empty`, or only one that is not given at all
   * (`unset`). The others encode the empty prompt.
   */
  readonly zeroEmptyNegative: Readonly<Partial<Record<TextFamily, 'empty' | 'unset'>>>;
  readonly t5: Readonly<Record<'sd3' | 'flux', T5Rules>>;
  /** SD3's CLIP-L vector. The projection in diffusers' folders is the identity; that of other files is not. */
  readonly sd3ClipL: PooledRules['kind'];
}

const plainT5 = { padId: 0, overflow: 'truncate', weighting: 'applied' } as const;

export const PROFILE_RULES: Readonly<Record<Profile, ProfileRules>> = {
  bfl: {
    dialect: 'plain',
    overflow: 'truncate',
    breaks: 'a1111',
    clipFlavour: 'openai',
    noise: 'torch',
    noiseScale: 'unit',
    timesteps: 'nearest',
    // Stability AI's code ignores the negative prompts of SDXL altogether; here one that is given counts.
    zeroEmptyNegative: { sdxl: 'empty' },
    t5: {
      // sd3.5 pads to 77 and cuts nothing. It cannot do without T5; zeros are what the training put in its place.
      sd3: { ...plainT5, length: [77, Infinity], absent: 77 },
      flux: { ...plainT5, length: 'trained', absent: 0 },
    },
    sd3ClipL: 'pooled',
  },
  comfy: {
    dialect: 'comfyui',
    overflow: 'chunk',
    breaks: 'comfyui',
    clipFlavour: 'comfyui',
    noise: 'torch',
    noiseScale: 'unit',
    timesteps: 'nearest',
    zeroEmptyNegative: {},
    t5: {
      sd3: { ...plainT5, length: [77, Infinity], absent: 0 },
      flux: { ...plainT5, length: [256, Infinity], absent: 0 },
    },
    sd3ClipL: 'pooled',
  },
  a1111: {
    dialect: 'a1111',
    overflow: 'chunk',
    breaks: 'a1111',
    clipFlavour: 'openai',
    noise: 'philox',
    noiseScale: 'sigma',
    timesteps: 'fractional',
    zeroEmptyNegative: { sdxl: 'empty', sdxl_refiner: 'empty' },
    t5: {
      sd3: { padId: 0, overflow: 'truncate', weighting: 'none', length: 'clip', absent: 'clip' },
      flux: { padId: 'eos', overflow: 'chunk', weighting: 'applied', length: [256, Infinity], absent: 0 },
    },
    sd3ClipL: 'pooled',
  },
  diffusers: {
    dialect: 'plain',
    overflow: 'truncate',
    breaks: 'a1111',
    clipFlavour: 'openai',
    noise: 'torch',
    noiseScale: 'unit',
    timesteps: 'fractional',
    // The base's model_index.json says force_zeros_for_empty_prompt, the refiner's says not to.
    zeroEmptyNegative: { sdxl: 'unset' },
    t5: {
      sd3: { ...plainT5, length: [256, 256], absent: 77 },
      flux: { ...plainT5, length: [512, 512], absent: 0 },
    },
    sd3ClipL: 'projected',
  },
};

/**
 * @param profile default: `bfl` for Flux.1, else `comfy`
 * @throws KotobaError ERR_ARGUMENT for another name
 */
export function profileFor(
  { family }: Pick<DenoiserPart, 'family'>,
  profile?: Profile,
): { name: Profile; rules: ProfileRules } {
  const name = profile ?? (family === 'flux' ? 'bfl' : 'comfy');
  if (!PROFILES.includes(name))
    throw new KotobaError(
      'ERR_ARGUMENT',
      `profile: expected ${PROFILES.join(', ')}, got "${String(profile)}"`,
    );
  return { name, rules: PROFILE_RULES[name] };
}
