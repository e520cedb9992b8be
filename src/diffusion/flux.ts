/**
 * The transformer of Flux.1 [dev] and [schnell]: a rectified-flow MMDiT (arXiv:2403.03206) whose double blocks keep
 * weights of their own for text and image, and whose single blocks run both as one sequence, attention and MLP in
 * parallel (arXiv:2302.05442). Modulation as in DiT (arXiv:2212.09748), rotary positions (arXiv:2104.09864), RMS norm
 * on queries and keys. Reference: black-forest-labs/flux, model.py and modules/layers.py.
 */
import { KotobaError } from '../errors.js';
import type { LayerOps, Linear, Ops } from '../runtime/ops.js';
import type { Tensor } from '../runtime/tensor.js';
import {
  SINUSOID_WIDTH,
  type FluxDoubleBlock,
  type FluxModel,
  type FluxSingleBlock,
  type FluxStream,
  type Projections,
  type VectorMlp,
} from './flux_model.js';
import { sinusoids } from './timestep_embedding.js';

const EPS = 1e-6;
/** Time in [0, 1] and guidance are multiplied by this before their sinusoids. */
const TIME_FACTOR = 1000;

export interface FluxInput {
  readonly batch: number;
  /** [batch · imageTokens, in_channels]: patches of the noisy latent */
  readonly img: Tensor;
  /** [batch · textTokens, context_in_dim]: T5's states */
  readonly txt: Tensor;
  /** [batch, vec_in_dim]: CLIP's pooled state */
  readonly y: Tensor;
  /** [textTokens + imageTokens, headDim]: rotation() of text and image ids */
  readonly rotation: Tensor;
  /** fluxSinusoids() of the timesteps, 1 = noise … 0 = picture: [batch, 256] */
  readonly time: Tensor;
  /** fluxSinusoids() of the guidance: [batch, 256]; wanted by dev, ignored by schnell */
  readonly guidance?: Tensor | undefined;
}

/**
 * @param values timesteps or guidances, one for each sequence
 * @returns [values, 256]: what FluxInput.time and .guidance hold
 */
export function fluxSinusoids(values: readonly number[]): Float32Array {
  const scaled = values.map((value) => value * TIME_FACTOR);
  return sinusoids(scaled, SINUSOID_WIDTH);
}

/** What a block has left: both streams of a double block, or the one of a single block. Borrowed. */
export interface FluxStage {
  /** as in the checkpoint: "double_blocks.3" */
  readonly name: string;
  /** [batch · imageTokens, hidden] */
  readonly img?: Tensor;
  /** [batch · textTokens, hidden] */
  readonly txt?: Tensor;
  /** [batch · (textTokens + imageTokens), hidden], text first in every sequence */
  readonly joint?: Tensor;
}

/** What every block of one evaluation shares. */
interface Run {
  readonly ops: Ops;
  readonly model: FluxModel;
  readonly batch: number;
  readonly textTokens: number;
  readonly imageTokens: number;
  readonly rotation: Tensor;
  /** SiLU of time + guidance + pooled text: [batch, hidden] */
  readonly vec: Tensor;
}

/**
 * Runs the transformer, block by block.
 * @yields after every block; its tensors are updated by the next one
 * @returns the velocity noise − picture, [batch · imageTokens, out_channels], the caller's
 * @throws KotobaError ERR_ARGUMENT for dev without guidance, or rows that do not fit the batch
 */
export function* fluxBlocks(ops: Ops, model: FluxModel, input: FluxInput): Generator<FluxStage, Tensor> {
  const { batch } = input;
  const textTokens = input.txt.rows / batch;
  const imageTokens = input.img.rows / batch;
  using vec = conditioning(ops, model, input);
  const run: Run = { ops, model, batch, textTokens, imageTokens, rotation: input.rotation, vec };
  using joint = yield* doubleBlocks(run, input);
  for (const [i, block] of model.single_blocks.entries()) {
    singleBlock(run, block, joint);
    yield { name: `single_blocks.${i}`, joint };
  }
  using img = tokensOf(run, joint, textTokens, imageTokens);
  using mod = ops.linear(vec, model.adaLN_modulation);
  using shift = part(mod, 0, 2);
  using scale = part(mod, 1, 2);
  using normed = ops.inner.layerNormModulated(img, shift, scale, EPS);
  return ops.linear(normed, model.final_linear);
}

