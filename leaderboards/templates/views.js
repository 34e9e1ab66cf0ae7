// The address says which view is open: the board, an entry (#entry-3), or two of them compared (#compare-3-7).
const views = Object.fromEntries(["board-view", "compare", "entries"].map((id) => [id, document.getElementById(id)]));
document.documentElement.classList.add("scripts");

function show(open) {
  for (const [id, view] of Object.entries(views)) view.hidden = id !== open;
  document.body.dataset.view = open;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.getAttribute("href") === `#${open}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

// Here an entry is a page: its heading no longer folds it.
for (const summary of document.querySelectorAll("details.entry > summary")) {
  summary.tabIndex = -1;
  summary.addEventListener("click", (event) => event.preventDefault());
}

function follow() {
  const entry = /^#entry-(\d+)$/.exec(location.hash);
  const pair = /^#compare(?:-(\d+)-(\d+))?$/.exec(location.hash);
  const details = entry && document.getElementById(`entry-${entry[1]}`);
  if (details) {
    show("entries");
    for (const other of views.entries.querySelectorAll("details.entry")) other.hidden = other !== details;
    details.open = true;
    fillEntry(Number(entry[1]) - 1);
    details.querySelector(".name").focus({ preventScroll: true });
    scrollTo(0, 0);
  } else if (pair) {
    show("compare");
    fillComparison(Number(pair[1]) - 1, Number(pair[2]) - 1);
    scrollTo(0, 0);
  } else {
    show("board-view");
    const place = location.hash && document.getElementById(location.hash.slice(1));
    if (place) place.scrollIntoView();
  }
}
addEventListener("hashchange", follow);
follow();
