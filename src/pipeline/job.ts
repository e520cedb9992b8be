/** Work under way: await it for the result, iterate `progress()` for how far it is. */
export class Job<Result, Progress> implements PromiseLike<Result> {
  readonly result: Promise<Result>;
  #latest: Progress | undefined;
  #finished = false;
  #wake: (() => void)[] = [];

  constructor(start: (report: (progress: Progress) => void) => Promise<Result>) {
    const report = (progress: Progress) => {
      this.#latest = progress;
      this.#notify();
    };
    this.result = start(report).finally(() => {
      this.#finished = true;
      this.#notify();
    });
  }

  /**
   * The latest state whenever it has changed; a slow consumer skips states. Ends when the job does, failed or not:
   * a failure is reported by awaiting the job.
   */
  async *progress(): AsyncGenerator<Progress, void> {
    this.result.catch(() => undefined); // the failure belongs to whoever awaits the result
    let seen: Progress | undefined;
    for (;;) {
      if (this.#latest && this.#latest !== seen) {
        seen = this.#latest;
        yield seen;
      } else if (this.#finished) return;
      else await new Promise<void>((resolve) => this.#wake.push(resolve));
    }
  }

  then<A = Result, B = never>(
    onFulfilled?: ((value: Result) => A | PromiseLike<A>) | null,
    onRejected?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    return this.result.then(onFulfilled, onRejected);
  }

  #notify(): void {
    for (const resolve of this.#wake.splice(0)) resolve();
  }
}
