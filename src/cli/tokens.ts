import { Command } from 'commander'; import type { CliContext } from './io.js'; export function tokensCommand(_: CliContext): Command { return new Command('tokens'); }
