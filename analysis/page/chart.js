// One panel of a picture as SVG: axes, lines with their bands, a name at each line, and a reading of all lines under the pointer.
// The data are figure.h's: {title, series: [{label, color, dashed, x, y, low, high, names}]}.

const margin = { top: 30, bottom: 44, left: 66 };
const chartHeight = 330;

// An axis maps numbers to pixels; `space` is where straight lines are straight.
function makeAxis(kind, from, to, start, end) {
  const space = kind === 'log' ? Math.log : (v) => v;
  const back = kind === 'log' ? Math.exp : (v) => v;
  const a = space(from);
  const b = space(to);
  const scale = (end - start) / (b - a || 1);
  return { kind, from, to, start, end, space, at: (v) => start + (space(v) - a) * scale, invert: (pixel) => back(a + (pixel - start) / scale) };
}

// Widened by shares of the length, so that points do not lie on the frame.
function widen(kind, from, to, below, above) {
  if (kind === 'log') {
    const length = Math.max(Math.log(to / from), 0.05);
    return [from * Math.exp(-below * length), to * Math.exp(above * length)];
  }
  const length = Math.max(to - from, kind === 'whole' ? 1 : 1e-3);
  return [from - below * length, to + above * length];
}

function niceStep(rough) {
  const power = 10 ** Math.floor(Math.log10(rough));
  const m = rough / power;
  return power * (m < 1.5 ? 1 : m < 3.5 ? 2 : m < 7.5 ? 5 : 10);
}

function ticksOf(axis, wanted) {
  const ticks = [];
  if (axis.kind === 'log' && axis.to / axis.from >= 4) {
    const steps = axis.to / axis.from > 1e4 ? [1] : [1, 2, 5];
    for (let p = Math.floor(Math.log10(axis.from)); p <= Math.log10(axis.to); p++)
      for (const s of steps) ticks.push(s * 10 ** p);
  } else {
    const step = axis.kind === 'whole' ? 1 : niceStep((axis.to - axis.from) / wanted);
    for (let i = Math.ceil(axis.from / step); i * step <= axis.to; i++) ticks.push(Number((i * step).toPrecision(12)));
  }
  return ticks.filter((t) => t >= axis.from && t <= axis.to);
}

function extent(panel, pick) {
  let from = Infinity;
  let to = -Infinity;
  for (const s of panel.series)
    for (const list of pick(s))
      for (const v of list ?? []) {
        from = Math.min(from, v);
        to = Math.max(to, v);
      }
  return [from, to];
}

const pathOf = (points) => points.map(([x, y], i) => `${i === 0 ? 'M' : 'L'}${x.toFixed(1)} ${y.toFixed(1)}`).join('');

function drawSeries(s, figure, x, y) {
  const points = s.x.map((v, i) => [x.at(v), y.at(s.y[i])]);
  const g = element('g', { class: s.dashed ? 'series dashed' : 'series', style: paint(s.color), 'data-label': s.label });
  if (s.low && points.length > 1) {
    const upper = s.x.map((v, i) => [x.at(v), y.at(s.high[i])]);
    const lower = s.x.map((v, i) => [x.at(v), y.at(s.low[i])]).reverse();
    g.append(element('path', { class: 'band', d: `${pathOf([...upper, ...lower])}Z` }));
  }
  if (!figure.scatter) g.append(element('path', { class: 'line', d: pathOf(points) }));
  for (const [px, py] of points) g.append(element('circle', { class: 'dot', cx: px.toFixed(1), cy: py.toFixed(1), r: figure.scatter ? 2.5 : 3.2 }));
  return g;
}

// "3 bit" becomes "3" where many lines begin close together.
const shortLabel = (panel, s) => (panel.series.length > 4 ? s.label.replace(/ bit$/, '') : s.label);

const overlaps = (a, b) => a.x < b.x + b.width + 3 && b.x < a.x + a.width + 3 && Math.abs(a.y - b.y) < 13;

// What is drawn, as dots: a line has some between its points.
function dotsOf(panel, x, y) {
  const dots = [];
  for (const s of panel.series)
    s.x.forEach((v, i) => {
      const j = Math.min(i + 1, s.x.length - 1);
      for (let t = 0; t < 10; t++) dots.push({ x: ((10 - t) * x.at(v) + t * x.at(s.x[j])) / 10, y: ((10 - t) * y.at(s.y[i]) + t * y.at(s.y[j])) / 10, cost: t === 0 ? 40 : 6 });
    });
  return dots;
}

// Places that a name can take beside its first point, with what their distance costs; `away` is the free side, up or down.
function placesAround(px, py, width, away) {
  const places = [];
  for (let up = -1; up <= 6; up++)
    for (let side = -4; side <= 4; side++)
      if (up !== 0 || side !== 0)
        places.push({ x: px + (side * (width / 2 + 4)) / 2 - width / 2, y: py + 4 + away * (up + (side === 0 || up !== 0)) * 13, width, cost: 12 * Math.abs(up) + 7 * Math.abs(side) + (up < 0 ? 20 : 0) });
  return places;
}

