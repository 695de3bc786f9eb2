// Fills the page from the data that html_data.c wrote into it. Sections below the fold are made when the browser has time, pictures
// when they are scrolled to: the answer stands at once.

const data = JSON.parse(document.getElementById('data').textContent);
const at = (id) => document.getElementById(id);

const metricOf = (name) => data.metrics.find((m) => m.name === name);
const formatOf = (name) => formats[metricOf(name).format];

// ---- head ----

function fillHead() {
  const s = data.state;
  const left = s.pending + s.leased;
  const parts = [`${formats.count(s.done)} of ${formats.count(s.total)} jobs done`];
  if (left > 0) parts.push(`${formats.count(left)} still to run: what follows is a snapshot of a running sweep`);
  if (s.buried > 0) parts.push(`${formats.count(s.buried)} failed for good`);
  if (s.last) parts.push(`results from ${s.first} to ${s.last} UTC`);
  at('state').textContent = `${parts.join('; ')}. Database ${s.database}; x axis: ${data.bitsTitle.toLowerCase()}.`;
  at('remarks').append(...data.remarks.map((r) => element('li', {}, r)));
}

// ---- answer ----

const chip = (k) => element('span', { class: 'chip', style: paint(data.colors[k] ?? '#999999') }, k >= 16 ? '16 bit' : `${k} bit`);

// How the share of resamples that agree is said in words.
function confidence(p) {
  if (p === null) return 'not known: no error bars';
  const percent = `${Math.round(100 * p)} %`;
  return p >= 0.95 ? `${percent}: sure` : p >= 0.8 ? `${percent}: likely` : `${percent}: open`;
}

// Stacked shares: how often each bit width is best, over the budgets.
function shareChart(strip) {
  const n = strip.bits.length;
  const svg = element('svg', { class: 'share', viewBox: `0 0 ${n} 1`, preserveAspectRatio: 'none', role: 'img', 'aria-label': 'Share of resamples in which each bit width is best, over the budgets' });
  for (let i = 0; i < n; i++) {
    let y = 0;
    strip.k.forEach((k, j) => {
      const p = strip.p[j][i];
      if (p <= 0) return;
      const rect = element('rect', { x: i, y, width: 1.02, height: p, style: `${paint(data.colors[k] ?? '#999999')}; fill: color-mix(in oklab, var(--c) var(--strength), var(--ink))` });
      rect.append(element('title', {}, `${formats.bits(strip.bits[i])}: ${k} bit best in ${Math.round(100 * p)} %`));
      svg.append(rect);
      y += p;
    });
  }
  const named = strip.k.filter((_, j) => strip.p[j].some((p) => p >= 0.05));
  return element('div', {}, svg,
    element('div', { class: 'share-axis' }, element('span', {}, formats.bits(strip.bits[0])), element('span', {}, 'total bits'), element('span', {}, formats.bits(strip.bits[n - 1]))),
    element('p', { class: 'soft' }, strip.drawn ? `Height: share of ${formats.count(data.resamples)} resamples in which a bit width is best: ` : 'The best bit width, without error bars: ', ...named.flatMap((k) => [element('span', { class: 'swatch', style: paint(data.colors[k] ?? '#999999') }), ` ${k} bit  `])));
}

// What the same checkpoint would give with one bit less or more.
function stepCell(step, format) {
  if (!step) return '–';
  return element('span', {}, `${step.k} bit: ${signed(format, step.change)} `, element('span', { class: 'range' }, range((v) => signed(format, v), step.low, step.high)), step.fits ? '' : ' over budget');
}

function budgetRow(budget, format) {
  const c = budget.choice;
  const m = budget.model;
  return [formats.bits(budget.bits), chip(c.k), c.label, element('span', {}, format(c.value), ' ', element('span', { class: 'range' }, range(format, c.low, c.high))), confidence(c.low === null ? null : c.p),
    m ? `${m.size}, ${m.label}: ${format(m.value)} with ${formats.bits(m.bits)}` : 'none fits', m ? stepCell(m.less, format) : '–', m ? stepCell(m.more, format) : '–'];
}

function familyAnswer(f, format) {
  const host = element('div', { class: 'family' }, element('h3', {}, f.title));
  if (f.budgets.length === 0) {
    host.append(element('p', {}, f.reason));
    return host;
  }
  host.append(element('p', { class: 'lead' }, f.lead));
  if (f.strip) host.append(shareChart(f.strip));
  host.append(plainTable(['budget', 'best k', 'best configuration', 'expected at this budget', 'confidence', 'best checkpoint run that fits', 'with one bit less', 'with one bit more'], f.budgets.map((b) => budgetRow(b, format)), [0]));
  return host;
}

