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

// A region that polls keeps still while the page is hidden or the person is in one of its fields,
// and keeps its opened details open.
document.addEventListener("htmx:beforeRequest", event => {
  const region = event.target;
  if (!region.matches("[data-poll]")) return;
  if (document.hidden || region.contains(document.activeElement)) event.preventDefault();
});
let opened = [];
document.addEventListener("htmx:beforeSwap", event => {
  opened = [...event.target.querySelectorAll("details[open][id]")].map(d => d.id);
});
document.addEventListener("htmx:afterSwap", () => {
  opened.forEach(id => document.getElementById(id)?.setAttribute("open", ""));
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
