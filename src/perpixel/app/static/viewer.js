// <perpixel-viewer src="/results/TOKEN"> shows scene.json of that folder: layers over a picture, told apart by a line.
// Opacity, classes, ranges, colours, zoom and the value under the pointer need no answer from the server.
"use strict";

const STYLE = `
:host { display: block; color: var(--body-text-color, #222); font: 15px/1.45 system-ui, sans-serif; }
.bar, .controls { display: flex; flex-wrap: wrap; gap: .5rem 1.1rem; align-items: end; margin: 0 0 .6rem; }
.controls { margin: .7rem 0 0; }
label { display: flex; flex-direction: column; gap: .15rem; font-size: .85em; color: inherit; }
label > span { white-space: nowrap; }
.grow { flex: 1 1 9rem; }
input[type=range] { width: 100%; min-width: 7rem; min-height: 1.6rem; margin: 0; accent-color: #0072b2; }
select { font: inherit; padding: .3rem .5rem; border-radius: 6px; max-width: 17rem;
  color: inherit; background: var(--input-background-fill, Field); border: 1px solid var(--border-color-primary, #999); }
.stage { position: relative; overflow: auto; max-height: 78vh; border-radius: 8px;
  background: var(--background-fill-secondary, #eee); border: 1px solid var(--border-color-primary, #ccc); }
.sheet { position: relative; margin: 0 auto; }
canvas { display: block; width: 100%; height: 100%; touch-action: pan-x pan-y; cursor: crosshair; }
canvas.large { image-rendering: pixelated; }
.line { position: absolute; top: 0; bottom: 0; width: 2px; margin-left: -1px; background: #fff;
  box-shadow: 0 0 0 1px #000; pointer-events: none; }
.cross { position: absolute; box-sizing: border-box; border: 2px solid #fff; outline: 1px solid #000; pointer-events: none; }
.tag { position: absolute; top: 6px; padding: 1px 7px; border-radius: 5px; font-size: 12px; color: #fff;
  background: rgba(0,0,0,.65); pointer-events: none; }
.tag.a { left: 6px; } .tag.b { right: 6px; }
output { display: block; min-height: 1.5em; margin: .35rem 0 0; font-variant-numeric: tabular-nums; }
.hint, .note { color: inherit; opacity: .78; font-size: .88em; }
ul { list-style: none; margin: .6rem 0 0; padding: 0; display: flex; flex-wrap: wrap; gap: .3rem .9rem; }
li label { flex-direction: row; align-items: center; gap: .4rem; font-size: .95em; cursor: pointer; }
li input { width: 1.15rem; height: 1.15rem; margin: 0; accent-color: #0072b2; }
.swatch { width: 1.1rem; height: 1.1rem; border-radius: 4px; border: 1px solid rgba(128,128,128,.8); flex: none; }
.scale { display: flex; align-items: center; gap: .5rem; margin-top: .5rem; font-size: .9em; }
.scale span { white-space: nowrap; }
.scale canvas { height: 14px; width: 0; min-width: 0; flex: 1; border-radius: 4px; image-rendering: auto; cursor: default; }
:is(input, select, canvas):focus-visible { outline: 3px solid #0072b2; outline-offset: 2px; }
button { font: inherit; padding: .25rem .7rem; border-radius: 6px; cursor: pointer; color: inherit;
  background: var(--button-secondary-background-fill, ButtonFace); border: 1px solid var(--border-color-primary, #999); }
`;

const make = (tag, attributes = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), attributes);
  element.append(...children);
  return element;
};

const number = (value) => (Math.abs(value) >= 100 ? value.toFixed(1) : value.toPrecision(3));

class Viewer extends HTMLElement {
  static observedAttributes = ["src"];

  // The page may keep this element and give it another folder: then everything begins anew.
  async attributeChangedCallback() {
    const src = this.getAttribute("src"), root = this.shadowRoot || this.attachShadow({ mode: "open" });
    this.disconnectedCallback();
    delete this.dataset.ready;
    root.replaceChildren(make("style", { textContent: STYLE }), make("p", { textContent: "Loading the pictures ..." }));
    this.strip = this.at = null;
    const told = root.lastChild;
    let scene;
    try {
      const answer = await fetch(`${src}/scene.json`);
      if (!answer.ok) throw new Error("gone");
      scene = await answer.json();
      await Promise.all(scene.layers.map((layer) => this.load(src, scene, layer)));
    } catch (error) {
      told.textContent = "This result is gone: results are kept for an hour. Predict the image again.";
      return;
    }
    if (told.parentNode !== root) return; // another folder came meanwhile
    this.scene = scene;
    this.build(root);
  }

