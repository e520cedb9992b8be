/**
 * The quantile of the beta distribution: x with I_x(a, b) = p, I the regularised incomplete beta function
 * I_x(a, b) = x^a (1 − x)^b / (a·B(a, b)) · continued fraction (NIST DLMF 8.17.22).
 */

const kIterations = 200;

export function betaQuantile(p: number, a: number, b: number): number {
  if (p <= 0) return 0;
  if (p >= 1) return 1;
  if (a === b && p === 0.5) return 0.5;
  // Newton on a bracket: where the bracket says otherwise, bisection.
  let low = 0;
  let high = 1;
  let x = a / (a + b);
  for (let i = 0; i < kIterations; i++) {
    const error = regularizedBeta(x, a, b) - p;
    if (error === 0) return x;
    if (error > 0) high = x;
    else low = x;
    const next = x - error / betaDensity(x, a, b);
    const accepted = next > low && next < high ? next : (low + high) / 2;
    if (Math.abs(accepted - x) <= 1e-16 * x) return accepted;
    x = accepted;
  }
  return x;
}

export function regularizedBeta(x: number, a: number, b: number): number {
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  // The fraction converges fast on the left of the mean only.
  if (x > (a + 1) / (a + b + 2)) return 1 - regularizedBeta(1 - x, b, a);
  return (Math.exp(a * Math.log(x) + b * Math.log1p(-x) - logBeta(a, b)) / a) * betaFraction(x, a, b);
}

const betaDensity = (x: number, a: number, b: number): number =>
  Math.exp((a - 1) * Math.log(x) + (b - 1) * Math.log1p(-x) - logBeta(a, b));

/** 1/(1 + d1/(1 + d2/(1 + …))), evaluated from its tail; 60 terms reach 1e-16 left of the mean for small a, b. */
function betaFraction(x: number, a: number, b: number): number {
  let value = 1;
  for (let m = 60; m >= 1; m--) {
    const even = (m * (b - m) * x) / ((a + 2 * m - 1) * (a + 2 * m));
    const odd = (-(a + m - 1) * (a + b + m - 1) * x) / ((a + 2 * m - 2) * (a + 2 * m - 1));
    value = 1 + odd / (1 + even / value);
  }
  return 1 / value;
}

const logBeta = (a: number, b: number): number => logGamma(a) + logGamma(b) - logGamma(a + b);

/** ln Γ(z) for z > 0: Stirling's series after shifting z above 10, error below 1e-15. */
function logGamma(z: number): number {
  let shift = 0;
  let t = z;
  for (; t < 10; t++) shift -= Math.log(t);
  const inverse = 1 / (t * t);
  const series =
    (1 / 12 - inverse * (1 / 360 - inverse * (1 / 1260 - inverse * (1 / 1680 - (inverse * 1) / 1188)))) / t;
  return shift + (t - 0.5) * Math.log(t) - t + 0.5 * Math.log(2 * Math.PI) + series;
}
