/** Paths: files, shards, indices, folders, and all that is no model. */
import {
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { deflateRawSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { identify, openModel } from '../../src/formats/index.js';
import { goldenPath } from '../support/golden.js';
import { refused } from './encoder_files.js';
import { ggufHeader, safetensorsFile, safetensorsHeader, wholeFile } from './model_bytes.js';
import type { GgufValue, TensorTable } from './model_bytes.js';

const sharded = goldenPath('encoders/t5_tiny_containers/sharded')!;
let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'kotoba-open-'));
});
afterEach(() => rmSync(dir, { recursive: true }));

const put = (name: string, bytes: Buffer | string): string => {
  const path = join(dir, name);
  writeFileSync(path, bytes);
  return path;
};
const one = (name: string): Buffer => wholeFile(safetensorsHeader({ [name]: ['F32', [2]] }));

describe('shards', () => {
  test('index, folder and any one shard open the same set, each tensor in its own file', () => {
    const index = openModel(join(sharded, 'model.safetensors.index.json'));
    expect(index.files.map(({ path }) => path.slice(-24))).toEqual(
      [1, 2, 3].map((i) => `0000${i}-of-00003.safetensors`.slice(-24)),
    );
    for (const path of [sharded, join(sharded, 'model-00002-of-00003.safetensors')]) {
      const model = openModel(path);
      expect(model.tensors).toEqual(index.tensors);
      expect(model.weightsDir).toBe(sharded);
    }
    expect(new Set([...index.tensors.values()].map(({ path }) => path)).size).toBe(3);
  });

  test('a missing shard is named, whichever way the set is opened', () => {
    cpSync(sharded, dir, { recursive: true });
    chmodSync(dir, 0o755);
    rmSync(join(dir, 'model-00002-of-00003.safetensors'), { force: true });
    const missing = refused('ERR_SHARDS', '1 of its 3 files', 'model-00002-of-00003.safetensors');
    for (const name of ['', 'model.safetensors.index.json', 'model-00003-of-00003.safetensors'])
      expect(() => openModel(join(dir, name))).toThrow(missing);
  });

  test('wrong indices', () => {
    put('a.safetensors', one('a'));
    const index = (content: unknown): string =>
      put('model.safetensors.index.json', typeof content === 'string' ? content : JSON.stringify(content));
    const open = (content: unknown): unknown => openModel(index(content));
    expect(openModel(index({ weight_map: { a: 'a.safetensors' } })).tensors.size).toBe(1);
    expect(() => open({ weight_map: { a: 'a.safetensors', b: 'a.safetensors' } })).toThrow(
      refused('ERR_SHARDS', 'b in a.safetensors'),
    );
    expect(() => open({ weight_map: {} })).toThrow(refused('ERR_SHARDS', 'weight_map'));
    expect(() => open({})).toThrow(refused('ERR_SHARDS', 'weight_map'));
    expect(() => open([])).toThrow(refused('ERR_SHARDS', 'weight_map'));
    expect(() => open('{')).toThrow(refused('ERR_SHARDS', 'not valid JSON'));
    expect(() => open({ weight_map: { a: 5 } })).toThrow(refused('ERR_SHARDS', '"a"'));
    for (const escape of ['../a.safetensors', '/etc/passwd', '..', ''])
      expect(() => open({ weight_map: { a: escape } })).toThrow(
        refused('ERR_SHARDS', 'not a file beside it'),
      );
    expect(() => open({ weight_map: { a: 'pytorch_model-00001-of-00002.bin' } })).toThrow(
      refused('ERR_FORMAT_PICKLE', 'pickles'),
    );
  });

  test('a tensor in two shards', () => {
    put('m-00001-of-00002.safetensors', one('a'));
    const path = put('m-00002-of-00002.safetensors', one('a'));
    expect(() => openModel(path)).toThrow(
      refused('ERR_SHARDS', '"a" is both in m-00001-of-00002', 'm-00002'),
    );
  });

  test('GGUF split files: any one finds all, and their numbers must agree', () => {
    const split = (i: number, table: TensorTable, count = 3, total = 3, number = i): void => {
      const metadata: Record<string, GgufValue> = {
        'split.no': ['U16', number],
        'split.count': ['U16', count],
        'split.tensors.count': ['I32', total],
        ...(i === 0 ? { 'general.architecture': ['STRING', 't5'] } : {}),
      };
      put(`m-0000${i + 1}-of-00003.gguf`, wholeFile(ggufHeader(table, metadata)));
    };
    split(0, {});
    split(1, { a: ['F32', [4]], b: ['Q4_0', [2, 32]] });
    split(2, { c: ['F16', [3]] });
    const model = openModel(join(dir, 'm-00002-of-00003.gguf'));
    expect([...model.tensors.keys()]).toEqual(['a', 'b', 'c']);
    expect(model.metadata.get('general.architecture')).toBe('t5');
    expect(openModel(dir).tensors).toEqual(model.tensors);
    split(2, { c: ['F16', [3]] }, 4);
    expect(() => openModel(dir)).toThrow(refused('ERR_SHARDS', 'one of 4, not 3'));
    split(2, { c: ['F16', [3]] }, 3, 3, 1);
    expect(() => openModel(dir)).toThrow(refused('ERR_SHARDS', 'number 1, expected 2'));
    split(2, {}, 3, 3);
    expect(() => openModel(dir)).toThrow(refused('ERR_SHARDS', '2 tensors, expected 3'));
    split(2, { c: ['F16', [3]] });
    renameSync(join(dir, 'm-00003-of-00003.gguf'), join(dir, 'gone'));
    expect(() => openModel(join(dir, 'm-00001-of-00003.gguf'))).toThrow(
      refused('ERR_SHARDS', 'm-00003-of-00003.gguf'),
    );
  });
});

