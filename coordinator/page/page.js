// The page of a coordinator: fetches /api/*.json every two seconds and draws what has changed. Everything shown goes through
// textContent or createElement, so that a name in a sweep cannot become markup.
'use strict';

const STATES = ['done', 'leased', 'pending', 'buried', 'held', 'cancelled'];
const PERIOD_MS = 2000;
const FEW = 8; // failures that are shown unasked
const docs = {}; // the last text of each document, and what it says
const chosen = { family: null, k: null };

const $ = (id) => document.getElementById(id);

const el = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null) continue;
    if (name.startsWith('--')) node.style.setProperty(name, value);
    else node.setAttribute(name, value === true ? '' : value);
  }
  node.append(...children.map((c) => (c instanceof Node ? c : String(c ?? ''))));
  return node;
};
const svg = (tag, attributes = {}, ...children) => {
  const node = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('--')) node.style.setProperty(name, value);
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
};

// ---- words for numbers ----

const count = (n) => Number(n).toLocaleString('en-US');
const duration = (s) => {
  if (s === null || s === undefined) return '–';
  if (s < 60) return `${Math.round(s)} s`;
  const m = Math.round(s / 60);
  return m < 60 ? `${m} min` : `${Math.floor(m / 60)} h ${String(m % 60).padStart(2, '0')} min`;
};
const bytes = (n) => (n >= 1e9 ? `${(n / 1e9).toFixed(1)} GB` : n > 0 ? `${Math.round(n / 1e6)} MB` : '');
const rate = (r) => (r >= 100 ? count(Math.round(r)) : r > 0 ? r.toPrecision(2) : '0');
const share = (a, b) => (b > 0 ? a / b : 0);
const percent = (x) => `${Math.floor(100 * x)} %`;

// ---- tables ----

// columns: [heading, (row) => content, class]
const fill = (table, columns, rows) => {
  const cell = (row, [, content, kind]) => el('td', { class: kind || false }, content(row));
  table.replaceChildren(
    el('thead', {}, el('tr', {}, ...columns.map(([heading, , kind]) => el('th', { class: kind || false, scope: 'col' }, heading)))),
    el('tbody', {}, ...rows.map((row) => el('tr', {}, ...columns.map((c) => cell(row, c))))),
  );
};

// A list of choices that keeps the one made.
const offer = (select, values, all) => {
  const wanted = [...(all ? [['', all]] : []), ...values.map((v) => [String(v), String(v)])];
  if (select.dataset.values === JSON.stringify(wanted)) return;
  const before = select.value;
  select.dataset.values = JSON.stringify(wanted);
  select.replaceChildren(...wanted.map(([value, text]) => el('option', { value }, text)));
  if (wanted.some(([value]) => value === before)) select.value = before;
};
const distinct = (rows, name) => [...new Set(rows.map((r) => r[name]))];

// ---- now ----

const drawStatus = () => {
  const d = docs.status.said;
  const name = d.db.split('/').pop();
  document.title = `${percent(share(d.states.done, d.total))} ${name} – isobit`;
  $('db').textContent = name;
  $('endpoint').textContent = d.endpoint;
  const isOver = d.states.pending + d.states.leased === 0;
  if (d.is_in_trouble) setHealth('the database cannot be written', 'bad');
  else setHealth(d.is_draining ? 'draining' : isOver ? 'nothing left to do' : 'serving', 'good');
  $('bar').replaceChildren(
    ...STATES.filter((s) => d.states[s] > 0).map((s) =>
      el('span', { class: s, '--share': share(d.states[s], d.total), title: `${s}: ${count(d.states[s])}` })),
  );
  const number = (label, value, kind) => el('div', { class: kind || false }, el('dt', {}, label), el('dd', {}, value));
  $('numbers').replaceChildren(
    number('done', `${count(d.states.done)} of ${count(d.total)}`, 's-done double'),
    number('running', count(d.states.leased), 's-leased'),
    number('pending', count(d.states.pending), 's-pending'),
    number('buried', count(d.states.buried), 's-buried'),
    ...['held', 'cancelled'].filter((s) => d.states[s] > 0).map((s) => number(s, count(d.states[s]), `s-${s}`)),
    number('jobs a second', rate(d.jobs_per_s)),
    number('time left', isOver ? 'none' : duration(d.eta_s)),
    number('workers', count(d.workers)),
  );
  drawHistory(d.history);
  $('sweeps').hidden = d.sweeps.length < 2;
  fill($('sweeps'), [
    ['sweep', (r) => r.sweep],
    ['done', (r) => `${count(r.done)} of ${count(r.total)}`, 'n'],
    ['', (r) => percent(share(r.done, r.total)), 'n'],
    ['buried', (r) => count(r.buried), 'n'],
    ['jobs a second', (r) => rate(r.jobs_per_s), 'n'],
    ['time left', (r) => (r.pending + r.leased === 0 ? 'none' : duration(r.eta_s)), 'n'],
  ], d.sweeps);
};

