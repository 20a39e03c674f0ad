// The few behaviours of the shell. Everything here is a comfort: each form and link works without it.
"use strict";
const root = document.documentElement;

// Theme: applied at once, then sent like the form it is.
document.querySelectorAll("[data-theme-form]").forEach(form => form.addEventListener("submit", event => {
  event.preventDefault();
  const name = event.submitter.value;
  if (name === "system") root.removeAttribute("data-theme"); else root.dataset.theme = name;
  form.querySelectorAll("button").forEach(b => b.setAttribute("aria-pressed", String(b === event.submitter)));
  document.dispatchEvent(new Event("themechange"));
  fetch(form.action, { method: "POST", body: new FormData(form, event.submitter), redirect: "manual" });
}));

// A region that polls keeps still while the page is hidden or the person is in one of its fields;
// opened details stay open, tables stay scrolled, and the focus stays where it was.
document.addEventListener("htmx:beforeRequest", event => {
  const region = event.target;
  if (!region.matches("[data-poll]")) return;
  const field = document.activeElement.matches("input, select, textarea") && region.contains(document.activeElement);
  if (document.hidden || field) event.preventDefault();
});
let opened = [], scrolled = [], focused = null;
document.addEventListener("htmx:beforeSwap", event => {
  const region = event.target, active = document.activeElement;
  opened = [...region.querySelectorAll("details[open][id]")].map(d => d.id);
  scrolled = [...region.querySelectorAll(".scroll[id]")].map(s => [s.id, s.scrollTop, s.scrollLeft]);
  focused = region.contains(active) ? [active.tagName, active.id || active.closest("[id]").id, active.textContent] : null;
});
document.addEventListener("htmx:afterSwap", () => {
  opened.forEach(id => document.getElementById(id)?.setAttribute("open", ""));
  scrolled.forEach(([id, top, left]) => document.getElementById(id)?.scrollTo({ top, left, behavior: "instant" }));
  if (!focused) return;
  const [tag, id, text] = focused, around = document.getElementById(id);
  const same = [around, ...(around?.querySelectorAll(tag) || [])].find(e => e?.tagName === tag && e.textContent === text);
  same?.focus({ preventScroll: true });
});

// Three missed beats: the page says that its numbers are old.
let missed = 0;
document.addEventListener("htmx:afterRequest", event => {
  if (!event.target.matches("[data-poll]")) return;
  missed = event.detail.successful ? 0 : missed + 1;
  document.querySelectorAll(".fresh").forEach(f => f.classList.toggle("stale", missed > 2));
});

// Copy buttons appear only where copying works.
document.querySelectorAll("[data-copy]").forEach(button => {
  if (!navigator.clipboard) return;
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent.trim());
    document.getElementById("announce").textContent = button.dataset.done;
    button.querySelector("span").textContent = button.dataset.done;
  });
});

// One filter change is enough to send a filter form.
document.querySelectorAll("form[data-auto]").forEach(form => form.addEventListener("change", () => form.requestSubmit()));

// On a narrow screen the tab that is open is in sight.
document.querySelector(".tabs [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
