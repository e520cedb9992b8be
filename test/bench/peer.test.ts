import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execPath } from 'node:process';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Peer } from '../../bench/peer.js';

/** The smallest program that speaks the protocol: it answers with what it was given. */
const speaker = `
import { createInterface } from 'node:readline';
const say = (answer) => console.log(JSON.stringify(answer));
const kind = process.argv[process.argv.indexOf('--kind') + 1];
if (kind === 'clip_g') { console.error('no such kind'); process.exit(3); }
say({ event: 'ready', load_seconds: 0.5, rss_peak: 1, args: process.argv.slice(2) });
for await (const line of createInterface({ input: process.stdin })) {
  const [event, argument] = line.split(' ');
  if (event === 'quit') break;
  if (argument === '13') say({ event: 'error', message: 'unlucky' });
  else if (argument === '14') process.exit(4);
  else if (argument === '15') console.log('hello');
  else say({ event, tokens: Number(argument), seconds: 0.25 });
}`;

let directory: string;
let command: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'kotoba-peer-test-'));
  const script = join(directory, 'speaker.mjs');
  writeFileSync(script, speaker);
  command = `${execPath} ${script} --extra`;
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const options = { kind: 't5', file: 'model.gguf', tokens: 77, threads: 2 } as const;

test('loads once, runs on command, ends', async () => {
  const peer = await Peer.start({ command, ...options, ids: 'ids.bin' });
  expect(peer.ready).toMatchObject({ load_seconds: 0.5 });
  expect((peer.ready as unknown as { args: string[] }).args.join(' ')).toBe(
    '--extra --serve --kind t5 --file model.gguf --tokens 77 --threads 2 --ids ids.bin',
  );
  expect(peer.pid).toBeGreaterThan(0);
  const runs = await Promise.all([peer.run(77), peer.run(256)]);
  expect(runs.map((run) => run.tokens)).toEqual([77, 256]);
  await peer.setThreads(1);
  await peer.dump('out.f32');
  await peer.close();
  await peer.close();
  await expect(peer.run(77)).rejects.toThrow('exit status 0');
});

test('failures say what the peer said', async () => {
  await using peer = await Peer.start({ command, ...options });
  await expect(peer.run(13)).rejects.toThrow('unlucky');
  await expect(peer.run(15)).rejects.toThrow('hello');
  await expect(peer.run(14)).rejects.toThrow('exit status 4');
});

test('a peer that does not start, or not at all, is an error', async () => {
  await expect(Peer.start({ command, ...options, kind: 'clip_g' })).rejects.toThrow(
    'exit status 3 before it answered. no such kind',
  );
  await expect(Peer.start({ command: '/nowhere/peer', ...options })).rejects.toThrow('cannot start');
  await expect(Peer.start({ command: ' ', ...options })).rejects.toThrow(
    expect.objectContaining({ code: 'ERR_ARGUMENT' }),
  );
});
