// What is drawn of one entry: strip, curve, training, and a table of its images.
const ORDERS = {
  "as in the data set": () => 0,
  "largest radius first": (a, b) => b.radius - a.radius,
  "smallest radius first": (a, b) => a.radius - b.radius,
  "by class": (a, b) => a.label - b.label,
};

const BANDS = {
  "of-band": "exact 95 % interval at one radius",
  "of-whole": "95 % band of the whole curve, at all radii at once",
};

function fillEntry(number) {
  const details = document.getElementById(`entry-${number + 1}`);
  const place = details.querySelector(".live");
  const entry = data.entries[number];
  if (place.childElementCount || !entry.verdict.some((verdict) => verdict !== NONE)) return;
  const found = answers(entry);
  const largest = largestRadius(found);

  const states = Object.keys(LEGEND).filter((state) => found.some((item) => item.state === state));
  const legend = element("ul", { class: "legend" });
  for (const state of states) {
    const sign = element("span", { class: `swatch ${state}`, "aria-hidden": "true" }, SIGNS[state]);
    const many = found.filter((item) => item.state === state).length;
    legend.append(element("li", {}, sign, `${LEGEND[state]}: ${many}`));
  }
  const choice = element("select", { "aria-label": "Order of the images" });
  for (const name of Object.keys(ORDERS)) choice.append(element("option", {}, name));
  const images = element("div");
  const draw = () => images.replaceChildren(...strip([...found].sort(ORDERS[choice.value]), largest, `images of ${entry.name}`));
  choice.addEventListener("change", draw);
  draw();
  place.append(
    element("h3", {}, "Certificates, image by image"),
    element("p", { class: "rule" }, `The bar under an image is its certified radius; the longest is ${rounded(largest)} in ${data.norm}.`),
    element("div", { class: "tools" }, legend, element("label", {}, "Order ", choice)),
    images,
  );

  if (entry.scored) {
    const lines = [curve(found, endOf(found), entry.name, "look-1")];
    place.append(element("h3", {}, "Certified accuracy against the radius"));
    place.append(chart({ lines, right: endOf(found), top: 1, xLabel: `certified radius (${data.norm})`, yLabel: "Certified accuracy (%)", percent: true, legend: BANDS }));
    const others = data.entries.flatMap((other, at) => (other.scored && at !== number ? [at] : []));
    if (others.length) {
      place.append(element("p", {}, element("a", { href: `#compare-${number + 1}-${others[0] + 1}` }, "Compare with another entry")));
    }
  }
  fillTraining(place, entry);
  place.append(imageTable(found, entry));
}

function fillTraining(place, entry) {
  const logs = entry.logs.map((number) => data.logs[number]).filter((log) => log.loss.length > 1);
  if (!logs.length) return;
  const epochs = Math.max(...logs.map((log) => log.loss.length));
  const known = (values) => values.flatMap((value, at) => (value === null ? [] : [[at + 1, value]]));
  const lines = (field) => logs.map((log, at) => ({ points: known(log[field]), name: log.label, look: `look-${1 + (at % 6)}` }));
  // A loss may be negative: some objectives reward diversity.
  const losses = logs.flatMap((log) => log.loss.map((value) => value ?? 0));
  const [bottom, top] = [Math.min(0, ...losses), Math.max(0, ...losses)];
  place.append(element("h3", {}, "Training"));
  const both = element("div", { class: "pair" });
  const right = { right: epochs, xLabel: "epoch" };
  both.append(chart({ lines: lines("validation"), ...right, top: 1, yLabel: "Noisy validation accuracy (%)", percent: true }));
  both.append(chart({ lines: lines("loss"), ...right, bottom, top: top > bottom ? top : 1, yLabel: "Training loss" }));
  place.append(both);
}

function imageTable(found, entry) {
  const heads = ["Image", "", "Class", "Clean", "Prediction", "Verdict", "Radius", "Nearest attack", "Reason"];
  const body = element("tbody");
  for (const item of found) {
    const cells = [item.id, "", item.label, item.clean < 0 ? "–" : item.clean, item.prediction < 0 ? "–" : item.prediction];
    cells.push(item.verdict || "not computed", rounded(item.radius), attackText(item.attack), item.reason);
    const row = element("tr", {}, ...cells.map((text) => element("td", {}, String(text))));
    row.children[1].append(picture(item.position));
    row.children[6].dataset.order = item.radius;
    row.children[7].dataset.order = item.attack === null ? -1 : Math.min(item.attack, Number.MAX_VALUE);
    body.append(row);
  }
  const head = element("tr", {}, ...heads.map((text) => element("th", { scope: "col" }, text)));
  const table = element("table", { class: "images" }, element("thead", {}, head), body);
  const scroll = element("div", { class: "scroll tall", role: "region", tabindex: "0", "aria-label": `table of images of ${entry.name}` }, table);
  const details = element("details", { class: "inner" }, element("summary", {}, `Every image as a table (${found.length})`), scroll);
  const fill = () => {
    const made = searchable(table, "images", {
      columnDefs: [{ targets: 1, orderable: false, searchable: false }],
      layout: { topStart: "search", topEnd: null, bottomStart: null, bottomEnd: null },
    });
    scroll.before(made.table().container().querySelector(".dt-layout-row"));
  };
  details.addEventListener("toggle", fill, { once: true });
  return details;
}