  disconnectedCallback() {
    this.observer?.disconnect();
  }

  connectedCallback() {
    if (this.dataset.ready) this.observer.observe(this);
  }

  async load(src, scene, layer) {
    const image = new Image();
    image.src = `${src}/${layer.file}`;
    await image.decode();
    const canvas = make("canvas", { width: scene.width, height: scene.height });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    layer.canvas = canvas;
    if (layer.key === "input" && image.width !== canvas.width) return;
    layer.data = context.getImageData(0, 0, canvas.width, canvas.height).data;
  }

  build(root) {
    const { scene } = this;
    this.by = Object.fromEntries(scene.layers.map((layer) => [layer.key, layer]));
    this.state = { left: scene.left, right: scene.right, split: scene.split, opacity: scene.opacity, zoom: 1, light: 1 };
    const first = scene.layers.find((layer) => layer.type === "numbers");
    if (first) Object.assign(this.state, { near: first.range[0], far: first.range[1], colors: "cividis" });
    root.lastChild.remove();
    this.canvas = make("canvas", { width: scene.width, height: scene.height, tabIndex: 0 });
    this.canvas.setAttribute("role", "img");
    this.line = make("div", { className: "line" });
    this.cross = make("div", { className: "cross", hidden: true });
    this.tags = [make("div", { className: "tag a" }), make("div", { className: "tag b" })];
    this.sheet = make("div", { className: "sheet" }, this.canvas, this.line, this.cross, ...this.tags);
    this.stage = make("div", { className: "stage" }, this.sheet);
    this.told = make("output", { id: "told" });
    this.note = make("div", { className: "note" });
    root.append(this.bar(), this.stage, this.told, this.note, this.controls(), this.legend());
    if (first) root.append(this.colorScale(first));
    this.point();
    this.observer = new ResizeObserver(() => this.fit());
    this.observer.observe(this);
    this.scene.layers.forEach((layer) => this.paint(layer));
    this.draw();
    this.dataset.ready = "yes";
  }

  bar() {
    const choose = (side, text) => {
      const select = make("select", { id: side });
      this.scene.layers.forEach((layer) => select.append(new Option(layer.label, layer.key)));
      select.value = this.state[side];
      select.onchange = () => { this.state[side] = select.value; this.draw(); };
      return make("label", {}, make("span", { textContent: text }), select);
    };
    return make("div", { className: "bar" }, choose("left", "Left of the line"), choose("right", "Right of the line"),
      this.slider("split", "Line", 0, 100, 1, (value) => `${value} %`));
  }

  controls() {
    const box = make("div", { className: "controls" },
      this.slider("opacity", "Opacity", 0, 100, 1, (value) => `${value} %`),
      this.slider("zoom", "Zoom", 1, 12, 0.25, (value) => `${value} x`));
    const first = this.scene.layers.find((layer) => layer.type === "numbers");
    if (!first) {
      // Pictures of the night are too dark to look at; values that are read stay what they are.
      const lit = () => { this.canvas.style.filter = `brightness(${this.state.light})`; };
      if (!this.scene.classes) box.append(this.slider("light", "Brightness", 1, 16, 0.5, (value) => `${value} x`, lit));
      return box;
    }
    const [low, high] = first.ends, step = (high - low) / 500 || 0.001, unit = this.scene.unit;
    const repaint = () => { this.scene.layers.forEach((layer) => this.paint(layer)); this.draw(); };
    const select = make("select", { id: "colors" });
    Object.keys(this.scene.colormaps).forEach((name) => select.append(new Option(name, name)));
    select.onchange = () => { this.state.colors = select.value; repaint(); };
    box.append(this.slider("near", unit ? "Colours from" : "Range from", low, high, step, (value) => `${number(+value)} ${unit}`, repaint),
      this.slider("far", "to", low, high, step, (value) => `${number(+value)} ${unit}`, repaint),
      make("label", {}, make("span", { textContent: "Colours" }), select));
    return box;
  }

  slider(key, text, min, max, step, say, changed = () => this.draw()) {
    const caption = make("span");
    const input = make("input", { type: "range", id: key, min, max, step });
    const name = () => { caption.textContent = `${text}: ${say(this.state[key])}`; input.setAttribute("aria-valuetext", say(this.state[key])); };
    input.value = this.state[key];
    input.oninput = () => { this.state[key] = +input.value; name(); changed(); };
    this.inputs = { ...this.inputs, [key]: () => { input.value = this.state[key]; name(); } };
    name();
    return make("label", { className: "grow" }, caption, input);
  }

