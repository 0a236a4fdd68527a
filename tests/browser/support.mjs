// Servers, nsqds and a browser, which end with the process.

import { spawn } from 'node:child_process';
import { mkdtempSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import http from 'node:http';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';

const { BROWSER_NODE_MODULES, CHROMIUM_BIN, NSQ_BIN, RINGLOOKUPD } = process.env;
const require = createRequire(path.join(BROWSER_NODE_MODULES, 'x'));
const { chromium } = require('playwright-core');
const AXE = require.resolve('axe-core/axe.min.js');

export const folder = mkdtempSync(path.join(tmpdir(), 'ringlookupd-page-'));
const children = new Set();

process.on('exit', () => {
  for (const child of children) child.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(1));

function start(program, args) {
  const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  children.add(child);
  child.ended = new Promise((done) => child.on('exit', () => {
    children.delete(child);
    done();
  }));
  child.log = '';
  child.stderr.setEncoding('utf8').on('data', (text) => { child.log += text; });
  return child;
}

async function logged(child, pattern) {
  return until(`${pattern} in the log`, () => {
    if (child.exitCode !== null) throw new Error(`${child.spawnfile} has exited: ${child.log}`);
    return pattern.exec(child.log)?.[1];
  });
}

// What a condition returns, as soon as that is something.
export async function until(what, condition, seconds = 30) {
  const end = Date.now() + 1000 * seconds;
  for (;;) {
    const found = await condition();
    if (found) return found;
    if (Date.now() > end) throw new Error(`not within ${seconds} s: ${what}`);
    await new Promise((done) => setTimeout(done, 50));
  }
}

export class Server {
  static async start(...args) {
    const child = start(RINGLOOKUPD, ['-tcp-address=127.0.0.1:0', '-http-address=127.0.0.1:0', ...args]);
    const server = Object.assign(new Server(), { child });
    server.tcp = await logged(child, /TCP: listening on (\S+)/);
    server.http = await logged(child, /HTTP: listening on (\S+)/);
    server.page = `http://${server.http}/ui/`;
    return server;
  }

  async post(address) {
    const response = await fetch(`http://${this.http}${address}`, { method: 'POST' });
    if (!response.ok) throw new Error(`${address}: ${response.status}`);
  }

  // A sample of /metrics.
  async metric(name) {
    const text = await (await fetch(`http://${this.http}/metrics`)).text();
    return Number(new RegExp(`^${name} (.*)$`, 'm').exec(text)?.[1]);
  }

  stop() {
    this.child.kill();
    return this.child.ended;
  }
}

let nsqds = 0;

export async function nsqd(server, name, ...args) {
  const data = path.join(folder, `nsqd-${nsqds += 1}`);
  mkdirSync(data);
  const child = start(path.join(NSQ_BIN, 'nsqd'), [
    '-tcp-address=127.0.0.1:0', '-http-address=127.0.0.1:0', `-lookupd-tcp-address=${server.tcp}`,
    `-broadcast-address=${name}`, `-data-path=${data}`, ...args,
  ]);
  child.http = await logged(child, /HTTP: listening on (\S+)/);
  child.tcp = await logged(child, /TCP: listening on (\S+)/);
  // What nsqd announces.
  child.node = `${name}:${child.tcp.split(':').at(-1)}`;
  child.create = async (topic, channel) => {
    const post = (address) => fetch(`http://${child.http}${address}`, { method: 'POST' });
    await post(`/topic/create?topic=${topic}`);
    if (channel) await post(`/channel/create?topic=${topic}&channel=${channel}`);
  };
  return child;
}

// A connection that describes itself as an nsqd does, by these fields and some of its own. It sends no PING.
export async function simulated(server, fields, options = {}) {
  const socket = net.connect({ host: '127.0.0.1', port: Number(server.tcp.split(':').at(-1)), ...options });
  let received = 0;
  socket.on('data', (data) => { received += data.length; });
  const body = Buffer.from(JSON.stringify({ hostname: 'host', tcp_port: 4150, http_port: 4151, version: '1.3.0', ...fields }));
  const length = Buffer.alloc(4);
  length.writeUInt32BE(body.length);
  socket.write(Buffer.concat([Buffer.from('  V1IDENTIFY\n'), length, body]));
  // A response to each: length and OK; that of IDENTIFY is longer.
  await until('IDENTIFY has its response', () => received > 6);
  socket.register = async (names) => {
    const before = received;
    socket.write(names.map((name) => `REGISTER ${name}\n`).join(''));
    await until('all are registered', () => received >= before + 6 * names.length, 60);
  };
  return socket;
}

// A reverse proxy that serves the server below a prefix, and nothing else.
export async function proxy(server, prefix) {
  const outside = [];
  const listener = http.createServer((request, response) => {
    if (!request.url.startsWith(prefix)) {
      outside.push(request.url);
      response.writeHead(404).end();
      return;
    }
    const [host, port] = server.http.split(':');
    const forward = http.request({
      host, port, method: request.method, path: request.url.slice(prefix.length), headers: request.headers,
    }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      response.flushHeaders();
      answer.pipe(response);
    });
    forward.on('error', () => response.destroy());
    response.on('close', () => forward.destroy());
    request.pipe(forward);
  });
  await new Promise((done) => listener.listen(0, '127.0.0.1', done));
  return { listener, outside, address: `http://127.0.0.1:${listener.address().port}${prefix}` };
}

// --- The browser

export function launch() {
  return chromium.launch({
    executablePath: CHROMIUM_BIN,
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync'],
  });
}

// A browser of its own, as far as storage and connections go. `faults` are errors on the console, and requests to others.
export async function profile(browser, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  context.setDefaultTimeout(30_000);
  const faults = [];
  context.on('page', (page) => {
    const origin = () => new URL(page.url()).origin;
    page.on('console', (message) => {
      // The browser itself says so of each response that is no success.
      const isStatus = /status of (401|403)/.test(message.text());
      if (['error', 'warning'].includes(message.type()) && !isStatus) faults.push(message.text());
    });
    page.on('pageerror', (error) => faults.push(String(error.stack)));
    page.on('request', (request) => {
      if (page.url().startsWith('http') && new URL(request.url()).origin !== origin()) faults.push(`asked ${request.url()}`);
    });
  });
  return { context, faults };
}

// What axe finds, whatever its weight.
export async function violations(page) {
  // The page's policy runs no script that is inserted; the driver's own are not subject to it.
  await page.evaluate(readFileSync(AXE, 'utf8'));
  const { violations: found } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }));
  return found.map(({ id, impact, help, nodes }) => `${impact} ${id}: ${help}: ${nodes.map(({ html }) => html).slice(0, 3).join(' ')}`);
}

// Takes a picture where PAGE_PICTURES names a folder.
export async function picture(page, name) {
  if (!process.env.PAGE_PICTURES) return;
  await page.screenshot({ path: path.join(process.env.PAGE_PICTURES, `${name}.png`), fullPage: true });
}