describe('folders', () => {
  test('the plain weights go before a variant, a variant before nothing', () => {
    put('model.safetensors', one('plain'));
    put('model.fp16.safetensors', one('variant'));
    put('config.json', '{}');
    expect([...openModel(dir).tensors.keys()]).toEqual(['plain']);
    rmSync(join(dir, 'model.safetensors'));
    expect([...openModel(dir).tensors.keys()]).toEqual(['variant']);
    put('other.gguf', wholeFile(ggufHeader({ g: ['F32', [1]] })));
    expect(() => openModel(dir)).toThrow(
      refused('ERR_FILE_READ', 'holds 2 models', 'model.fp16.safetensors'),
    );
  });

  test('a variant index is another way to the same model', () => {
    for (const [variant, index] of [
      ['', 'model.safetensors.index.json'],
      ['.fp16', 'model.safetensors.index.fp16.json'],
    ] as const) {
      put(`model${variant}-00001-of-00001.safetensors`, one(`a${variant}`));
      put(
        index,
        JSON.stringify({ weight_map: { [`a${variant}`]: `model${variant}-00001-of-00001.safetensors` } }),
      );
    }
    expect([...openModel(dir).tensors.keys()]).toEqual(['a']);
    rmSync(join(dir, 'model.safetensors.index.json'));
    rmSync(join(dir, 'model-00001-of-00001.safetensors'));
    expect([...openModel(dir).tensors.keys()]).toEqual(['a.fp16']);
  });

  test('one file goes before its own shards', () => {
    put('model-00001-of-00001.safetensors', one('a'));
    put('model.safetensors.index.json', '{"weight_map": {"a": "model-00001-of-00001.safetensors"}}');
    put('model.safetensors', one('whole'));
    expect([...openModel(dir).tensors.keys()]).toEqual(['whole']);
  });

  test('no model, only pickles, an empty pipeline', () => {
    expect(() => openModel(dir)).toThrow(refused('ERR_FILE_READ', 'no .safetensors or .gguf'));
    put('pytorch_model.bin', 'x');
    expect(() => openModel(dir)).toThrow(refused('ERR_FORMAT_PICKLE', 'pytorch_model.bin'));
    put('model_index.json', '{}');
    expect(() => openModel(dir)).toThrow(refused('ERR_FILE_READ', 'diffusers folder without weights'));
    mkdirSync(join(dir, 'vae'));
    put('vae/diffusion_pytorch_model.safetensors', one('x'));
    expect([...openModel(join(dir, 'model_index.json')).tensors.keys()]).toEqual(['vae/x']);
  });
});

