// The browser over images: a gallery in the order of a figure, and one image with all its samples.

const ORDERS = [["worst", "worst first"], ["best", "best first"], ["number", "by number"]];

const images = {
  init() {
    const set = (name, id) => $(id).addEventListener("change", (e) => choose({ [name]: e.target.value || null }));
    $("images-scale").addEventListener("change", (e) => choose({ scale: e.target.value, rows: null, of: null, beside: null, a: null, b: null }));
    set("metric", "images-metric");
    set("of", "images-of");
    set("beside", "images-beside");
    set("order", "images-order");
    $("images-filter").addEventListener("input", (e) => choose({ name: e.target.value || null }));
    $("previous").addEventListener("click", () => this.step(-1));
    $("next").addEventListener("click", () => this.step(1));
    $("share").addEventListener("click", () => this.share());
    refill($("colour-scale"), "std and difference: 0 ", el("span", { class: "ramp", style: `background:linear-gradient(90deg,${report.spread.colours.filter((_, i) => i % 15 === 0).join(",")})` }), ` ${report.spread.most} of the range`);
    viewer.init();
  },

  /** What is chosen, with what stands for what is not. */
  state() {
    const scale = scales.includes(Number(choice("scale"))) ? Number(choice("scale")) : scales[0];
    const all = rowsOf(scale);
    const named = choice("rows") === undefined ? null : choice("rows").split(",").map(decodeURIComponent);
    const rows = named ? all.filter((row) => named.includes(row.id)) : all;
    const metric = metricOf[choice("metric")] && !metricOf[choice("metric")].timing ? metricOf[choice("metric")] : imageMetrics[0];
    const of = all.find((row) => row.id === choice("of")) || rows.find((row) => row.samples > 1) || rows[0] || all[0];
    const beside = all.find((row) => row.id === choice("beside"));
    return { scale, all, rows, metric, of, beside, order: choice("order", "worst"), name: choice("name", "") };
  },

  show() {
    if (!report.images.length) {
      refill($("gallery"), el("p", { class: "muted" }, "Nothing has been measured yet."));
      $("detail").hidden = true;
      return;
    }
    const s = this.state();
    this.bar(s);
    const list = this.list(s);
    this.order = list.map(([number]) => number);
    const wanted = report.images[Number(choice("image"))] ? Number(choice("image")) : this.order[0] ?? null;
    this.gallery(s, list, wanted);
    $("detail").hidden = wanted === null;
    if (wanted !== null) this.detail(s, wanted);
  },

  bar(s) {
    options($("images-scale"), scales.map((x) => [x, `x${x}`]), s.scale);
    options($("images-metric"), imageMetrics.map((m) => [m.name, m.head]), s.metric?.name);
    options($("images-of"), s.all.map((row) => [row.id, rowName(row)]), s.of.id);
    options($("images-beside"), [["", "—"], ...s.all.filter((row) => row !== s.of).map((row) => [row.id, rowName(row)])], s.beside?.id ?? "");
    options($("images-order"), s.beside ? [["worst", "disagreement, largest first"], ["best", "disagreement, smallest first"], ORDERS[2]] : ORDERS, s.order);
    if ($("images-filter").value !== s.name) $("images-filter").value = s.name;
    const shown = new Set(s.rows);
    const toggle = (row) => {
      const kept = s.all.filter((r) => (r === row ? !shown.has(r) : shown.has(r)));
      choose({ rows: kept.length === s.all.length ? null : kept.map((r) => encodeURIComponent(r.id)).join(",") });
    };
    refill($("images-rows"), s.all.map((row) => el("button", { type: "button", class: "chip", "aria-pressed": String(shown.has(row)), "data-focus": `chip ${row.id}`, click: () => toggle(row) }, swatch(row), rowName(row))));
  },

  /** Numbers of the images with the figure that they are sorted by. */
  list({ metric, of, beside, order, name, all }) {
    const at = (row, number) => (metric ? row.values[metric.name]?.[number] ?? null : null);
    const value = (number) => {
      const a = at(of, number);
      if (!beside) return a;
      const b = at(beside, number);
      return a === null || b === null ? null : a - b;
    };
    let numbers = report.images.map((_, number) => number).filter((number) => all.some((row) => countOf(row, number) || Object.values(row.values).some((v) => v[number] !== null)));
    if (name) numbers = numbers.filter((number) => `${report.images[number].index} ${imageText(number)}`.toLowerCase().includes(name.toLowerCase()));
    const found = numbers.map((number) => [number, value(number)]);
    if (order === "number") return found;
    const down = beside ? order === "worst" : (metric?.better === "higher") === (order === "best");
    return sortedBy(found, ([, v]) => (v === null ? null : beside ? Math.abs(v) : v), down);
  },

  gallery(s, list, wanted) {
    const thumb = ([number, value]) => el("button", {
      type: "button", class: "thumb", role: "option", "aria-selected": String(number === wanted), "data-image": number, "data-focus": `thumb ${number}`,
      click: () => choose({ image: number }),
    }, this.small(s, number), el("span", { class: "name" }, imageText(number)), el("span", { class: "value" }, value === null ? "" : (s.beside ? signed : format)(value, s.metric.digits)));
    refill($("gallery"), list.length ? list.map(thumb) : el("p", { class: "muted" }, "No image fits."));
    const current = $("gallery").querySelector("[aria-selected=true]");
    if (current) { // within the gallery alone: the page does not jump
      const box = $("gallery");
      box.scrollTop = Math.min(Math.max(box.scrollTop, current.offsetTop + current.offsetHeight - box.clientHeight), current.offsetTop);
      box.scrollLeft = Math.min(Math.max(box.scrollLeft, current.offsetLeft + current.offsetWidth - box.clientWidth), current.offsetLeft);
    }
  },

  /** A small picture of the truth, or of whatever there is of an image. */
  small(s, number) {
    const key = keyOf("truth", s.of.run, s.scale, number);
    const uri = report.pictures.thumbnails[number] || (key && embedded.get(key));
    return uri ? el("img", { src: uri, alt: "", loading: "lazy", width: 48, height: 48 }) : el("span", { class: "no-picture", "aria-hidden": "true" });
  },

  detail(s, number) {
    this.number = number;
    $("image-name").textContent = `${imageText(number)}`;
    this.figures(s, number);
    const kept = s.rows.filter((row) => countOf(row, number));
    const run = (kept[0] || s.of).run;
    const names = ["truth", "lr", ...s.all.flatMap((row) => picturesOf(row, number))];
    const known = (name, otherwise) => (names.includes(choice(name)) ? choice(name) : otherwise);
    const first = kept.includes(s.of) ? s.of : kept[0];
    const a = known("a", first ? `${first.id}/s0` : "truth");
    const b = known("b", s.beside && kept.includes(s.beside) ? `${s.beside.id}/s0` : "truth");
    this.tiles(s, number, kept, run, a, b);
    viewer.show(number, a, b, names, s.scale, run);
  },

  /** Figures of an image by method; the best of a metric is bold. */
  figures(s, number) {
    const shown = imageMetrics.filter((m) => s.all.some((row) => (row.values[m.name]?.[number] ?? null) !== null));
    const best = Object.fromEntries(shown.map((m) => {
      const values = s.rows.map((row) => row.values[m.name]?.[number] ?? null).filter((v) => v !== null);
      return [m.name, values.length > 1 && m.better !== "neither" ? format(m.better === "higher" ? Math.max(...values) : Math.min(...values), m.digits) : null];
    }));
    refill($("image-figures"),
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, ""), s.rows.map((row) => el("th", { scope: "col" }, swatch(row), rowName(row))))),
      el("tbody", {}, shown.map((m) => el("tr", {}, el("th", { scope: "row", "data-tip": m.says || null }, m.head), s.rows.map((row) => {
        const text = format(row.values[m.name]?.[number], m.digits);
        return el("td", {}, el("span", { class: text === best[m.name] && text !== "n/a" ? "best" : null }, text));
      })))));
  },

  /** All pictures of an image, a line per method. */
  tiles(s, number, kept, run, a, b) {
    const tile = (name, text) => {
      const canvas = el("canvas", { "aria-hidden": "true" });
      const button = el("button", {
        type: "button", class: `tile${name === a ? " a" : ""}${name === b ? " b" : ""}`, "data-picture": name, "data-focus": `tile ${name}`, "aria-label": `${pictureName(name)} of image ${imageText(number)}`,
        click: (e) => choose({ [e.shiftKey || document.querySelector("[name=sets]:checked").value === "b" ? "b" : "a"]: name }),
      }, canvas, el("span", { "aria-hidden": "true" }, text));
      pixels(number, name, s.scale, run).then((image) => { if (image) paint(canvas, image); else button.disabled = true; }, () => { button.disabled = true; });
      return button;
    };
    const line = (title, names) => el("div", { class: "line" }, el("h4", {}, title), el("div", { class: "row" }, names.map(([name, text]) => tile(name, text))));
    const whole = ["lr", "truth"].filter((kind) => keyOf(kind, run, s.scale, number));
    refill($("tiles"),
      whole.length ? line("Image", whole.map((kind) => [kind, pictureName(kind)])) : null,
      kept.map((row) => line([swatch(row), rowName(row)], picturesOf(row, number).map((name) => {
        const what = name.slice(name.lastIndexOf("/") + 1);
        return [name, { mean: "mean", std: "std", error: "mean − truth" }[what] || `sample ${Number(what.slice(1)) + 1}`];
      }))),
      kept.length || whole.length ? null : el("p", { class: "muted" }, "No samples of this image were kept (save_samples)."));
  },

  step(by) {
    const at = this.order.indexOf(this.number) + by;
    if (at >= 0 && at < this.order.length) choose({ image: this.order[at] });
  },

  /** A link to what is seen; where the page may not use the clipboard, the address has it. */
  async share() {
    const s = this.state();
    choose({ view: "images", scale: s.scale, image: this.number, a: $("picture-a").value, b: $("picture-b").value }, false);
    try {
      await navigator.clipboard.writeText(location.href);
      say("The link was copied.");
    } catch {
      say("The link is in the address of this page.");
    }
  },

  /** Keys of this view; see the line below the picture. */
  key(e) {
    if (e.key === "ArrowLeft") this.step(-1);
    else if (e.key === "ArrowRight") this.step(1);
    else if (e.key === "+" || e.key === "=") viewer.step(1);
    else if (e.key === "-") viewer.step(-1);
    else if (e.key === " ") viewer.hold(true);
    else if (/^[1-9]$/.test(e.key)) {
      const now = $("picture-a").value;
      const row = now.includes("/") ? now.slice(0, now.lastIndexOf("/")) : this.state().of.id;
      const name = `${row}/s${Number(e.key) - 1}`;
      if ([...$("picture-a").options].some((o) => o.value === name)) choose({ a: name });
    } else return false;
    return true;
  },
};

/** Names of the pictures of an image by a row. */
function picturesOf(row, number) {
  const count = countOf(row, number);
  const names = Array.from({ length: count }, (_, j) => `s${j}`);
  if (count > 1) names.push("mean", "std");
  if (count && keyOf("truth", row.run, row.scale, number)) names.push("error");
  return names.map((what) => `${row.id}/${what}`);
}
