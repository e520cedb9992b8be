import { Command } from 'commander'; import type { CliContext } from './io.js'; export function doctorCommand(_: CliContext): Command { return new Command('doctor'); }
