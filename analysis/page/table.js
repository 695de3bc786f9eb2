// A table over columns of plain values: sorting by a click on a head, filters, and rows that are made only when they are scrolled to,
// because a paper-sized sweep has thousands of them.
//
//   makeTable(host, {caption, columns: [{name, title, format, values, words, filter, wide, render}], rows, tall, note})
//
// A column's values are numbers or texts, or with `words` indices into these. null stands for what was not measured and sorts last.

const chunkRows = 150;

const cellOf = (column, row) => {
  const v = column.values[row];
  return v !== null && column.words ? column.words[v] : v;
};

function compareCells(a, b) {
  if (a === null || b === null) return (a === null) - (b === null);
  return typeof a === 'string' ? a.localeCompare(b, 'en', { numeric: true }) : a - b;
}

function makeRow(columns, row) {
  return element(
    'tr',
    {},
    ...columns.map((c) => {
      const v = cellOf(c, row);
      const classes = [typeof v === 'number' || c.format ? 'number' : '', c.wide ? 'wide' : '', c.isKey ? 'key code' : ''].join(' ').trim();
      return element('td', { class: classes || null }, c.render ? c.render(v, row) : c.format ? c.format(v) : formats.text(v));
    }),
  );
}

// The distinct values of a column, for its filter; null where there are too few or too many to choose from.
function choicesOf(column, n) {
  const seen = new Set();
  for (let row = 0; row < n && seen.size < 60; row++) seen.add(cellOf(column, row));
  return seen.size < 2 || seen.size >= 60 ? null : [...seen].sort(compareCells);
}

function makeFilters(columns, n, changed) {
  const bar = element('div', { class: 'filters' });
  const tests = new Map();
  for (const column of columns.filter((c) => c.filter)) {
    const choices = choicesOf(column, n);
    if (!choices) continue;
    const select = element('select', { 'data-filter': column.name }, element('option', { value: '' }, 'all'));
    choices.forEach((v, i) => select.append(element('option', { value: String(i) }, column.render || !column.format ? formats.text(v) : column.format(v))));
    select.addEventListener('change', () => {
      const wanted = choices[Number(select.value)];
      if (select.value === '') tests.delete(column);
      else tests.set(column, (row) => cellOf(column, row) === wanted);
      changed();
    });
    bar.append(element('label', {}, column.title, select));
  }
  const search = element('input', { type: 'search', 'data-filter': 'search' });
  search.addEventListener('input', () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const texts = columns.filter((c) => !c.format || c.words);
    const rowText = (row) => texts.map((c) => cellOf(c, row) ?? '').join(' ').toLowerCase();
    if (words.length === 0) tests.delete('search');
    else tests.set('search', (row) => words.every((w) => rowText(row).includes(w)));
    changed();
  });
  bar.append(element('label', {}, 'contains', search));
  return { bar, passes: (row) => [...tests.values()].every((test) => test(row)) };
}

function downloadCsv(name, columns, rows) {
  const quote = (v) => (v === null ? '' : typeof v === 'string' && /[",\n]/.test(v) ? `"${v.replaceAll('"', '""')}"` : v);
  const lines = [columns.map((c) => c.name).join(','), ...rows.map((row) => columns.map((c) => quote(cellOf(c, row))).join(','))];
  const link = element('a', { download: name, href: URL.createObjectURL(new Blob([`${lines.join('\n')}\n`], { type: 'text/csv' })) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function makeTable(host, { caption, columns, rows: n, tall = false, csv = null, sortBy = null }) {
  let order = Array.from({ length: n }, (_, i) => i);
  let shown = order;
  let made = 0;
  let sorted = { column: null, isDown: false };
  const body = element('tbody');
  const label = element('caption', { 'aria-live': 'polite' });
  const more = element('button', { type: 'button', onclick: () => addRows() }, 'more rows');
  const scroll = element('div', { class: tall ? 'scroll tall' : 'scroll', tabindex: 0, role: 'region', 'aria-label': caption });

  const addRows = () => {
    const end = Math.min(made + chunkRows, shown.length);
    for (; made < end; made++) body.append(makeRow(columns, shown[made]));
    more.hidden = made >= shown.length;
  };
  const refresh = () => {
    shown = order.filter(filters.passes);
    made = 0;
    body.replaceChildren();
    scroll.scrollTop = 0;
    label.textContent = `${caption}: ${shown.length === n ? formats.count(n) : `${formats.count(shown.length)} of ${formats.count(n)}`} rows`;
    addRows();
  };
  const filters = makeFilters(columns, n, refresh);

  const sort = (column, head, isDown) => {
    sorted = { column, isDown };
    for (const h of heads.children) h.removeAttribute('aria-sort');
    head.setAttribute('aria-sort', isDown ? 'descending' : 'ascending');
    const sign = isDown ? -1 : 1;
    order = order.slice().sort((a, b) => {
      const [x, y] = [cellOf(column, a), cellOf(column, b)];
      return x === null || y === null ? compareCells(x, y) : sign * compareCells(x, y);
    });
    refresh();
  };
  const heads = element('tr', {}, ...columns.map((column) => {
    const head = element('th', { scope: 'col', class: column.format ? 'number' : null, 'data-column': column.name });
    head.append(element('button', { type: 'button', onclick: () => sort(column, head, sorted.column === column && !sorted.isDown) }, column.title));
    return head;
  }));
  if (csv) filters.bar.append(element('button', { type: 'button', onclick: () => downloadCsv(csv, columns, shown) }, 'save as CSV'));
  scroll.append(element('table', {}, label, element('thead', {}, heads), body), more);
  host.append(...(n > 8 ? [filters.bar] : []), scroll);
  new IntersectionObserver((seen) => seen.some((s) => s.isIntersecting) && made < shown.length && addRows(), { root: tall ? scroll : null, rootMargin: '300px' }).observe(more);
  refresh();
  const first = columns.findIndex((c) => c.name === sortBy);
  if (first >= 0) sort(columns[first], heads.children[first], false);
}

// A small table of given cells: heads, rows of texts or elements.
function plainTable(heads, rows, numbers = []) {
  const cell = (v, i) => (v instanceof Element && v.tagName === 'TD' ? v : element('td', { class: numbers.includes(i) ? 'number' : null }, v));
  return element('div', { class: 'scroll' }, element('table', {},
    element('thead', {}, element('tr', {}, ...heads.map((h, i) => element('th', { scope: 'col', class: numbers.includes(i) ? 'number' : null }, h)))),
    element('tbody', {}, ...rows.map((r) => element('tr', {}, ...r.map(cell))))));
}
