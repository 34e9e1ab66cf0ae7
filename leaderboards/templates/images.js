// The images of an entry: what the data say of each, and how that is shown.
const data = JSON.parse(document.getElementById("data").textContent);
for (const entry of data.entries) {
  for (const name of ["verdict", "prediction", "clean", "radius", "attack", "reason"]) entry[name] = data.columns[entry[name]];
}
const NONE = -1;
const NOTHING_FOUND = -2;
const sheet = document.getElementById("sheet").textContent;
if (sheet) document.documentElement.style.setProperty("--sheet", `url("data:image/png;base64,${sheet}")`);

const CERTIFIED = data.verdicts.indexOf("CERTIFIED");
const WORDS = { ABSTAINED: "abstained", UNKNOWN: "no proof", FALSIFIED: "refuted", UNSUPPORTED: "unsupported", TIMEOUT: "timed out", ERROR: "failed" };
const SIGNS = { right: "", wrong: "✕", open: "?", abstained: "–", false: "!", failed: "…", missing: "" };
const LEGEND = {
  right: "certified, right class",
  wrong: "certified, wrong class",
  open: "no proof",
  abstained: "abstains",
  false: "refuted by an audit",
  failed: "failed or timed out",
  missing: "not computed",
};

// One image under one entry.
function answer(entry, position) {
  const verdict = entry.verdict[position];
  const found = { position, id: data.images[position], label: data.labels[position], prediction: entry.prediction[position] };
  found.clean = entry.clean[position];
  found.verdict = verdict === NONE ? "" : data.verdicts[verdict];
  found.radius = entry.radius[position] === NONE ? 0 : data.lengths[entry.radius[position]];
  const attack = entry.attack[position];
  found.attack = attack === NONE ? null : attack === NOTHING_FOUND ? Infinity : data.lengths[attack];
  found.reason = entry.reason[position] === NONE ? "" : data.reasons[entry.reason[position]];
  found.correct = verdict === CERTIFIED && found.prediction === found.label;
  found.state = stateOf(found);
  return found;
}

function stateOf({ verdict, correct }) {
  if (!verdict) return "missing";
  if (verdict === "CERTIFIED") return correct ? "right" : "wrong";
  return { ABSTAINED: "abstained", FALSIFIED: "false", UNKNOWN: "open", UNSUPPORTED: "open" }[verdict] ?? "failed";
}

const answers = (entry) => data.images.map((_, position) => answer(entry, position));

// Radii are shown rounded down, as everywhere: rounding never certifies. Digits are cut off the shortest decimal that
// denotes the number.
function rounded(radius) {
  if (radius > 0 && radius < 0.001) {
    const [digits, exponent] = radius.toExponential().split("e");
    return `${digits.slice(0, 4)}e${exponent}`;
  }
  const [whole, part = ""] = String(radius).split(".");
  return `${whole}.${part.padEnd(3, "0").slice(0, 3)}`;
}

// What an attack found is no nearer than is shown: rounded up.
function roundedUp(distance) {
  const down = rounded(distance);
  if (Number(down) === distance) return down;
  const [digits, exponent] = down.split("e");
  return exponent ? `${(Number(digits) + 0.01).toFixed(2)}e${exponent}` : (Number(digits) + 0.001).toFixed(3);
}

const attackText = (attack) => (attack === null ? "–" : attack === Infinity ? "none found" : roundedUp(attack));

function told(found) {
  const parts = [`image ${found.id}, class ${found.label}`];
  if (!found.verdict) return `${parts[0]}: not computed`;
  if (found.verdict === "CERTIFIED") parts.push(`certified as ${found.prediction} within ${rounded(found.radius)}`);
  else parts.push(WORDS[found.verdict] ?? found.verdict);
  if (found.attack !== null) parts.push(`nearest other answer found at ${attackText(found.attack)}`);
  return parts.join("; ");
}

function picture(position) {
  const made = element("span", { class: "picture" });
  const tile = data.pictures?.tiles[position] ?? NONE;
  if (tile === NONE) made.textContent = data.labels[position];
  else {
    const { columns, rows } = data.pictures;
    const at = (number, of) => (of > 1 ? `${(100 * number) / (of - 1)}%` : "0%");
    made.classList.add("drawn");
    made.style.backgroundSize = `${100 * columns}% ${100 * rows}%`;
    made.style.backgroundPosition = `${at(tile % columns, columns)} ${at(Math.floor(tile / columns), rows)}`;
  }
  return made;
}

// A strip of images; what one is, is said below it when it is pointed at or tapped. The table says it too.
function strip(found, largest, name) {
  const list = element("ul", { class: "strip", tabindex: "0", "aria-label": name });
  const below = element("p", { class: "told", "aria-live": "polite" }, "Point at an image, or tap it.");
  for (const item of found) {
    const cell = element("li", { class: item.state, title: told(item) }, picture(item.position));
    if (SIGNS[item.state]) cell.append(element("span", { class: "sign", "aria-hidden": "true" }, SIGNS[item.state]));
    const bar = element("span", { class: "bar" });
    bar.style.width = `${largest > 0 ? (100 * item.radius) / largest : 0}%`;
    cell.append(element("span", { class: "track" }, bar), element("span", { class: "unseen" }, told(item)));
    for (const event of ["pointerenter", "click"]) cell.addEventListener(event, () => (below.textContent = told(item)));
    list.append(cell);
  }
  return [list, below];
}

const count = (found, radius) => found.filter((item) => item.correct && item.radius >= radius).length;

// Certified accuracy over the radius: steps that fall just after a radius that was earned. `band` has the interval that
// holds at one radius, `whole` that of the whole curve, which holds at all radii at once.
function curve(found, end, name, look) {
  const earned = found.filter((item) => item.correct).map((item) => item.radius).sort((a, b) => a - b);
  const images = found.length;
  const points = [];
  const band = [];
  let start = 0;
  for (let falls = 0; falls <= earned.length; falls += 1) {
    const left = earned.length - falls;
    const until = falls < earned.length ? earned[falls] : end;
    if (until > start || !points.length || falls === earned.length) {
      points.push([start, left / images], [until, left / images]);
      band.push([start, data.low[left], data.high[left]], [until, data.low[left], data.high[left]]);
    }
    start = until;
  }
  const whole = points.map(([at, value]) => [at, Math.max(0, value - data.band), Math.min(1, value + data.band)]);
  return { points, band, whole, name, look };
}

const largestRadius = (...all) => Math.max(0, ...all.flat().map((item) => item.radius));
const endOf = (...all) => 1.03 * Math.max(largestRadius(...all), data.radii.at(-1).value) || 1;
