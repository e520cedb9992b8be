/** `kotoba inspect`: what it says of real small files and of full-size headers; what it says of bad ones. */
import { readFileSync, writeFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import type { Inspection } from '../../src/cli/inspect_file.js';
import { safetensorsFile, safetensorsHeader, writeSparse, type TensorTable } from '../formats/model_bytes.js';
import { golden } from '../support/golden.js';
import { run, temporaryFolder } from './run.js';

const dir = temporaryFolder();
const encoders = (name: string): string => golden(`encoders/${name}`);

function sparse(json: string, name: string): string {
  const bytes = readFileSync(golden(`names/${json}`));
  const { tensors } = JSON.parse((json.endsWith('.gz') ? gunzipSync(bytes) : bytes).toString()) as {
    tensors: TensorTable;
  };
  const path = dir.join(name);
  writeSparse(path, safetensorsHeader(tensors));
  return path;
}

async function inspectJson(...args: string[]): Promise<Inspection[]> {
  const { json } = await run(['inspect', ...args, '--json']);
  return (json() as { files: Inspection[] }).files;
}

describe('for people', () => {
  test('a T5 at full size: what it is, what is read, what is missing beside it', async () => {
    const path = sparse('t5xxl_fp16.json', 't5xxl_fp16.safetensors');
    const { code, stdout, stderr } = await run(['inspect', path]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toContain('✓ t5  T5-XXL (v1.1 or Flan) encoder, Hugging Face names, F16');
    expect(stdout).toMatch(/reads +9\.52 GB of 9\.79 GB \(97\.3 %\): 9,524,621,312 bytes in 219 tensors/);
    expect(stdout).toContain('24 layers, width 4096, 64 heads of 64, feed-forward 10240 (gated gelu_new)');
    expect(stdout).toMatch(/tokenizer +none found: put spiece\.model/);
    expect(stdout).toMatch(/263 MB +1 tensor +second copy of the tied T5 embedding/);
    expect(stdout).toContain(`--t5 ${path} --t5-tokenizer spiece.model`);
  });

  test('45.1 GB in five shards, by any one of them, in little time', async () => {
    const name = 'google_flan-t5-xxl_safetensors.json.gz';
    const { tensors, weight_map: files } = JSON.parse(
      gunzipSync(readFileSync(golden(`names/${name}`))).toString(),
    ) as { tensors: TensorTable; weight_map: Record<string, string> };
    for (const file of new Set(Object.values(files))) {
      const own = Object.entries(tensors).filter(([tensor]) => files[tensor] === file);
      writeSparse(dir.join(file), safetensorsHeader(Object.fromEntries(own)));
    }
    const started = performance.now();
    const { stdout } = await run(['inspect', dir.join(Object.values(files)[0]!)]);
    expect(performance.now() - started, 'milliseconds').toBeLessThan(2000);
    expect(stdout).toContain('T5-XXL (v1.1 or Flan) encoder of a full encoder-decoder');
    expect(stdout).toMatch(/reads +19 GB of 45\.1 GB \(42\.3 %\): 19,049,242,624 bytes in 219 tensors/);
    expect(stdout).toMatch(/T5 decoder/);
  });

  test('a checkpoint with several networks', async () => {
    const path = sparse('sd_xl_base_1.0.json.gz', "it's sdxl.safetensors");
    const { stdout } = await run(['inspect', path]);
    for (const slot of ['clip_l', 'clip_g', 'unet', 'vae']) expect(stdout).toContain(`✓ ${slot}  `);
    expect(stdout).toContain(`--model '${path.replace("'", `'\\''`)}'`);
  });

  test('a network without text encoder has no encode command', async () => {
    const { stdout } = await run(['inspect', sparse('ae.json', 'ae.safetensors')]);
    expect(stdout).toContain('No text encoder in it (vae)');
    expect(stdout).not.toContain('kotoba encode "');
  });

  test('what is undecided, and the config that decides it', async () => {
    const path = encoders('clip_naming/clip_l_hf.safetensors');
    const { stdout } = await run(['inspect', path]);
    expect(stdout).toContain('? clip_l  ');
    expect(stdout).toContain('undecided');
    expect(stdout).toContain(`--config clip_l='{"num_attention_heads": …, "hidden_act": …}'`);
    const config = '{"num_attention_heads": 2, "hidden_act": "quick_gelu"}';
    const decided = await run(['inspect', path, '--config', config]);
    expect(decided.stdout).toContain('✓ clip_l  ');
    expect(decided.stdout).toContain('2 heads');
  });

  test('missing and unexpected tensors', async () => {
    const bytes = JSON.parse(readFileSync(golden('names/clip_l.json'), 'utf8')) as { tensors: TensorTable };
    const { ['text_model.final_layer_norm.weight']: _, ...rest } = bytes.tensors;
    const path = dir.join('broken.safetensors');
    writeSparse(path, safetensorsHeader({ ...rest, 'text_model.extra.weight': ['F16', [3]] }));
    const { code, stdout } = await run(['inspect', path]);
    expect(code).toBe(0);
    expect(stdout).toContain('✗ clip_l  ');
    expect(stdout).toMatch(/missing +1: text_model\.final_layer_norm\.weight/);
    expect(stdout).toMatch(/unexpected +1: text_model\.extra\.weight/);
  });

  test('--tensors lists them with who reads them', async () => {
    const { stdout } = await run(['inspect', encoders('t5_tiny_encdec/model.safetensors'), '--tensors']);
    expect(stdout).toMatch(/shared\.weight +F16 +\[600, 64\] +76,800 +t5/);
    expect(stdout).toMatch(/lm_head\.weight +F16 +\[600, 64\] +76,800 +–/);
  });

  test('an escape sequence in a tensor name does not reach the terminal', async () => {
    const path = dir.join('escape.safetensors');
    const { tensors } = JSON.parse(readFileSync(golden('names/clip_l.json'), 'utf8')) as {
      tensors: TensorTable;
    };
    writeSparse(path, safetensorsHeader({ ...tensors, 'text_model.\x1b[2J\x9b31m': ['F16', [1]] }));
    const { stdout } = await run(['inspect', path, '--tensors']);
    expect(stdout).toContain('text_model.\\u001b[2J\\u009b31m');
    expect(stdout).not.toMatch(/[\x1b\x9b]/);
  });

  test('colours and the width of a terminal', async () => {
    const path = encoders('t5_tiny/model.safetensors');
    const { stdout } = await run(['inspect', path], { terminal: 60 });
    expect(stdout).toContain('\x1b[32m✓\x1b[39m');
    const facts = stdout.split('\n').filter((line) => /sizes|reads/.test(line));
    for (const line of facts) expect(line.replace(/\x1b\[[\d;]*m/g, '').length).toBeLessThanOrEqual(60);
  });
});

describe('--json', () => {
  test('the three ways to a T5 vocabulary', async () => {
    const files = await inspectJson(
      encoders('t5_tiny_gguf/model.f32.gguf'),
      encoders('t5_tiny/model.safetensors'),
      encoders('clip_l_tiny/model.safetensors'),
    );
    expect(files.map(({ parts }) => parts[0]!.tokenizer?.from)).toEqual([
      'gguf metadata',
      'missing',
      'built in',
    ]);
    const folder = dir.join('with_spiece');
    const { mkdirSync, copyFileSync } = await import('node:fs');
    mkdirSync(folder);
    copyFileSync(encoders('t5_tiny/model.safetensors'), `${folder}/model.safetensors`);
    copyFileSync(encoders('t5_tiny_gguf/spiece.model'), `${folder}/spiece.model`);
    const [found] = await inspectJson(folder);
    expect(found!.parts[0]!.tokenizer).toEqual({ from: 'file', path: `${folder}/spiece.model` });
    expect(found!.command).not.toContain('--t5-tokenizer');
  });

  test('parts, dtypes and leftovers with exact bytes', async () => {
    const [file] = await inspectJson(encoders('t5_tiny_gguf/model.f16.gguf'));
    expect(file).toMatchObject({ container: 'gguf', bytes: 427648, tensorCount: 30 });
    const [part] = file!.parts;
    expect(part).toMatchObject({ slot: 't5', usable: true, tensors: 30, missing: [], unexpected: [] });
    expect(part!.dtypes.map(({ dtype }) => dtype)).toEqual(['F16', 'F32']);
    expect(part!.dtypes.reduce((sum, { bytes }) => sum + bytes, 0)).toBe(part!.bytesRead);
  });
});

describe('bad files', () => {
  test('one among good ones is reported in its place, the exit code is 1', async () => {
    const bad = dir.join('bad.safetensors');
    writeFileSync(bad, 'no model');
    const good = encoders('t5_tiny/model.safetensors');
    const { code, stdout, stderr } = await run(['inspect', bad, good]);
    expect(code).toBe(1);
    expect(stderr).toMatch(/^kotoba: ERR_SAFETENSORS_\w+: .*bad\.safetensors/);
    expect(stdout).toContain('✓ t5');
    const { json } = await run(['inspect', bad, good, '--json']);
    expect(json()).toMatchObject({
      files: [
        { path: bad, error: { code: expect.stringMatching(/^ERR_SAFETENSORS/) as string } },
        { path: good },
      ],
    });
  });

  test('a file that is no network says what it looks like', async () => {
    const path = dir.join('lora.safetensors');
    const entry = { dtype: 'F32', shape: [1], data_offsets: [0, 4] };
    writeFileSync(path, safetensorsFile({ 'lora_te_text_model.lora_down.weight': entry }, 4));
    const { code, stderr } = await run(['inspect', path]);
    expect({ code, stderr }).toMatchObject({ code: 1, stderr: expect.stringContaining('LoRA') as string });
  });

  test('no file is a usage error', async () => {
    expect(await run(['inspect'])).toMatchObject({ code: 2 });
  });
});
