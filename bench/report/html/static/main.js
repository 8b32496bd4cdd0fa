// Which view is seen, what keys do, and what is told about the thing under the pointer.

const views = { overview, images, plots, differences };

/** Show what the address says. */
function show() {
  const name = views[choice("view")] ? choice("view") : "overview";
  for (const other of Object.keys(views)) $(other).hidden = other !== name;
  for (const button of $("views").children) button.setAttribute("aria-current", button.dataset.view === name ? "page" : "false");
  tip.hide();
  views[name].show();
}

/** Intervals and explanations, on hover and on focus. */
const tip = {
  init() {
    const of = (e) => e.target.closest?.("[data-tip]");
    document.addEventListener("pointerover", (e) => (of(e) ? this.show(of(e)) : this.hide()));
    document.addEventListener("focusin", (e) => (of(e) && e.target.matches(":focus-visible") ? this.show(of(e)) : this.hide()));
    document.addEventListener("scroll", () => this.hide(), true);
  },

  show(element) {
    const box = $("tip");
    box.textContent = element.dataset.tip;
    box.hidden = false;
    const at = element.getBoundingClientRect();
    const left = Math.min(Math.max(at.left, 8), innerWidth - box.offsetWidth - 8);
    const below = at.bottom + 6 + box.offsetHeight < innerHeight;
    box.style.left = `${Math.max(left, 8)}px`;
    box.style.top = `${below ? at.bottom + 6 : Math.max(at.top - box.offsetHeight - 6, 8)}px`;
  },

  hide() {
    $("tip").hidden = true;
  },
};

/** A sentence below the title: how much of what. */
function summary() {
  const count = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;
  const methods = new Set(report.rows.map((row) => row.title)).size;
  const datasets = [...new Set(report.runs.map((run) => run.dataset.name).filter(Boolean))];
  $("summary").textContent = [several ? count(report.runs.length, "run") : null, count(methods, "method"), `${count(report.images.length, "image")} of ${datasets.join(", ")}`, scales.map((s) => `x${s}`).join(", ")].filter(Boolean).join(" · ");
}

function keys() {
  document.addEventListener("keydown", (e) => {
    if (e.key === "Escape") {
      tip.hide();
      document.querySelectorAll("details.menu[open]").forEach((menu) => { menu.open = false; });
    }
    if (e.ctrlKey || e.metaKey || e.altKey || e.target.matches("select, input:not([type=checkbox]):not([type=radio])")) return;
    if (e.key === " " && e.target.matches("button, summary, input")) return; // there it presses
    if (choice("view") === "images" && images.key(e)) e.preventDefault();
  });
  document.addEventListener("keyup", (e) => { if (e.key === " ") viewer.hold(false); });
  window.addEventListener("blur", () => viewer.hold(false));
  document.addEventListener("pointerdown", (e) => { // menus close where something else is pressed
    document.querySelectorAll("details.menu[open]").forEach((menu) => { if (!menu.contains(e.target)) menu.open = false; });
  });
}

for (const button of $("views").children) button.addEventListener("click", () => go({ view: button.dataset.view }));
Object.values(views).forEach((view) => view.init());
tip.init();
keys();
summary();
window.addEventListener("hashchange", show);
show();
