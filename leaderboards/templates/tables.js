// Sorting, searching and choosing columns are DataTables'. Where this fails, the tables stay as they are.
const packed = atob(document.getElementById("bundle").textContent);
const bytes = Uint8Array.from(packed, (character) => character.charCodeAt(0));
const address = URL.createObjectURL(new Blob([bytes], { type: "text/javascript" }));
const { default: DataTable } = await import(address);
URL.revokeObjectURL(address);

const narrow = matchMedia("(max-width: 48rem)").matches;

// Groups of columns by their class; on a narrow screen only the accuracies are shown at first.
const GROUPS = { "at-radius": "Each radius", "of-ranks": "Ranks with 95 %", "of-radii": "Average and median", "of-cost": "Answers and cost", "of-audit": "Audit" };

function searchable(table, words, more = {}) {
  const made = new DataTable(table, {
    autoWidth: false,
    info: false,
    language: { search: "", searchPlaceholder: `Search ${words}`, zeroRecords: `None of the ${words} matches.` },
    order: [],
    paging: false,
    ...more,
  });
  const container = made.table().container();
  container.querySelector(".dt-search input").setAttribute("aria-label", `Search ${words}`);
  return made;
}

for (const table of document.querySelectorAll("table.ranking")) {
  const groups = Object.entries(GROUPS).filter(([name]) => table.querySelector(`th.${name}`));
  const hidden = narrow ? groups.slice(1).map(([name]) => name) : [];
  // The search box and the buttons stay in place while the table scrolls.
  const scroll = table.closest(".scroll");
  const made = searchable(table, "entries", {
    columnDefs: [
      { targets: [0, 1, "of-ranks"], orderSequence: ["asc", "desc"] },
      ...hidden.map((name) => ({ targets: name, visible: false })),
      { targets: "_all", orderSequence: ["desc", "asc"] },
    ],
    layout: {
      topStart: "search",
      topEnd: { buttons: groups.map(([name, text]) => ({ extend: "columnToggle", columns: `.${name}`, text })) },
      bottomStart: null,
      bottomEnd: null,
    },
  });
  const bar = made.table().container().querySelector(".dt-layout-row");
  bar.querySelector(".dt-buttons").setAttribute("aria-label", "Columns shown");
  bar.querySelector(".dt-buttons").setAttribute("role", "group");
  scroll.before(bar);
}
