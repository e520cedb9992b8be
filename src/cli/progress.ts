/** One line on stderr that says how far a job is; nothing at all where stderr is no terminal. */
import type { CliContext } from './io.js';
import { secondsText, styleFor } from './text.js';

/** Milliseconds between two drawings: often enough to look alive. */
const REDRAW_MS = 80;
const BAR_COLUMNS = 28;

export interface ProgressLine {
  /** What happens before there are layers to count. */
  say(text: string): void;
  /**
   * @param done of `total` layers, or of what `detail` says
   * @param detail in the place of "layer 3 of 24"
   */
  update(label: string, done: number, total: number, detail?: string): void;
  /** Takes the line away, so that what follows starts on a clean one. */
  clear(): void;
}

const SILENT: ProgressLine = { say: () => undefined, update: () => undefined, clear: () => undefined };

export function progressLine({ io }: CliContext): ProgressLine {
  if (io.stderr.isTTY !== true || io.env['TERM'] === 'dumb') return SILENT;
  const style = styleFor(io.stderr, io.env);
  let started = performance.now();
  let drawn = -Infinity;
  let current = '';
  return {
    say(text) {
      drawn = performance.now();
      io.stderr.write(`\r${style.dim(text.slice(0, (io.stderr.columns || 80) - 1))}\x1b[K`);
    },
    update(label, done, total, detail = `layer ${done} of ${total}`) {
      const now = performance.now();
      if (label !== current) [current, started] = [label, now];
      else if (now - drawn < REDRAW_MS && done < total) return;
      drawn = now;
      const elapsed = (now - started) / 1000;
      const filled = Math.round((BAR_COLUMNS * done) / Math.max(total, 1));
      const bar = style.cyan('━'.repeat(filled)) + style.dim('─'.repeat(BAR_COLUMNS - filled));
      const left = done > 1 && done < total ? `, ${secondsText((elapsed / done) * (total - done))} left` : '';
      const since = done > 0 ? `  ${secondsText(elapsed)}${left}` : '';
      const text = `${detail}${since}`;
      const room = (io.stderr.columns || 80) - label.length - BAR_COLUMNS - 5;
      io.stderr.write(`\r${label}  ${bar}  ${text.slice(0, Math.max(room, 0))}\x1b[K`);
    },
    clear() {
      if (drawn > -Infinity) io.stderr.write('\r\x1b[K');
      drawn = -Infinity;
    },
  };
}
