// What the page shows of real nsqds, without a reload: one appears, is tombstoned, falls silent, leaves. And 100,000 topics, tokens,
// a proxy with a prefix, tabs that share one watch, each warning, long names, and what axe finds.
//
//     RINGLOOKUPD=target/debug/ringlookupd PAGE_PICTURES=/tmp node --test tests/browser/page.mjs

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import { after, before, test } from 'node:test';
import {
  Server, folder, launch, nsqd, picture, profile, proxy, simulated, until, violations,
} from './support.mjs';

const SILENT_AFTER = 20; // An nsqd sends a PING every 15 s.
const TOPICS = 100_000;

let browser;

before(async () => { browser = await launch(); });
after(async () => {
  await browser?.close();
  // Servers and nsqds are still there, and end with this process.
  setImmediate(() => process.exit());
});

async function open(context, address) {
  const page = await context.newPage();
  await page.goto(address);
  await page.locator('h1').waitFor();
  return page;
}

const row = (page, text) => page.locator('tbody tr', { hasText: text });
const event = (page, kind, node) => page.locator('.journal li', { hasText: kind }).filter({ hasText: node });
const isLive = (page) => page.locator('#live.live').waitFor();

test('nodes appear, are tombstoned, fall silent and leave without a reload', async () => {
  const server = await Server.start(`-inactive-producer-timeout=${SILENT_AFTER}s`, '-nsqadmin-url=http://nsqadmin.example:4171',
    '-broadcast-address=lookup-1.example');
  const { context, faults } = await profile(browser);
  const page = await open(context, server.page);
  await isLive(page);
  await page.getByText('No nsqd is connected.').waitFor();
  await page.evaluate(() => { globalThis.isSamePage = true; });

  const a = await nsqd(server, 'a.example');
  await row(page, a.node).getByText('Listed', { exact: true }).waitFor();
  await event(page, 'Joined', a.node).waitFor();
  const b = await nsqd(server, 'b.example');
  await row(page, b.node).waitFor();
  await a.create('orders', 'billing');
  await b.create('orders', 'billing');
  const topics = await open(context, `${server.page}#/topics`);
  await row(topics, 'orders').getByText('2', { exact: true }).waitFor();
  b.kill('SIGSTOP');

  const port = a.http.split(':').at(-1);
  await server.post(`/topic/tombstone?topic=orders&node=a.example:${port}`);
  await row(page, a.node).getByText('1 tombstone').waitFor();
  await event(page, 'Tombstoned', 'a.example').getByText('orders').waitFor();
  await row(topics, 'orders').getByText('1 of 2').waitFor();
  const topic = await open(context, `${server.page}#/topics/orders`);
  const left = row(topic, a.node).getByText(/^ ?\d+ s left$/);
  const before = Number.parseInt(await left.textContent(), 10);
  await until('the seconds go by', async () => Number.parseInt(await left.textContent(), 10) < before);

  await row(page, b.node).getByText('Silent', { exact: true }).waitFor();
  await event(page, 'Fell silent', b.node).waitFor();
  await page.locator('.warnings').getByText('1 silent node').waitFor();
  await picture(page, 'silent');
  b.kill('SIGCONT');
  await event(page, 'Heard again', b.node).waitFor();
  await row(page, b.node).getByText('Listed', { exact: true }).waitFor();

  a.kill('SIGTERM');
  await event(page, 'Left', a.node).getByText('it closed the connection').waitFor();
  await row(page, a.node).waitFor({ state: 'detached' });
  assert.equal(await page.evaluate(() => globalThis.isSamePage), true);

  await page.getByRole('button', { name: 'Pause' }).click();
  b.kill('SIGTERM');
  await b.ended;
  await new Promise((done) => setTimeout(done, 2500));
  assert.equal(await row(page, b.node).count(), 1, 'a page that pauses changes');
  await page.getByRole('button', { name: 'Resume' }).click();
  await row(page, b.node).waitFor({ state: 'detached' });
  assert.deepEqual(faults, []);
  await context.close();
  await server.stop();
});

