// The page. It reads documents of the server below data/, and shows one view of them at a time.
//
// What a view shows is described by el() and put into the document by draw(), which changes what differs and nothing else.

import { nodesView, nodeView, overview, topicView, topicsView } from './views.js';
import { el, patch } from './draw.js';
import { follow } from './live.js';

const REDRAW = 1000; // The page redraws at most so often by itself.
const LATE = 1500; // After the last of several changes.
const REFRESH = 10000; // A PING is no change that the server tells of.
const byId = (id) => document.getElementById(id);

const VIEWS = [
  { path: /^\/?$/, name: 'Overview', view: overview },
  { path: /^\/nodes$/, name: 'Nodes', view: nodesView },
  { path: /^\/nodes\/(.+)$/, name: 'Nodes', view: nodeView },
  { path: /^\/topics$/, name: 'Topics', view: topicsView },
  { path: /^\/topics\/(.+)$/, name: 'Topics', view: topicView },
];
const LINKS = [['Overview', '#/'], ['Nodes', '#/nodes'], ['Topics', '#/topics']];

// What has been read: the last text and content of each document, by its address.
const read = new Map();
const page = { paused: false, live: 'lost', skew: 0, wanted: [], problem: '', server: {} };
const TOKEN = `token of ${location.pathname}`;
let token = sessionStorage.getItem(TOKEN) ?? '';

// Where the address leads: the view, its argument, and what is asked of it.
function place() {
  const [path, query] = location.hash.slice(1).split('?');
  const found = VIEWS.find(({ path: known }) => known.test(path)) ?? VIEWS[0];
  const name = decode(found.path.exec(path)?.[1] ?? '');
  return { ...found, argument: name, query: new URLSearchParams(query ?? '') };
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

// --- Reading

// Reads a document. One that is as it was before changes nothing.
async function load(address) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const response = await fetch(`data/${address}`, { headers, cache: 'no-store' });
  if (response.status === 401) {
    ask(token !== '');
    throw new Error('unauthorized');
  }
  if (response.status === 403) {
    const { https_port: port } = await response.json().catch(() => ({}));
    throw Object.assign(new Error('forbidden'), { port });
  }
  if (!response.ok) throw new Error(`the server responds ${response.status}`);
  const content = await response.json();
  const skew = content.now - Date.now();
  // The times that are shown should not flicker with the time of each response.
  if (Math.abs(skew - page.skew) > 1500) page.skew = skew;
  read.set(address, content);
  if (content.server) page.server = content.server;
  return content;
}

let reading = false;
let again = false;

// Reads what the view shows, once more if that was asked for meanwhile.
async function refresh() {
  if (reading) {
    again = true;
    return;
  }
  reading = true;
  do {
    again = false;
    const wanted = page.wanted;
    try {
      const all = await Promise.all(wanted.map(load));
      page.problem = '';
      // What the server is still making is there soon.
      if (all.some(({ current }) => current === false)) setTimeout(refresh, REDRAW / 2);
    } catch (error) {
      page.problem = error.message;
      page.port = error.port;
    }
    for (const address of read.keys()) if (!page.wanted.includes(address)) read.delete(address);
  } while (again);
  reading = false;
  soon();
}

const isIdle = () => page.paused || document.hidden || byId('ask').open;

function changed() {
  if (!isIdle()) refresh();
}

// --- Showing

let drawn = 0;
let timer = 0;

// Redraws, but not sooner than a second after the last time.
function soon() {
  if (timer || page.paused) return;
  timer = setTimeout(() => {
    timer = 0;
    draw();
  }, Math.max(0, drawn + REDRAW - Date.now()));
}

function draw() {
  drawn = Date.now();
  const { view, name, argument, query } = place();
  const shown = view({
    argument,
    query,
    now: Date.now() + page.skew,
    nsqadmin: page.server.nsqadmin,
    read: (address) => read.get(address),
    go,
  });
  const problem = problemText();
  patch(byId('main'), [problem && el('p', { class: 'problem', role: 'alert', key: 'problem' }, problem), ...shown.content]);
  const links = LINKS.map(([link, href]) =>
    el('a', { href, 'aria-current': link === name ? (argument ? 'true' : 'page') : null }, link));
  if (page.server.nsqadmin) {
    links.push(el('a', { href: page.server.nsqadmin, rel: 'noreferrer', class: 'out' }, 'nsqadmin'));
  }
  patch(byId('views'), links);
  const { version, name: host, backend } = page.server;
  patch(byId('foot'), [
    version && el('span', {}, `ringlookupd ${version} on ${host}, ${backend}`),
    token && el('button', { type: 'button', onclick: forget }, 'Forget the token'),
  ]);
  const title = `${shown.title} – ringlookupd${page.server.name ? ` ${page.server.name}` : ''}`;
  if (document.title !== title) document.title = title;
  say(shown.announcement ?? '');
  showLive();
}

