// Small drawings as SVG. Text goes in as text, never as markup.
const SVG = "http://www.w3.org/2000/svg";

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function shape(name, attributes, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// Round marks of an axis from `start` to `end`: multiples of 1, 2 or 5 times a power of ten, at most `most` steps apart.
function steps(start, end, most) {
  const power = 10 ** Math.floor(Math.log10((end - start) / most));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => (end - start) / size <= most);
  const first = Math.ceil(start / step - 1e-9);
  return Array.from({ length: Math.floor(end / step + 1e-9) - first + 1 }, (_, number) => (first + number) * step);
}

const short = (number) => String(Number(number.toPrecision(6)));

// A chart of lines over [0, right] x [bottom, top]. A line is {points: [[x, y]], band: [[x, low, high]]?, name, look}; a
// second band, `whole`, is drawn as dashed lines. `legend` has words for what else is drawn, by the class of its sign.
function chart({ lines, right, top, bottom = 0, xLabel, yLabel, percent = false, legend = {} }) {
  const width = Math.max(300, Math.min(720, document.querySelector("main").clientWidth - 40));
  const height = Math.round(Math.min(320, 180 + width / 6));
  const box = { left: 46, right: width - 12, top: 12, bottom: height - 40 };
  const x = (value) => box.left + (value / right) * (box.right - box.left);
  const y = (value) => box.bottom - ((value - bottom) / (top - bottom)) * (box.bottom - box.top);
  const picture = shape("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart", role: "img" });
  picture.setAttribute("aria-label", `${yLabel} against ${xLabel}: ${lines.map((line) => line.name).join(", ")}`);
  for (const value of steps(bottom, top, 5)) {
    picture.append(
      shape("path", { class: "grid", d: `M${box.left} ${y(value)}H${box.right}` }),
      shape("text", { x: box.left - 6, y: y(value) + 4, class: "end" }, percent ? short(100 * value) : short(value)),
    );
  }
  for (const value of steps(0, right, width < 480 ? 4 : 8)) {
    picture.append(shape("text", { x: x(value), y: box.bottom + 16, class: "middle" }, short(value)));
  }
  picture.append(shape("text", { x: (box.left + box.right) / 2, y: height - 6, class: "middle" }, xLabel));
  for (const { band, look } of lines.filter((line) => line.band)) {
    const up = band.map(([at, , high]) => `${x(at)} ${y(high)}`);
    const down = band.map(([at, low]) => `${x(at)} ${y(low)}`).reverse();
    picture.append(shape("path", { class: `band ${look}`, d: `M${[...up, ...down].join("L")}Z` }));
  }
  for (const { whole, look } of lines.filter((line) => line.whole)) {
    for (const end of [1, 2]) {
      const path = whole.map((point) => `${x(point[0])} ${y(point[end])}`).join("L");
      picture.append(shape("path", { class: `whole ${look}`, d: `M${path}` }));
    }
  }
  for (const { points, look } of lines) {
    const path = points.map(([at, value]) => `${x(at)} ${y(value)}`).join("L");
    if (points.length) picture.append(shape("path", { class: `line ${look}`, d: `M${path}` }));
  }
  const key = element("figcaption", {}, `${yLabel}. `);
  for (const { name, look } of lines) key.append(element("span", { class: `key ${look}` }, name));
  for (const [sign, words] of Object.entries(legend)) key.append(element("span", { class: `key ${sign} ${lines[0].look}` }, words));
  return element("figure", {}, picture, key);
}