function fillAnswers() {
  const metrics = data.answers.map((a) => [a.metric, metricOf(a.metric).title]);
  makeSwitch(at('answer-metric'), metrics, (name) => {
    const answer = data.answers.find((a) => a.metric === name);
    at('answers').replaceChildren(element('p', { class: 'soft' }, answer.note), ...answer.families.map((f) => familyAnswer(f, formatOf(name))));
  });
  if (metrics.length === 0) at('answers').append(element('p', {}, 'Nothing to compare yet: a bit width and the 16-bit baseline need results at two model sizes.'));
}

// ---- curves ----

function pointTable(figure) {
  const rows = figure.panels.flatMap((p) => p.series.flatMap((s) => s.x.map((x, i) => [p.title, s.label, s.names?.[i] ?? '', figure.bits ? formats.bits(x) : formats.short(x), figure.axis.format(s.y[i]), range(figure.axis.format, s.low?.[i], s.high?.[i])])));
  return plainTable(['panel', 'line', 'point', figure.xTitle, figure.yTitle, '95 % interval'], rows, [3, 4, 5]);
}

function makeFigure(figure) {
  figure.axis = { format: formats[figure.format], tick: figure.format === 'share' ? formats.percent : formats.short };
  const panels = element('div', { class: 'panels' }, ...figure.panels.map(() => element('div')));
  const draw = () => figure.panels.forEach((p, i) => drawPanel(panels.children[i], figure, p));
  const numbers = element('details', {}, element('summary', {}, 'the numbers'));
  numbers.addEventListener('toggle', () => numbers.children.length === 1 && numbers.append(pointTable(figure)));
  const host = element('figure', { id: `figure-${figure.name}` }, element('h3', {}, figure.title), panels, element('figcaption', {}, figure.caption), figure.scatter ? null : numbers);
  let drawnWidth = 0;
  const drawIfNeeded = () => {
    if (panels.clientWidth === 0 || Math.abs(panels.clientWidth - drawnWidth) < 2) return;
    drawnWidth = panels.clientWidth;
    draw();
  };
  let isSeen = false;
  new IntersectionObserver((entries, self) => {
    if (!entries.some((e) => e.isIntersecting)) return;
    self.disconnect();
    isSeen = true;
    drawIfNeeded();
  }, { rootMargin: '400px' }).observe(host);
  new ResizeObserver(() => isSeen && drawIfNeeded()).observe(panels);
  window.addEventListener('beforeprint', () => {
    isSeen = true;
    drawIfNeeded();
  });
  return host;
}

function fillCurves() {
  const names = [...new Set(data.figures.map((f) => f.metric).filter(Boolean))];
  makeSwitch(at('curve-metric'), names.map((n) => [n, metricOf(n).title]), (name) => {
    at('figures').replaceChildren(...data.figures.filter((f) => !f.metric || f.metric === name).map(makeFigure));
  });
  if (data.figures.length === 0) at('figures').append(element('p', {}, 'No quantized results to draw yet.'));
}

// ---- tables ----

function fillResults() {
  const columns = data.results.columns.map((c) => ({ ...c, format: c.format ? formats[c.format] : null }));
  makeTable(at('result-table'), { caption: 'Every configuration of every model', columns, rows: data.results.rows, tall: true, csv: 'results.csv' });
}

function claimDetails(claim) {
  const rows = claim.variants.flatMap((v) => v.parts.map((p) => [`${v.metric}, ${v.bits} bits`, p.label || '–', formats.short(p.value), range(formats.short, p.low, p.high), p.needs || '–', p.verdict]));
  return element('details', {}, element('summary', {}, claim.sentence), element('p', { class: 'soft' }, claim.test), claim.note ? element('p', { class: 'soft' }, claim.note) : null,
    rows.length > 0 ? plainTable(['seen in', 'for', 'statistic', '95 % interval', 'needs', 'verdict'], rows, [2, 3]) : null);
}

