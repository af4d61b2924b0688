// A sheet to draw on.  What is sent is each drawing as the model's characters look: black on white, in the middle, its
// longer side 0.7 of the sheet, strokes of one width.
const SIDE = 105, LONGER = 0.7, INK = 0.052, GREATEST = 4;
const sheet = element.querySelector("canvas"), strip = element.querySelector(".strip");
let strokes = [], stroke = null, kept = [];

function ink(canvas, lines, side) {
  const pen = canvas.getContext("2d");
  canvas.width = canvas.height = side;
  pen.fillStyle = "white";
  pen.fillRect(0, 0, side, side);
  pen.lineWidth = INK * side;
  pen.lineCap = pen.lineJoin = "round";
  for (const line of lines) {
    pen.beginPath();
    line.forEach(([x, y]) => pen.lineTo(x * side, y * side));
    pen.lineTo(line.at(-1)[0] * side + 0.01, line.at(-1)[1] * side);  // a dot is a line too
    pen.stroke();
  }
}

function centred(lines) {
  const places = lines.flat(), [left, top] = [0, 1].map((axis) => Math.min(...places.map((p) => p[axis])));
  const [right, bottom] = [0, 1].map((axis) => Math.max(...places.map((p) => p[axis])));
  const scale = Math.min((LONGER - INK) / Math.max(right - left, bottom - top, 1e-6), GREATEST);
  const to = ([x, y]) => [0.5 + (x - (left + right) / 2) * scale, 0.5 + (y - (top + bottom) / 2) * scale];
  return lines.map((line) => line.map(to));
}

function picture() {
  const canvas = document.createElement("canvas");
  ink(canvas, centred(strokes), SIDE);
  return canvas.toDataURL("image/png");
}

function send() {
  props.value = strokes.length ? [...kept, picture()] : [...kept];
  trigger("drawn");
}

function show() {
  ink(sheet, strokes, sheet.width);
  strip.replaceChildren(...kept.map((source) => Object.assign(new Image(), { src: source })));
}

function place(event) {
  const box = sheet.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
}

sheet.addEventListener("pointerdown", (event) => {
  event.preventDefault();
  sheet.setPointerCapture(event.pointerId);
  strokes.push((stroke = [place(event)]));
  show();
});
sheet.addEventListener("pointermove", (event) => {
  if (!stroke) return;
  stroke.push(place(event));
  show();
});
for (const end of ["pointerup", "pointercancel"])
  sheet.addEventListener(end, () => {
    if (stroke) send();
    stroke = null;
  });
element.querySelector(".wipe").addEventListener("click", () => {
  strokes = [];
  kept = [];
  show();
  send();
});
element.querySelector(".another")?.addEventListener("click", () => {
  if (!strokes.length) return;
  kept.push(picture());
  strokes = [];
  show();
});
show();
