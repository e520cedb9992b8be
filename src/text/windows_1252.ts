// Windows-1252, byte 0x80–0x9F; the rest equals Latin-1. Written out because TextDecoder('windows-1252') of Node 20
// and 22 decodes Latin-1 instead. Bytes without a character (81, 8D, 8F, 90, 9D) stay C1 controls.
const FROM_80 = '€\x81‚ƒ„…†‡ˆ‰Š‹Œ\x8dŽ\x8f\x90‘’“”•–—˜™š›œ\x9džŸ';

/** The character of a byte from 0x80 to 0x9F. */
export function windows1252OfC1(byte: number): string {
  return FROM_80[byte - 0x80]!;
}

/** Character → byte for 0x80–0xFF. C1 controls also stand for themselves, so Latin-1 text is covered too. */
export const WINDOWS_1252_BYTES: ReadonlyMap<string, number> = new Map([
  ...Array.from({ length: 128 }, (_, i) => [String.fromCharCode(0x80 + i), 0x80 + i] as const),
  ...Array.from(FROM_80, (char, i) => [char, 0x80 + i] as const),
]);
