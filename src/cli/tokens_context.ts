/** What a model's encoders come to together: rows of its context, and tokens that have no effect. */
import { chunkedRows, joinedRows } from '../pipeline/conditioning/join_encoders.js';
import { counted, grouped, type Style } from './text.js';
import type { TokensPlan } from './tokens_plan.js';
import { t5RulesOf } from './tokens_plan.js';
import type { Split } from './tokens_text.js';

export interface Context {
  readonly prompt: string;
  /** of all encoders that are attended to; null without T5's vocabulary where T5 is all that is */
  readonly rows: number | null;
  readonly clipRows: number;
  /** null without its vocabulary, 0 where the model has no T5 */
  readonly t5Rows: number | null;
  /** Tokens of the prompt that have no effect, by encoder. */
  readonly lost: Readonly<Record<string, number>>;
}

/** Rows of the CLIPs among one prompt's splits. */
export function clipRowsOf(splits: readonly Split[]): number {
  const clips = splits.filter(({ family }) => family !== 't5');
  return clips.length > 0 ? joinedRows(clips.map(({ result }) => chunkedRows(result))) : 0;
}

/**
 * @param splits of one prompt, by every encoder
 * @param plan   with a model
 */
export function contextOf(splits: readonly Split[], plan: TokensPlan): Context {
  const { rules, family } = plan.model!;
  const clipRows = clipRowsOf(splits);
  const t5 = splits.find((split) => split.family === 't5');
  const t5Rows = rules.t5 === 'none' ? 0 : t5 ? chunkedRows(t5.result).tokens : null;
  const lost = splits.flatMap((split) => {
    const { tokenCount, chunks, truncated } = split.result;
    const isVectorOnly = split.family !== 't5' && !rules.attendsClip;
    const count = truncated.ids.length + (isVectorOnly ? tokenCount - chunks[0]!.contentLength : 0);
    return count > 0 ? [[split.family, count] as const] : [];
  });
  const rows = family === 'flux' ? t5Rows : clipRows + (t5Rows ?? zeroRows(plan, clipRows));
  return { prompt: splits[0]!.prompt, rows, clipRows, t5Rows, lost: Object.fromEntries(lost) };
}

/** Rows of zeros in the place of a T5 that is not there. */
function zeroRows({ profile, model }: TokensPlan, clipRows: number): number {
  const rules = profile && model && t5RulesOf(profile, model.family);
  return rules?.absent === 'clip' ? clipRows : (rules?.absent ?? 0);
}

export function contextText(
  context: Context,
  splits: readonly Split[],
  plan: TokensPlan,
  style: Style,
): string[] {
  const { rules } = plan.model!;
  const { rows, clipRows, t5Rows, lost } = context;
  const clips = splits.flatMap(({ family }) => (family === 't5' ? [] : [family])).join(' ⊕ ');
  const parts = [
    ...(rules.attendsClip ? [`${clips} ${grouped(clipRows)}`] : []),
    ...(t5Rows ? [`t5 ${grouped(t5Rows)}`] : []),
  ];
  const total = rows === null ? 't5 only' : `${counted(rows, 'row')} attended to: ${parts.join(', then ')}`;
  const zeros = zeroRows(plan, clipRows);
  return [
    `${style.bold(style.cyan('together'))}  ${total}`,
    ...(t5Rows === null ? [absenceText(rules.t5, zeros)] : []),
    ...(rules.attendsClip ? [] : [`${clips}: only the vector of its first chunk is used`]),
    ...Object.entries(lost).map(([family, count]) =>
      style.yellow(`${family}: ${counted(count, 'token')} without effect`),
    ),
  ].map((line, i) => (i === 0 ? line : `  ${line}`));
}

function absenceText(t5: 'none' | 'optional' | 'required', zeros: number): string {
  if (t5 === 'required') return 't5: not shown without --t5 or --t5-tokenizer';
  return `t5: none given, ${zeros > 0 ? `${counted(zeros, 'row')} of zeros` : 'nothing'} in its place`;
}
