/**
 * The transformer of SD3 and SD3.5 (MMDiT, arXiv:2403.03206): text and image keep weights of their own and meet in the
 * attention of every block. Modulation as in DiT (arXiv:2212.09748), a table of positions cropped from its centre; SD3.5
 * norms queries and keys, and its Medium lets image tokens attend to themselves alone as well (MMDiT-X). Reference:
 * Stability-AI/sd3.5, mmditx.py.
 */
import { KotobaError } from '../errors.js';
import type { LayerOps, Linear, Ops } from '../runtime/ops.js';
import type { Tensor } from '../runtime/tensor.js';
import type { JointBlock, JointProjections, JointStream, JointTail, Mmdit } from './mmdit_model.js';
import { TIME_WIDTH } from './mmdit_model.js';
import { sinusoids } from './timestep_embedding.js';

const EPS = 1e-6;

export interface MmditInput {
  readonly batch: number;
  /** [batch · tokens, channels · patch²]: patches of the noisy latent, row by row, each in the order c, ph, pw */
  readonly x: Tensor;
  /** I32 [batch · tokens]: mmditPositions() of the latent */
  readonly positions: Tensor;
  /** [batch · textTokens, context_dim] */
  readonly context: Tensor;
  /** [batch, adm_in_channels]: the pooled texts */
  readonly y: Tensor;
  /** mmditSinusoids() of the timesteps, 0 … 1000: [batch, 256] */
  readonly time: Tensor;
  /** blocks left out, for skip-layer guidance */
  readonly skipLayers?: readonly number[] | undefined;
}

/** What a block has left. Borrowed. */
export interface MmditStage {
  /** as in the checkpoint: "joint_blocks.3" */
  readonly name: string;
  /** [batch · tokens, hidden] */
  readonly x: Tensor;
  /** [batch · textTokens, hidden] */
  readonly context: Tensor;
}

/** @param timesteps one for each image, 0 … 1000; @returns what MmditInput.time holds */
export const mmditSinusoids = (timesteps: readonly number[]): Float32Array =>
  sinusoids(timesteps, TIME_WIDTH);

/**
 * The rows of the table of positions that the tokens of such latents take: its centre.
 * @param height,width tokens
 * @throws KotobaError ERR_ARGUMENT for more tokens along a side than the table has
 */
export function mmditPositions(side: number, batch: number, height: number, width: number): Int32Array {
  if (height > side || width > side)
    throw new KotobaError(
      'ERR_ARGUMENT',
      `MMDiT: ${height} × ${width} tokens do not fit its ${side} × ${side} positions: take a smaller picture`,
    );
  const top = Math.floor((side - height) / 2);
  const left = Math.floor((side - width) / 2);
  return Int32Array.from({ length: batch * height * width }, (_, i) => {
    const token = i % (height * width);
    return (top + Math.floor(token / width)) * side + left + (token % width);
  });
}

/** What every block of one evaluation shares. */
interface Run {
  readonly ops: Ops;
  readonly model: Mmdit;
  readonly batch: number;
  readonly textTokens: number;
  readonly tokens: number;
  /** SiLU of time + pooled texts: [batch, hidden] */
  readonly vec: Tensor;
}

/**
 * Runs the transformer, block by block.
 * @yields after every block; its tensors are updated by the next one
 * @returns the velocity noise − picture, [batch · tokens, patch² · channels] in the order ph, pw, c; the caller's
 * @throws KotobaError ERR_ARGUMENT where the inputs do not fit the batch
 */
export function* mmditBlocks(ops: Ops, model: Mmdit, input: MmditInput): Generator<MmditStage, Tensor> {
  const { batch } = input;
  const [tokens, textTokens] = [input.x.rows / batch, input.context.rows / batch];
  if (![tokens, textTokens].every(Number.isInteger) || input.y.rows !== batch || input.time.rows !== batch)
    throw new KotobaError(
      'ERR_ARGUMENT',
      `MMDiT: expected tokens, texts, vectors and times of ${batch} images, got ${input.x.rows}, ` +
        `${input.context.rows}, ${input.y.rows} and ${input.time.rows} rows`,
    );
  using vec = conditioning(ops, model, input);
  using table = model.pos_embed.reshape(model.config.pos_embed_max_size ** 2, model.config.hidden_size);
  using x = ops.embedding(table, input.positions);
  ops.linearAdd(x, input.x, model.x_embedder);
  using context = ops.linear(input.context, model.context_embedder);
  const run: Run = { ops, model, batch, textTokens, tokens, vec };
  for (const [i, block] of model.blocks.entries()) {
    if (!input.skipLayers?.includes(i)) jointBlock(run, block, x, context);
    yield { name: `joint_blocks.${i}`, x, context };
  }
  using mod = ops.linear(vec, model.final_modulation);
  using normed = modulated(run, x, mod, 2, 0);
  return ops.linear(normed, model.final_linear);
}

/** @returns SiLU(t_embedder + y_embedder): all that modulations see of it */
function conditioning(ops: Ops, model: Mmdit, { time, y }: MmditInput): Tensor {
  using hidden = ops.inner.linear(time, model.t_embedder[0], { activation: 'silu' });
  using vec = ops.linear(hidden, model.t_embedder[1]);
  using pooled = ops.inner.linear(y, model.y_embedder[0], { activation: 'silu' });
  ops.linearAdd(vec, pooled, model.y_embedder[1]);
  return ops.inner.activate(vec, 'silu');
}

