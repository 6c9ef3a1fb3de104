// Confusion matrices side by side: rows true classes, columns predicted ones.
const figure = {
  draw(body, { frame, fixed, width }) {
    const columns = columnsOf(width, fixed.names.length, 300);
    const each = width / columns, size = Math.min(each - 60, 270), high = size + 66;
    const svg = add(body, "svg", { role: "img", "aria-label": "confusion matrices",
      height: high * Math.ceil(fixed.names.length / columns) });
    fixed.names.forEach((name, i) => heatmap(svg, frame[name].table, {
      x: (i % columns) * each + 46, y: Math.floor(i / columns) * high + 22, size,
      names: fixed.classes, title: name, most: 1, rows: "true class",
      columns: "predicted class" }));
  },
  say({ frame, fixed }) {
    return fixed.names.map((name) => `${name}: Acc-7 ${frame[name].acc7.toFixed(2)}, ` +
      `entropy of answers ${frame[name].entropy.toFixed(2)}`).join("; ") + ".";
  },
};
