// The table of results: sorted, filtered, its columns chosen; figures tell their intervals and lead to their images.

const MIME = { csv: "text/csv", tex: "application/x-tex", md: "text/markdown", parquet: "application/vnd.apache.parquet" };

const overview = {
  init() {
    $("table-filter").addEventListener("input", (e) => choose({ find: e.target.value || null }));
    $("table-intervals").addEventListener("change", (e) => choose({ intervals: e.target.checked ? 1 : null }));
    refill($("table-columns"), report.metrics.map((m) => el("label", { class: "check" },
      el("input", { type: "checkbox", value: m.name, change: () => this.chooseColumns() }), ` ${m.head}`)));
    this.downloads();
    if (report.statistics.length) this.truth();
  },

  show() {
    const hidden = new Set((choice("hide", "") || "").split(" "));
    $("table-columns").querySelectorAll("input").forEach((box) => { box.checked = !hidden.has(box.value); });
    $("table-intervals").checked = choice("intervals") === "1";
    if ($("table-filter").value !== choice("find", "")) $("table-filter").value = choice("find", "");
    this.table(report.metrics.filter((m) => !hidden.has(m.name)));
  },

  chooseColumns() {
    const boxes = [...$("table-columns").querySelectorAll("input")];
    choose({ hide: boxes.filter((b) => !b.checked).map((b) => b.value).join(" ") || null });
  },

  /** Heads of the columns before the metrics: name, text, value of a row. */
  heads() {
    return [
      ["method", "Method", methodName],
      ...(several ? [["run", "Run", (row) => report.runs[row.run].name]] : []),
      ["scale", "Scale", (row) => row.scale],
      ["images", "Images", (row) => row.images],
    ];
  },

  table(metrics) {
    const sort = choice("sort", "");
    const down = choice("down") === "1";
    const words = choice("find", "").toLowerCase().split(/\s+/).filter(Boolean);
    let rows = report.rows.filter((row) => {
      const text = `${rowName(row)} x${row.scale} ${row.operator}`.toLowerCase();
      return words.every((w) => text.includes(w));
    });
    const metric = metricOf[sort];
    const head = this.heads().find(([name]) => name === sort);
    if (metric || head) {
      const value = metric ? (row) => row.means[sort]?.[0] ?? null : head[2];
      rows = sortedBy(rows, value, down);
    }
    const titles = [...this.heads().map(([name, text]) => this.headCell(name, text, "", sort, down)),
      ...metrics.map((m) => this.headCell(m.name, m.head, [m.says, m.right && `Right value: ${m.right}`, `Source: ${m.source}`].filter(Boolean).join("\n"), sort, down))];
    refill($("table"), el("thead", {}, el("tr", {}, titles)), el("tbody", {}, rows.map((row) => this.line(row, metrics))));
    if (!rows.length) $("table").append(el("tbody", {}, el("tr", {}, el("td", { colspan: titles.length }, report.rows.length ? "No row fits the filter." : "Nothing has been measured yet."))));
  },

  headCell(name, text, tip, sort, down) {
    const state = name === sort ? (down ? "descending" : "ascending") : "none";
    const turn = () => choose(name !== sort ? { sort: name, down: metricOf[name]?.better === "higher" ? 1 : null }
      : { down: down ? null : 1 });
    return el("th", { scope: "col", "aria-sort": state, class: name === "method" || name === "run" ? "left" : null },
      el("button", { type: "button", class: "head", "data-focus": `head ${name}`, "data-tip": tip || null, click: turn }, text,
        el("span", { class: "turn", "aria-hidden": "true" }, { none: "", ascending: " ▲", descending: " ▼" }[state])));
  },

  line(row, metrics) {
    return el("tr", {},
      el("th", { scope: "row" }, swatch(row), methodName(row), row.impossible.length ? " †" : ""),
      several ? el("td", { class: "left" }, report.runs[row.run].name) : null,
      el("td", {}, `x${row.scale}`),
      el("td", {}, String(row.images)),
      metrics.map((m) => this.figure(row, m)));
  },

  figure(row, metric) {
    const mean = row.means[metric.name];
    if (!mean) return el("td", {}, "");
    const rank = ["best", "second"][row.ranks[metric.name]];
    const text = choice("intervals") === "1" ? withInterval(mean, metric.digits) : format(mean[0], metric.digits);
    const tip = [
      `${methodName(row)}, x${row.scale}: ${metric.head}`,
      withInterval(mean, metric.digits) + (mean[1] === null ? "" : " (95%)"),
      `${mean[3]} ${metric.timing ? (mean[3] === 1 ? "measurement" : "measurements") : mean[3] === 1 ? "image" : "images"}`,
      rank ? { best: "best of its scale", second: "second best" }[rank] : null,
      ...(row.missing[metric.name] || []),
    ].filter(Boolean).join("\n");
    const content = el("span", { class: rank }, text);
    if (metric.timing || mean[0] === null) return el("td", { "data-tip": tip, tabindex: -1 }, content);
    const open = () => go({ view: "images", scale: row.scale, metric: metric.name, of: row.id, beside: null, order: null, image: null, rows: null });
    return el("td", {}, el("button", { type: "button", class: "figure", "data-tip": tip, "data-focus": `figure ${row.id} ${metric.name}`, click: open }, content));
  },

  /** Statistics beside their right values, a line of these above the methods of each scale. */
  truth() {
    const titles = ["Method", "Scale", "Right values hold", ...report.statistics.map((s) => s.label)];
    const head = el("tr", {}, titles.map((t, i) => el("th", { scope: "col", class: i === 0 || i === 2 ? "left" : null, "data-tip": i > 2 ? [report.statistics[i - 3].says, report.statistics[i - 3].source].filter(Boolean).join("\n") : null }, t)));
    const lines = [];
    for (const scale of scales) {
      const rows = rowsOf(scale);
      lines.push(el("tr", { class: "right" }, el("th", { scope: "row" }, "a perfect sampler"), el("td", {}, `x${scale}`), el("td", {}, ""),
        report.statistics.map((s) => {
          const known = rows.map((r) => r.truth[s.name]?.right).find((v) => v !== null && v !== undefined);
          return el("td", {}, known === undefined ? "" : s.bound ? "within bound" : format(known, s.digits));
        })));
      for (const row of rows) {
        lines.push(el("tr", {}, el("th", { scope: "row" }, swatch(row), rowName(row)), el("td", {}, `x${scale}`), el("td", {}, row.holds),
          report.statistics.map((s) => {
            const found = row.truth[s.name];
            if (!found) return el("td", {}, "n/a");
            const interval = found.hi === null ? "" : s.bound ? `bound of a perfect sampler (95%): ${format(found.hi, s.digits)}`
              : `95% interval [${format(found.lo, s.digits)}, ${format(found.hi, s.digits)}]`;
            const right = found.right === null ? "" : `right value: ${format(found.right, s.digits)}`;
            return el("td", { "data-tip": [interval, right].filter(Boolean).join("\n") || null }, format(found.value, s.digits),
              found.ruled_out ? el("span", { class: "wrong" }, " ✗") : "");
          })));
      }
    }
    refill($("truth"), el("thead", {}, head), el("tbody", {}, lines));
  },

  downloads() {
    const links = report.runs.flatMap((run) => Object.keys(run.downloads).map((name) =>
      el("button", { type: "button", "data-file": name, click: () => this.download(run, name) }, several ? `${run.name}: ${name}` : name)));
    refill($("downloads"), links.length ? links : "Nothing has been measured yet.");
  },

  download(run, name) {
    const bytes = Uint8Array.from(atob(run.downloads[name]), (c) => c.charCodeAt(0));
    const url = URL.createObjectURL(new Blob([bytes], { type: MIME[name.split(".").pop()] || "application/octet-stream" }));
    const link = el("a", { href: url, download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
    say(`${name} was downloaded.`);
  },
};

/** Sort a copy by a value; what has none goes last either way. */
function sortedBy(items, value, down) {
  const known = items.map((item) => [value(item), item]);
  const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b);
  return known.sort(([a], [b]) => (a === null) - (b === null) || (a === null ? 0 : down ? compare(b, a) : compare(a, b)))
    .map(([, item]) => item);
}
