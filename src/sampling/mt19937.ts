/** The Mersenne Twister MT19937 (Matsumoto and Nishimura, 1998): 32 random bits at a time. */

const kSize = 624;
const kMiddle = 397;

export class Mt19937 {
  readonly #state = new Uint32Array(kSize);
  #next = kSize;

  /** @param seed 32 bits */
  constructor(seed: number) {
    const state = this.#state;
    state[0] = seed;
    for (let i = 1; i < kSize; i++) {
      const last = state[i - 1]!;
      state[i] = Math.imul(1812433253, last ^ (last >>> 30)) + i;
    }
  }

  /** 0 … 2^32 − 1 */
  next(): number {
    if (this.#next === kSize) this.#refill();
    let y = this.#state[this.#next++]!;
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  #refill(): void {
    const state = this.#state;
    for (let i = 0; i < kSize; i++) {
      const y = (state[i]! & 0x80000000) | (state[(i + 1) % kSize]! & 0x7fffffff);
      state[i] = state[(i + kMiddle) % kSize]! ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
    }
    this.#next = 0;
  }
}
