/** Where the package lies, from source, from dist and where it is installed. */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The native addon; KOTOBA_ADDON names another build (a sanitizer's, say). Device libraries lie beside it. */
export const addonPath = (env: Readonly<Record<string, string | undefined>> = process.env): string =>
  env['KOTOBA_ADDON'] ?? join(packageRoot(), 'build', 'Release', 'kotoba.node');

/** The folder of package.json. */
export function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'package.json'))) folder = dirname(folder);
  return folder;
}
