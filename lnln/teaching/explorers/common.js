// What all explorers share: elements, scales, the controls, the frame that is shown.
// A figure adds `const figure = { controls?, draw, say }`; see `Explorer` in Python.

const STYLE = `
.explorer { color: var(--pst-color-text-base, var(--jp-ui-font-color1, inherit));
  font: 14px/1.45 system-ui, sans-serif; margin: 0.5rem 0 1rem; max-width: 760px; }
.explorer .bar { display: flex; flex-wrap: wrap; gap: 0.4rem 1.2rem;
  align-items: center; margin-bottom: 0.4rem; }
.explorer label { display: inline-flex; gap: 0.4rem; align-items: center; margin: 0; }
.explorer input[type=range] { width: min(260px, 52vw); accent-color: #0072b2; }
.explorer :focus-visible { outline: 2px solid #e69f00; outline-offset: 2px; }
.explorer select, .explorer input[type=number], .explorer button { font: inherit;
  color: inherit; background: transparent; border: 1px solid currentColor;
  border-radius: 4px; padding: 0.1rem 0.4rem; }
.explorer option { color: #222; background: #fff; }
.explorer button[aria-pressed=false] { opacity: 0.45; }
.explorer svg { display: block; width: 100%; overflow: visible; }
.explorer text { fill: currentColor; font-size: 12px; }
.explorer .words { font-size: 16px; min-height: 3.2em; margin: 0.2rem 0; }
.explorer .gone { opacity: 0.4; }
.explorer .says { margin: 0.3rem 0 0; font-variant-numeric: tabular-nums; }
`;
// Colours that colour-blind readers can tell apart (Okabe-Ito), on light and dark.
const COLOURS = { blue: "#0072b2", orange: "#d55e00", green: "#009e73",
  yellow: "#e69f00", sky: "#56b4e9", pink: "#cc79a7" };
const RAMP = [[0, 34, 78], [67, 78, 108], [125, 124, 120], [188, 175, 111],
  [254, 232, 56]];

function add(parent, tag, attributes = {}, text = "") {
  const inSvg = tag === "svg" || parent.namespaceURI.endsWith("svg");
  const element = inSvg
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes))
    element.setAttribute(name, value);
  element.textContent = text;
  parent.append(element);
  return element;
}

const scale = (from, to, start, end) => (x) =>
  start + ((x - from) / (to - from)) * (end - start);

function ramp(share) {
  const at = Math.min(Math.max(share, 0), 1) * (RAMP.length - 1);
  const i = Math.min(Math.floor(at), RAMP.length - 2);
  const mix = RAMP[i].map((c, k) => c + (at - i) * (RAMP[i + 1][k] - c));
  return `rgb(${mix.map(Math.round).join(",")})`;
}

const signed = (x, digits = 2) =>
  (x < 0 ? "−" : "+") + Math.abs(x).toFixed(digits);

// An axis along the bottom ("x") or the left ("y") of a box.
function axis(svg, side, ticks, place, box, name) {
  const bottom = side === "x";
  for (const tick of ticks) {
    const p = place(tick);
    add(svg, "text", bottom
      ? { x: p, y: box.bottom + 16, "text-anchor": "middle" }
      : { x: box.left - 6, y: p + 4, "text-anchor": "end" }, String(tick));
    add(svg, "line", { stroke: "currentColor", "stroke-opacity": 0.15, ...(bottom
      ? { x1: p, x2: p, y1: box.top, y2: box.bottom }
      : { x1: box.left, x2: box.right, y1: p, y2: p }) });
  }
  const middle = bottom ? (box.left + box.right) / 2 : (box.top + box.bottom) / 2;
  add(svg, "text", bottom
    ? { x: middle, y: box.bottom + 34, "text-anchor": "middle" }
    : { x: 0, y: 0, "text-anchor": "middle",
        transform: `translate(${box.left - 38} ${middle}) rotate(-90)` }, name);
}

