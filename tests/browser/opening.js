// How long a page takes from the start of loading until everything in it is made.
await browser.until(() => document.documentElement.dataset.ready === 'yes', 'the page is ready', 60000);
browser.say(`load ${browser.timing().load.toFixed(0)} ms`);
browser.say(`ready ${performance.getEntriesByName('ready')[0].startTime.toFixed(0)} ms`);