/** @param x,context [batch · tokens, hidden], updated; the last block leaves the context alone */
function jointBlock(run: Run, w: JointBlock, x: Tensor, context: Tensor): void {
  const { ops, textTokens, tokens, vec } = run;
  using xMod = ops.linear(vec, w.x.modulation);
  using contextMod = ops.linear(vec, w.context.modulation);
  {
    using mixed = emptyJoint(run, ops.inner);
    attendJointly(run, w, [context, contextMod], [x, xMod], mixed);
    // Both attentions start from the same x: the second must run before the first is added.
    using alone = w.attn2 && attendAlone(run, w.attn2, x, xMod, w.x.pieces);
    if (w.context.tail) addAttention(run, w.context.tail.proj, context, contextMod, 6, mixed, 0, textTokens);
    addAttention(run, w.x.tail.proj, x, xMod, w.x.pieces, mixed, textTokens, tokens);
    if (w.attn2 && alone) {
      using gate = piece(xMod, 8, w.x.pieces);
      ops.linearAdd(x, alone, w.attn2.proj, gate);
    }
  }
  if (w.context.tail) addMlp(run, w.context.tail, context, contextMod, 6);
  addMlp(run, w.x.tail, x, xMod, w.x.pieces);
}

type Modulated = readonly [x: Tensor, mod: Tensor];

/** Text and image as one sequence each, text first. @param mixed [batch · (textTokens + tokens), hidden], written */
function attendJointly(run: Run, w: JointBlock, context: Modulated, x: Modulated, mixed: Tensor): void {
  const { inner } = run.ops;
  using q = emptyJoint(run, inner);
  using k = emptyJoint(run, inner);
  using v = emptyJoint(run, inner);
  const put = (stream: JointStream, [rows, mod]: Modulated, offset: number): void => {
    using normed = modulated(run, rows, mod, stream.pieces, 0);
    project(run, stream.attn, normed, { q, k, v }, offset);
  };
  put(w.context, context, 0);
  put(w.x, x, run.textTokens);
  attend(run, mixed, q, k, v);
}

/** @returns the second attention of the image tokens, [batch · tokens, hidden] */
function attendAlone(run: Run, w: JointProjections, x: Tensor, mod: Tensor, pieces: number): Tensor {
  const { inner } = run.ops;
  using normed = modulated(run, x, mod, pieces, 6);
  using q = inner.empty(x.shape);
  using k = inner.empty(x.shape);
  using v = inner.empty(x.shape);
  project(run, w, normed, { q, k, v }, 0);
  const out = inner.empty(x.shape);
  attend(run, out, q, k, v);
  return out;
}

/** Queries, keys and values of one stream, normed, into its tokens of `out`. */
function project(
  run: Run,
  w: JointProjections,
  x: Tensor,
  out: { q: Tensor; k: Tensor; v: Tensor },
  offset: number,
): void {
  const { ops, model, batch } = run;
  const heads = model.config.num_heads;
  const put = (to: Tensor, from: Linear, weight?: Tensor): void => {
    using rows = ops.inner.linear(x, from);
    ops.headNormRope(to, rows, { weight }, { batch, heads, offset, eps: EPS });
  };
  put(out.q, w.q, w.ln_q);
  put(out.k, w.k, w.ln_k);
  put(out.v, w.v);
}

function attend({ ops, model, batch }: Run, out: Tensor, q: Tensor, k: Tensor, v: Tensor): void {
  const scale = 1 / Math.sqrt(model.headDim);
  ops.attentionInto(out, q, k, v, { batch, heads: model.config.num_heads, scale });
}

/** x += gate · proj(its tokens of the attention) */
function addAttention(
  run: Run,
  proj: Linear,
  x: Tensor,
  mod: Tensor,
  pieces: number,
  mixed: Tensor,
  first: number,
  tokens: number,
): void {
  using own = tokensOf(run, mixed, first, tokens);
  using gate = piece(mod, 2, pieces);
  run.ops.linearAdd(x, own, proj, gate);
}

/** x += gate · mlp(norm(x)) */
function addMlp(run: Run, w: JointTail, x: Tensor, mod: Tensor, pieces: number): void {
  const { ops } = run;
  using normed = modulated(run, x, mod, pieces, 3);
  using hidden = ops.inner.linear(normed, w.fc1, { activation: 'gelu_tanh' });
  using gate = piece(mod, 5, pieces);
  ops.linearAdd(x, hidden, w.fc2, gate);
}

/** norm(x) · (1 + scale) + shift, shift and scale being pieces `first` and `first` + 1 of the modulation */
function modulated({ ops }: Run, x: Tensor, mod: Tensor, pieces: number, first: number): Tensor {
  using shift = piece(mod, first, pieces);
  using scale = piece(mod, first + 1, pieces);
  return ops.inner.layerNormModulated(x, shift, scale, EPS);
}

/** The i-th of `count` equal pieces of a modulation row, [batch, hidden]. */
function piece(mod: Tensor, i: number, count: number): Tensor {
  const width = mod.cols / count;
  return mod.columnRange(i * width, (i + 1) * width);
}

function emptyJoint({ model, batch, textTokens, tokens }: Run, ops: LayerOps): Tensor {
  return ops.empty([batch * (textTokens + tokens), model.config.hidden_size]);
}

/** A stream's tokens out of every joint sequence: a view if there is but one. */
function tokensOf({ ops, batch }: Run, joint: Tensor, first: number, tokens: number): Tensor {
  if (batch === 1) return joint.rowRange(first, first + tokens);
  const out = ops.device.empty(joint.dtype, [batch * tokens, joint.cols]);
  ops.copyTokens(out, joint, { batch, tokens, outOffset: 0, xOffset: first });
  return out;
}
