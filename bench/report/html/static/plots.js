// Charts, by Vega-Lite: their colours follow the page, and what they show can be pressed.

const plots = {
  init() {
    $("plots-scale").addEventListener("change", (e) => choose({ scale: e.target.value }));
    $("plots-quality").addEventListener("change", (e) => choose({ quality: e.target.value }));
    $("plots-metric").addEventListener("change", (e) => choose({ metric: e.target.value }));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { this.drawn = null; if (choice("view") === "plots") show(); });
  },

  show() {
    if (!report.rows.length) {
      refill($("trade"), el("p", { class: "muted" }, "Nothing has been measured yet."));
      return;
    }
    const scale = scales.includes(Number(choice("scale"))) ? Number(choice("scale")) : scales[0];
    const quality = metricOf[choice("quality")] || report.metrics.find((m) => m.perceptual) || imageMetrics[0];
    const metric = imageMetrics.find((m) => m.name === choice("metric")) || imageMetrics[0];
    options($("plots-scale"), scales.map((x) => [x, `x${x}`]), scale);
    options($("plots-quality"), report.metrics.map((m) => [m.name, m.head]), quality?.name);
    options($("plots-metric"), imageMetrics.map((m) => [m.name, m.head]), metric?.name);
    const rows = rowsOf(scale);
    this.trade(rows, quality);
    this.spread(rows, metric);
    this.calibration(rows);
  },

  /** A colour of the page, as it is in the reader's scheme. */
  colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  },

  /** A chart with a title that is read aloud; pressed marks go to `open`. */
  async chart(place, title, spec, open) {
    const box = el("div", { class: "plot" });
    const figure = el("figure", { class: "chart" }, el("figcaption", {}, title), box);
    place.append(figure);
    const [text, muted, line] = ["--text", "--muted", "--line"].map(this.colour);
    const axis = { labelColor: muted, titleColor: text, gridColor: line, domainColor: muted, tickColor: muted, labelFontSize: 11, titleFontSize: 12, titleFontWeight: "normal", labelLimit: 150 };
    const legend = { labelColor: text, titleColor: text, labelFontSize: 11, labelLimit: 260, symbolSize: 80 };
    const whole = {
      width: "container", height: 240, background: "transparent", description: title, ...spec,
      autosize: { type: "fit", contains: "padding" },
      config: { axis, legend, view: { stroke: line }, font: "system-ui, sans-serif" },
    };
    const many = JSON.stringify(spec).length > 500000;
    // `ast`: expressions are interpreted, since the page's policy does not let text become code
    const { view } = await vegaEmbed(box, whole, { actions: false, renderer: many ? "canvas" : "svg", ast: true, tooltip: { theme: "custom" } });
    if (open) view.addEventListener("click", (_, item) => { if (item?.datum) open(item.datum); });
    return view;
  },

  /** Colour and shape of each row, the same in all charts. */
  encoding(rows, withLegend) {
    const domain = rows.map(rowName);
    const legend = withLegend ? { orient: "bottom", columns: innerWidth < 700 ? 1 : 3, title: null } : null;
    return {
      color: { field: "row", type: "nominal", scale: { domain, range: rows.map(colourOf) }, legend },
      shape: { field: "row", type: "nominal", scale: { domain, range: rows.map(shapeOf) }, legend },
    };
  },

  trade(rows, quality) {
    refill($("trade"));
    const spreadMetric = report.metrics.find((m) => m.name.startsWith("apd_") && m.name.includes("lpips")) || report.metrics.find((m) => m.name.startsWith("apd_"));
    const others = [["psnr", "distortion"], ["lr_psnr", "consistency"], [spreadMetric?.name, "diversity"], ["seconds", "time"]]
      .filter(([name]) => metricOf[name] && name !== quality.name);
    for (const [name, word] of others) this.against(rows, metricOf[name], quality, word);
    this.legend($("trade"), rows);
  },

  legend(place, rows) {
    place.append(el("ul", { class: "legend" }, rows.map((row) => el("li", {}, swatch(row), rowName(row)))));
  },

  against(rows, x, y, word) {
    const values = rows.flatMap((row) => {
      const [a, b] = [row.means[x.name], row.means[y.name]];
      if (!a || !b || a[0] === null || b[0] === null) return [];
      return [{ row: rowName(row), id: row.id, x: a[0], x0: a[1] ?? a[0], x1: a[2] ?? a[0], y: b[0], y0: b[1] ?? b[0], y1: b[2] ?? b[0], a: withInterval(a, x.digits), b: withInterval(b, y.digits) }];
    });
    if (!values.length) return;
    const sign = (m) => (m.better === "higher" ? 1 : -1);
    const beats = (p, q) => sign(x) * (p.x - q.x) >= 0 && sign(y) * (p.y - q.y) >= 0 && (p.x !== q.x || p.y !== q.y);
    const directed = x.better !== "neither" && y.better !== "neither"; // without a direction nobody beats anybody
    const front = directed ? values.filter((q) => !values.some((p) => beats(p, q))) : [];
    const axis = (m, field) => ({ field, type: "quantitative", title: m.head, scale: m.name === "seconds" ? { type: "log" } : { zero: false }, axis: { tickCount: 5, labelOverlap: true, format: m.name === "seconds" ? "~g" : undefined } });
    const muted = "#8a8a8a";
    const open = (d) => d.id && go({ view: "images", of: d.id, metric: y.timing ? null : y.name, scale: rowById(d.id).scale, order: null, beside: null, image: null });
    this.chart($("trade"), `Quality and ${word}`, {
      layer: [
        ...(front.length ? [{ data: { values: front }, mark: { type: "line", color: muted, strokeWidth: 1, strokeDash: [4, 3] }, encoding: { x: axis(x, "x"), y: axis(y, "y"), order: { field: "x" } } }] : []),
        { data: { values }, mark: { type: "rule", strokeWidth: 1.2 }, encoding: { x: axis(x, "x0"), x2: { field: "x1" }, y: axis(y, "y"), color: this.encoding(rows).color } },
        { data: { values }, mark: { type: "rule", strokeWidth: 1.2 }, encoding: { x: axis(x, "x"), y: axis(y, "y0"), y2: { field: "y1" }, color: this.encoding(rows).color } },
        {
          data: { values }, mark: { type: "point", filled: true, size: 110, opacity: 1, cursor: "pointer" },
          encoding: { x: axis(x, "x"), y: axis(y, "y"), ...this.encoding(rows), tooltip: [{ field: "row", title: "method" }, { field: "a", title: x.label }, { field: "b", title: y.label }] },
        },
      ],
    }, open);
  },

  spread(rows, metric) {
    refill($("spread"));
    const values = rows.flatMap((row) => (row.values[metric.name] || []).map((v, number) => ({ row: rowName(row), id: row.id, number, image: imageText(number), v, text: format(v, metric.digits), jitter: ((number * 0.618034) % 1) - 0.5 }))).filter((d) => d.v !== null);
    if (!values.length) return;
    const x = { field: "v", type: "quantitative", title: metric.head, scale: { zero: false }, axis: { labelOverlap: true, tickCount: innerWidth < 700 ? 5 : 12 } };
    const y = { field: "row", type: "nominal", title: null, sort: rows.map(rowName), axis: { labelLimit: innerWidth < 700 ? 90 : 220 } };
    const color = this.encoding(rows).color;
    this.chart($("spread"), `${metric.head} over images`, {
      height: 44 * rows.length + 50, data: { values },
      layer: [
        { mark: { type: "boxplot", extent: "min-max", size: 26, box: { opacity: 0.35 }, median: { color: this.colour("--text") }, rule: { color: this.colour("--muted") } }, encoding: { x, y, color } },
        { mark: { type: "point", filled: true, size: 34, opacity: 0.85, cursor: "pointer" }, encoding: { x, y, yOffset: { field: "jitter", type: "quantitative", scale: { domain: [-1, 1] } }, color, tooltip: [{ field: "image", title: "name" }, { field: "row", title: "method" }, { field: "text", title: metric.label }] } },
      ],
    }, (d) => d.number !== undefined && go({ view: "images", image: d.number, of: d.id, metric: metric.name, scale: rowById(d.id).scale, a: null, b: null, beside: null }));
  },

  calibration(rows) {
    refill($("calibration"));
    const lines = (kind) => rows.flatMap((row) => (report.curves[row.number][kind] || []).map(([x, y]) => ({ row: rowName(row), x, y })));
    const ranks = rows.flatMap((row) => (report.curves[row.number].ranks || []).map((y, x) => ({ row: rowName(row), x, y })));
    const any = lines("tarp").length || lines("coverage").length || ranks.length;
    $("calibration-text").textContent = any ? "Dashed: what exact samples of the posterior give. Coverage below the line, or ranks that form a U: the samples are too narrow; above it, or a hill: too wide. Temperatures below 1 are narrower by design."
      : "No row has statistics of calibration (deterministic methods, or statistics=false).";
    const encoding = this.encoding(rows);
    const unit = (title) => ({ type: "quantitative", title, scale: { domain: [0, 1] }, axis: { tickCount: 5, labelOverlap: true } });
    const tooltip = [{ field: "row", title: "method" }, { field: "x", format: ".2f" }, { field: "y", format: ".3f" }];
    const right = (values) => ({ data: { values }, mark: { type: "line", color: "#8a8a8a", strokeDash: [5, 4], strokeWidth: 1.5 }, encoding: { x: { field: "x", type: "quantitative" }, y: { field: "y", type: "quantitative" } } });
    const diagonal = right([{ x: 0, y: 0 }, { x: 1, y: 1 }]);
    const curve = (values, x, y, points) => ({ data: { values }, mark: { type: "line", strokeWidth: 2, point: points ? { size: 40, filled: true } : false }, encoding: { x: { field: "x", ...x }, y: { field: "y", ...y }, color: encoding.color, tooltip } });
    for (const [kind, title, x, y] of [["tarp", "TARP: coverage of balls around reference points", "level", "share of images covered"], ["coverage", "Coverage of central intervals, pixel by pixel", "level of the interval", "share of intensities covered"]]) {
      const values = lines(kind);
      if (values.length) this.chart($("calibration"), title, { layer: [diagonal, curve(values, unit(x), unit(y), kind === "tarp")] });
    }
    if (ranks.length) {
      const most = Math.max(...ranks.map((d) => d.x));
      this.chart($("calibration"), "Rank of the truth among the samples", {
        layer: [right([{ x: 0, y: 1 }, { x: most, y: 1 }]), curve(ranks, { type: "quantitative", title: "rank of the truth", axis: { tickMinStep: 1, format: "d" } }, { type: "quantitative", title: "share over uniform", scale: { zero: true } }, true)],
      });
    }
    if (any) this.legend($("calibration"), rows.filter((row) => Object.keys(report.curves[row.number]).length));
  },
};
