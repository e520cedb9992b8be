/** How far the states of two text encoders are apart, layer by layer, on the same tokens. */
import type { TextNetwork, TokenBatch } from '../encoders/text_network.js';
import { KotobaError } from '../errors.js';
import type { Device } from '../runtime/device.js';
import { Ops } from '../runtime/ops.js';

/** The largest number of F16: what a state beyond it becomes infinite in. */
export const F16_MOST = 65504;

export interface LayerDifference {
  /** 0 is the embedding, i the output of block i */
  readonly layer: number;
  /** ‖a − b‖ / ‖a‖ */
  readonly relativeL2: number;
  /** cosine of the token whose states are least alike */
  readonly worstCosine: number;
  /** where it stands */
  readonly worstToken: number;
  /** dB; Infinity for equal states */
  readonly snr: number;
  /** the largest magnitudes; Infinity or NaN where the states are no longer finite */
  readonly largest: readonly [a: number, b: number];
}

/**
 * Runs both encoders at once, one layer after the other, so that no more than two states are held.
 * @param tokens the same for both
 * @param onLayer is called when a layer has been compared: its weights are not read again
 * @throws KotobaError ERR_ARGUMENT for encoders of different widths or depths; ERR_CANCELLED
 */
export async function layerDifferences(
  device: Device,
  a: TextNetwork,
  b: TextNetwork,
  tokens: TokenBatch,
  signal?: AbortSignal,
  onLayer?: (layer: number) => void,
): Promise<LayerDifference[]> {
  if (a.width !== b.width || a.depth !== b.depth)
    throw new KotobaError(
      'ERR_ARGUMENT',
      `diff: expected encoders of one shape, got ${a.depth} layers of width ${a.width} and ${b.depth} of ${b.width}`,
    );
  return await device.run(async () => {
    const ops = new Ops(device, 'fp32');
    using left = a.place(device, tokens);
    using right = b.place(device, tokens);
    const [first, second] = [left.layers(ops), right.layers(ops)];
    const differences: LayerDifference[] = [];
    for (;;) {
      const [x, y] = [first.next(), second.next()];
      if (x.done || y.done) return differences;
      const states = await Promise.all([x.value.hidden.read(), y.value.hidden.read()]);
      differences.push({ layer: x.value.layer, ...compare(states[0], states[1], a.width) });
      onLayer?.(x.value.layer);
    }
  }, signal);
}

function compare(a: Float32Array, b: Float32Array, width: number): Omit<LayerDifference, 'layer'> {
  let [signal, noise] = [0, 0];
  let [worstCosine, worstToken] = [Infinity, 0];
  const largest: [number, number] = [0, 0];
  for (let token = 0; token * width < a.length; token++) {
    let [aa, bb, ab, dd] = [0, 0, 0, 0];
    for (let i = token * width; i < (token + 1) * width; i++) {
      const [x, y] = [a[i]!, b[i]!];
      aa += x * x;
      bb += y * y;
      ab += x * y;
      dd += (x - y) * (x - y);
      largest[0] = larger(largest[0], Math.abs(x));
      largest[1] = larger(largest[1], Math.abs(y));
    }
    signal += aa;
    noise += dd;
    const cosine = dd === 0 ? 1 : ab / Math.sqrt(aa * bb);
    if (!(cosine >= worstCosine) && !Number.isNaN(worstCosine)) [worstCosine, worstToken] = [cosine, token];
  }
  return {
    relativeL2: noise === 0 ? 0 : Math.sqrt(noise / signal),
    worstCosine,
    worstToken,
    snr: noise === 0 ? Infinity : 10 * Math.log10(signal / noise),
    largest,
  };
}

/** As Math.max: a NaN stays. Plain comparisons, for it runs once for every number of a state. */
function larger(most: number, value: number): number {
  return value <= most || most !== most ? most : value;
}