const drawHistory = (history) => {
  $('history').hidden = history.length < 2;
  if (history.length < 2) return;
  const last = history[history.length - 1].minute;
  const most = Math.max(...history.map((h) => h.done));
  $('history').querySelector('svg').replaceChildren(
    ...history.map((h) => {
      const height = 56 * share(h.done, most);
      return svg('rect', { x: 590 - (last - h.minute) / 6, y: 60 - height, width: 8.5, height },
        svg('title', {}, `${count(h.done)}`));
    }),
  );
};

// ---- progress ----

const progressRows = () => {
  const { columns, rows } = docs.progress.said;
  return rows.map((row) => Object.fromEntries(columns.map((c, i) => [c, row[i]])));
};

const sum = (rows) => {
  const total = Object.fromEntries(STATES.map((s) => [s, 0]));
  for (const r of rows) for (const s of STATES) total[s] += r[s];
  total.all = STATES.reduce((n, s) => n + total[s], 0);
  return total;
};

const filtered = (rows) => {
  const f = $('progress-filter').elements;
  return rows.filter((r) => (f.evaluation.value === '' || r.evaluation === f.evaluation.value) &&
    (f.dtype.value === '' || r.dtype === f.dtype.value || r.k >= 16));
};

// Cells are changed in place, so that one under the pointer stays what it is.
const drawHeat = () => {
  const all = progressRows();
  const f = $('progress-filter').elements;
  offer(f.evaluation, distinct(all, 'evaluation'), 'all');
  offer(f.dtype, distinct(all, 'dtype').filter((d) => d !== '').sort(), 'all');
  const families = distinct(all, 'family');
  const bits = distinct(all, 'k').sort((a, b) => a - b);
  const shape = JSON.stringify([families, bits]);
  if ($('heat').dataset.shape !== shape) {
    $('heat').dataset.shape = shape;
    const button = (family, k) => el('td', {}, el('button', { type: 'button', 'data-family': family, 'data-k': k, 'aria-pressed': 'false' }));
    $('heat').replaceChildren(
      el('thead', {}, el('tr', {}, el('th', {}, ''), ...bits.map((k) => el('th', { scope: 'col' }, k, el('span', { class: 'of' }, ' bit'))))),
      el('tbody', {}, ...families.map((family) => el('tr', {}, el('th', { scope: 'row' }, family), ...bits.map((k) => button(family, k))))),
    );
  }
  const groups = new Map();
  for (const r of filtered(all)) {
    const key = `${r.family}\n${r.k}`;
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(r);
  }
  for (const cell of $('heat').querySelectorAll('button')) {
    const { family, k } = cell.dataset;
    const n = sum(groups.get(`${family}\n${k}`) || []);
    cell.style.setProperty('--share', share(n.done, n.all));
    cell.classList.toggle('buried-some', n.buried > 0);
    cell.disabled = n.all === 0;
    cell.setAttribute('aria-pressed', String(family === chosen.family && k === chosen.k));
    cell.title = `${family}, ${k} bit: ${STATES.filter((s) => n[s] > 0).map((s) => `${count(n[s])} ${s}`).join(', ') || 'no jobs'}`;
    cell.replaceChildren(...(n.all === 0 ? ['–'] : [count(n.done), el('span', { class: 'of' }, ` / ${count(n.all)}`)]));
  }
  drawCell(filtered(all).filter((r) => r.family === chosen.family && String(r.k) === chosen.k));
};

