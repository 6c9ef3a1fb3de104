// The trained model in the reader's browser: erase words and frames, and watch.
// Comes after common.js and utterance.js, whose elements and drawings it uses.

// The exact posterior over the grid of sentiments; see `lnln.posterior`.
function posteriorOf({ corpus, grid }, { tokens, audio, vision }) {
  const { opinion, valence, negators, unk } = corpus;
  const normal = (target) => {
    const p = valence.map((v) => Math.exp(-((v - target) ** 2) / (2 * corpus.spread ** 2)));
    const sum = p.reduce((a, b) => a + b, 0);
    return p.map((x) => x / sum);
  };
  const plain = grid.map((y) => normal(y));
  const negated = grid.map((y) => normal(corpus.negation * y));
  const sincere = grid.map(() => 0);
  tokens.forEach((token, place) => {
    const word = opinion.indexOf(token);
    if (word < 0) return;
    const before = tokens[place - 1];
    grid.forEach((_, i) => {
      const [p, n] = [plain[i][word], negated[i][word]];
      sincere[i] += Math.log(negators.includes(before) ? n
        : before === unk ? (1 - corpus.p_negator) * p + corpus.p_negator * n : p);
    });
  });
  // The grid is symmetric: an ironic text is the same text read for -y.
  const add2 = (a, b) => Math.max(a, b) + Math.log1p(Math.exp(-Math.abs(a - b)));
  const log = sincere.map((s, i) => Math.log(corpus.prior[i]) + add2(
    Math.log(1 - corpus.p_irony) + s,
    Math.log(corpus.p_irony) + sincere[grid.length - 1 - i]));

  if (audio.length) {
    const mean = corpus.audio_effect.map((_, k) =>
      audio.reduce((sum, frame) => sum + frame[k], 0) / audio.length);
    const variance = corpus.audio_offset ** 2 + corpus.audio_noise ** 2 / audio.length;
    grid.forEach((y, i) => {
      log[i] -= mean.reduce((sum, m, k) =>
        sum + (m - y * corpus.audio_effect[k]) ** 2, 0) / (2 * variance);
    });
  }
  for (const frame of vision) {
    const along = frame.reduce((sum, x, k) => sum + x * corpus.direction[k], 0);
    grid.forEach((y, i) => {
      const shift = corpus.vision_effect * y;
      const ratio = (along * shift - shift ** 2 / 2) / corpus.vision_noise ** 2;
      log[i] += Math.log1p(corpus.p_expressive * Math.expm1(ratio));
    });
  }
  const top = Math.max(...log), p = log.map((x) => Math.exp(x - top));
  const sum = p.reduce((a, b) => a + b, 0);
  return p.map((x) => x / sum);
}

// The answer with the smallest expected error under p, and that error: of the exact
// posterior, the Bayes limit here.
function bestOf(grid, p) {
  let mass = 0, i = -1;
  while (mass < 0.5) mass += p[++i];
  const error = grid.reduce((sum, y, k) => sum + p[k] * Math.abs(y - grid[i]), 0);
  return { best: grid[i], error };
}

const keptFrames = (part, rate) => part.frames.map((frame, t) =>
  part.draws[t] >= rate ? frame : frame.map(() => 0));

async function openModel(files) {
  const ort = await import(new URL("ort.wasm.min.mjs", files));
  ort.env.wasm.wasmPaths = files.href;
  ort.env.wasm.numThreads = 1;
  const session = await ort.InferenceSession.create(new URL("mini.onnx", files).href);
  const long = (values) => BigInt64Array.from(values.map((x) => BigInt(x)));
  return async ({ tokens, audio, vision }) => {
    const input = (values, ...shape) =>
      new ort.Tensor("float32", Float32Array.from(values.flat()), shape);
    const whole = (values, ...shape) => new ort.Tensor("int64", long(values), shape);
    const result = await session.run({
      tokens: whole(tokens, 1, tokens.length), token_lengths: whole([tokens.length], 1),
      audio: input(audio, 1, audio.length, audio[0].length),
      audio_lengths: whole([audio.length], 1),
      vision: input(vision, 1, vision.length, vision[0].length),
      vision_lengths: whole([vision.length], 1),
    });
    return { w: result.completeness.data[0],
      probabilities: Array.from(result.probabilities.data) };
  };
}

