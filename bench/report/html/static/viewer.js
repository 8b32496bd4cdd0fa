// Two pictures in one place: drag the divider, hold for B, or see their difference; pixels stay sharp.

const ZOOMS = [1, 2, 3, 4, 6, 8, 12, 16];

const viewer = {
  shown: null, // what was asked for last: an answer that comes late is not shown

  init() {
    options($("zoom"), [["", "fit"], ...ZOOMS.map((z) => [z, `${z}×`])], "");
    $("zoom").addEventListener("change", (e) => choose({ zoom: e.target.value || null }));
    $("picture-a").addEventListener("change", (e) => choose({ a: e.target.value }));
    $("picture-b").addEventListener("change", (e) => choose({ b: e.target.value }));
    $("subtract").addEventListener("change", (e) => choose({ subtract: e.target.checked ? 1 : null }));
    $("divide").addEventListener("input", (e) => this.divide(Number(e.target.value)));
    const stage = $("stage");
    const drag = (e) => {
      const box = $("canvas-a").getBoundingClientRect();
      this.divide(Math.min(100, Math.max(0, (100 * (e.clientX - box.left)) / box.width)));
    };
    stage.addEventListener("pointerdown", (e) => {
      if (e.button) return;
      stage.setPointerCapture(e.pointerId);
      drag(e);
    });
    stage.addEventListener("pointermove", (e) => { if (stage.hasPointerCapture(e.pointerId)) drag(e); });
    const button = $("hold");
    button.addEventListener("pointerdown", (e) => { button.setPointerCapture(e.pointerId); this.hold(true); });
    for (const end of ["pointerup", "pointercancel", "blur"]) button.addEventListener(end, () => this.hold(false));
    button.addEventListener("keydown", (e) => { if (e.key === " " || e.key === "Enter") { e.preventDefault(); e.stopPropagation(); this.hold(true); } });
    button.addEventListener("keyup", () => this.hold(false));
    window.addEventListener("resize", () => this.size());
  },

  /** Show A left of a place (in percent) and B right of it. */
  divide(at) {
    this.at = Math.round(at);
    $("divide").value = this.at;
    this.clip();
    clearTimeout(this.timer); // browsers refuse addresses that change a hundred times a second
    this.timer = setTimeout(() => choose({ at: this.at === 50 ? null : this.at }, false), 200);
  },

  hold(held) {
    this.held = held;
    $("hold").classList.toggle("pressed", held);
    this.clip();
  },

  clip() {
    const at = this.held ? 0 : this.subtracting ? 100 : this.at;
    $("canvas-b").style.clipPath = `inset(0 0 0 ${at}%)`;
    $("divider").style.left = `${at}%`;
    $("divider").hidden = Boolean(this.held || this.subtracting);
  },

  /** Show pictures of an image. Both are names as in `pixels`; `names` are those that can be chosen. */
  async show(number, a, b, names, scale, run) {
    const pairs = names.map((n) => [n, pictureName(n)]);
    options($("picture-a"), pairs, a);
    options($("picture-b"), pairs, b);
    this.subtracting = choice("subtract") === "1";
    $("subtract").checked = this.subtracting;
    $("zoom").value = choice("zoom", "");
    this.at = Number(choice("at", 50));
    $("divide").value = this.at;
    const asked = this.shown = JSON.stringify([number, a, b, this.subtracting]);
    $("stage").setAttribute("aria-label", `Image ${imageText(number)}. ${this.subtracting
      ? `Difference of A, ${pictureName(a)}, and B, ${pictureName(b)}` : `Left A, ${pictureName(a)}; right B, ${pictureName(b)}`}`);
    let found;
    try {
      found = await Promise.all([a, b, "truth"].map((name) => pixels(number, name, scale, run)));
    } catch (error) {
      this.nothing(error.message);
      return;
    }
    if (this.shown !== asked) return;
    const largest = found.filter(Boolean).sort((x, y) => y.width - x.width)[0];
    if (!largest) {
      this.nothing("No pictures of this image were kept.");
      return;
    }
    const [left, right] = found.slice(0, 2).map((p) => (p ? enlarged(p, largest.width, largest.height) : new ImageData(largest.width, largest.height)));
    paint($("canvas-a"), this.subtracting ? coloured(distance(left.data, right.data), largest.width, largest.height) : left);
    paint($("canvas-b"), right);
    $("stage").classList.remove("empty");
    $("stage").dataset.shown = asked;
    this.size();
    this.clip();
  },

  nothing(text) {
    $("stage").classList.add("empty");
    $("stage").dataset.text = text;
  },

  /** Whole multiples of pixels where they fit. */
  size() {
    const canvas = $("canvas-a");
    const room = $("viewer").clientWidth;
    if (!room) return;
    const fit = Math.min(room, 512) / canvas.width;
    const zoom = Number(choice("zoom", "")) || (fit >= 1 ? Math.floor(fit) : fit);
    $("stage").style.setProperty("--width", `${canvas.width * zoom}px`);
  },

  /** One step of zoom up or down. */
  step(by) {
    const now = Number(choice("zoom", "")) || $("canvas-a").clientWidth / $("canvas-a").width;
    const further = by > 0 ? ZOOMS.find((z) => z > now) : ZOOMS.filter((z) => z < now).pop();
    if (further) choose({ zoom: further });
  },
};
