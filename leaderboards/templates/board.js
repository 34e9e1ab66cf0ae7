// Sorting and searching are extras: where this fails, the table stays as it is.
const table = document.getElementById("board");
if (table) {
  const packed = atob(document.getElementById("bundle").textContent);
  const bytes = Uint8Array.from(packed, (character) => character.charCodeAt(0));
  const address = URL.createObjectURL(new Blob([bytes], { type: "text/javascript" }));
  const { default: DataTable } = await import(address);
  URL.revokeObjectURL(address);
  new DataTable(table, {
    autoWidth: false,
    columnDefs: [
      { targets: [0, 1], orderSequence: ["asc", "desc"] },
      { targets: "_all", orderSequence: ["desc", "asc"] },
    ],
    info: false,
    language: { search: "", searchPlaceholder: "Search entries", zeroRecords: "No entry matches." },
    layout: { topStart: "search", topEnd: null, bottomStart: null, bottomEnd: null },
    order: [],
    paging: false,
  });
  document.querySelector(".dt-search input").setAttribute("aria-label", "Search entries");
  // The search box stays in place while the table scrolls sideways.
  const scroll = table.closest(".scroll");
  scroll.before(document.querySelector(".dt-search"));
}

// A link to an entry opens it.
function open() {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  if (target instanceof HTMLDetailsElement) target.open = true;
}
addEventListener("hashchange", open);
open();
