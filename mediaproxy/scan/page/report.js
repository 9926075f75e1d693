"use strict";
const table = document.getElementById("files");
const body = table.tBodies[0];
const heads = [...table.tHead.rows[0].cells];
const value = (row, column) => row.cells[column].dataset.v ?? row.cells[column].textContent;

heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
  const now = head.getAttribute("aria-sort");
  const down = now === "none" ? head.classList.contains("n") : now === "ascending"; // of numbers the greatest first
  heads.forEach((other) => other.setAttribute("aria-sort", "none"));
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const rows = [...body.rows].sort((a, b) => {
    const [x, y] = [value(a, column), value(b, column)];
    return "v" in a.cells[column].dataset ? x - y : x.localeCompare(y);
  });
  body.append(...(down ? rows.reverse() : rows));
}));

const filter = document.getElementById("filter");
const show = () => {
  const wanted = filter.value.toLowerCase();
  let count = 0;
  for (const row of body.rows) {
    row.hidden = !row.textContent.toLowerCase().includes(wanted);
    count += !row.hidden;
  }
  document.getElementById("shown").textContent = `${count} of ${body.rows.length} rows`;
};
filter.addEventListener("input", show);
show();