test('only what changes is redrawn, once a second at most', async () => {
  const server = await Server.start();
  const { context, faults } = await profile(browser);
  const a = await nsqd(server, 'a.example');
  const page = await open(context, server.page);
  await row(page, a.node).waitFor();
  await page.evaluate((node) => {
    globalThis.kept = [...document.querySelectorAll('tbody tr')].find((one) => one.textContent.includes(node));
    globalThis.times = [];
    new MutationObserver(() => globalThis.times.push(performance.now())).observe(document.querySelector('main'),
      { subtree: true, childList: true, characterData: true, attributes: true });
  }, a.node);
  const end = Date.now() + 4000;
  for (let number = 0; Date.now() < end; number += 1) {
    await server.post(`/topic/create?topic=t${number}`);
    await new Promise((done) => setTimeout(done, 20));
  }
  const { times, isKept } = await page.evaluate(() => ({ times: globalThis.times, isKept: globalThis.kept.isConnected }));
  assert.ok(times.length >= 2 && times.length <= 6, `redrawn ${times.length} times in 4 s`);
  assert.ok(isKept, 'the row of a node that has not changed was replaced');
  assert.deepEqual(faults, []);
  await context.close();
  await server.stop();
});

test('100,000 topics are searched and paged on the server', async () => {
  const server = await Server.start();
  const socket = await simulated(server, { broadcast_address: 'many.example' });
  await socket.register(Array.from({ length: TOPICS }, (_, number) => `metrics.host-${String(number).padStart(6, '0')} archive`));
  const { context, faults } = await profile(browser);
  const page = await open(context, `${server.page}#/topics`);
  await page.getByText('1 to 50 of 100,000').waitFor();
  await page.getByRole('button', { name: 'Next' }).click();
  await page.getByText('51 to 100 of 100,000').waitFor();
  await row(page, 'metrics.host-000050').waitFor();
  assert.equal(await page.locator('tbody tr').count(), 50);
  await picture(page, 'many');
  await page.getByLabel('Search topics and channels').fill('HOST-09999');
  await page.locator('main').getByText('metrics.host-099995', { exact: true }).waitFor();
  assert.equal(await page.locator('tbody tr').count(), 10);
  await page.getByRole('link', { name: 'metrics.host-099995' }).click();
  await page.getByRole('heading', { name: 'metrics.host-099995' }).waitFor();
  await row(page, 'many.example:4150').waitFor();
  await row(page, 'archive').waitFor();
  await page.goBack();
  assert.equal(await page.getByLabel('Search topics and channels').inputValue(), 'HOST-09999');
  assert.deepEqual(faults, []);
  await context.close();
  socket.destroy();
  await server.stop();
});

test('two tabs share one watch', async () => {
  const server = await Server.start();
  const { context, faults } = await profile(browser);
  const first = await open(context, server.page);
  const second = await open(context, `${server.page}#/nodes`);
  await isLive(first);
  await isLive(second);
  assert.equal(await server.metric('nsqlookupd_watches'), 1);
  const a = await nsqd(server, 'a.example');
  await row(first, a.node).waitFor();
  await row(second, a.node).waitFor();
  await first.close();
  await isLive(second);
  assert.equal(await server.metric('nsqlookupd_watches'), 1);
  assert.deepEqual(faults, []);
  await context.close();
  await until('the watch ends with its tabs', async () => (await server.metric('nsqlookupd_watches')) === 0);
  await server.stop();
});

