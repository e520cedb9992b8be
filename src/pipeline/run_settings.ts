/** The settings of a run, of something that has more. */
import type { RunSettings } from './image_types.js';

export function runSettings(of: RunSettings): RunSettings {
  const { width, height, profile, preset, steps, sampler, schedule, sigmas } = of;
  const { guidance, cfg, noise, strength } = of;
  return { width, height, profile, preset, steps, sampler, schedule, sigmas, guidance, cfg, noise, strength };
}
