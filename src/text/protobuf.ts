// The little of the protobuf wire format that a SentencePiece model uses. https://protobuf.dev/programming-guides/encoding/

export type ProtobufValue = number | Uint8Array;

export interface ProtobufField {
  readonly number: number;
  /** varint → number (wrapped to 32 bits), 32-bit → float, length-delimited → bytes; 64-bit fields → their bytes. */
  readonly value: ProtobufValue;
}

/** @throws Error with the problem and its offset; callers name the file */
export function* protobufFields(bytes: Uint8Array): Generator<ProtobufField> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let shift = 0; shift < 70; shift += 7) {
      const byte = bytes[at++];
      if (byte === undefined) throw new Error(`a number is cut off at byte ${bytes.length}`);
      if (shift < 32) value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    throw new Error(`a number of more than ten bytes at byte ${at}`);
  };
  const take = (length: number): Uint8Array => {
    if (length < 0 || at + length > bytes.length) {
      throw new Error(
        `a field of ${length >>> 0} bytes at byte ${at} passes the end (${bytes.length} bytes)`,
      );
    }
    at += length;
    return bytes.subarray(at - length, at);
  };
  while (at < bytes.length) {
    const tag = varint();
    const number = tag >>> 3;
    if (number === 0) throw new Error(`a field numbered 0 at byte ${at}`);
    const wire = tag & 7;
    if (wire === 0) yield { number, value: varint() };
    else if (wire === 1) yield { number, value: take(8) };
    else if (wire === 2) yield { number, value: take(varint()) };
    else if (wire === 5) {
      take(4);
      yield { number, value: view.getFloat32(at - 4, true) };
    } else throw new Error(`an unknown wire type ${wire} at byte ${at}`);
  }
}
