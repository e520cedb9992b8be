// Schedules, solvers, guidance and noise. Knows functions and vectors, never a model, a tensor or a device.
export type { Algebra, Denoiser, NoiseSource, Term } from './algebra.js';
export { BrownianNoise } from './brownian_noise.js';
export { cfg, guided, skipLayerGuidance, type SkipLayerParts } from './guidance.js';
export { NOISE, noiseNamed, philoxNoise, torchNoise, type NoiseName } from './noise.js';
export { MAX_SEED, type NoiseGenerator } from './noise_generator.js';
export { isFlow, type NoiseLevels, type Prediction } from './noise_level.js';
export {
  denoiserOf,
  PARAMETERIZATIONS,
  startLatent,
  type DenoiserParts,
  type Network,
  type Parameterization,
  type StartParts,
} from './parameterization.js';
export type { PhiloxNoise } from './philox_noise.js';
export {
  makeSigmas,
  scheduleNamed,
  SCHEDULES,
  type Schedule,
  type ScheduleName,
  type ScheduleOptions,
  type SigmasRequest,
} from './schedules.js';
export {
  fluxDev,
  fluxMu,
  fluxSchnell,
  kFluxDevMu,
  scaledLinear,
  sd3,
  type ScaledLinearOptions,
  type SigmaModel,
} from './sigma_model.js';
export type { Sampling, SamplingStep, SolverOptions } from './solver.js';
export { sample, solverNamed, SOLVERS, type SampleRequest, type Solver, type SolverName } from './solvers.js';
export type { TorchNoise } from './torch_noise.js';
