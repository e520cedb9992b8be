/** Solver and schedule names as A1111's and Forge's menus spell them; unknown names are left as they are. */
const SOLVERS: Readonly<Record<string, string>> = {
  euler: 'Euler',
  euler_ancestral: 'Euler a',
  heun: 'Heun',
  dpm_2: 'DPM2',
  dpm_2_ancestral: 'DPM2 a',
  lms: 'LMS',
  dpmpp_2s_ancestral: 'DPM++ 2S a',
  dpmpp_sde: 'DPM++ SDE',
  dpmpp_2m: 'DPM++ 2M',
  dpmpp_2m_sde: 'DPM++ 2M SDE',
  dpmpp_3m_sde: 'DPM++ 3M SDE',
  lcm: 'LCM',
  ddim: 'DDIM',
  uni_pc: 'UniPC',
  deis: 'DEIS',
};

const SCHEDULES: Readonly<Record<string, string>> = {
  normal: 'Normal',
  simple: 'Simple',
  sgm_uniform: 'SGM Uniform',
  karras: 'Karras',
  exponential: 'Exponential',
  polyexponential: 'Polyexponential',
  ddim_uniform: 'DDIM',
  beta: 'Beta',
  kl_optimal: 'KL Optimal',
  linear_quadratic: 'Linear Quadratic',
};

const inverse = (table: Readonly<Record<string, string>>): ReadonlyMap<string, string> =>
  new Map(Object.entries(table).map(([ours, theirs]) => [theirs.toLowerCase(), ours]));

const OUR_SOLVERS = inverse(SOLVERS);
const OUR_SCHEDULES = inverse(SCHEDULES);

export const solverLabel = (solver: string): string => SOLVERS[solver] ?? solver;
export const scheduleLabel = (schedule: string): string => SCHEDULES[schedule] ?? schedule;
export const solverOfLabel = (label: string): string => OUR_SOLVERS.get(label.toLowerCase()) ?? label;
export const scheduleOfLabel = (label: string): string => OUR_SCHEDULES.get(label.toLowerCase()) ?? label;
