import { describe, expect, test } from 'vitest';
import { cleanPrompt } from '../../src/text/index.js';
import { fixText } from '../../src/text/fix_text.js';
import { htmlEntities, htmlEntitiesWithoutSemicolon } from '../../src/text/html_entities.js';
import { htmlUnescape, htmlUnescapeStrict } from '../../src/text/html_unescape.js';
import { repairMojibake } from '../../src/text/mojibake.js';
import { golden } from '../support/golden.js';
import { readJson } from './samples.js';
import { collapsePythonSpaces, pythonFloat, pythonStrip } from '../../src/text/python_text.js';

describe('fixText equals ftfy 6.3.1', () => {
  test.each([
    ['curly quotes', '“smart” ‘quotes’ ‛x‟ don’t', "\"smart\" 'quotes' 'x\" don't"],
    ['ligatures', 'ﬁ ﬂ ﬃ ﬄ ﬀ ﬆ ŉ ǆ Ĳ', "fi fl ffi ffl ff st 'n dž IJ"],
    ['widths', 'ｆｕｌｌ　ＡＢ１２ ｶﾀｶﾅ', 'full AB12 カタカナ'],
    ['line breaks', 'a\r\nb\rc\u2028d\u2029e', 'a\nb\nc\nd\ne'],
    ['controls', 'a\0\x01\x7f\ufeff\u206a\ufffcb', 'ab'],
    ['C1 controls are Windows-1252', 'a\x92b \x80', "a'b €"],
    ['terminal escapes', '\x1b[31mred\x1b[0m', 'red'],
    ['composition', 'e\u0301', 'é'],
    ['references', '&lt;b&gt; &#39;x&#39; &EACUTE; &amp &nosuch;', "<b> 'x' É &amp &nosuch;"],
    ['references of references', '&amp;amp;', '&'],
    ['no references in markup, nor after it', '<b> &amp;\n&amp;', '<b> &amp;\n&amp;'],
    ['joiners and zero width spaces stay', 'a\u200bb\u200d', 'a\u200bb\u200d'],
  ])('%s', (_, text, fixed) => expect(fixText(text)).toBe(fixed));
});

describe('repairMojibake', () => {
  const original = [
    'schön café',
    'Straße, Größe',
    'Łódź żółw',
    'Příliš žluťoučký',
    'русский',
    'ελληνικά',
    '日本語',
    '🐱 l’été…',
    '£5 20°C',
    'x² ½',
  ];
  const garble = (text: string) => Buffer.from(text, 'utf8').toString('latin1');

  test.each(original)('UTF-8 read as Latin-1: %s', (text) => expect(repairMojibake(garble(text))).toBe(text));
  test.each(original)('and twice: %s', (text) => expect(fixText(garble(garble(text)))).toBe(fixText(text)));

  test('as Windows-1252, with text of another script around it', () => {
    expect(repairMojibake('日本 â€œcafÃ©â€\x9d â‚¬10')).toBe('日本 “café” €10');
  });

  test.each([
    '“CAFÉ” – “café”—and left…',
    '„Spaß“ am Strand',
    'Ångström™ naïve® café©',
    'São Paulo à noite, IRMÃ, MAÇÃ',
    'El niño ¿qué? ¡sí! 5 €',
    '«Été à la plage», l’œuvre',
    'ÀÉÎÕÜ àéîõü Ñandú',
    'naïve “É” “Ö” ‘Ü’ É™',
    'Příliš žluťoučký kůň',
    '© 2024 ® ™ • ° º ª x²',
    'plain ascii',
  ])('leaves real text alone: %s', (text) => expect(repairMojibake(text)).toBe(text));
});

describe('character references', () => {
  test('the table has the standard’s 2125 names, 106 of them also without semicolon', () => {
    expect(htmlEntities().size).toBe(2125);
    expect(htmlEntitiesWithoutSemicolon().size).toBe(106);
    expect([...htmlEntitiesWithoutSemicolon()].every((name) => htmlEntities().has(name))).toBe(true);
    expect([htmlEntities().get('Aopf'), htmlEntities().get('acE'), htmlEntities().get('NewLine')]).toEqual([
      '𝔸',
      '∾̳',
      '\n',
    ]);
  });

  test.each([
    ['&amp;&lt;&#65;&#x1F600;', '&<A😀'],
    ['&ampx &notit; &notin;', '&x ¬it; ∉'],
    ['&#128; &#0; &#xD800; &#x110000; &#1;.', '€ \ufffd \ufffd \ufffd .'],
    ['& &; &# &#; &#x; &x', '& &; &# &#; &#x; &x'],
    [`&${'a'.repeat(50)};`, `&${'a'.repeat(50)};`],
    ['&#99999999999999999999;', '\ufffd'],
  ])('html.unescape: %s', (text, expected) => expect(htmlUnescape(text)).toBe(expected));

  test.each([
    ['&amp &ampx; &amp;', '&amp &ampx; &'],
    ['&NTILDE; &ntilde; &nTILDE; &AMP;', 'Ñ ñ &nTILDE; &'],
    ['&#39; &#x2019;', "' ’"],
  ])('ftfy: %s', (text, expected) => expect(htmlUnescapeStrict(text)).toBe(expected));
});

describe('cleanPrompt', () => {
  test.each([
    ['openai', '  A  “Photo”\tof\u3000CATS&amp;DOGS ', 'a "photo" of cats&dogs'],
    ['comfyui', ' A\0 “Photo”\u200b of 猫が ', 'a “photo” of 猫 が'],
    ['hf', 'A  “Photo”\t ΟΔΟΣ', 'a “photo” οδοσ'],
    ['openai', 'ΟΔΟΣ', 'οδος'],
    ['openai', '<b> &amp;lt; &amp;amp;lt;', '<b> < &lt;'],
  ] as const)('%s: %j', (flavour, text, cleaned) => expect(cleanPrompt(text, flavour)).toBe(cleaned));
});

describe('Python’s rules of text', () => {
  test('white space', () => {
    expect(pythonStrip('\x1c\x85\u3000 a \u2028')).toBe('a');
    expect(pythonStrip('\ufeffa')).toBe('\ufeffa');
    expect(collapsePythonSpaces('a\x1f\t b')).toBe('a b');
  });

  test.each([
    ['1.2', 1.2], [' +.5 ', 0.5], ['5.', 5], ['-1e3', -1000], ['1_000', 1000], ['１.５', 1.5], ['٣', 3], ['𝟗', 9],
    ['inf', Infinity], ['-Infinity', -Infinity], ['nan', NaN],
    ['', null], ['.', null], ['1.2.3', null], ['1__0', null], ['_1', null], ['0x10', null], ['1,5', null],
  ])('float(%j)', (text, expected) => expect(pythonFloat(text)).toBe(expected)); // prettier-ignore
});

test('400 random prompts: the cleaned text of openai/CLIP with ftfy', () => {
  const { cases } = readJson<{ cases: { text: string; cleaned: string | null }[] }>(
    golden('text/reference_cases.json'),
  );
  const checked = cases.filter(({ cleaned }) => cleaned !== null);
  expect(checked.length).toBeGreaterThan(250);
  for (const { text, cleaned } of checked)
    expect(cleanPrompt(text, 'openai'), JSON.stringify(text)).toBe(cleaned);
});