test('a token is asked for, and kept for the tab alone', async () => {
  const file = `${folder}/tokens.toml`;
  const token = 'a-token-of-this-test-0123456789abcdef';
  writeFileSync(file, `browser read ${token}\n`, { mode: 0o600 });
  const server = await Server.start(`-auth-token-file=${file}`);
  const { context, faults } = await profile(browser);
  const page = await context.newPage();
  await page.goto(server.page);
  await page.getByLabel('Token', { exact: true }).fill('wrong');
  await page.getByRole('button', { name: 'Continue' }).click();
  await page.getByText('The server does not know this token.').waitFor();
  await picture(page, 'token');
  assert.deepEqual(await violations(page), []);
  await page.getByLabel('Token', { exact: true }).fill(token);
  await page.keyboard.press('Enter');
  await page.getByText('No nsqd is connected.').waitFor();
  await isLive(page);
  await page.reload();
  await page.getByText('No nsqd is connected.').waitFor();
  const kept = await page.evaluate(() => JSON.stringify([{ ...localStorage }, document.cookie, location.href]));
  assert.ok(!kept.includes(token));
  const other = await context.newPage();
  await other.goto(server.page);
  await other.getByLabel('Token', { exact: true }).waitFor();
  await page.getByRole('button', { name: 'Forget the token' }).click();
  await page.getByLabel('Token', { exact: true }).waitFor();
  assert.deepEqual(faults, []);
  await context.close();
  await server.stop();
});

test('it works behind a prefix', async () => {
  const server = await Server.start();
  const { listener, outside, address } = await proxy(server, '/tools/lookup');
  const { context, faults } = await profile(browser);
  const page = await open(context, `${address}/`);
  assert.equal(page.url(), `${address}/ui/`);
  await isLive(page);
  const a = await nsqd(server, 'a.example');
  await row(page, a.node).waitFor();
  await row(page, a.node).getByRole('link').click();
  await page.getByRole('heading', { name: a.node }).waitFor();
  assert.deepEqual(outside, []);
  assert.deepEqual(faults, []);
  await context.close();
  listener.closeAllConnections();
  listener.close();
  await server.stop();
});

test('a limit that is exceeded or nearly reached is a warning', async () => {
  const server = await Server.start('-warm-up=0s', '-max-topics=20');
  const { context, faults } = await profile(browser);
  const page = await open(context, server.page);
  await page.getByText('No warnings.').waitFor();
  const warning = (title) => page.locator('.warnings li', { hasText: title });
  const create = (number) => fetch(`http://${server.http}/topic/create?topic=t${number}`, { method: 'POST' });
  for (let number = 0; number < 17; number += 1) assert.equal((await create(number)).status, 200);
  await warning('17 topics without producers').waitFor();
  assert.equal(await warning('-max-topics').count(), 0);
  assert.equal((await create(17)).status, 200);
  await warning('-max-topics is nearly reached').getByText('18 of 20.').waitFor();
  assert.equal(await warning('Limit -max-topics exceeded').count(), 0);
  for (let number = 18; number < 20; number += 1) await create(number);
  assert.equal((await create(20)).status, 503);
  await warning('-max-topics is nearly reached').getByText('20 of 20.').waitFor();
  await warning('Limit -max-topics exceeded').getByText(/^1 time since the start, last \d+ s ago\. The log names the clients\.$/).waitFor();
  assert.equal((await create(21)).status, 503);
  await warning('Limit -max-topics exceeded').getByText(/^2 times since the start/).waitFor();
  await picture(page, 'limits');
  assert.deepEqual(faults, []);
  await context.close();
  await server.stop();
});

test('a loopback address is a warning as soon as a node is on another host', async (t) => {
  // Another address of this machine stands for the other host.
  const other = Object.values(networkInterfaces()).flat().find(({ family, internal }) => family === 'IPv4' && !internal)?.address;
  if (!other) {
    t.skip('this machine has only loopback addresses');
    return;
  }
  const server = await Server.start('-warm-up=0s', '-tcp-address=0.0.0.0:0');
  const { context, faults } = await profile(browser);
  const page = await open(context, server.page);
  await simulated(server, { broadcast_address: '127.0.0.1' });
  await row(page, '127.0.0.1:4150').getByText('Loopback address').waitFor();
  await page.getByText('No warnings.').waitFor();
  const socket = await simulated(server, { broadcast_address: 'b.example' }, { host: other, localAddress: other });
  await row(page, 'b.example:4150').waitFor();
  const warning = page.locator('.warnings li', { hasText: '1 node announces a loopback address' });
  await warning.getByRole('link', { name: '127.0.0.1:4150', exact: true }).waitFor();
  await warning.getByText('Set -broadcast-address of nsqd.').waitFor();
  assert.equal(await row(page, 'b.example:4150').getByText('Loopback address').count(), 0);
  await simulated(server, { broadcast_address: 'localhost' }, { host: other, localAddress: other });
  await page.locator('.warnings').getByText('2 nodes announce a loopback address').waitFor();
  await picture(page, 'loopback');
  socket.destroy();
  await row(page, 'b.example:4150').waitFor({ state: 'detached' });
  await page.locator('.warnings').getByText('2 nodes announce a loopback address').waitFor();
  assert.deepEqual(faults, []);
  await context.close();
  await server.stop();
});