const drawCell = (rows) => {
  $('cell').hidden = rows.length === 0;
  if (rows.length === 0) return;
  const groups = new Map();
  for (const r of rows) {
    const key = `${r.size}\n${r.dtype}`;
    if (!groups.has(key)) groups.set(key, { size: r.size, dtype: r.dtype, rows: [] });
    groups.get(key).rows.push(r);
  }
  const list = [...groups.values()].map((g) => ({ ...g, n: sum(g.rows) }));
  $('cell-title').textContent = `${chosen.family}, ${chosen.k} bit`;
  fill($('cell-rows'), [
    ['size', (g) => g.size],
    ['data type', (g) => g.dtype || '–'],
    ['done', (g) => `${count(g.n.done)} of ${count(g.n.all)}`, 'n'],
    ['running', (g) => count(g.n.leased), 'n'],
    ['pending', (g) => count(g.n.pending), 'n'],
    ['buried', (g) => count(g.n.buried), 'n'],
  ], list);
};

// ---- scaling ----

const colour = (k) => `var(--k${[3, 4, 5, 6, 7, 8, 16].includes(k) ? k : 'x'})`;
const shortBits = (x) => (x >= 1e12 ? `${+(x / 1e12).toPrecision(3)}T` : x >= 1e9 ? `${+(x / 1e9).toPrecision(3)}G` : `${+(x / 1e6).toPrecision(3)}M`);

// Round numbers inside [low, high]: powers of ten and their parts over decades, even steps over less.
const ticks = (low, high, isLog) => {
  const found = [];
  if (isLog && high / low > 8) {
    const steps = high / low > 200 ? [1] : high / low > 30 ? [1, 3] : [1, 2, 5];
    for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++)
      found.push(...steps.map((s) => s * 10 ** e).filter((t) => t >= low && t <= high));
    return found;
  }
  const rough = (high - low) / 5 || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((s) => s * power >= rough);
  for (let i = Math.ceil(low / step); i * step <= high; i++) found.push(i * step);
  return found;
};

const scaler = (values, from, to, isLog, pad) => {
  const f = isLog ? Math.log10 : (x) => x;
  let low = f(Math.min(...values));
  let high = f(Math.max(...values));
  const extra = (high - low) * pad || Math.abs(high) * 0.1 || 1;
  low -= extra;
  high += extra;
  const scale = (x) => from + ((f(x) - low) / (high - low)) * (to - from);
  const back = isLog ? (x) => 10 ** x : (x) => x;
  scale.ticks = ticks(back(low), back(high), isLog);
  return scale;
};

// The best data type for each size and number of bits, unless one is chosen.
const curvePoints = (rows, isLowBest) => {
  const best = new Map();
  for (const r of rows) {
    const key = `${r.family}\n${r.k}\n${r.size}`;
    const known = best.get(key);
    if (!known || (isLowBest ? r.value < known.value : r.value > known.value)) best.set(key, r);
  }
  const curves = new Map();
  for (const r of best.values()) {
    const key = `${r.family}\n${r.k}`;
    if (!curves.has(key)) curves.set(key, { family: r.family, k: r.k, points: [] });
    curves.get(key).points.push(r);
  }
  for (const c of curves.values()) c.points.sort((a, b) => a.total_bits_full - b.total_bits_full);
  return [...curves.values()].sort((a, b) => a.k - b.k);
};

