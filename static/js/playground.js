// Two calls through the gateway, streamed into two panes, with the person's own key of one hour. The key is in this
// page's memory only: the server hands it out again while it is good.
"use strict";
const form = document.getElementById("ask-form");
const words = document.getElementById("words").dataset;
const stop = document.getElementById("stop");
const at = name => document.getElementById(name);
const say = (text, values) => text.replace(/\{(\w+)\}/g, (_all, name) => values[name]);
const number = value => new Intl.NumberFormat(document.documentElement.lang).format(value);
const SPARE = 30_000; // ms before its end at which a key is not used any more
let running = null, held = null;

class Refused extends Error {
  constructor(body, status) {
    super(body?.message || String(status));
    this.decision = body?.decision_id;
    this.request = body?.request_id;
  }
}

for (const side of [0, 1]) {
  const chosen = at(`model-${side}`);
  const show = () => { at(`name-${side}`).textContent = chosen.value; };
  chosen.addEventListener("change", show);
  show();
}
stop.addEventListener("click", () => running?.abort());
at("question").addEventListener("keydown", event => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});
form.addEventListener("keydown", event => { if (event.key === "Escape") running?.abort(); });

form.addEventListener("submit", async event => {
  event.preventDefault();
  running?.abort();
  const mine = running = new AbortController();
  stop.hidden = false;
  for (const side of [0, 1]) begin(side);
  await Promise.allSettled([0, 1].map(side => ask(side, mine.signal)));
  if (running === mine) stop.hidden = true;
});

// The key of this login, made at the first question.
async function key(fresh) {
  if (!fresh && held && Date.parse(held.expires_at) - Date.now() > SPARE) return held;
  const answer = await fetch(form.action, { method: "POST", body: new FormData(form), redirect: "error" });
  if (!answer.ok) throw new Refused({ message: words.noKey }, answer.status);
  held = await answer.json();
  const ends = new Intl.DateTimeFormat(document.documentElement.lang, { timeStyle: "short", timeZone: words.zone }).format(new Date(held.expires_at));
  at("key-note").firstChild.textContent = `${say(words.key, { id: `ps_live_${held.id}`, at: ends })} `;
  return held;
}

let fetching = null; // both panes ask for the key at once and share one answer
function shared(fresh) {
  fetching ??= key(fresh).finally(() => { fetching = null; });
  return fetching;
}

function begin(side) {
  at(`answer-${side}`).textContent = "";
  at(`answer-${side}`).hidden = false;
  at(`problem-${side}`).hidden = true;
  at(`facts-${side}`).hidden = true;
  at(`facts-${side}`).replaceChildren();
  at(`pane-${side}`).setAttribute("aria-busy", "true");
  state(side, "running", words.writing);
}

// The console's status vocabulary: one icon and one word for each state.
const ICONS = { running: "loader-circle", done: "circle-check", wait: "ban", failed: "octagon-x" };
function state(side, kind, word) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg"), use = document.createElementNS(svg.namespaceURI, "use");
  svg.setAttribute("class", "i");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#i-${ICONS[kind]}`);
  svg.append(use);
  at(`state-${side}`).className = `status ${kind}`;
  at(`state-${side}`).replaceChildren(svg, word);
}

async function ask(side, signal) {
  const system = at("system").value.trim();
  const body = JSON.stringify({
    model: at(`model-${side}`).value,
    messages: [...(system ? [{ role: "system", content: system }] : []), { role: "user", content: at("question").value }],
    max_tokens: Number(at("limit").value), temperature: Number(at("temperature").value),
    stream: true, stream_options: { include_usage: true },
  });
  const began = performance.now(), seen = { first: null, usage: null, model: "" };
  let response = null;
  try {
    response = await send(body, signal);
    await read(response, side, seen, began);
    state(side, "done", words.done);
  } catch (error) {
    if (error.name === "AbortError") state(side, "wait", words.stopped);
    else problem(side, error);
  }
  at(`pane-${side}`).setAttribute("aria-busy", "false");
  if (response?.ok) report(side, response, seen, performance.now() - began);
}

