// Two calls through the gateway, streamed into two panes. The key stays in this tab (sessionStorage) and goes to /v1 only.
"use strict";
const form = document.getElementById("ask-form");
const words = document.getElementById("words").dataset;
const key = document.getElementById("key");
const stop = document.getElementById("stop");
const say = (text, values) => text.replace(/\{(\w+)\}/g, (_all, name) => values[name]);
let running = null;

try { key.value = sessionStorage.getItem("playground-key") || ""; } catch { /* storage may be off */ }
for (const side of [0, 1]) {
  const chosen = document.getElementById(`model-${side}`);
  const show = () => { document.getElementById(`name-${side}`).textContent = chosen.value; };
  chosen.addEventListener("change", show);
  show();
}
stop.addEventListener("click", () => running?.abort());

form.addEventListener("submit", async event => {
  event.preventDefault();
  try { sessionStorage.setItem("playground-key", key.value); } catch { /* as above */ }
  running?.abort();
  running = new AbortController();
  stop.hidden = false;
  await Promise.allSettled([ask(0, running.signal), ask(1, running.signal)]);
  stop.hidden = true;
});

async function ask(side, signal) {
  const answer = document.getElementById(`answer-${side}`);
  const facts = document.getElementById(`facts-${side}`);
  answer.textContent = facts.textContent = "";
  const began = performance.now();
  const body = {
    model: document.getElementById(`model-${side}`).value,
    messages: [{ role: "user", content: document.getElementById("question").value }],
    max_tokens: Number(document.getElementById("limit").value), stream: true, stream_options: { include_usage: true },
  };
  try {
    const response = await fetch(form.dataset.url, { method: "POST", signal, body: JSON.stringify(body),
      headers: { "Content-Type": "application/json", Authorization: `Bearer ${key.value}` } });
    if (!response.ok) throw new Error((await response.json()).error?.message || response.status);
    const seen = await read(response, text => { answer.append(text); }, began);
    report(facts, response, seen, performance.now() - began);
  } catch (error) {
    if (error.name === "AbortError") facts.textContent = words.stopped;
    else facts.textContent = error instanceof TypeError ? words.offline : say(words.failed, { reason: error.message });
  }
}

// Server-sent events: one JSON chunk a line, the last one carries the usage.
async function read(response, write, began) {
  const seen = { first: null, usage: null };
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return seen;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data: ") || line.startsWith("data: [DONE]")) continue;
      const chunk = JSON.parse(line.slice(6));
      if (chunk.error) throw new Error(chunk.error.message);
      const text = chunk.choices?.[0]?.delta?.content;
      if (text) { seen.first ??= performance.now() - began; write(text); }
      if (chunk.usage) seen.usage = chunk.usage;
    }
  }
}

function report(facts, response, seen, total) {
  const arm = response.headers.get("x-paramstack-arm");
  const parts = [];
  if (arm) parts.push(words[arm === "challenger" ? "armChallenger" : "armChampion"]);
  if (seen.usage) parts.push(say(words.tokens, { in: seen.usage.prompt_tokens, out: seen.usage.completion_tokens }));
  if (seen.first !== null) parts.push(say(words.first, { ms: Math.round(seen.first) }));
  parts.push(say(words.total, { ms: Math.round(total) }));
  facts.textContent = parts.join(" · ") + " · ";
  const receipt = document.createElement("a");
  receipt.href = `${words.usage}${encodeURIComponent(response.headers.get("x-request-id"))}/`;
  receipt.textContent = words.receipt;
  facts.append(receipt);
  cost(facts, receipt);
}

// What the call cost stands in its ledger row, which follows the answer within a second.
async function cost(facts, receipt) {
  for (let tries = 0; tries < 8; tries += 1) {
    await new Promise(resolve => { setTimeout(resolve, 300); });
    const answer = await fetch(`${receipt.href}receipt.json`);
    if (!answer.ok) continue;
    const dollars = Number((await answer.json()).row.cost_nano) / 1e9;
    const money = new Intl.NumberFormat(document.documentElement.lang, { minimumFractionDigits: 2, maximumSignificantDigits: 3 });
    facts.append(` · $${money.format(dollars)}`);
    return;
  }
}
