/**
 * The UNet of latent diffusion (arXiv:2112.10752, appendix E) as SD1, SD2 and SDXL (arXiv:2307.01952) have it: residual
 * blocks that see the time, spatial transformers that see the text, and a skip connection from every step down to one on
 * the way up. Images are rows of pixels [batch · height · width, channels] throughout. Reference:
 * Stability-AI/generative-models, openaimodel.py and attention.py.
 */
import { KotobaError } from '../errors.js';
import type { ImageSize, Ops } from '../runtime/ops.js';
import type { Tensor } from '../runtime/tensor.js';
import type {
  AttentionWeights,
  ResidualBlock,
  SpatialTransformer,
  TransformerBlock,
  Unet,
  UnetStep,
} from './unet_model.js';

const GROUPS = 32;
/** Of the group norms of residual blocks and of the layer norms. */
const EPS = 1e-5;
/** Of the group norm before a transformer. */
const TRANSFORMER_EPS = 1e-6;

export interface UnetInput {
  /** [batch · height · width, in_channels]: the noisy latent, scaled */
  readonly x: Tensor;
  readonly size: ImageSize;
  /** sinusoids() of the timesteps, 0 … 1000: [batch, model_channels] */
  readonly time: Tensor;
  /** [batch · tokens, context_dim] */
  readonly context: Tensor;
  /** [batch, adm_in_channels]: SDXL's pooled text and sizes */
  readonly y?: Tensor | undefined;
}

/** What a stage has left, as rows of pixels. Borrowed. */
export interface UnetReport {
  /** as in the checkpoint: "output_blocks.3" */
  readonly name: string;
  readonly image: Tensor;
}

/** What every block of one evaluation shares. */
interface Run {
  readonly ops: Ops;
  readonly batch: number;
  /** SiLU of the time embedding: [batch, 4 · model_channels] */
  readonly emb: Tensor;
  readonly context: Tensor;
}

/** An image that a stage hands to the next, which takes it over. */
interface Image {
  readonly pixels: Tensor;
  readonly size: ImageSize;
}

/**
 * Runs the UNet, step by step.
 * @yields after every block; its tensors are used up by the next one
 * @returns noise or velocity, as the model predicts, [batch · height · width, out_channels]; the caller's
 * @throws KotobaError ERR_ARGUMENT where the inputs do not fit each other or the model
 */
export function* unetBlocks(ops: Ops, unet: Unet, input: UnetInput): Generator<UnetReport, Tensor> {
  checkInput(unet, input);
  using emb = timeEmbedding(ops, unet, input);
  const run: Run = { ops, batch: input.size.batch, emb, context: input.context };
  const skips: Image[] = [];
  let image: Image = { pixels: ops.conv2d(input.x, unet.conv_in, input.size), size: input.size };
  try {
    yield { name: 'input_blocks.0', image: image.pixels };
    for (const { steps, resample } of unet.down) {
      for (const step of steps) {
        skips.push(image);
        image = runStep(run, step, image);
        yield { name: step.name, image: image.pixels };
      }
      if (!resample) continue;
      skips.push(image);
      image = halve(ops, image, resample.conv);
      yield { name: resample.name, image: image.pixels };
    }
    skips.push(image);
    image = runMiddle(run, unet, image);
    yield { name: 'middle_block', image: image.pixels };
    for (const { steps, resample } of unet.up)
      for (const [i, step] of steps.entries()) {
        image = takeOver(image, join(ops, image, skips));
        image = takeOver(image, runStep(run, step, image));
        if (resample && i === steps.length - 1) image = takeOver(image, double(ops, image, resample.conv));
        yield { name: step.name, image: image.pixels };
      }
    using normed = ops.inner.groupNorm(image.pixels, unet.norm_out, norm(run, EPS, 'silu'));
    return ops.conv2d(normed, unet.conv_out, image.size);
  } finally {
    for (const { pixels } of [...skips, image]) pixels.dispose();
  }
}

function checkInput({ config }: Unet, { x, size, time, context, y }: UnetInput): void {
  const { batch, height, width } = size;
  const step = 2 ** (config.widths.length - 1);
  const vector = config.adm_in_channels;
  const problems = [
    ...(height % step === 0 && width % step === 0 ? [] : [`sides that are multiples of ${step}`]),
    ...(isMatrix(x, batch * height * width, config.in_channels) ? [] : [`x ${shape(x)}`]),
    ...(isMatrix(time, batch, config.model_channels) ? [] : [`time ${shape(time)}`]),
    ...(isMatrix(context, context.rows, config.context_dim) && context.rows % batch === 0
      ? []
      : [`context ${shape(context)}`]),
    ...(vector === 0 || (y && isMatrix(y, batch, vector)) ? [] : [`y ${y ? shape(y) : 'missing'}`]),
  ];
  if (problems.length > 0)
    throw new KotobaError(
      'ERR_ARGUMENT',
      `UNet: ${batch} images of ${height} × ${width}, ${config.in_channels} channels, tokens of width ` +
        `${config.context_dim}${vector ? `, vectors of width ${vector}` : ''}: does not fit ${problems.join(', ')}`,
    );
}

const isMatrix = (x: Tensor, rows: number, cols: number): boolean => x.rows === rows && x.cols === cols;
const shape = (x: Tensor): string => `[${x.shape.join(', ')}]`;

