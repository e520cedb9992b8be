/**
 * Repaints a part of a picture with any denoiser: outside the mask the latents are those of the picture, as noisy as the
 * rest before every evaluation, and as they are after it (RePaint, arXiv:2201.09865, without its resampling; so ComfyUI
 * does it too).
 */
import { Ops } from '../../runtime/ops.js';
import type { Tensor } from '../../runtime/tensor.js';
import { PARAMETERIZATIONS, type Denoiser, type Prediction } from '../../sampling/index.js';

export interface MaskParts {
  /** of x's shape: 1 is painted anew, 0 kept */
  readonly mask: Tensor;
  /** of the picture */
  readonly latent: Tensor;
  /** N(0, 1), the noise that x starts from */
  readonly noise: Tensor;
  readonly prediction: Prediction;
}

export class Masked implements Disposable {
  readonly #ops: Ops;
  readonly #prediction: Prediction;
  readonly #mask: Tensor;
  readonly #identity: Tensor;
  /** latent and noise where they are kept, else 0 */
  readonly #latent: Tensor;
  readonly #noise: Tensor;

  /** The tensors given are borrowed; the mask must outlive this. */
  constructor({ device }: Ops, { mask, latent, noise, prediction }: MaskParts) {
    this.#ops = new Ops(device, 'fp32');
    this.#prediction = prediction;
    this.#mask = mask;
    this.#identity = device.from(identity(mask.cols), [mask.cols, mask.cols]);
    this.#latent = this.#kept(latent);
    this.#noise = this.#kept(noise);
  }

  around(denoise: Denoiser<Tensor>): Denoiser<Tensor> {
    const { noised } = PARAMETERIZATIONS[this.#prediction];
    return (x, sigma) => {
      const [ofNoise, ofLatent] = noised(sigma);
      using painted = this.#times(x);
      using seen = this.#ops.combine([
        [1, painted],
        [ofNoise, this.#noise],
        [ofLatent, this.#latent],
      ]);
      using denoised = denoise(seen, sigma);
      using inside = this.#times(denoised);
      return this.#ops.combine([
        [1, inside],
        [1, this.#latent],
      ]);
    };
  }

  [Symbol.dispose](): void {
    for (const tensor of [this.#identity, this.#latent, this.#noise]) tensor.dispose();
  }

  /** x where it is painted anew, else 0. There is no op for a product; the identity's epilogue is one. */
  #times(x: Tensor): Tensor {
    return this.#ops.linear(x, { weight: this.#identity }, { multiply: this.#mask });
  }

  #kept(x: Tensor): Tensor {
    using painted = this.#times(x);
    return this.#ops.combine([
      [1, x],
      [-1, painted],
    ]);
  }
}

function identity(size: number): Float32Array {
  return Float32Array.from({ length: size * size }, (_, i) => (i % (size + 1) === 0 ? 1 : 0));
}
