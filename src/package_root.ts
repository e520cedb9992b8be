/** Where the package lies, from source, from dist and where it is installed. */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { KotobaError } from './errors.js';

/** The native addon; KOTOBA_ADDON names another build (a sanitizer's, say). Device libraries lie beside it. */
export const addonPath = (env: Readonly<Record<string, string | undefined>> = process.env): string =>
  env['KOTOBA_ADDON'] ?? join(packageRoot(), 'build', 'Release', 'kotoba.node');

/** The folder of package.json. @throws KotobaError ERR_FILE_NOT_FOUND for files copied out of the package */
export function packageRoot(): string {
  const start = dirname(fileURLToPath(import.meta.url));
  let folder = start;
  while (!existsSync(join(folder, 'package.json'))) {
    if (folder === dirname(folder))
      throw new KotobaError(
        'ERR_FILE_NOT_FOUND',
        `${start}: expected Kotoba's package.json in a folder above, found none: install the package as a whole`,
      );
    folder = dirname(folder);
  }
  return folder;
}