// Names at the starts of lines take the place that covers least; names at the ends keep their order and move up until they are free.
function placeLabels(svg, figure, panel, x, y) {
  const nameOf = (i) => svg.querySelector(`[data-index="${i}"]`);
  if (figure.scatter) {
    panel.series.forEach((s, i) => nameOf(i).append(element('text', { x: x.at(x.to) + 8, y: margin.top + 6 + 16 * i }, s.label)));
    return;
  }
  const atStart = figure.labels === 'start';
  const falling = panel.series.reduce((sum, s) => sum + y.at(s.y[s.y.length - 1]) - y.at(s.y[0]), 0) > 0;
  const lastY = (i) => y.at(panel.series[i].y[panel.series[i].y.length - 1]);
  const order = panel.series.map((s, i) => i).filter((i) => panel.series[i].x.length > 0);
  if (!atStart) order.sort((i, j) => lastY(j) - lastY(i));
  const dots = dotsOf(panel, x, y);
  const placed = [];
  const covers = (p, dot) => dot.x > p.x - 4 && dot.x < p.x + p.width + 4 && dot.y > p.y - 15 && dot.y < p.y + 6;
  const badness = (p) => p.cost + (p.x < x.start - 4 ? 60 : 0) + 200 * placed.filter((q) => overlaps(p, q)).length + dots.reduce((sum, dot) => sum + (covers(p, dot) ? dot.cost : 0), 0);
  for (const i of order) {
    const s = panel.series[i];
    const at = atStart ? 0 : s.x.length - 1;
    const text = element('text', {}, atStart ? shortLabel(panel, s) : s.label);
    nameOf(i).append(text);
    const width = text.getComputedTextLength() || 7 * s.label.length;
    let place = { x: x.at(s.x[at]) + 8, y: y.at(s.y[at]) + 4, width };
    if (atStart) place = placesAround(x.at(s.x[at]), y.at(s.y[at]), width, falling ? -1 : 1).reduce((a, b) => (badness(b) < badness(a) ? b : a));
    else while (placed.some((q) => overlaps(place, q))) place.y -= 2;
    placed.push(place);
    text.setAttribute('x', place.x.toFixed(1));
    text.setAttribute('y', place.y.toFixed(1));
  }
}

function drawAxes(svg, figure, x, y) {
  const bottom = y.start;
  const right = x.end;
  for (const t of ticksOf(y, 5)) {
    svg.append(element('line', { class: 'grid', x1: margin.left, x2: right, y1: y.at(t), y2: y.at(t) }));
    svg.append(element('text', { x: margin.left - 8, y: y.at(t) + 4, 'text-anchor': 'end' }, figure.axis.tick(t)));
  }
  let last = -Infinity;
  for (const t of ticksOf(x, 6)) {
    if (x.at(t) - last < 52) continue;
    last = x.at(t);
    svg.append(element('line', { class: 'grid', x1: x.at(t), x2: x.at(t), y1: bottom, y2: bottom + 4 }));
    svg.append(element('text', { x: x.at(t), y: bottom + 18, 'text-anchor': 'middle' }, figure.bits ? si(t) : formats.short(t)));
  }
  svg.append(element('text', { x: (margin.left + right) / 2, y: chartHeight - 8, 'text-anchor': 'middle' }, figure.xTitle));
  const middle = (margin.top + bottom) / 2;
  svg.append(element('text', { x: 14, y: middle, 'text-anchor': 'middle', transform: `rotate(-90 14 ${middle})` }, figure.yTitle));
}

// The line's value at v, as the curves are defined: straight between points, nothing outside.
function readLine(s, v, x, y) {
  const n = s.x.length;
  if (n === 0 || v < s.x[0] * (1 - 1e-9) || v > s.x[n - 1] * (1 + 1e-9)) return null;
  let i = 1;
  while (i < n - 1 && v > s.x[i]) i++;
  if (n === 1) return { value: s.y[0], low: s.low?.[0], high: s.high?.[0] };
  const t = Math.min(1, Math.max(0, (x.space(v) - x.space(s.x[i - 1])) / (x.space(s.x[i]) - x.space(s.x[i - 1]))));
  const mix = (list) => {
    if (!list) return undefined;
    const a = y.space(list[i - 1]);
    const mixed = a + (y.space(list[i]) - a) * t;
    return y.kind === 'log' ? Math.exp(mixed) : mixed;
  };
  return { value: mix(s.y), low: mix(s.low), high: mix(s.high) };
}

function nearestPoint(panel, x, y, px, py) {
  let best = null;
  for (const s of panel.series)
    s.x.forEach((v, i) => {
      const distance = Math.hypot(x.at(v) - px, y.at(s.y[i]) - py);
      if (!best || distance < best.distance) best = { distance, s, i };
    });
  return best;
}

const tip = () => document.getElementById('tip');

