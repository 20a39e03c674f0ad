// Draws every <figure data-chart="id"> from the JSON block of that id (Django: json_script).
// Rule: a figure names colours as tokens ("--c1", "--c1/20"); this file turns them into the theme's values. No hex in a figure.
"use strict";
const TR = { moduleType: "locale", name: "tr", dictionary: {}, format: {
  days: ["Pazar", "Pazartesi", "Salı", "Çarşamba", "Perşembe", "Cuma", "Cumartesi"],
  shortDays: ["Paz", "Pzt", "Sal", "Çar", "Per", "Cum", "Cmt"],
  months: ["Ocak", "Şubat", "Mart", "Nisan", "Mayıs", "Haziran", "Temmuz", "Ağustos", "Eylül", "Ekim", "Kasım", "Aralık"],
  shortMonths: ["Oca", "Şub", "Mar", "Nis", "May", "Haz", "Tem", "Ağu", "Eyl", "Eki", "Kas", "Ara"],
  date: "%d.%m.%Y", decimal: ",", thousands: "." } };

const LANGUAGE = document.documentElement.lang;
const probe = document.createElement("span");
probe.hidden = true;
document.body.append(probe);
const paint = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
function token(name) {
  const [variable, alpha] = name.split("/");
  probe.style.color = `var(${variable})`;
  paint.clearRect(0, 0, 1, 1);
  paint.fillStyle = getComputedStyle(probe).color;
  paint.fillRect(0, 0, 1, 1);
  const [r, g, b] = paint.getImageData(0, 0, 1, 1).data;
  return `rgba(${r},${g},${b},${alpha ? Number(alpha) / 100 : 1})`;
}
function themed(value) {
  if (typeof value === "string") return value.startsWith("--") ? token(value) : value;
  if (Array.isArray(value)) return typeof value[0] === "number" ? value : value.map(themed);
  if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, themed(v)]));
  return value;
}
function layout(own) {
  const font = { family: getComputedStyle(document.body).fontFamily, size: 12, color: "--ink-3" };
  const axis = { gridcolor: "--grid", zeroline: false, linecolor: "--line-2", tickcolor: "--line-2", ticks: "", tickfont: font, fixedrange: true, automargin: true };
  const base = { font, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", separators: LANGUAGE === "tr" ? ",." : ".,", showlegend: false, dragmode: false,
    margin: { l: 4, r: 8, t: 8, b: 4 }, hovermode: "x unified", bargap: 0.28,
    hoverlabel: { bgcolor: "--bg-raise", bordercolor: "--line-2", font: { ...font, color: "--ink" } } };
  return { ...base, ...own, xaxis: { ...axis, showgrid: false, ...own.xaxis }, yaxis: { ...axis, ...own.yaxis } };
}
function draw() {
  const jobs = [...document.querySelectorAll("[data-chart]")].map(figure => {
    const { data, layout: own } = JSON.parse(document.getElementById(figure.dataset.chart).textContent);
    const narrow = figure.clientWidth < 480;
    const full = layout(own);
    if (narrow && own.narrow) Object.assign(full, own.narrow);
    delete full.narrow;
    return Plotly.react(figure.querySelector(".plot"), themed(data), themed(full), { displayModeBar: false, responsive: true, locale: LANGUAGE });
  });
  return Promise.all(jobs).then(() => { document.documentElement.dataset.charts = "ready"; });
}
Plotly.register(TR);
document.fonts.ready.then(draw);
document.addEventListener("themechange", draw);
document.addEventListener("htmx:afterSettle", draw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