  legend() {
    const list = make("ul");
    list.setAttribute("aria-label", "classes");
    (this.scene.classes || []).forEach((entry) => {
      const box = make("input", { type: "checkbox", checked: entry.shown });
      box.onchange = () => {
        entry.shown = box.checked;
        this.scene.layers.forEach((layer) => this.paint(layer));
        this.draw();
      };
      const swatch = make("span", { className: "swatch" });
      swatch.style.background = `rgb(${entry.color})`;
      const share = entry.share === null ? "" : ` ${(100 * entry.share).toFixed(1)} %`;
      list.append(make("li", {}, make("label", {}, box, swatch, `${entry.name}${share}`)));
    });
    return list;
  }

  colorScale(first) {
    const strip = make("canvas", { width: 256, height: 1 });
    strip.setAttribute("role", "img");
    this.strip = strip;
    this.ends = [make("span"), make("span")];
    this.nearIsLarge = first.near_is_large;
    return make("div", { className: "scale" }, this.ends[0], strip, this.ends[1]);
  }

  // The colours of a layer, kept until something about them changes.
  paint(layer) {
    if (layer.type === "picture" || layer.type === "confidence") return;
    const context = layer.canvas.getContext("2d"), size = layer.data.length;
    const image = context.createImageData(layer.canvas.width, layer.canvas.height), out = image.data;
    if (layer.type === "classes") {
      const table = this.scene.classes;
      for (let at = 0; at < size; at += 4) {
        const entry = table[layer.data[at]];
        if (entry && !entry.shown) continue;
        const color = entry ? entry.color : [128, 128, 128];
        out[at] = color[0]; out[at + 1] = color[1]; out[at + 2] = color[2]; out[at + 3] = 255;
      }
    } else {
      const colors = this.scene.colormaps[this.state.colors];
      const near = Math.min(this.state.near, this.state.far), span = Math.abs(this.state.far - this.state.near) || 1e-9;
      for (let at = 0; at < size; at += 4) {
        const value = layer.low + layer.step * (layer.data[at] * 256 + layer.data[at + 1]);
        const share = Math.min(1, Math.max(0, (value - near) / span));
        const color = layer.data[at + 2] ? [128, 128, 128] : colors[Math.round(255 * (layer.near_is_large ? 1 - share : share))];
        out[at] = color[0]; out[at + 1] = color[1]; out[at + 2] = color[2]; out[at + 3] = 255;
      }
    }
    context.putImageData(image, 0, 0);
  }

  draw() {
    const { state, by, canvas } = this, context = canvas.getContext("2d");
    const side = (key, from, to) => {
      context.save();
      context.beginPath();
      context.rect(from, 0, to - from, canvas.height);
      context.clip();
      context.drawImage(by.input.canvas, 0, 0);
      if (key !== "input") {
        context.globalAlpha = state.opacity / 100;
        context.drawImage(by[key].canvas, 0, 0);
      }
      context.restore();
    };
    const cut = Math.round((canvas.width * state.split) / 100);
    side(state.right, cut, canvas.width);
    side(state.left, 0, cut);
    this.line.style.left = `${state.split}%`;
    this.line.hidden = state.split <= 0 || state.split >= 100;
    this.tags[0].textContent = by[state.left].label;
    this.tags[0].hidden = state.split <= 0;
    this.tags[1].textContent = by[state.right].label;
    this.tags[1].hidden = state.split >= 100;
    const shown = [...new Set([state.split > 0 ? state.left : null, state.split < 100 ? state.right : null])];
    const told = shown.filter((key) => key && by[key].legend).map((key) => `${by[key].label}: ${by[key].legend}.`);
    this.note.textContent = told.join(" ");
    this.canvas.setAttribute("aria-label", `${this.scene.name}: ${shown.filter(Boolean).map((key) => by[key].label).join(" beside ")}.`
      + " Arrow keys read the value of a pixel.");
    this.drawScale();
    this.fit();
  }

  drawScale() {
    if (!this.strip) return;
    const context = this.strip.getContext("2d"), image = context.createImageData(256, 1);
    const colors = this.scene.colormaps[this.state.colors], unit = this.scene.unit;
    for (let at = 0; at < 256; at++) {
      image.data.set([...colors[this.nearIsLarge ? 255 - at : at], 255], 4 * at);
    }
    context.putImageData(image, 0, 0);
    const ends = [Math.min(this.state.near, this.state.far), Math.max(this.state.near, this.state.far)];
    const words = this.nearIsLarge ? ["far", "near"] : ["near", "far"];
    ends.forEach((value, index) => { this.ends[index].textContent = `${words[index]} ${number(value)} ${unit}`; });
    this.strip.setAttribute("aria-label", `colour scale from ${this.ends[0].textContent} to ${this.ends[1].textContent}`);
  }

