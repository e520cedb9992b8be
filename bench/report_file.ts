/** Reports as files: read back, and checked for what plots and tables need of them. */
import { readFileSync } from 'node:fs';
import { KotobaError } from '../src/errors.js';
import type { EncodeReport } from './encode.js';
import type { GenerateReport } from './generate.js';
import type { OpsReport } from './ops.js';

export type BenchReport = OpsReport | EncodeReport | GenerateReport;

/** @throws KotobaError ERR_FILE_READ, ERR_ARGUMENT: no report of ours, with what is wrong about it */
export function readReport(path: string): BenchReport {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    throw new KotobaError('ERR_FILE_READ', `${path}: ${(cause as Error).message}`, { cause });
  }
  try {
    return checkReport(JSON.parse(text));
  } catch (cause) {
    throw new KotobaError('ERR_ARGUMENT', `${path}: no bench report: ${(cause as Error).message}`, { cause });
  }
}

/** What a member of a report must be. */
type Rule = 'string' | 'number' | 'object' | 'array' | 'summary' | readonly string[];

const common: Readonly<Record<string, Rule>> = {
  date: 'string',
  commit: 'string',
  cpu: 'string',
  results: 'array',
};

/** By kind; `?` marks members that may be absent. */
const resultRules: Readonly<Record<BenchReport['what'], Readonly<Record<string, Rule>>>> = {
  ops: {
    name: 'string',
    group: 'string',
    threads: 'number',
    checks: 'array',
    times: 'array',
    'gflops?': 'number',
    'gbytes?': 'number',
  },
  encode: {
    file: 'string',
    tokens: 'number',
    threads: 'number',
    contender: 'string',
    'seconds?': 'summary',
    'gflops?': 'number',
    'timesPeer?': 'number',
  },
  generate: {
    file: 'string',
    width: 'number',
    height: 'number',
    steps: 'number',
    contender: 'string',
    'seconds?': 'object',
    'timesPeer?': 'object',
  },
};

const sideRules: Readonly<Record<string, Rule>> = { name: 'string', wall: 'summary', wallRatio: 'summary' };
const checkRules: Readonly<Record<string, Rule>> = { side: 'string', bound: 'number' };

/** @throws Error that names the first member that is not as it must be */
export function checkReport(value: unknown): BenchReport {
  const report = members(value, 'the file');
  requireMembers(report, { what: ['ops', 'encode', 'generate'], ...common }, '');
  const what = report['what'] as BenchReport['what'];
  for (const [i, each] of (report['results'] as unknown[]).entries()) {
    const at = `results[${i}].`;
    const result = members(each, at);
    requireMembers(result, resultRules[what], at);
    if (what !== 'ops') continue;
    for (const [j, side] of (result['times'] as unknown[]).entries())
      requireMembers(members(side, at), sideRules, `${at}times[${j}].`);
    for (const [j, check] of (result['checks'] as unknown[]).entries())
      requireMembers(members(check, at), checkRules, `${at}checks[${j}].`);
  }
  return value as BenchReport;
}

function members(value: unknown, where: string): Record<string, unknown> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value))
    return value as Record<string, unknown>;
  throw new Error(`${where}: expected an object, got ${JSON.stringify(value)?.slice(0, 40)}`);
}

function requireMembers(
  object: Record<string, unknown>,
  rules: Readonly<Record<string, Rule>>,
  where: string,
): void {
  for (const [key, rule] of Object.entries(rules)) {
    const name = key.replace('?', '');
    const value = object[name];
    if (value === undefined && key.endsWith('?')) continue;
    if (!follows(value, rule))
      throw new Error(
        `${where}${name}: expected ${describeRule(rule)}, got ${JSON.stringify(value)?.slice(0, 40)}`,
      );
  }
}

function follows(value: unknown, rule: Rule): boolean {
  if (Array.isArray(rule)) return rule.includes(value);
  if (rule === 'array') return Array.isArray(value);
  if (rule === 'summary')
    return ['median', 'p5', 'p95'].every(
      (name) => typeof (value as Record<string, unknown>)?.[name] === 'number',
    );
  return typeof value === rule && value !== null;
}

const describeRule = (rule: Rule): string =>
  typeof rule === 'string'
    ? rule === 'summary'
      ? 'a median, p5 and p95'
      : rule
    : `one of ${rule.join(', ')}`;
