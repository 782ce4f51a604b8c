// <perpixel-cloud src="/results/TOKEN/cloud.ply"> draws coloured points that can be turned by pointer and keyboard.
"use strict";

const CLOUD_STYLE = `
:host { display: block; color: var(--body-text-color, #222); font: 15px/1.45 system-ui, sans-serif; }
canvas { display: block; width: 100%; height: min(60vh, 480px); border-radius: 8px; cursor: grab; touch-action: pan-y;
  background: #14181d; border: 1px solid var(--border-color-primary, #ccc); box-sizing: border-box; }
canvas:focus-visible { outline: 3px solid #0072b2; outline-offset: 2px; }
p { margin: .4rem 0; opacity: .8; font-size: .88em; }
`;

const VERTEX = `#version 300 es
in vec3 place; in vec3 color; out vec3 shade;
uniform mat3 turn; uniform vec3 centre; uniform vec2 lens; uniform float away, size, depth;
void main() {
  vec3 seen = turn * (place - centre) - vec3(0.0, 0.0, away);
  float w = -seen.z;
  gl_Position = vec4(seen.x * lens.x, seen.y * lens.y, w * clamp(w / depth, 0.0, 1.0) * 2.0 - w, w);
  gl_PointSize = clamp(size * away / max(w, 1e-6), 1.0, 24.0);
  shade = color;
}`;
const FRAGMENT = `#version 300 es
precision mediump float; in vec3 shade; out vec4 paint;
void main() { paint = vec4(shade, 1.0); }`;

// The binary PLY that perpixel.pointcloud.write_ply writes: x y z as float32, red green blue as bytes.
const parsePly = (buffer) => {
  const head = new TextDecoder("ascii").decode(buffer.slice(0, 512));
  const start = head.indexOf("end_header\n") + 11, count = +head.match(/element vertex (\d+)/)[1];
  const view = new DataView(buffer, start), places = new Float32Array(3 * count), colors = new Uint8Array(3 * count);
  for (let index = 0; index < count; index++) {
    for (let axis = 0; axis < 3; axis++) {
      const value = view.getFloat32(15 * index + 4 * axis, true);
      places[3 * index + axis] = axis ? -value : value; // from OpenCV's axes to those of the screen
      colors[3 * index + axis] = view.getUint8(15 * index + 12 + axis);
    }
  }
  return { count, places, colors };
};

const median = (values) => values.sort()[values.length >> 1];

class Cloud extends HTMLElement {
  static observedAttributes = ["src"];

  async attributeChangedCallback() {
    const src = this.getAttribute("src"), root = this.shadowRoot || this.attachShadow({ mode: "open" });
    delete this.dataset.ready;
    const told = document.createElement("p"), style = document.createElement("style");
    style.textContent = CLOUD_STYLE;
    told.textContent = "Loading the points ...";
    root.replaceChildren(style, told);
    const answer = await fetch(src);
    if (!answer.ok) {
      told.textContent = "This point cloud is gone: results are kept for an hour. Predict the image again.";
      return;
    }
    const points = parsePly(await answer.arrayBuffer());
    if (told.parentNode !== root) return;
    const canvas = document.createElement("canvas");
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `Point cloud of ${points.count} points. Arrow keys turn it, plus and minus come closer and go away.`);
    root.insertBefore(canvas, told);
    told.textContent = "Drag or use the arrow keys to turn, + and - to come closer, 0 to begin anew. Click into it to use the wheel.";
    if (!this.start(canvas, points)) told.textContent = "This browser draws no WebGL 2; download the PLY or GLB file.";
    this.dataset.ready = "yes";
  }

  start(canvas, { count, places, colors }) {
    const gl = canvas.getContext("webgl2", { antialias: false, preserveDrawingBuffer: true });
    if (!gl) return false;
    const program = gl.createProgram();
    for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    gl.useProgram(program);
    for (const [name, data, type] of [["place", places, gl.FLOAT], ["color", colors, gl.UNSIGNED_BYTE]]) {
      const at = gl.getAttribLocation(program, name);
      gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
      gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
      gl.enableVertexAttribArray(at);
      gl.vertexAttribPointer(at, 3, type, type !== gl.FLOAT, 0, 0);
    }
    gl.enable(gl.DEPTH_TEST);
    const axis = (which) => median(Float32Array.from({ length: count }, (_, index) => places[3 * index + which]));
    const centre = [axis(0), axis(1), axis(2)], first = -centre[2];
    // What the camera itself sees fills the view at first.
    let wide = 0, high = 0;
    for (let index = 0; index < count; index++) {
      wide = Math.max(wide, Math.abs(places[3 * index] / places[3 * index + 2]));
      high = Math.max(high, Math.abs(places[3 * index + 1] / places[3 * index + 2]));
    }
    const state = { yaw: 0.35, pitch: 0.2, away: first * 1.1 };
    const uniform = (name) => gl.getUniformLocation(program, name);
    const draw = () => {
      const ratio = window.devicePixelRatio || 1;
      canvas.width = Math.max(1, canvas.clientWidth * ratio);
      canvas.height = Math.max(1, canvas.clientHeight * ratio);
      gl.viewport(0, 0, canvas.width, canvas.height);
      gl.clearColor(0.08, 0.095, 0.115, 1);
      gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
      const aspect = canvas.width / canvas.height, lens = Math.min(0.9 / high, (0.9 * aspect) / wide);
      const [cy, sy, cp, sp] = [Math.cos(state.yaw), Math.sin(state.yaw), Math.cos(state.pitch), Math.sin(state.pitch)];
      gl.uniformMatrix3fv(uniform("turn"), false, [cy, sp * sy, -cp * sy, 0, cp, sp, sy, -sp * cy, cp * cy]);
      gl.uniform3fv(uniform("centre"), centre);
      gl.uniform2f(uniform("lens"), lens / aspect, lens);
      gl.uniform1f(uniform("away"), state.away);
      gl.uniform1f(uniform("depth"), first * 40);
      gl.uniform1f(uniform("size"), (1.5 * canvas.height * first * lens * Math.sqrt((wide * high) / count)) / state.away);
      gl.drawArrays(gl.POINTS, 0, count);
    };
    const turn = (x, y, nearer = 1) => {
      state.yaw += x;
      state.pitch = Math.min(1.5, Math.max(-1.5, state.pitch + y));
      state.away = Math.min(first * 20, Math.max(first * 0.05, state.away * nearer));
      requestAnimationFrame(draw);
    };
    canvas.onpointerdown = (event) => { canvas.focus(); canvas.setPointerCapture(event.pointerId); };
    canvas.onpointermove = (event) => { if (event.buttons) turn(event.movementX / 200, event.movementY / 200); };
    canvas.onwheel = (event) => {
      if (this.shadowRoot.activeElement !== canvas) return;
      event.preventDefault();
      turn(0, 0, Math.exp(event.deltaY / 800));
    };
    const keys = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1],
      "+": [0, 0, 0.9], "=": [0, 0, 0.9], "-": [0, 0, 1.1] };
    canvas.onkeydown = (event) => {
      if (event.key === "0") Object.assign(state, { yaw: 0.35, pitch: 0.2, away: first * 1.1 });
      else if (!keys[event.key]) return;
      event.preventDefault();
      turn(...(keys[event.key] || [0, 0]));
    };
    new ResizeObserver(draw).observe(canvas);
    draw();
    return true;
  }
}

customElements.define("perpixel-cloud", Cloud);
