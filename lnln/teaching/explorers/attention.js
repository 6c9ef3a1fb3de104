// Attention of the dominant feature to the tokens of one modality, a map a scale.
const figure = {
  controls(bar, fixed, view, draw) {
    view.modality = fixed.modalities[0];
    choice(bar, "looks at", fixed.modalities, view.modality, (name) => {
      view.modality = name;
      draw();
    });
  },
  draw(body, { frame, fixed, view, width }) {
    const maps = frame[view.modality].maps;
    const columns = columnsOf(width, maps.length, 210);
    const each = width / columns, size = Math.min(each - 56, 220), high = size + 66;
    const svg = add(body, "svg", { role: "img",
      "aria-label": `attention to ${view.modality}`,
      height: high * Math.ceil(maps.length / columns) });
    maps.forEach((map, i) => heatmap(svg, map, {
      x: (i % columns) * each + 44, y: Math.floor(i / columns) * high + 22, size,
      names: map.map((_, k) => String(k + 1)), title: `scale ${i + 1}`,
      most: fixed.most, rows: "token of H_d", columns: `token of ${view.modality}` }));
  },
  say({ frame, fixed, view }) {
    const numbers = frame[view.modality].entropy.map((x) => x.toFixed(2));
    return `Choosiness as entropy (even: ${fixed.even.toFixed(2)}), scale 1 to ` +
      `${numbers.length}: ${numbers.join(", ")}.`;
  },
};
