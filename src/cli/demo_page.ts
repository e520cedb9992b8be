/** The demo's index.html: everything that was made, with the commands that make it. No script, nothing from outside. */
import type { DemoGrid } from './demo_plan.js';

/** By it a folder is known as the demo's own, which it may write into again. */
export const GENERATOR = '<meta name="generator" content="kotoba demo">';

export interface DemoPicture {
  readonly prompt: string;
  /** relative to the page */
  readonly file: string;
  readonly command: string;
}

export interface DemoPage {
  readonly pictures: readonly DemoPicture[];
  readonly grids: readonly DemoGrid[];
  readonly next: readonly string[];
  /** "8 pictures and … in 2.1 s on …" */
  readonly made: string;
}

const STYLE = `
  :root { color-scheme: light dark; --ink: #20222a; --quiet: #70737c; --paper: #fafaf8; --line: #d5d7dc; }
  @media (prefers-color-scheme: dark) { :root { --ink: #e6e7ea; --quiet: #9a9da6; --paper: #17181c; --line: #363841; } }
  body { margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 60rem; font: 16px/1.5 system-ui, sans-serif;
    color: var(--ink); background: var(--paper); }
  h1 { font-size: 1.9rem; margin: 0 0 .3rem; } h2 { font-size: 1.3rem; margin: 3rem 0 .4rem; }
  p { max-width: 44rem; } .quiet { color: var(--quiet); }
  .pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(12rem, 1fr)); gap: 1.5rem; margin: 1.5rem 0; }
  figure { margin: 0; } figcaption { margin-top: .4rem; font-size: .95rem; }
  .pictures img { width: 100%; image-rendering: pixelated; border: 1px solid var(--line); box-sizing: border-box; }
  .grid { max-width: 100%; height: auto; border: 1px solid var(--line); }
  pre { overflow-x: auto; padding: .7rem .9rem; border: 1px solid var(--line); border-radius: 6px; font-size: .85rem;
    white-space: pre-wrap; overflow-wrap: anywhere; }
  summary { cursor: pointer; color: var(--quiet); font-size: .9rem; }
`;

export function demoPage({ pictures, grids, next, made }: DemoPage): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
${GENERATOR}
<title>Kotoba demo</title>
<style>${STYLE}</style>
</head>
<body>
<h1>Kotoba: words into pictures</h1>
<p class="quiet">${escaped(made)}</p>
<p>The model is small, trained, and has exactly Flux.1's parts: a CLIP-L and a T5 read the prompt, a Flux transformer
draws in four steps, an autoencoder makes pixels of it. It knows eight colours, six shapes, two sizes and where things
are; words beyond that mean nothing to it. Everything here works the same with Flux.1 itself.</p>
<div class="pictures">
${pictures.map(figure).join('\n')}
</div>
<details><summary>The commands that make these pictures</summary>
${code(pictures.map(({ command }) => command))}
</details>
${grids.map(section).join('\n')}
<h2>Next</h2>
${code(next)}
<p>Each picture holds its settings: <code>npx kotoba generate --help</code> says how, and any program that shows
A1111's parameters shows them.</p>
</body>
</html>
`;
}

const figure = ({ prompt, file }: DemoPicture): string =>
  `<figure><a href="${escaped(file)}"><img src="${escaped(file)}" alt="${escaped(prompt)}" width="192" height="192"></a>` +
  `<figcaption>${escaped(prompt)}</figcaption></figure>`;

const section = ({ name, title, text, command }: DemoGrid): string => `<h2>${escaped(title)}</h2>
<p>${escaped(text)}</p>
<p><a href="${name}.png"><img class="grid" src="${name}.png" alt="${escaped(title)}"></a></p>
<p class="quiet">The numbers: <a href="${name}.json">${name}.json</a>. The command that makes it:</p>
${code([command])}`;

const code = (lines: readonly string[]): string => `<pre>${lines.map(escaped).join('\n')}</pre>`;

const escaped = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
