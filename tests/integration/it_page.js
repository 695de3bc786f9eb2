// What a person does with the page of a running coordinator (it_page.c): looks, waits, clicks, filters; on a desk and on a phone.
const text = (selector) => document.querySelector(selector)?.textContent ?? '';
const cells = () => [...document.querySelectorAll('#heat button')];
const doneCount = () => Number(text('#numbers dd').split(' ')[0].replaceAll(',', ''));
const choose = async (selector, value) => {
  const select = document.querySelector(selector);
  select.value = value;
  select.dispatchEvent(new Event('input', { bubbles: true }));
  select.dispatchEvent(new Event('change', { bubbles: true }));
  await browser.frame();
};

await browser.until(() => cells().length > 0 && doneCount() > 0, 'the page shows jobs', 20000);
check(document.title.includes('s.db'), 'the title names the database');
check(text('#health') === 'serving', 'the coordinator serves');
check(cells().length === 14, 'two families by seven widths');
check(text('#numbers').includes('of 590'), 'all jobs are counted');

// It keeps up by itself.
const before = doneCount();
await browser.until(() => doneCount() > before, 'the number of done jobs grows without a reload', 10000);
await browser.until(() => document.querySelectorAll('#workers tbody tr').length === 2, 'two workers are listed', 10000);
check(text('#workers').includes('fake'), 'with their device');
await browser.until(() => /pythia-s|gpt2-s/.test(text('#workers')), 'and the model that is loaded', 10000);

// A cell opens its sizes and data types, and closes again.
const cell = document.querySelector('#heat button[data-family="pythia"][data-k="4"]');
check(document.querySelector('#cell').hidden, 'nothing is chosen at first');
await browser.click(cell);
check(!document.querySelector('#cell').hidden && text('#cell-title') === 'pythia, 4 bit', 'a click opens a cell');
const rows = document.querySelectorAll('#cell-rows tbody tr').length;
check(rows === 12, `three sizes by four data types (${rows})`);
check(cell.getAttribute('aria-pressed') === 'true', 'and marks it');

// Filters count less.
const all = cell.title;
await choose('#progress-filter [name=evaluation]', 'piqa');
check(cell.title !== all, 'an evaluation narrows the counts');
await choose('#progress-filter [name=dtype]', 'float');
check(document.querySelectorAll('#cell-rows tbody tr').length === 3, 'a data type narrows the rows');
await choose('#progress-filter [name=evaluation]', '');
await choose('#progress-filter [name=dtype]', '');
check(document.querySelectorAll('#cell-rows tbody tr').length === 12, 'all again');
await browser.click(cell);
check(document.querySelector('#cell').hidden, 'a second click closes it');

// Failures: what, how often, and what to do.
await browser.until(() => document.querySelectorAll('#failures code').length > 0, 'a buried job is shown', 60000);
check(text('#failures .what') === 'FORMAT: made to fail', 'with its error');
check(/^isobit retry --db '.*s\.db' 'v1\|.*'$/.test(text('#failures code')), `with the command that tries it again: ${text('#failures code')}`);
await browser.click('#failures-filter [name=find]');
await browser.type('no such thing');
await browser.until(() => text('#failures') === 'None that fits.', 'finding narrows the list');
await choose('#failures-filter [name=find]', '');
await browser.click('#failures-filter [name=buried]');
await browser.until(() => [...document.querySelectorAll('#failures li')].every((li) => li.querySelector('code')), 'only buried jobs are left');
await browser.click('#failures-filter [name=buried]');

// The curve.
await browser.until(() => document.querySelectorAll('#chart circle').length > 5, 'the scaling curve has points', 60000);
check(document.querySelectorAll('#chart path.curve').length >= 3, 'and a line for each width');
await choose('#scaling-filter [name=family]', 'gpt2');
check([...document.querySelectorAll('#chart circle title')].every((t) => t.textContent.startsWith('gpt2')), 'a family can be chosen');
await choose('#scaling-filter [name=family]', 'pythia');
await choose('#scaling-filter [name=measure]', 'perplexity');
check(text('#chart').includes('No results yet'), 'a measure without results says so');
await choose('#scaling-filter [name=measure]', 'mean_zero_shot');

// How it looks.
const fits = () => document.documentElement.scrollWidth <= window.innerWidth;
await browser.click(cell);
await browser.screenshot('desktop.png', { full: true });
check(fits(), 'nothing sticks out on a desk');
await browser.resize(390, 844);
await browser.frame();
check(fits(), `nothing sticks out on a phone: ${document.documentElement.scrollWidth} of ${window.innerWidth}`);
await browser.screenshot('phone.png', { full: true });
await browser.media({ dark: true });
await browser.screenshot('phone-dark.png', { full: true });
await browser.resize(1280, 900);
await browser.screenshot('desktop-dark.png');
const ground = getComputedStyle(document.body).backgroundColor;
check(ground === 'rgb(20, 23, 28)', `dark ground: ${ground}`);
check(performance.getEntriesByType('resource').every((r) => r.name.startsWith(location.origin)), 'nothing comes from elsewhere');