describe('what is no model', () => {
  const zip = (...names: string[]): Buffer => {
    const data = deflateRawSync('x');
    const entries = names.map((name) =>
      Buffer.concat([
        Buffer.from('PK\x03\x04' + '\0'.repeat(22)),
        Buffer.from([name.length, 0, 0, 0]),
        Buffer.from(name),
        data,
      ]),
    );
    return Buffer.concat([
      ...entries,
      ...names.map((name) => Buffer.concat([Buffer.from('PK\x01\x02' + '\0'.repeat(42)), Buffer.from(name)])),
      Buffer.from('PK\x05\x06'),
    ]);
  };

  test.each<[string, string, Buffer | string, string, string]>([
    [
      'a torch zip',
      'm.ckpt',
      zip('archive/data.pkl', 'archive/data/0'),
      'ERR_FORMAT_PICKLE',
      'weights_only=True',
    ],
    [
      'a torch zip named .safetensors',
      'm.safetensors',
      zip('archive/data.pkl'),
      'ERR_FORMAT_PICKLE',
      'pickle',
    ],
    [
      'TorchScript',
      'ViT-L-14.pt',
      zip('ViT/data.pkl', 'ViT/code/__torch__/x.py', 'ViT/constants.pkl'),
      'ERR_FORMAT_PICKLE',
      'torch.jit.load',
    ],
    [
      'a bare pickle',
      'm.pt',
      Buffer.from([0x80, 2, 0x7d, 0x71, 0, 0x58, 0, 0, 0, 0]),
      'ERR_FORMAT_PICKLE',
      'older',
    ],
    ['another zip', 'm.zip', zip('readme.txt'), 'ERR_FORMAT_UNKNOWN', 'compressed archive'],
    [
      'a Git LFS pointer',
      'm.safetensors',
      'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n',
      'ERR_FORMAT_UNKNOWN',
      'git lfs pull',
    ],
    ['a web page', 'm.gguf', '<!DOCTYPE html><html>Sign in</html>', 'ERR_FORMAT_UNKNOWN', 'web page'],
    [
      'a picture',
      'm.safetensors',
      Buffer.from('89504e470d0a1a0a0000000d', 'hex'),
      'ERR_FORMAT_UNKNOWN',
      'picture',
    ],
    ['zeros', 'm.gguf', Buffer.alloc(4096), 'ERR_FORMAT_UNKNOWN', 'zeros'],
    [
      'text',
      'notes.txt',
      'hello, this is no model at all',
      'ERR_FORMAT_UNKNOWN',
      'neither safetensors nor GGUF',
    ],
    ['an empty file', 'm.bin', '', 'ERR_FORMAT_UNKNOWN', '0 bytes'],
    ['an empty .safetensors', 'm.safetensors', '', 'ERR_SAFETENSORS_TRUNCATED', '0 bytes'],
    ['an empty .gguf', 'm.gguf', '', 'ERR_GGUF_TRUNCATED', '0 bytes'],
    ['text in a .gguf', 'm.gguf', 'hello, this is no model at all', 'ERR_GGUF_HEADER', '"hell"'],
    [
      'text in a .safetensors',
      'm.safetensors',
      'hello, this is no model at all',
      'ERR_SAFETENSORS_HEADER',
      'is this a safetensors file?',
    ],
  ])('%s', (_, name, bytes, code, message) => {
    expect(() => openModel(put(name, bytes))).toThrow(refused(code, message));
  });

  test('a safetensors header of 128 bytes begins as a pickle does, and is none', () => {
    const json = JSON.stringify({
      __metadata__: { pad: '' },
      a: { dtype: 'U8', shape: [1], data_offsets: [0, 1] },
    });
    expect(openModel(put('m.bin', safetensorsFile(json.padEnd(0x0280), 1))).tensors.size).toBe(1);
  });

  test('paths', () => {
    expect(() => openModel('')).toThrow(refused('ERR_FILE_NOT_FOUND', 'empty path'));
    expect(() => openModel(join(dir, 'none.gguf'))).toThrow(refused('ERR_FILE_NOT_FOUND', 'none.gguf'));
    expect(() => openModel(join(put('file', 'x'), 'below'))).toThrow(refused('ERR_FILE_NOT_FOUND', 'below'));
    expect(() => openModel('a\0b')).toThrow(refused('ERR_FILE_NOT_FOUND', 'a\\0b'));
    expect(() => openModel('x'.repeat(5000))).toThrow(refused('ERR_FILE_READ', 'ENAMETOOLONG'));
    expect(() => openModel('/dev/null')).toThrow(refused('ERR_FILE_READ', 'not a regular file'));
    symlinkSync(join(dir, 'loop'), join(dir, 'loop'));
    expect(() => openModel(join(dir, 'loop'))).toThrow(refused('ERR_FILE_READ', 'ELOOP'));
  });

  test.skipIf(process.getuid?.() === 0)('no permission (skipped for root, who may read all)', () => {
    const path = put('m.gguf', 'x');
    chmodSync(path, 0);
    expect(() => openModel(path)).toThrow(refused('ERR_FILE_READ', 'no permission'));
  });

  test('a symbolic link to a model is a model', () => {
    symlinkSync(goldenPath('encoders/t5_tiny/model.safetensors')!, join(dir, 'blob'));
    expect(identify(openModel(join(dir, 'blob')))).toHaveLength(1);
  });
});
