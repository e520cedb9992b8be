/** One self-contained HTML page from bench reports: inline SVG and CSS, nothing fetched, no script. */
import { goalRows } from '../goals.js';
import type { BenchReport } from '../report_file.js';
import { sectionsOf, table, type Section } from './sections.js';
import { escapeText } from './svg.js';

const TITLES: Readonly<Record<BenchReport['what'], string>> = {
  ops: 'Kernels',
  encode: 'Text encoders',
  generate: 'Pictures',
};

const STYLE = `
:root { --ground: #fff; --ink: #1b1b1f; --soft: #63636e; --grid: #e3e3ea; --limit: #b0005a; --behind: #b02a00;
  --series-0: #0072b2; --series-1: #d55e00; --series-2: #009e73; --series-3: #cc79a7; --series-4: #7a6fd0;
  --series-5: #a37c00; --series-6: #56b4e9; --series-7: #5f6b6d; --series-8: #8c2d04; --series-9: #1b7837; }
@media (prefers-color-scheme: dark) { :root { --ground: #17171b; --ink: #ececf1; --soft: #a0a0ad; --grid: #33333c;
  --limit: #ff7ab8; --behind: #ff9a76; --series-0: #4aa8e0; --series-1: #ff9248; --series-2: #33c79b;
  --series-4: #a49bf0; --series-5: #e0b83c; --series-7: #9aa7a9;
  --series-8: #f0a07a; --series-9: #8fd19e; } }
body { background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; max-width: 1020px;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.3rem; margin-top: 3rem; } h3 { font-size: 1.05rem; margin: 2rem 0 0.2rem; }
p.note, dl { color: var(--soft); margin: 0.2rem 0 0.8rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; } dd { margin: 0; }
svg { max-width: 100%; height: auto; } svg text { font: 12px system-ui, sans-serif; fill: var(--ink); }
svg text.tick { fill: var(--soft); font-size: 11px; } svg text.behind { fill: var(--behind); }
.grid { stroke: var(--grid); } .reference { stroke: var(--ink); stroke-width: 1.5; }
.limit { stroke: var(--limit); stroke-width: 1.5; stroke-dasharray: 6 4; }
table { border-collapse: collapse; font-size: 0.9rem; margin: 0.5rem 0; }
th, td { text-align: left; padding: 0.2rem 0.8rem 0.2rem 0; border-bottom: 1px solid var(--grid); }
div.wide { overflow-x: auto; }`;

export function makePage(reports: readonly BenchReport[]): string {
  const goals = goalRows(reports).filter((row) => row.measured !== undefined);
  const body = [
    '<h1>Kotoba, measured</h1>',
    ...(goals.length ? [goalsHtml(goals)] : []),
    ...reports.map(reportHtml),
  ];
  return (
    `<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n` +
    `<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>Kotoba: benches</title>\n` +
    `<style>${STYLE}\n</style>\n</head>\n<body>\n${body.join('\n')}\n</body>\n</html>\n`
  );
}

function goalsHtml(goals: ReturnType<typeof goalRows>): string {
  const rows = goals.map((row) => [row.what, row.goal, row.measured!, row.isMet ? 'met' : 'missed']);
  return `<h2>Goals</h2><div class="wide">${table(['what', 'goal', 'measured', ''], rows)}</div>`;
}

function reportHtml(report: BenchReport): string {
  const sections = sectionsOf(report).map(sectionHtml);
  const nothing = '<p>Nothing in this report was timed.</p>';
  return `<h2>${TITLES[report.what]}</h2>\n${factsHtml(report)}\n${sections.join('\n') || nothing}`;
}

function factsHtml(report: BenchReport): string {
  const { gpu, versions, command } = report as Partial<BenchReport>;
  const facts: (readonly [string, string | undefined])[] = [
    [
      'GPU',
      gpu &&
        `${gpu.description}${gpu.driver ? `, driver ${gpu.driver}` : ''}${gpu.simulated ? ' (no speed)' : ''}`,
    ],
    ['CPU', `${report.cpu} (${report.instructions})`],
    ['commit', report.commit],
    ['date', report.date.slice(0, 16).replace('T', ' ')],
    ['command', command && `kotoba ${command}`],
    [
      'versions',
      versions &&
        Object.entries(versions)
          .map((entry) => entry.join(' '))
          .join(', '),
    ],
    ['note', (report as { note?: string }).note],
    ['peer', (report as { peer?: string }).peer],
  ];
  const shown = facts.filter(([, value]) => value);
  return `<dl>${shown.map(([name, value]) => `<dt>${name}</dt><dd>${escapeText(value!)}</dd>`).join('')}</dl>`;
}

const sectionHtml = ({ title, note, body }: Section): string =>
  `<h3>${escapeText(title)}</h3>\n${note ? `<p class="note">${escapeText(note)}</p>` : ''}<div class="wide">${body}</div>`;