function showTip(head, rows, clientX, clientY) {
  const box = tip();
  const body = rows.map(([color, label, value, interval]) =>
    element('tr', {}, element('td', {}, element('span', { class: 'swatch', style: paint(color) })), element('td', {}, label), element('td', { class: 'number' }, value), element('td', { class: 'number range' }, interval)));
  box.replaceChildren(element('strong', {}, head), element('table', {}, element('tbody', {}, ...body)));
  box.hidden = false;
  const { width, height } = box.getBoundingClientRect();
  box.style.left = `${Math.max(4, Math.min(clientX + 16, innerWidth - width - 4))}px`;
  box.style.top = `${clientY + 16 + height > innerHeight ? Math.max(4, clientY - height - 12) : clientY + 16}px`;
}

// What the pointer at (px, py) of the drawing means: [head, rows].
function readPanel(figure, panel, x, y, px, py) {
  const format = figure.axis.format;
  const near = nearestPoint(panel, x, y, px, py);
  const name = near && near.distance < 14 ? `${near.s.names?.[near.i] ?? ''}` : '';
  if (figure.scatter) {
    if (!near) return null;
    return [near.s.names?.[near.i] ?? '', [[near.s.color, near.s.label, format(near.s.y[near.i]), `${figure.xTitle} ${formats.short(near.s.x[near.i])}`]]];
  }
  const v = name !== '' ? near.s.x[near.i] : figure.xAxis === 'whole' ? Math.round(x.invert(px)) : x.invert(px);
  const rows = panel.series
    .map((s) => [s, readLine(s, v, x, y)])
    .filter(([, read]) => read !== null)
    .sort(([, a], [, b]) => (figure.largerIsBetter ? b.value - a.value : a.value - b.value))
    .map(([s, read]) => [s.color, s.label, format(read.value), range(format, read.low, read.high)]);
  return [`${figure.bits ? formats.bits(v) : `${figure.xTitle} ${v}`}${name !== '' ? ` · ${near.s.label} of ${name}` : ''}`, rows];
}

function addReading(svg, figure, panel, x, y) {
  const cross = element('line', { class: 'cross', y1: margin.top, y2: chartHeight - margin.bottom, visibility: 'hidden' });
  svg.append(cross);
  let px = (x.start + x.end) / 2;
  const readAt = (newX, py, clientX, clientY) => {
    px = Math.min(x.end, Math.max(x.start, newX));
    const reading = readPanel(figure, panel, x, y, px, py);
    if (!reading) return;
    cross.setAttribute('x1', px);
    cross.setAttribute('x2', px);
    cross.setAttribute('visibility', figure.scatter ? 'hidden' : 'visible');
    showTip(...reading, clientX, clientY);
  };
  const hide = () => {
    cross.setAttribute('visibility', 'hidden');
    tip().hidden = true;
  };
  const atKey = (step) => {
    const box = svg.getBoundingClientRect();
    readAt(px + step, -1e6, box.x + px + step, box.y + margin.top);
  };
  svg.addEventListener('pointermove', (e) => {
    const box = svg.getBoundingClientRect();
    readAt(e.clientX - box.x, e.clientY - box.y, e.clientX, e.clientY);
  });
  svg.addEventListener('pointerleave', hide);
  svg.addEventListener('blur', hide);
  svg.addEventListener('focus', () => svg.matches(':focus-visible') && atKey(0));
  svg.addEventListener('keydown', (e) => {
    if (e.key === 'Escape') hide();
    else if (e.key === 'ArrowLeft' || e.key === 'ArrowRight') {
      atKey(e.key === 'ArrowLeft' ? -12 : 12);
      e.preventDefault();
    }
  });
}

// Draws into `host`, as wide as it is.
function drawPanel(host, figure, panel) {
  const width = Math.max(280, Math.min(host.clientWidth, 700));
  const besides = figure.scatter || figure.labels === 'end'; // names stand right of the lines
  const right = besides ? 16 + 7 * Math.max(...panel.series.map((s) => s.label.length)) : 16;
  const x = makeAxis(figure.xAxis, ...widen(figure.xAxis, ...extent(panel, (s) => [s.x]), 0.05, 0.03), margin.left, width - right);
  const [low, high] = extent(panel, (s) => [s.y, s.low, s.high]);
  const y = makeAxis(figure.yAxis, ...widen(figure.yAxis, low, high, 0.1, 0.12), chartHeight - margin.bottom, margin.top);
  const names = panel.series.map((s) => s.label).join(', ');
  const svg = element('svg', { viewBox: `0 0 ${width} ${chartHeight}`, width, height: chartHeight, role: 'img', tabindex: 0, 'aria-label': `${figure.title}: ${panel.title}. Lines: ${names}.` });
  host.replaceChildren(svg);
  svg.append(element('text', { class: 'panel-title', x: margin.left, y: 16 }, panel.title));
  drawAxes(svg, figure, x, y);
  panel.series.forEach((s, i) => {
    const g = drawSeries(s, figure, x, y);
    g.dataset.index = i;
    svg.append(g);
  });
  placeLabels(svg, figure, panel, x, y);
  addReading(svg, figure, panel, x, y);
}