function lab(el, data, files) {
  const { corpus, grid, utterances } = data;
  const root = add(el, "div", { class: "explorer" });
  add(root, "style", {}, STYLE);
  const told = add(root, "p", { class: "says", role: "status", "aria-live": "polite" });
  const start = add(root, "button", { type: "button" }, "Load the model");
  const stage = add(root, "div", { hidden: "" });
  let ask = null;
  const state = { utterance: 0, words: [], kept: [], a: 0, v: 0 };

  // Words outside of the vocabulary are [UNK] to the model, just like erased ones.
  const idOf = (word) => {
    const id = corpus.vocab.indexOf(word);
    return id < 0 ? corpus.unk : id;
  };
  root.answer = async ({ utterance, words, kept, a, v }) => {
    const { audio, vision } = utterances[utterance];
    const tokens = [corpus.cls, ...words.map((word, i) =>
      kept[i] ? idOf(word) : corpus.unk), corpus.sep];
    const frames = { audio: keptFrames(audio, a), vision: keptFrames(vision, v) };
    const left = (all) => all.filter((frame) => frame.some((x) => x !== 0));
    const exact = posteriorOf(data, { tokens, audio: left(frames.audio),
      vision: left(frames.vision) });
    const { w, probabilities } = await ask({ tokens, ...frames });
    return { w, probabilities, model: bestOf(grid, probabilities),
      posterior: exact, exact: bestOf(grid, exact) };
  };

  const bar = add(stage, "div", { class: "bar" });
  choice(bar, "utterance", utterances.map((u) => u.words.join(" ")),
    utterances[0].words.join(" "), (text) => {
      state.utterance = utterances.findIndex((u) => u.words.join(" ") === text);
      take(text);
    });
  bar.querySelector("select").style.maxWidth = "min(420px, 70vw)";
  const typed = add(add(bar, "label", {}, "or type"), "input",
    { type: "text", "aria-label": "your own sentence", maxlength: 200,
      style: "width: min(420px, 66vw); font: inherit" });
  const words = add(stage, "p", { class: "words" });
  const sliders = add(stage, "div", { class: "bar" });
  for (const [name, text] of [["a", "voice missing"], ["v", "face missing"]]) {
    const label = add(sliders, "label", {}, text);
    const slider = add(label, "input", { type: "range", min: 0, max: 1, step: 0.05,
      value: 0, "aria-label": text });
    const shown = add(label, "output", {}, "0.00");
    slider.addEventListener("input", () => {
      state[name] = Number(slider.value);
      shown.textContent = state[name].toFixed(2);
      refresh();
    });
  }
  const svg = add(stage, "svg", { role: "img", height: 210,
    "aria-label": "probabilities of the sentiment, the model's and the exact ones" });
  legend(stage, [["LNLN", COLOURS.blue, "outline"], ["LNLN’s median", COLOURS.blue, ""],
    ["exact posterior", "currentColor", "bars"],
    ["posterior’s median", "currentColor", "7 4"]]);
  const says = add(stage, "p", { class: "says", role: "status", "aria-live": "polite" });

  function take(text) {
    const given = text.toLowerCase().match(/[^\s.,;!?]+/g) ?? [];
    state.words = given.slice(0, corpus.max_words);
    state.kept = state.words.map(() => true);
    words.replaceChildren();
    state.words.forEach((word, i) => {
      const known = idOf(word) !== corpus.unk;
      const button = add(words, "button", { type: "button", "aria-pressed": true,
        "aria-label": `${word}: click to erase`, style: "margin: 0 0.2em 0.2em 0" }, word);
      if (!known) {
        button.style.textDecoration = "line-through";
        button.title = "not in the vocabulary of 272 tokens: read as [UNK]";
      }
      button.addEventListener("click", () => {
        state.kept[i] = !state.kept[i];
        button.setAttribute("aria-pressed", state.kept[i]);
        button.textContent = state.kept[i] ? word : "▢";
        refresh();
      });
    });
    return refresh();
  }
  typed.addEventListener("input", () => typed.value.trim() && take(typed.value));

  let latest = 0;
  async function refresh() {
    const turn = ++latest;
    const found = await root.answer(state);
    if (turn !== latest) return;  // a later question is on its way
    svg.replaceChildren();
    const box = { left: 52, right: root.clientWidth - 8, top: 14, bottom: 164 };
    drawSentiment(svg, { grid, exact: found.posterior, model: found.probabilities, box,
      marks: [[found.model.best, COLOURS.blue, 2.5, ""],
        [found.exact.best, "currentColor", 2, "7 4"]] });
    says.textContent = `LNLN answers ${signed(found.model.best, 1)}, expecting to err by ` +
      `${found.model.error.toFixed(2)}, and estimates a completeness w = ` +
      `${found.w.toFixed(2)}. The best answer is ${signed(found.exact.best, 1)}; it errs ` +
      `by ${found.exact.error.toFixed(2)} on average, the Bayes limit here.`;
    root.dataset.answers = turn;
  }

  const fail = (text) => { told.textContent = text; start.hidden = true; };
  if (location.protocol === "file:") {
    fail("This page was opened as a file, and a browser does not run a model from " +
      "files. Start a server in the folder of the pages, python3 -m http.server 8000, " +
      "and open port 8000 of this machine. Until then, the figure above shows answers " +
      "that were computed beforehand.");
    return;
  }
  told.textContent = `Nothing is loaded yet: ${data.weight} MB.`;
  start.addEventListener("click", async () => {
    start.disabled = true;
    told.textContent = "loading …";
    try {
      ask = await openModel(files);
      await take(utterances[0].words.join(" "));
    } catch (error) {
      fail("The model could not be loaded. Its files are put beside the pages by " +
        "`make book`; the figure above shows answers that were computed beforehand. (" +
        `${error.message.slice(0, 120)})`);
      return;
    }
    told.textContent = "The model runs on this machine; nothing is sent anywhere.";
    start.hidden = true;
    stage.hidden = false;
    await refresh();
  });
}
