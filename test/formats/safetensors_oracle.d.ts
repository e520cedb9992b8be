/** The npm package `safetensors` ships no types. */
declare module 'safetensors/dist/safetensors.es.js' {
  export class SafeTensor {
    constructor(bytes: Uint8Array);
    readonly metadata: Map<string, { dtype: string; shape: number[]; data_offsets: [number, number] }>;
  }
}
