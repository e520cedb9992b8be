import { Command } from 'commander'; import type { CliContext } from './io.js'; export function forwardCommand(_: CliContext): Command { return new Command('forward'); }
