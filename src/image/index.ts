/**
 * Pictures as bytes: no device, no model.
 *
 *   const picture = pictureFromValues(decoded, { width: 64, height: 64 });       // floats of the autoencoder → RGB
 *   await writePng('out.png', picture, metadataTexts(info));                     // A1111's text and our JSON inside
 *   const again = parseMetadata((await readPicture('out.png')).texts)?.info;     // the same `info`
 *   const { mae, psnr, ssim } = pictureDistance(picture, other);
 *   await writePng('grid.png', drawGrid({ title, columns, rows }));
 */
export { parseInfotext, formatInfotext, type Infotext } from './infotext.js';
export { drawGrid, tile, type Grid, type GridCell, type TileOptions } from './grid.js';
export {
  metadataTexts,
  parseMetadata,
  type GenerationInfo,
  type PartInfo,
  type ReadMetadata,
} from './metadata.js';
export {
  embeddingDistance,
  pictureDistance,
  ssim,
  type EmbeddingDistance,
  type PictureDistance,
} from './metrics.js';
export { MAX_PIXELS, blankPicture, enlarge, paste, type Picture, type Rgb } from './picture.js';
export { pictureFromValues, valuesFromPicture, type PixelLayout, type PixelShape } from './pixels.js';
export {
  decodePng,
  encodePng,
  readPicture,
  readPngTexts,
  writePng,
  type DecodeOptions,
  type PictureWithTexts,
} from './png.js';
export { coverPicture, resizePicture, workingSize } from './resize.js';
