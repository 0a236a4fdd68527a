// The views: each names the documents that it reads, and describes what it shows of them.

import { el } from './draw.js';

const ROWS = 50;
const FEW = 8;

// --- Words

const count = (number) => number.toLocaleString('en');
const many = (number, one, more = `${one}s`) => `${count(number)} ${number === 1 ? one : more}`;

// A time that has passed, or is to come: its largest unit, and for hours and days the next one.
function duration(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return seconds % 60 && minutes < 10 ? `${minutes} min ${seconds % 60} s` : `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  const days = Math.floor(hours / 24);
  return hours % 24 ? `${days} d ${hours % 24} h` : `${days} d`;
}

function clock(time, now) {
  const date = new Date(time);
  const day = new Date(now).toDateString() === date.toDateString() ? '' : `${date.toLocaleDateString('en-CA')} `;
  return day + date.toLocaleTimeString('en-GB');
}

const STATES = {
  active: ['good', 'Listed'],
  silent: ['bad', 'Silent'],
  superseded: ['dull', 'Older connection'],
  expected: ['warn', 'Expected back'],
  remote: ['good', 'Listed, at another instance'],
  hidden: ['dull', 'Hidden, at another instance'],
};

const KINDS = {
  joined: ['good', 'Joined'],
  reconnected: ['good', 'Reconnected'],
  back: ['good', 'Heard again'],
  left: ['dull', 'Left'],
  silent: ['bad', 'Fell silent'],
  tombstoned: ['warn', 'Tombstoned'],
  missing: ['bad', 'Did not return'],
};

// What the log's words mean.
function reason({ kind, reason: words, about }) {
  const known = {
    EOF: 'it closed the connection',
    'read: connection reset by peer': 'it reset the connection',
    'read: connection timed out': 'its host does not respond',
    'read: no route to host': 'no route to its host',
    'use of closed network connection': 'the server stops',
  };
  if (kind === 'tombstoned') return ['in ', topicLink(about)];
  if (kind === 'joined' || kind === 'reconnected') return [`from ${about}`];
  return [known[words] ?? words];
}

// A text that stays on one line if it fits.
const whole = (text, kind = '') => text && el('span', { class: `${kind} whole`.trim() }, text);
const left = (until, now) => whole(`${duration(until - now)} left`, 'dim');
// a; a and b; a, b and c.
const listed = (items) => items.map((item, nth) => [nth === 0 ? '' : nth < items.length - 1 ? ', ' : ' and ', item]);
// A text, in which flags stay on one line.
const flags = (text) => text.split(/(?<!\S)(-[a-z-]+)/).map((part, nth) => (nth % 2 ? whole(part) : part));
const badge = ([tone, text]) => el('span', { class: `badge ${tone}` }, text);
const nodeName = ({ address, tcp_port: port }) => `${address}:${port}`;
const nodeHref = (name) => `#/nodes/${encodeURIComponent(name)}`;
const nodeLink = (name) => el('a', { href: nodeHref(name), class: 'name' }, name);
const topicHref = (name) => `#/topics/${encodeURIComponent(name)}`;
const topicLink = (name) => el('a', { href: topicHref(name), class: 'name' }, name);

// A link to what nsqadmin knows of something.
const outside = (base, path, text) => base && el('p', {},
  el('a', { class: 'out', rel: 'noreferrer', href: `${base}/${path.map(encodeURIComponent).join('/')}` }, text));

const heading = (text, ...more) => el('div', { class: 'heading', key: 'heading' },
  el('h1', { tabindex: '-1' }, text), ...more);

const loading = () => el('p', { class: 'dim', key: 'loading' }, 'Reading…');

// --- Tables

// Columns are [heading, cell of a row, class]; the first names the row.
function table(caption, columns, rows, keyOf) {
  return el('table', { role: 'table', key: `table ${caption}` },
    el('caption', { class: 'unseen' }, caption),
    el('thead', { role: 'rowgroup' }, el('tr', { role: 'row' }, columns.map(([title, , kind]) =>
      el('th', { scope: 'col', role: 'columnheader', class: kind }, title)))),
    el('tbody', { role: 'rowgroup' }, rows.map((row) => el('tr', { role: 'row', key: keyOf(row) },
      columns.map(([title, cell, kind], nth) => nth
        ? el('td', { role: 'cell', class: kind, 'data-title': title }, el('div', {}, cell(row)))
        : el('th', { scope: 'row', role: 'rowheader', class: kind }, cell(row)))))));
}

// Which rows of how many, and the way to the others. `keys` are those of the address.
function pages({ total, offset, limit }, go, key = 'offset') {
  if (total <= limit && !offset) return null;
  const to = (first, text, isThere) =>
    el('button', { type: 'button', disabled: !isThere, onclick: () => go({ [key]: first || '' }) }, text);
  return el('nav', { class: 'pages', 'aria-label': 'Pages', key: `pages ${key}` },
    to(Math.max(0, offset - limit), 'Previous', offset > 0),
    el('span', {}, total ? `${count(Math.min(offset + 1, total))} to ${count(Math.min(offset + limit, total))} of ${count(total)}` : 'none'),
    to(offset + limit, 'Next', offset + limit < total));
}

let typing = 0;

// A field that searches on the server while it is typed in.
function search(label, query, go, offset = 'offset') {
  const start = (event) => {
    clearTimeout(typing);
    const { value } = event.target;
    typing = setTimeout(() => go({ q: value.trim(), [offset]: '' }), 250);
  };
  return el('div', { class: 'search', key: 'search' },
    el('label', { for: 'search' }, label),
    el('input', {
      id: 'search', type: 'search', value: query.get('q') ?? '', oninput: start, maxlength: '128',
      autocomplete: 'off', autocapitalize: 'none', spellcheck: 'false',
    }));
}

function ask(document, query, others = {}) {
  const asked = new URLSearchParams(others);
  for (const key of ['q', 'offset', 'unused']) if (query.get(key)) asked.set(key, query.get(key));
  asked.set('limit', ROWS);
  return `${document}?${asked}`;
}

// --- Nodes

function ping({ last_ping: last, listed_until: until, state }, now) {
  // Its own instance looks after it.
  if (until <= last) return el('span', { class: 'dim' }, `changed ${duration(Math.max(0, now - last))} ago`);
  const age = Math.max(0, now - last);
  const allowed = Math.max(1, until - last);
  const share = Math.min(1, age / allowed);
  const tone = state === 'active' && share < 0.5 ? 'good' : state === 'active' ? 'warn' : 'bad';
  return el('span', { class: 'ping' },
    el('span', {}, `${duration(age)} ago`),
    el('span', { class: `meter ${tone}`, share: share.toFixed(2), 'aria-hidden': 'true' }),
    el('span', { class: 'dim' }, `of ${duration(allowed)}`));
}

function state(node, now) {
  return [
    badge(STATES[node.state]), ' ',
    node.state !== 'expected' && whole(`for ${duration(now - node.since)}`, 'dim'),
    tombstones(node, now),
    node.doubled && el('span', { class: 'line' }, badge(['bad', 'Address used twice'])),
    node.loopback && el('span', { class: 'line' }, badge(['dull', 'Loopback address'])),
  ];
}

// Of a node with very many topics the server counts the tombstones in some.
function tombstones({ tombstones: found, tombstoned_until: until, all_tombstones: isAll }, now) {
  if (!isAll) return el('span', { class: 'line' }, badge(['warn', found ? `At least ${many(found, 'tombstone')}` : 'Tombstones not counted']));
  return found > 0 && el('span', { class: 'line' },
    badge(['warn', many(found, 'tombstone')]), ' ', left(until, now));
}

const place = ({ zone, region }) => (zone || region
  ? [whole(zone), zone && region ? ' / ' : '', whole(region)]
  : el('span', { class: 'dim' }, 'none'));

function nodesTable(nodes, now) {
  return table('nsqd nodes', [
    ['Node', (node) => [
      nodeLink(nodeName(node)),
      el('span', { class: 'dim line' },
        node.hostname && node.hostname !== node.address ? whole(`${node.hostname},`) : '', ' ', whole(node.client)),
    ], 'node'],
    ['State', (node) => state(node, now)],
    ['Last PING', (node) => ping(node, now)],
    ['Zone', place, 'zone'],
    ['Version', (node) => node.version],
    ['Topics', (node) => count(node.topics), 'number'],
    ['Reconnects, 1\u00a0h', (node) => (node.reconnects ? el('strong', {}, count(node.reconnects)) : '0'), 'number'],
  ], nodes, (node) => `${nodeName(node)} ${node.client}`);
}

function journal(entries, now, withNode = true) {
  if (!entries.length) return el('p', { class: 'dim', key: 'no journal' }, 'Nothing since the start of the server.');
  return el('ol', { class: 'journal', key: 'journal' }, entries.map((entry) =>
    el('li', { key: `${entry.number}` },
      el('time', { datetime: new Date(entry.at).toISOString(), title: new Date(entry.at).toLocaleString('en-GB') }, clock(entry.at, now)),
      badge(KINDS[entry.kind]),
      el('span', { class: 'what' }, withNode && entry.node ? [entry.kind === 'tombstoned' ? el('span', { class: 'name' }, entry.node) : nodeLink(entry.node), ' '] : null,
        el('span', { class: 'dim' }, reason(entry))))));
}

// --- Overview

// Warnings: [tone, title, text].
function warnings({ ready, ready_at: readyAt, warnings: found, counts, inactive_after: inactive, cluster }, now) {
  const list = [];
  const named = ({ nodes, count: all }) => {
    const clients = new Map(nodes.map((node) => [nodeName(node), []]));
    for (const node of nodes) clients.get(nodeName(node)).push(node.client);
    return [
      [...clients].map(([name, from], nth) => [nth ? '; ' : '', nodeLink(name), ' from ', listed(from.map((client) => whole(client)))]),
      all > nodes.length ? `; and ${count(all - nodes.length)} more` : '', '. ',
    ];
  };
  if (found.doubled) {
    const title = found.doubled.count === 2 ? 'Two nsqd nodes with one address' : `${count(found.doubled.count)} nsqd nodes with the address of another`;
    list.push(['bad', title, [named(found.doubled),
      'Consumers reach one of them. Give each nsqd its own -broadcast-address.']]);
  }
  if (found.loopback) {
    list.push(['bad', many(found.loopback.count, 'node announces', 'nodes announce') + ' a loopback address', [named(found.loopback),
      'Consumers on other hosts would connect to themselves. Set -broadcast-address of nsqd.']]);
  }
  if (found.silent) {
    list.push(['bad', many(found.silent.count, 'silent node'), [named(found.silent),
      `Connected, but without a PING for more than ${duration(inactive)}: lookups leave ${found.silent.count === 1 ? 'it' : 'them'} out.`]]);
  }
  for (const { limit, at, times } of found.exceeded) {
    list.push(['bad', `Limit -${limit} exceeded`, [`${many(times, 'time')} since the start, last ${duration(now - at)} ago. The log names the clients.`]]);
  }
  for (const { limit, count: taken, most } of found.full) {
    list.push(['bad', `-${limit} is nearly reached`, [`${count(taken)} of ${count(most)}.`]]);
  }
  if (ready === 'warming_up') {
    list.push(['warn', 'Warming up', [`Not all nsqd nodes may have connected again, so lookups may lack some. Ready in ${duration(readyAt - now)}.`]]);
  }
  if (cluster && (cluster.alone || !cluster.connected)) {
    list.push(['bad', cluster.alone ? 'Alone: etcd was not reached since the start' : 'Cut off from etcd', [
      cluster.alone ? 'Nodes of the other instances are not listed. The log says why.' : 'Nodes of the other instances are listed as they were last known. The log says why.']]);
  }
  if (cluster?.connected && !cluster.writable) {
    list.push(['bad', 'etcd does not take what this server writes', ['The other instances do not list nodes that connect here. The log says why.']]);
  }
  if (cluster?.orphans) {
    list.push(['warn', many(cluster.orphans, 'node') + ' of an instance that is dead', ['Listed until the nsqd has connected to another instance, for a minute at most.']]);
  }
  if (ready === 'stopping') list.push(['warn', 'The server is about to stop', ['Clients should use another one.']]);
  if (counts.expected) {
    list.push(['warn', many(counts.expected, 'node', 'nodes') + ' expected back', ['Listed from before the restart; the nsqd has not connected again yet.']]);
  }
  if (counts.unused_topics || counts.unused_channels) {
    const names = [counts.unused_topics && many(counts.unused_topics, 'topic'), counts.unused_channels && many(counts.unused_channels, 'channel')];
    list.push(['note', `${names.filter(Boolean).join(' and ')} without producers`, [
      'No connected nsqd has them. ', el('a', { href: '#/topics?unused=true' }, 'Show them'), '.']]);
  }
  return list;
}

function warningList(list) {
  if (!list.length) return el('p', { class: 'fine', key: 'fine' }, 'No warnings.');
  return el('ul', { class: 'warnings', key: 'warnings' }, list.map(([tone, title, text]) =>
    el('li', { class: tone, key: title }, el('strong', {}, flags(title)),
      el('span', {}, text.map((part) => (typeof part === 'string' ? flags(part) : part))))));
}

function figures({ counts }) {
  const listed = counts.active + counts.expected + counts.remote;
  const figure = (name, value, note, href) => el('div', { key: name },
    el('dt', {}, el('a', { href }, name)), el('dd', {}, el('span', { class: 'figure' }, value), el('span', { class: 'dim' }, note)));
  return el('dl', { class: 'figures', key: 'figures' },
    figure('Nodes listed', count(listed), listed === counts.nodes ? 'all that are connected' : `of ${count(counts.nodes)}`, '#/nodes'),
    figure('Topics', count(counts.topics), counts.unused_topics ? `${count(counts.unused_topics)} without producers` : '', '#/topics'),
    figure('Channels', count(counts.channels), counts.unused_channels ? `${count(counts.unused_channels)} without producers` : '', '#/topics'),
    figure('Tombstones', count(counts.tombstones), ['', 'hides a producer'][counts.tombstones] ?? 'hide producers', '#/nodes'));
}

export const overview = Object.assign(({ now, read }) => {
  const [all, nodes] = overview.documents().map(read);
  if (!all || !nodes) return { title: 'Overview', content: [heading('Overview'), loading()] };
  const list = warnings(all, now);
  return {
    title: 'Overview',
    announcement: list.length ? `${many(list.length, 'warning')}: ${list.map(([, title]) => title).join('; ')}` : 'No warnings',
    content: [
      heading('Overview', el('p', { class: 'dim' }, `Up for ${duration(now - all.server.started)}${all.cluster ? `, one of ${many(all.cluster.instances, 'instance')}` : ''}`)),
      warningList(list),
      figures(all),
      el('section', { 'aria-labelledby': 'nodes', key: 'nodes' },
        el('h2', { id: 'nodes' }, 'Nodes'),
        nodes.total ? nodesTable(nodes.nodes, now) : el('p', { class: 'dim' }, 'No nsqd is connected.'),
        nodes.total > FEW && el('p', { class: 'more' }, el('a', { href: '#/nodes' }, `All ${count(nodes.total)} nodes`))),
      el('section', { 'aria-labelledby': 'last', key: 'last' },
        el('h2', { id: 'last' }, 'Last joins and departures'), journal(all.journal, now)),
    ],
  };
}, { documents: () => ['overview', `nodes?limit=${FEW}`] });

// --- The other views

export const nodesView = Object.assign(({ query, now, read, go }) => {
  const list = read(nodesView.documents({ query })[0]);
  return {
    title: 'Nodes',
    announcement: list && `${many(list.total, 'node')}`,
    content: [
      heading('Nodes', search('Search by address, host, version or zone', query, go)),
      !list && loading(),
      list && (list.nodes.length ? nodesTable(list.nodes, now) : el('p', { class: 'dim', key: 'none' }, 'No such node is connected.')),
      list && pages(list, go),
    ],
  };
}, { documents: ({ query }) => [ask('nodes', query), 'overview'] });

export const nodeView = Object.assign(({ argument, query, now, read, go, nsqadmin }) => {
  const found = read(nodeView.documents({ argument, query })[0]);
  const [first] = found?.nodes ?? [];
  const topics = found?.topics;
  return {
    title: argument,
    announcement: found && (first ? `${argument}: ${STATES[first.state][1]}` : `${argument} is not connected`),
    content: [
      heading(argument, first && outside(nsqadmin, ['nodes', `${first.address}:${first.http_port}`], 'Messages and memory in nsqadmin')),
      !found && loading(),
      found && (first ? nodesTable(found.nodes, now) : el('p', { class: 'dim', key: 'gone' }, 'This node is not connected.')),
      topics && el('section', { 'aria-labelledby': 'topics', key: 'topics' },
        el('h2', { id: 'topics' }, 'Topics it has registered'),
        search('Search topics', query, go),
        !topics.all && el('p', { class: 'dim', key: 'some' }, 'Some of its many topics:'),
        topics.rows.length ? table('Topics of the node', [
          ['Topic', (topic) => topicLink(topic.name)],
          ['Tombstone', (topic) => topic.tombstoned_until
            ? [badge(['warn', 'Tombstoned']), ' ', left(topic.tombstoned_until, now)]
            : el('span', { class: 'dim' }, 'none')],
        ], topics.rows, (topic) => topic.name) : el('p', { class: 'dim', key: 'none' }, 'No such topic.'),
        pages(topics, go)),
      found && el('section', { 'aria-labelledby': 'last', key: 'last' },
        el('h2', { id: 'last' }, 'Last joins and departures'), journal(found.journal, now, false)),
    ],
  };
}, { documents: ({ argument, query }) => [ask('node', query, { node: argument }), 'overview'] });

const visible = ({ producers, visible: shown }) =>
  shown === undefined || shown === producers ? count(producers) : `${count(shown)} of ${count(producers)}`;

export const topicsView = Object.assign(({ query, read, go }) => {
  const list = read(topicsView.documents({ query })[0]);
  const only = query.get('unused') === 'true';
  return {
    title: 'Topics',
    announcement: list && `${many(list.total, 'topic')}`,
    content: [
      heading('Topics', search('Search topics and channels', query, go),
        el('label', { class: 'check' }, el('input', {
          type: 'checkbox', checked: only,
          onchange: ({ target }) => go({ unused: target.checked ? 'true' : '', offset: '' }),
        }), ' Without producers only')),
      (!list || (!list.current && !list.total)) && loading(),
      list?.lacks_channels && el('p', { class: 'dim', key: 'lacks' }, 'There are too many channels to search all of them.'),
      list && list.topics.length > 0 && table('Topics', [
        ['Topic', (topic) => [topicLink(topic.name),
          topic.found && el('span', { class: 'dim line' }, `channel ${topic.found.join(', ')}`)]],
        ['Producers listed', (topic) => (topic.producers ? visible(topic) : el('span', { class: 'dim' }, 'none')), 'number'],
        ['Channels', (topic) => count(topic.channels), 'number'],
      ], list.topics, (topic) => topic.name),
      list?.current && !list.topics.length && el('p', { class: 'dim', key: 'none' }, 'No such topic.'),
      list && pages(list, go),
    ],
  };
}, { documents: ({ query }) => [ask('topics', query), 'overview'] });

export const topicView = Object.assign(({ argument, query, now, read, go, nsqadmin }) => {
  const [topic, producers] = topicView.documents({ argument, query }).map(read);
  const known = topic?.exists && producers;
  return {
    title: argument,
    announcement: topic && (topic.exists ? `${argument}: ${many(topic.producers, 'producer')}` : `${argument} does not exist`),
    content: [
      heading(argument, topic?.exists && outside(nsqadmin, ['topics', argument], 'Depth and messages in nsqadmin')),
      !topic && loading(),
      topic && !topic.exists && el('p', { class: 'dim', key: 'none' }, 'There is no such topic.'),
      known && el('section', { 'aria-labelledby': 'producers', key: 'producers' },
        el('h2', { id: 'producers' }, 'Producers'),
        producers.producers.length ? table('Producers', [
          ['Node', (producer) => [nodeLink(nodeName(producer)), el('span', { class: 'dim line' }, whole(producer.client))]],
          ['State', (producer) => (producer.tombstoned_until
            ? [badge(['warn', 'Tombstoned']), ' ', left(producer.tombstoned_until, now)]
            : [badge(STATES[producer.state]), ' ', whole(`for ${duration(now - producer.since)}`, 'dim')])],
          ['Last PING', (producer) => ping(producer, now)],
          ['Zone', place, 'zone'],
        ], producers.producers, (producer) => `${nodeName(producer)} ${producer.client}`)
          : el('p', { class: 'dim', key: 'no producers' }, 'No connected nsqd has this topic.'),
        pages(producers, go, 'from')),
      known && el('section', { 'aria-labelledby': 'channels', key: 'channels' },
        el('h2', { id: 'channels' }, 'Channels'),
        search('Search channels', query, go),
        topic.list.channels.length ? table('Channels', [
          ['Channel', (channel) => (nsqadmin
            ? el('a', { href: `${nsqadmin}/topics/${encodeURIComponent(argument)}/${encodeURIComponent(channel.name)}`, rel: 'noreferrer', class: 'name out' }, channel.name)
            : el('span', { class: 'name' }, channel.name))],
          ['Producers', (channel) => (channel.producers ? count(channel.producers) : el('span', { class: 'dim' }, 'none')), 'number'],
        ], topic.list.channels, (channel) => channel.name)
          : el('p', { class: 'dim', key: 'no channels' }, 'No such channel.'),
        pages(topic.list, go)),
    ],
  };
}, {
  documents: ({ argument, query }) => {
    const from = new URLSearchParams({ topic: argument, offset: query.get('from') ?? 0, limit: ROWS });
    return [ask('topic', query, { topic: argument }), `producers?${from}`, 'overview'];
  },
});