test('zones and regions are shown and searched', async () => {
  // nsqd 1.3.0 has no zone.
  const server = await Server.start();
  const { context, faults } = await profile(browser);
  const a = await simulated(server, { broadcast_address: 'a.example', topology_zone: 'eu-1a', topology_region: 'eu-1' });
  const b = await simulated(server, { broadcast_address: 'b.example', topology_region: 'us-1' });
  await simulated(server, { broadcast_address: 'c.example' });
  for (const socket of [a, b]) await socket.register(['orders']);
  const page = await open(context, `${server.page}#/nodes`);
  const zone = (node) => row(page, node).locator('[data-title=Zone]');
  await zone('c.example').getByText('none', { exact: true }).waitFor();
  assert.equal(await zone('a.example').textContent(), 'eu-1a / eu-1');
  assert.equal(await zone('b.example').textContent(), 'us-1');
  await page.getByLabel('Search by address, host, version or zone').fill('EU-1A');
  await row(page, 'b.example').waitFor({ state: 'detached' });
  assert.equal(await page.locator('tbody tr').count(), 1);
  await page.goto(`${server.page}#/topics/orders`);
  await page.getByRole('heading', { name: 'orders' }).waitFor();
  await zone('a.example').getByText('eu-1a', { exact: true }).waitFor();
  assert.deepEqual(faults, []);
  await context.close();
  await server.stop();
});

test('tombstones of a node with very many topics are at least so many', async () => {
  const server = await Server.start('-tombstone-lifetime=10m');
  const { context, faults } = await profile(browser);
  const node = await simulated(server, { broadcast_address: 'a.example' });
  await node.register(Array.from({ length: 8193 }, (_, number) => `t${number}`));
  for (const topic of ['t0', 't8192']) await server.post(`/topic/tombstone?topic=${topic}&node=a.example:4151`);
  const page = await open(context, server.page);
  await row(page, 'a.example:4150').getByText(/^(At least \d tombstones?|Tombstones not counted)$/).waitFor();
  assert.deepEqual(faults, []);
  await context.close();
  await server.stop();
});