// A key that was revoked meanwhile is replaced once; whoever revoked the right to call is answered by the server.
async function send(body, signal) {
  for (const fresh of [false, true]) {
    const { key: text } = await shared(fresh);
    const response = await fetch(form.dataset.url, { method: "POST", signal, body,
      headers: { "Content-Type": "application/json", Authorization: `Bearer ${text}` } });
    if (response.ok) return response;
    const told = (await response.json().catch(() => ({}))).error;
    if (response.status !== 401 || fresh) throw new Refused(told, response.status);
  }
  return null;
}

// Server-sent events: one JSON chunk a line, the last one carries the usage.
async function read(response, side, seen, began) {
  const answer = at(`answer-${side}`), reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data: ") || line.startsWith("data: [DONE]")) continue;
      const chunk = JSON.parse(line.slice(6));
      if (chunk.error) throw new Refused(chunk.error);
      const text = chunk.choices?.[0]?.delta?.content;
      if (text) { seen.first ??= performance.now() - began; answer.append(text); }
      if (chunk.usage) seen.usage = chunk.usage;
    }
  }
}

function problem(side, error) {
  const line = at(`problem-${side}`);
  state(side, "failed", words.failed);
  line.textContent = error instanceof TypeError ? words.offline : error.message;
  if (error.decision) line.append(" ", link(`${words.refusals}${encodeURIComponent(error.decision)}/`, words.why));
  else if (error.request) line.append(" ", link(`${words.calls}?id=${encodeURIComponent(error.request)}`, error.request, true));
  line.hidden = false;
  at(`answer-${side}`).hidden = !at(`answer-${side}`).textContent;
}

function link(address, text, code) {
  const made = document.createElement("a");
  made.href = address;
  made.append(code ? coded(text) : text);
  return made;
}

function coded(text) {
  const code = document.createElement("code");
  code.textContent = text;
  code.translate = false;
  return code;
}

function fact(side, name, value) {
  const line = document.createElement("div"), term = document.createElement("dt"), told = document.createElement("dd");
  term.textContent = name;
  told.append(value);
  line.append(term, told);
  at(`facts-${side}`).append(line);
  return told;
}

function report(side, response, seen, total) {
  const head = name => response.headers.get(name) || "";
  const id = head("x-request-id"), arm = head("x-paramstack-arm"), adapter = head("x-paramstack-adapter");
  const served = fact(side, words.model, "…");
  if (arm) fact(side, words.arm, words[`arm${arm[0].toUpperCase()}${arm.slice(1)}`] || arm);
  fact(side, words.adapter, adapter ? coded(adapter) : words.base);
  const tokens = fact(side, words.tokens, seen.usage ? count(seen.usage.prompt_tokens, seen.usage.completion_tokens) : words.booking);
  const ms = number(Math.round(total));
  fact(side, words.latency, seen.first === null ? say(words.totalValue, { ms }) : say(words.latencyValue, { ms, first: number(Math.round(seen.first)) }));
  const cost = fact(side, words.cost, words.booking);
  fact(side, words.request, link(`${words.calls}${encodeURIComponent(id)}/`, id, true));
  at(`facts-${side}`).hidden = false;
  book(id, { served, tokens, cost });
}

const count = (read, written) => say(words.tokensValue, { in: number(read), out: number(written) });

// What the call cost, and what answered, stands in its ledger row, which follows the answer within a second.
async function book(id, { served, tokens, cost }) {
  for (let tries = 0; tries < 10; tries += 1) {
    await new Promise(resolve => { setTimeout(resolve, 400); });
    // The list, not the call's own address: that would be a 404, which browsers report, until the row is there.
    const answer = await fetch(`${words.api}?request_id=${encodeURIComponent(id)}`).catch(() => null);
    const [row] = answer?.ok ? (await answer.json()).results : [];
    if (!row) continue;
    const money = new Intl.NumberFormat(document.documentElement.lang, { minimumFractionDigits: 2, maximumFractionDigits: 9 });
    cost.textContent = `$${money.format(row.cost)}`;
    tokens.textContent = count(row.input_tokens, row.output_tokens);
    served.textContent = row.served;
    return;
  }
  served.textContent = "–";
  cost.textContent = words.unbooked;
}