const drawScaling = () => {
  const f = $('scaling-filter').elements;
  if (docs.scaling.said[f.measure.value].length === 0 && !f.measure.dataset.chosen) // show the one that there is
    for (const { value } of f.measure.options) if (docs.scaling.said[value].length > 0) f.measure.value = value;
  const measure = f.measure.value;
  const all = docs.scaling.said[measure];
  offer(f.family, distinct(all, 'family'), null);
  offer(f.dtype, distinct(all.filter((r) => r.k < 16), 'dtype').sort(), 'the best');
  const rows = all.filter((r) => r.family === f.family.value && (f.dtype.value === '' || r.dtype === f.dtype.value || r.k >= 16));
  if (rows.length === 0) {
    $('chart').replaceChildren(el('p', { class: 'empty' }, 'No results yet for this choice.'));
    return;
  }
  const isPerplexity = measure === 'perplexity';
  const curves = curvePoints(rows, isPerplexity);
  const names = curves.map((c) => el('span', { '--c': colour(c.k) }, `${c.k} bit`));
  $('chart').replaceChildren(el('p', { class: 'names' }, ...names), chart(curves, isPerplexity));
};

const chart = (curves, isPerplexity) => {
  const isNarrow = window.innerWidth < 640;
  const [width, height] = isNarrow ? [380, 330] : [860, 420];
  const box = { left: 52, right: width - 12, top: 8, bottom: height - 40 };
  const points = curves.flatMap((c) => c.points);
  const x = scaler(points.map((p) => p.total_bits_full), box.left, box.right, true, 0.06);
  const y = scaler(points.map((p) => p.value), box.bottom, box.top, isPerplexity, 0.08);
  const picture = svg('svg', { viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': 'quality against total bits, one line for each bit width' });
  for (const t of x.ticks)
    picture.append(svg('line', { class: 'axis', x1: x(t), x2: x(t), y1: box.top, y2: box.bottom }),
      svg('text', { x: x(t), y: box.bottom + 16, 'text-anchor': 'middle' }, shortBits(t)));
  for (const t of y.ticks)
    picture.append(svg('line', { class: 'axis', x1: box.left, x2: box.right, y1: y(t), y2: y(t) }),
      svg('text', { x: box.left - 6, y: y(t) + 4, 'text-anchor': 'end' }, String(+t.toPrecision(3))));
  picture.append(svg('text', { x: (box.left + box.right) / 2, y: height - 6, 'text-anchor': 'middle' }, 'total bits of the model'));
  for (const c of curves) {
    const line = svg('g', { '--c': colour(c.k) });
    line.append(svg('path', { class: 'curve', d: c.points.map((p, i) => `${i ? 'L' : 'M'}${x(p.total_bits_full)},${y(p.value)}`).join('') }));
    for (const p of c.points)
      line.append(svg('circle', { cx: x(p.total_bits_full), cy: y(p.value), r: 4 },
        svg('title', {}, `${p.family} ${p.size}, ${p.k} bit ${p.k < 16 ? `${p.dtype}, block ${p.block || 'tensor'}` : ''}: ${+p.value.toPrecision(5)} at ${shortBits(p.total_bits_full)} bits`)));
    picture.append(line);
  }
  return picture;
};

// ---- workers ----

const drawWorkers = () => {
  const all = docs.workers.said.workers;
  const rows = all.filter((w) => w.state === 'live' || $('workers-filter').elements.gone.checked);
  fill($('workers'), [
    ['host', (w) => w.host],
    ['device', (w) => w.device],
    ['state', (w) => (w.state === 'live' ? w.doing || 'live' : w.state)],
    ['model loaded', (w) => w.checkpoint || '–'],
    ['in hand', (w) => count(w.leased), 'n'],
    ['done', (w) => count(w.done), 'n'],
    ['failed', (w) => count(w.failed), 'n'],
    ['memory', (w) => bytes(w.memory_bytes), 'n wide'],
    ['here for', (w) => (w.connected_s === undefined ? '' : duration(w.connected_s)), 'n wide'],
    ['worker', (w) => w.worker.slice(0, 8), 'wide'],
  ], rows);
  if (rows.length === 0)
    $('workers').tBodies[0].append(el('tr', {}, el('td', { colspan: 10, class: 'empty' }, 'No worker is here: isobit-worker run --connect ' + (docs.status ? docs.status.said.endpoint : 'ADDRESS'))));
};

// ---- failures ----

const drawFailures = () => {
  const d = docs.failures.said;
  const f = $('failures-filter').elements;
  const wanted = f.find.value.toLowerCase();
  const isWanted = (r) => (wanted === '' || `${r.code} ${r.text} ${r.key ?? ''} ${r.host ?? ''}`.toLowerCase().includes(wanted));
  const counts = d.counts.filter((c) => isWanted(c) && (!f.buried.checked || c.buried > 0));
  const latest = new Map(); // of each job, the newest attempt comes first
  for (const r of d.failures) if (!latest.has(r.job)) latest.set(r.job, r);
  const rows = [...latest.values()].filter((r) => isWanted(r) && (!f.buried.checked || r.state === 'buried'))
    .sort((a, b) => (b.state === 'buried') - (a.state === 'buried')); // what needs a person comes first
  $('more').hidden = rows.length <= FEW;
  $('more-count').textContent = count(rows.length);
  $('counts').hidden = counts.length === 0;
  fill($('counts'), [
    ['error', (c) => c.code],
    ['', (c) => c.text],
    ['attempts', (c) => count(c.attempts), 'n'],
    ['jobs buried', (c) => count(c.buried), 'n'],
  ], counts);
  $('failures').replaceChildren(...(rows.length === 0
    ? [el('li', { class: 'empty' }, d.failures.length === 0 ? 'None.' : 'None that fits.')]
    : rows.slice(0, f.all.checked ? rows.length : FEW).map((r) => el('li', {},
      el('div', { class: 'what' }, `${r.code}: ${r.text}`),
      el('div', {}, `attempt ${r.attempt} ${r.outcome} on ${r.host ?? 'an unknown host'}, ${r.ended_at}; the job is ${r.state}`),
      el('div', { class: 'key-text' }, r.key),
      r.state === 'buried' ? el('code', {}, r.hint) : el('div', { class: 'empty' }, r.hint)))));
};

// ---- keeping up ----

const setHealth = (text, kind) => {
  $('health').textContent = text;
  $('health').className = `badge ${kind}`;
};

const draw = { status: drawStatus, progress: drawHeat, scaling: drawScaling, workers: drawWorkers, failures: drawFailures };

// Draws a document when it says something new.
const renew = async (name) => {
  const answer = await fetch(`/api/${name}`);
  if (!answer.ok) return; // not ready yet: next time
  const text = await answer.text();
  if (docs[name] && docs[name].text === text) return;
  docs[name] = { text, said: JSON.parse(text) };
  draw[name]();
};

const keepUp = async () => {
  try {
    await Promise.all(Object.keys(draw).map(renew));
  } catch (error) {
    setHealth('no answer', 'bad');
  }
  setTimeout(keepUp, document.hidden ? 5 * PERIOD_MS : PERIOD_MS);
};

const redraw = (name) => docs[name] && draw[name]();

$('heat').addEventListener('click', (event) => {
  const cell = event.target.closest('button');
  if (!cell) return;
  const isSame = cell.dataset.family === chosen.family && cell.dataset.k === chosen.k;
  chosen.family = isSame ? null : cell.dataset.family;
  chosen.k = isSame ? null : cell.dataset.k;
  redraw('progress');
});
for (const [form, name] of [['progress-filter', 'progress'], ['scaling-filter', 'scaling'], ['workers-filter', 'workers'], ['failures-filter', 'failures']]) {
  $(form).addEventListener('input', () => redraw(name));
  $(form).addEventListener('submit', (event) => event.preventDefault());
}
$('scaling-filter').elements.measure.addEventListener('input', (event) => { event.target.dataset.chosen = 'yes'; });
window.addEventListener('resize', () => redraw('scaling'));
keepUp();
