/** What the process says to a shell, and the text of it in `kotoba --help`. */
import { KotobaError } from '../errors.js';

export const EXIT = { ok: 0, failed: 1, usage: 2, bug: 70, interrupted: 130, terminated: 143 } as const;

export const EXIT_CODES_HELP = `Exit codes:
  0    done
  1    the job failed: the message says why, and begins with a code such as ERR_MODEL_TENSORS
  2    wrong usage: an unknown option, a missing or impossible argument (ERR_ARGUMENT)
  70   a bug in kotoba
  130  cancelled with Ctrl-C (143: by SIGTERM); nothing half-written is left`;

export function exitCodeOf(error: unknown): number {
  if (!(error instanceof KotobaError)) return EXIT.bug;
  if (error.code === 'ERR_CANCELLED') return EXIT.interrupted;
  return error.code === 'ERR_ARGUMENT' ? EXIT.usage : EXIT.failed;
}