// A table of shares as coloured squares; returns the height used.
function heatmap(svg, table, { x, y, size, names, title, most, rows, columns }) {
  const cell = size / table.length;
  add(svg, "text", { x: x + size / 2, y: y - 8, "text-anchor": "middle" }, title);
  table.forEach((row, i) => {
    add(svg, "text", { x: x - 6, y: y + (i + 0.5) * cell + 4, "text-anchor": "end" },
      names[i]);
    add(svg, "text", { x: x + (i + 0.5) * cell, y: y + size + 15,
      "text-anchor": "middle" }, names[i]);
    row.forEach((value, j) => {
      const square = add(svg, "rect", { x: x + j * cell, y: y + i * cell,
        width: cell + 0.5, height: cell + 0.5, fill: ramp(value / most) });
      add(square, "title", {}, `${rows} ${names[i]}, ${columns} ${names[j]}: ${value}`);
    });
  });
  add(svg, "text", { x: x + size / 2, y: y + size + 32, "text-anchor": "middle" },
    columns);
  add(svg, "text", { x: 0, y: 0, "text-anchor": "middle",
    transform: `translate(${x - 28} ${y + size / 2}) rotate(-90)` }, rows);
}

// As many columns of at least `least` pixels as fit, but no more than there are.
const columnsOf = (width, count, least) =>
  Math.max(1, Math.min(count, Math.floor(width / least)));

function choice(bar, name, options, chosen, changed) {
  const label = add(bar, "label", {}, name);
  const select = add(label, "select", { "aria-label": name });
  for (const option of options) {
    const item = add(select, "option", { value: option }, String(option));
    item.selected = option === chosen;
  }
  select.addEventListener("change", () => changed(select.value));
}

function render({ model, el }) {
  const root = add(el, "div", { class: "explorer" });
  add(root, "style", {}, STYLE);
  const bar = add(root, "div", { class: "bar" });
  const body = add(root, "div");
  const says = add(root, "p", { class: "says", role: "status", "aria-live": "polite" });
  const rates = model.get("rates"), live = model.get("live"), view = {};
  const fixed = model.get("fixed");

  const label = add(bar, "label", {}, "missing rate r");
  const slider = add(label, "input", { type: "range", "aria-label": "missing rate r",
    min: rates[0], max: rates.at(-1), step: live ? 0.01 : rates[1] - rates[0] });
  const shown = add(label, "output");
  let holes;

  // Other widgets may move what these controls move, so they follow the model.
  const follow = () => {
    const rate = model.get("rate");
    slider.value = rate;
    shown.textContent = rate.toFixed(2);
    slider.setAttribute("aria-valuetext", rate.toFixed(2));
    if (holes) holes.value = model.get("seed");
  };
  const draw = () => {
    const frame = model.get("frame"), rate = model.get("rate");
    follow();
    body.replaceChildren();
    figure.draw(body, { frame, fixed, view, rate, width: root.clientWidth || 700 });
    says.textContent = `r = ${rate.toFixed(2)}. ` + figure.say({ frame, fixed, view });
    root.dataset.frame = JSON.stringify(frame);
  };
  const set = (name, value) => { model.set(name, value); model.save_changes(); };
  slider.addEventListener("input", () => {
    const step = rates[1] - rates[0], i = Math.round((slider.value - rates[0]) / step);
    set("rate", live ? Number(slider.value) : rates[i]);
  });
  const seeds = model.get("seeds");
  if (live) {
    holes = add(add(bar, "label", {}, "mask seed"), "input",
      { type: "number", min: 0, step: 1, "aria-label": "mask seed" });
    holes.style.width = "5em";
    holes.addEventListener("change", () => set("seed", Math.max(0, Math.round(holes.value))));
  } else if (seeds.length > 1) {
    choice(bar, "mask seed", seeds, model.get("seed"), (value) =>
      set("seed", Number(value)));
  }
  if (live && !model.get("controls")) bar.replaceChildren();
  figure.controls?.(bar, fixed, view, draw);
  model.on("change:frame", draw);
  for (const name of ["rate", "seed"]) model.on(`change:${name}`, follow);
  const watcher = new ResizeObserver(() => {
    if (root.clientWidth !== watcher.width) { watcher.width = root.clientWidth; draw(); }
  });
  watcher.observe(root);
  return () => watcher.disconnect();
}
export default { render };

// A page has no kernel: this stands in for the model and looks frames up.
function standIn(state, frames) {
  const heard = {};
  return {
    get: (name) => state[name],
    set: (name, value) => { state[name] = value; },
    on: (event, react) => { heard[event] = react; },
    save_changes: () => {
      const i = state.rates.indexOf(state.rate), j = state.seeds.indexOf(state.seed);
      state.frame = frames[i][j];
      heard["change:frame"]?.();
    },
  };
}
