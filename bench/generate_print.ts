/** The lines of `kotoba bench generate`. */
import type { GenerateBenchResult, Phase } from './generate_result.js';
import type { StepPeerResult } from './step_peer.js';

export function formatGenerateResult(r: GenerateBenchResult): string {
  const cells = [
    r.file.padEnd(9),
    `${r.width}x${r.height}`.padEnd(7),
    `${r.steps} steps`,
    r.cfg === undefined ? '' : `cfg ${r.cfg}`,
    r.threads === 0 ? '' : `${r.threads} thr`,
    r.contender.padEnd(5),
    ...timeCells(r),
    `RSS ${(r.rssPeak / 1e6).toFixed(0)}, weights ${(r.bytesUsed / 1e6).toFixed(0)} MB`,
    r.devicePeak ? `on the device ${(r.devicePeak / 1e6).toFixed(0)} MB` : '',
    r.contender === 'fp32' ? '' : `error ${r.relativeError.toExponential(1)} ${psnrText(r)}`,
    r.eventLoopDelayMs === undefined ? '' : `loop ${r.eventLoopDelayMs.toFixed(1)} ms`,
    r.timesPeer === undefined ? '' : timesPeerText(r.timesPeer),
  ];
  return cells.filter(Boolean).join('  ');
}

function timeCells({
  seconds,
  secondsPerStep,
  laterSteps,
  gflops,
  steps,
  loaded,
  threads,
}: GenerateBenchResult): string[] {
  if (!seconds || !gflops) return ['simulated, not a speed'];
  const phase = (name: Phase): string => `${name} ${seconds[name].median.toFixed(2)} s`;
  const { sample, total } = seconds;
  const rate = (value: number): string =>
    threads === 0 ? `${(value / 1000).toFixed(1)} TFLOP/s` : `${value.toFixed(0)} GFLOP/s`;
  const spread = [sample.p5, sample.p95].map((value) => (value / steps).toFixed(threads === 0 ? 3 : 2));
  return [
    ...(loaded ? [] : [phase('load')]),
    phase('encode'),
    `${secondsPerStep!.toFixed(threads === 0 ? 3 : 2)} s a step [${spread.join(', ')}]`,
    ...(laterSteps ? [`after the first ${laterSteps.median.toFixed(3)} s`] : []),
    rate(gflops.sample).padStart(12),
    `${phase('decode')} ${rate(gflops.decode)}`,
    `total ${total.median.toFixed(2)} s [${total.p5.toFixed(2)}, ${total.p95.toFixed(2)}]`,
  ];
}

const psnrText = ({ psnr }: GenerateBenchResult): string =>
  psnr === undefined ? '(identical)' : `(${psnr.toFixed(1)} dB)`;

const timesPeerText = (times: Readonly<Record<Phase, number>>): string =>
  `× peer: ${(['encode', 'sample', 'decode', 'total'] as const)
    .map((phase) => `${phase} ${times[phase].toFixed(2)}`)
    .join(', ')}`;

export function formatStepPeer({ name, description, secondsPerStep, timesPeer }: StepPeerResult): string {
  if (!secondsPerStep) return `${name}: not compared: ${description}`;
  const { median, p5, p95 } = secondsPerStep;
  const ratios = Object.entries(timesPeer ?? {}).map(([ours, ratio]) => `${ours} ${ratio.toFixed(2)}`);
  return (
    `${name} (${description}): ${median.toFixed(3)} s a step [${p5.toFixed(3)}, ${p95.toFixed(3)}]; ` +
    `times ours: ${ratios.join(', ')}`
  );
}
