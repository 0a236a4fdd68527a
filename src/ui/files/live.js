// Says when there is something new to read: follows /watch?nodes=true of the server.
//
// As a shared worker it does so once for all tabs of a browser. Where there are no shared workers, a tab runs it itself.

const SILENCE_MAX = 40000; // The server sends a comment every 15 s.
const WAIT_MIN = 1000;
const WAIT_MAX = 30000;
const POLL = 5000;

const sleep = (time) => new Promise((done) => setTimeout(done, time));
const spread = (time) => time * (0.75 + Math.random() / 2);

// Reads events from a response until it ends: calls heard(event, data) for each.
async function read(response, heard, cut) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  for (;;) {
    const timer = setTimeout(cut, SILENCE_MAX);
    const { value, done } = await reader.read().finally(() => clearTimeout(timer));
    if (done) return;
    text += value;
    const blocks = text.split('\n\n');
    text = blocks.pop();
    for (const block of blocks) {
      const field = (name) => block.split('\n').find((line) => line.startsWith(name + ': '))?.slice(name.length + 2);
      const event = field('event');
      if (event) heard(event, field('data') ?? '');
    }
  }
}

// Follows for ever. `token()` is the token to send, or nothing. `say(state)` gets live, polling, lost or refused; and
// changed when there is something to read.
export async function follow(address, token, say) {
  let wait = WAIT_MIN;
  for (;;) {
    const abort = new AbortController();
    const sent = token();
    let retry = 0;
    try {
      const headers = { Accept: 'text/event-stream', ...(sent && { Authorization: `Bearer ${sent}` }) };
      const response = await fetch(address, { headers, cache: 'no-store', signal: abort.signal });
      if (response.status === 401 || response.status === 403) {
        say('refused');
        while (token() === sent) await sleep(500);
        continue;
      }
      if (response.ok) {
        say('live');
        await read(response, (event, data) => {
          wait = WAIT_MIN;
          if (event === 'bye') retry = JSON.parse(data).retry_ms ?? 0;
          else say('changed');
        }, () => abort.abort());
        say('lost');
      } else {
        // Too many watches, mostly: the page is live all the same, a little later.
        say('polling');
        say('changed');
        retry = POLL;
        wait = WAIT_MIN;
      }
    } catch {
      say('lost');
    }
    abort.abort();
    await sleep(retry || spread(wait));
    wait = retry ? WAIT_MIN : Math.min(2 * wait, WAIT_MAX);
  }
}

// As a shared worker: every tab says its token, and hears what the one connection says.
if ('SharedWorkerGlobalScope' in globalThis) {
  const tabs = new Map();
  let state = 'lost';
  const token = () => [...tabs.values()].find((token) => token) ?? '';
  const say = (said) => {
    if (said !== 'changed') state = said;
    for (const tab of tabs.keys()) tab.postMessage(said);
  };
  globalThis.onconnect = ({ ports: [tab] }) => {
    tab.onmessage = ({ data }) => {
      if (data === null) {
        tabs.delete(tab);
        return;
      }
      tabs.set(tab, data);
      tab.postMessage(state);
      // It may have missed what was said before.
      tab.postMessage('changed');
    };
  };
  follow(new URL('../watch?nodes=true', globalThis.location), token, say);
}
