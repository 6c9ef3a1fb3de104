// One utterance: what is left of it, what the model answers, what anyone could know.

// Probabilities of the sentiment: the exact ones as grey bars, the model's as a blue
// outline over them (none of a model that answers with a number), and upright lines
// at numbers, [value, colour, width, dashes] each.
function drawSentiment(svg, { grid, exact, model, marks, box }) {
  const half = (grid[1] - grid[0]) / 2;
  const x = scale(-3.2, 3.2, box.left, box.right);
  const tall = Math.max(0.2, ...exact, ...(model ?? []));
  const y = scale(0, tall, box.bottom, box.top);
  axis(svg, "x", [-3, -2, -1, 0, 1, 2, 3], x, box, "sentiment");
  const step = tall > 0.5 ? 0.2 : 0.1;
  axis(svg, "y", [0, 1, 2, 3, 4, 5].map((n) => Math.round(n * step * 10) / 10)
    .filter((t) => t <= tall), y, box, "probability");
  grid.forEach((value, i) => add(svg, "rect", { x: x(value - 0.8 * half),
    width: x(1.6 * half) - x(0), y: y(exact[i]), height: box.bottom - y(exact[i]),
    fill: "currentColor", "fill-opacity": 0.35 }));
  for (const [value, colour, width, dashes] of marks)
    add(svg, "line", { x1: x(value), x2: x(value), y1: box.top - 6, y2: box.bottom,
      stroke: colour, "stroke-width": width, "stroke-dasharray": dashes });
  if (!model) return;
  const corners = grid.flatMap((value, i) =>
    [[value - half, model[i]], [value + half, model[i]]]);
  const closed = [[grid[0] - half, 0], ...corners, [grid.at(-1) + half, 0]];
  const points = closed.map(([v, p]) => `${x(v).toFixed(1)},${y(p).toFixed(1)}`).join(" ");
  // Paper around the ink, so that blue stands out from grey on light and on dark.
  const paper = "var(--pst-color-background, var(--jp-layout-color0, transparent))";
  for (const [colour, width] of [[paper, 5], [COLOURS.blue, 2.5]])
    add(svg, "polyline", { fill: "none", style: `stroke: ${colour}`, points,
      "stroke-width": width });
}

// What is drawn and how: [name, colour, "bars", "outline" or the dashes of a line] each.
function legend(parent, entries) {
  const all = add(parent, "p", { class: "says" });
  for (const [name, colour, form] of entries) {
    const entry = add(all, "span", { style: "white-space: nowrap; margin-right: 1em" });
    const sign = add(entry, "svg", { viewBox: "0 0 20 14", "aria-hidden": true,
      style: "display: inline-block; width: 20px; height: 14px; vertical-align: -2px" });
    if (form === "bars")
      for (const [x, height] of [[1, 8], [8, 14], [15, 5]])
        add(sign, "rect", { x, y: 14 - height, width: 5, height, fill: colour,
          "fill-opacity": 0.35 });
    else add(sign, "polyline", { fill: "none", stroke: colour, "stroke-width": 2.5,
      ...(form === "outline" ? { points: "0,13 1,13 1,6 7,6 7,1 13,1 13,8 19,8 19,13" }
        : { points: "10,-1 10,15", "stroke-dasharray": form }) });
    entry.append(` ${name}`);
  }
}

const figure = {
  draw(body, { frame, fixed, rate, width }) {
    const words = add(body, "p", { class: "words" });
    fixed.words.forEach((word, i) => {
      const left = frame.words[i] === "1";
      add(words, "span", left ? {} : { class: "gone" }, left ? word : "▢");
      words.append(" ");
    });
    const svg = add(body, "svg", { role: "img", height: 286,
      "aria-label": "surviving frames, probabilities of the sentiment, answers" });
    const box = { left: 52, right: width - 8, top: 104, bottom: 240 };
    for (const [row, name, kept] of [[0, "voice", frame.audio],
      [1, "face", frame.vision]]) {
      add(svg, "text", { x: 0, y: 16 + 20 * row }, name);
      const step = (box.right - box.left) / kept.length;
      [...kept].forEach((bit, i) => add(svg, "rect", { x: box.left + i * step,
        y: 6 + 20 * row, width: Math.max(step - 1, 0.5), height: 12,
        fill: bit === "1" ? COLOURS.sky : "none",
        stroke: "currentColor", "stroke-opacity": 0.25, "stroke-width": 0.5 }));
    }
    // The estimate of completeness as a gauge with a mark at its target.
    const gauge = scale(0, 1, box.left, box.right);
    add(svg, "text", { x: 0, y: 62 }, "w");
    add(svg, "rect", { x: box.left, y: 52, width: box.right - box.left, height: 12,
      fill: "none", stroke: "currentColor", "stroke-opacity": 0.4 });
    add(svg, "rect", { x: box.left, y: 52, height: 12, fill: COLOURS.green,
      width: Math.max(gauge(frame.w) - box.left, 0) });
    add(svg, "line", { x1: gauge(1 - rate), x2: gauge(1 - rate), y1: 47, y2: 69,
      stroke: "currentColor", "stroke-width": 2 });
    add(svg, "text", { x: gauge(1 - rate), y: 82, "text-anchor":
      rate > 0.85 ? "start" : rate < 0.15 ? "end" : "middle" }, "1 − r");

    drawSentiment(svg, { grid: fixed.grid, exact: frame.posterior,
      model: frame.probabilities, box, marks: [
        [frame.y, COLOURS.blue, 2.5, ""], [frame.best, "currentColor", 2, "7 4"],
        [fixed.truth, COLOURS.orange, 3, "3 4"]] });
    legend(body, [
      ...(frame.probabilities ? [["LNLN", COLOURS.blue, "outline"]] : []),
      [frame.probabilities ? "LNLN’s mean" : "LNLN", COLOURS.blue, ""],
      ["exact posterior", "currentColor", "bars"],
      ["posterior’s mean", "currentColor", "7 4"],
      ["true sentiment", COLOURS.orange, "3 4"]]);
  },
  say({ frame, fixed }) {
    const left = [...frame.words].filter((bit) => bit === "1").length;
    const sure = (width) => width === null ? "" : `, give or take ${width.toFixed(2)}`;
    return `${left} of ${fixed.words.length} words are left; the model estimates a ` +
      `completeness w = ${frame.w.toFixed(2)}. It answers ${signed(frame.y)}` +
      `${sure(frame.spread)}; the best answer is ${signed(frame.best)}` +
      `${sure(frame.best_spread)}, the truth ${signed(fixed.truth, 1)}.`;
  },
};
