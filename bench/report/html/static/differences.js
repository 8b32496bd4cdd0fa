// Two rows, image by image: paired differences with intervals, and the images where they differ most.

const MOST = 12; // images that are shown

const differences = {
  init() {
    $("pair-a").addEventListener("change", (e) => choose({ first: e.target.value, second: null }));
    $("pair-b").addEventListener("change", (e) => choose({ second: e.target.value }));
    if (several) this.matrix();
  },

  /** Differences of a method between two runs. */
  across() {
    return report.differences.filter((d) => report.rows[d.a].run !== report.rows[d.b].run);
  },

  /** The difference of two rows as stored, or turned around. */
  pair(a, b) {
    const found = report.differences.find((d) => d.a === a.number && d.b === b.number);
    if (found) return found.metrics;
    const turned = report.differences.find((d) => d.a === b.number && d.b === a.number);
    return turned && Object.fromEntries(Object.entries(turned.metrics).map(([name, [mean, low, high, n]]) =>
      [name, [mean === null ? null : -mean, high === null ? null : -high, low === null ? null : -low, n]]));
  },

  partners(row) {
    return report.rows.filter((other) => other !== row && this.pair(row, other));
  },

  /** What a difference says: which of two is better, or that they are not told apart. */
  verdict(metric, estimate) {
    if (!estimate || estimate[0] === null) return ["", ""];
    if (!excludesZero(estimate)) return ["equal", "not told apart"];
    if (metric.better === "neither") return ["", estimate[0] > 0 ? "A larger" : "B larger"];
    return (estimate[0] > 0) === (metric.better === "higher") ? ["a", "A better"] : ["b", "B better"];
  },

  show() {
    const able = report.rows.filter((row) => this.partners(row).length);
    $("pair").hidden = !able.length;
    if (!able.length) {
      $("pair-text").textContent = "Differences need two rows of one scale.";
      return;
    }
    const across = this.across();
    const usual = across.find((d) => Object.values(d.metrics).some(excludesZero)) || across[0] || report.differences[0];
    const a = able.find((row) => row.id === choice("first")) || report.rows[usual.a];
    const partners = this.partners(a);
    const b = partners.find((row) => row.id === choice("second")) || (a.number === usual.a ? report.rows[usual.b] : partners[0]);
    const name = (row) => `x${row.scale} ${rowName(row)}`;
    options($("pair-a"), able.map((row) => [row.id, name(row)]), a.id);
    options($("pair-b"), partners.map((row) => [row.id, name(row)]), b.id);
    const found = this.pair(a, b);
    const shared = Math.max(0, ...Object.values(found).map(([, , , n]) => n));
    const other = a.operator !== b.operator ? ` Their observations differ: ${a.operator} and ${b.operator}.` : "";
    $("pair-text").textContent = `A − B over the images that both have (${shared}), with 95% intervals (BCa bootstrap over images).${other} Press a metric to see where they differ most.`;
    const metrics = imageMetrics.filter((m) => found[m.name]);
    const metric = metrics.find((m) => m.name === choice("metric")) || metrics.find((m) => m.perceptual) || metrics[0];
    refill($("pair"),
      el("thead", {}, el("tr", {}, ["Metric", "Verdict", "A − B", "", "A", "B", "Images"].map((t, i) => el("th", { scope: "col", class: i < 2 ? "left" : null }, t)))),
      el("tbody", {}, metrics.map((m) => this.line(m, a, b, found[m.name], m === metric))));
    if (metric) this.most(a, b, metric);
  },

  line(metric, a, b, estimate, current) {
    const [side, text] = this.verdict(metric, estimate);
    return el("tr", { "aria-current": current ? "true" : null },
      el("th", { scope: "row" }, el("button", { type: "button", class: "head", "data-focus": `pair ${metric.name}`, "data-tip": metric.says || null, click: () => choose({ metric: metric.name }) }, metric.head)),
      el("td", { class: "left" }, el("span", { class: `verdict ${side}` }, text)),
      el("td", {}, withInterval(estimate, metric.digits)),
      el("td", {}, this.bar(estimate)),
      el("td", {}, format(a.means[metric.name]?.[0], metric.digits)),
      el("td", {}, format(b.means[metric.name]?.[0], metric.digits)),
      el("td", {}, String(estimate[3])));
  },

  /** An interval as a bar; zero is in the middle. */
  bar([mean, low, high]) {
    const most = Math.max(Math.abs(mean ?? 0), Math.abs(low ?? 0), Math.abs(high ?? 0)) || 1;
    const at = (v) => 50 + (46 * v) / most;
    if (mean === null) return "";
    const parts = [el("i", { class: "zero" })];
    if (low !== null) parts.push(el("i", { class: "range", style: `left:${at(low)}%;width:${Math.max(at(high) - at(low), 1)}%` }));
    parts.push(el("i", { class: "dot", style: `left:${at(mean)}%` }));
    return el("span", { class: "interval", "aria-hidden": "true" }, parts);
  },

  most(a, b, metric) {
    const [x, y] = [a, b].map((row) => row.values[metric.name] || []);
    const found = report.images.map((_, number) => [number, x[number] == null || y[number] == null ? null : x[number] - y[number]]).filter(([, d]) => d !== null);
    const largest = sortedBy(found, ([, d]) => Math.abs(d), true).slice(0, MOST);
    $("most-title").textContent = `Where they differ most: ${metric.head}`;
    const open = (number) => go({ view: "images", scale: a.scale, image: number, metric: metric.name, of: a.id, beside: b.id, order: null, rows: null, a: countOf(a, number) ? `${a.id}/s0` : null, b: countOf(b, number) ? `${b.id}/s0` : null });
    refill($("most"), largest.map(([number, d]) => {
      const canvas = (row) => {
        const made = el("canvas", { "aria-hidden": "true" });
        if (countOf(row, number)) pixels(number, `${row.id}/s0`, row.scale, row.run).then((image) => image && paint(made, image), () => {});
        return made;
      };
      return el("button", { type: "button", class: "two", "data-image": number, "aria-label": `Image ${imageText(number)}, A − B ${format(d, metric.digits)}`, click: () => open(number) },
        el("span", { class: "row" }, canvas(a), canvas(b)),
        el("span", { class: "name" }, imageText(number)), el("span", { class: "value" }, signed(d, metric.digits)));
    }));
  },

  /** All methods that two runs share, by metric. */
  matrix() {
    const across = this.across();
    if (!across.length) {
      refill($("matrix-part"), el("p", { class: "notice" }, "The runs share no method at the same scale and temperature: choose two rows of one run below."));
      return;
    }
    const metrics = imageMetrics.filter((m) => across.some((d) => d.metrics[m.name]));
    const more = report.runs.length > 2;
    const cell = (d, m) => {
      const estimate = d.metrics[m.name];
      if (!estimate) return el("td", {}, "");
      const [side, text] = this.verdict(m, estimate);
      const open = () => choose({ first: report.rows[d.a].id, second: report.rows[d.b].id, metric: m.name });
      return el("td", {}, el("button", { type: "button", class: "figure", "data-tip": `A − B: ${withInterval(estimate, m.digits)} (95%)\n${estimate[3]} images\n${text}`, click: open },
        el("span", { class: `verdict ${side}` }, `${{ a: "A ", b: "B " }[side] || ""}${signed(estimate[0], m.digits)}`)));
    };
    refill($("matrix-part"), el("h2", {}, "Run beside run"),
      el("p", { class: "muted small" }, `Mean of A − B over the images that both have${more ? "" : `; A is ${report.runs[0].name}, B is ${report.runs[1].name}`}. A or B before a figure: the better one, where the 95% interval of the difference excludes zero.`),
      el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Differences of runs by method and metric" }, el("table", { id: "matrix" },
        el("thead", {}, el("tr", {}, ["Method", "Scale", ...(more ? ["A", "B"] : []), ...metrics.map((m) => m.head)].map((t) => el("th", { scope: "col", class: "left" }, t)))),
        el("tbody", {}, across.map((d) => {
          const [a, b] = [report.rows[d.a], report.rows[d.b]];
          return el("tr", {}, el("th", { scope: "row" }, methodName(a)), el("td", {}, `x${a.scale}`), more ? [a, b].map((row) => el("td", {}, report.runs[row.run].name)) : null, metrics.map((m) => cell(d, m)));
        })))));
  },
};