  fit() {
    const { scene, stage, sheet } = this;
    const width = Math.min(stage.clientWidth, (0.74 * window.innerHeight * scene.width) / scene.height) * this.state.zoom;
    sheet.style.width = `${width}px`;
    sheet.style.height = `${(width * scene.height) / scene.width}px`;
    this.canvas.classList.toggle("large", width / scene.width > 3);
    if (this.at) this.mark();
  }

  // Pointer and keyboard: the value of a pixel, and the line.
  point() {
    const place = (event) => {
      const box = this.canvas.getBoundingClientRect();
      const share = (event.clientX - box.left) / box.width;
      const down = (event.clientY - box.top) / box.height;
      return [share, [Math.floor(share * this.scene.width), Math.floor(down * this.scene.height)]];
    };
    this.canvas.onpointermove = (event) => {
      const [share, at] = place(event);
      if (this.dragging) {
        this.state.split = Math.round(100 * Math.min(1, Math.max(0, share)));
        this.inputs.split();
        this.draw();
      }
      this.read(at);
    };
    this.canvas.onpointerdown = (event) => {
      const [share, at] = place(event);
      const near = Math.abs(share - this.state.split / 100) * this.canvas.clientWidth < 16;
      if (near && !this.line.hidden) {
        this.dragging = true;
        this.canvas.setPointerCapture(event.pointerId);
      }
      this.read(at);
    };
    this.canvas.onpointerup = this.canvas.onpointercancel = () => { this.dragging = false; };
    this.canvas.onkeydown = (event) => {
      const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!move) return;
      event.preventDefault();
      const step = event.shiftKey ? 10 : 1, [x, y] = this.at || [this.scene.width >> 1, this.scene.height >> 1];
      this.read([x + step * move[0], y + step * move[1]]);
      this.told.setAttribute("aria-live", "polite");
      this.cross.hidden = false;
      this.mark();
    };
    this.canvas.onblur = () => { this.cross.hidden = true; this.told.removeAttribute("aria-live"); };
    this.told.append(make("span", { className: "hint", textContent: "Point at the picture, or use the arrow keys in it, to read values." }));
  }

  mark() {
    const size = Math.max(8, this.canvas.clientWidth / this.scene.width);
    const [x, y] = [(this.at[0] + 0.5) / this.scene.width, (this.at[1] + 0.5) / this.scene.height];
    Object.assign(this.cross.style, { width: `${size}px`, height: `${size}px`,
      left: `calc(${100 * x}% - ${size / 2}px)`, top: `calc(${100 * y}% - ${size / 2}px)` });
  }

  read([x, y]) {
    const { width, height } = this.scene;
    x = Math.min(width - 1, Math.max(0, x));
    y = Math.min(height - 1, Math.max(0, y));
    this.at = [x, y];
    const parts = this.scene.layers.map((layer) => this.say(layer, 4 * (y * width + x))).filter(Boolean);
    this.told.textContent = `x ${x}, y ${y}: ${parts.join(", ")}`;
  }

  say(layer, at) {
    const { data } = layer;
    if (!data || layer.key === "error" || layer.key === "difference" || layer.key === "matched") return "";
    const name = layer.label.toLowerCase();
    if (layer.type === "classes") return `${name} ${this.scene.classes[data[at]]?.name ?? "unknown"}`;
    if (layer.type === "confidence") return `${name} ${(data[at] / 255).toFixed(2)}`;
    if (layer.type === "numbers") {
      const value = layer.low + layer.step * (data[at] * 256 + data[at + 1]);
      return `${name} ${data[at + 2] ? "unknown" : `${value.toFixed(3)} ${this.scene.unit}`}`;
    }
    return this.scene.classes || this.scene.unit !== undefined ? "" : `${name} ${data[at]} ${data[at + 1]} ${data[at + 2]}`;
  }
}

customElements.define("perpixel-viewer", Viewer);

// Gradio gives pictures among examples no name that a screen reader could say.
new MutationObserver(() => {
  document.querySelectorAll("button.gallery-item").forEach((button, index) => {
    if (!button.hasAttribute("aria-label")) button.setAttribute("aria-label", `Example ${index + 1}`);
  });
}).observe(document.documentElement, { childList: true, subtree: true });
