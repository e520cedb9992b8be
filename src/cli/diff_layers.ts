/** What `diff` finds between the layers of two text encoders, on prompts. */
import { clipNetwork, t5Network, type TextNetwork } from '../encoders/text_network.js';
import { KotobaError } from '../errors.js';
import { checkPart, type ClipPart, type ModelFile, type Part, type T5Part } from '../formats/index.js';
import { layerDifferences, type LayerDifference } from '../pipeline/layer_difference.js';
import { TextEncoder } from '../pipeline/text_encoder.js';
import type { Device } from '../runtime/device.js';
import { Weights } from '../runtime/weights.js';
import type { TokenChunk, TokenizedPrompt } from '../text/index.js';

/** Short and long, plain and odd: what one prompt hides another shows. */
export const DEFAULT_PROMPTS = [
  'a cat',
  "a sparrow on a girl's hand, detailed background buildings, soft morning light",
  'a red cube to the left of a blue sphere, both on top of a green table, photographed from above at night',
  'The sign says "OPEN 24/7"; 3 people wait outside: two women, one man (with an umbrella), no dog.',
] as const;

export interface PromptDifference {
  readonly prompt: string;
  readonly tokens: number;
  readonly layers: readonly NamedLayerDifference[];
}

export interface NamedLayerDifference extends LayerDifference {
  /** the vocabulary's spelling of the worst token */
  readonly worstPiece: string;
}

export interface LayersOptions {
  readonly prompts: readonly string[];
  readonly config?: Readonly<Record<string, unknown>> | undefined;
  readonly t5Tokenizer?: string | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onLayer?: ((done: number, total: number) => void) | undefined;
}

/**
 * Both at FP32 whatever the files' types, so that only the weights make a difference. The layers that have run give their
 * memory back.
 * @throws KotobaError ERR_MODEL_CONFIG, ERR_TOKENIZER_*, ERR_ARGUMENT, ERR_CANCELLED
 */
export async function promptDifferences(
  device: Device,
  files: readonly [ModelFile, ModelFile],
  parts: readonly [Part, Part],
  options: LayersOptions,
): Promise<PromptDifference[]> {
  for (const part of parts) checkPart(part);
  const tokenized = await tokenize(device, files, parts, options);
  using a = await network(device, parts[0]);
  using b = await network(device, parts[1]);
  const total = options.prompts.length * (a.network.depth + 1);
  const found: PromptDifference[] = [];
  for (const [i, prompt] of options.prompts.entries()) {
    const { chunks } = tokenized[i]!;
    const tokens = { ids: Int32Array.from(chunks.flatMap(({ ids }) => [...ids])), batch: chunks.length };
    requireIds(tokens.ids, [a.network, b.network]);
    const onLayer = (layer: number): void => {
      for (const one of [a, b]) one.forget(layer);
      options.onLayer?.(i * (a.network.depth + 1) + layer + 1, total);
    };
    const layers = await layerDifferences(device, a.network, b.network, tokens, options.signal, onLayer);
    for (const one of [a, b]) one.weights.requireIntact();
    const named = layers.map((one) => ({ ...one, worstPiece: pieceAt(chunks, one.worstToken) }));
    found.push({ prompt, tokens: tokens.ids.length, layers: named });
  }
  return found;
}

/** @throws KotobaError ERR_TOKEN_ID for a vocabulary that is not the networks' */
function requireIds(ids: Int32Array, networks: readonly TextNetwork[]): void {
  const rows = Math.min(...networks.map(({ vocabulary }) => vocabulary));
  const bad = ids.find((id) => id < 0 || id >= rows);
  if (bad !== undefined)
    throw new KotobaError(
      'ERR_TOKEN_ID',
      `diff: expected ids from 0 to ${rows - 1}, got ${bad}: the tokenizer is not this encoder's`,
    );
}

function pieceAt(chunks: readonly TokenChunk[], token: number): string {
  const length = chunks[0]!.ids.length;
  return chunks[Math.floor(token / length)]!.pieces[token % length]!;
}

/** With the first file's vocabulary, else the second's: a GGUF has one, a safetensors file may not. */
async function tokenize(
  device: Device,
  files: readonly [ModelFile, ModelFile],
  parts: readonly [Part, Part],
  { prompts, config, t5Tokenizer, signal }: LayersOptions,
): Promise<TokenizedPrompt[]> {
  const [first, second] = files.map((file, i) => async () => {
    const { slot } = parts[i]!;
    await using encoder = await TextEncoder.load(file.path, {
      device,
      slot,
      config,
      t5Tokenizer,
      precision: 'fp32',
      residency: 'lean',
    });
    const all: TokenizedPrompt[] = [];
    for (const prompt of prompts) all.push(await encoder.tokenize(prompt, { signal }));
    return all;
  });
  return await first!().catch((error: unknown) => {
    if (error instanceof KotobaError && error.code === 'ERR_TOKENIZER_MISSING') return second!();
    throw error;
  });
}

interface Loaded extends Disposable {
  readonly network: TextNetwork;
  readonly weights: Weights;
  /** Layer i is block i − 1's output. */
  forget(layer: number): void;
}

async function network(device: Device, part: Part): Promise<Loaded> {
  const weights = new Weights(device, part.tensors, part.path);
  try {
    const made = await device.run(async () =>
      part.family === 'clip' ? clipNetwork(weights, part as ClipPart) : t5Network(weights, part as T5Part),
    );
    return {
      network: made,
      weights,
      forget: (layer) => layer > 0 && weights.forget(`${made.blocks}.${layer - 1}.`),
      [Symbol.dispose]: () => weights[Symbol.dispose](),
    };
  } catch (error) {
    weights[Symbol.dispose]();
    throw error;
  }
}
