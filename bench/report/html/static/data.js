"use strict";
// What all views share: the data of the page, and how its figures and names are written.
// Names come from files and may hold anything: they reach the page as text (`el`), never as HTML.

const report = JSON.parse(document.getElementById("data").textContent);
const several = report.runs.length > 1;
report.rows.forEach((row, number) => { row.number = number; });

const metricOf = Object.fromEntries(report.metrics.map((m) => [m.name, m]));
const imageMetrics = report.metrics.filter((m) => !m.timing);
const scales = [...new Set(report.rows.map((row) => row.scale))].sort((a, b) => a - b);

const $ = (id) => document.getElementById(id);

/** Make an element: attributes (functions become listeners), then children (text or elements). */
function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") made.addEventListener(name, value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter((c) => c !== null && c !== undefined));
  return made;
}

/** Replace what is in an element; the focus stays on what has the same data-focus. */
function refill(element, ...children) {
  const focused = element.contains(document.activeElement) ? document.activeElement.dataset.focus : undefined;
  element.replaceChildren(...children.flat().filter((c) => c !== null && c !== undefined));
  if (focused !== undefined) element.querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
}

/** Fill a select with [value, text] pairs and choose one. */
function options(select, pairs, chosen) {
  refill(select, pairs.map(([value, text]) => el("option", { value, selected: String(value) === String(chosen) }, text)));
  select.value = chosen;
}

/** A figure as Python's format does it: ".2f" or ".3g"; n/a where there is none. */
function format(value, digits) {
  if (value === null || value === undefined) return "n/a";
  const [, count, kind] = /\.(\d+)([fg])/.exec(digits) || [null, 3, "g"];
  const text = kind === "f" ? value.toFixed(count) : String(Number(value.toPrecision(count)));
  return /^-[0.]+$/.test(text) ? text.slice(1) : text; // no minus where nothing is left
}

/** The same with a plus before what is larger than 0. */
function signed(value, digits) {
  const text = format(value, digits);
  return value > 0 && /[1-9]/.test(text) ? `+${text}` : text;
}

/** The mean of a row with its interval: "25.00 [24.20, 26.90]". */
function withInterval([mean, low, high], digits) {
  const text = format(mean, digits);
  return low === null || low === high ? text : `${text} [${format(low, digits)}, ${format(high, digits)}]`;
}

const methodName = (row) => row.title + (row.tau === null ? "" : ` τ ${row.tau}`);
const rowName = (row) => methodName(row) + (several ? ` (${report.runs[row.run].name})` : "");
const rowsOf = (scale) => report.rows.filter((row) => row.scale === scale);
const rowById = (id) => report.rows.find((row) => row.id === id);
const imageText = (number) => `${report.images[number].name}`;

/** Whether an interval [mean, low, high] is known and does not contain 0. */
const excludesZero = ([, low, high]) => low !== null && (low > 0 || high < 0);

// Okabe and Ito's colours, which colour-blind people can tell apart, without yellow and black, which white or dark
// pages swallow; the shape tells again.
const COLOURS = ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7", "#8a8a8a"];
const SHAPES = ["circle", "square", "diamond", "triangle-up", "cross", "triangle-down", "stroke"];
const names = [...new Set(report.rows.map(rowName))];
const colourOf = (row) => COLOURS[names.indexOf(rowName(row)) % COLOURS.length];
const shapeOf = (row) => SHAPES[names.indexOf(rowName(row)) % SHAPES.length];
const swatch = (row) => el("span", { class: "swatch", style: `background:${colourOf(row)}`, "aria-hidden": "true" });

/** Tell something to those who see and those who hear. */
function say(text) {
  $("said").textContent = text;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => { $("said").textContent = ""; }, 2500);
}
