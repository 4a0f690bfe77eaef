// Filters the rows of a page's tables as one types; "/" goes to the field. Without this script
// the pages show the same, and all of it.
"use strict";
const tables = document.querySelectorAll("table");
const main = document.querySelector("main");
if (tables.length > 0) {
  const field = document.createElement("input");
  field.type = "search";
  field.id = "filter";
  field.placeholder = "filter ( / )";
  field.setAttribute("aria-label", "show only rows that have this text");
  main.querySelector("h1").after(field);
  field.addEventListener("input", () => {
    const wanted = field.value.toLowerCase();
    for (const row of document.querySelectorAll("tbody tr")) {
      row.hidden = !row.textContent.toLowerCase().includes(wanted);
    }
  });
  document.addEventListener("keydown", (event) => {
    const writes = ["INPUT", "TEXTAREA"].includes(document.activeElement.tagName);
    if (event.key === "/" && !writes) {
      event.preventDefault();
      field.focus();
    }
  });
}
