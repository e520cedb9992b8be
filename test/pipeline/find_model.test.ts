/** Model files by name, in the folders of ComfyUI and Forge. */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { findModel, modelDirs } from '../../src/pipeline/find_model.js';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'kotoba-models-'));
});
afterEach(() => rmSync(root, { recursive: true }));

function put(...path: string[]): string {
  const file = join(root, ...path);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, path.join('/'));
  return file;
}

describe('layouts', () => {
  test.each([
    ['ComfyUI', ['models', 'clip']],
    ['ComfyUI', ['models', 'text_encoders']],
    ['ComfyUI', ['models', 'unet']],
    ['ComfyUI', ['models', 'diffusion_models']],
    ['ComfyUI', ['models', 'checkpoints']],
    ['ComfyUI', ['models', 'vae']],
    ["ComfyUI's models folder itself", ['text_encoders']],
    ['Forge', ['models', 'text_encoder']],
    ['Forge', ['models', 'VAE']],
    ['Forge', ['models', 'Stable-diffusion']],
    ['another spelling', ['Models', 'TextEncoders']],
    ['a plain folder', []],
    ['a sub-folder, as ComfyUI lists them', ['models', 'text_encoders', 'flux', 't5']],
  ])('%s: %j', (_, folders) => {
    const file = put(...folders, 'model-a.safetensors');
    expect(findModel('model-a.safetensors', [root])).toBe(file);
    expect(findModel('model-a', [root]), 'without extension').toBe(file);
  });

  test('a name with a sub-folder, and a folder of shards', () => {
    const file = put('clip', 'flux', 'a.gguf');
    expect(findModel('flux/a.gguf', [root])).toBe(file);
    const shard = put('text_encoders', 'flan-t5-xxl', 'model-00001-of-00005.safetensors');
    expect(findModel('flan-t5-xxl', [root])).toBe(dirname(shard));
  });

  test('other folders are not searched', () => {
    put('models', 'loras', 'a.safetensors');
    expect(() => findModel('a', [root])).toThrow(expect.objectContaining({ code: 'ERR_FILE_NOT_FOUND' }));
  });
});

describe('what is meant', () => {
  test('two files of one name are both said', () => {
    const [first, second] = [put('clip', 'a.safetensors'), put('text_encoders', 'a.safetensors')];
    expect(() => findModel('a.safetensors', [root])).toThrow(
      expect.objectContaining({
        code: 'ERR_ARGUMENT',
        message: expect.stringContaining(`${first} and ${second}`) as string,
      }),
    );
  });

  test('two extensions of one name too; the whole name decides', () => {
    put('clip', 'a.safetensors');
    const gguf = put('clip', 'a.gguf');
    expect(() => findModel('a', [root])).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
    expect(findModel('a.gguf', [root])).toBe(gguf);
  });

  test('a link to the same file is the same file', () => {
    const file = put('clip', 'a.safetensors');
    mkdirSync(join(root, 'text_encoders'));
    symlinkSync(file, join(root, 'text_encoders', 'a.safetensors'));
    expect(findModel('a', [root])).toBe(file);
  });

  test('a path is a path', () => {
    const file = put('elsewhere', 'a.safetensors');
    put('clip', 'a.safetensors');
    expect(findModel(file, [root])).toBe(file);
    for (const path of ['/nope/a.safetensors', './a.safetensors', '../a', ''])
      expect(findModel(path, [root])).toBe(path);
  });

  test('a name that is nowhere: where was looked, and similar names', () => {
    put('clip', 'ViT-L-14-GmP.safetensors');
    expect(() => findModel('vit-l-14', [root])).toThrow(
      expect.objectContaining({
        code: 'ERR_FILE_NOT_FOUND',
        message: expect.stringMatching(/nor in .*Similar names: ViT-L-14-GmP\.safetensors/) as string,
      }),
    );
    expect(() => findModel('nothing', [])).toThrow(/KOTOBA_MODELS/);
  });
});

test('given folders come first, empty entries of KOTOBA_MODELS count for nothing', () => {
  const env = { KOTOBA_MODELS: ['/a', '', '/b'].join(delimiter) };
  expect(modelDirs(['/c'], env)).toEqual(['/c', '/a', '/b']);
  expect(modelDirs([], {})).toEqual([]);
});
