/** What the fuzzer damages. */
export interface Sample {
  readonly name: string;
  /** What a user would open, relative to the sample's folder; '' is the folder. */
  readonly open: string;
  /** File name → bytes. */
  readonly files: ReadonlyMap<string, Buffer>;
  readonly kind: 'model' | 'tokenizer' | 'picture';
  /** also tried as this part of the model that ships, or as a model of its own */
  readonly pipeline?: 'denoiser' | 'vae' | 'whole';
  /** What the tensors do not tell. */
  readonly config?: Readonly<Record<string, unknown>>;
}
