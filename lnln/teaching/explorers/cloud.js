// Two clouds of points: complete features, and the same utterances after damage.
const SENTIMENT = ["#2166ac", "#67a9cf", "#9dc3dd", "#b8b8b8", "#f2a582", "#ef6a4c",
  "#b2182b"];
const figure = {
  controls(bar, fixed, view, draw) {
    view.colour = "sentiment";
    choice(bar, "colour", ["sentiment", "cloud"], view.colour, (value) => {
      view.colour = value;
      draw();
    });
  },
  draw(body, { frame, fixed, view, width }) {
    const high = Math.min(width * 0.72, 460);
    const svg = add(body, "svg", { role: "img", height: high + 8,
      "aria-label": "corrected features on the map of the complete ones" });
    const spread = (k) => {
      const values = fixed.home.map((p) => p[k]);
      return [Math.min(...values) - 1, Math.max(...values) + 1];
    };
    const x = scale(...spread(0), 4, width - 4), y = scale(...spread(1), high, 4);
    for (const [a, b] of fixed.home)
      add(svg, "circle", { cx: x(a), cy: y(b), r: 3.4, fill:
        view.colour === "cloud" ? COLOURS.yellow : "currentColor",
        "fill-opacity": view.colour === "cloud" ? 0.9 : 0.18 });
    frame.place.forEach(([a, b], i) => {
      const label = fixed.labels[i];
      const dot = add(svg, "circle", { cx: x(a), cy: y(b), r: 3, fill:
        view.colour === "cloud" ? COLOURS.blue : SENTIMENT[Math.round(label) + 3] });
      add(dot, "title", {}, `y = ${signed(label, 1)}`);
    });
    const legend = add(body, "p", { class: "says" });
    const keys = view.colour === "cloud"
      ? [[COLOURS.yellow, "complete"], [COLOURS.blue, "damaged and corrected"]]
      : SENTIMENT.map((colour, i) => [colour, String(i - 3)]);
    for (const [colour, name] of keys) {
      add(legend, "span", { style: `color: ${colour}` }, "● ");
      legend.append(`${name}  `);
    }
  },
  say({ frame }) {
    return `Distance from home, in distances between strangers: corrected ` +
      `${frame.corrected.toFixed(2)}, uncorrected ${frame.uncorrected.toFixed(2)}.`;
  },
};