function problemText() {
  if (page.problem === 'forbidden' && page.port) {
    const address = `https://${location.hostname}:${page.port}/ui/`;
    return ['This server shows its data over HTTPS only: ', el('a', { href: address }, address)];
  }
  if (page.problem === 'forbidden') return ['This server does not show its data to you.'];
  if (page.problem && page.problem !== 'unauthorized') return [`What is shown may be old: ${page.problem}. Trying again.`];
  return null;
}

function showLive() {
  const states = { live: 'Live', polling: 'Live, every 5 s', lost: 'Connection lost', refused: 'No access' };
  const text = page.paused ? 'Paused' : states[page.live];
  const live = byId('live');
  if (live.textContent !== text) live.textContent = text;
  live.className = page.paused ? 'paused' : page.live;
}

let announced = '';

// What a screen reader reads aloud, when it has changed.
function say(text) {
  if (text === announced) return;
  announced = text;
  byId('announce').textContent = text;
}

// --- What the user does

// Takes what is asked of a view into the address, and shows it.
function go(changes) {
  const [path] = location.hash.split('?');
  const { query } = place();
  for (const [key, value] of Object.entries(changes)) {
    if (value) query.set(key, value);
    else query.delete(key);
  }
  const text = query.toString();
  history.replaceState(null, '', (path || '#/') + (text && `?${text}`));
  arrive(false);
}

// Shows the view of the address: at once what is known of it, and the rest when it is read.
async function arrive(isNew) {
  const { view, argument, query } = place();
  page.wanted = view.documents({ argument, query });
  if (isNew) {
    draw();
    scrollTo(0, 0);
    const heading = document.querySelector('h1');
    heading?.focus({ preventScroll: true });
  }
  await refresh();
  draw();
}

byId('pause').onclick = () => {
  page.paused = !page.paused;
  byId('pause').setAttribute('aria-pressed', page.paused);
  byId('pause').textContent = page.paused ? 'Resume' : 'Pause';
  showLive();
  changed();
};

byId('skip').onclick = (event) => {
  event.preventDefault();
  byId('main').focus();
};

function ask(wasWrong) {
  const dialog = byId('ask');
  if (dialog.open) return;
  byId('ask-why').textContent = wasWrong
    ? 'The server does not know this token.'
    : 'This server shows its data to clients with a token.';
  dialog.showModal();
}

byId('ask').oncancel = (event) => event.preventDefault();
byId('ask-form').onsubmit = (event) => {
  event.preventDefault();
  setToken(byId('ask-token').value.trim());
  byId('ask-token').value = '';
  byId('ask').close();
  refresh();
};

function forget() {
  setToken('');
  read.clear();
  page.server = {};
  refresh();
}

function setToken(value) {
  token = value;
  if (value) sessionStorage.setItem(TOKEN, value);
  else sessionStorage.removeItem(TOKEN);
  tell(value);
}

// --- Being told

let late = 0;

function hear(said) {
  if (said === 'changed') {
    changed();
    // The history has the reason for some changes a moment later.
    clearTimeout(late);
    late = setTimeout(changed, LATE);
  } else {
    page.live = said;
    showLive();
  }
}

let tell = () => {};

// One connection for all tabs where there are shared workers; otherwise one for this tab.
function listen() {
  const watch = new URL('../watch?nodes=true', location);
  try {
    const worker = new SharedWorker('live.js', { type: 'module', name: location.pathname });
    let heard = false;
    worker.port.onmessage = ({ data }) => {
      heard = true;
      hear(data);
    };
    tell = (value) => worker.port.postMessage(value);
    worker.onerror = () => {
      if (!heard) alone(watch);
    };
    addEventListener('pagehide', () => tell(null));
    addEventListener('pageshow', ({ persisted }) => persisted && tell(token));
    tell(token);
  } catch {
    alone(watch);
  }
}

function alone(watch) {
  tell = () => {};
  follow(watch, () => token, hear);
}

addEventListener('hashchange', () => arrive(true));
document.addEventListener('visibilitychange', changed);
setInterval(() => {
  if (!document.hidden) soon();
}, REDRAW);
setInterval(changed, REFRESH);
listen();
arrive(false);
