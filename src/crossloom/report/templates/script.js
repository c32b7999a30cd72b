"use strict";
(() => {
  const root = document.documentElement;
  const $ = (id) => document.getElementById(id);
  const dark = () => (root.style.colorScheme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";

  // Light and dark: the system's choice until the reader makes one.
  $("theme").addEventListener("click", () => {
    root.style.colorScheme = dark() ? "light" : "dark";
    redraw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw());

  // Paper: light, and nothing folded away.
  let before = "";
  addEventListener("beforeprint", () => {
    before = root.style.colorScheme;
    root.style.colorScheme = "light";
    document.querySelectorAll("details:not([open])").forEach((d) => { d.open = true; d.dataset.folded = ""; });
    redraw();
  });
  addEventListener("afterprint", () => {
    root.style.colorScheme = before;
    document.querySelectorAll("details[data-folded]").forEach((d) => { d.open = false; delete d.dataset.folded; });
    redraw();
  });

  const copy = $("copy");
  if (copy) copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText($("command").textContent);
      copy.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren($("command"));
      copy.textContent = "Selected";
    }
  });

  let redraw = () => {};
  const plan = $("plan");
  if (!plan) return;
  const details = JSON.parse($("details").textContent);
  const arrays = [...plan.querySelectorAll("button.array")];
  const value = new Uint8Array(128);
  [...details.alphabet].forEach((letter, i) => { value[letter.charCodeAt(0)] = i; });
  let shown = null;

  // The programmed cells, one pixel for `shrink` × `shrink` of them, in the layer's colour.
  const draw = () => {
    const block = details.layers[shown.dataset.layer][shown.dataset.block];
    const [rows, columns] = block.used;
    const canvas = $("cells");
    canvas.width = block.width;
    canvas.height = Math.ceil(rows / details.shrink);
    canvas.style.width = `${100 * columns / details.columns}%`;
    canvas.style.height = `${100 * rows / details.rows}%`;
    canvas.setAttribute("aria-label", `Programmed cells of ${shown.getAttribute("aria-label")}`);
    const context = canvas.getContext("2d");
    const [red, green, blue] = getComputedStyle(shown).color.match(/[\d.]+/g).map(Number);
    const image = context.createImageData(canvas.width, canvas.height);
    for (let i = 0; i < block.map.length; i++) {
      image.data.set([red, green, blue, Math.round(255 * value[block.map.charCodeAt(i)] / 63)], 4 * i);
    }
    context.putImageData(image, 0, 0);
  };

  const run = (from, to) => (to - from === 1 ? `${from}` : `${from} … ${to - 1}`);
  const show = (array) => {
    if (shown) { shown.tabIndex = -1; shown.classList.remove("shown"); }
    shown = array;
    array.tabIndex = 0;
    array.classList.add("shown");
    const block = details.layers[array.dataset.layer][array.dataset.block];
    const [rows, columns] = block.used;
    $("array-title").textContent = array.getAttribute("aria-label").split(",")[0];
    const at = (element) => [...element.parentElement.children].indexOf(element);
    $("array-place").textContent = `tile ${at(array.closest(".tile"))}, macro ${at(array.parentElement)}, slot ${at(array)}`;
    const facts = [
      ["block", array.getAttribute("aria-label").split(", ").slice(1, -1).join(", ").replace("block ", "")],
      block.groups && ["groups", run(...block.groups)],
      ["core rows", run(...block.rows)],
      ["core columns", run(...block.outputs)],
      ["array rows", `${rows} of ${details.rows}`],
      ["array columns", `${columns} of ${details.columns}`],
      ["cells used", `${(100 * array.dataset.use).toFixed(1)} %`],
      ["mean level", `${block.level.toFixed(2)} of ${details.levels - 1}`],
      block.flipped !== null && ["flipped", `${block.flipped} columns`],
    ].filter(Boolean);
    $("array-facts").replaceChildren(...facts.flatMap(([name, text]) => {
      const dt = document.createElement("dt"), dd = document.createElement("dd");
      dt.textContent = name;
      dd.textContent = text;
      return [dt, dd];
    }));
    draw();
  };
  redraw = () => { if (shown) draw(); };
  $("cells-note").textContent = details.shrink === 1
    ? `One pixel is one cell: clear is level 0, full colour level ${details.levels - 1}. Inputs enter from the left, sums leave below.`
    : `One pixel is the mean level of ${details.shrink} × ${details.shrink} cells. Inputs enter from the left, sums leave below.`;
  const fullest = Math.max(...arrays.map((array) => Number(array.dataset.use)));
  if (arrays.length) show(arrays.find((array) => Number(array.dataset.use) === fullest));

  for (const event of ["pointerover", "focusin", "click"]) {
    plan.addEventListener(event, (e) => {
      const array = e.target.closest("button.array");
      if (array && array !== shown) show(array);
    });
  }

  // One tab stop for the plan; arrow keys walk it as it lies on the page.
  plan.addEventListener("keydown", (e) => {
    const i = arrays.indexOf(shown);
    let next = null;
    if (e.key === "ArrowRight") next = arrays[i + 1];
    else if (e.key === "ArrowLeft") next = arrays[i - 1];
    else if (e.key === "Home") next = arrays[0];
    else if (e.key === "End") next = arrays.at(-1);
    else if (e.key === "ArrowDown" || e.key === "ArrowUp") next = beside(e.key === "ArrowDown" ? 1 : -1);
    else return;
    e.preventDefault();
    if (next) next.focus();
  });
  const beside = (direction) => {
    const here = shown.getBoundingClientRect();
    let best = null, least = Infinity;
    for (const array of arrays) {
      const there = array.getBoundingClientRect();
      const down = direction * (there.top - here.top);
      const distance = down + 3 * Math.abs(there.left - here.left);
      if (down > here.height / 2 && distance < least) [best, least] = [array, distance];
    }
    return best;
  };

  // A layer's key keeps its arrays in sight and dims the others.
  const keys = [...document.querySelectorAll("button.key")];
  keys.forEach((key) => key.addEventListener("click", () => {
    const chosen = key.getAttribute("aria-pressed") !== "true";
    keys.forEach((other) => other.setAttribute("aria-pressed", String(chosen && other === key)));
    arrays.forEach((array) => array.classList.toggle("dim", chosen && array.dataset.layer !== key.dataset.layer));
    if (chosen) show(arrays.find((array) => array.dataset.layer === key.dataset.layer) || shown);
  }));

  const choices = [...document.querySelectorAll("button[data-paint]")];
  choices.forEach((choice) => choice.addEventListener("click", () => {
    choices.forEach((other) => other.setAttribute("aria-pressed", String(other === choice)));
    plan.dataset.paint = choice.dataset.paint;
    redraw();
  }));
})();
