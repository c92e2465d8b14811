"use strict";
const all = (query, within = document) => [...within.querySelectorAll(query)];

// Tables sort by the column whose head is clicked, numbers as numbers.
const key = (row, column) => {
  const cell = row.cells[column];
  return cell.dataset.key ?? cell.textContent.trim();
};
const compared = new Intl.Collator(undefined, { numeric: true }).compare;
for (const head of all("table.sorts th")) {
  head.querySelector("button").addEventListener("click", () => {
    const rising = head.getAttribute("aria-sort") !== "ascending";
    all("th", head.parentNode).forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", rising ? "ascending" : "descending");
    const body = head.closest("table").tBodies[0];
    const order = (a, b) => compared(key(a, head.cellIndex), key(b, head.cellIndex));
    body.append(...[...body.rows].sort((a, b) => (rising ? order(a, b) : order(b, a))));
  });
}

// A step that is chosen shows what is known of it, and what it is one with.
const words = { name: "name", kind: "layers", from: "merged from", why: "because", code: "code" };
const meanings = JSON.parse(document.getElementById("codes").textContent);
const add = (list, tag, text) => list.appendChild(document.createElement(tag)).append(text);
const choose = (step) => {
  const graph = step.closest(".graph");
  const same = (other) => other === step || other.dataset.group === (step.dataset.group ?? "none");
  all(".step, .link", graph).forEach((other) => other.classList.toggle("chosen", same(other)));
  const detail = graph.querySelector(".stuck");
  const list = document.createElement("dl");
  for (const [field, word] of Object.entries(words)) {
    if (field !== "name" && step.dataset[field]) {
      add(list, "dt", word);
      add(list, "dd", step.dataset[field]);
    }
  }
  const meaning = meanings[step.dataset.code];
  if (meaning) {
    add(list, "dt", meaning.title);
    add(list, "dd", meaning.meaning);
    add(list, "dt", "what to do");
    add(list, "dd", meaning.way_out);
  }
  detail.replaceChildren();
  add(detail, "h3", step.dataset.name);
  detail.append(list);
};
for (const step of all(".step")) {
  step.addEventListener("click", () => choose(step));
  step.addEventListener("keydown", (event) => event.key === "Enter" && choose(step));
}

// On a narrow screen one side is shown at a time.
for (const button of all(".tabs button")) {
  button.addEventListener("click", () => {
    all("[data-shown]").forEach((graph) => (graph.dataset.shown = button.value));
    all(".tabs button").forEach((other) => {
      other.setAttribute("aria-pressed", String(other.value === button.value));
    });
  });
}

// What is typed is looked for in names, layers and reasons.
document.getElementById("find")?.addEventListener("input", (event) => {
  const wanted = event.target.value.trim().toLowerCase();
  const misses = (text) => wanted !== "" && !text.toLowerCase().includes(wanted);
  for (const step of all(".step")) {
    step.classList.toggle("dimmed", misses(Object.values(step.dataset).join(" ")));
  }
  for (const row of all("table.sorts tbody tr")) row.hidden = misses(row.textContent);
});
