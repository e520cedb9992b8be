import { describe, expect, test } from 'vitest';
import { clipTokenizer, type ClipFlavour } from '../../src/text/index.js';
import { collectWordsAsync } from '../../src/text/tokenizer.js';
import { golden } from '../support/golden.js';
import { randomText, readJson, seeded, tokenizerGolden } from './samples.js';

interface TokenIds {
  readonly prompts: readonly { text: string; clip_ids: number[]; clip_77: number[] }[];
}
interface OtherFlavours {
  readonly prompts: readonly {
    text: string;
    clip_ids_hf_slow_noftfy?: number[];
    clip_ids_hf_fast?: number[];
  }[];
}

const tokenIds = tokenizerGolden('token_ids.json');
const otherFlavours = tokenizerGolden('token_ids_other_flavours.json');
const skipped = tokenIds ? '' : ' (skipped: ../shared/golden/tokenizers is absent)';

describe.skipIf(!tokenIds)(`CLIP ids equal the originals' on 65 prompts${skipped}`, () => {
  const prompts = tokenIds ? readJson<TokenIds>(tokenIds).prompts : [];
  const others = new Map(
    otherFlavours ? readJson<OtherFlavours>(otherFlavours).prompts.map((p) => [p.text, p]) : [],
  );

  const cases = [
    ['openai', () => undefined],
    ['comfyui', (text: string) => others.get(text)?.clip_ids_hf_slow_noftfy],
    ['hf', (text: string) => others.get(text)?.clip_ids_hf_fast],
  ] as const satisfies readonly (readonly [ClipFlavour, (text: string) => number[] | undefined])[];

  test.each(cases)('flavour %s', (flavour, override) => {
    expect(prompts).toHaveLength(65);
    const tokenizer = clipTokenizer({ flavour });
    for (const { text, clip_ids } of prompts) {
      expect(tokenizer.encode(text).ids, JSON.stringify(text)).toEqual(override(text) ?? clip_ids);
    }
  });
});

describe('CLIP tokenizer', () => {
  const tokenizer = clipTokenizer();

  /** Pieces joined up to each one that ends a word. */
  function wordsOf(pieces: readonly string[]): string[] {
    const words = pieces
      .join('')
      .replaceAll(/(<\|(?:start|end)oftext\|>)(?!<\/w>)/g, '$1</w>')
      .split('</w>');
    return words.slice(0, -1).map((word) => tokenizer.readable(word));
  }

  test('ids of a prompt written out by hand from the published vocabulary', () => {
    const { ids, pieces } = tokenizer.encode('a photo of a cat');
    expect(ids).toEqual([320, 1125, 539, 320, 2368]);
    expect(pieces).toEqual(['a</w>', 'photo</w>', 'of</w>', 'a</w>', 'cat</w>']);
    expect(pieces.map((piece) => tokenizer.readable(piece))).toEqual(['a', 'photo', 'of', 'a', 'cat']);
  });

  test('vocabulary: 49408 pieces, byte letters first, special tokens last', () => {
    expect(tokenizer.vocabularySize).toBe(49408);
    expect([tokenizer.piece(0), tokenizer.piece(256), tokenizer.piece(267)]).toEqual(['!', '!</w>', ',</w>']);
    expect(tokenizer.piece(tokenizer.bosId)).toBe('<|startoftext|>');
    expect(tokenizer.piece(tokenizer.eosId)).toBe('<|endoftext|>');
    expect(new Set(Array.from({ length: 49408 }, (_, id) => tokenizer.piece(id))).size).toBe(49408);
    expect(() => tokenizer.piece(49408)).toThrow(expect.objectContaining({ code: 'ERR_TOKEN_ID' }));
  });

  test('bytes that are no text on their own are readable as numbers', () => {
    const { pieces } = tokenizer.encode('\u{1f9ff}');
    expect(pieces.map((piece) => tokenizer.readable(piece)).join('')).toMatch(/^(<0x[0-9A-F]{2}>)+$/);
  });

  test.each(['openai', 'comfyui', 'hf'] as const)(
    'any text gives ids in range, the same each time (%s)',
    (flavour) => {
      const flavoured = clipTokenizer({ flavour });
      const random = seeded(11);
      for (let i = 0; i < 300; i++) {
        const text = randomText(random, 40);
        const { ids, pieces } = flavoured.encode(text);
        expect(
          ids.every((id) => Number.isInteger(id) && id >= 0 && id < 49408),
          JSON.stringify(text),
        ).toBe(true);
        expect(pieces.map((_, n) => flavoured.piece(ids[n]!))).toEqual(pieces);
        expect(flavoured.encode(text).ids).toEqual(ids);
      }
    },
  );

  test('a lone surrogate reads as U+FFFD', () => {
    expect(tokenizer.encode('a \ud83d cat').ids).toEqual(tokenizer.encode('a \ufffd cat').ids);
    const comfyui = clipTokenizer({ flavour: 'comfyui' }); // which drops U+FFFD
    expect(comfyui.encode('a \ud83d cat').ids).toEqual(comfyui.encode('a cat').ids);
  });

  test('400 random prompts split into the words of the original pattern', () => {
    const { cases } = readJson<{ cases: { text: string; words: string[] | null }[] }>(
      golden('text/reference_cases.json'),
    );
    for (const { text, words } of cases) {
      if (words) expect(wordsOf(tokenizer.encode(text).pieces), JSON.stringify(text)).toEqual(words);
    }
  });

  test('an empty prompt has no ids', () => {
    for (const text of ['', '  ', '\n\t', '\0']) expect(tokenizer.encode(text).ids).toEqual([]);
  });

  // Bounds are loose (shared, noisy machines); a quadratic step would take minutes.
  test.each([
    ['words', 'the quick brown fox jumps, '.repeat(3704)],
    ['one word', 'a'.repeat(100_000)],
    ['spaces', ' '.repeat(100_000)],
    ['nested references', `&${'amp;'.repeat(25_000)}`],
    ['punctuation', '('.repeat(100_000)],
    ['garbled', 'Ã¶'.repeat(50_000)],
  ])('100,000 characters: %s', { timeout: 20_000 }, (_, text) => {
    const start = process.cpuUsage();
    tokenizer.encode(text);
    expect(process.cpuUsage(start).user / 1e6).toBeLessThan(5);
  });

  test('encodeAsync gives the same ids, lets others run and can be cancelled', async () => {
    const text = Array.from({ length: 20_000 }, (_, i) => `word${i}`).join(' ');
    let turns = 0;
    let running = true;
    const takeTurn = () => void (turns++, running && setImmediate(takeTurn));
    setImmediate(takeTurn);
    const encoded = await tokenizer.encodeAsync(text, { sliceMs: 0 }); // however fast the machine is
    running = false;
    expect(encoded.ids).toEqual(tokenizer.encode(text).ids);
    expect(turns).toBeGreaterThan(3);
    await expect(tokenizer.encodeAsync(text, { signal: AbortSignal.abort() })).rejects.toMatchObject({
      code: 'ERR_CANCELLED',
    });
  });

  test('cancelling takes effect between words', async () => {
    const controller = new AbortController();
    function* endless() {
      for (;;) yield { ids: [1], pieces: ['!'] };
    }
    setTimeout(() => controller.abort(), 20);
    await expect(collectWordsAsync(endless(), { signal: controller.signal })).rejects.toMatchObject({
      code: 'ERR_CANCELLED',
    });
  });
});
