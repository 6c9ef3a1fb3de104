// One utterance: what is left of it, what the model answers, what anyone could know.
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

    const x = scale(-3.2, 3.2, box.left, box.right);
    const tall = Math.max(0.2, ...frame.posterior);
    const y = scale(0, tall, box.bottom, box.top);
    axis(svg, "x", [-3, -2, -1, 0, 1, 2, 3], x, box, "sentiment");
    axis(svg, "y", [0, 0.1, 0.2, 0.3, 0.4].filter((t) => t <= tall), y, box,
      "probability");
    fixed.grid.forEach((value, i) => add(svg, "rect", { x: x(value - 0.08),
      width: x(0.16) - x(0), y: y(frame.posterior[i]),
      height: box.bottom - y(frame.posterior[i]), fill: "currentColor",
      "fill-opacity": 0.35 }));
    for (const [value, colour, dash] of [[fixed.truth, COLOURS.orange, "3 4"],
      [frame.y, COLOURS.blue, ""]])
      add(svg, "line", { x1: x(value), x2: x(value), y1: box.top - 6, y2: box.bottom,
        stroke: colour, "stroke-width": 3, "stroke-dasharray": dash });
    const legend = add(body, "p", { class: "says" });
    for (const [colour, name] of [[COLOURS.blue, "LNLN"],
      [COLOURS.orange, "true sentiment (dotted)"], ["currentColor", "exact posterior"]]) {
      add(legend, "span", { style: `color: ${colour}` }, "■ ");
      legend.append(`${name}  `);
    }
  },
  say({ frame, fixed }) {
    const left = [...frame.words].filter((bit) => bit === "1").length;
    return `${left} of ${fixed.words.length} words are left; the model estimates a ` +
      `completeness w = ${frame.w.toFixed(2)}. It answers ${signed(frame.y)}; the best ` +
      `answer is ${signed(frame.best)}, the truth ${signed(fixed.truth, 1)}.`;
  },
};
