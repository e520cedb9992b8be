/** The catalogue agrees with the corpus of published files, and names mean one thing only. */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { catalogue, catalogueEntry, cachedName, hubAccess, wantedFiles } from '../../src/hub/index.js';
import { SLOTS } from '../../src/formats/index.js';
import { golden } from '../support/golden.js';
import { HubServer } from './hub_server.js';

interface Published {
  readonly file: string;
  readonly source: string;
  readonly slot: readonly string[];
  readonly published_bytes: number | object | null;
}
const corpus = JSON.parse(readFileSync(golden('names/index.json'), 'utf8')) as Published[];

describe('the catalogue', () => {
  test('names are unique, and every one of them finds its entry', () => {
    const names = catalogue().map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
    for (const entry of catalogue()) {
      expect(catalogueEntry(entry.name)).toEqual(entry);
      expect(catalogueEntry(entry.name.toUpperCase())).toEqual(entry);
      expect(entry.files.length, entry.name).toBeGreaterThan(0);
      expect(entry.licence, entry.name).not.toBe('');
      expect(entry.slots.every((slot) => SLOTS.includes(slot))).toBe(true);
    }
  });

  test("a family's name alone means its first entry, other spellings of a variant the same one", () => {
    expect(catalogueEntry('flan-t5-xxl')?.name).toBe('flan-t5-xxl:fp16');
    expect(catalogueEntry('flan-t5-xxl:q4_k_m')?.name).toBe('flan-t5-xxl:q4_k');
    expect(catalogueEntry('flan-t5-xxl:q9')).toBeUndefined();
    expect(catalogueEntry('flan')).toBeUndefined();
  });

  test('published sizes are those of the corpus', () => {
    const sizes = new Map<string, unknown[]>();
    for (const { file, published_bytes } of corpus)
      sizes.set(file, [...(sizes.get(file) ?? []), published_bytes]);
    const published = catalogue().filter(({ bytesAre }) => bytesAre === 'published');
    expect(published.length).toBeGreaterThan(25);
    for (const { name, files, bytes } of published) {
      // SDXL's text_encoder_2/model.fp16.safetensors has the bytes of clip_g.safetensors, says the corpus
      const file = files[0]!.replace('text_encoder_2/model.fp16', 'clip_g');
      expect(sizes.get(file), name).toContain(bytes);
    }
  });

  test('every entry fills the slots that the corpus finds in its file', () => {
    // The corpus names denoisers by their family.
    const slotOf = (name: string): string =>
      /^diffusion_(sd15|sdxl)$/.test(name) ? 'unet' : /^diffusion_/.test(name) ? 'transformer' : name;
    const plain = (name: string): string => (name === 't5xxl' ? 't5' : slotOf(name));
    let known = 0;
    for (const { name, files, repository, slots } of catalogue()) {
      const found = corpus.filter(({ file, source }) => file === files[0] && source.includes(repository));
      for (const { slot } of found) expect([name, [...slots].sort()]).toEqual([name, slot.map(plain).sort()]);
      known += found.length;
    }
    expect(known).toBeGreaterThan(15);
  });

  test('the families that the article and the models need are all there', () => {
    const families = new Set(catalogue().map(({ name }) => name.split(':')[0]));
    expect([...families]).toEqual(
      expect.arrayContaining([
        ...['clip-l', 'clip-gmp', 'long-clip-gmp', 'clip-g', 't5-xxl', 'flan-t5-xxl', 't5-vocabulary'],
        ...['flux-dev', 'flux-schnell', 'flux-ae', 'sd3.5-large', 'sd3.5-medium', 'sdxl', 'sd1.5'],
      ]),
    );
    for (const kind of ['original', 'fused', 'te-only', 'q8_0', 'q4_k'])
      expect(catalogueEntry(`flan-t5-xxl:${kind}`)?.slots, kind).toEqual(['t5']);
  });
});

describe('names on the command line', () => {
  test('a repository with one model file needs no more; others ask which, and patterns take several', async () => {
    await using server = await HubServer.open();
    const access = hubAccess({ HF_ENDPOINT: server.endpoint, HF_HOME: '/nowhere' });
    server.put('a/one', 'model.gguf', Buffer.from('x'));
    server.put('a/one', 'README.md', Buffer.from('x'), false);
    server.put('a/two', 'q4/x-Q4_K.gguf', Buffer.from('xx'));
    server.put('a/two', 'q8/x-Q8_0.gguf', Buffer.from('xxx'));
    expect(await wantedFiles(access, 'a/one')).toEqual({ repository: 'a/one', files: ['model.gguf'] });
    await expect(wantedFiles(access, 'a/two')).rejects.toThrow(/has 2: say which[^]*a\/two:q4\/x-Q4_K\.gguf/);
    expect((await wantedFiles(access, 'a/two:q*/x-Q*')).files).toEqual(['q4/x-Q4_K.gguf', 'q8/x-Q8_0.gguf']);
    await expect(wantedFiles(access, 'a/two:*.bin')).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
    await expect(wantedFiles(access, 'a/three')).rejects.toMatchObject({ code: 'ERR_HUB' });
    const asked = server.asked.length;
    expect((await wantedFiles(access, 'a/two:any.file')).files).toEqual(['any.file']);
    expect((await wantedFiles(access, 'CLIP-L')).entry?.name).toBe('clip-l:fp16');
    expect(server.asked.length, 'what is clear is not asked').toBe(asked);
  });

  test('unknown ones come with those that are near', async () => {
    const access = hubAccess({ HF_ENDPOINT: 'http://127.0.0.1:9', HF_HOME: '/nowhere' });
    await expect(wantedFiles(access, 'flan-t5-xxl:q9')).rejects.toThrow(/flan-t5-xxl:q4_k/);
    await expect(wantedFiles(access, 'flan')).rejects.toThrow(/similar: flan-t5-xxl/);
    await expect(wantedFiles(access, 'nothing')).rejects.toThrow(/pull --list/);
    expect(cachedName('/nowhere', 'flan-t5-xxl:q4_k')).toBeUndefined();
  });
});