test('names and times stay on their line, and nothing is too wide', async () => {
  const server = await Server.start('-tombstone-lifetime=10m', '-warm-up=0s');
  const name = 'ip-10-0-12-34.eu-1.internal';
  const zone = { topology_zone: 'eu-central-1a', topology_region: 'eu-central-1' };
  const first = await simulated(server, { broadcast_address: name, hostname: 'ip-10-0-12-34', ...zone });
  await first.register(['orders']);
  const twin = await simulated(server, { broadcast_address: name, hostname: 'ip-10-0-12-34', ...zone });
  for (let number = 0; number < 6; number += 1) await simulated(server, { broadcast_address: `nsqd-${number}.example` });
  await simulated(server, { broadcast_address: `nsqd-${'very-'.repeat(30)}long.example` });
  await server.post(`/topic/tombstone?topic=orders&node=${name}:4151`);
  for (const width of [360, 700, 1030, 1280]) {
    const { context, faults } = await profile(browser, { viewport: { width, height: 900 } });
    const page = await open(context, server.page);
    await page.getByText(/^9 min \d+ s left$/).waitFor();
    const lines = await page.evaluate(() => [...document.querySelectorAll('.whole')].map((element) =>
      [element.textContent, Math.round(element.offsetHeight / Number.parseFloat(getComputedStyle(element).lineHeight))]));
    assert.ok(lines.length > 20);
    assert.deepEqual(lines.filter(([, count]) => count !== 1), [], `at ${width} pixels`);
    if (width === 1280) {
      const shown = await row(page, name).first().getByRole('link').evaluate((link) => [link.offsetWidth, link.offsetHeight, link.parentElement.offsetWidth]);
      assert.ok(shown[1] < 30, `a name of ${name.length} letters has ${shown} pixels`);
    }
    const warning = page.locator('.warnings li', { hasText: 'Two nsqd nodes with one address' });
    await warning.getByText(/^\S+ from 127\.0\.0\.1:\d+ and 127\.0\.0\.1:\d+\. Consumers reach one of them\./).waitFor();
    assert.equal(await warning.getByRole('link').count(), 1, 'an address is named once');
    const all = await page.getByRole('link', { name: 'All 9 nodes' }).boundingBox();
    const table = await page.getByRole('table', { name: 'nsqd nodes' }).boundingBox();
    assert.ok(all.y >= table.y + table.height + 8, 'the link touches the table');
    for (const view of ['', 'nodes', `nodes/${name}:4150`, 'topics/orders']) {
      await page.goto(`${server.page}#/${view}`);
      await page.locator('tbody tr').first().waitFor();
      await picture(page, `long-${width}-${view.split('/')[0] || 'overview'}`);
      const wider = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(wider <= 0, `${view} is ${wider} pixels too wide for ${width}`);
    }
    assert.deepEqual(faults, []);
    await context.close();
  }
  assert.ok(!twin.destroyed);
  await server.stop();
});

test('axe finds nothing in either theme, on a telephone, or with the keyboard', async () => {
  const server = await Server.start('-nsqadmin-url=http://nsqadmin.example:4171', '-tombstone-lifetime=10m');
  const a = await nsqd(server, 'a.example');
  await a.create('orders', 'billing');
  const twins = [await nsqd(server, 'b.example', '-broadcast-tcp-port=4150'), await nsqd(server, 'b.example', '-broadcast-tcp-port=4150')];
  await server.post('/topic/create?topic=nobody');
  await until('all are there', async () => (await (await fetch(`http://${server.http}/nodes`)).json()).producers.length === 3);
  await server.post(`/topic/tombstone?topic=orders&node=a.example:${a.http.split(':').at(-1)}`);
  const views = { overview: '', nodes: 'nodes', node: `nodes/${encodeURIComponent(a.node)}`, topics: 'topics', topic: 'topics/orders' };
  const kinds = {
    light: { colorScheme: 'light' }, dark: { colorScheme: 'dark' }, narrow: { viewport: { width: 360, height: 740 } },
  };
  for (const [kind, options] of Object.entries(kinds)) {
    const { context, faults } = await profile(browser, options);
    const page = await open(context, server.page);
    await isLive(page);
    for (const [name, view] of Object.entries(views)) {
      await page.goto(`${server.page}#/${view}`);
      await page.locator('tbody tr').first().waitFor();
      await page.mouse.move(0, 0);
      await picture(page, `${kind}-${name}`);
      assert.deepEqual(await violations(page), [], `${kind} ${name}`);
      const wider = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(wider <= 0, `${kind} ${name} is ${wider} pixels too wide`);
    }
    await page.goto(server.page);
    await page.locator('.warnings').getByText('Two nsqd nodes with one address').waitFor();
    await page.keyboard.press('Tab');
    await page.keyboard.press('Enter');
    assert.equal(await page.evaluate(() => document.activeElement.id), 'main', 'the skip link');
    assert.deepEqual(faults, []);
    await context.close();
  }
  assert.equal(twins.length, 2);
  await server.stop();
});
