// The address holds all that is chosen, so that every view has a link: report.html#view=images&image=3&...

/** What is chosen in the address. */
function chosen() {
  return Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
}

const choice = (name, fallback) => chosen()[name] ?? fallback;

/** The address with changes; null takes a choice back. */
function addressWith(changes) {
  const all = { ...chosen(), ...changes };
  const kept = Object.entries(all).filter(([, value]) => value !== null && value !== undefined);
  return `#${new URLSearchParams(kept)}`;
}

/** Go to another view: a step that the browser's back button takes back. */
function go(changes) {
  const target = addressWith(changes);
  if (target === location.hash) show();
  else location.hash = target; // "hashchange" shows it
}

/** Change what is chosen within a view. */
function choose(changes, shown = true) {
  history.replaceState(null, "", addressWith(changes));
  if (shown) show();
}
