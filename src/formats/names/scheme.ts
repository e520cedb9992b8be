/** The form of a naming table: for each canonical tensor, the names a scheme may store it under. */

/** One way a file may store a canonical tensor; the first whose names exist counts. */
export interface StoredAs {
  /** relative to the network's prefix */
  readonly file: string;
  /** 0, 1, 2: the q, k or v third of fused rows */
  readonly third?: 0 | 1 | 2;
  /** stored [in, out] */
  readonly transposed?: true;
  /** the first `rows` rows are of `file`, all later ones of this tensor, at their own place */
  readonly later?: { readonly file: string; readonly rows: number };
  /** the rows of these tensors follow: k and v where `file` is q */
  readonly then?: readonly string[];
  /** the second half of the rows comes first */
  readonly swapped?: true;
}

export interface NameEntry {
  readonly canonical: string;
  readonly storedAs: readonly StoredAs[];
  readonly optional?: true;
}

export interface EncoderScheme {
  readonly family: 'clip' | 't5';
  /** for people */
  readonly title: string;
  /** any of these names, after a prefix, gives the network away */
  readonly anchors: readonly string[];
  /** false where that prefix means something else (a vision tower) */
  accepts(prefix: string, has: (name: string) => boolean): boolean;
  /** what stands before a layer's number */
  readonly layers: string;
  entries(layers: number): NameEntry[];
}
