import { Command } from 'commander'; import type { CliContext } from './io.js'; export function inspectCommand(_: CliContext): Command { return new Command('inspect'); }
