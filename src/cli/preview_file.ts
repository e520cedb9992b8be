/** `--preview FILE`: what a picture is becoming, after every step, for a viewer that watches the file. */
import { KotobaError } from '../errors.js';
import { readPngTexts, writePng, type Picture } from '../image/index.js';
import { requireWritableFile, statIfThere } from './output_path.js';

/** The PNG keyword by which a preview is known again: only previews may be overwritten unasked. */
const KEYWORD = 'kotoba-preview';

/** @throws KotobaError ERR_FILE_WRITE, ERR_FILE_EXISTS for a file that is no preview */
export async function checkPreview(path: string, overwrite: 'allow' | 'refuse'): Promise<void> {
  requireWritableFile('--preview', path);
  if (overwrite === 'allow' || !statIfThere(path)) return;
  const texts = await readPngTexts(path).catch(() => new Map<string, string>());
  if (!texts.has(KEYWORD))
    throw new KotobaError(
      'ERR_FILE_EXISTS',
      `--preview ${path}: is there already and no preview; --force overwrites it`,
    );
}

/** @param detail "step 3 of 4" @throws KotobaError ERR_FILE_WRITE */
export async function writePreview(path: string, picture: Picture, detail: string): Promise<void> {
  await writePng(path, picture, new Map([[KEYWORD, detail]]));
}