function fillClaims() {
  const host = at('claim-table');
  if (!data.claims) {
    host.append(element('p', {}, 'Not tested.'));
    return;
  }
  const list = data.claims.list;
  const counts = data.claims.counts.filter(([, n]) => n > 0).map(([verdict, n]) => `${n} ${verdict}`);
  host.append(element('p', {}, `${counts.join(', ')}. ${data.claims.remark}`));
  const column = (name, title, pick, more = {}) => ({ name, title, values: list.map(pick), ...more });
  makeTable(host, {
    caption: 'Claims', rows: list.length,
    columns: [
      column('id', 'claim', (c) => c.id),
      column('verdict', 'verdict', (c) => c.verdict, { filter: true, render: (v) => element('span', { class: `verdict ${v.replace(' ', '-')}` }, { confirmed: '✓ ', contradicted: '✗ ', inconclusive: '? ' }[v] ?? '', v) }),
      column('sentence', 'what the paper says', (c) => c.sentence, { wide: true, render: (_, row) => claimDetails(list[row]) }),
      column('value', 'statistic', (c) => c.value, { format: formats.short }),
      column('interval', '95 % interval', (c) => range(formats.short, c.low, c.high) || '–'),
      column('needs', 'needs', (c) => c.needs || '–'),
    ],
  });
}

function coverageCell(done, total) {
  if (total === 0) return element('td', { class: 'number' }, '');
  return element('td', { class: `number ${done === total ? 'full' : done > 0 ? 'part' : 'none'}` }, done === total ? formats.count(total) : `${formats.count(done)}/${formats.count(total)}`);
}

function fillCoverage() {
  const c = data.coverage;
  at('coverage-tables').append(element('p', { class: 'soft' }, 'Jobs done of jobs planned; one number where all are done.'));
  for (const t of c)
    at('coverage-tables').append(element('h3', {}, t.title), plainTable(t.heads, t.rows.map((r) => [...r.names, ...r.done.map((d, i) => coverageCell(d, r.total[i]))]), t.heads.map((_, i) => i).slice(t.rows[0]?.names.length ?? 0)));
}

function fillFailures() {
  const f = data.failures;
  const host = at('failure-tables');
  if (f.kinds.length === 0) {
    host.append(element('p', {}, 'No attempt has failed.'));
    return;
  }
  host.append(plainTable(['attempts', 'outcome', 'code', 'reason', 'last'], f.kinds.map((k) => [formats.count(k.n), k.outcome, k.code, element('td', { class: 'wide' }, k.text), k.last]), [0]));
  if (f.nKinds > f.kinds.length) host.append(element('p', { class: 'soft' }, `And ${formats.count(f.nKinds - f.kinds.length)} more reasons: SELECT code, text, count(*) FROM failures GROUP BY code, text.`));
  if (f.jobs.length === 0) return;
  host.append(element('h3', {}, 'Jobs that failed for good'));
  makeTable(host, { caption: 'Buried jobs', rows: f.jobs.length, tall: f.jobs.length > 20, columns: [
    { name: 'key', title: 'job', values: f.jobs.map((j) => j[0]), isKey: true },
    { name: 'error', title: 'last error', values: f.jobs.map((j) => j[1]), wide: true }] });
  if (f.nJobs > f.jobs.length) host.append(element('p', { class: 'soft' }, `And ${formats.count(f.nJobs - f.jobs.length)} more: isobit jobs --state buried.`));
}

function fillProvenance() {
  const host = at('provenance-tables');
  for (const t of data.provenance) {
    host.append(element('h3', {}, t.title));
    if (t.rows.length === 0) host.append(element('p', { class: 'soft' }, 'None.'));
    else makeTable(host, { caption: t.title, rows: t.rows.length, tall: t.rows.length > 40, columns: t.heads.map((h, i) => ({ name: h, title: h, values: t.rows.map((r) => r[i]), isKey: h.includes('SHA'), format: typeof t.rows[0][i] === 'number' ? formats.count : null })) });
  }
  for (const s of data.specs)
    host.append(element('details', {}, element('summary', {}, `Sweep ${s.sweep}: ${s.path}, planned ${s.planned}`), element('p', { class: 'soft code' }, `SHA-256 ${s.sha256}`), element('pre', {}, element('code', {}, s.text))));
  host.append(element('p', { class: 'soft' }, data.made));
}

fillHead();
fillAnswers();
const later = [fillCurves, fillResults, fillClaims, fillCoverage, fillFailures, fillProvenance];
const fillRest = () => {
  while (later.length > 0) later.shift()();
  performance.mark('ready');
  document.documentElement.dataset.ready = 'yes';
};
requestAnimationFrame(() => setTimeout(fillRest));
