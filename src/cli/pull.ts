/** `kotoba pull`: files of the Hugging Face Hub, by the names of the catalogue or of their repositories. */
import { Command } from 'commander';
import { KotobaError } from '../errors.js';
import {
  catalogue,
  cachedName,
  hubAccess,
  pullFile,
  wantedFiles,
  type CatalogueEntry,
  type HubAccess,
  type Pulled,
  type Wanted,
} from '../hub/index.js';
import type { CliContext } from './io.js';
import * as option from './options.js';
import { makeFolder, requireWritableFolder } from './output_path.js';
import { progressLine } from './progress.js';
import { bytesText, counted, printable, secondsText, styleFor, table } from './text.js';

interface PullFlags {
  dir?: string;
  revision?: string;
  list?: boolean;
  json?: boolean;
}

const HELP = `
Examples:
  Flan-T5-XXL at 4 bits, then by the same name wherever a file goes:
    $ kotoba pull flan-t5-xxl:q4_k
    $ kotoba encode "a sparrow" --t5 flan-t5-xxl:q4_k
  Everything of Flux.1 schnell, the article's CLIP among it, into a folder of one's own:
    $ kotoba pull flux-schnell:q4_k flux-ae clip-gmp t5-xxl:q8_0 --dir models
  Any file of any repository; * stands for anything:
    $ kotoba pull city96/FLUX.1-dev-gguf:flux1-dev-Q4_K_S.gguf
    $ kotoba pull 'black-forest-labs/FLUX.1-dev:text_encoder_2/*'
  What there is:
    $ kotoba pull --list

Files go into the Hub's own cache (HF_HOME, HF_HUB_CACHE), which other programs share: what is there is not fetched
again. Sizes and checksums are compared with the Hub's. Ctrl-C or a broken line leave a part (….incomplete), and the next
pull goes on from there. Without a network, what is cached is used. No other command downloads anything: a name whose
file is not there is an error that names the pull.

Environment:
  HF_TOKEN         for repositories whose licence must be accepted, and for private ones; else what hf auth login left
  HF_ENDPOINT      a mirror in the place of https://huggingface.co
  HF_HUB_OFFLINE   1: ask nobody`;

export function pullCommand(context: CliContext): Command {
  return new Command('pull')
    .description('files of the Hugging Face Hub: encoders and models by name')
    .argument('[names...]', 'NAME of the catalogue, or REPOSITORY:FILE')
    .option('--list', 'the catalogue: names, sizes, licences, and what is there already')
    .option('--dir <folder>', 'put the files here, in the place of the cache')
    .option('--revision <name>', 'a branch, tag or commit (default: main)')
    .addOption(option.jsonOption())
    .addHelpText('after', HELP)
    .action((names: string[], flags: PullFlags) => pull(context, names, flags));
}

async function pull(context: CliContext, names: readonly string[], flags: PullFlags): Promise<void> {
  const access = hubAccess(context.io.env);
  if (flags.list) return printCatalogue(context, access, flags);
  if (names.length === 0)
    throw new KotobaError('ERR_ARGUMENT', 'pull: expected a name, got none; kotoba pull --list shows them');
  if (flags.dir !== undefined) {
    requireWritableFolder('--dir', flags.dir);
    await makeFolder('--dir', flags.dir);
  }
  // All names first: a wrong one is told before anything large is fetched.
  const wanted: Wanted[] = [];
  for (const name of names) wanted.push(await wantedFiles(access, name, context.signal));
  const results: PulledName[] = [];
  for (const [i, one] of wanted.entries()) {
    const result = { name: names[i]!, wanted: one, files: await pullAll(context, access, one, flags) };
    results.push(result);
    if (!flags.json) printPulled(context, result);
  }
  if (flags.json) context.io.stdout.write(`${JSON.stringify(results.map(inJson), null, 2)}\n`);
}

interface PulledFile extends Pulled {
  readonly file: string;
  readonly seconds: number;
}

interface PulledName {
  readonly name: string;
  readonly wanted: Wanted;
  readonly files: readonly PulledFile[];
}

const inJson = ({ name, wanted: { repository, entry }, files }: PulledName) => ({
  name,
  repository,
  licence: entry?.licence ?? null,
  path: files[0]!.path,
  files,
});

async function pullAll(
  context: CliContext,
  access: HubAccess,
  { repository, files }: Wanted,
  { dir, revision }: PullFlags,
): Promise<PulledFile[]> {
  const line = progressLine(context);
  const pulled: PulledFile[] = [];
  for (const file of files) {
    const label = file.slice(file.lastIndexOf('/') + 1);
    const started = performance.now();
    line.say(`asking for ${printable(label)}`);
    const result = await pullFile(access, repository, file, {
      dir,
      revision,
      signal: context.signal,
      onProgress: (done, total) =>
        line.update(printable(label), done, total, `${bytesText(done)} of ${bytesText(total)}`),
    }).finally(() => line.clear());
    pulled.push({ file, ...result, seconds: (performance.now() - started) / 1000 });
  }
  return pulled;
}

const FROM = { hub: 'pulled', cache: 'already there', offline: 'from the cache, the Hub not asked' } as const;

function printPulled({ io }: CliContext, { wanted: { entry }, files }: PulledName): void {
  const style = styleFor(io.stdout, io.env);
  for (const { path, bytes, from, seconds } of files) {
    const rate = from === 'hub' && seconds > 1 ? `, ${bytesText(bytes / seconds)}/s` : '';
    const time = from === 'hub' ? ` in ${secondsText(seconds)}${rate}` : '';
    io.stdout.write(`${style.bold(printable(path))}: ${bytesText(bytes)}, ${FROM[from]}${time}\n`);
  }
  if (entry) io.stdout.write(style.dim(`  ${entry.title}; licence: ${entry.licence}\n`));
  const needsVocabulary = entry?.slots.includes('t5') && !files.some(({ file }) => /gguf$|spiece/.test(file));
  if (needsVocabulary)
    io.stdout.write(
      style.dim(
        '  its vocabulary is not in it: kotoba pull t5-vocabulary, then --t5-tokenizer t5-vocabulary\n',
      ),
    );
}

function printCatalogue({ io }: CliContext, { cache }: HubAccess, { json }: PullFlags): void {
  const entries = catalogue().map((entry) => ({ ...entry, path: cachedName(cache, entry.name) ?? null }));
  if (json) {
    io.stdout.write(`${JSON.stringify(entries, null, 2)}\n`);
    return;
  }
  const style = styleFor(io.stdout, io.env);
  const rows = entries.map(({ path, ...entry }) => [
    path === null ? entry.name : style.green(entry.name),
    sizeText(entry),
    path === null ? '' : 'here',
    style.dim(entry.licence),
    gatedText(entry),
    entry.note ?? '',
  ]);
  const lines = table(rows, { right: [1], indent: '  ' });
  const families = new Map<string, string[]>();
  for (const [i, { title }] of entries.entries())
    families.set(title, [...(families.get(title) ?? []), lines[i]!]);
  const blocks = [...families].map(([title, own]) => [style.bold(title), ...own].join('\n'));
  io.stdout.write(
    `${blocks.join('\n\n')}\n\n${counted(entries.length, 'name')}; kotoba pull NAME; --json has their repositories and files\n`,
  );
}

const sizeText = ({ bytes, bytesAre }: CatalogueEntry): string =>
  bytes === undefined ? '' : `${bytesAre === 'about' ? '≈ ' : ''}${bytesText(bytes)}`;

const gatedText = ({ gated }: CatalogueEntry): string =>
  gated === null ? 'licence perhaps to accept' : gated ? 'licence to accept' : '';
