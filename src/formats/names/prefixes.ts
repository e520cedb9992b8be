/** Where a network sits in a bigger file: the prefix names the kind of checkpoint, and often the slot. */
import type { ClipSlot } from '../part.js';

interface Place {
  readonly pattern: RegExp;
  readonly title: string;
  /** the slot such a place holds, for networks whose size tells nothing */
  readonly slot?: ClipSlot;
}

const kPlaces: readonly Place[] = [
  { pattern: /^text_encoder\/$/, title: 'diffusers folder', slot: 'clip_l' },
  { pattern: /^text_encoder_2\/$/, title: 'diffusers folder', slot: 'clip_g' },
  { pattern: /^text_encoder_3\/$|^(transformer|unet|vae)\/$/, title: 'diffusers folder' },
  { pattern: /^cond_stage_model\.transformer\.$/, title: 'SD1 checkpoint', slot: 'clip_l' },
  { pattern: /^cond_stage_model\.model\.$/, title: 'SD2 checkpoint', slot: 'clip_g' },
  { pattern: /^cond_stage_model\.1\./, title: 'stable-diffusion.cpp checkpoint', slot: 'clip_g' },
  { pattern: /^conditioner\.embedders\.\d+\.transformer\.$/, title: 'SDXL checkpoint', slot: 'clip_l' },
  { pattern: /^conditioner\.embedders\.\d+\.model\.$/, title: 'SDXL checkpoint', slot: 'clip_g' },
  { pattern: /^text_encoders\.clip_l\./, title: 'SD3 / ComfyUI checkpoint', slot: 'clip_l' },
  { pattern: /^text_encoders\.clip_g\./, title: 'SD3 / ComfyUI checkpoint', slot: 'clip_g' },
  { pattern: /^text_encoders\./, title: 'SD3 / ComfyUI checkpoint' },
  { pattern: /^clip_l\./, title: 'ComfyUI text encoder save', slot: 'clip_l' },
  { pattern: /^clip_g\./, title: 'ComfyUI text encoder save', slot: 'clip_g' },
  { pattern: /^(te|te1)\./, title: 'stable-diffusion.cpp checkpoint', slot: 'clip_l' },
  { pattern: /^te2\./, title: 'stable-diffusion.cpp checkpoint', slot: 'clip_g' },
  { pattern: /^model\.diffusion_model\./, title: 'checkpoint' },
  { pattern: /^(first_stage_model|vae)\./, title: 'checkpoint' },
];

export function placeOf(prefix: string): { title?: string; slot?: ClipSlot } {
  if (prefix === '') return {};
  const place = kPlaces.find(({ pattern }) => pattern.test(prefix));
  return place ?? { title: `under "${prefix}"` };
}

/** "Hugging Face names (SDXL checkpoint)" */
export function namingOf(scheme: string, prefix: string): string {
  const { title } = placeOf(prefix);
  return title === undefined ? scheme : `${scheme} (${title})`;
}
