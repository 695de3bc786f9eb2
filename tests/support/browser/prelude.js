// What a test script finds in the page (browse.c puts it there before the script). The script is the body of an async function:
//
//   await browser.resize(390, 844);
//   await browser.click('th[data-column="k"]');
//   check(document.querySelectorAll('tbody tr').length > 0, 'the table has rows');
//   await browser.screenshot('phone.png');
//
// Input goes through the browser as a person's would: what lies under something else is not clicked, hovering really hovers.
// Everything returns a promise; a check that fails is told and counted, the script goes on.
const browser = (() => {
  const waiting = new Map();
  let lastId = 0;
  let failures = 0;
  const lines = [];

  window.__browserAnswer = (id, result, error) => {
    const { resolve, reject } = waiting.get(id);
    waiting.delete(id);
    if (error) reject(new Error(error));
    else resolve(result);
  };

  // Any DevTools command. With `file` (in the folder of --out) the bytes of the result's `data` are written there.
  const send = (method, params = {}, file = null) =>
    new Promise((resolve, reject) => {
      waiting.set(++lastId, { resolve, reject });
      window.__browserAsk(JSON.stringify({ id: lastId, method, params, file }));
    });

  const found = (target) => {
    const element = typeof target === 'string' ? document.querySelector(target) : target;
    if (!element) throw new Error(`nothing matches ${target}`);
    return element;
  };
  const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
  const frame = () => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
  const mouse = (type, x, y, more = {}) => send('Input.dispatchMouseEvent', { type, x, y, ...more });

  const centre = async (target) => {
    const element = found(target);
    element.scrollIntoView({ block: 'center', inline: 'nearest', behavior: 'instant' });
    await frame();
    const box = element.getBoundingClientRect();
    return [box.x + box.width / 2, box.y + box.height / 2];
  };

  return {
    send,
    sleep,
    frame, // until what was changed is painted
    // Until fn() is true; an error names `what` after limitMs.
    until: async (fn, what, limitMs = 20000) => {
      const end = performance.now() + limitMs;
      while (!(await fn())) {
        if (performance.now() > end) throw new Error(`waited ${limitMs} ms in vain: ${what}`);
        await sleep(20);
      }
    },
    hoverAt: (x, y) => mouse('mouseMoved', x, y).then(frame),
    hover: async (target) => {
      const [x, y] = await centre(target);
      await mouse('mouseMoved', x, y);
      await frame();
    },
    click: async (target) => {
      const [x, y] = await centre(target);
      const button = { button: 'left', clickCount: 1 };
      await mouse('mouseMoved', x, y);
      await mouse('mousePressed', x, y, button);
      await mouse('mouseReleased', x, y, button);
      await frame();
    },
    // Into the focused element, as from a keyboard.
    type: (text) => send('Input.insertText', { text }).then(frame),
    press: async (key) => {
      const code = { Tab: 9, Enter: 13, Escape: 27, ' ': 32, ArrowUp: 38, ArrowDown: 40 }[key] ?? 0;
      const what = { key, code: key, windowsVirtualKeyCode: code, text: key === 'Enter' ? '\r' : undefined };
      await send('Input.dispatchKeyEvent', { type: 'keyDown', ...what });
      await send('Input.dispatchKeyEvent', { type: 'keyUp', ...what });
      await frame();
    },
    resize: (width, height, scale = 1) =>
      send('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor: scale, mobile: width < 600 }).then(frame),
    // media({dark: true}), media({print: true}), media({reducedMotion: true})
    media: ({ dark = false, print = false, reducedMotion = false } = {}) =>
      send('Emulation.setEmulatedMedia', {
        media: print ? 'print' : 'screen',
        features: [
          { name: 'prefers-color-scheme', value: dark ? 'dark' : 'light' },
          { name: 'prefers-reduced-motion', value: reducedMotion ? 'reduce' : 'no-preference' },
        ],
      }).then(frame),
    // What is visible, or with {full: true} the whole page, or {element: '#id'}.
    screenshot: async (file, { full = false, element = null } = {}) => {
      const params = { format: 'png', captureBeyondViewport: full || element !== null };
      if (element !== null) {
        const box = found(element).getBoundingClientRect();
        params.clip = { x: box.x + scrollX, y: box.y + scrollY, width: box.width, height: box.height, scale: 1 };
      } else if (full) {
        const root = document.documentElement;
        params.clip = { x: 0, y: 0, width: root.clientWidth, height: root.scrollHeight, scale: 1 };
      }
      return send('Page.captureScreenshot', params, file);
    },
    pdf: (file) => send('Page.printToPDF', { printBackground: true, preferCSSPageSize: true }, file),
    // Milliseconds from the start of loading to the load event, and to the first paint of content.
    timing: () => {
      const load = performance.getEntriesByType('navigation')[0];
      const paint = performance.getEntriesByName('first-contentful-paint')[0];
      return { load: load.loadEventEnd, paint: paint ? paint.startTime : NaN };
    },
    say: (text) => lines.push(String(text)),
    check: (isTrue, what) => {
      if (!isTrue) failures++;
      lines.push(`${isTrue ? 'ok' : 'FAILED'}: ${what}`);
    },
    result: () => ({ failures, lines }),
  };
})();
const check = browser.check;