/** @returns SiLU(time_embed + label_emb): all that residual blocks see of it */
function timeEmbedding(ops: Ops, unet: Unet, { time, y }: UnetInput): Tensor {
  const [first, second] = unet.time_embed;
  using hidden = ops.inner.linear(time, first, { activation: 'silu' });
  using emb = ops.linear(hidden, second);
  if (unet.label_emb && y) {
    using label = ops.inner.linear(y, unet.label_emb[0], { activation: 'silu' });
    ops.linearAdd(emb, label, unet.label_emb[1]);
  }
  return ops.inner.activate(emb, 'silu');
}

const norm = ({ batch }: Run, eps: number, activation: 'silu' | 'none') => ({
  batch,
  groups: GROUPS,
  eps,
  activation,
});

function takeOver(old: Image, next: Image): Image {
  old.pixels.dispose();
  return next;
}

function runStep(run: Run, { residual, transformer }: UnetStep, image: Image): Image {
  const made = { pixels: residualBlock(run, residual, image), size: image.size };
  if (transformer) spatialTransformer(run, transformer, made);
  return made;
}

/** The image given is kept: it is the last skip. */
function runMiddle(run: Run, { middle }: Unet, image: Image): Image {
  const first = { pixels: residualBlock(run, middle.first, image), size: image.size };
  if (middle.transformer) spatialTransformer(run, middle.transformer, first);
  return takeOver(first, { pixels: residualBlock(run, middle.second, first), size: image.size });
}

/** skip(x) + conv(silu(norm(conv(silu(norm(x))) + emb))) */
function residualBlock(run: Run, w: ResidualBlock, { pixels: x, size }: Image): Tensor {
  const { ops } = run;
  using hidden = convWithTime(run, w, x, size);
  using normed = ops.inner.groupNorm(hidden, w.out_norm, norm(run, EPS, 'silu'));
  if (!w.skip_connection) return ops.conv2d(normed, w.out_conv, { ...size, add: x });
  using shortcut = ops.linear(x, w.skip_connection);
  return ops.conv2d(normed, w.out_conv, { ...size, add: shortcut });
}

function convWithTime(run: Run, w: ResidualBlock, x: Tensor, size: ImageSize): Tensor {
  const { ops, emb } = run;
  using normed = ops.inner.groupNorm(x, w.in_norm, norm(run, EPS, 'silu'));
  using time = ops.linear(emb, w.emb); // [batch, channels]: one row for all pixels of an image
  return ops.conv2d(normed, w.in_conv, { ...size, add: time });
}

/** image += proj_out(blocks(proj_in(norm(image)))) */
function spatialTransformer({ ops, ...rest }: Run, w: SpatialTransformer, { pixels }: Image): void {
  const run = { ops, ...rest };
  using tokens = projectIn(run, w, pixels);
  for (const block of w.blocks) transformerBlock(run, block, tokens, w.heads);
  ops.linearAdd(pixels, tokens, w.proj_out);
}

function projectIn(run: Run, w: SpatialTransformer, pixels: Tensor): Tensor {
  using normed = run.ops.inner.groupNorm(pixels, w.norm, norm(run, TRANSFORMER_EPS, 'none'));
  return run.ops.linear(normed, w.proj_in);
}

/** @param x [batch · pixels, width], updated */
function transformerBlock(run: Run, w: TransformerBlock, x: Tensor, heads: number): void {
  const { ops, context } = run;
  const { inner } = ops;
  {
    using h = inner.layerNorm(x, w.norm1, EPS);
    addAttention(run, w.attn1, x, h, h, heads);
  }
  {
    using h = inner.layerNorm(x, w.norm2, EPS);
    addAttention(run, w.attn2, x, h, context, heads);
  }
  using h = inner.layerNorm(x, w.norm3, EPS);
  using value = inner.linear(h, w.ff_value);
  using gated = inner.linear(h, w.ff_gate, { activation: 'gelu_erf', multiply: value });
  ops.linearAdd(x, gated, w.ff_out);
}

/** x += to_out(attention(h, tokens)) */
function addAttention(
  { ops, batch }: Run,
  w: AttentionWeights,
  x: Tensor,
  h: Tensor,
  tokens: Tensor,
  heads: number,
): void {
  const { inner } = ops;
  using q = inner.linear(h, w.to_q);
  using k = inner.linear(tokens, w.to_k);
  using v = inner.linear(tokens, w.to_v);
  using mixed = ops.attention(q, k, v, { batch, heads, scale: 1 / Math.sqrt(x.cols / heads) });
  ops.linearAdd(x, mixed, w.to_out);
}

/** The image and the last skip side by side in the channels. */
function join(ops: Ops, { pixels, size }: Image, skips: Image[]): Image {
  const skip = skips.pop()!;
  const both = ops.joinColumns(pixels, skip.pixels);
  skip.pixels.dispose();
  return { pixels: both, size };
}

/** A convolution to half the size, padded on all sides. */
function halve(ops: Ops, { pixels, size }: Image, conv: Unet['conv_in']): Image {
  const smaller = {
    batch: size.batch,
    height: Math.ceil(size.height / 2),
    width: Math.ceil(size.width / 2),
  };
  return { pixels: ops.conv2d(pixels, conv, { ...size, stride: 2 }), size: smaller };
}

/** Nearest-neighbour to twice the size, then a convolution. */
function double(ops: Ops, { pixels, size }: Image, conv: Unet['conv_in']): Image {
  const larger = { batch: size.batch, height: 2 * size.height, width: 2 * size.width };
  return { pixels: ops.conv2d(pixels, conv, { ...size, upscale: 2 }), size: larger };
}
