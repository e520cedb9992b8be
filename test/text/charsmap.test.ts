import { describe, expect, test } from 'vitest';
import { parseCharsmap } from '../../src/text/charsmap.js';
import { sentencePieceNormalizer } from '../../src/text/sentencepiece_normalizer.js';

const bytes = (text: string) => new TextEncoder().encode(text);

/**
 * A double-array trie with room to spare: node n's children sit in a block of 256 units of its own (block n + 1), so
 * no two clash. Written from the format's description, independently of the reader.
 */
function buildCharsmap(rules: Readonly<Record<string, string>>): Uint8Array {
  interface Node {
    readonly children: Map<number, Node>;
    text?: number;
    readonly block: number;
  }
  let blocks = 0;
  const newNode = (): Node => ({ children: new Map(), block: ++blocks });
  const root = newNode();
  let texts = '';
  for (const [from, to] of Object.entries(rules)) {
    let node = root;
    for (const byte of bytes(from)) {
      if (!node.children.has(byte)) node.children.set(byte, newNode());
      node = node.children.get(byte)!;
    }
    node.text = bytes(texts).length;
    texts += `${to}\0`;
  }
  const units = new Uint32Array(256 * (blocks + 1));
  const place = (node: Node, index: number, label: number) => {
    const offset = index ^ (node.block * 256); // a jump: index of child = index ^ offset ^ byte
    units[index] = ((offset << 10) | (node.text !== undefined ? 1 << 8 : 0) | label) >>> 0;
    if (node.text !== undefined) units[node.block * 256] = (0x80000000 | node.text) >>> 0;
    for (const [byte, child] of node.children) place(child, (node.block * 256) ^ byte, byte);
  };
  place(root, 0, 0);
  const trie = new Uint8Array(units.buffer);
  const out = new Uint8Array(4 + trie.length + bytes(texts).length);
  new DataView(out.buffer).setUint32(0, trie.length, true);
  out.set(trie, 4);
  out.set(bytes(texts), 4 + trie.length);
  return out;
}

const table = buildCharsmap({
  Ａ: 'A',
  ﬁ: 'fi',
  '\t': ' ',
  '\u3000': ' ',
  e: 'E',
  'e\u0301': 'é',
  '\u200b': '',
});

describe('replacement rules', () => {
  const map = parseCharsmap(table, 'test');

  test.each([
    ['Ａ', 3, 'A'],
    ['e', 1, 'E'],
    ['e\u0301x', 3, 'é'],
    ['e\u0300', 1, 'E'],
    ['\u200b', 3, ''],
  ])('the longest rule at the start of %j takes %d bytes and gives %j', (text, length, replacement) => {
    const rule = map(bytes(text), 0)!;
    expect([rule.length, new TextDecoder().decode(rule.text)]).toEqual([length, replacement]);
  });

  test('no rule', () => expect(map(bytes('z'), 0)).toBeNull());

  test('every truncation is ERR_TOKENIZER_FORMAT', () => {
    for (let n = 0; n < table.length; n++) {
      const cut = table.subarray(0, n);
      const endsWithText = n >= table.length - 20 && cut.at(-1) === 0; // texts cut between two: found when met
      const use = () => parseCharsmap(cut, 'cut')(bytes('\u200b'), 0);
      if (!endsWithText)
        expect(use, `${n} bytes`).toThrow(expect.objectContaining({ code: 'ERR_TOKENIZER_FORMAT' }));
    }
  });

  test('links out of the table are ERR_TOKENIZER_FORMAT when met', () => {
    const broken = table.slice();
    new DataView(broken.buffer).setUint32(4, 0x7ffffc00, true);
    expect(() => parseCharsmap(broken, 'broken')(bytes('A'), 0)).toThrow(
      expect.objectContaining({ code: 'ERR_TOKENIZER_FORMAT' }),
    );
  });
});

describe('normaliser', () => {
  const spec = { charsmap: table, addDummyPrefix: true, removeExtraWhitespaces: true };

  test.each([
    ['  Ａ\t\u3000b  ', '▁A▁b'],
    ['', ''],
    [' \t ', ''],
    ['\u200b', ''],
    ['\u200b ﬁ', '▁fi'],
    ['▁x▁', '▁▁x'],
    ['\ufeffx', '▁\ufeffx'],
    ['\ud800x', '▁\ufffdx'],
  ])('%j → %j', (text, expected) => expect(sentencePieceNormalizer(spec, 'test')(text)).toBe(expected));

  test('spaces kept, no prefix', () => {
    const keep = { ...spec, addDummyPrefix: false, removeExtraWhitespaces: false };
    expect(sentencePieceNormalizer(keep, 'test')(' a  b ')).toBe('▁a▁▁b▁');
  });

  test('user-defined pieces pass untouched', () => {
    expect(sentencePieceNormalizer(spec, 'test', ['ＡＡ'])('ＡＡＡ')).toBe('▁ＡＡA');
  });
});
