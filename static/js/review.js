// Keys of the review page, and how long a pair was looked at. Single keys act outside fields only and can be turned off.
"use strict";
let shownAt = performance.now();
const single = document.getElementById("single-keys");
try { single.checked = localStorage.getItem("single-keys") !== "off"; } catch { /* storage may be off */ }
single.addEventListener("change", () => {
  try { localStorage.setItem("single-keys", single.checked ? "on" : "off"); } catch { /* as above */ }
});

document.addEventListener("keydown", event => {
  if (!single.checked || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (document.querySelector(":popover-open")) return;
  if (event.target.closest("input, textarea, select, [contenteditable]")) return;
  const key = event.key.toLocaleLowerCase("en");
  const button = [...document.querySelectorAll("[data-keys]")].find(b => b.dataset.keys.split(" ").includes(key));
  if (!button) return;
  event.preventDefault();
  button.click();
});

document.addEventListener("click", event => {
  if (!event.target.closest(".vote")) return;
  document.querySelector("[data-seconds]").value = ((performance.now() - shownAt) / 1000).toFixed(1);
}, true);

document.addEventListener("htmx:afterSettle", () => {
  shownAt = performance.now();
  document.querySelector("#question h1")?.focus({ preventScroll: true });
});