/** @returns SiLU(time_in + guidance_in + vector_in), [batch, hidden]: all that modulations see of it */
function conditioning(ops: Ops, model: FluxModel, input: FluxInput): Tensor {
  using vec = embedVector(ops, model, input);
  return ops.inner.activate(vec, 'silu');
}

function embedVector(ops: Ops, model: FluxModel, { batch, time, guidance, y }: FluxInput): Tensor {
  if (time.rows !== batch || (model.guidance_in && guidance?.rows !== batch))
    throw new KotobaError(
      'ERR_ARGUMENT',
      `Flux: expected ${batch} timesteps${model.guidance_in ? ' and guidances' : ''}, got ${time.rows}` +
        (model.guidance_in ? ` and ${guidance?.rows ?? 'none'}` : ''),
    );
  const vec = vectorMlp(ops, model.time_in, time);
  if (model.guidance_in && guidance) addVectorMlp(ops, vec, model.guidance_in, guidance);
  addVectorMlp(ops, vec, model.vector_in, y);
  return vec;
}

function vectorMlp(ops: Ops, w: VectorMlp, x: Tensor): Tensor {
  using hidden = ops.inner.linear(x, w.in_layer, { activation: 'silu' });
  return ops.linear(hidden, w.out_layer);
}

function addVectorMlp(ops: Ops, sum: Tensor, w: VectorMlp, x: Tensor): void {
  using hidden = ops.inner.linear(x, w.in_layer, { activation: 'silu' });
  ops.linearAdd(sum, hidden, w.out_layer);
}

/** @returns text and image as one sequence each, [batch · (textTokens + imageTokens), hidden] */
function* doubleBlocks(run: Run, input: FluxInput): Generator<FluxStage, Tensor> {
  const { ops, model } = run;
  using img = ops.linear(input.img, model.img_in);
  using txt = ops.linear(input.txt, model.txt_in);
  for (const [i, block] of model.double_blocks.entries()) {
    doubleBlock(run, block, img, txt);
    yield { name: `double_blocks.${i}`, img, txt };
  }
  const joint = emptyJoint(run, ops);
  join(run, joint, txt, 0);
  join(run, joint, img, run.textTokens);
  return joint;
}

/** @param img,txt [batch · tokens, hidden], updated */
function doubleBlock(run: Run, w: FluxDoubleBlock, img: Tensor, txt: Tensor): void {
  const { ops, vec, textTokens, imageTokens } = run;
  using imgMod = ops.linear(vec, w.img.mod);
  using txtMod = ops.linear(vec, w.txt.mod);
  {
    using q = emptyJoint(run, ops.inner);
    using k = emptyJoint(run, ops.inner);
    using v = emptyJoint(run, ops.inner);
    project(run, w.txt, txt, txtMod, { q, k, v }, 0);
    project(run, w.img, img, imgMod, { q, k, v }, textTokens);
    using mixed = emptyJoint(run, ops.inner);
    attend(run, mixed, q, k, v);
    addAttention(run, w.txt, txt, txtMod, mixed, 0, textTokens);
    addAttention(run, w.img, img, imgMod, mixed, textTokens, imageTokens);
  }
  addMlp(run, w.txt, txt, txtMod);
  addMlp(run, w.img, img, imgMod);
}

/** Queries, keys and values of one stream, into its tokens of the joint ones. */
function project(
  run: Run,
  w: FluxStream,
  x: Tensor,
  mod: Tensor,
  joint: { q: Tensor; k: Tensor; v: Tensor },
  offset: number,
): void {
  const { inner } = run.ops;
  using shift = part(mod, 0, 6);
  using scale = part(mod, 1, 6);
  using normed = inner.layerNormModulated(x, shift, scale, EPS);
  projectHeads(run, joint.q, normed, w.attn.q, w.attn.query_norm, offset);
  projectHeads(run, joint.k, normed, w.attn.k, w.attn.key_norm, offset);
  using v = inner.linear(normed, w.attn.v);
  join(run, joint.v, v, offset);
}

