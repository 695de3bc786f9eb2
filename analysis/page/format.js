// How numbers are written, and small helpers to make elements. Values that were not measured are null and print as an en dash.

const prefixes = ['', 'k', 'M', 'G', 'T', 'P'];

// 12300000 -> "12.3 M"
function si(value) {
  if (value === null) return '–';
  let i = 0;
  let shown = value;
  while (Math.abs(shown) >= 999.5 && i + 1 < prefixes.length) {
    shown /= 1000;
    i++;
  }
  const digits = Math.abs(shown) >= 99.95 ? 0 : Math.abs(shown) >= 9.995 ? 1 : 2;
  return `${Number(shown.toFixed(digits))} ${prefixes[i]}`.trim();
}

const formats = {
  bits: (v) => (v === null ? '–' : `${si(v)}bit`.replace(/(\d)bit/, '$1 bit')),
  count: (v) => (v === null ? '–' : v.toLocaleString('en')),
  si,
  perplexity: (v) => (v === null ? '–' : v >= 1000 ? v.toExponential(1) : v.toFixed(v >= 100 ? 1 : 2)),
  nats: (v) => (v === null ? '–' : v.toFixed(4)),
  share: (v) => (v === null ? '–' : `${(100 * v).toFixed(1)} %`),
  percent: (v) => (v === null ? '–' : `${Number((100 * v).toFixed(1))} %`),
  short: (v) => (v === null ? '–' : String(Number(v.toPrecision(4))).replace('-', '−')),
  text: (v) => v ?? '–',
};

// "−0.42": with its sign and a real minus.
function signed(format, value) {
  if (value === null) return '–';
  return `${value < 0 ? '−' : '+'}${format(Math.abs(value))}`;
}

function range(format, low, high) {
  return low === null || low === undefined || high === null ? '' : `[${format(low)}, ${format(high)}]`;
}

const svgNames = new Set(['svg', 'g', 'path', 'line', 'text', 'circle', 'rect', 'title']);

// element('td', {class: 'number'}, 'text', child, …)
function element(name, attributes = {}, ...children) {
  const e = svgNames.has(name) ? document.createElementNS('http://www.w3.org/2000/svg', name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith('on')) e.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) e.setAttribute(key, value === true ? '' : value);
  }
  e.append(...children.filter((c) => c !== null && c !== undefined));
  return e;
}

// The 16-bit line is black on paper and white on a dark page.
const paint = (color) => `--c: ${color === '#222222' ? 'var(--ink)' : color}`;

// A row of buttons of which one is pressed; fn hears the choice, the first one at once.
function makeSwitch(host, choices, fn) {
  const choose = (value) => {
    for (const b of host.children) b.setAttribute('aria-pressed', b.dataset.value === value);
    fn(value);
  };
  if (choices.length > 1)
    for (const [value, title] of choices)
      host.append(element('button', { type: 'button', 'data-value': value, onclick: () => choose(value) }, title));
  if (choices.length > 0) choose(choices[0][0]);
}
