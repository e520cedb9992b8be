/** `kotoba bench plot` and `kotoba bench goals`: what was measured, from the reports that benches write. */
import { Command } from 'commander';
import { writeAtomically } from '../atomic_file.js';
import type { CliContext } from './io.js';

const PLOT_HELP = `
The page holds everything itself: rooflines, times as fast as each peer, and what was measured where.

Example:
  $ kotoba bench plot bench/results/*.json --out page.html`;

export function plotBench({ io }: CliContext): Command {
  return new Command('plot')
    .description('an HTML page of plots from bench reports')
    .argument('<report...>', 'JSON files that benches have written with --output')
    .requiredOption('--out <file>', 'the page')
    .addHelpText('after', PLOT_HELP)
    .action(async (paths: string[], { out }: { out: string }) => {
      const { readReport } = await import('../../bench/report_file.js');
      const { makePage } = await import('../../bench/plots/page.js');
      const page = makePage(paths.map(readReport));
      await writeAtomically(out, [Buffer.from(page)]);
      io.stdout.write(`${out}\n`);
    });
}

export function goalsBench({ io }: CliContext): Command {
  return new Command('goals')
    .description('a Markdown table: every goal set for a GPU, and what the reports measured of it')
    .argument('[report...]', 'JSON files that benches have written on a GPU')
    .action(async (paths: string[]) => {
      const { readReport } = await import('../../bench/report_file.js');
      const { goalsMarkdown } = await import('../../bench/goals.js');
      io.stdout.write(`${goalsMarkdown(paths.map(readReport)).join('\n')}\n`);
    });
}
