// Scores over the missing rate, a line a method; each can be switched off.
const LINES = [["black", "6 4"], [COLOURS.blue, ""], [COLOURS.yellow, "10 3 2 3"],
  ["grey", "2 4"], [COLOURS.orange, ""], [COLOURS.green, "6 4"], [COLOURS.pink, ""],
  [COLOURS.sky, "2 4"], ["#aa4499", "6 4"], ["#999933", ""], ["#cc6677", "2 3"],
  ["#8c6d31", "10 3 2 3"]].map(([colour, dash]) =>
  [colour === "black" ? "currentColor" : colour, dash]);

const lineOf = (i) => LINES[i % LINES.length];

const figure = {
  controls(bar, fixed, view, draw) {
    view.shown = new Set(fixed.names);
    fixed.names.forEach((name, i) => {
      const button = add(bar, "button", { type: "button", "aria-pressed": true });
      add(button, "span", { style: `color: ${lineOf(i)[0]}` }, "■ ");
      button.append(name);
      button.addEventListener("click", () => {
        if (!view.shown.delete(name)) view.shown.add(name);
        button.setAttribute("aria-pressed", view.shown.has(name));
        draw();
      });
    });
  },
  draw(body, { frame, fixed, view, rate, width }) {
    const svg = add(body, "svg", { role: "img", height: 330,
      "aria-label": `${fixed.score} over the missing rate` });
    const box = { left: 52, right: width - 10, top: 10, bottom: 286 };
    const all = fixed.names.flatMap((name) => fixed.curves[name]);
    const low = Math.min(...all), high = Math.max(...all), room = (high - low) * 0.08;
    const x = scale(fixed.rates[0], fixed.rates.at(-1), box.left, box.right);
    const y = scale(low - room, high + room, box.bottom, box.top);
    axis(svg, "x", [0, 0.2, 0.4, 0.6, 0.8, 1], x, box, "missing rate r");
    const ticks = [];
    for (let t = Math.ceil(low / 0.2) * 0.2; t <= high; t += 0.2)
      ticks.push(Number(t.toFixed(1)));
    axis(svg, "y", ticks, y, box, fixed.score);
    add(svg, "line", { x1: x(rate), x2: x(rate), y1: box.top, y2: box.bottom,
      stroke: "currentColor", "stroke-opacity": 0.5 });
    fixed.names.forEach((name, i) => {
      if (!view.shown.has(name)) return;
      const [colour, dash] = lineOf(i);
      const points = fixed.rates.map((r, k) => `${x(r)},${y(fixed.curves[name][k])}`);
      add(svg, "polyline", { points: points.join(" "), fill: "none", stroke: colour,
        "stroke-width": 2.2, "stroke-dasharray": dash });
      add(svg, "circle", { cx: x(rate), cy: y(frame[name]), r: 5, fill: colour });
    });
  },
  say({ frame, fixed, view }) {
    const parts = fixed.names.filter((name) => view.shown.has(name))
      .map((name) => `${name} ${frame[name].toFixed(2)}`);
    return `${fixed.score}: ${parts.join(", ") || "nothing shown"}.`;
  },
};
