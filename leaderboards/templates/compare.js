// Two entries on the same images: curves, and at each radius the images that one certifies and the other does not.
const scored = data.entries.flatMap((entry, number) => (entry.scored ? [number] : []));

// Columns of the paired table: a heading, a text of what was counted, and what is told where it is pointed at.
const PAIRED = [
  ["Radius", ({ radius }) => radius.text],
  ["A (%)", ({ first, images }) => percent(first / images)],
  ["B (%)", ({ second, images }) => percent(second / images)],
  ["B − A (points)", ({ first, second, images }) => signed((100 * (second - first)) / images)],
  ["gained by B", ({ gained }) => gained.length],
  ["lost by B", ({ lost }) => lost.length],
  ["both", ({ both }) => both],
  ["neither", ({ images, both, gained, lost }) => images - both - gained.length - lost.length],
  ["p", ({ p }) => (p === null ? "–" : shownP(p)), ({ p }) => p ?? ""],
  ["Holm", ({ adjusted }) => (adjusted === null ? "–" : shownP(adjusted)), ({ adjusted }) => adjusted ?? ""],
];

function percent(share) {
  const shown = (100 * share).toFixed(1);
  return shown === "100.0" && share < 1 ? "99.9" : shown;
}

const signed = (points) => `${points > 0 ? "+" : points < 0 ? "−" : ""}${Math.abs(points).toFixed(1)}`;

// What is counted at each radius; tested where both were computed here.
function pairs(first, second, tested) {
  const found = data.radii.map((radius) => {
    const holds = (item) => item.correct && item.radius >= radius.value;
    const counted = { radius, images: first.length, first: count(first, radius.value), second: count(second, radius.value) };
    counted.gained = second.filter((item, at) => holds(item) && !holds(first[at]));
    counted.lost = first.filter((item, at) => holds(item) && !holds(second[at]));
    counted.both = counted.first - counted.lost.length;
    counted.p = tested ? mcnemar(counted.lost.length, counted.gained.length) : null;
    return counted;
  });
  const adjusted = tested ? holm(found.map(({ p }) => p)) : [];
  found.forEach((counted, at) => (counted.adjusted = adjusted[at] ?? null));
  return found;
}

function nameOf(number) {
  const { name, mark } = data.entries[number];
  return mark ? `${name} (${mark})` : name;
}

function chooser(label, chosen) {
  const select = element("select", { "aria-label": `Entry ${label}` });
  for (const number of scored) {
    const option = element("option", { value: number }, nameOf(number));
    option.selected = number === chosen;
    select.append(option);
  }
  return select;
}

function fillComparison(one, other) {
  const place = document.querySelector("#compare .live");
  if (scored.length < 2) {
    place.replaceChildren(element("p", {}, "Two complete entries are needed to compare; this board has fewer."));
    return;
  }
  const a = scored.includes(one) ? one : scored[0];
  const b = scored.includes(other) ? other : scored.find((number) => number !== a);
  const choices = [chooser("A", a), chooser("B", b)];
  for (const select of choices) {
    select.addEventListener("change", () => {
      const [left, right] = choices.map((choice) => Number(choice.value) + 1);
      history.replaceState(null, "", `#compare-${left}-${right}`);
      fillComparison(left - 1, right - 1);
      document.querySelectorAll("#compare select")[choices.indexOf(select)].focus();
    });
  }
  const [first, second] = [a, b].map((number) => answers(data.entries[number]));
  const end = endOf(first, second);
  // The bands of whole curves would hide each other here; the entries' own pages have them.
  const lines = [curve(first, end, `A: ${nameOf(a)}`, "look-1"), curve(second, end, `B: ${nameOf(b)}`, "look-2")].map(
    ({ whole, ...line }) => line,
  );
  const table = element("table", { class: "paired" });
  table.append(element("thead", {}, element("tr", {}, ...PAIRED.map(([head]) => element("th", { scope: "col" }, head)))));
  const body = element("tbody");
  const tested = [a, b].every((number) => data.entries[number].paired);
  const counted = pairs(first, second, tested);
  for (const pair of counted) {
    const cells = PAIRED.map(([, text, told]) => element("td", told ? { title: told(pair) } : {}, String(text(pair))));
    body.append(element("tr", {}, ...cells));
  }
  table.append(body);

  const radius = element("select", { "aria-label": "Radius" });
  for (const pair of counted) radius.append(element("option", {}, pair.radius.text));
  const most = counted.map((pair) => pair.gained.length + pair.lost.length);
  radius.selectedIndex = most.indexOf(Math.max(...most));
  const differing = element("div");
  const draw = () => {
    const { gained, lost } = counted[radius.selectedIndex];
    const largest = largestRadius(first, second);
    differing.replaceChildren();
    for (const [words, found] of [["Gained by B", gained], ["Lost by B", lost]]) {
      differing.append(element("h4", {}, `${words}: ${found.length}`));
      if (found.length) differing.append(...strip(found, largest, words));
    }
  };
  radius.addEventListener("change", draw);
  draw();
  place.replaceChildren(
    element("p", { class: "rule" }, `Certified and right on the same ${data.images.length} images.`),
    element("div", { class: "choices" }, ...choices.map((choice, at) => element("label", {}, element("b", { class: `look-${at + 1}` }, "AB"[at]), " ", choice))),
    ...(a === b ? [element("p", { class: "warning" }, "A and B are the same entry.")] : []),
    chart({ lines, right: end, top: 1, xLabel: `certified radius (${data.norm})`, yLabel: "Certified accuracy (%), exact 95 % intervals at one radius", percent: true }),
    element("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": "At each radius" }, table),
    element("p", { class: "rule tests" }, tested ? READING_OF_TESTS : READING_WITHOUT_TESTS),
    element("h3", {}, "Images that differ"),
    element("label", {}, "At radius ", radius),
    differing,
  );
}
