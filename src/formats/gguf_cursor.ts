/** Reads a GGUF header front to back through a window: its length is only known once it is parsed. */
import { isUtf8 } from 'node:buffer';
import { KotobaError } from '../errors.js';
import type { ByteSource } from './byte_source.js';

const kWindowBytes = 1 << 20;
/** No header we know passes 20 MB; far more is a damaged file, and would only fill the memory. */
const kMaxHeaderBytes = 256 << 20;
const kTwoTo32 = 2 ** 32;

export class GgufCursor {
  readonly source: ByteSource;
  private window: Buffer = Buffer.alloc(0);
  private windowStart = 0;
  private at = 0;

  constructor(source: ByteSource) {
    this.source = source;
  }

  get position(): number {
    return this.windowStart + this.at;
  }

  get remaining(): number {
    return this.source.size - this.position;
  }

  u8 = (): number => this.window.readUInt8(this.take(1));
  i8 = (): number => this.window.readInt8(this.take(1));
  u16 = (): number => this.window.readUInt16LE(this.take(2));
  i16 = (): number => this.window.readInt16LE(this.take(2));
  u32 = (): number => this.window.readUInt32LE(this.take(4));
  i32 = (): number => this.window.readInt32LE(this.take(4));
  f32 = (): number => this.window.readFloatLE(this.take(4));
  f64 = (): number => this.window.readDoubleLE(this.take(8));
  u64 = (): bigint => this.window.readBigUInt64LE(this.take(8));
  i64 = (): bigint => this.window.readBigInt64LE(this.take(8));

  /** A u64 that counts bytes or entries; past 2^53 it is no longer exact, which every bound then refuses. */
  count(): number {
    const at = this.take(8);
    return this.window.readUInt32LE(at) + this.window.readUInt32LE(at + 4) * kTwoTo32;
  }

  /** @param what names the string in an error */
  string(what: string): string {
    const length = this.count();
    if (length > this.remaining) this.truncated(`${what} of ${length} bytes`);
    const start = this.take(length);
    const text = this.window.toString('utf8', start, start + length);
    // Decoding marks wrong bytes with U+FFFD, so only such strings need the exact check.
    if (text.includes('\ufffd') && !isUtf8(this.window.subarray(start, start + length)))
      this.invalid(`${what} is not valid UTF-8`);
    return text;
  }

  /** The next `length` bytes, copied. */
  bytes(length: number): Uint8Array<ArrayBuffer> {
    const start = this.take(length);
    const copy = new Uint8Array(length);
    copy.set(this.window.subarray(start, start + length));
    return copy;
  }

  truncated(what: string): never {
    const { path, size } = this.source;
    throw new KotobaError(
      'ERR_GGUF_TRUNCATED',
      `${path}: truncated: ${what} does not fit in the file's ${size} bytes`,
    );
  }

  invalid(what: string): never {
    throw new KotobaError('ERR_GGUF_HEADER', `${this.source.path}: not a valid GGUF file: ${what}`);
  }

  /** Makes `length` bytes readable and steps over them; returns where they begin in the window. */
  private take(length: number): number {
    if (this.at + length > this.window.length) this.refill(length);
    const start = this.at;
    this.at += length;
    return start;
  }

  private refill(length: number): void {
    const position = this.position;
    if (length > this.remaining) this.truncated(`the header, at byte ${position},`);
    if (position + length > kMaxHeaderBytes) this.invalid(`the header passes ${kMaxHeaderBytes} bytes`);
    const size = Math.min(Math.max(length, kWindowBytes), this.source.size - position);
    this.window = this.source.read(position, size);
    this.windowStart = position;
    this.at = 0;
  }
}