/** Projects, norms and rotates queries or keys. */
function projectHeads(run: Run, out: Tensor, x: Tensor, w: Linear, weight: Tensor, offset: number): void {
  const { ops, model, batch, rotation } = run;
  using heads = ops.inner.linear(x, w);
  ops.headNormRope(
    out,
    heads,
    { weight, rotation },
    { batch, heads: model.config.num_heads, offset, eps: EPS },
  );
}

function attend({ ops, model, batch }: Run, out: Tensor, q: Tensor, k: Tensor, v: Tensor): void {
  const scale = 1 / Math.sqrt(model.headDim);
  ops.attentionInto(out, q, k, v, { batch, heads: model.config.num_heads, scale });
}

/** x += gate · proj(its tokens of the attention) */
function addAttention(
  run: Run,
  w: FluxStream,
  x: Tensor,
  mod: Tensor,
  mixed: Tensor,
  first: number,
  tokens: number,
): void {
  using own = tokensOf(run, mixed, first, tokens);
  using gate = part(mod, 2, 6);
  run.ops.linearAdd(x, own, w.proj, gate);
}

/** x += gate · mlp(norm(x)) */
function addMlp({ ops }: Run, w: FluxStream, x: Tensor, mod: Tensor): void {
  using shift = part(mod, 3, 6);
  using scale = part(mod, 4, 6);
  using gate = part(mod, 5, 6);
  using normed = ops.inner.layerNormModulated(x, shift, scale, EPS);
  using hidden = ops.inner.linear(normed, w.mlp_in, { activation: 'gelu_tanh' });
  ops.linearAdd(x, hidden, w.mlp_out, gate);
}

/** Attention and MLP side by side, from one norm and into one matrix. @param x the joint tokens, updated */
function singleBlock(run: Run, w: FluxSingleBlock, x: Tensor): void {
  const { ops, vec, model } = run;
  const { hidden_size: h } = model.config;
  using mod = ops.linear(vec, w.modulation);
  using shift = part(mod, 0, 3);
  using scale = part(mod, 1, 3);
  using gate = part(mod, 2, 3);
  using both = ops.inner.empty([x.rows, h + model.mlp]);
  {
    using normed = ops.inner.layerNormModulated(x, shift, scale, EPS);
    using mixed = both.columnRange(0, h);
    attendSelf(run, w.attn, normed, mixed);
    using hidden = both.columnRange(h, h + model.mlp);
    ops.inner.linearInto(hidden, normed, w.mlp_in, { activation: 'gelu_tanh' });
  }
  ops.linearAdd(x, both, w.linear2, gate);
}

function attendSelf(run: Run, w: Projections, x: Tensor, out: Tensor): void {
  const { inner } = run.ops;
  using q = emptyJoint(run, inner);
  using k = emptyJoint(run, inner);
  projectHeads(run, q, x, w.q, w.query_norm, 0);
  projectHeads(run, k, x, w.k, w.key_norm, 0);
  using v = inner.linear(x, w.v);
  attend(run, out, q, k, v);
}

/** @param ops in whose dtype */
function emptyJoint({ model, batch, textTokens, imageTokens }: Run, ops: LayerOps): Tensor {
  return ops.empty([batch * (textTokens + imageTokens), model.config.hidden_size]);
}

/** Puts a stream's tokens where they belong in every joint sequence. */
function join({ ops, batch }: Run, joint: Tensor, x: Tensor, offset: number): void {
  ops.copyTokens(joint, x, { batch, tokens: x.rows / batch, outOffset: offset, xOffset: 0 });
}

/** Takes a stream's tokens out of every joint sequence: a view if there is but one. */
function tokensOf({ ops, batch }: Run, joint: Tensor, first: number, tokens: number): Tensor {
  if (batch === 1) return joint.rowRange(first, first + tokens);
  const out = ops.device.empty(joint.dtype, [batch * tokens, joint.cols]);
  ops.copyTokens(out, joint, { batch, tokens, outOffset: 0, xOffset: first });
  return out;
}

/** The i-th of `count` equal pieces of a modulation row, [batch, hidden]. */
function part(mod: Tensor, i: number, count: number): Tensor {
  const width = mod.cols / count;
  return mod.columnRange(i * width, (i + 1) * width);
}
