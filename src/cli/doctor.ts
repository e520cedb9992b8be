/** `kotoba doctor`: what this machine has, what is missing, and what to do about it. */
import { Command } from 'commander';
import { modelDirs } from '../pipeline/find_model.js';
import { deviceOption, threadsOption, vramOption, type DeviceFlags } from './device.js';
import { examine, type Check } from './doctor_checks.js';
import { EXIT } from './exit_codes.js';
import type { CliContext } from './io.js';
import * as option from './options.js';
import { printable, styleFor, table, wrap, visibleWidth, widthOf } from './text.js';

const HELP = `
Example:
  $ kotoba doctor --json

Exit code 1 if something is missing that text encoders need here, or the device that --device names.`;

interface DoctorOptions extends DeviceFlags {
  modelsDir: readonly string[];
  json?: boolean;
}

export function doctorCommand(context: CliContext): Command {
  return new Command('doctor')
    .description('what this machine has and what is missing')
    .addOption(option.modelsDirOption())
    .addOption(deviceOption())
    .addOption(vramOption())
    .addOption(threadsOption())
    .addOption(option.jsonOption())
    .addHelpText('after', HELP)
    .action((options: DoctorOptions) => doctor(context, options));
}

async function doctor(context: CliContext, options: DoctorOptions): Promise<void> {
  const { io } = context;
  const checks = await examine(modelDirs(options.modelsDir, io.env), io.env, options);
  const isHealthy = checks.every(({ state }) => state !== 'missing');
  if (!isHealthy) context.exitCode = EXIT.failed;
  if (options.json) {
    io.stdout.write(`${JSON.stringify({ ok: isHealthy, checks }, null, 2)}\n`);
    return;
  }
  io.stdout.write(`${lines(context, checks, isHealthy).join('\n')}\n`);
}

function lines({ io }: CliContext, checks: readonly Check[], isHealthy: boolean): string[] {
  const style = styleFor(io.stdout, io.env);
  const marks = { ok: style.green('✓'), note: style.dim('·'), missing: style.red('✗') };
  const heads = table(checks.map(({ state, what }) => [marks[state], what]));
  const column = Math.max(...heads.map(visibleWidth)) + 2;
  const text = checks.flatMap(({ found, advice }, i) => {
    const body = [...found.split('\n'), ...(advice === undefined ? [] : [advice])];
    const wrapped = body.flatMap((line) => wrap(printable(line).split(' '), widthOf(io.stdout) - column));
    const head = heads[i]! + ' '.repeat(column - visibleWidth(heads[i]!));
    return wrapped.map((line, row) => (row === 0 ? head : ' '.repeat(column)) + line);
  });
  const verdict = isHealthy
    ? style.green('Everything text encoders need is here.')
    : style.red('Something text encoders need is missing.');
  return [...text, '', verdict];
}
