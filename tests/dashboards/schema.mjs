// Dashboards against Grafana's own types (@grafana/schema), by the TypeScript compiler: a key that Grafana does not know, a
// value it does not take or one that is missing is an error. Panels' options against those of their kind of panel.
//   node schema.mjs TOOLS DASHBOARD...     (TOOLS: where node_modules is)
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import { basename, join } from 'node:path';

const [tools, ...files] = process.argv.slice(2);
const ts = createRequire(join(tools, 'x.js'))('typescript');
const base = '@grafana/schema/dist/esm/raw/composable';
const OPTIONS = {
  timeseries: ['timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen', 'Options'],
  stat: ['stat/panelcfg/x/StatPanelCfg_types.gen', 'Options'],
  bargauge: ['bargauge/panelcfg/x/BarGaugePanelCfg_types.gen', 'Options'],
  heatmap: ['heatmap/panelcfg/x/HeatmapPanelCfg_types.gen', 'Options'],
  table: ['table/panelcfg/x/TablePanelCfg_types.gen', 'Options'],
  'state-timeline': ['statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen', 'Options'],
};

let text = `import type { Dashboard, GraphFieldConfig } from '@grafana/schema';
// JSON has an enum's values, not its names.
type Plain<T> = T extends string ? \`\${T}\` : T extends number | boolean | undefined | null ? T
  : T extends (infer U)[] ? Plain<U>[] : unknown extends T ? T : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;
`;
Object.values(OPTIONS).forEach(([path, name], i) => {
  text += `import type { ${name} as Options${i} } from '${base}/${path}';\n`;
});
const where = [];
const say = (line, what) => {
  where.push([text.split('\n').length - 1, what]);
  text += line + '\n';
};
let unknown = 0;
files.forEach((file, n) => {
  const board = JSON.parse(readFileSync(file, 'utf8'));
  // Panels one by one, so that an error names its panel.
  const panels = board.panels;
  say(`export const board${n}: Plain<Dashboard> = ${JSON.stringify({ ...board, panels: [] })};`, basename(file));
  panels.forEach((panel, p) => {
    const name = `${basename(file)}: ${panel.title}`;
    say(`export const panel${n}_${p}: Plain<NonNullable<Dashboard['panels']>[number]> = ${JSON.stringify(panel)};`, name);
    if (panel.type === 'row') return;
    const kind = Object.keys(OPTIONS).indexOf(panel.type);
    if (kind < 0) {
      console.log(`${name}: ${panel.type} is no kind of panel that is checked`);
      unknown += 1;
      return;
    }
    if (panel.type === 'timeseries') {
      const custom = JSON.stringify(panel.fieldConfig.defaults.custom);
      say(`export const custom${n}_${p}: Plain<GraphFieldConfig> = ${custom};`, name);
    }
    say(`export const options${n}_${p}: Partial<Plain<Options${kind}>> = ${JSON.stringify(panel.options)};`, name);
  });
});

const file = join(tools, 'dashboards.ts');
const options = {
  strict: true, noEmit: true, skipLibCheck: true, types: [], target: ts.ScriptTarget.ES2022,
  module: ts.ModuleKind.ESNext, moduleResolution: ts.ModuleResolutionKind.Bundler,
};
const host = ts.createCompilerHost(options);
const read = host.getSourceFile;
host.getSourceFile = (name, ...rest) =>
  name === file ? ts.createSourceFile(name, text, ts.ScriptTarget.ES2022) : read(name, ...rest);
host.fileExists = ((exists) => (name) => name === file || exists(name))(host.fileExists);
const program = ts.createProgram([file], options, host);
const errors = ts.getPreEmitDiagnostics(program);
for (const e of errors) {
  const line = e.file ? e.file.getLineAndCharacterOfPosition(e.start).line : 0;
  const what = where.findLast(([at]) => at <= line)?.[1] ?? '';
  console.log(`${what}: ${ts.flattenDiagnosticMessageText(e.messageText, '\n')}`);
}
process.exit(errors.length + unknown > 0 ? 1 : 0);
